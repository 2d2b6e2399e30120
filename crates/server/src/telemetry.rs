//! What the process says about itself: [`log`], [`metrics`], and the facts of its own process and build ([`process`]).

pub mod log;
pub mod metrics;
pub mod process;
