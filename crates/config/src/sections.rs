//! The keys of `sluicegate.yaml`, section by section. What is written about a field here is what `docs/config.md` says.

use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use sluicegate_core::ModelName;
use sluicegate_engine::EngineChoice;

use super::text::{Address, Count, Duration, FileRef, Size};

/// The address for applications: inference, schemas, documentation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Where to listen, as IP:PORT. A container listens on 0.0.0.0:8080. Changing it needs a restart.
    pub address: Address,
    /// A path before all others, as `/ml`, for a proxy in front of the gateway: requests are answered with it and without it.
    pub root_path: String,
    /// The largest request body that is read, after decompression too.
    pub max_body: Size,
    /// How long the body of a request may take to come.
    pub body_timeout: Duration,
    /// How long a connection may stay open without a request.
    pub keep_alive: Duration,
    /// How long a client may take to send the head of a request.
    pub header_timeout: Duration,
    /// The most connections that are open at once; further ones wait to be accepted.
    pub max_connections: Count<1, 1_000_000>,
    /// Which web pages may call the gateway from a browser. Without it, none but its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
}

/// Which web pages may call the gateway from a browser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Origins as `https://app.example.com`, or `*` for every one.
    pub allow_origins: Vec<String>,
}

/// The address for clients of the Open Inference Protocol that speak gRPC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Grpc {
    /// Where to listen, as IP:PORT. A container listens on 0.0.0.0:8081. Changing it needs a restart.
    pub address: Address,
    /// Whether the address of `http` answers gRPC too, so that one port is enough.
    pub on_http: bool,
    /// The largest message that is read, after decompression too.
    pub max_message: Size,
}

/// What is answered beside the typed routes and the inference routes of the Open Inference Protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Protocols {
    /// Whether callers may load and unload models and change what is logged: the protocol's repository and logging
    /// extensions, over HTTP and gRPC. Off, they are answered with 403.
    pub control: bool,
    /// Whether `/v1/models/{model}:predict` is answered, as clients of KServe's first protocol and of TensorFlow Serving ask.
    pub v1: bool,
    /// Whether `/invocations`, `/ping` and `/version` are answered, as clients of MLflow and SageMaker ask.
    pub invocations: bool,
    /// The model that `/invocations` asks. Without it, the only one that is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub invocations_model: Option<ModelName>,
    /// Whether `/v1/embeddings`, `/v1/rerank`, `/embed`, `/predict` and `/rerank` are answered by models of text, as clients of OpenAI,
    /// Cohere, Jina and text-embeddings-inference ask.
    pub text: bool,
    /// The models that these ask where the request names none: the first one that can do what is asked. Without it, the only one that can.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub text_models: Vec<ModelName>,
}

/// The address for operators: metrics, health, status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ops {
    /// Where to listen, as IP:PORT. Changing it needs a restart.
    pub address: Address,
}

/// What is logged to standard error, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Lines for people or JSON for machines; `auto` is `human` on a terminal and `json` elsewhere.
    pub format: LogFormat,
    /// The least severe level that is logged: error, warn, info, debug or trace; by module too, as `info,sluicegate_registry=debug`.
    pub level: String,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum LogFormat {
    #[default]
    #[expect(missing_docs, reason = "a comment would split the schema's enum; `log.format` explains the three")]
    Auto,
    #[expect(missing_docs, reason = "as above")]
    Human,
    #[expect(missing_docs, reason = "as above")]
    Json,
}

/// Bounds on the whole process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The most requests between their arrival and their answer; further ones are refused at once, to be tried again later.
    pub in_flight: Count<1, 1_000_000>,
}

/// How the process ends after SIGTERM or SIGINT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// How long requests in flight may take to finish. Keep it, with `not_ready`, below the pod's terminationGracePeriodSeconds.
    pub grace: Duration,
    /// How long to say "not ready" and still take requests before that, where a load balancer is slow to notice.
    pub not_ready: Duration,
}

