//! A prediction request as every transport hands it in: decoded, not yet checked against a signature.

use std::sync::Arc;
use std::time::Duration;

use crate::Tensor;

/// Whether an answer that was given before will do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// It will.
    #[default]
    Allowed,
    /// It must be found anew, and may be kept.
    Anew,
    /// It must be found anew, and not be kept.
    Never,
}

/// A decoded request. Tensors are in the caller's order, which need not be the model's.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The caller's own id for it, echoed in the answer.
    pub id: Option<String>,
    /// Named inputs.
    pub inputs: Vec<(Arc<str>, Tensor)>,
    /// Names of the outputs wanted; empty means all.
    pub outputs: Vec<String>,
    /// 0 is the default, 1 the most urgent.
    pub priority: u64,
    /// How long the caller is willing to wait.
    pub timeout: Option<Duration>,
    /// Whether an answer that was given before will do.
    pub reuse: Reuse,
}
