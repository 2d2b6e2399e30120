//! Where versions come from. A source only lists and locates; it never decides what is served.

pub mod dir;

use std::path::PathBuf;
use std::time::Duration;

use sluicegate_core::ModelName;

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
}

/// A cheap summary of names, sizes and change times: equal means that nothing was touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u64);
