//! Runs one prepared batch on one device. Blocking; knows no HTTP, no queue and no clock.
//!
//! In reading order: [`Engine`] (the trait alone), [`device`], [`options`], [`open`](mod@open) (which engine loads a
//! model), `graph` (what a file says of itself; over `wire`), `onnx` (ONNX Runtime), `tract`, `reading` (a graph of
//! tokens as a model that reads text), `candle` (safetensors), [`system`], `gpu` (what a driver tells),
//! `footprint` (memory that models take). Every engine passes the one suite in `tests/conformance.rs`.

pub mod device;
pub mod open;
pub mod options;
pub mod system;

#[cfg(feature = "candle")]
mod candle;
mod footprint;
mod gpu;
mod graph;
mod onnx;
#[cfg(feature = "text")]
mod reading;
mod sentence;
#[cfg(feature = "tract")]
mod tract;
mod wire;

pub use device::{Device, Gpus};
pub use footprint::{Budget, Footprint, Place};
pub use gpu::memory_taken_on;
pub use open::{Engines, ModelFile, Opened, Search};
pub use options::{EngineChoice, Options};
pub use sluicegate_core::{TextOptions, TokenCount};
pub use system::{lower_priority, release_memory, resident_memory};

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
    /// signature, so the fault is the model's. Only a text that is too long and not to be cut is the caller's:
    /// [`Code::InvalidTensor`](sluicegate_core::Code::InvalidTensor). The instance can run the next batch.
    fn run(&mut self, inputs: &[Tensor], wanted: &[usize]) -> Result<Vec<Tensor>>;

    /// The tokens of the last run, where the model reads text.
    fn tokens(&self) -> Option<TokenCount> {
        None
    }
}

/// Runs `work` and turns a panic in it into its message: a model must never take the process along.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
    })
}
