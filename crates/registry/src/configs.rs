//! The files beside a model's versions: its `config.pbtxt`, read anew when it has changed, and what that names.

use std::collections::{HashMap, HashSet};
use std::fs::DirEntry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use sluicegate_core::{ModelName, Result};
use sluicegate_triton::{Config, FILE, MAX_BYTES, WARMUP, read};

use crate::source::dir;

/// What a model's directory has beside its versions.
pub(crate) struct Beside {
    pub(crate) config: Result<Arc<Config>>,
    /// Of the names, sizes and change times of the files beside the versions.
    pub(crate) fingerprint: u64,
    /// When the last of them changed.
    pub(crate) changed: SystemTime,
}

/// The configurations that were read, by their paths: a file is read anew when it has changed.
#[derive(Debug, Default)]
pub struct Configs(HashMap<PathBuf, (u64, Result<Arc<Config>>)>);

impl Configs {
    /// What a model has beside its versions; `None` without a configuration.
    pub(crate) fn look(&mut self, model: &ModelName, directory: &Path, entries: &[DirEntry]) -> Option<Beside> {
        let path = directory.join(FILE);
        let own = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let stamp = hash(&(own.len(), dir::changed(&own)));
        let config = match self.0.get(&path) {
            Some((seen, config)) if *seen == stamp => config.clone(),
            _ => read(&path, MAX_BYTES).and_then(|bytes| Config::parse(model, &bytes)).map(Arc::new),
        };
        self.0.insert(path, (stamp, config.clone()));
        let mut files: Vec<PathBuf> = entries.iter().map(|entry| directory.join(entry.file_name())).collect();
        files.retain(|path| !path.is_dir());
        let warmup = directory.join(WARMUP);
        files.extend(dir::files(&warmup).unwrap_or_default().into_iter().map(|file| warmup.join(file)));
        let (mut hasher, mut changed) = (DefaultHasher::new(), dir::changed(&own));
        for file in files {
            let Ok(meta) = file.metadata() else { continue };
            changed = changed.max(dir::changed(&meta));
            (file, meta.len(), dir::changed(&meta)).hash(&mut hasher);
        }
        Some(Beside { config, fingerprint: hasher.finish(), changed })
    }

    /// Forgets those below a root whose models were not seen.
    pub(crate) fn keep(&mut self, root: &Path, seen: &HashSet<PathBuf>) {
        self.0.retain(|path, _| !path.starts_with(root) || path.parent().is_some_and(|model| seen.contains(model)));
    }
}

pub(crate) fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
