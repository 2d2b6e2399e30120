//! Moves the traffic of rollouts: one thread that looks at what each candidate did, decides by `rollout`, keeps what was decided in
//! `state`, and sets the split of `gateway`. No request waits for it.
//!
//! [`journal`] is what is kept, `mover` one model's rollout, `queries` what it asks of Prometheus, `failures` the versions that fail to
//! load, `view` and
//! `shown` what is told of it.

mod failures;
pub mod journal;
mod mover;
mod queries;
mod shown;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use serde_json::Value;
use sluicegate_core::{Code, Error, ModelName, Result, metric};
use sluicegate_gateway::{Mirror, Splits};
use sluicegate_outbound::webhook::Hooks;
use sluicegate_registry::{Published, Status};
use tokio::sync::oneshot;

pub use journal::Journal;
pub use mover::Declared;
pub use sluicegate_rollout::{Command, Spec};

use failures::Failures;
use mover::{Moved, Mover};

/// How often each rollout is looked at: a hard limit is noticed within this, and a step is this long at least.
const LOOK: Duration = Duration::from_millis(250);

/// Questions that may wait for the thread.
const WAITING: usize = 64;

/// Which version of a model answers, and which are kept beside it, where a rollout says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Who answers requests that name no version.
    pub answers: u64,
    /// Who is loaded beside it: the candidate before it is promoted, stable after.
    pub beside: Option<u64>,
    /// Who is called the candidate, as long as nothing is decided.
    pub candidate: Option<u64>,
}

/// Which versions rollouts ask for.
pub type Placements = BTreeMap<ModelName, Placement>;

/// What the thread works with.
pub struct Setup {
    /// Where it is kept how far rollouts came.
    pub journal: Journal,
    /// Where the shares are set.
    pub splits: Splits,
    /// Who is told.
    pub hooks: Hooks,
}

/// The way to the thread.
pub struct Traffic {
    asks: SyncSender<Ask>,
    views: Views,
    splits: Splits,
}

type Views = Arc<RwLock<BTreeMap<ModelName, (Value, Arc<Mirror>)>>>;
type Reply<T> = oneshot::Sender<Result<T>>;

enum Ask {
    Declare(Vec<Declared>),
    Move { model: String, command: Command, by: Option<String>, reason: Option<String>, reply: Reply<Value> },
    Events { model: String, after: u64, limit: u32, reply: Reply<Vec<Value>> },
}

/// Rollouts as they were declared and kept, before anything is served.
pub struct Prepared {
    setup: Setup,
    movers: Vec<Mover>,
}

impl Prepared {
    /// Reads how far each declared rollout came.
    pub fn new(mut setup: Setup, declared: Vec<Declared>) -> Self {
        let movers =
            declared.into_iter().map(|declared| Mover::new(declared, setup.splits.clone(), &mut setup.journal, now())).collect();
        Self { setup, movers }
    }

    /// Which versions they ask for now.
    pub fn placements(&self) -> Placements {
        placements(&self.movers)
    }

    /// Starts the thread. `place` is called where the versions that rollouts ask for change.
    ///
    /// # Errors
    /// [`Code::Io`] where the machine gives no thread.
    pub fn start(
        self,
        published: Published,
        status: Arc<Status>,
        place: impl Fn(Placements) + Send + 'static,
    ) -> Result<Traffic> {
        let (asks, inbox) = sync_channel(WAITING);
        let (views, splits) = (Views::default(), self.setup.splits.clone());
        let thread = Thread {
            placed: placements(&self.movers),
            setup: self.setup,
            movers: self.movers,
            published,
            views: views.clone(),
            failures: Failures::new(status),
        };
        thread.movers.iter().for_each(Mover::apply);
        thread.show();
        let run = move || thread.run(&inbox, &place);
        let started = std::thread::Builder::new().name("traffic".into()).spawn(run);
        started.map_err(|error| Error::new(Code::Io, format!("no thread to move traffic: {error}")))?;
        Ok(Traffic { asks, views, splits })
    }
}

struct Thread {
    setup: Setup,
    movers: Vec<Mover>,
    placed: Placements,
    published: Published,
    views: Views,
    failures: Failures,
}

fn placements(movers: &[Mover]) -> Placements {
    movers.iter().map(|mover| (mover.model().clone(), mover.placement())).collect()
}

