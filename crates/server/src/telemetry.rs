//! What the process says about itself: [`log`] (for machines by `ecs`), [`metrics`], [`traces`], the facts of its own process and build
//! ([`process`]), and the GPUs (`gpu`).

mod ecs;
mod gpu;
pub mod log;
pub mod metrics;
pub mod process;
pub mod traces;
