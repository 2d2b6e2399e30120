//! Puts copies of requests to a candidate, compares what it says with what stable said, and throws it away.
//!
//! Each rollout has a thread and a bounded queue of its own. A caller hands a copy over after stable has answered, and never waits, nor
//! wakes anyone where much is copied; what finds no room is dropped and counted, and while the gateway is half full nothing is copied
//! at all. The thread runs the candidate itself, at low priority.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sluicegate_batch::Job;
use sluicegate_core::{Request, Response, Tensor};
use sluicegate_registry::{Live, Work};
use tokio::sync::mpsc;

use crate::compare::{self, Apart};
use crate::split::Split;
use crate::validate::Checked;

/// Copies that wait for the candidate or are with it.
const ROOM: usize = 256;

/// The bytes of inputs that those may hold.
const BYTES: usize = 64 << 20;

/// How long copies wait for company. Whoever hands one over meanwhile need not wake the thread, which would cost a caller several
/// microseconds; in that time [`ROOM`] is enough for 128,000 copies a second.
const COMPANY: Duration = Duration::from_millis(2);

/// The worst disagreements that are kept.
const WORST: usize = 20;

/// Elements of each tensor that are kept of a disagreement.
const SHOWN: usize = 64;

/// How copies are compared, and what was found.
pub struct Mirror {
    /// How far two numbers may lie apart and still agree.
    pub tolerance: f64,
    /// Whether the worst disagreements are kept with their inputs.
    pub keep_inputs: bool,
    thread: OnceLock<Shadows>,
    found: Mutex<Found>,
}

/// What was found so far.
#[derive(Default)]
struct Found {
    outputs: Vec<Output>,
    pairs: u64,
    stable_ns: u128,
    candidate_ns: u128,
    worst: Vec<(f64, Value)>,
}

/// What was found of one output.
struct Output {
    name: Arc<str>,
    rows: u64,
    disagreed: u64,
    difference: f64,
    largest: f64,
    spread: Spread,
    absolute: (f64, f64),
    cosine: f64,
    ranks: (f64, u64),
}

/// Differences from 0 to 1 by size: none, up to 1e-8, and so on by quarters of a decade.
struct Spread([u64; 34]);

impl Default for Spread {
    fn default() -> Self {
        Self([0; 34])
    }
}

impl Spread {
    fn add(&mut self, difference: f64) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the bins")]
        let bin = if difference > 0.0 { (1.0 + (4.0 * (difference.log10() + 8.0)).ceil()).clamp(1.0, 33.0) as usize } else { 0 };
        self.0[bin] += 1;
    }

    /// What so large a part of the differences is at most, by less than a factor of 1.8; `None` before there are any.
    fn quantile(&self, part: f64) -> Option<f64> {
        let all: u64 = self.0.iter().sum();
        let mut left = part * all as f64;
        let bin = self.0.iter().position(|&count| {
            left -= count as f64;
            count > 0 && left <= 0.0
        })?;
        Some(if bin == 0 { 0.0 } else { 10f64.powf((bin as f64 - 1.0) / 4.0 - 8.0) })
    }
}

/// The way to the thread of a rollout's shadow.
struct Shadows {
    queue: mpsc::Sender<Copy>,
    bytes: Arc<AtomicUsize>,
}

/// A request that stable answered, to be put to the candidate.
struct Copy {
    split: Arc<Split>,
    candidate: Arc<Live>,
    request: Request,
    answer: Response,
    took: Duration,
    _room: Room,
}

/// The bytes that a copy holds. Dropping it frees them.
struct Room(Arc<AtomicUsize>, usize);

impl Drop for Room {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Relaxed);
    }
}

impl Shadows {
    /// Starts the thread, which ends with this handle. Without a thread every copy is dropped.
    fn start() -> Self {
        let (queue, copies) = mpsc::channel(ROOM);
        let run = move || {
            sluicegate_engine::lower_priority();
            match tokio::runtime::Builder::new_current_thread().enable_time().build() {
                Ok(runtime) => runtime.block_on(work(copies)),
                Err(error) => tracing::error!(%error, "no runtime for shadows: their copies are dropped"),
            }
        };
        if let Err(error) = std::thread::Builder::new().name("shadow".into()).spawn(run) {
            tracing::error!(%error, "no thread for shadows: their copies are dropped");
        }
        Self { queue, bytes: Arc::default() }
    }

