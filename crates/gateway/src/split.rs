//! Which variant of a rollout answers a request that names no version, and what becomes of one that the candidate fails.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use sluicegate_core::meter::{SHARDS, shard};
use sluicegate_core::split::{Asker, Lot, Share, Sticky, Variant};
use sluicegate_core::tally::Tally;
use sluicegate_core::{Code, Error, Fault, ModelName, Result};
use sluicegate_core::{Request, Response};
use sluicegate_registry::{Live, Table};

use crate::compare;
use crate::shadow::Mirror;

/// The header by which a caller chooses the variant, where that is allowed.
pub const OVERRIDE: &str = "x-sluicegate-variant";

/// How the requests of one model are split.
#[derive(Clone)]
pub struct Split {
    /// What makes its draws differ from those of other rollouts.
    pub salt: Arc<str>,
    /// The version that answered before.
    pub stable: u64,
    /// The version that is to answer.
    pub candidate: u64,
    /// The candidate's share.
    pub share: Share,
    /// What keeps a caller on one variant.
    pub sticky: Option<Sticky>,
    /// The part of a request's time after which stable answers instead of the candidate; `None` where its failures are told.
    pub fallback: Option<f64>,
    /// Whether callers may choose by [`OVERRIDE`].
    pub allow_override: bool,
    /// The share of requests that stable answers and the candidate gets a copy of.
    pub mirrored: Share,
    /// How those are compared.
    pub mirror: Option<Arc<Mirror>>,
    /// Where it is counted.
    pub tally: Arc<Tally>,
}

/// The splits of all models that roll out. Each request holds its own, and threads on different cores would fight for one count of who
/// does: each has a copy.
#[derive(Clone, Default)]
pub struct Splits(Arc<ArcSwap<HashMap<ModelName, [Arc<Split>; SHARDS]>>>);

impl Splits {
    /// Sets how a model's requests are split from now on; `None` where they no longer are.
    pub fn set(&self, model: &ModelName, split: Option<&Split>) {
        self.0.rcu(|splits| {
            let mut next = HashMap::clone(splits);
            match split {
                Some(split) => next.insert(model.clone(), std::array::from_fn(|_| Arc::new(split.clone()))),
                None => next.remove(model),
            };
            next
        });
    }

    /// Lets stable answer a model's requests from now on, where they are still split as `salt` was declared.
    pub fn hold_back(&self, model: &str, salt: &str) {
        self.0.rcu(|splits| {
            let mut next = HashMap::clone(splits);
            if let Some(copies) = next.get_mut(model).filter(|[split, ..]| *split.salt == *salt) {
                for copy in copies {
                    let split = Split::clone(copy);
                    *copy = Arc::new(Split { share: Share::NONE, mirrored: Share::NONE, allow_override: false, ..split });
                }
            }
            next
        });
    }

    /// Whether a model's callers are told apart by their headers.
    pub fn read_headers(&self) -> bool {
        let is_there = |sticky: &Option<Sticky>| matches!(sticky, Some(Sticky::Header(_) | Sticky::Cookie(_)));
        self.0.load().values().any(|[split, ..]| is_there(&split.sticky))
    }

    /// How a model's requests are split.
    pub fn of(&self, model: &str) -> Option<Arc<Split>> {
        let splits = self.0.load();
        if splits.is_empty() { None } else { splits.get(model).map(|copies| copies[shard()].clone()) }
    }
}

/// The part that a request's version plays in a split.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) split: Arc<Split>,
    pub(crate) variant: Variant,
    /// The candidate, where it gets a copy of the request.
    copied: Option<Arc<Live>>,
    /// Whether the candidate failed before, and what stable says then is not counted as stable's own.
    fallen: Option<Fallen>,
}

/// Why stable answers instead of the candidate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fallen {
    /// The candidate failed.
    Failed,
    /// The candidate said that the request is wrong, and its signature is another one. If stable answers, the candidate was wrong.
    Refused,
}

/// Random bits, cheap and from a thread's own state: SplitMix64 (Steele, Lea and Flood 2014), seeded by the system.
fn chance() -> u64 {
    thread_local!(static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(std::thread::current().id())));
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mut z = next;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

