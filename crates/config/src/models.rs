//! The keys of a served model, and how its requests are batched.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, SeqAccess};
use serde::{Deserialize, Serialize, Serializer};
use sluicegate_core::{ModelName, VersionRef};
use sluicegate_engine::{Device, EngineChoice};

use super::rollout::Rollout;
use super::sections::engine_schema;
use super::text::{Auto, Count, Duration, Size};

/// A served model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The name that it is served under, which is its name in the registry.
    #[schemars(with = "String")]
    pub name: ModelName,
    /// The registry that it comes from.
    #[serde(default = "local")]
    pub registry: String,
    /// The version that answers requests which name none: `latest`, a number, `sha256:…` or an alias as `@stable`.
    #[serde(default)]
    pub version: Version,
    /// Further versions that are served beside it, for requests which name them: a list, or `all`.
    #[serde(default)]
    pub also: Also,
    /// Names for served versions, for requests which name one: `{ stable: 2, canary: 3 }`. To change them loads nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aliases: BTreeMap<String, Pinned>,
    /// What loads it. Without this key, `engine.default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "engine_schema")]
    pub engine: Option<EngineChoice>,
    /// Where it runs: `cpu`, `cuda:0`, `cuda:0,1` for instances on several devices, or `auto`. CUDA that is asked for and missing is an
    /// error.
    #[serde(default)]
    #[schemars(with = "String")]
    pub device: Device,
    /// When it is in memory: always (`pinned`), or from its first request until others need the room (`on_demand`), which
    /// `memory.budget` sets.
    #[serde(default)]
    pub residency: Residency,
    /// How its requests are batched. What is left out is as in the section `batching`.
    #[serde(default)]
    pub batching: ModelBatching,
    /// How it reads text, where it does.
    #[serde(default)]
    pub text: Text,
    /// Keeps answers for those who ask the same again. Only for a model that always answers the same to the same inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// Whether a version with another signature may replace the one that serves.
    #[serde(default)]
    pub allow_signature_change: bool,
    /// How traffic moves from `version`, which is a number then, to a candidate. Another rollout is begun by changing what is said
    /// here; what was decided, by the analysis or by a person, holds until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// Keeps the answers of a model for those who ask the same again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// The most memory that the answers of one version may take; those asked for least make room. At least 1MiB.
    pub size: Size,
}

/// How a model that reads text reads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Text {
    /// Whether an ONNX model with a `tokenizer.json` beside it takes texts. With `false`, it takes the tokens that its graph takes.
    pub tokenize: bool,
    /// The most tokens of one text, special ones included; never more than the model has positions for. Without this key, what its
    /// files say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<Count<1, 1_048_576>>,
    /// Whether a longer text is cut. With `false`, it is refused as the caller's error.
    pub truncate: bool,
}

impl Default for Text {
    fn default() -> Self {
        Self { tokenize: true, max_length: None, truncate: true }
    }
}

/// How waiting requests become engine runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Batching {
    /// The most rows in one engine run. A larger request is split.
    pub max_rows: Count<1, 65_536>,
    /// The most tokens that are computed at once where a model reads text, padding included: the rows of a run are sorted by their
    /// length and cut into parts of so many. One text alone may have more.
    pub max_tokens: Count<1, 16_777_216>,
    /// How long an idle instance waits for more rows. With 0, it takes what is there.
    pub max_delay: Duration,
    /// The most rows that may wait; a request that finds no room is refused at once, to be tried again later.
    pub queue_rows: Count<1, 16_777_216>,
    /// How long a request may wait before it is refused.
    pub queue_timeout: Duration,
    /// How many runs may take place at the same time; with `auto`, as many as the machine has cores for, or one a CUDA device. On the
    /// processor they share one copy of the weights, on devices each has its own.
    pub instances: Auto<1, 64>,
    /// How many threads one run may use. No more are used than the machine has cores.
    pub threads: Count<1, 256>,
    /// Whether a run takes place on the request's own thread (`inline`) or on threads of the model; `auto` measures and decides.
    pub execution: Execution,
}

/// A model's own values for [`Batching`]; what is left out is as in the section `batching`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelBatching {
    /// As `batching.max_rows`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<Count<1, 65_536>>,
    /// As `batching.max_tokens`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<Count<1, 16_777_216>>,
    /// As `batching.max_delay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_delay: Option<Duration>,
    /// As `batching.queue_rows`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_rows: Option<Count<1, 16_777_216>>,
    /// As `batching.queue_timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_timeout: Option<Duration>,
    /// As `batching.instances`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances: Option<Auto<1, 64>>,
    /// As `batching.threads`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<Count<1, 256>>,
    /// As `batching.execution`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
}

