//! Counts the requests that never found a version. Those that did are counted by [`Routed`](crate::Routed).

use metrics::counter;
use sluicegate_core::{Error, metric};

/// Counts a request that was refused before a version was found for it.
pub fn unrouted(error: &Error) {
    counter!(metric::UNROUTED, "code" => error.code().name()).increment(1);
}
