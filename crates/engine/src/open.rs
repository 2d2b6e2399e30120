//! Which engine loads a model: the runtimes found on this machine, and the order in which they are tried.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluicegate_core::signature::TensorSpec;
use sluicegate_core::{Code, Error, Result};

use crate::graph::Graph;
use crate::onnx::Library;
use crate::{Device, Engine, EngineChoice, Options, onnx};

/// Where the ONNX Runtime library is looked for. The first of these that is there, and new enough, is taken.
///
/// After these come the program's own folder, the `lib` beside that, and the places of the system.
#[derive(Clone, Debug)]
pub struct Search {
    /// The library, or the folder that it is in, as `--onnxruntime` or the configuration asks for it. An error where it cannot be used.
    pub explicit: Option<PathBuf>,
    /// The same as `ORT_DYLIB_PATH` asks for it.
    pub environment: Option<PathBuf>,
    /// The folder that a download goes to.
    pub fetched: PathBuf,
}

impl Default for Search {
    fn default() -> Self {
        Self { explicit: None, environment: None, fetched: PathBuf::from(".onnxruntime") }
    }
}

/// The runtimes of this process, found once at start. Cheap to clone.
#[derive(Clone)]
pub struct Engines {
    onnxruntime: Result<Arc<Library>, String>,
}

/// A model's file and the bytes that were read from it.
///
/// The engines load these bytes, so that what was verified is what runs; the path says where weights in files of their own are.
#[derive(Clone, Copy, Debug)]
pub struct ModelFile<'a> {
    /// Where it lies.
    pub path: &'a Path,
    /// All of it.
    pub bytes: &'a [u8],
}

impl ModelFile<'_> {
    /// The file that stands for a model in safetensors: the weights lie beside it.
    pub const SAFETENSORS: &'static str = "config.json";
}

#[cfg(feature = "candle")]
use crate::candle::open as with_candle;

#[cfg(not(feature = "candle"))]
fn with_candle(_: &ModelFile<'_>, _: &Options) -> Result<Opened> {
    Err(Error::new(Code::NoEngine, "this build has no engine for safetensors: build with --features candle"))
}

#[cfg(feature = "text")]
use crate::reading::reading;

#[cfg(not(feature = "text"))]
fn reading(opened: Opened, model: &ModelFile<'_>, options: &Options) -> Result<Opened> {
    let is_there = model.path.parent().is_some_and(|folder| folder.join("tokenizer.json").is_file());
    let remark = "tokenizer.json has no effect: this build does not read text: build with --features text";
    Ok(Opened { remark: (is_there && options.text.tokenize).then(|| remark.to_owned()), ..opened })
}

#[cfg(feature = "tract")]
use crate::tract::open as with_tract;

#[cfg(not(feature = "tract"))]
fn with_tract(_: &ModelFile<'_>, _: &Graph, _: &Options) -> Result<Opened> {
    Err(Error::new(Code::NoEngine, "this build has no tract: build with --features tract"))
}

/// A model that an engine has loaded.
pub struct Opened {
    /// What really runs it: `onnxruntime`, `tract` or `candle`.
    pub engine: EngineChoice,
    /// Why it is not the preferred engine or device, where it is not.
    pub fallback: Option<String>,
    /// What its owner should know: what beside the model has no effect, or what would serve it better.
    pub remark: Option<String>,
    /// The device that it runs on, as `cpu` or `cuda:0`.
    pub device: String,
    /// The inputs in the engine's order.
    pub inputs: Vec<TensorSpec>,
    /// The outputs in the engine's order; sequences of maps already told as the tensors that they will be served as.
    pub outputs: Vec<TensorSpec>,
    /// One record that is like those that will come, where the engine knows one.
    pub example: Option<serde_json::Value>,
    /// Whether it reads text: what a run costs goes by how long that is.
    pub text: bool,
    /// One per instance asked for.
    pub instances: Vec<Box<dyn Engine>>,
}

impl Engines {
    /// Looks for the runtimes.
    ///
    /// # Errors
    /// [`Code::NoEngine`] where a library was asked for and cannot be used.
    pub fn find(search: &Search) -> Result<Self> {
        Ok(Self { onnxruntime: onnx::find(search)? })
    }

    /// The engine that looks for no library, alone.
    pub fn tract_only() -> Self {
        Self { onnxruntime: Err("it was not looked for".to_owned()) }
    }

    /// The version of ONNX Runtime, where it was found.
    pub fn onnxruntime(&self) -> Option<&str> {
        self.onnxruntime.as_ref().ok().map(|library| &*library.version)
    }

    /// A line for the log: what was found, or why not.
    pub fn describe(&self) -> String {
        let tract = cfg!(feature = "tract");
        match &self.onnxruntime {
            Ok(library) => {
                format!("onnxruntime {} ({}){}", library.version, library.path.display(), if tract { ", tract" } else { "" })
            }
            Err(why) => format!("{}; onnxruntime is not used: {why}", if tract { "tract alone" } else { "nothing for ONNX" }),
        }
    }

    /// Loads a model.
    ///
    /// # Errors
    /// [`Code::LoadFailed`] where the file is not a model, or has something that no engine asked can run; with every engine's reason.
    /// [`Code::NoEngine`] where the engine or the device asked for is not there.
    pub fn open(&self, model: &ModelFile<'_>, options: &Options) -> Result<Opened> {
        if model.path.file_name().is_some_and(|name| name == ModelFile::SAFETENSORS) {
            return with_candle(model, options);
        }
        if options.engine == EngineChoice::Candle {
            return Err(Error::new(Code::NoEngine, "candle loads safetensors, and this is an ONNX model: choose another engine"));
        }
        reading(self.open_graph(model, options)?, model, options)
    }

    fn open_graph(&self, model: &ModelFile<'_>, options: &Options) -> Result<Opened> {
        let graph = Graph::read(model.bytes)?;
        graph.check()?;
        let with_onnxruntime = || match &self.onnxruntime {
            Ok(library) => onnx::open(library, model, &graph, options),
            Err(why) => Err(Error::new(Code::NoEngine, format!("ONNX Runtime is not on this machine: {why}"))),
        };
        match (options.engine, options.device) {
            (EngineChoice::TensorRt, Device::Cpu) => {
                return Err(Error::new(Code::NoEngine, "TensorRT runs on CUDA devices alone, and cpu was asked for"));
            }
            (EngineChoice::OnnxRuntime | EngineChoice::TensorRt, _) | (EngineChoice::Auto, Device::Cuda(_)) => {
                return with_onnxruntime();
            }
            (EngineChoice::Tract, _) => return with_tract(model, &graph, options),
            (EngineChoice::Candle, _) | (EngineChoice::Auto, Device::Auto | Device::Cpu) => {}
        }
        let first = match with_onnxruntime() {
            Err(error) if cfg!(feature = "tract") => error,
            answer => return answer,
        };
        match with_tract(model, &graph, options) {
            Ok(opened) => Ok(Opened { fallback: Some(first.message().to_owned()), ..opened }),
            Err(second) => Err(Error::new(Code::LoadFailed, format!("onnxruntime: {first}; tract: {second}"))),
        }
    }
}
