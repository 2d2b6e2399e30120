//! A directory as a registry: `<model>/<version>/<files>`. Names that begin with a dot are not looked at.

use std::collections::HashSet;
use std::fs::{self, DirEntry, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sluicegate_core::{Code, Error, ModelName, Result};

use super::{Fingerprint, Found};
use crate::manifest;
use sluicegate_triton as triton;

use crate::configs::{self, Beside, Configs};

/// Most files in one version, and most directories below each other in it.
const MAX_FILES: usize = 10_000;
const MAX_DEPTH: usize = 8;

/// A directory that is looked at again and again.
#[derive(Clone, Debug)]
pub struct Directory {
    /// Where it is.
    pub root: PathBuf,
}

/// All that a look found: versions, and the directories whose names cannot be served.
#[derive(Debug, Default)]
pub struct Listing {
    /// Every version of every model.
    pub found: Vec<Found>,
    /// Every model directory, also those without versions.
    pub models: Vec<ModelName>,
    /// What is wrong with the layout, one sentence each.
    pub remarks: Vec<Error>,
}

impl Directory {
    /// Looks at the directory.
    ///
    /// # Errors
    /// [`Code::Io`] where the root cannot be read: then nothing is known, which is not the same as nothing being there.
    pub fn list(&self, now: SystemTime) -> Result<Listing> {
        self.list_with(now, &mut Configs::default())
    }

    /// Looks at the directory, and reads those configurations anew that have changed since the last look.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn list_with(&self, now: SystemTime, configs: &mut Configs) -> Result<Listing> {
        let mut listing = Listing::default();
        let mut seen = HashSet::new();
        let read = |path: &Path| entries(path).map_err(|error| Error::new(Code::Io, format!("{}: {error}", path.display())));
        for model in read(&self.root)? {
            if !model.path().is_dir() {
                continue;
            }
            let name = model.file_name().to_string_lossy().into_owned();
            let name: ModelName = match name.parse() {
                Ok(name) => name,
                Err(error) => {
                    listing.remarks.push(error.at(model.path().display()));
                    continue;
                }
            };
            match read(&model.path()) {
                Ok(entries) => {
                    let beside = configs.look(&name, &model.path(), &entries);
                    entries.iter().for_each(|entry| version(&name, entry, beside.as_ref(), now, &mut listing));
                }
                Err(error) => listing.remarks.push(error),
            }
            seen.insert(model.path());
            listing.models.push(name);
        }
        configs.keep(&self.root, &seen);
        Ok(listing)
    }
}

fn version(model: &ModelName, entry: &DirEntry, beside: Option<&Beside>, now: SystemTime, listing: &mut Listing) {
    let path = entry.path();
    let name = entry.file_name();
    if !path.is_dir() || (beside.is_some() && name == triton::WARMUP) {
        return;
    }
    let Some(version) = name.to_str().filter(|n| !n.starts_with('0')).and_then(|n| n.parse().ok()) else {
        let rule = "a version directory is called by a whole number without leading zeros";
        listing.remarks.push(Error::new(Code::BadManifest, format!("{}: {rule}", path.display())));
        return;
    };
    // A directory that goes away while it is read was not complete: the next look tells.
    let Ok(files) = fingerprint(&path) else { return };
    let overruled = beside.is_some() && path.join(manifest::FILE).is_file();
    let beside = beside.filter(|_| !overruled);
    // The versions of an ensemble may be empty: all that it is stands in its configuration. Where that is broken, it tells why.
    let own = files.or_else(|| {
        let may_be_empty = |beside: &Beside| beside.config.as_ref().map_or(true, |config| config.ensemble.is_some());
        beside.is_some_and(may_be_empty).then_some((Fingerprint(0), SystemTime::UNIX_EPOCH))
    });
    let Some((own, changed)) = own else { return };
    let (fingerprint, changed) = match beside {
        Some(beside) => (Fingerprint(configs::hash(&(own, beside.fingerprint))), changed.max(beside.changed)),
        None => (own, changed),
    };
    let still = now.duration_since(changed).unwrap_or_default();
    let config = beside.map(|beside| beside.config.clone());
    listing.found.push(Found { model: model.clone(), version, path, fingerprint, still, config, overruled });
}

/// Every file below a version's directory, as paths relative to it, sorted; hidden ones left out.
///
/// # Errors
/// Where a directory cannot be read, or the tree is too deep or has too many files.
pub fn files(version: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    collect(version, version, 0, &mut files)?;
    files.sort();
    Ok(files)
}

fn collect(root: &Path, below: &Path, depth: usize, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!("more than {MAX_DEPTH} directories below each other")));
    }
    for entry in entries(below)? {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, depth + 1, files)?;
        } else if let Ok(relative) = path.strip_prefix(root) {
            files.push(relative.to_owned());
        }
        if files.len() > MAX_FILES {
            return Err(io::Error::other(format!("more than {MAX_FILES} files")));
        }
    }
    Ok(())
}

