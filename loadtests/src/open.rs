//! Requests at a constant rate, whether or not earlier ones are answered: what many callers who know nothing of each other do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sluicegate_testkit::client::{Client, Request};

use crate::Figure;

/// What is offered.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Requests a second.
    pub rate: f64,
    /// For how long.
    pub time: Duration,
    /// Connections. More than ever wait at once, or the rate is not kept.
    pub connections: usize,
}

/// What came back.
#[derive(Debug, Default)]
pub struct Heard {
    /// Latencies in microseconds by status; 0 where the connection broke.
    pub by_status: BTreeMap<u16, Figure>,
    /// By how many microseconds requests were sent late because every connection waited.
    pub late: Figure,
    /// From the first request that was due to the last answer.
    pub seconds: f64,
}

impl Heard {
    /// Answers of this status a second.
    pub fn rate(&self, status: u16) -> f64 {
        self.by_status.get(&status).map_or(0.0, |figure| figure.len() as f64 / self.seconds)
    }

    /// A quantile of the latencies of this status, in microseconds.
    pub fn quantile(&self, status: u16, q: f64) -> f64 {
        self.by_status.get(&status).map_or(0.0, |figure| figure.quantile(q))
    }
}

/// Sends the request at the rate. A latency counts from the moment at which the request was due; where a connection was free by
/// then and only the generator woke late, from the moment at which it was sent.
pub fn offer(address: SocketAddr, request: &Request, offer: Offer) -> Heard {
    let bytes = request.bytes();
    let (next, began) = (AtomicU64::new(0), Instant::now() + Duration::from_millis(50));
    let connection = || {
        let mut client = Client::new(address);
        let (mut seen, mut late, mut last) = (Vec::new(), Vec::new(), began);
        let mut free = Instant::now();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let due = began + Duration::from_secs_f64(place as f64 / offer.rate);
            if due >= began + offer.time {
                return (seen, late, last);
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let from = if free > due { due } else { Instant::now() };
            late.push(free.saturating_duration_since(due).as_secs_f64() * 1e6);
            let status = client.send(&bytes).map_or(0, |answer| answer.status);
            free = Instant::now();
            last = free;
            seen.push((status, (free - from).as_secs_f64() * 1e6));
        }
    };
    let mut all: BTreeMap<u16, Vec<f64>> = BTreeMap::new();
    let (mut lates, mut end) = (Vec::new(), began);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..offer.connections).map(|_| scope.spawn(connection)).collect();
        for thread in threads {
            let (seen, late, last) = thread.join().expect("a connection's thread does not panic");
            seen.into_iter().for_each(|(status, micros)| all.entry(status).or_default().push(micros));
            lates.extend(late);
            end = end.max(last);
        }
    });
    let by_status = all.into_iter().map(|(status, micros)| (status, Figure::from(micros))).collect();
    Heard { by_status, late: Figure::from(lates), seconds: (end - began).as_secs_f64() }
}
