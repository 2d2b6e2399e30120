//! A version's weights: safetensors files, mapped into memory while a model takes its tensors from them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use sluicegate_core::{Error, Result};
use sluicegate_text::files::{read, refused};

use crate::Place;

const ONE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Most files that the weights of one version may be in.
const MAX_FILES: usize = 1_000;

/// Most names that one error tells.
const SHOWN: usize = 5;

/// Where numbers lie, and of which kind they are.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    pub(crate) device: Device,
    pub(crate) dtype: DType,
}

/// The tensors of a version by name. What a model asks for is taken; what nobody asked for is told at the end.
pub(crate) struct Weights {
    files: MmapedSafetensors,
    shapes: BTreeMap<String, Vec<usize>>,
    numbers: Numbers,
    taken: RefCell<BTreeSet<String>>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Opens the files of a version's directory.
    ///
    /// # Errors
    /// Where there are none, or one is not what the format says: a header past the file's end, tensors that overlap, a wrong
    /// length.
    #[allow(unsafe_code, reason = "to map a file is to trust that nobody cuts it")]
    pub(crate) fn open(folder: &Path, place: &Place) -> Result<Self> {
        let paths = paths(folder)?;
        // SAFETY: the files are mapped until this is dropped, at the end of the load, and every tensor is copied out of them. A
        // version's files do not change: it was hashed a moment ago, and one that is changed is another version.
        let files = unsafe { MmapedSafetensors::multi(&paths) }.map_err(|error| of_format(&paths, &error))?;
        let tensors = files.tensors();
        // Counts and places are whole numbers; what is none of these is refused where it is taken.
        let stored = tensors.iter().filter_map(|(_, view)| DType::try_from(view.dtype()).ok()).filter(DType::is_float);
        let numbers = Numbers { device: place.device().clone(), dtype: place.numbers(stored) };
        let shapes = tensors.into_iter().map(|(name, view)| (name, view.shape().to_vec())).collect();
        Ok(Self { files, shapes, numbers, taken: RefCell::default() })
    }

    /// Where the tensors go, and of which kind they are then.
    pub(crate) fn numbers(&self) -> Numbers {
        self.numbers.clone()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.shapes.contains_key(name)
    }

    /// The sizes of a tensor.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub(crate) fn shape(&self, name: &str) -> Result<&[usize]> {
        self.shapes.get(name).map(Vec::as_slice).ok_or_else(|| refused(format!("the weights have no tensor `{name}`")))
    }

    /// Takes a tensor to where the model is computed.
    ///
    /// # Errors
    /// Where there is none of that name, or it has other sizes or another type.
    pub(crate) fn take(&self, name: &str, expected: &[usize]) -> Result<Tensor> {
        let shape = self.shape(name)?;
        if shape != expected {
            return Err(refused(format!("tensor `{name}` has the shape {shape:?}, expected {expected:?}")));
        }
        let refuse = |error: candle_core::Error| refused(format!("tensor `{name}`: {}", crate::said(&error)));
        let tensor = self.files.load(name, &Device::Cpu).map_err(refuse)?;
        if !matches!(tensor.dtype(), DType::F32 | DType::F16 | DType::BF16) {
            let is = tensor.dtype().as_str().to_uppercase();
            return Err(refused(format!("tensor `{name}` has elements of type {is}, expected F32, F16 or BF16")));
        }
        self.taken.borrow_mut().insert(name.to_owned());
        tensor.to_dtype(self.numbers.dtype).and_then(|tensor| tensor.to_device(&self.numbers.device)).map_err(refuse)
    }

    /// That every tensor was taken, but for those that may be left.
    ///
    /// # Errors
    /// Naming those that nobody asked for: the configuration is then not that of these weights.
    pub(crate) fn all_taken(&self, may_be_left: impl Fn(&str) -> bool) -> Result<()> {
        let taken = self.taken.borrow();
        let left: Vec<_> = self.shapes.keys().filter(|name| !taken.contains(*name) && !may_be_left(name)).collect();
        if left.is_empty() {
            return Ok(());
        }
        let more = left.len().saturating_sub(SHOWN);
        let mut shown = left.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        if more > 0 {
            shown.push_str(&format!(" and {more} more"));
        }
        Err(refused(format!("the weights have tensors that the model has no use for: {shown}")))
    }
}

fn paths(folder: &Path) -> Result<Vec<PathBuf>> {
    if folder.join(ONE).is_file() {
        return Ok(vec![folder.join(ONE)]);
    }
    if !folder.join(INDEX).is_file() {
        return Err(refused(format!("there is no {ONE} and no {INDEX} beside config.json")));
    }
    let index: Index = read(folder, INDEX)?;
    let names: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
    if names.is_empty() || names.len() > MAX_FILES {
        return Err(refused(format!("{INDEX} names {} files, expected 1 to {MAX_FILES}", names.len())));
    }
    names
        .into_iter()
        .map(|name| {
            let path = folder.join(name);
            let plain = Path::new(name).file_name().is_some_and(|plain| plain == name);
            match plain && path.is_file() {
                true => Ok(path),
                false => Err(refused(format!("{INDEX} names `{name}`, which is no file beside it"))),
            }
        })
        .collect()
}

fn of_format(paths: &[PathBuf], error: &candle_core::Error) -> Error {
    let names: Vec<_> = paths.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy()).collect();
    refused(format!("{}: not a whole file of safetensors: {}", names.join(", "), crate::said(error)))
}
