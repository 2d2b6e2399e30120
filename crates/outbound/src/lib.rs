//! What the gateway itself asks of other servers: events that it tells, and figures that it reads.
//!
//! In reading order: [`secret`], [`address`], `client` (one HTTP client for all of it),
//! `names` (where they lead), [`webhook`] (events, in order and signed),
//! [`prometheus`] (one figure of a server of Prometheus), [`collector`] (spans told to a receiver). All of it blocks: its callers are threads of their own, never requests.

pub mod address;
mod client;
pub mod collector;
mod names;
pub mod prometheus;
pub mod secret;
pub mod webhook;

pub use address::Address;
pub use client::Failure;
pub use secret::Secret;
