//! Runs one prepared batch on one device. Blocking; knows no HTTP, no queue and no clock.
//!
//! In reading order: [`Engine`] (the trait alone), [`device`], [`options`], [`open`](mod@open) (which engine loads a
//! model), `onnx` (ONNX Runtime), `tract`. Every engine passes the one suite in `tests/conformance.rs`.

pub mod device;
pub mod open;
pub mod options;

mod onnx;
mod tract;

pub use device::Device;
pub use open::{Engines, Opened};
pub use options::{EngineChoice, Options};

use sluicegate_core::{Result, Tensor};

/// One model loaded on one device: an instance. It runs one batch at a time.
pub trait Engine: Send {
    /// Runs the model once.
    ///
    /// `inputs` are in the order of the signature and fit it. `wanted` are places in the signature's outputs, without
    /// repetition; the answer holds exactly those, in that order.
    ///
    /// # Errors
    /// [`Code::RunFailed`](sluicegate_core::Code::RunFailed), whatever code the runtime gave it: the inputs fit the
    /// signature, so the fault is the model's.
    fn run(&mut self, inputs: &[Tensor], wanted: &[usize]) -> Result<Vec<Tensor>>;
}