impl Split {
    /// Draws the variant of a request, and finds its version. Shares hold only for versions that are ready: without the candidate, stable
    /// answers, and the other way round.
    ///
    /// # Errors
    /// [`Code::Forbidden`] where the caller chooses and may not.
    pub(crate) fn draw<'a>(
        self: Arc<Self>,
        table: &'a Table,
        model: &str,
        asker: &dyn Asker,
    ) -> Result<Option<(Part, &'a Arc<Live>)>> {
        let Some(served) = table.models.get(model).filter(|served| served.default.is_some()) else { return Ok(None) };
        let (stable, candidate) = (served.versions.get(&self.stable), served.versions.get(&self.candidate));
        let chosen = asker.chosen().map(|chosen| self.chosen(chosen)).transpose()?;
        let is_between = self.share > Share::NONE && self.share < Share::ALL;
        let drawn = || {
            let key = self.sticky.as_ref().and_then(|sticky| sticky.lot(&self.salt, asker));
            let is_candidate = self.share.covers(key.unwrap_or_else(|| Lot::from_bits(chance())));
            let variant = if is_candidate { Variant::Candidate } else { Variant::Stable };
            if key.is_none() && is_between && stable.is_some() && candidate.is_some() {
                self.tally.arm(variant).drawn();
            }
            variant
        };
        let variant = chosen.unwrap_or_else(drawn);
        let found = match variant {
            Variant::Candidate => candidate.map(|live| (variant, live)).or(stable.map(|live| (Variant::Stable, live))),
            Variant::Stable => stable.map(|live| (variant, live)).or(candidate.map(|live| (Variant::Candidate, live))),
        };
        let Some((variant, live)) = found else { return Ok(None) };
        let is_copied =
            variant == Variant::Stable && self.mirrored > Share::NONE && self.mirrored.covers(Lot::from_bits(chance()));
        let copied = candidate.filter(|_| is_copied).cloned();
        Ok(Some((Part { split: self, variant, copied, fallen: None }, live)))
    }

    fn chosen(&self, chosen: &[u8]) -> Result<Variant> {
        if !self.allow_override {
            let why = format!("the header {OVERRIDE} is not allowed for this model: set `rollout.allow_override`");
            return Err(Error::new(Code::Forbidden, why));
        }
        let all = [Variant::Stable, Variant::Candidate];
        let found = all.into_iter().find(|variant| variant.name().as_bytes() == chosen);
        found.ok_or_else(|| Error::new(Code::BadHeader, format!("{OVERRIDE}: expected stable or candidate")))
    }
}

impl Part {
    /// What stable plays after the candidate failed so; `None` where the failure is told to the caller.
    pub(crate) fn fall_back(&self, live: &Live, stable: &Live, error: &Error) -> Option<Self> {
        let fallen = match error.fault() {
            Fault::Caller if live.signature == stable.signature => return None,
            Fault::Caller => Fallen::Refused,
            _ => Fallen::Failed,
        };
        self.is_tried().then(|| Self { split: self.split.clone(), variant: Variant::Stable, copied: None, fallen: Some(fallen) })
    }

    /// Whether it is the candidate, and stable answers what that fails.
    pub(crate) fn is_tried(&self) -> bool {
        self.variant == Variant::Candidate && self.split.fallback.is_some()
    }

    /// The time that the version may take of so much.
    pub(crate) fn time(&self, all: Duration) -> Duration {
        self.split.fallback.filter(|_| self.is_tried()).map_or(all, |part| all.mul_f64(part))
    }

    /// Whether it is stable's answer to what the candidate failed.
    pub(crate) fn is_fallen(&self) -> bool {
        self.fallen.is_some()
    }

    /// A copy of a request and the time that it is, where the candidate gets one.
    pub(crate) fn copy(&self, request: &Request) -> Option<(Request, Instant)> {
        self.copied.as_ref().map(|_| (request.clone(), Instant::now()))
    }

    /// Counts what was answered, and hands the copy over, where there is room for such.
    pub(crate) fn said(&self, live: &Live, response: &Response, copy: Option<(Request, Instant)>, has_room: bool) {
        if self.fallen.is_none()
            && let Some(output) = response.outputs.first()
        {
            let arm = self.split.tally.arm(self.variant);
            // The rows of one request are often of a kind, and fall to one variant all together: counted each, a few requests of many rows
            // would pass for another distribution.
            let bucket = compare::bucket(&output.tensor, &live.signature.outputs()[output.place]);
            bucket.into_iter().for_each(|bucket| arm.said(bucket));
        }
        let Some((candidate, (copy, began))) = self.copied.as_ref().zip(copy) else { return };
        match self.split.mirror.as_ref().filter(|_| has_room) {
            Some(mirror) => mirror.put(&self.split, candidate, copy, response, began.elapsed()),
            None => self.split.tally.shadow.dropped(),
        }
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, time: Duration) {
        let tally = &self.split.tally;
        match self.fallen {
            None => return tally.arm(self.variant).answered(time),
            Some(Fallen::Failed) => {}
            Some(Fallen::Refused) => tally.arm(Variant::Candidate).failed(),
        }
        tally.fell();
    }

    /// Counts a failure, where it is not the caller's.
    pub(crate) fn failed(&self, error: &Error) {
        if error.fault() != Fault::Caller && self.fallen.is_none() {
            self.split.tally.arm(self.variant).failed();
        }
    }
}
