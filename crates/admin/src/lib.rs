//! Routes for those who operate the gateway: what serves, what moves, and the way to move it by hand.
//!
//! [`ops`] has those of the `ops` address.

pub mod ops;
pub mod rollout;
