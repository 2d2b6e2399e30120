//! A registry in a directory of its own: versions are written, published, broken, and removed.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use sluicegate_core::Digest;

use crate::safetensors;

/// A directory for one test: `models/`, and what else the test puts beside it. It is removed in the end.
#[derive(Debug)]
pub struct Folder(tempfile::TempDir);

impl Default for Folder {
    fn default() -> Self {
        let folder = Self(tempfile::tempdir().expect("a directory for the test"));
        fs::create_dir(folder.models()).expect("a directory for its models");
        folder
    }
}

impl Folder {
    /// The directory.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The registry in it.
    pub fn models(&self) -> PathBuf {
        self.path().join("models")
    }

    /// The directory of a version.
    pub fn version(&self, model: &str, version: u64) -> PathBuf {
        self.models().join(model).join(version.to_string())
    }

    /// Writes files into a version's directory, which is made where there is none.
    pub fn write(&self, model: &str, version: u64, files: &[(&str, &[u8])]) {
        write(&self.version(model, version), files);
    }

    /// Publishes a version as careful writers do: whole, with digests, under a hidden name that is then changed.
    pub fn publish(&self, model: &str, version: u64, onnx: &[u8]) {
        self.publish_with(model, version, onnx, "");
    }

    /// The same, with more text for its `model.yaml`.
    pub fn publish_with(&self, model: &str, version: u64, onnx: &[u8], manifest: &str) {
        let manifest = format!("{manifest}\nfiles: {{ model.onnx: '{}' }}\n", digest(onnx));
        let hidden = self.models().join(model).join(format!(".{version}.part"));
        write(&hidden, &[("model.onnx", onnx), ("model.yaml", manifest.as_bytes())]);
        fs::rename(&hidden, self.version(model, version)).expect("the version gets its name");
    }

    /// Publishes a version in safetensors in the same way.
    pub fn publish_net(&self, model: &str, version: u64, config: &serde_json::Value, tensors: &[safetensors::Named<'_>]) {
        let (config, weights) = (config.to_string(), safetensors::file(tensors));
        let manifest =
            format!("files: {{ config.json: '{}', model.safetensors: '{}' }}\n", digest(config.as_bytes()), digest(&weights));
        let hidden = self.models().join(model).join(format!(".{version}.part"));
        write(
            &hidden,
            &[("config.json", config.as_bytes()), ("model.safetensors", &weights), ("model.yaml", manifest.as_bytes())],
        );
        fs::rename(&hidden, self.version(model, version)).expect("the version gets its name");
    }

    /// Removes a version, hidden first, so that nobody sees half of it.
    pub fn remove(&self, model: &str, version: u64) {
        let hidden = self.models().join(model).join(format!(".{version}.gone"));
        fs::rename(self.version(model, version), &hidden).expect("the version loses its name");
        fs::remove_dir_all(hidden).expect("the version is removed");
    }
}

/// The digest of a file as a manifest has it.
pub fn digest(bytes: &[u8]) -> Digest {
    Digest::sha256(&Sha256::digest(bytes))
}

/// The digest of a whole version: that of `sha256sum`'s lines over its files, in the order of their names.
pub fn version_digest(files: &[(&str, &[u8])]) -> Digest {
    let line = |(name, bytes): &(&str, &[u8])| format!("{}  {name}\n", digest(bytes).as_str().trim_start_matches("sha256:"));
    let mut lines: Vec<_> = files.iter().collect();
    lines.sort();
    digest(lines.into_iter().map(line).collect::<String>().as_bytes())
}

fn write(directory: &Path, files: &[(&str, &[u8])]) {
    fs::create_dir_all(directory).expect("a directory for the version");
    for (name, bytes) in files {
        fs::write(directory.join(name), bytes).expect("a file of the version");
    }
}
