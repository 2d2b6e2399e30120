//! `model.yaml`: what its makers say of a version beyond what the model file says itself.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sluicegate_core::signature::{About, Feature, Kind, TensorSpec};
use sluicegate_core::{Code, Digest, Error, Result, Signature};

/// Its name in a version's directory.
pub const FILE: &str = "model.yaml";

/// Largest manifest that is read.
const MAX_BYTES: usize = 1024 * 1024;

/// A version's manifest; all of it is optional.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Manifest {
    /// What the model is for.
    pub description: Option<String>,
    /// Names, units, ranges and labels.
    pub signature: Overlay,
    /// Where it came from.
    pub lineage: Option<Lineage>,
    /// Digests of its files. Where there are any, the version is complete when they match.
    pub files: BTreeMap<String, Digest>,
}

/// What the manifest adds to the engine's own signature.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Overlay {
    inputs: Vec<InputOverlay>,
    outputs: Vec<OutputOverlay>,
    example: Option<serde_json::Value>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputOverlay {
    name: String,
    #[serde(default)]
    features: Vec<FeatureOverlay>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    unit: Option<String>,
    #[serde(default)]
    min: Option<f64>,
    #[serde(default)]
    max: Option<f64>,
    #[serde(default)]
    categories: Vec<String>,
    #[serde(default)]
    pad: Option<f64>,
}

/// A column: a plain name is enough.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum FeatureOverlay {
    Name(String),
    Full(FeatureDetails),
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct FeatureDetails {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    unit: Option<String>,
    #[serde(default)]
    min: Option<f64>,
    #[serde(default)]
    max: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputOverlay {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    unit: Option<String>,
    #[serde(default)]
    kind: Option<Kind>,
    #[serde(default)]
    labels: Vec<String>,
}

/// Where a version came from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lineage {
    /// The commit of the code that trained it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git_commit: Option<String>,
    /// What it was trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<Dataset>,
    /// When, in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_at: Option<String>,
    /// The run that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// What trained it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub framework: Option<String>,
    /// Its figures on held-out data.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
}

/// A data set by name and content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// Its name.
    pub name: String,
    /// The digest of its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// How many rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

impl Manifest {
    /// Reads a version's manifest; an empty one where there is none.
    ///
    /// # Errors
    /// [`Code::BadManifest`] with line and column where it is not what it should be.
    pub fn read(version: &Path) -> Result<Self> {
        let path = version.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Error::new(Code::Io, format!("{FILE}: {error}"))),
        };
        Self::parse(&bytes)
    }

    /// Reads a manifest from its text.
    ///
    /// # Errors
    /// [`Code::BadManifest`] with line and column.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let bad = |message: String| Error::new(Code::BadManifest, message);
        if bytes.len() > MAX_BYTES {
            return Err(bad(format!("{FILE} has {} bytes, at most {MAX_BYTES} are read", bytes.len())));
        }
        let text =
            std::str::from_utf8(bytes).map_err(|error| bad(format!("{FILE}: not UTF-8 at byte {}", error.valid_up_to())))?;
        let manifest: Self = serde_saphyr::from_str(text).map_err(|error| {
            let place = error.location().map_or_else(String::new, |at| format!(":{}:{}", at.line(), at.column()));
            let message = error.without_snippet().to_string();
            bad(format!("{FILE}{place}: {}", message.lines().next().unwrap_or_default()))
        })?;
        for name in manifest.files.keys() {
            let inside = Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
            if !inside {
                return Err(bad(format!("{FILE}: files: `{name}` is not inside the version's directory")));
            }
        }
        Ok(manifest)
    }

    /// Lays the manifest over the engine's own inputs and outputs, and over the example that it knows.
    ///
    /// # Errors
    /// [`Code::BadSignature`] where it speaks of tensors that the model does not have, or in ranges that are none.
    pub fn sign(
        &self,
        mut inputs: Vec<TensorSpec>,
        mut outputs: Vec<TensorSpec>,
        example: Option<serde_json::Value>,
    ) -> Result<Signature> {
        for overlay in &self.signature.inputs {
            let spec = named(&mut inputs, &overlay.name, "input")?;
            let InputOverlay { description, unit, min, max, categories, .. } = overlay.clone();
            spec.about = About { description, unit, min, max, categories };
            spec.pad = overlay.pad;
            spec.features = overlay.features.iter().map(FeatureOverlay::feature).collect();
            check_range(&overlay.name, &spec.about)?;
            for feature in &spec.features {
                check_range(&feature.name, &feature.about)?;
            }
        }
        for overlay in &self.signature.outputs {
            let spec = named(&mut outputs, &overlay.name, "output")?;
            spec.about.description.clone_from(&overlay.description);
            spec.about.unit.clone_from(&overlay.unit);
            spec.kind = overlay.kind.unwrap_or(if overlay.labels.is_empty() { spec.kind } else { Kind::Label });
            if !overlay.labels.is_empty() {
                spec.labels.clone_from(&overlay.labels);
            }
        }
        Signature::new(inputs, outputs, self.signature.example.clone().or(example))
    }
}

impl FeatureOverlay {
    fn feature(&self) -> Feature {
        match self {
            Self::Name(name) => Feature { name: name.as_str().into(), about: About::default() },
            Self::Full(FeatureDetails { name, description, unit, min, max }) => Feature {
                name: name.as_str().into(),
                about: About {
                    description: description.clone(),
                    unit: unit.clone(),
                    min: *min,
                    max: *max,
                    categories: Vec::new(),
                },
            },
        }
    }
}

fn named<'a>(specs: &'a mut [TensorSpec], name: &str, what: &str) -> Result<&'a mut TensorSpec> {
    let have = specs.iter().map(|spec| format!("`{}`", spec.name)).collect::<Vec<_>>().join(", ");
    specs.iter_mut().find(|spec| &*spec.name == name).ok_or_else(|| {
        Error::new(Code::BadSignature, format!("{FILE} describes {what} `{name}`, which the model does not have; it has {have}"))
    })
}

fn check_range(name: &str, about: &About) -> Result<()> {
    match (about.min, about.max) {
        (Some(min), Some(max)) if min > max => {
            Err(Error::new(Code::BadSignature, format!("{FILE}: `{name}` has min {min} above max {max}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_told_with_its_line() {
        let error = Manifest::parse(b"description: x\nsignature:\n  imputs: []\n").expect_err("unknown key");
        assert!(error.message().starts_with("model.yaml:3:3"), "{error}");
        assert!(error.message().contains("imputs"), "{error}");
    }

    #[test]
    fn plain_names_are_enough_for_features() {
        let text = b"signature: { inputs: [ { name: X, features: [a, { name: b, unit: EUR, min: 0 }] } ] }";
        let manifest = Manifest::parse(text).expect("a good manifest");
        let names: Vec<_> = manifest.signature.inputs[0].features.iter().map(|f| f.feature().name).collect();
        assert_eq!(names, ["a".into(), "b".into()]);
    }

    #[test]
    fn a_manifest_cannot_name_files_outside_its_version() {
        let digest = "0".repeat(64);
        for name in ["../x", "/etc/passwd", "a/../../b"] {
            let text = format!("files: {{ \"{name}\": \"sha256:{digest}\" }}");
            assert!(Manifest::parse(text.as_bytes()).is_err(), "{name}");
        }
    }
}
