//! Errors that say whose fault it was, what was expected, what was got, and what to change.

use std::fmt;

use serde::Serialize;

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault an error is. It decides who is paged, and whether trying again helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The request: sending it again will fail again.
    Caller,
    /// Too much at once: trying again later helps.
    Overload,
    /// The model's files or what they compute.
    Model,
    /// The configuration or the machine.
    Operator,
    /// This program.
    Us,
}

macro_rules! codes {
    ($($code:ident $name:literal $fault:ident $doc:literal),* $(,)?) => {
        /// What went wrong, as a word that clients and dashboards may rely on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $doc] $code,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$code),*];

            /// The word on the wire and in the metric label `code`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$code => $name,)* }
            }

            /// Whose fault it is.
            pub fn fault(self) -> Fault {
                match self { $(Self::$code => Fault::$fault,)* }
            }
        }
    };
}

codes! {
    Malformed "malformed" Caller "The body is not what its format allows.",
    InvalidFields "invalid_fields" Caller "Fields of a record are missing, unknown or wrong; see the problems.",
    InvalidTensor "invalid_tensor" Caller "An element has a value that its type does not have, or a text more tokens than are read.",
    InvalidShape "invalid_shape" Caller "A shape is negative, too large or of too many dimensions.",
    WrongElementCount "wrong_element_count" Caller "The elements do not fill the shape.",
    WrongByteCount "wrong_byte_count" Caller "Binary data is longer or shorter than announced.",
    BadHeader "bad_header" Caller "A header has a value that it cannot have.",
    WrongDtype "wrong_dtype" Caller "A tensor has another type than the signature.",
    WrongShape "wrong_shape" Caller "A tensor has another shape than the signature.",
    MissingInput "missing_input" Caller "An input of the signature was not sent.",
    UnknownInput "unknown_input" Caller "A tensor was sent that the signature does not have.",
    UnknownOutput "unknown_output" Caller "An output was asked for that the signature does not have.",
    UnknownModel "unknown_model" Caller "No model has that name.",
    UnknownVersion "unknown_version" Caller "The model has no such version here.",
    NotFound "not_found" Caller "No route has that path.",
    MethodNotAllowed "method_not_allowed" Caller "The route has other methods.",
    BodyTooLarge "body_too_large" Caller "The body is larger than the limit.",
    SlowBody "slow_body" Caller "The body did not come in time.",
    BadEncoding "bad_encoding" Caller "The compressed body cannot be read.",
    UnsupportedMedia "unsupported_media" Caller "The content type or encoding is not one that is read.",
    NotLoaded "not_loaded" Caller "A version was to be loaded by hand and could not be; see the reason.",
    Forbidden "forbidden" Caller "The operator has switched that off.",
    Conflict "conflict" Caller "What was asked does not fit what was decided before.",
    NotAcceptable "not_acceptable" Caller "No form of the answer is one that the caller accepts.",
    Unsupported "unsupported" Caller "A feature of the protocol that is not served.",
    Cancelled "cancelled" Caller "The caller left.",
    QueueFull "queue_full" Overload "The model's queue has no room.",
    TooBusy "too_busy" Overload "The gateway has as many requests in flight as it may.",
    DeadlineExceeded "deadline_exceeded" Overload "The request's time ran out before it was run.",
    NotReady "not_ready" Overload "The model is known and not ready yet, or the gateway is going.",
    RunFailed "run_failed" Model "The engine failed on a request that fits the signature.",
    LoadFailed "load_failed" Model "The engine cannot load the files.",
    BadSignature "bad_signature" Model "The signature contradicts itself, or breaks the published one.",
    BadManifest "bad_manifest" Model "The version's files are not what its manifest says.",
    BadConfig "bad_config" Operator "The configuration is wrong.",
    NoEngine "no_engine" Operator "The engine asked for is not on this machine.",
    Io "io" Operator "A file or an address cannot be used.",
    Internal "internal" Us "A bug in this program.",
}

/// A step on the way to a value: a key or an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Loc {
    /// A key of an object.
    Key(String),
    /// An index of a list, or a byte position.
    Index(usize),
}

impl From<&str> for Loc {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Loc {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// One thing wrong with a request, in FastAPI's form.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Problem {
    /// The kind, in Pydantic's vocabulary: `missing`, `float_parsing`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The way to it, beginning with `body`, `query`, `path` or `header`.
    pub loc: Vec<Loc>,
    /// A sentence for people.
    pub msg: String,
    /// What was sent there, cut short where it is long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<serde_json::Value>,
    /// The facts of the rule that was broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctx: Option<serde_json::Value>,
}

/// An error with its code, a sentence for people, and every problem found.
#[derive(Debug, Clone)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    code: Code,
    message: String,
    problems: Vec<Problem>,
}

impl Error {
    /// An error of this code. The message says what was expected, what was got, and what to change.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { code, message: message.into(), problems: Vec::new() }))
    }

    /// Every problem of a record at once.
    pub fn invalid(problems: Vec<Problem>) -> Self {
        let message = match &*problems {
            [] => "the request is invalid".to_owned(),
            [one] => one.msg.clone(),
            [first, rest @ ..] => format!("{} (and {} more problems)", first.msg, rest.len()),
        };
        Self(Box::new(Inner { code: Code::InvalidFields, message, problems }))
    }

    /// The same error with its place: `at` is put before the message.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.0.message = format!("{place}: {}", self.0.message);
        self
    }

    /// The same error with these problems.
    #[must_use]
    pub fn with_problems(mut self, problems: Vec<Problem>) -> Self {
        self.0.problems = problems;
        self
    }

    /// What went wrong.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        self.0.code.fault()
    }

    /// The sentence for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The single problems, where there are any.
    pub fn problems(&self) -> &[Problem] {
        &self.0.problems
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {}
