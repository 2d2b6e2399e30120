//! When the process is asked to stop: SIGTERM from the platform, SIGINT from a terminal.

use sluicegate_core::{Code, Error, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for both signals. While it lives, neither ends the process by itself.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// A signal that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
}

impl Received {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }

    /// The exit code of a process that it ends: 128 and its number.
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Terminate => 143,
            Self::Interrupt => 130,
        }
    }
}

impl Signals {
    /// Begins to listen. Do it before the addresses are open, so that no signal is missed.
    ///
    /// # Errors
    /// [`Code::Io`] where the system refuses.
    pub fn install() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|error| Error::new(Code::Io, format!("signals cannot be received: {error}")));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for the next of the two.
    pub async fn terminated(&mut self) -> Received {
        tokio::select! {
            _ = self.terminate.recv() => Received::Terminate,
            _ = self.interrupt.recv() => Received::Interrupt,
        }
    }

    /// Ends the process at the next signal, at once: for one who does not want to wait for the drain.
    pub fn exit_at_next(mut self) {
        tokio::spawn(async move {
            let received = self.terminated().await;
            tracing::warn!(signal = received.name(), "second signal: ending at once, requests in flight are lost");
            #[expect(clippy::disallowed_methods, reason = "a second signal asks to leave out what destructors would wait for")]
            std::process::exit(received.exit_code());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_signals_are_received_and_end_nothing_by_themselves() {
        let mut signals = Signals::install().expect("signals");
        for (name, expected) in [("-TERM", Received::Terminate), ("-INT", Received::Interrupt)] {
            let sent = std::process::Command::new("sh").args(["-c", &format!("kill {name} {}", std::process::id())]).status();
            assert!(sent.expect("kill runs").success());
            assert_eq!(signals.terminated().await, expected);
        }
    }
}
