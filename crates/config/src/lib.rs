//! What an operator may say, in one file, the environment and flags; and every error in it, with its place.
//!
//! In reading order: [`sections`], [`models`] and [`rollout`] (the keys), [`text`] (durations, sizes, counts, addresses), `tree` (a
//! file with the place of each value), `overrides` (environment and flags are laid over it), `de` (the tree becomes
//! types), `check` and `plan` (what types cannot say), [`otel`] (the variables of
//! OpenTelemetry), [`watch`] (the file changes), [`patch`] (how it should), [`error`].
//!
//! Precedence: defaults < file < environment < flags. The environment is read here alone, in [`environment`].

mod check;
mod de;
pub mod error;
pub mod models;
pub mod otel;
mod overrides;
pub mod patch;
mod plan;
pub mod rollout;
pub mod sections;
pub mod text;
mod tree;
pub mod watch;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use error::ConfigError;
pub use models::{Also, Batching, Cache, Execution, Model, ModelBatching, Pinned, Residency, Text, Version};
pub use otel::Otel;
pub use overrides::Overrides;
pub use rollout::Rollout;
pub use sections::{
    Cors, Engine, Grpc, Http, Limits, Log, LogFormat, Memory, Ops, Protocols, Registry, RegistryType, Shutdown, State, Webhook,
};
pub use text::{Address, Auto, Count, Duration, Size};
pub use watch::Watched;

use tree::Tree;

/// The registry that `--models` sets, and that a model without a `registry` key comes from.
pub const LOCAL: &str = "local";

/// The largest file that is read.
pub const MAX_FILE: u64 = 1024 * 1024;

/// The most models that a file may list.
pub const MAX_MODELS: usize = 10_000;

/// Variables with this beginning override the file: `SLUICEGATE__BATCHING__MAX_ROWS=8`.
pub const ENV_PREFIX: &str = "SLUICEGATE__";

/// The variable of ONNX Runtime's own tools, used where `engine.onnxruntime` is not set.
pub const ENV_ONNXRUNTIME: &str = "ORT_DYLIB_PATH";

/// Everything that an operator may say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address for applications: inference, schemas, documentation.
    pub http: Http,
    /// The address for clients of the Open Inference Protocol that speak gRPC.
    pub grpc: Grpc,
    /// The address for operators: metrics, health, status.
    pub ops: Ops,
    /// What is answered beside the typed routes and the inference routes of the Open Inference Protocol.
    pub protocols: Protocols,
    /// What is logged to standard error, and how.
    pub log: Log,
    /// Bounds on the whole process.
    pub limits: Limits,
    /// How the process ends after SIGTERM or SIGINT.
    pub shutdown: Shutdown,
    /// What runs models.
    pub engine: Engine,
    /// The memory that models may take together.
    pub memory: Memory,
    /// Where versions come from, by a name of your choice.
    pub registries: BTreeMap<String, Registry>,
    /// Where it is kept how far rollouts came.
    pub state: State,
    /// Who is told of rollouts and of models that fail to load, as CloudEvents.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<Webhook>,
    /// How waiting requests become engine runs: the default for every model.
    pub batching: Batching,
    /// The models that are served. Without this key, every model of every registry, each with its newest version.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<Model>")]
    pub models: Option<Vec<Model>>,
    /// What variables of OpenTelemetry say; the file has no words of its own for it.
    #[serde(skip)]
    pub otel: Otel,
}

impl Config {
    /// Reads the file, where there is one, and lays environment and flags over it.
    ///
    /// Relative paths in the file are relative to its directory; those of variables and flags to the working directory.
    ///
    /// # Errors
    /// Every error that could be found, in the order of the file.
    pub fn load(path: Option<&Path>, env: &[(String, String)], overrides: &Overrides) -> Result<Self, Vec<ConfigError>> {
        let content = path.map(read).transpose().map_err(|error| vec![error])?;
        Self::parse(path.zip(content.as_deref()), env, overrides)
    }