/// What runs models.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Engine {
    /// The library of ONNX Runtime, version 1.24 or newer. Without it, ORT_DYLIB_PATH and then the usual places.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub onnxruntime: Option<PathBuf>,
    /// What loads an ONNX model that does not say: `auto` prefers ONNX Runtime and takes tract where that is not found or cannot load it.
    /// `tensorrt` is ONNX Runtime with TensorRT on CUDA devices. Safetensors are loaded by candle, whatever stands here.
    #[schemars(schema_with = "engine_schema")]
    pub default: EngineChoice,
}

/// The memory that models may take together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    /// What the versions in memory may take, as measured when they are loaded. Models with `residency: on_demand` that were used
    /// longest ago leave for others. Without it nobody counts, and none leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Size>,
    /// The same of the memory of each GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_budget: Option<Size>,
    /// How long a request waits for its model to be loaded before it is refused, to be tried again later.
    pub wait: Duration,
}

/// Where versions come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// What kind of registry it is.
    #[serde(rename = "type")]
    pub kind: RegistryType,
    /// The directory, with `<model>/<version>/model.onnx` in it, or a `config.json` with safetensors beside it. A relative path in the file is relative to the file's directory.
    #[schemars(with = "String")]
    pub path: PathBuf,
    /// How often to look for new versions.
    #[serde(default = "one_second")]
    pub poll: Duration,
    /// How long the files of a version must stay unchanged before it is loaded, where no manifest has their digests.
    #[serde(default = "one_second")]
    pub settle: Duration,
}

/// A kind of registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum RegistryType {
    #[expect(missing_docs, reason = "a comment would split the schema's enum; `path` explains it")]
    Directory,
}

const fn one_second() -> Duration {
    Duration::from_secs(1)
}

pub(super) fn engine_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["auto", "onnxruntime", "tensorrt", "tract", "candle"] })
}

impl Default for Memory {
    fn default() -> Self {
        Self { budget: None, gpu_budget: None, wait: Duration::from_secs(30) }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            address: Address::local(8080),
            root_path: String::new(),
            max_body: Size::from_mib(64),
            body_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            header_timeout: Duration::from_secs(10),
            max_connections: Count::clamped(10_000),
            cors: None,
        }
    }
}

impl Default for Grpc {
    fn default() -> Self {
        Self { address: Address::local(8081), on_http: true, max_message: Size::from_mib(64) }
    }
}

impl Default for Protocols {
    fn default() -> Self {
        Self { control: false, v1: true, invocations: true, invocations_model: None, text: true, text_models: Vec::new() }
    }
}

impl Default for Ops {
    fn default() -> Self {
        Self { address: Address::local(8082) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".to_owned() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { in_flight: Count::clamped(4096) }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { grace: Duration::from_secs(25), not_ready: Duration::default() }
    }
}

impl Registry {
    /// A directory with the default times.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self { kind: RegistryType::Directory, path: path.into(), poll: one_second(), settle: one_second() }
    }
}

/// Where it is kept how far rollouts came: in one of the two, or in memory alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// The file of an SQLite database, for one replica. It is made where there is none. Without either key a restart begins rollouts
    /// anew, which the log says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// A PostgreSQL database, for several replicas: `file:PATH` of a file with its URL, `postgres://user:password@host/database`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<FileRef>,
}

/// One who is told of events, by a POST of each one as a CloudEvent. It is tried again where nobody answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Where to: `https://…` or `http://…`.
    pub url: String,
    /// `file:PATH` of a file with the secret that events are signed with, as Standard Webhooks have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<FileRef>,
    /// The events that it is told of, as `rollout.promoted`; without this key, all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
    /// How long one try may take.
    #[serde(default = "ten_seconds")]
    pub timeout: Duration,
    /// How often an event is tried before it is given up.
    #[serde(default = "eight")]
    pub attempts: Count<1, 100>,
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn eight() -> Count<1, 100> {
    Count::clamped(8)
}
