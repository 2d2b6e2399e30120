//! Spans on their way to the thread that sends them: bounded, and full is a normal answer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use metrics::counter;
use parking_lot::{Condvar, Mutex};
use sluicegate_core::metric;
use sluicegate_core::trace::{Sink, Told};

use crate::config::otel::Traces;

/// What waits to be sent.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Wakes the thread that sends.
    more: Condvar,
    most: usize,
    batch: usize,
    delay: Duration,
}

#[derive(Debug, Default)]
struct Waiting {
    /// As they were handed over, so that none is copied while others wait for the lock.
    handed: VecDeque<Told>,
    /// How many those are.
    spans: usize,
    closed: Option<Instant>,
}

impl Sink for Queue {
    /// A trace of which a part has no room is dropped whole: what would be left of it is of no use.
    fn take(&self, told: Told) {
        let mut waiting = self.waiting.lock();
        if told.spans.len() > self.most - waiting.spans {
            drop(waiting);
            tell("dropped", told.spans.len());
            return;
        }
        waiting.spans += told.spans.len();
        waiting.handed.push_back(told);
        if waiting.spans >= self.batch {
            self.more.notify_one();
        }
    }
}

impl Waiting {
    /// Takes so many out, or all that there are.
    fn first(&mut self, most: usize) -> Vec<Told> {
        let mut room = most.min(self.spans);
        self.spans -= room;
        let mut taken = Vec::new();
        while let Some(mut told) = self.handed.pop_front_if(|_| room > 0) {
            if told.spans.len() > room {
                let spans = told.spans.split_off(room);
                self.handed.push_front(Told { spans, state: told.state.clone(), ..told });
            }
            room -= told.spans.len();
            taken.push(told);
        }
        taken
    }
}

/// Counts what became of spans.
pub(super) fn tell(outcome: &'static str, spans: usize) {
    counter!(metric::TRACE_SPANS, "outcome" => outcome).increment(spans as u64);
}

impl Queue {
    pub(super) fn new(traces: &Traces) -> Self {
        let Traces { queue, batch, delay, .. } = *traces;
        Self { waiting: Mutex::default(), more: Condvar::new(), most: queue, batch, delay }
    }

    /// What is to be sent now: as many as may go together, or those that have waited. None where it is closed and empty.
    pub(super) fn next(&self) -> Vec<Told> {
        let mut waiting = self.waiting.lock();
        loop {
            let until = Instant::now() + self.delay;
            while waiting.spans < self.batch && waiting.closed.is_none() {
                if self.more.wait_until(&mut waiting, until).timed_out() {
                    break;
                }
            }
            if waiting.spans > 0 || waiting.closed.is_some() {
                return waiting.first(self.batch);
            }
        }
    }

    /// Waits so long, or until it is closed.
    pub(super) fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut waiting = self.waiting.lock();
        while waiting.closed.is_none() && !self.more.wait_until(&mut waiting, until).timed_out() {}
    }

    /// Lets what waits be sent at once, and ends.
    pub(super) fn close(&self) {
        self.waiting.lock().closed = Some(Instant::now());
        self.more.notify_all();
    }

    /// When it was closed, if it was.
    pub(super) fn closed(&self) -> Option<Instant> {
        self.waiting.lock().closed
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_core::trace::Span;

    use super::*;

    fn queue(most: usize, batch: usize) -> Queue {
        Queue { waiting: Mutex::default(), more: Condvar::new(), most, batch, delay: Duration::from_millis(1) }
    }

    fn told(spans: usize) -> Told {
        let now = Instant::now();
        Told { trace: 1, caller: 0, state: None, spans: vec![Span::new("queue", now, now); spans] }
    }

    fn sizes(told: &[Told]) -> Vec<usize> {
        told.iter().map(|told| told.spans.len()).collect()
    }

    #[test]
    fn a_trace_that_has_no_room_is_dropped_whole() {
        let queue = queue(5, 100);
        queue.take(told(3));
        queue.take(told(3));
        queue.take(told(2));
        assert_eq!(sizes(&queue.next()), [3, 2]);
    }

    #[test]
    fn what_waits_at_the_end_is_given_to_the_last() {
        let queue = queue(100, 4);
        // The second trace goes in two parts, because no more than four spans may go together.
        queue.take(told(3));
        queue.take(told(3));
        queue.close();
        let sizes: Vec<_> = (0..3).map(|_| sizes(&queue.next())).collect();
        assert_eq!(sizes, [vec![3, 1], vec![2], vec![]]);
        queue.pause(Duration::from_secs(3600));
    }
}
