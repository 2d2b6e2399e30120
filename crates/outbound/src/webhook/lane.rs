//! One receiver: its bounded queue and its thread, so that one that hangs holds up no other.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use metrics::{Counter, Gauge, counter, gauge};
use parking_lot::{Condvar, Mutex};
use sluicegate_core::{Code, Error, Result, metric};
use tracing::{debug, error, warn};

use super::event::{CONTENT_TYPE, Event, Kind, Letter};
use super::key::Keys;
use super::pace::{Meaning, meaning};
use super::{Hook, QUEUE};
use crate::client::{Answer, Failure, Post};

/// Most bytes of a receiver's answer that are read; what it says is not looked at.
const ANSWER: usize = 16 * 1024;

/// A receiver.
pub(super) struct Lane {
    index: usize,
    hook: Hook,
    keys: Option<Keys>,
    counts: Counts,
    state: Mutex<State>,
    /// Told when an event comes, when it is to end, and when it has ended.
    changed: Condvar,
}

/// What waits. The first one is being delivered, and leaves the queue when it is decided what became of it.
#[derive(Default)]
struct State {
    letters: VecDeque<Arc<Letter>>,
    /// Until when it has to have ended, once that is asked for.
    until: Option<Instant>,
    has_ended: bool,
}

/// What becomes of events, as [`metric::WEBHOOK_EVENTS`] counts it.
struct Counts {
    delivered: Counter,
    refused: Counter,
    given_up: Counter,
    dropped: Counter,
    abandoned: Counter,
    retries: Counter,
    queue: Gauge,
}

/// What became of one event.
enum Outcome {
    Delivered,
    Refused(String),
    GivenUp(String),
    /// The gateway ends, and the receiver did not take it.
    Abandoned(String),
}

impl Lane {
    /// Starts the receiver's thread.
    pub(super) fn start(index: usize, hook: Hook) -> Result<Arc<Self>> {
        let keys = hook.secret.as_ref().map(Keys::read).transpose()?;
        let counts = Counts::of(index, hook.url.host());
        let lane = Arc::new(Self { index, hook, keys, counts, state: Mutex::default(), changed: Condvar::new() });
        let own = Arc::clone(&lane);
        let thread = thread::Builder::new().name(format!("webhook-{index}")).spawn(move || own.work());
        thread.map_err(|error| Error::new(Code::Io, format!("the thread of webhook {index} cannot be started: {error}")))?;
        Ok(lane)
    }

    /// Whether the receiver gets events of this kind.
    pub(super) fn wants(&self, kind: Kind) -> bool {
        self.hook.events.is_empty() || self.hook.events.contains(&kind)
    }

    /// Puts an event behind those that wait.
    pub(super) fn push(&self, letter: Arc<Letter>) {
        let mut state = self.state.lock();
        if state.until.is_some() {
            self.counts.abandoned.increment(1);
            warn!(hook = self.index, url = %self.hook.url, event = letter.id, "event not sent: the gateway ends");
        } else if state.letters.len() >= QUEUE {
            self.counts.dropped.increment(1);
            let (kind, model) = (letter.kind.name(), &letter.model);
            error!(hook = self.index, url = %self.hook.url, event = letter.id, kind, model, "event dropped: {QUEUE} wait already");
        } else {
            state.letters.push_back(letter);
            self.counts.queue.set(state.letters.len() as f64);
            self.changed.notify_all();
        }
    }

    /// Counts an event that cannot be written.
    pub(super) fn drop_unwritten(&self, event: &Event, why: &str) {
        self.counts.dropped.increment(1);
        error!(hook = self.index, url = %self.hook.url, kind = event.kind.name(), model = event.model, "event dropped: {why}");
    }

    /// Lets it end, until then at the latest.
    pub(super) fn close(&self, until: Instant) {
        self.state.lock().until.get_or_insert(until);
        self.changed.notify_all();
    }

    /// Waits until it has ended, and counts what is left.
    pub(super) fn wait(&self, until: Instant) {
        let mut state = self.state.lock();
        while !state.has_ended && !self.changed.wait_until(&mut state, until).timed_out() {}
        let left = std::mem::take(&mut state.letters).len();
        self.counts.queue.set(0.0);
        if left > 0 {
            self.counts.abandoned.increment(left as u64);
            warn!(hook = self.index, url = %self.hook.url, events = left, "events not sent: the gateway ends");
        }
    }

    fn work(&self) {
        while let Some(letter) = self.next() {
            let outcome = self.deliver(&letter);
            if !self.settle(&letter, &outcome) {
                break;
            }
        }
        self.state.lock().has_ended = true;
        self.changed.notify_all();
    }

