//! An event, and how it is written: CloudEvents 1.0, structured mode, JSON.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;
use sluicegate_core::{Code, Error, Result};

/// The content type of a CloudEvent in structured mode.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// What the `type` of a CloudEvent begins with.
pub const TYPE_PREFIX: &str = "io.sluicegate.";

/// Most bytes of a written event: many receivers take no more.
pub const MOST: usize = 256 * 1024;

/// Most characters of an event's id.
const ID: usize = 128;

/// The last millisecond that RFC 3339 can write.
const LAST: u64 = 253_402_300_799_999;

macro_rules! kinds {
    ($($kind:ident $name:literal $doc:literal),* $(,)?) => {
        /// What happened. The CloudEvent's `type` is `io.sluicegate.` and the name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind {
            $(#[doc = $doc] $kind,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// Its name in settings and logs: `rollout.promoted`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// A sentence for people.
            pub fn help(self) -> &'static str {
                match self { $(Self::$kind => $doc,)* }
            }
        }
    };
}

kinds! {
    RolloutStarted "rollout.started" "A declared rollout began.",
    RolloutStep "rollout.step" "A rollout went on to its next step.",
    RolloutPaused "rollout.paused" "A rollout waits for a person.",
    RolloutResumed "rollout.resumed" "A person let a rollout go on.",
    RolloutPromoted "rollout.promoted" "The candidate became the stable version.",
    RolloutRolledBack "rollout.rolled_back" "The candidate was taken back.",
    ModelFailed "model.failed" "A version could not be loaded.",
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = || Self::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
        let found = Self::ALL.iter().find(|kind| kind.name() == name).copied();
        found.ok_or_else(|| Error::new(Code::BadConfig, format!("no event is named `{name}`; there are {}", known())))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is told.
#[derive(Clone, Debug)]
pub struct Event {
    /// The same for every attempt and on every replica, so that a receiver can drop doubles. ASCII letters, digits, `-` and `_`.
    pub id: String,
    /// What happened.
    pub kind: Kind,
    /// The model that it happened to.
    pub model: String,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// The facts.
    pub data: Value,
}

/// An event as it is sent: the same bytes at every attempt and to every receiver.
pub(crate) struct Letter {
    pub(crate) id: String,
    pub(crate) kind: Kind,
    pub(crate) model: String,
    pub(crate) body: Vec<u8>,
}

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    r#type: String,
    subject: &'a str,
    time: String,
    datacontenttype: &'static str,
    data: &'a Value,
}

impl Letter {
    /// Writes an event.
    ///
    /// # Errors
    /// A sentence, where the id has other letters than it may have or the event is longer than [`MOST`].
    pub(crate) fn write(event: &Event, source: &str) -> Result<Self, String> {
        // A full stop would let the signed text be cut in two ways; an id goes into a header as well.
        let fits = |id: &str| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if event.id.is_empty() || event.id.len() > ID || !fits(&event.id) {
            return Err(format!("its id is to be 1 to {ID} ASCII letters, digits, `-` and `_`"));
        }
        let cloud = CloudEvent {
            specversion: "1.0",
            id: &event.id,
            source,
            r#type: format!("{TYPE_PREFIX}{}", event.kind),
            subject: &event.model,
            time: rfc3339(event.time_ms),
            datacontenttype: "application/json",
            data: &event.data,
        };
        let body = serde_json::to_vec(&cloud).map_err(|error| format!("it cannot be written: {error}"))?;
        if body.len() > MOST {
            return Err(format!("it has {} bytes, and {MOST} is the most", body.len()));
        }
        Ok(Self { id: event.id.clone(), kind: event.kind, model: event.model.clone(), body })
    }
}

/// A time as RFC 3339 writes it, in UTC with milliseconds.
fn rfc3339(ms: u64) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(ms.min(LAST));
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Event {
        let data = json!({"from": 1, "to": 2});
        Event { id: "r1-7".to_owned(), kind: Kind::RolloutPromoted, model: "fraud".to_owned(), time_ms: 1_785_412_800_123, data }
    }

    #[test]
    fn an_event_is_a_cloud_event() {
        let letter = Letter::write(&event(), "/sluicegate").expect("an event");
        let body: Value = serde_json::from_slice(&letter.body).expect("JSON");
        let expected = json!({
            "specversion": "1.0", "id": "r1-7", "source": "/sluicegate", "type": "io.sluicegate.rollout.promoted",
            "subject": "fraud", "time": "2026-07-30T12:00:00.123Z", "datacontenttype": "application/json",
            "data": {"from": 1, "to": 2},
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn no_time_is_too_late_to_be_written() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn an_id_that_could_be_read_in_two_ways_and_a_flood_of_facts_are_refused() {
        let refused = |change: &dyn Fn(&mut Event)| {
            let mut event = event();
            change(&mut event);
            Letter::write(&event, "/sluicegate").err().expect("refused")
        };
        for id in ["", "a.b", "a\nb", "ä", &"a".repeat(129)] {
            assert!(refused(&|event| event.id = id.to_owned()).contains("its id"), "{id}");
        }
        assert!(refused(&|event| event.data = json!("a".repeat(MOST))).contains("262144 is the most"));
    }

    #[test]
    fn kinds_are_read_by_their_names() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse::<Kind>().expect("its own name"), *kind);
        }
        let error = "rollout.promted".parse::<Kind>().expect_err("a slip").to_string();
        assert!(error.contains("`rollout.promted`; there are rollout.started, "), "{error}");
    }
}
