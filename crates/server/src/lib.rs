//! The process: configuration, telemetry, signals, listening, wiring, commands.
//!
//! In reading order: [`command`] (what one may type), [`app`] (the wiring of a running gateway), `config` (a crate of its own: what an operator
//! may say, and every error in it), [`telemetry`] (logs and metrics), [`signal`] (when to stop), [`listen`] (addresses,
//! connections, drain). The binary is a thin `main.rs` over this crate. It never looks into a request or a model: that is
//! the work of the crates to its left.

pub mod app;
pub mod command;
pub mod listen;
pub mod moving;
pub mod signal;
pub mod telemetry;

pub use sluicegate_config as config;
