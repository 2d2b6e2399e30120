//! Spans on their way to the thread that sends them: bounded, and full is a normal answer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use metrics::counter;
use parking_lot::{Condvar, Mutex};
use sluicegate_core::metric;
use sluicegate_core::trace::{Sink, Span};

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
    handed: VecDeque<Vec<Span>>,
    /// How many those are.
    spans: usize,
    closed: Option<Instant>,
}

impl Sink for Queue {
    /// A trace of which a part has no room is dropped whole: what would be left of it is of no use.
    fn take(&self, spans: Vec<Span>) {
        let mut waiting = self.waiting.lock();
        if spans.len() > self.most - waiting.spans {
            drop(waiting);
            tell("dropped", spans.len());
            return;
        }
        waiting.spans += spans.len();
        waiting.handed.push_back(spans);
        if waiting.spans >= self.batch {
            self.more.notify_one();
        }
    }
}

impl Waiting {
    /// Takes so many out, or all that there are.
    fn first(&mut self, most: usize) -> Vec<Vec<Span>> {
        let mut room = most.min(self.spans);
        self.spans -= room;
        let mut taken = Vec::new();
        while let Some(mut spans) = self.handed.pop_front_if(|_| room > 0) {
            if spans.len() > room {
                self.handed.push_front(spans.split_off(room));
            }
            room -= spans.len();
            taken.push(spans);
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
    pub(super) fn next(&self) -> Vec<Span> {
        let mut waiting = self.waiting.lock();
        loop {
            let until = Instant::now() + self.delay;
            while waiting.spans < self.batch && waiting.closed.is_none() {
                if self.more.wait_until(&mut waiting, until).timed_out() {
                    break;
                }
            }
            if waiting.spans > 0 || waiting.closed.is_some() {
                let taken = waiting.first(self.batch);
                drop(waiting);
                return taken.into_iter().flatten().collect();
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
    use sluicegate_core::trace::Place;

    use super::*;

    fn queue(most: usize, batch: usize) -> Queue {
        Queue { waiting: Mutex::default(), more: Condvar::new(), most, batch, delay: Duration::from_millis(1) }
    }

    fn spans(count: usize) -> Vec<Span> {
        let now = Instant::now();
        (0..count).map(|_| Span::new(Place::new(), "queue", now, now)).collect()
    }

    #[test]
    fn a_trace_that_has_no_room_is_dropped_whole() {
        let queue = queue(5, 100);
        queue.take(spans(3));
        queue.take(spans(3));
        queue.take(spans(2));
        assert_eq!(queue.next().len(), 5);
    }

    #[test]
    fn what_waits_at_the_end_is_given_to_the_last() {
        let queue = queue(100, 4);
        // The second trace goes in two parts, because no more than four spans may go together.
        queue.take(spans(3));
        queue.take(spans(3));
        queue.close();
        let sizes: Vec<usize> = (0..3).map(|_| queue.next().len()).collect();
        assert_eq!(sizes, [4, 2, 0]);
        queue.pause(Duration::from_secs(3600));
    }
}
