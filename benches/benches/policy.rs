//! What it costs to queue one row and to choose a batch.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use sluicegate_batch::Limits;
use sluicegate_batch::policy::{DEFAULT_LEVEL, Entry, Key, Waiting};

fn policy(c: &mut Criterion) {
    let limits = Limits { max_rows: 64, max_delay: Duration::ZERO, queue_rows: 4096 };
    for waiting in [1, 64, 1024] {
        c.bench_function(&format!("policy/a batch out of {waiting}"), |b| {
            b.iter_batched(
                || queue(waiting),
                |mut queue| queue.next(Instant::now(), &limits, &[], |_| false, drop),
                BatchSize::SmallInput,
            );
        });
    }
}

fn queue(rows: usize) -> Waiting<()> {
    let mut queue = Waiting::default();
    let arrived = Instant::now();
    let deadline = arrived + Duration::from_secs(60);
    for _ in 0..rows {
        queue.push(Entry { rows: 1, key: Key::from_slice(&[0, 2, 30]), arrived, deadline, level: DEFAULT_LEVEL, payload: () });
    }
    queue
}

criterion_group!(benches, policy);
criterion_main!(benches);
