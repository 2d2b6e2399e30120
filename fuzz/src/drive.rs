//! The loop: mutate, check, and go on from what had an outcome of its own.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::mutate::mutate;
use crate::{Memory, Target, corpus};

/// Longest input that is mutated further, and most of them.
const POOLED: usize = 8 << 10;
const POOL: usize = 4096;

/// Most tries to make a broken input smaller.
const TRIES: usize = 5_000;

/// How far to go.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The same seed makes the same inputs.
    pub seed: u64,
    /// Most inputs.
    pub cases: u64,
    /// Longest time.
    pub time: Duration,
    /// A file that has each input while it is checked: what is in it when the process dies did that.
    pub current: Option<PathBuf>,
}

/// What a run saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// The target.
    pub target: String,
    /// Inputs checked.
    pub cases: u64,
    /// Those of them that were taken.
    pub accepted: u64,
    /// Ways that an input went.
    pub outcomes: usize,
    /// Seconds it took.
    pub seconds: f64,
    /// Most bytes asked of the allocator for one byte of input, beside the fixed ones.
    pub bytes_per_byte: f64,
    /// Longest time of one input, in milliseconds, and that input's length.
    pub slowest: (f64, usize),
}

/// An input of which something does not hold.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The input.
    pub input: Vec<u8>,
    /// What does not hold.
    pub why: String,
}

/// Checks these inputs, and then mutations of them.
///
/// # Errors
/// The first input that breaks something, made small.
pub fn drive(target: &Target, seeds: &[Vec<u8>], plan: &Plan) -> Result<Figures, Broken> {
    quiet();
    let began = Instant::now();
    let broken = |input: &[u8], error: &dyn std::fmt::Display| Broken { input: input.to_vec(), why: error.to_string() };
    let current = plan.current.as_ref().map(File::create).transpose().map_err(|error| broken(&[], &error))?;
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let mut figures = Figures { target: target.name.into(), ..Figures::default() };
    let mut outcomes = HashSet::new();
    // Inputs that went a way of their own, and some of those that were taken, which are rare and the best to go on from.
    let (mut pool, mut taken) = (seeds.to_vec(), Vec::new());
    let mut kept = seeds.iter();
    while figures.cases < plan.cases && began.elapsed() < plan.time {
        let input = kept.next().cloned().unwrap_or_else(|| {
            let from = if taken.is_empty() || random.bool() { &pool } else { &taken };
            let mut input = random.choice(from).cloned().unwrap_or_default();
            mutate(&mut random, &mut input, &pool, target.words);
            input
        });
        if let Some(current) = &current {
            corpus::note(current, &input).map_err(|error| broken(&input, &error))?;
        }
        let start = Instant::now();
        let outcome = check(target, &input, &mut figures).map_err(|why| smaller(target, &input, &why))?;
        let took = start.elapsed().as_secs_f64() * 1e3;
        if took > figures.slowest.0 {
            figures.slowest = (took, input.len());
        }
        figures.cases += 1;
        let is_taken = outcome.starts_with(ACCEPTED);
        figures.accepted += u64::from(is_taken);
        if input.len() > POOLED {
            continue;
        }
        if outcomes.insert(way(&outcome)) {
            add(&mut random, &mut pool, input);
        } else if is_taken {
            add(&mut random, &mut taken, input);
        }
    }
    figures.outcomes = outcomes.len();
    figures.seconds = began.elapsed().as_secs_f64();
    Ok(figures)
}

/// Adds an input, in the place of another one where there is no room.
fn add(random: &mut fastrand::Rng, pool: &mut Vec<Vec<u8>>, input: Vec<u8>) {
    if pool.len() < POOL {
        pool.push(input);
    } else {
        let place = random.usize(0..POOL);
        pool[place] = input;
    }
}

/// What the outcome of an input that was taken begins with.
pub const ACCEPTED: &str = "accepted";

/// Checks one input.
///
/// # Errors
/// What does not hold.
pub fn once(target: &Target, input: &[u8]) -> Result<String, String> {
    quiet();
    check(target, input, &mut Figures::default())
}

fn check(target: &Target, input: &[u8], figures: &mut Figures) -> Result<String, String> {
    let mut memory = Memory::default();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| (target.check)(input, &mut memory)));
    let outcome = outcome.unwrap_or_else(|_| Err(format!("it panics: {}", PANIC.take())))?;
    let (each, beside) = target.memory;
    let over = memory.asked.saturating_sub(beside);
    if over > each * input.len() {
        return Err(format!(
            "{} bytes ask for {} bytes of memory, more than {each} each and {beside}",
            input.len(),
            memory.asked
        ));
    }
    figures.bytes_per_byte = figures.bytes_per_byte.max(over as f64 / input.len().max(1) as f64);
    Ok(outcome)
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps what a panic says, and does not print it.
fn quiet() {
    panic::set_hook(Box::new(|info| PANIC.set(info.to_string())));
}

/// Letters of an outcome that are looked at.
const TOLD: usize = 64;

/// An outcome without what is the input's own: names in quotes, numbers, and how it goes on.
fn way(outcome: &str) -> String {
    let mut way = String::with_capacity(TOLD);
    let mut quote = None;
    for letter in outcome.chars() {
        match quote {
            Some(open) => quote = quote.filter(|_| letter != open),
            None if matches!(letter, '`' | '"' | '\'') => quote = Some(letter),
            None if letter.is_ascii_alphabetic() => way.push(letter),
            None => {}
        }
        if way.len() == TOLD {
            break;
        }
    }
    way
}

/// The same failure with less of an input: parts are left out for as long as it fails in the same way.
fn smaller(target: &Target, input: &[u8], why: &str) -> Broken {
    let (mut input, mut why) = (input.to_vec(), why.to_owned());
    let mut tries = 0;
    let mut part = input.len() / 2;
    while part > 0 {
        let mut at = 0;
        while at < input.len() && tries < TRIES {
            let mut less = input.clone();
            less.drain(at..(at + part).min(less.len()));
            tries += 1;
            match check(target, &less, &mut Figures::default()) {
                Err(still) if way(&still) == way(&why) => (input, why) = (less, still),
                _ => at += part,
            }
        }
        part /= 2;
    }
    Broken { input, why }
}
