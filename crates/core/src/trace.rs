//! A request that is traced: its place in a W3C trace, and the spans that it gathers on its way.
//!
//! What is not sampled has none of this: it pays one look at a `None` in each stage.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::Code;

/// Spans of one trace that wait for its end; more are handed over before it, as those of a long stream.
const TOGETHER: usize = 64;

/// Spans that a request commonly has, and what is said of it: lists that grow are copied.
const SPANS: usize = 8;
const SAID: usize = 20;

/// Longest `tracestate` that is taken over from a caller, as the recommendation has it.
const MAX_STATE: usize = 512;

/// A span's place: which trace, and which span of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The trace; not 0.
    pub trace: u128,
    /// The span; not 0.
    pub span: u64,
}

/// What the header `traceparent` says (W3C Trace Context): who asks, and whether that is recorded there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The caller's span.
    pub place: Place,
    /// Whether the caller records it.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads a header. What is none is as if it were not there.
    pub fn parse(text: &[u8]) -> Option<Self> {
        // version "-" trace "-" span "-" flags, and for later versions whatever follows a further "-"
        let (head, rest) = text.split_at_checked(55)?;
        let (version, later) = (hex(&head[..2])?, !rest.is_empty());
        let is_known = match version {
            0 => !later,
            0xff => false,
            _ => !later || rest[0] == b'-',
        };
        if !is_known || [2, 35, 52].iter().any(|&dash| head[dash] != b'-') {
            return None;
        }
        let (trace, span, flags) = (hex(&head[3..35])?, hex(&head[36..52])?, hex(&head[53..])?);
        let place = Place { trace, span: u64::try_from(span).ok()? };
        (trace != 0 && span != 0).then_some(Self { place, sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { trace, span } = self.place;
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", u8::from(self.sampled))
    }
}

/// Lower case alone, as the recommendation asks; at most 32 digits.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, &digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

impl Place {
    /// The first span of a new trace.
    pub fn new() -> Self {
        // A range is drawn from by rejection, which takes longer.
        Self { trace: fastrand::u128(..).max(1), span: fastrand::u64(..).max(1) }
    }

    /// A new span of the same trace.
    #[must_use]
    pub fn sibling(self) -> Self {
        Self { span: fastrand::u64(..).max(1), ..self }
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(Cow<'static, str>),
    /// A number.
    Number(i64),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// What is said of a span.
pub type Attributes = Vec<(&'static str, Value)>;

/// The name of a model.
pub const MODEL_NAME: &str = "sluicegate.model.name";
/// The version that answers.
pub const MODEL_VERSION: &str = "sluicegate.model.version";
/// The variant of a rollout that it was drawn as.
pub const VARIANT: &str = "sluicegate.variant";
/// The variant that failed before it, where it answers in the place of another.
pub const FALLBACK: &str = "sluicegate.fallback";
/// What runs it.
pub const ENGINE: &str = "sluicegate.engine";
/// Where that runs.
pub const DEVICE: &str = "sluicegate.device";
/// Whether the answer was in the model's cache.
pub const CACHE: &str = "sluicegate.cache";
/// Rows of a batch.
pub const BATCH_SIZE: &str = "sluicegate.batch.size";
/// Requests of a batch.
pub const BATCH_REQUESTS: &str = "sluicegate.batch.requests";
/// Why a batch left as it did.
pub const BATCH_LEFT: &str = "sluicegate.batch.left";
/// The code of an error, as its answer has it, whoever's fault it was.
pub const CODE: &str = "sluicegate.code";
/// The same where it was not the caller's.
pub const ERROR_TYPE: &str = "error.type";

/// Where a span began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With a request of a caller.
    Server,
    /// Within the gateway.
    Internal,
}

/// Something that is over.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its own place.
    pub place: Place,
    /// The span that it is a part of; 0 for none.
    pub parent: u64,
    /// Whether that is another process's.
    pub is_parent_remote: bool,
    /// The caller's `tracestate`.
    pub state: Option<Arc<str>>,
    /// What it is.
    pub name: Cow<'static, str>,
    /// Where it began.
    pub kind: Kind,
    /// When it began.
    pub began: Instant,
    /// When it was over.
    pub ended: Instant,
    /// What is said of it.
    pub attributes: Attributes,
    /// Spans of other traces that it has to do with.
    pub links: Vec<Place>,
    /// Whether it failed for a reason that is not the caller's.
    pub failed: bool,
}

impl Span {
    /// One that is the first of its trace.
    pub fn new(place: Place, name: impl Into<Cow<'static, str>>, began: Instant, ended: Instant) -> Self {
        Self {
            place,
            parent: 0,
            is_parent_remote: false,
            state: None,
            name: name.into(),
            kind: Kind::Internal,
            began,
            ended,
            attributes: Vec::new(),
            links: Vec::new(),
            failed: false,
        }
    }

    /// The same with these attributes.
    #[must_use]
    pub fn with(mut self, attributes: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        self.attributes.extend(attributes);
        self
    }

    /// The same with these links.
    #[must_use]
    pub fn linked(mut self, links: impl IntoIterator<Item = Place>) -> Self {
        self.links.extend(links);
        self
    }

    /// The same with the error that ended it, where one did.
    #[must_use]
    pub fn with_error(mut self, error: Option<Code>) -> Self {
        if let Some(code) = error {
            self.failed = true;
            self.attributes.push((ERROR_TYPE, code.name().into()));
        }
        self
    }
}

/// Where spans go. It never waits: what it has no room for, it drops and counts.
pub trait Sink: Send + Sync {
    /// Takes spans that are over.
    fn take(&self, spans: Vec<Span>);
}

/// A span that goes on, of a trace that is recorded. Cheap to clone; the spans are handed over when the last one is dropped.
#[derive(Clone)]
pub struct Trace(Arc<Node>);

struct Node {
    place: Place,
    parent: Option<TraceParent>,
    is_part: bool,
    whole: Arc<Whole>,
    /// What is said of this span so far.
    said: Mutex<Attributes>,
}

struct Whole {
    state: Option<Arc<str>>,
    spans: Mutex<Vec<Span>>,
    sink: Arc<dyn Sink>,
}

impl Drop for Whole {
    fn drop(&mut self) {
        let spans = std::mem::take(self.spans.get_mut());
        if !spans.is_empty() {
            self.sink.take(spans);
        }
    }
}

impl Trace {
    /// A request at this place, asked for by this caller.
    pub fn new(sink: Arc<dyn Sink>, place: Place, parent: Option<TraceParent>, state: Option<&str>) -> Self {
        let state = state.filter(|state| !state.is_empty() && state.len() <= MAX_STATE).map(Arc::from);
        let whole = Arc::new(Whole { state, spans: Mutex::new(Vec::with_capacity(SPANS)), sink });
        Self(Arc::new(Node { place, parent, is_part: false, whole, said: Mutex::new(Vec::with_capacity(SAID)) }))
    }

    /// A part of it that has parts of its own.
    #[must_use]
    pub fn part(&self) -> Self {
        let Node { place, whole, .. } = &*self.0;
        let parent = Some(TraceParent { place: *place, sampled: true });
        let (whole, said) = (whole.clone(), Mutex::default());
        Self(Arc::new(Node { place: place.sibling(), parent, is_part: true, whole, said }))
    }

    /// Whether it is a part of another one of this process.
    pub fn is_part(&self) -> bool {
        self.0.is_part
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        self.0.place
    }

    /// As the header has it, for those who are asked or answered by it.
    pub fn header(&self) -> String {
        TraceParent { place: self.0.place, sampled: true }.to_string()
    }

    /// Says something of it; what was said before under the same name is forgotten.
    pub fn say(&self, name: &'static str, value: impl Into<Value>) {
        let mut said = self.0.said.lock();
        said.retain(|(known, _)| *known != name);
        said.push((name, value.into()));
    }

    /// What has been said of it.
    pub fn said(&self) -> Attributes {
        self.0.said.lock().clone()
    }

    /// A part of it that is over.
    pub fn add(&self, span: Span) {
        let Node { place, .. } = *self.0;
        self.push(Span { place: place.sibling(), parent: place.span, ..span });
    }

    /// It is over itself. Its place and its parent are its own.
    pub fn end(&self, span: Span) {
        let Node { place, parent, is_part, said, .. } = &*self.0;
        let mut span = span.with(std::mem::take(&mut *said.lock()));
        span.place = *place;
        span.parent = parent.map_or(0, |parent| parent.place.span);
        span.is_parent_remote = parent.is_some() && !is_part;
        self.push(span);
    }

    /// Hands a span of another trace to the same sink.
    pub fn beside(&self, span: Span) {
        self.0.whole.sink.take(vec![span]);
    }

    fn push(&self, span: Span) {
        let Whole { state, spans, sink } = &*self.0.whole;
        let mut spans = spans.lock();
        spans.push(Span { state: state.clone(), ..span });
        if spans.len() >= TOGETHER {
            let some = std::mem::take(&mut *spans);
            drop(spans);
            sink.take(some);
        }
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({})", self.header())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_recommendations_example_is_read_and_written() {
        let read = TraceParent::parse(EXAMPLE.as_bytes()).expect("an example");
        let place = Place { trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, span: 0x00f0_67aa_0ba9_02b7 };
        assert_eq!(read, TraceParent { place, sampled: true });
        assert_eq!(read.to_string(), EXAMPLE);
        assert!(!TraceParent::parse(EXAMPLE.replace("-01", "-02").as_bytes()).expect("other flags").sampled);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        for (header, good) in [
            (EXAMPLE.replacen("00", "01", 1), true),
            (format!("{}-more", EXAMPLE.replacen("00", "cc", 1)), true),
            (format!("{}more", EXAMPLE.replacen("00", "cc", 1)), false),
            (format!("{EXAMPLE}-more"), false),
            (EXAMPLE.replacen("00", "ff", 1), false),
            (EXAMPLE.to_uppercase(), false),
            (EXAMPLE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)), false),
            (EXAMPLE.replace("00f067aa0ba902b7", &"0".repeat(16)), false),
            (EXAMPLE.replace('-', "_"), false),
            (EXAMPLE[..54].to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(TraceParent::parse(header.as_bytes()).is_some(), good, "{header}");
        }
    }

    #[derive(Default)]
    struct Kept(Mutex<Vec<Vec<Span>>>);

    impl Sink for Kept {
        fn take(&self, spans: Vec<Span>) {
            self.0.lock().push(spans);
        }
    }

    #[test]
    fn spans_are_handed_over_once_at_the_end_with_their_parents() {
        let (kept, now) = (Arc::new(Kept::default()), Instant::now());
        let parent = TraceParent::parse(EXAMPLE.as_bytes());
        let place = parent.expect("an example").place.sibling();
        let trace = Trace::new(kept.clone(), place, parent, Some("vendor=1"));
        trace.say(MODEL_NAME, "old");
        trace.say(MODEL_NAME, "fraud");
        let part = trace.part();
        part.add(Span::new(place, "queue", now, now));
        part.end(Span::new(place, "step", now, now).with_error(Some(Code::RunFailed)));
        trace.end(Span { kind: Kind::Server, ..Span::new(place, "POST", now, now) });
        drop(trace);
        assert!(kept.0.lock().is_empty(), "a part goes on");
        drop(part);
        let kept = kept.0.lock();
        let [queue, step, server] = &kept[0][..] else { panic!("{kept:?}") };
        assert_eq!(kept.len(), 1);
        assert_eq!((server.place, server.parent, server.is_parent_remote), (place, 0x00f0_67aa_0ba9_02b7, true));
        assert_eq!((step.parent, step.is_parent_remote, step.failed), (place.span, false, true));
        assert_eq!(queue.parent, step.place.span);
        assert_eq!(server.attributes, [(MODEL_NAME, "fraud".into())]);
        assert!([queue, step, server].iter().all(|span| span.state.as_deref() == Some("vendor=1")));
        assert!([queue, step].iter().all(|span| span.place.trace == place.trace && span.place.span != place.span));
    }

    #[test]
    fn a_trace_without_end_is_handed_over_in_pieces() {
        let (kept, now) = (Arc::new(Kept::default()), Instant::now());
        let trace = Trace::new(kept.clone(), Place::new(), None, None);
        (0..3 * TOGETHER).for_each(|_| trace.add(Span::new(trace.place(), "queue", now, now)));
        assert_eq!(kept.0.lock().len(), 3);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace in 1u128.., span in 1u64.., sampled: bool) {
            let parent = TraceParent { place: Place { trace, span }, sampled };
            prop_assert_eq!(TraceParent::parse(parent.to_string().as_bytes()), Some(parent));
        }

        #[test]
        fn no_header_makes_reading_fail_badly(text in prop::collection::vec(any::<u8>(), 0..80)) {
            TraceParent::parse(&text);
        }

        #[test]
        fn a_header_with_one_wrong_letter_is_another_or_none(at in 0usize..55, letter: u8) {
            let mut text = EXAMPLE.as_bytes().to_vec();
            text[at] = letter;
            if let Some(read) = TraceParent::parse(&text) {
                prop_assert!(read.place.trace != 0 && read.place.span != 0);
                prop_assert!(letter.is_ascii_digit() || (b'a'..=b'f').contains(&letter) || letter == b'-');
            }
        }
    }
}
