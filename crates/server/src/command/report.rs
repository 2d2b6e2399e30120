//! `sluicegate report replay`: the decisions of rollouts, decided again from what was kept of them.

use std::io::Read;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;
use sluicegate_rollout::record::Record;

use super::{COULD_NOT, NO, WELL, complain, say};

/// The largest file that is read: the events of a model are a thousand at the most.
const MOST: u64 = 1 << 30;

/// What is reported.
#[derive(Args)]
pub(super) struct Report {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Decide again, from its record, each decision of `GET /models/{model}/events`. Exits with 1 where one comes out otherwise.
    Replay {
        /// The file with the answer; `-` is standard input.
        file: PathBuf,
    },
}

/// Replays. Returns the exit code.
pub(super) fn run(report: &Report) -> u8 {
    let What::Replay { file } = &report.what;
    let mut text = String::new();
    let read = match file.to_str() {
        Some("-") => std::io::stdin().take(MOST).read_to_string(&mut text),
        _ => std::fs::File::open(file).and_then(|file| file.take(MOST).read_to_string(&mut text)),
    };
    let parsed = read
        .map_err(|error| error.to_string())
        .and_then(|_| serde_json::from_str::<Value>(&text).map_err(|error| error.to_string()));
    let events = match parsed {
        Ok(Value::Array(events)) => events,
        Ok(mut object) if object["events"].is_array() => object["events"].as_array_mut().map(std::mem::take).unwrap_or_default(),
        Ok(event) => vec![event],
        Err(error) => {
            complain(format_args!("{}: {error}", file.display()));
            return COULD_NOT;
        }
    };
    let mut code = WELL;
    for event in events {
        let id = event["id"].as_str().unwrap_or("an event without an id").to_owned();
        let record = event.get("record").cloned().unwrap_or(event);
        match serde_json::from_value::<Record>(record) {
            Err(error) => {
                complain(format_args!("{id}: no record of a decision: {error}"));
                code = COULD_NOT;
            }
            Ok(record) => match record.replay() {
                Ok(()) => say(format_args!("{id}: {}: the same: {}", record.decision.kind.name(), record.decision.sentence)),
                Err(difference) => {
                    say(format_args!("{id}: {difference}"));
                    code = code.max(NO);
                }
            },
        }
    }
    code
}
