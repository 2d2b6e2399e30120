//! A histogram of plain atomics, and for each of its buckets the last traced request that fell into it.

use std::fmt::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use crate::meter::{SHARDS, Total, nanoseconds, shard};
use crate::metric::{Form, ROWS, SECONDS};
use crate::trace::Place;

/// The longer list of bounds, and one bucket above all bounds.
const BUCKETS: usize = SECONDS.len() + 1;

/// Counts observations by size. Bounds are upper bounds, inclusive, as Prometheus has them.
pub struct Histogram {
    bounds: &'static [f64],
    /// What one unit of a recorded number is, in the unit of the bounds.
    unit: f64,
    shards: [Shard; SHARDS],
    /// Made by the first traced request.
    exemplars: OnceLock<Box<Exemplars>>,
}

type Exemplars = Mutex<[Option<(Place, f64)>; BUCKETS]>;

#[derive(Default)]
#[repr(align(128))]
struct Shard {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Histogram {
    pub(crate) fn times() -> Self {
        Self { bounds: SECONDS, unit: 1e-9, shards: Default::default(), exemplars: OnceLock::new() }
    }

    pub(crate) fn rows() -> Self {
        Self { bounds: ROWS, unit: 1.0, shards: Default::default(), exemplars: OnceLock::new() }
    }

    /// Counts a time.
    pub fn record(&self, time: Duration) {
        self.add(nanoseconds(time));
    }

    /// Counts a number of rows.
    pub fn record_rows(&self, rows: usize) {
        self.add(rows as u64);
    }

    fn add(&self, value: u64) {
        let bucket = self.bucket(value as f64 * self.unit);
        let shard = &self.shards[shard()];
        shard.buckets[bucket].fetch_add(1, Relaxed);
        shard.sum.fetch_add(value, Relaxed);
    }

    fn bucket(&self, size: f64) -> usize {
        self.bounds.partition_point(|&bound| bound < size)
    }

    /// Says where a time that was counted is traced.
    pub fn mark(&self, time: Duration, place: Place) {
        let size = nanoseconds(time) as f64 * self.unit;
        self.exemplars.get_or_init(Default::default).lock()[self.bucket(size)] = Some((place, size));
    }

    /// How many times were counted, and their sum.
    pub fn total(&self) -> Total {
        let (count, ns) = self.totals();
        Total { count, ns }
    }

    /// How many were counted, and their sum: rows, or nanoseconds.
    pub fn totals(&self) -> (u64, u64) {
        let count = self.shards.iter().flat_map(|shard| &shard.buckets).map(|bucket| bucket.load(Relaxed)).sum();
        (count, self.shards.iter().map(|shard| shard.sum.load(Relaxed)).sum())
    }

    pub(crate) fn render(&self, out: &mut String, name: &str, labels: &str, form: Form) {
        let exemplars = self.exemplars.get().filter(|_| form == Form::OpenMetrics).map(|exemplars| *exemplars.lock());
        let mut count = 0;
        for bucket in 0..=self.bounds.len() {
            count += self.shards.iter().map(|shard| shard.buckets[bucket].load(Relaxed)).sum::<u64>();
            let bound = self.bounds.get(bucket).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            let _ = write!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
            if let Some((Place { trace, span }, size)) = exemplars.and_then(|exemplars| exemplars[bucket]) {
                let _ = write!(out, " # {{trace_id=\"{trace:032x}\",span_id=\"{span:016x}\"}} {size}");
            }
            out.push('\n');
        }
        let sum: u64 = self.shards.iter().map(|shard| shard.sum.load(Relaxed)).sum();
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", sum as f64 * self.unit);
        let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_traced_request_of_a_bucket_is_its_exemplar_where_the_form_has_them() {
        let histogram = Histogram::times();
        for (micros, span) in [(30, 1), (40, 2), (700, 3)] {
            let time = Duration::from_micros(micros);
            histogram.record(time);
            histogram.mark(time, Place { trace: 0xab, span });
        }
        let page = |form| {
            let mut page = String::new();
            histogram.render(&mut page, "t", "m=\"a\"", form);
            page
        };
        assert!(!page(Form::Text).contains('#'));
        let page = page(Form::OpenMetrics);
        let marked: Vec<&str> = page.lines().filter(|line| line.contains('#')).collect();
        let trace = "trace_id=\"000000000000000000000000000000ab\"";
        assert_eq!(marked[0], format!("t_bucket{{m=\"a\",le=\"0.00005\"}} 2 # {{{trace},span_id=\"0000000000000002\"}} 0.00004"));
        assert!(marked.len() == 2 && marked[1].ends_with("0.0007"), "{marked:?}");
    }
}
