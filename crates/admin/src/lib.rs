//! Routes for those who operate the gateway: what serves, what moves, and the way to move it by hand.
//!
//! [`ops`] has those of the `ops` address, [`rollout`] what moves, `outside` what those ask who move pods and not models.

pub mod ops;
mod outside;
pub mod rollout;