    /// [`load`](Self::load) for a file that has been read.
    fn parse(file: Option<(&Path, &[u8])>, env: &[(String, String)], overrides: &Overrides) -> Result<Self, Vec<ConfigError>> {
        let mut tree = match file {
            Some((path, content)) => Tree::parse(&path.display().to_string(), content).map_err(|error| vec![error])?,
            None => Tree::empty(),
        };
        let mut errors = overrides::apply(&mut tree, env, overrides);
        let otel = otel::read(env, &mut errors);
        let config = de::read::<Self>(&mut tree, &mut errors);
        if let Some(config) = &config {
            check::check(config, &tree, &mut errors);
        }
        match config {
            Some(mut config) if errors.is_empty() => {
                config.finish(&tree, file.and_then(|(path, _)| path.parent()), env);
                config.otel = otel;
                Ok(config)
            }
            _ => {
                errors.sort_by_key(ConfigError::order);
                Err(errors)
            }
        }
    }

    /// Resolves the file's paths against its directory, and looks at the variable of ONNX Runtime.
    fn finish(&mut self, tree: &Tree, directory: Option<&Path>, env: &[(String, String)]) {
        if let Some(directory) = directory {
            let resolve = |path: &mut PathBuf, steps: &[&str]| {
                if tree.is_from_file(steps) {
                    *path = directory.join(&path);
                }
            };
            for (name, registry) in &mut self.registries {
                resolve(&mut registry.path, &["registries", name, "path"]);
            }
            if let Some(path) = &mut self.state.path {
                resolve(path, &["state", "path"]);
            }
            if let Some(library) = &mut self.engine.onnxruntime {
                resolve(library, &["engine", "onnxruntime"]);
            }
        }
        if self.engine.onnxruntime.is_none() {
            let set = env.iter().find(|(key, value)| key == ENV_ONNXRUNTIME && !value.is_empty());
            self.engine.onnxruntime = set.map(|(_, value)| value.into());
        }
    }

    /// The names of the sections in which `self` and `next` differ, for the log and for what needs a restart.
    pub fn changed_sections(&self, next: &Self) -> Vec<&'static str> {
        [
            ("http", self.http != next.http),
            ("grpc", self.grpc != next.grpc),
            ("ops", self.ops != next.ops),
            ("protocols", self.protocols != next.protocols),
            ("log", self.log != next.log),
            ("limits", self.limits != next.limits),
            ("shutdown", self.shutdown != next.shutdown),
            ("engine", self.engine != next.engine),
            ("memory", self.memory != next.memory),
            ("registries", self.registries != next.registries),
            ("state", self.state != next.state),
            ("webhooks", self.webhooks != next.webhooks),
            ("batching", self.batching != next.batching),
            ("models", self.models != next.models),
        ]
        .into_iter()
        .filter_map(|(section, changed)| changed.then_some(section))
        .collect()
    }

    /// The JSON Schema of the file: `docs/config.schema.json`.
    pub fn schema() -> serde_json::Value {
        let mut schema = schemars::schema_for!(Self);
        schema.insert("title".to_owned(), "sluicegate.yaml".into());
        schema.into()
    }
}

/// The variables of this process that configuration is made of. Nothing else in the program reads the environment.
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(key, _)| key.starts_with(ENV_PREFIX) || key.starts_with(otel::PREFIX) || key == ENV_ONNXRUNTIME)
        .collect()
}

/// Reads at most [`MAX_FILE`] bytes.
fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let place = path.display();
    let mut content = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut content));
    match read {
        Err(error) => Err(ConfigError::new(place, format!("cannot be read: {error}"))),
        Ok(_) if content.len() as u64 > MAX_FILE => Err(ConfigError::new(place, "is larger than 1 MiB")),
        Ok(_) => Ok(content),
    }
}

#[cfg(test)]
mod tests;
