//! Webhooks: events told to others, each receiver on a thread of its own, in order, signed, and again where that may help.
//!
//! In reading order: [`event`], [`key`] (the signature), [`pace`] (what an answer means, and how long to wait; pure), `lane` (one
//! receiver's queue and thread). An event is a CloudEvent in JSON, signed by the Standard Webhooks specification.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate_core::{Code, Error, Result};

use crate::{Address, Secret};

pub mod event;
pub mod key;
mod lane;
pub mod pace;

pub use event::{Event, Kind};
pub use pace::Pace;

use event::Letter;
use lane::Lane;

/// Events of one receiver that wait, the one that is being delivered included. A rollout has some dozen.
pub const QUEUE: usize = 256;

/// Most receivers: each has a thread.
pub const HOOKS: usize = 32;

/// One receiver of events.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Where it listens.
    pub url: Address,
    /// What its events are signed with: see [`key::Keys`]. Unsigned where there is none.
    pub secret: Option<Secret>,
    /// The kinds of events that it gets; all where none is named.
    pub events: Vec<Kind>,
    /// Longest wait for one answer. The Standard Webhooks specification advises 15 to 30 seconds.
    pub timeout: Duration,
    /// How often an event is tried before it is given up.
    pub max_attempts: NonZeroU32,
    /// How long to wait between two attempts.
    pub pace: Pace,
}

/// All receivers of events. Ends with its drop, at once; see [`Hooks::stop`].
#[derive(Debug)]
pub struct Hooks {
    lanes: Vec<Arc<Lane>>,
    source: String,
}

impl Hooks {
    /// Starts a thread for each receiver. The source is the CloudEvent's: a URI reference, the same on every replica, since a
    /// receiver drops doubles by source and id.
    ///
    /// # Errors
    /// [`Code::BadConfig`] where a secret is none to sign with, or there are more than [`HOOKS`]; [`Code::Io`] where a thread cannot
    /// be started.
    pub fn start(hooks: Vec<Hook>, source: &str) -> Result<Self> {
        if hooks.len() > HOOKS {
            return Err(Error::new(Code::BadConfig, format!("{} webhooks are declared, and {HOOKS} is the most", hooks.len())));
        }
        let mut lanes = Self { lanes: Vec::new(), source: source.to_owned() };
        for (index, hook) in hooks.into_iter().enumerate() {
            lanes.lanes.push(Lane::start(index, hook)?);
        }
        Ok(lanes)
    }

    /// Hands an event to every receiver that wants it, and never waits: where a queue is full the event is dropped and counted.
    pub fn emit(&self, event: &Event) {
        let mut wanting = self.lanes.iter().filter(|lane| lane.wants(event.kind)).peekable();
        if wanting.peek().is_none() {
            return;
        }
        match Letter::write(event, &self.source) {
            Ok(letter) => {
                let letter = Arc::new(letter);
                wanting.for_each(|lane| lane.push(Arc::clone(&letter)));
            }
            Err(why) => wanting.for_each(|lane| lane.drop_unwritten(event, &why)),
        }
    }

    /// Ends within this time. What waits is still tried, once; a receiver that does not take it gets no second attempt. What is left
    /// is dropped and counted as abandoned. To call it again does nothing.
    pub fn stop(&self, within: Duration) {
        let until = Instant::now() + within;
        self.lanes.iter().for_each(|lane| lane.close(until));
        self.lanes.iter().for_each(|lane| lane.wait(until));
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}
