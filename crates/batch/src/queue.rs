//! One version's queue: bounded, with the instances that are idle, and the door that closes at the end.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use sluicegate_core::meter::VersionMeter;
use sluicegate_core::{Code, Error, Result, Tensor, Trace};
use sluicegate_engine::Engine;
use smallvec::SmallVec;
use tokio::sync::{Notify, oneshot};

use crate::journal::{Journal, Ran, Totals};
use crate::pad::Padding;
use crate::policy::{self, Entry, Key, Limits, Next, Waiting};
use crate::stack::Scratch;
use crate::ticket::{self, Done, Inside, Ticket};
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
    /// The trace that it is a part of.
    pub trace: Option<Trace>,
}

/// What there is to know of a version's queue: how it takes what comes.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The version's name, for its threads.
    pub name: String,
    /// Whose thread runs a batch. It must be resolved; `auto` counts as threads.
    pub execution: Execution,
    /// Bounds of batches and queue.
    pub limits: Limits,
    /// Sizes at which a batch leaves without more company; none above the most rows of a run.
    pub preferred: Vec<usize>,
    /// Whether the first axis of every tensor counts rows.
    pub batched: bool,
    /// How rows of different sizes share a run.
    pub padding: Padding,
}

/// A version's queue and its instances.
pub struct Batcher(Arc<Shared>);

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
    pub(crate) trace: Option<Trace>,
}

pub(crate) struct State {
    pub(crate) waiting: Waiting<Work>,
    /// Instances that nobody runs. Where execution is inline, what waits beside one has a ticket whose turn to lead is to come.
    pub(crate) idle: Vec<Instance>,
    /// The model's own threads; each one has an instance and keeps it.
    pub(crate) threads: Vec<JoinHandle<()>>,
    /// Those of them that wait for work. One that was woken counts until it runs, which wakes at most one thread too many.
    pub(crate) parked: usize,
    pub(crate) closed: bool,
}

pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    /// Wakes a model's own thread.
    pub(crate) more: Condvar,
    /// Wakes the task that waits for company.
    pub(crate) came: Notify,
    pub(crate) instances: usize,
    pub(crate) setup: Setup,
    pub(crate) meter: Arc<VersionMeter>,
    pub(crate) journal: Journal,
}

