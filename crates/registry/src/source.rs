//! Where versions come from. A source only lists and locates; it never decides what is served.

pub mod dir;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sluicegate_core::{ModelName, Result};

use sluicegate_triton::Config;
use sluicegate_triton::ensemble::Ensemble;

/// A version that a source has, whether complete or not.
#[derive(Clone, Debug)]
pub struct Found {
    /// The model.
    pub model: ModelName,
    /// The version's number.
    pub version: u64,
    /// The directory with its files.
    pub path: PathBuf,
    /// Changes whenever a file of it does.
    pub fingerprint: Fingerprint,
    /// How long nothing in it has changed, as far as the source can tell.
    pub still: Duration,
    /// The model's `config.pbtxt`, where it has one; none for a version that has a `model.yaml` of its own.
    pub config: Option<Result<Arc<Config>>>,
    /// Whether there is a `config.pbtxt` that such a `model.yaml` takes the place of.
    pub overruled: bool,
}

impl Found {
    /// The model's configuration, where this version has one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn config(&self) -> Result<Option<&Arc<Config>>> {
        self.config.as_ref().map(|config| config.as_ref().map_err(Clone::clone)).transpose()
    }

    /// The steps, where the model is an ensemble.
    pub fn ensemble(&self) -> Option<&Arc<Ensemble>> {
        self.config.as_ref()?.as_ref().ok()?.ensemble.as_ref()
    }

    /// The model's directory, where its versions are.
    pub fn model_directory(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }
}

/// A cheap summary of names, sizes and change times: equal means that nothing was touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u64);
