//! How many requests are in flight, and the bound on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluicegate_core::{Code, Error, Result};

/// Counts the requests in flight and refuses those above the bound.
#[derive(Clone)]
pub struct Limit {
    bound: usize,
    // Relaxed everywhere: it is a count, and orders nothing else.
    in_flight: Arc<AtomicUsize>,
}

/// Room for one request. Dropping it frees the room.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

impl Limit {
    /// Room for `bound` requests.
    pub fn new(bound: usize) -> Self {
        Self { bound, in_flight: Arc::default() }
    }

    /// How many are in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether half of the room is taken.
    pub(crate) fn is_half_full(&self) -> bool {
        self.in_flight() > self.bound / 2
    }

    pub(crate) fn admit(&self) -> Result<Permit> {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= self.bound {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            let message = format!("{} requests are in flight; try again later, or raise limits.in_flight", self.bound);
            return Err(Error::new(Code::TooBusy, message));
        }
        Ok(Permit(self.in_flight.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_comes_back_when_a_permit_is_dropped() {
        let limit = Limit::new(1);
        let permit = limit.admit().expect("room");
        assert_eq!(limit.admit().expect_err("no room").code(), Code::TooBusy);
        drop(permit);
        assert!(limit.admit().is_ok());
        assert_eq!(limit.in_flight(), 0);
    }
}
