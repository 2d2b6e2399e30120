//! Who says when listeners stop: two tokens, of which the second is for what did not finish.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// The end of all listeners. Clones are the same end.
#[derive(Clone, Debug)]
pub struct Shutdown {
    begun: CancellationToken,
    cut: CancellationToken,
    grace: Duration,
}

impl Shutdown {
    /// One that has not begun. Work in flight gets this long once it has.
    pub fn new(grace: Duration) -> Self {
        Self { begun: CancellationToken::new(), cut: CancellationToken::new(), grace }
    }

    /// Begins: no more connections, and the last requests of those that are open.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Waits until it has begun.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// How long work in flight gets.
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// Ends what is left.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// The two, for one connection: with waiters of its own, so that connections share no lock while they run.
    pub(super) fn of_connection(&self) -> (CancellationToken, CancellationToken) {
        (self.begun.child_token(), self.cut.child_token())
    }
}