    fn put(&self, split: &Arc<Split>, candidate: &Arc<Live>, request: Request, answer: &Response, took: Duration) {
        let size = request.inputs.iter().map(|(_, tensor)| tensor.payload()).sum::<usize>() + answer.payload();
        let room = Room(self.bytes.clone(), size);
        let held = self.bytes.fetch_add(size, Relaxed) + size;
        let (split_of, candidate) = (split.clone(), candidate.clone());
        let copy = Copy { split: split_of, candidate, request, answer: answer.clone(), took, _room: room };
        if held > BYTES || self.queue.try_send(copy).is_err() {
            split.tally.shadow.dropped();
        }
    }
}

/// Runs copies side by side: their number is bounded by the candidate's queue and by [`ROOM`].
async fn work(mut copies: mpsc::Receiver<Copy>) {
    let under_way = Arc::new(tokio::sync::Semaphore::new(ROOM));
    while let Some(copy) = next(&mut copies).await {
        let Ok(place) = under_way.clone().acquire_owned().await else { return };
        tokio::spawn(async move {
            one(copy).await;
            drop(place);
        });
    }
}

/// The next copy. It is looked for after a while before it is waited for, which costs the one who hands it over a call to the system.
async fn next(copies: &mut mpsc::Receiver<Copy>) -> Option<Copy> {
    if let Ok(copy) = copies.try_recv() {
        return Some(copy);
    }
    tokio::time::sleep(COMPANY).await;
    match copies.try_recv() {
        Ok(copy) => Some(copy),
        Err(_) => copies.recv().await,
    }
}

async fn one(copy: Copy) {
    let Copy { split, candidate, request, answer, took, _room } = copy;
    let inputs = request.inputs.clone();
    let began = Instant::now();
    let said = ask(&candidate, request).await;
    let Some((said, mirror)) = said.zip(split.mirror.as_ref()) else { return split.tally.shadow.failed() };
    let candidate_took = began.elapsed();
    let mut rows: Vec<Apart> = Vec::new();
    let mut outputs = Vec::with_capacity(answer.outputs.len());
    for output in &answer.outputs {
        let theirs = said.iter().find(|(name, _)| *name == output.name).map(|(_, tensor)| tensor);
        let spec = candidate.signature.output(&output.name).map(|place| &candidate.signature.outputs()[place]);
        let Some((theirs, spec)) = theirs.zip(spec) else { continue };
        let apart = compare::outputs_apart(&output.tensor, theirs, spec, mirror.tolerance);
        for (place, apart) in apart.iter().enumerate() {
            match rows.get_mut(place) {
                None => rows.push(*apart),
                Some(row) => {
                    row.disagree |= apart.disagree;
                    row.difference = row.difference.max(apart.difference);
                }
            }
        }
        outputs.push((output.name.clone(), apart, compare::rank_agreement(&output.tensor, theirs)));
    }
    rows.iter().for_each(|row| split.tally.shadow.compared(row.difference, row.disagree));
    let mut found = mirror.found.lock();
    found.pairs += 1;
    found.stable_ns += took.as_nanos();
    found.candidate_ns += candidate_took.as_nanos();
    outputs.iter().for_each(|(name, apart, ranks)| found.add(name, apart, *ranks));
    let worst = rows
        .iter()
        .enumerate()
        .filter(|(_, row)| row.disagree)
        .max_by(|one, other| one.1.difference.total_cmp(&other.1.difference));
    if let Some((place, row)) = worst {
        found.keep(row.difference, || {
            let shown = |tensors: &mut dyn Iterator<Item = (&Arc<str>, &Tensor)>| -> Map<String, Value> {
                tensors.map(|(name, tensor)| (name.to_string(), shown(&tensor.rows(place..place + 1)))).collect()
            };
            json!({
                "difference": row.difference,
                "request": answer.id,
                "inputs": mirror.keep_inputs.then(|| shown(&mut inputs.iter().map(|(name, tensor)| (name, tensor)))),
                "stable": shown(&mut answer.outputs.iter().map(|output| (&output.name, &output.tensor))),
                "candidate": shown(&mut said.iter().map(|(name, tensor)| (name, tensor))),
            })
        });
    }
}

/// What the candidate says. It is counted in none of its metrics: nobody asked.
async fn ask(candidate: &Arc<Live>, request: Request) -> Option<Vec<(Arc<str>, Tensor)>> {
    let checked = Checked::new(candidate, request).ok()?;
    // An ensemble asks other models, which have callers of their own.
    let Work::Batches(batches) = candidate.work() else { return None };
    let arrived = Instant::now();
    let Checked { inputs, wanted, rows, .. } = checked;
    let deadline = arrived + candidate.run.timeout;
    let job = Job { inputs, wanted: wanted.clone(), rows, priority: u64::MAX, arrived, deadline, trace: None };
    let ticket = batches.batcher.submit_here(job).ok()?;
    // Those that came with it come along.
    tokio::task::yield_now().await;
    let done = ticket.wait().await.ok()?;
    let name = |place: &usize| candidate.signature.outputs()[*place].name.clone();
    Some(wanted.iter().map(name).zip(done.outputs).collect())
}

