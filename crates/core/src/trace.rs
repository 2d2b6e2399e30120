//! A request that is traced: its place in a W3C trace, and the spans that it gathers on its way.
//!
//! What is not sampled has none of this: it pays one look at a `None` in each stage. What is sampled pays for what is written down here on
//! its way, by code and in memory that few requests use and no cache keeps: so little is, and what it is called is for whoever sends it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::Code;

/// Spans of one trace that wait for its end; more are handed over before it, as those of a long stream.
const TOGETHER: usize = 64;

/// Spans that a request commonly has: a list that grows is copied.
const SPANS: usize = 8;

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

    /// The header's value.
    pub fn header(&self) -> [u8; 55] {
        let mut header = *b"00-................................-................-00";
        write_hex(&mut header[3..35], self.place.trace);
        write_hex(&mut header[36..52], self.place.span.into());
        header[54] += u8::from(self.sampled);
        header
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.header()).map_err(|_| fmt::Error)?)
    }
}

/// The last digits of a number, in as many places as there are.
fn write_hex(places: &mut [u8], mut number: u128) {
    for place in places.iter_mut().rev() {
        *place = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// Any but 0. A range is drawn from by rejection, which takes longer.
fn new_id() -> u64 {
    fastrand::u64(..).max(1)
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
        Self { trace: fastrand::u128(..).max(1), span: new_id() }
    }

    /// A new span of the same trace.
    #[must_use]
    pub fn sibling(self) -> Self {
        Self { span: new_id(), ..self }
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

/// Something that is said of a span, under a name.
pub type Attribute = (&'static str, Value);

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

/// A request as its listener has it, and how its answer went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Whether it is a call of gRPC.
    pub is_call: bool,
    /// The version of HTTP.
    pub version: &'static str,
    /// Its path.
    pub path: Box<str>,
    /// Who says that they ask.
    pub agent: Option<Box<str>>,
    /// The id that its answer has.
    pub id: Option<Box<str>>,
    /// The answer's status, of gRPC for a call; none where the caller left before.
    pub status: Option<i32>,
}

/// Something that is over.
#[derive(Clone, Debug)]
pub struct Span {
    /// Itself; not 0.
    pub id: u64,
    /// The span that it is a part of; 0 for none.
    pub parent: u64,
    /// What it is; empty for a request, whose name is in what was asked.
    pub name: &'static str,
    /// When it began.
    pub began: Instant,
    /// When it was over.
    pub ended: Instant,
    /// What is said of all spans of a version.
    pub version: Option<Arc<[Attribute]>>,
    /// What is said of this one.
    pub attributes: Vec<Attribute>,
    /// Spans of other traces that it has to do with.
    pub links: SmallVec<[Place; 1]>,
    /// Why it failed, where it did.
    pub error: Option<Code>,
    /// The request, where it is one of a caller's, who tells by the answer whether it failed.
    pub asked: Option<Box<Asked>>,
}

impl Span {
    /// Nothing but a name and its times.
    pub fn new(name: &'static str, began: Instant, ended: Instant) -> Self {
        Self {
            id: 0,
            parent: 0,
            name,
            began,
            ended,
            version: None,
            attributes: Vec::new(),
            links: SmallVec::new(),
            error: None,
            asked: None,
        }
    }
}

/// Spans of one trace that are over.
#[derive(Clone, Debug)]
pub struct Told {
    /// The trace.
    pub trace: u128,
    /// The parent that is another process's span; 0 for none.
    pub caller: u64,
    /// The caller's `tracestate`.
    pub state: Option<Arc<str>>,
    /// In the order in which they ended.
    pub spans: Vec<Span>,
}

/// Where spans go. It never waits: what it has no room for, it drops and counts.
pub trait Sink: Send + Sync {
    /// Takes spans that are over.
    fn take(&self, told: Told);
}

/// A span that goes on, of a trace that is recorded. Cheap to clone; the spans are handed over when the last one is dropped.
#[derive(Clone)]
pub struct Trace(Arc<Node>);

struct Node {
    id: u64,
    parent: u64,
    is_part: bool,
    whole: Arc<Whole>,
    said: Mutex<Said>,
}

/// What is said of a span that goes on.
#[derive(Default)]
struct Said {
    version: Option<Arc<[Attribute]>>,
    attributes: Vec<Attribute>,
}

struct Whole {
    trace: u128,
    caller: u64,
    state: Option<Arc<str>>,
    spans: Mutex<Vec<Span>>,
    sink: Arc<dyn Sink>,
}

impl Whole {
    fn hand(&self, spans: Vec<Span>) {
        self.sink.take(Told { trace: self.trace, caller: self.caller, state: self.state.clone(), spans });
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        let spans = std::mem::take(self.spans.get_mut());
        if !spans.is_empty() {
            self.hand(spans);
        }
    }
}

impl Trace {
    /// A request at this place, asked for by this caller.
    pub fn new(sink: Arc<dyn Sink>, place: Place, parent: Option<TraceParent>, state: Option<&str>) -> Self {
        let state = state.filter(|state| !state.is_empty() && state.len() <= MAX_STATE).map(Arc::from);
        let caller = parent.map_or(0, |parent| parent.place.span);
        let whole = Whole { trace: place.trace, caller, state, spans: Mutex::new(Vec::with_capacity(SPANS)), sink };
        Self(Arc::new(Node { id: place.span, parent: caller, is_part: false, whole: Arc::new(whole), said: Mutex::default() }))
    }

    /// A part of it that has parts of its own.
    #[must_use]
    pub fn part(&self) -> Self {
        let Node { id, whole, .. } = &*self.0;
        Self(Arc::new(Node { id: new_id(), parent: *id, is_part: true, whole: whole.clone(), said: Mutex::default() }))
    }

    /// Whether it is a part of another one of this process.
    pub fn is_part(&self) -> bool {
        self.0.is_part
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        Place { trace: self.0.whole.trace, span: self.0.id }
    }

    /// As those who are asked or answered by it have it.
    pub fn header(&self) -> TraceParent {
        TraceParent { place: self.place(), sampled: true }
    }

    /// Says something of it; what was said before under the same name is forgotten.
    pub fn say(&self, name: &'static str, value: impl Into<Value>) {
        let attributes = &mut self.0.said.lock().attributes;
        attributes.retain(|(known, _)| *known != name);
        attributes.push((name, value.into()));
    }

    /// Says which version runs it, by what is said of all of that version's spans.
    pub fn run_by(&self, version: &Arc<[Attribute]>) {
        self.0.said.lock().version = Some(version.clone());
    }

    /// The version that runs it.
    pub fn version(&self) -> Option<Arc<[Attribute]>> {
        self.0.said.lock().version.clone()
    }

    /// A part of it that is over.
    pub fn add(&self, mut span: Span) {
        (span.id, span.parent) = (new_id(), self.0.id);
        self.push(span);
    }

    /// It is over itself.
    pub fn end(&self, mut span: Span) {
        let Node { id, parent, said, .. } = &*self.0;
        (span.id, span.parent) = (*id, *parent);
        Said { version: span.version, attributes: span.attributes } = std::mem::take(&mut *said.lock());
        self.push(span);
    }

    /// Hands a span that is the only one of its trace to the same sink.
    pub fn beside(&self, trace: u128, span: Span) {
        self.0.whole.sink.take(Told { trace, caller: 0, state: None, spans: vec![span] });
    }

    fn push(&self, span: Span) {
        let whole = &self.0.whole;
        let mut spans = whole.spans.lock();
        spans.push(span);
        if spans.len() >= TOGETHER {
            let some = std::mem::take(&mut *spans);
            drop(spans);
            whole.hand(some);
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
    struct Kept(Mutex<Vec<Told>>);

    impl Sink for Kept {
        fn take(&self, told: Told) {
            self.0.lock().push(told);
        }
    }

    #[test]
    fn spans_are_handed_over_once_at_the_end_with_their_parents() {
        let (kept, now) = (Arc::new(Kept::default()), Instant::now());
        let parent = TraceParent::parse(EXAMPLE.as_bytes());
        let place = parent.expect("an example").place.sibling();
        let trace = Trace::new(kept.clone(), place, parent, Some("vendor=1"));
        trace.say(CACHE, "miss");
        trace.say(CACHE, "hit");
        let version: Arc<[Attribute]> = Arc::new([(MODEL_NAME, "fraud".into())]);
        trace.run_by(&version);
        let part = trace.part();
        part.add(Span::new("queue", now, now));
        part.end(Span { error: Some(Code::RunFailed), ..Span::new("step", now, now) });
        trace.end(Span::new("", now, now));
        drop(trace);
        assert!(kept.0.lock().is_empty(), "a part goes on");
        drop(part);
        let kept = kept.0.lock();
        let [told] = &kept[..] else { panic!("{kept:?}") };
        assert_eq!((told.trace, told.caller, told.state.as_deref()), (place.trace, 0x00f0_67aa_0ba9_02b7, Some("vendor=1")));
        let [queue, step, server] = &told.spans[..] else { panic!("{told:?}") };
        assert_eq!((server.id, server.parent, step.parent, queue.parent), (place.span, told.caller, server.id, step.id));
        assert!(queue.id != step.id && step.id != server.id);
        assert_eq!(
            (&server.attributes[..], &server.version, &step.version),
            (&[(CACHE, "hit".into())][..], &Some(version), &None)
        );
        assert_eq!(step.error, Some(Code::RunFailed));
    }

    #[test]
    fn a_trace_without_end_is_handed_over_in_pieces() {
        let (kept, now) = (Arc::new(Kept::default()), Instant::now());
        let trace = Trace::new(kept.clone(), Place::new(), None, None);
        (0..3 * TOGETHER).for_each(|_| trace.add(Span::new("queue", now, now)));
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
