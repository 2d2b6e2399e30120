//! Reads a version's files once, checks them against the manifest, and gives the version its digest.

use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use sluicegate_core::{Code, Digest, Error, Result};
use sluicegate_engine::ModelFile;

use crate::manifest::{FILE, Manifest};
use crate::source::{Found, dir};

/// The file that is loaded, where no configuration names another one.
pub(crate) const MODEL: &str = "model.onnx";

/// How the names of files of safetensors end.
const WEIGHTS: &str = "safetensors";

/// The file that is loaded, out of those that there are.
fn model(files: &[PathBuf]) -> &'static str {
    let has = |name: &str| files.iter().any(|file| file == Path::new(name));
    let weights = || files.iter().any(|file| file.extension().is_some_and(|extension| extension == WEIGHTS));
    if !has(MODEL) && has(ModelFile::SAFETENSORS) && weights() { ModelFile::SAFETENSORS } else { MODEL }
}

/// A version whose files are what its manifest says.
pub struct Verified {
    /// Where it was found.
    pub found: Found,
    /// What its makers say of it.
    pub manifest: Manifest,
    /// The digest of all of its files: the SHA-256 of `sha256sum`'s own output over them, in the order of their names. Those of
    /// an ensemble are followed by its configuration.
    pub digest: Digest,
    /// The model file; none for an ensemble.
    pub model: PathBuf,
    /// Its bytes, those that were hashed.
    pub bytes: Vec<u8>,
    /// What beside the model has no effect, as the engine that loaded it says.
    pub remark: Option<String>,
}

impl Verified {
    /// Whether the manifest vouches for the model file. Without that only time tells whether a copy has ended.
    pub fn is_vouched(manifest: &Manifest) -> bool {
        let weights = || manifest.files.keys().any(|name| name.ends_with(WEIGHTS));
        manifest.files.contains_key(MODEL) || manifest.files.contains_key(ModelFile::SAFETENSORS) && weights()
    }

    /// Reads and checks the files.
    ///
    /// # Errors
    /// [`Code::BadManifest`] naming the first file that is missing or has another digest; [`Code::Io`] where one cannot be
    /// read.
    pub fn read(found: Found, manifest: Manifest) -> Result<Self> {
        let config = found.config()?.cloned();
        let files = dir::files(&found.path).map_err(|error| Error::new(Code::Io, format!("the version's directory: {error}")))?;
        let wanted = config.as_ref().and_then(|config| config.model_file()).unwrap_or_else(|| model(&files));
        let ensemble = config.as_ref().filter(|config| config.ensemble.is_some());
        let io = |name: &str, error: std::io::Error| Error::new(Code::Io, format!("{name}: {error}"));
        let mut lines = Sha256::new();
        let mut model: Option<(PathBuf, Vec<u8>)> = None;
        let mut unseen = manifest.files.clone();
        for file in files {
            let name = file.to_string_lossy().into_owned();
            let path = found.path.join(&file);
            // A model with weights in files of their own may lie with them in a directory that is called as the model would be.
            let is_model =
                name == wanted || file.parent() == Some(Path::new(wanted)) && file.file_name() == Path::new(wanted).file_name();
            let digest = if is_model && ensemble.is_none() {
                let content = std::fs::read(&path).map_err(|error| io(&name, error))?;
                let digest = Digest::sha256(&Sha256::digest(&content));
                model = Some((path, content));
                digest
            } else {
                hash(&path).map_err(|error| io(&name, error))?
            };
            match unseen.remove(&name) {
                Some(expected) if expected != digest => {
                    let message = format!("{name} has the digest {digest}, {FILE} says {expected}");
                    return Err(Error::new(Code::BadManifest, message));
                }
                _ => {}
            }
            let hex = digest.as_str().trim_start_matches("sha256:");
            lines.update(format!("{hex}  {name}\n"));
        }
        if let Some(name) = unseen.keys().next() {
            return Err(Error::new(Code::BadManifest, format!("{name} is missing, {FILE} names it")));
        }
        let (model, bytes) = match (model, ensemble) {
            (Some(model), _) => model,
            (None, Some(config)) => {
                let hex = config.digest.as_str().trim_start_matches("sha256:");
                lines.update(format!("{hex}  {}\n", sluicegate_triton::FILE));
                Default::default()
            }
            (None, None) => {
                return Err(Error::new(Code::BadManifest, format!("there is no {wanted} in the version's directory")));
            }
        };
        let digest = Digest::sha256(&lines.finalize());
        Ok(Self { model, found, manifest, digest, bytes, remark: None })
    }
}

fn hash(path: &std::path::Path) -> std::io::Result<Digest> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::sha256(&hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}
