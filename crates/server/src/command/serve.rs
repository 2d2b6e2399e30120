//! `sluicegate serve`: start, say where, wait for a signal, drain, end.

use sluicegate_core::Fault;

use super::{COULD_NOT, Source, USAGE, WELL, complain, say};
use crate::app::App;
use crate::telemetry::log;

/// Serves until a signal. Returns the exit code.
pub(super) fn run(source: &Source) -> u8 {
    let (config, watched) = match source.watch() {
        Ok(read) => read,
        Err(errors) => {
            errors.iter().for_each(complain);
            return USAGE;
        }
    };
    let served = log::init(&config.log, &config.otel.service).and_then(|levels| {
        let runtime = crate::app::runtime(1)?;
        let outcome = runtime.block_on(async {
            let app = App::start(config, watched, levels)?;
            say(app.welcome());
            app.serve().await;
            Ok(())
        });
        // What still runs has had its grace.
        runtime.shutdown_background();
        outcome
    });
    match served {
        Ok(()) => WELL,
        Err(error) => {
            complain(&error);
            if error.fault() == Fault::Us { COULD_NOT } else { USAGE }
        }
    }
}