/// The first elements of a tensor.
fn shown(tensor: &Tensor) -> Value {
    if let Some(texts) = tensor.strings() {
        return texts.iter().take(SHOWN).map(|text| String::from_utf8_lossy(&text[..text.len().min(512)]).into_owned()).collect();
    }
    compare::first_numbers(tensor, SHOWN).into()
}

impl Mirror {
    /// Nothing found yet.
    pub fn new(tolerance: f64, keep_inputs: bool) -> Self {
        Self { tolerance, keep_inputs, thread: OnceLock::new(), found: Mutex::default() }
    }

    /// Hands a copy over, or drops it.
    pub(crate) fn put(&self, split: &Arc<Split>, candidate: &Arc<Live>, request: Request, answer: &Response, took: Duration) {
        self.thread.get_or_init(Shadows::start).put(split, candidate, request, answer, took);
    }

    /// What was found, for `GET /models/{model}/shadow`.
    pub fn view(&self) -> Value {
        let found = self.found.lock();
        let output = |output: &Output| {
            let rows = output.rows.max(1) as f64;
            json!({
                "name": output.name,
                "rows": output.rows,
                "disagreed": output.disagreed,
                "agreement": 1.0 - output.disagreed as f64 / rows,
                "mean_difference": output.difference / rows,
                "max_difference": output.largest,
                "p50_difference": output.spread.quantile(0.5),
                "p90_difference": output.spread.quantile(0.9),
                "p99_difference": output.spread.quantile(0.99),
                "mean_absolute": output.absolute.0 / rows,
                "max_absolute": output.absolute.1,
                "mean_cosine": output.cosine / rows,
                "rank_agreement": (output.ranks.1 > 0).then(|| output.ranks.0 / output.ranks.1 as f64),
            })
        };
        json!({
            "requests": found.pairs,
            "latency_ratio": (found.stable_ns > 0).then(|| found.candidate_ns as f64 / found.stable_ns as f64),
            "outputs": found.outputs.iter().map(output).collect::<Vec<_>>(),
            "worst": found.worst.iter().rev().map(|(_, shown)| shown).collect::<Vec<_>>(),
        })
    }
}

impl Found {
    fn add(&mut self, name: &Arc<str>, apart: &[Apart], ranks: Option<f64>) {
        let place = self.outputs.iter().position(|output| output.name == *name).unwrap_or_else(|| {
            let nothing = Output {
                name: name.clone(),
                rows: 0,
                disagreed: 0,
                difference: 0.0,
                largest: 0.0,
                spread: Spread::default(),
                absolute: (0.0, 0.0),
                cosine: 0.0,
                ranks: (0.0, 0),
            };
            self.outputs.push(nothing);
            self.outputs.len() - 1
        });
        let output = &mut self.outputs[place];
        for row in apart {
            output.rows += 1;
            output.disagreed += u64::from(row.disagree);
            output.difference += row.difference;
            output.largest = output.largest.max(row.difference);
            output.spread.add(row.difference);
            output.cosine += row.cosine;
            // Endless differences have no mean.
            let absolute = if row.absolute.is_finite() { row.absolute } else { f64::MAX / 1e12 };
            output.absolute = (output.absolute.0 + absolute, output.absolute.1.max(absolute));
        }
        if let Some(ranks) = ranks {
            output.ranks = (output.ranks.0 + ranks, output.ranks.1 + 1);
        }
    }

    /// Keeps a disagreement where it is among the worst, in the order of their differences.
    fn keep(&mut self, difference: f64, shown: impl FnOnce() -> Value) {
        if self.worst.len() == WORST && self.worst[0].0 >= difference {
            return;
        }
        let place = self.worst.partition_point(|(other, _)| *other < difference);
        self.worst.insert(place, (difference, shown()));
        if self.worst.len() > WORST {
            self.worst.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_quantile_of_differences_is_right_within_its_factor(
            mut differences in prop::collection::vec(prop_oneof![Just(0.0), 1e-8..1.0, 1e-8..1e-3], 1..200),
            part in 0.01..1.0f64,
        ) {
            let mut spread = Spread::default();
            differences.iter().for_each(|&difference| spread.add(difference));
            differences.sort_by(f64::total_cmp);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank within the list")]
            let rank = (part * differences.len() as f64).ceil() as usize - 1;
            let (exact, told) = (differences[rank], spread.quantile(part).expect("there are some"));
            prop_assert!(exact <= told * (1.0 + 1e-9) && told <= exact * 1.8, "{exact} {told}");
        }
    }
}
