//! One version's queue: bounded, with the instances that are idle, and the door that closes at the end.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use sluicegate_core::meter::VersionMeter;
use sluicegate_core::{Code, Error, Result, Tensor};
use sluicegate_engine::Engine;
use smallvec::SmallVec;
use tokio::sync::{Notify, oneshot};

use crate::policy::{self, Entry, Key, Limits, Next, Waiting};
use crate::stack::Scratch;
use crate::ticket::{self, Done, Ticket};
use crate::worker;

/// Whose thread runs a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Execution {
    /// Inline where the warm-up measured a full batch below [`Execution::CHEAP`], else threads.
    #[default]
    Auto,
    /// The thread of a caller: no hand-over, but it blocks the reactor for the length of a run.
    Inline,
    /// Threads of the model's own, one an instance.
    Threads,
}

impl Execution {
    /// The longest run that may block a reactor thread: about what one request of a busy socket costs anyway.
    pub const CHEAP: Duration = Duration::from_micros(500);

    /// Decides by the measured cost of a full batch.
    #[must_use]
    pub fn resolve(self, full_batch: Duration) -> Self {
        match self {
            Self::Auto if full_batch <= Self::CHEAP => Self::Inline,
            Self::Auto => Self::Threads,
            chosen => chosen,
        }
    }
}

/// One checked request: it fits the version's signature.
#[derive(Debug)]
pub struct Job {
    /// Inputs in the order of the signature.
    pub inputs: Vec<Tensor>,
    /// Places of the outputs wanted, without repetition.
    pub wanted: SmallVec<[usize; 4]>,
    /// Rows; 1 where the model is not batched.
    pub rows: usize,
    /// The protocol's priority.
    pub priority: u64,
    /// When it came.
    pub arrived: Instant,
    /// When it is no longer worth running.
    pub deadline: Instant,
}

/// A version's queue and its instances.
pub struct Batcher {
    shared: Arc<Shared>,
    execution: Execution,
    threads: Vec<JoinHandle<()>>,
}

pub(crate) struct Instance {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) scratch: Scratch,
}

pub(crate) struct Work {
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) wanted: SmallVec<[usize; 4]>,
    pub(crate) reply: oneshot::Sender<Result<Done>>,
    /// Whether it stands for its request, of which others may be further pieces.
    pub(crate) first: bool,
}

pub(crate) struct State {
    pub(crate) waiting: Waiting<Work>,
    /// Instances that nobody runs. Where execution is inline and nobody waits for company, one is here only if nothing waits.
    pub(crate) idle: Vec<Instance>,
    pub(crate) closed: bool,
}

pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    /// Wakes a model's own thread.
    pub(crate) more: Condvar,
    /// Wakes the task that waits for company.
    pub(crate) came: Notify,
    pub(crate) limits: Limits,
    pub(crate) batched: bool,
    pub(crate) meter: Arc<VersionMeter>,
}

impl Batcher {
    /// Opens the queue over warm instances. `execution` must be resolved; `auto` counts as threads.
    ///
    /// # Errors
    /// [`Code::Io`] where the machine gives no thread.
    pub fn new(
        engines: Vec<Box<dyn Engine>>,
        name: &str,
        execution: Execution,
        limits: Limits,
        batched: bool,
        meter: Arc<VersionMeter>,
    ) -> Result<Self> {
        let mut idle: Vec<Instance> =
            engines.into_iter().map(|engine| Instance { engine, scratch: Scratch::default() }).collect();
        let own = if execution == Execution::Inline { Vec::new() } else { std::mem::take(&mut idle) };
        let state = Mutex::new(State { waiting: Waiting::default(), idle, closed: false });
        let shared = Arc::new(Shared { state, more: Condvar::new(), came: Notify::new(), limits, batched, meter });
        let threads = own.into_iter().map(|instance| worker::spawn(name, shared.clone(), instance)).collect::<Result<_>>();
        if threads.is_err() {
            // Those that did start end with it.
            shared.close();
        }
        Ok(Self { threads: threads?, shared, execution })
    }

    /// Whose thread runs batches.
    pub fn execution(&self) -> Execution {
        self.execution
    }