/// Unix milliseconds.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Thread {
    fn run(mut self, inbox: &Receiver<Ask>, place: &dyn Fn(Placements)) {
        loop {
            self.look();
            let next = placements(&self.movers);
            if next != self.placed {
                self.placed.clone_from(&next);
                place(next);
            }
            match inbox.recv_timeout(LOOK) {
                Ok(ask) => self.answer(ask),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&mut self) {
        let table = self.published.load();
        for mover in &mut self.movers {
            let moved = mover.look(&mut self.setup.journal, &table, now());
            tell(&self.setup, mover, moved);
        }
        drop(table);
        self.failures.look(now()).iter().for_each(|event| self.setup.hooks.emit(event));
        self.movers.iter().for_each(shown::metrics);
        self.show();
    }

    fn show(&self) {
        let views =
            self.movers.iter().map(|mover| (mover.model().clone(), (mover.view(now()), mover.mirror().clone()))).collect();
        *self.views.write() = views;
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Declare(declared) => self.declare(declared),
            Ask::Move { model, command, by, reason, reply } => {
                let outcome = self.command(&model, command, by, reason);
                self.show();
                let _ = reply.send(outcome);
            }
            Ask::Events { model, after, limit, reply } => {
                let _ = reply.send(self.setup.journal.events(&model, after, limit));
            }
        }
    }

    /// What is declared as before goes on with what it has counted.
    fn declare(&mut self, declared: Vec<Declared>) {
        let mut before: BTreeMap<ModelName, Mover> =
            std::mem::take(&mut self.movers).into_iter().map(|mover| (mover.model().clone(), mover)).collect();
        for declared in declared {
            let mover = match before.remove(&declared.model) {
                Some(mover) if *mover.declared() == declared => mover,
                _ => Mover::new(declared, self.setup.splits.clone(), &mut self.setup.journal, now()),
            };
            self.movers.push(mover);
        }
        for mover in before.values() {
            mover.withdraw();
            shown::gone(mover);
        }
        self.movers.iter().for_each(Mover::apply);
    }

    fn command(&mut self, model: &str, command: Command, by: Option<String>, reason: Option<String>) -> Result<Value> {
        let mover = self.movers.iter_mut().find(|mover| mover.model().as_str() == model).ok_or_else(|| none(model))?;
        let moved = mover.command(&mut self.setup.journal, command, by, reason, now())?;
        let view = mover.view(now());
        tell(&self.setup, mover, Some(moved));
        Ok(view)
    }
}

/// What was decided has taken effect when it is told.
fn tell(setup: &Setup, mover: &Mover, moved: Option<Moved>) {
    let Some(moved) = moved else { return };
    metrics::counter!(metric::ROLLOUT_DECISIONS, "model" => mover.model().to_string(), "kind" => moved.kind.name())
        .increment(u64::from(moved.event.is_some()));
    if let Some(event) = moved.event {
        tracing::info!(model = %mover.model(), kind = moved.kind.name(), evidence = %event.data, "{}", moved.sentence);
        setup.hooks.emit(&event);
    }
}

fn none(model: &str) -> Error {
    Error::new(Code::NotFound, format!("no rollout is declared for `{model}`: give its entry in the configuration a `rollout`"))
}

impl Traffic {
    /// Says what is declared from now on.
    pub fn declare(&self, declared: Vec<Declared>) {
        // The thread empties its inbox between two looks.
        let _ = self.asks.send(Ask::Declare(declared));
    }

    /// How far a model's rollout came, and what it is judged by.
    ///
    /// # Errors
    /// [`Code::NotFound`] where none is declared.
    pub fn view(&self, model: &str) -> Result<Value> {
        self.views.read().get(model).map(|(view, _)| view.clone()).ok_or_else(|| none(model))
    }

    /// What a model's shadow said otherwise than stable.
    ///
    /// # Errors
    /// [`Code::NotFound`] where no rollout is declared.
    pub fn shadow(&self, model: &str) -> Result<Value> {
        let (view, mirror) = self.views.read().get(model).cloned().ok_or_else(|| none(model))?;
        let mut told = mirror.view();
        told["model"] = model.into();
        told["rows"] = view["numbers"]["shadow"].clone();
        Ok(told)
    }

    /// Moves a model's rollout by hand, and tells how far it is then.
    ///
    /// # Errors
    /// [`Code::NotFound`] where none is declared, [`Code::Conflict`] where the command does not fit how far it came, [`Code::Io`] where
    /// it cannot be kept.
    pub async fn command(&self, model: &str, command: Command, by: Option<String>, reason: Option<String>) -> Result<Value> {
        let split = self.splits.of(model).filter(|_| command == Command::Rollback);
        let moved = self.ask(|reply| Ask::Move { model: model.to_owned(), command, by, reason, reply })?;
        if let Some(split) = split {
            // It takes effect before the thread comes to it: that may wait for a database, and who is to be rescued may not.
            self.splits.hold_back(model, &split.salt);
        }
        moved.await
    }

    /// What was decided of a model, oldest first.
    ///
    /// # Errors
    /// [`Code::Io`] where what was kept cannot be read.
    pub async fn events(&self, model: &str, after: u64, limit: u32) -> Result<Vec<Value>> {
        self.ask(|reply| Ask::Events { model: model.to_owned(), after, limit, reply })?.await
    }

    /// Puts it to the thread.
    fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<impl Future<Output = Result<T>>> {
        let (reply, answer) = oneshot::channel();
        let busy = |_| Error::new(Code::TooBusy, "too many ask about rollouts; try again later");
        self.asks.try_send(ask(reply)).map_err(busy)?;
        Ok(async { answer.await.unwrap_or_else(|_| Err(Error::new(Code::NotReady, "the gateway is going"))) })
    }
}