fn entries(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.retain(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    entries.sort_by_key(DirEntry::file_name);
    Ok(entries)
}

/// `None` where the directory holds no file yet.
fn fingerprint(version: &Path) -> io::Result<Option<(Fingerprint, SystemTime)>> {
    let mut hasher = DefaultHasher::new();
    let mut newest = None;
    for file in files(version)? {
        // Follows links: a mounted ConfigMap or volume is a tree of them.
        let meta = fs::metadata(version.join(&file))?;
        let changed = changed(&meta);
        (&file, meta.len(), changed).hash(&mut hasher);
        newest = newest.max(Some(changed));
    }
    Ok(newest.map(|newest| (Fingerprint(hasher.finish()), newest)))
}

/// The time of the last change to content or inode, which, unlike the time of modification, a copying tool cannot set back.
#[cfg(unix)]
pub(crate) fn changed(meta: &Metadata) -> SystemTime {
    use std::os::unix::fs::MetadataExt;
    let seconds = u64::try_from(meta.ctime()).unwrap_or_default();
    let nanos = u32::try_from(meta.ctime_nsec()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
}

#[cfg(not(unix))]
pub(crate) fn changed(meta: &Metadata) -> SystemTime {
    meta.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().expect("has a parent")).expect("creates");
        fs::write(path, text).expect("writes");
    }

    #[test]
    fn hidden_names_are_not_looked_at_and_odd_ones_are_told() {
        let root = tempfile::tempdir().expect("a directory");
        for path in
            ["a/1/model.onnx", "a/02/model.onnx", "a/x/model.onnx", ".b/1/m", "c d/1/m", "a/.tmp/m", "a/3/.part", "README.md"]
        {
            write(&root.path().join(path), "x");
        }
        let listing = Directory { root: root.path().to_owned() }.list(SystemTime::now()).expect("readable");
        let found: Vec<_> = listing.found.iter().map(|f| (f.model.as_str(), f.version)).collect();
        assert_eq!(found, [("a", 1)]);
        assert_eq!(listing.remarks.len(), 3, "{:?}", listing.remarks);
    }

    #[test]
    fn any_change_to_a_file_changes_the_fingerprint() {
        let root = tempfile::tempdir().expect("a directory");
        let file = root.path().join("a/1/model.onnx");
        let look = || Directory { root: root.path().to_owned() }.list(SystemTime::now()).expect("readable").found[0].fingerprint;
        write(&file, "one");
        let first = look();
        assert_eq!(look(), first);
        write(&file, "two");
        let second = look();
        assert_ne!(second, first);
        write(&root.path().join("a/1/more"), "");
        assert_ne!(look(), second);
    }

    #[test]
    fn a_configuration_belongs_to_each_version_without_a_manifest_and_is_read_anew_when_it_changes() {
        let root = tempfile::tempdir().expect("a directory");
        let mut configs = Configs::default();
        let mut look =
            || Directory { root: root.path().to_owned() }.list_with(SystemTime::now(), &mut configs).expect("readable").found;
        write(&root.path().join("a/1/model.onnx"), "x");
        write(&root.path().join("a/2/model.onnx"), "x");
        write(&root.path().join("a/2/model.yaml"), "");
        let plain = look();
        write(&root.path().join("a/config.pbtxt"), "max_batch_size: 4");
        write(&root.path().join("a/labels.txt"), "no");
        let first = look();
        let config = |found: &[Found]| found[0].config().expect("a good one").cloned().expect("there");
        assert_eq!(config(&first).model.max_batch_size, 4);
        assert_ne!(plain[0].fingerprint, first[0].fingerprint);
        assert!(first[1].config.is_none() && first[1].overruled, "its manifest takes the place of the configuration");
        assert_eq!(plain[1].fingerprint, first[1].fingerprint);
        let again = look();
        assert!(std::sync::Arc::ptr_eq(&config(&first), &config(&again)), "it is read once");
        write(&root.path().join("a/labels.txt"), "yes and no");
        let labelled = look();
        assert_ne!(labelled[0].fingerprint, first[0].fingerprint, "its labels belong to it");
        assert!(std::sync::Arc::ptr_eq(&config(&first), &config(&labelled)));
        write(&root.path().join("a/config.pbtxt"), "max_batch_size: many");
        assert!(look()[0].config().is_err());
    }

    #[test]
    fn an_ensemble_needs_no_files_in_its_versions() {
        let root = tempfile::tempdir().expect("a directory");
        let steps = "platform: \"ensemble\" ensemble_scheduling { step [ { model_name: \"m\" input_map { key: \"x\" value: \"a\" } output_map { key: \"y\" value: \"b\" } } ] }";
        let ends = "input [ { name: \"a\" data_type: TYPE_FP32 dims: [ 1 ] } ] output [ { name: \"b\" data_type: TYPE_FP32 dims: [ 1 ] } ]";
        write(&root.path().join("e/config.pbtxt"), &format!("{steps} {ends}"));
        fs::create_dir(root.path().join("e/1")).expect("made");
        let look = || Directory { root: root.path().to_owned() }.list(SystemTime::now()).expect("readable").found;
        assert!(matches!(&look()[..], [only] if only.ensemble().is_some()), "{:?}", look());
        write(&root.path().join("e/config.pbtxt"), "platform: \"ensemble\"");
        assert!(matches!(&look()[..], [only] if only.config().is_err()), "a broken one is there to be told: {:?}", look());
    }

    #[test]
    fn a_root_that_cannot_be_read_is_an_error_and_not_an_empty_registry() {
        assert!(Directory { root: "/nowhere/at/all".into() }.list(SystemTime::now()).is_err());
    }
}
