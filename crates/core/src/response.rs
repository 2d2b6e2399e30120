//! A prediction as every transport sends it out: outputs, and which version really answered.

use std::sync::Arc;

use crate::{Digest, ModelName, Tensor};

/// A finished prediction.
#[derive(Clone, Debug)]
pub struct Response {
    /// The model that answered.
    pub model: ModelName,
    /// The version that answered.
    pub version: u64,
    /// The digest of that version's content.
    pub digest: Digest,
    /// The caller's id, where one was given.
    pub id: Option<String>,
    /// The outputs that were asked for, in the order asked; each with its place in the signature.
    pub outputs: Vec<Output>,
    /// Whether it was in the model's cache; `None` where that was not looked at.
    pub cached: Option<Cached>,
}

/// What the cache had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// The answer.
    Hit,
    /// Not the answer, which was run for.
    Miss,
}

impl Cached {
    /// As it is told to the caller.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
        }
    }
}

impl Response {
    /// Bytes of all outputs' elements.
    pub fn payload(&self) -> usize {
        self.outputs.iter().map(|output| output.tensor.payload()).sum()
    }
}

/// One output of a [`Response`].
#[derive(Clone, Debug)]
pub struct Output {
    /// The output's name.
    pub name: Arc<str>,
    /// Its place in the signature's outputs.
    pub place: usize,
    /// Its value.
    pub tensor: Tensor,
}