    /// The first event that waits; none when it is to end and has nothing to do or no time to.
    fn next(&self) -> Option<Arc<Letter>> {
        let mut state = self.state.lock();
        loop {
            if state.until.is_some_and(|until| Instant::now() >= until) {
                return None;
            }
            match (state.letters.front(), state.until) {
                (Some(letter), _) => return Some(Arc::clone(letter)),
                (None, Some(_)) => return None,
                (None, None) => self.changed.wait(&mut state),
            }
        }
    }

    /// Tries until it is decided what becomes of the event.
    fn deliver(&self, letter: &Letter) -> Outcome {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (why, asked) = match self.attempt(letter) {
                Ok(answer) => {
                    let retry_after = answer.headers.get("retry-after").and_then(|value| value.to_str().ok());
                    let why = format!("{} answered {}", self.hook.url, answer.status);
                    match meaning(answer.status, retry_after, SystemTime::now()) {
                        Meaning::Taken => return Outcome::Delivered,
                        Meaning::Refused => return Outcome::Refused(why),
                        Meaning::Again(asked) => (why, asked),
                    }
                }
                Err(Failure { why, may_pass: false }) => return Outcome::Refused(why),
                Err(Failure { why, .. }) => (why, None),
            };
            if attempts >= self.hook.max_attempts.get() {
                return Outcome::GivenUp(format!("{why}; that was attempt {attempts} of {attempts}"));
            }
            let wait = self.hook.pace.wait(attempts, asked, fastrand::f64());
            debug!(hook = self.index, event = letter.id, attempts, ?wait, "event not taken: {why}");
            if !self.pause(wait) {
                return Outcome::Abandoned(why);
            }
            self.counts.retries.increment(1);
        }
    }

    fn attempt(&self, letter: &Letter) -> Result<Answer, Failure> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut headers = vec![
            ("content-type", CONTENT_TYPE.to_owned()),
            ("webhook-id", letter.id.clone()),
            // Of the attempt, not of the event: receivers refuse what is older than some minutes.
            ("webhook-timestamp", now.to_string()),
        ];
        if let Some(keys) = &self.keys {
            headers.push(("webhook-signature", keys.sign(&letter.id, now, &letter.body)));
        }
        let left = self.state.lock().until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = self.hook.timeout.min(left.unwrap_or(Duration::MAX));
        Post { address: &self.hook.url, headers: &headers, body: &letter.body, timeout, most: ANSWER, again: false }.send()
    }

    /// Waits for so long; false as soon as it is to end.
    fn pause(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let mut state = self.state.lock();
        while state.until.is_none() && !self.changed.wait_until(&mut state, until).timed_out() {}
        state.until.is_none()
    }

    /// Takes the event from the queue and counts what became of it; false where no further one is to be tried.
    fn settle(&self, letter: &Letter, outcome: &Outcome) -> bool {
        let (hook, url, event) = (self.index, &self.hook.url, &letter.id);
        let (kind, model) = (letter.kind.name(), &letter.model);
        if let Outcome::Abandoned(why) = outcome {
            // It stays in the queue, where `wait` counts it with those behind it.
            warn!(hook, %url, event, kind, model, "event not taken while the gateway ends: {why}");
            return false;
        }
        let mut state = self.state.lock();
        if state.letters.pop_front().is_none() {
            // `wait` has given it up and counted it already.
            return false;
        }
        self.counts.queue.set(state.letters.len() as f64);
        drop(state);
        match outcome {
            Outcome::Delivered => {
                self.counts.delivered.increment(1);
                debug!(hook, %url, event, kind, model, "event delivered");
            }
            Outcome::Refused(why) => {
                self.counts.refused.increment(1);
                error!(hook, %url, event, kind, model, "event refused: {why}; look at the webhook's url and what its receiver takes");
            }
            Outcome::GivenUp(why) => {
                self.counts.given_up.increment(1);
                error!(hook, %url, event, kind, model, "event given up: {why}");
            }
            Outcome::Abandoned(_) => {}
        }
        true
    }
}

impl Counts {
    fn of(index: usize, host: &str) -> Self {
        let (hook, host) = (index.to_string(), host.to_owned());
        let events = |outcome: &'static str| counter!(metric::WEBHOOK_EVENTS, "hook" => hook.clone(), "host" => host.clone(), "outcome" => outcome);
        Self {
            delivered: events("delivered"),
            refused: events("refused"),
            given_up: events("given_up"),
            dropped: events("dropped"),
            abandoned: events("abandoned"),
            retries: counter!(metric::WEBHOOK_RETRIES, "hook" => hook.clone(), "host" => host.clone()),
            queue: gauge!(metric::WEBHOOK_QUEUE, "hook" => hook.clone(), "host" => host.clone()),
        }
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("index", &self.index).field("url", &self.hook.url).finish_non_exhaustive()
    }
}
