//! Tells a receiver every kind of event, for tests with what receivers use: `emit URL SECRET`, where the secret may be `file:PATH`.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use serde_json::json;
use sluicegate_core::{Code, Error, Result};
use sluicegate_outbound::Secret;
use sluicegate_outbound::webhook::{Event, Hook, Hooks, Kind, Pace};

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    match emit() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn emit() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, secret] = &*arguments else { return Err(Error::new(Code::BadConfig, "emit URL SECRET")) };
    let hook = Hook {
        url: url.parse()?,
        secret: Some(Secret::read(secret)?),
        events: Vec::new(),
        timeout: Duration::from_secs(30),
        max_attempts: 3.try_into().expect("3 is not 0"),
        pace: Pace::default(),
    };
    let hooks = Hooks::start(vec![hook], "/sluicegate")?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    for (number, kind) in Kind::ALL.iter().enumerate() {
        let data = json!({"candidate": 3, "why": "größer als 0,1 %", "evidence": {"errors": 12, "requests": 40_000}});
        let time_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        hooks.emit(&Event { id: format!("fraud-1-{number}"), kind: *kind, model: "fraud".to_owned(), time_ms, data });
    }
    hooks.stop(Duration::from_secs(60));
    Ok(())
}