impl Batcher {
    /// Opens the queue over warm instances. Threads of the model's own start when they are first needed.
    pub fn new(engines: Vec<Box<dyn Engine>>, setup: Setup, meter: Arc<VersionMeter>) -> Self {
        let instances = engines.len();
        let idle = engines.into_iter().map(|engine| Instance { engine, scratch: Scratch::default() }).collect();
        let state = State { waiting: Waiting::default(), idle, threads: Vec::new(), parked: 0, closed: false };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            more: Condvar::new(),
            came: Notify::new(),
            instances,
            setup,
            meter,
            journal: Journal::default(),
        }))
    }

    /// How it takes what comes.
    pub fn setup(&self) -> &Setup {
        &self.0.setup
    }

    /// Whether a request would find no room now. A look without a lock, to refuse early; [`submit`](Self::submit) decides.
    ///
    /// # Errors
    /// [`Code::QueueFull`].
    pub fn look(&self) -> Result<()> {
        let (waiting, limits) = (self.0.meter.queue_rows(), &self.0.setup.limits);
        if waiting < limits.queue_rows { Ok(()) } else { Err(full(1, waiting, limits)) }
    }

    /// How many runs may take place at the same time.
    pub fn instances(&self) -> usize {
        self.0.instances
    }

    /// The last batches, the newest first.
    pub fn last(&self) -> Vec<Ran> {
        self.0.journal.runs()
    }

    /// What all runs come to.
    pub fn totals(&self) -> Totals {
        self.0.journal.totals()
    }

    /// Rows that wait.
    pub fn queued_rows(&self) -> usize {
        self.0.state.lock().waiting.rows()
    }

    /// Queues a request. Where runs take place on the callers' threads, it is the wait for the ticket that runs it.
    ///
    /// # Errors
    /// [`Code::QueueFull`] where it has no room, [`Code::NotReady`] where the version is closed, [`Code::Io`] where the machine
    /// gives not one thread to run it.
    pub fn submit(&self, job: Job) -> Result<Ticket> {
        self.put(job, self.0.setup.execution == Execution::Inline)
    }

    /// The same, and the wait for the ticket runs it wherever runs take place otherwise, where an instance is idle. For callers with
    /// a thread of their own that is to be the one that is kept busy.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit).
    pub fn submit_here(&self, job: Job) -> Result<Ticket> {
        self.put(job, true)
    }

    fn put(&self, job: Job, here: bool) -> Result<Ticket> {
        let Job { inputs, wanted, rows, priority, arrived, deadline, trace } = job;
        let shared = &self.0;
        let Setup { limits, batched, padding, .. } = &shared.setup;
        let level = policy::level(priority);
        let mut pieces = SmallVec::new();
        {
            let mut state = shared.state.lock();
            if state.closed {
                return Err(ticket::closed());
            }
            if !state.waiting.has_room(rows, limits) {
                return Err(full(rows, state.waiting.rows(), limits));
            }
            if !here {
                shared.more_hands(&mut state)?;
            }
            let mut push = |inputs: Vec<Tensor>, rows| {
                let (reply, piece) = oneshot::channel();
                pieces.push(piece);
                let key = key(&inputs, &wanted, *batched, padding);
                let payload = Work { inputs, wanted: wanted.clone(), reply, first: pieces.len() == 1, trace: trace.clone() };
                state.waiting.push(Entry { rows, key, arrived, deadline, level, payload });
            };
            if *batched && rows > limits.max_rows {
                for start in (0..rows).step_by(limits.max_rows) {
                    let end = (start + limits.max_rows).min(rows);
                    push(inputs.iter().map(|input| input.rows(start..end)).collect(), end - start);
                }
            } else {
                push(inputs, rows);
            }
            shared.meter.set_queue_rows(state.waiting.rows());
        }
        let inside = here.then(|| Inside::new(shared));
        Ok(Ticket { pieces, deadline, arrived, inside })
    }

    /// Closes the version and waits until its instances are freed. Takes milliseconds: not for a serving thread.
    pub fn free(self) {
        self.0.close();
        let threads = std::mem::take(&mut self.0.state.lock().threads);
        for thread in threads {
            let _ = thread.join();
        }
    }
}

/// Closes without waiting. Whoever waits for an answer holds the version, so that nobody can be left without one.
impl Drop for Batcher {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Shared {
    /// Wakes one of the model's own threads, or starts one for an instance that has none.
    ///
    /// # Errors
    /// [`Code::Io`] where the machine gives no thread, and there is none yet.
    pub(crate) fn more_hands(self: &Arc<Self>, state: &mut State) -> Result<()> {
        if state.parked > 0 {
            self.more.notify_one();
            return Ok(());
        }
        let Some(instance) = state.idle.pop() else { return Ok(()) };
        match worker::spawn(self, instance) {
            Ok(thread) => state.threads.push(thread),
            Err((instance, error)) => {
                state.idle.push(instance);
                if state.threads.is_empty() {
                    return Err(error);
                }
                tracing::warn!(model = self.setup.name, %error, "an instance stays without a thread");
            }
        }
        Ok(())
    }

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
        let Setup { limits, preferred, .. } = &shared.setup;
        let next = self.waiting.next(now, limits, preferred, |entry| entry.payload.reply.is_closed(), left);
        if gone > 0 {
            shared.meter.abandoned(gone);
        }
        shared.meter.set_queue_rows(self.waiting.rows());
        next
    }
}

fn key(inputs: &[Tensor], wanted: &[usize], batched: bool, padding: &Padding) -> Key {
    let mut key = Key::from_slice(wanted);
    for (input, tensor) in inputs.iter().enumerate() {
        let sizes = tensor.shape().sizes();
        // The count of sizes keeps [2, 3] + [4] apart from [2] + [3, 4].
        key.push(sizes.len());
        key.extend(sizes.iter().enumerate().skip(usize::from(batched)).map(|(axis, &size)| padding.bucket(input, axis, size)));
    }
    key
}

fn full(rows: usize, waiting: usize, limits: &Limits) -> Error {
    Error::new(
        Code::QueueFull,
        format!(
            "the queue holds {waiting} of {} rows and has no room for {rows} more; try again later, or raise batching.queue_rows",
            limits.queue_rows
        ),
    )
}
