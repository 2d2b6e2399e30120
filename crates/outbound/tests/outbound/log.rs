//! No secret of a webhook is in the log, at any level; the client's own lines of debugging are what the gateway leaves out.

use std::io;
use std::sync::Arc;

use crate::receiver::{Act, Receiver, hook, start, wait_for};
use parking_lot::Mutex;
use sluicegate_outbound::Secret;
use sluicegate_outbound::webhook::Hook;
use tracing_subscriber::EnvFilter;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn keys_passwords_and_paths_are_in_no_line_of_the_log() {
    let log = Log::default();
    let writer = log.clone();
    // As the gateway's log does it: the client tells whole addresses when it is debugged.
    let filter = EnvFilter::new("ureq=info,trace");
    tracing_subscriber::fmt().with_ansi(false).with_env_filter(filter).with_writer(move || writer.clone()).init();

    let receiver = Receiver::start(&[Act::Answer(500, ""), Act::Answer(404, "")]);
    let url = format!("http://me:P4SSW0RD@{}/P4TH?key=QU3RY", receiver.address);
    let secret = Some(Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    let bad = Hook {
        secret: secret.clone(),
        max_attempts: 1.try_into().expect("not 0"),
        ..hook("http://me:P4SSW0RD@127.0.0.1:1/P4TH")
    };
    let started = start(vec![Hook { secret, ..hook(&url) }, bad]);
    started.emit(2);
    started.wait_counts(0, &[("delivered", 1), ("refused", 1), ("retries", 1)]);
    started.wait_counts(1, &[("given_up", 2)]);

    let text = || String::from_utf8(log.0.lock().clone()).expect("text");
    for expected in
        ["event refused: http://127.0.0.1:", "event given up: http://127.0.0.1:1 cannot be reached", "event delivered"]
    {
        // A line is written after its event is counted.
        wait_for(expected, || text().contains(expected));
    }
    let hides = ["P4SSW0RD", "bWU6UDRTU1cwUkQ", "P4TH", "QU3RY", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"];
    for line in text().lines() {
        assert!(!hides.iter().any(|hidden| line.contains(hidden)), "{line}");
    }
}