    /// Rows that wait.
    pub fn queued_rows(&self) -> usize {
        self.shared.state.lock().waiting.rows()
    }

    /// Queues a request; where an instance idles and runs are cheap, runs it before returning.
    ///
    /// # Errors
    /// [`Code::QueueFull`] where it has no room, [`Code::NotReady`] where the version is closed.
    pub fn submit(&self, job: Job) -> Result<Ticket> {
        let Job { inputs, wanted, rows, priority, arrived, deadline } = job;
        let limits = &self.shared.limits;
        let level = policy::level(priority);
        let mut pieces = SmallVec::new();
        let instance = {
            let mut state = self.shared.state.lock();
            if state.closed {
                return Err(ticket::closed());
            }
            if !state.waiting.has_room(rows, limits) {
                return Err(full(rows, &state.waiting, limits));
            }
            let mut push = |inputs: Vec<Tensor>, rows| {
                let (reply, piece) = oneshot::channel();
                pieces.push(piece);
                let key = key(&inputs, &wanted, self.shared.batched);
                let payload = Work { inputs, wanted: wanted.clone(), reply, first: pieces.len() == 1 };
                state.waiting.push(Entry { rows, key, arrived, deadline, level, payload });
            };
            if self.shared.batched && rows > limits.max_rows {
                for start in (0..rows).step_by(limits.max_rows) {
                    let end = (start + limits.max_rows).min(rows);
                    push(inputs.iter().map(|input| input.rows(start..end)).collect(), end - start);
                }
            } else {
                push(inputs, rows);
            }
            self.shared.meter.set_queue_rows(state.waiting.rows());
            state.idle.pop()
        };
        match instance {
            Some(instance) => worker::lead(&self.shared, instance),
            None if self.execution != Execution::Inline => drop(self.shared.more.notify_one()),
            None if !limits.max_delay.is_zero() => self.shared.came.notify_one(),
            None => {}
        }
        Ok(Ticket { pieces, deadline, arrived })
    }

    /// Closes the version and waits until its instances are freed. Takes milliseconds: not for a serving thread.
    pub fn free(mut self) {
        self.shared.close();
        for thread in std::mem::take(&mut self.threads) {
            let _ = thread.join();
        }
    }
}

/// Closes without waiting. Whoever waits for an answer holds the version, so that nobody can be left without one.
impl Drop for Batcher {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    /// Takes no more, answers those who wait, ends the threads, and frees the idle instances.
    fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let waiting: Vec<_> = state.waiting.drain().collect();
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        self.more.notify_all();
        for entry in waiting {
            let _ = entry.payload.reply.send(Err(ticket::closed()));
        }
        drop(idle);
    }
}

impl State {
    /// What the policy says. Those whose caller left or whose time is up leave the queue; a late one's ticket answers it.
    pub(crate) fn next(&mut self, shared: &Shared) -> Next<Work> {
        let (mut gone, now) = (0, Instant::now());
        let left = |entry: Entry<Work>| gone += u64::from(entry.payload.first && now < entry.deadline);
        let next = self.waiting.next(now, &shared.limits, |entry| entry.payload.reply.is_closed(), left);
        if gone > 0 {
            shared.meter.abandoned(gone);
        }
        shared.meter.set_queue_rows(self.waiting.rows());
        next
    }
}

fn key(inputs: &[Tensor], wanted: &[usize], batched: bool) -> Key {
    let mut key = Key::from_slice(wanted);
    for input in inputs {
        let sizes = input.shape().sizes();
        // The count of sizes keeps [2, 3] + [4] apart from [2] + [3, 4].
        key.push(sizes.len());
        key.extend_from_slice(sizes.get(usize::from(batched)..).unwrap_or_default());
    }
    key
}

fn full<T>(rows: usize, waiting: &Waiting<T>, limits: &Limits) -> Error {
    Error::new(
        Code::QueueFull,
        format!(
            "the queue holds {} of {} rows and has no room for {rows} more; try again later, or raise batching.queue_rows",
            waiting.rows(),
            limits.queue_rows
        ),
    )
}
