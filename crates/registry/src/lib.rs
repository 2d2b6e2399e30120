//! The life of a version, one file per step. Each step takes the type that the step before it made.
//!
//! ```text
//! source -> manifest -> verify -> load -> warm -> publish -> (serves) -> drain
//! Found     Manifest    Verified  Loaded  Warm    Live                   Gone
//! ```
//!
//! A live version may have a `cache` of its answers. `configs` reads what a model that was made for Triton has beside its versions,
//! `settle` says who wins where that and the operator say something; for an ensemble, `assemble` takes the place of load and warm.
//! `reconcile` compares what is declared with what is live and starts the steps; `status` remembers how far each version came. A
//! failure marks that version alone: what is live stays untouched until something better has answered its warm-up.

pub mod assemble;
pub mod cache;
pub mod configs;
pub mod drain;
pub mod load;
pub mod manifest;
pub mod publish;
pub mod reconcile;
pub mod sample;
pub mod settle;
pub mod source;
pub mod spec;
pub mod status;
pub mod verify;
pub mod warm;

pub use publish::{Live, Published, Served, Table, Work};
pub use reconcile::Registry;
pub use reconcile::control::Control;
pub use reconcile::resting::Waker;
pub use sluicegate_engine::{Footprint, Place};
pub use spec::{Also, Declared, Overlay, Policy, Spec, Want};
pub use status::{State, Status};