/// Which threads run a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Execution {
    #[default]
    #[expect(missing_docs, reason = "a comment would split the schema's enum; `batching.execution` explains the three")]
    Auto,
    #[expect(missing_docs, reason = "as above")]
    Inline,
    #[expect(missing_docs, reason = "as above")]
    Threads,
}

/// When a model is in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Residency {
    #[default]
    #[expect(missing_docs, reason = "a comment would split the schema's enum; `residency` explains the two")]
    Pinned,
    #[expect(missing_docs, reason = "as above")]
    OnDemand,
}

/// Which version of a model answers requests that name none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Version {
    /// The newest one in the registry, also when it comes later.
    #[default]
    Latest,
    /// This one.
    Is(VersionRef),
}

/// Which further versions of a model are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Also {
    /// Every version that the registry has.
    All,
    /// These.
    These(Vec<VersionRef>),
}

/// A version by its number or its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pinned(pub VersionRef);

impl Model {
    /// A model of the registry [`LOCAL`](super::LOCAL) with the default for every key.
    pub fn new(name: ModelName) -> Self {
        Self {
            name,
            registry: local(),
            version: Version::default(),
            also: Also::default(),
            aliases: BTreeMap::new(),
            engine: None,
            device: Device::default(),
            batching: ModelBatching::default(),
            text: Text::default(),
            cache: None,
            residency: Residency::Pinned,
            allow_signature_change: false,
            rollout: None,
        }
    }
}

fn local() -> String {
    super::LOCAL.to_owned()
}

impl ModelBatching {
    /// What holds for the model: its own values, else those of the section `batching`.
    pub fn over(&self, defaults: &Batching) -> Batching {
        Batching {
            max_rows: self.max_rows.unwrap_or(defaults.max_rows),
            max_tokens: self.max_tokens.unwrap_or(defaults.max_tokens),
            max_delay: self.max_delay.unwrap_or(defaults.max_delay),
            queue_rows: self.queue_rows.unwrap_or(defaults.queue_rows),
            queue_timeout: self.queue_timeout.unwrap_or(defaults.queue_timeout),
            instances: self.instances.unwrap_or(defaults.instances),
            threads: self.threads.unwrap_or(defaults.threads),
            execution: self.execution.unwrap_or(defaults.execution),
        }
    }
}

impl Default for Batching {
    fn default() -> Self {
        Self {
            max_rows: Count::clamped(64),
            max_tokens: Count::clamped(8192),
            max_delay: Duration::default(),
            queue_rows: Count::clamped(4096),
            queue_timeout: Duration::from_secs(10),
            instances: Auto(None),
            threads: Count::clamped(1),
            execution: Execution::Auto,
        }
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "latest" { Ok(Self::Latest) } else { version_ref(text, "latest, ").map(Self::Is) }
    }
}

/// A version as configuration has it: an alias needs its `@`, so that a slip of `latest` is no alias.
fn version_ref(text: &str, also: &str) -> Result<VersionRef, String> {
    match text.parse() {
        Ok(VersionRef::Alias(_)) if !text.starts_with('@') => None,
        parsed => parsed.ok(),
    }
    .ok_or_else(|| format!("expected {also}a number, sha256:… or an alias as @stable, got `{text}`"))
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.to_string()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Is(version) => version.fmt(f),
        }
    }
}

impl TryFrom<String> for Pinned {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.parse() {
            Ok(VersionRef::Alias(_)) | Err(_) => Err(format!("expected a number or sha256:…, got `{text}`")),
            Ok(version) => Ok(Self(version)),
        }
    }
}

impl From<Pinned> for String {
    fn from(Pinned(version): Pinned) -> String {
        version.to_string()
    }
}

macro_rules! version_schema {
    ($($type:ident),*) => {$(
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": ["string", "integer"], "title": "version", "minimum": 0 })
            }
        }
    )*};
}
version_schema!(Version, Pinned);

impl Default for Also {
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

impl Serialize for Also {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::These(versions) => versions.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Also {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A version in the list.
        #[derive(Deserialize)]
        #[serde(try_from = "String")]
        struct Listed(VersionRef);

        impl TryFrom<String> for Listed {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                version_ref(&text, "").map(Self)
            }
        }

        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Also;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of versions, or `all`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Also, E> {
                if text == "all" { Ok(Also::All) } else { Err(E::invalid_value(de::Unexpected::Str(text), &self)) }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Also, A::Error> {
                let mut versions = Vec::new();
                while let Some(Listed(version)) = items.next_element()? {
                    versions.push(version);
                }
                Ok(Also::These(versions))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Also {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Also".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "list of versions, or `all`",
            "oneOf": [
                { "const": "all" },
                { "type": "array", "items": { "type": ["string", "integer"], "title": "version", "minimum": 0 } },
            ],
        })
    }
}
