//! What the queue promises whoever submits, with any mix of requests at once: each gets its own rows, once, or a clear answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sluicegate_batch::{Batcher, Execution, Job, Left, Limits, Padding, Setup};
use sluicegate_core::meter::{Meters, VersionMeter};
use sluicegate_core::{Code, Digest, Error, Result, Shape, Tensor, metric};
use sluicegate_engine::{Engine, TokenCount};

/// What the engines of a test saw.
#[derive(Default)]
struct Seen {
    most_rows: AtomicUsize,
    running: AtomicUsize,
    most_running: AtomicUsize,
}

/// Gives back what it gets, and fails where a row has [`BAD`] in it.
struct Echo {
    seen: Arc<Seen>,
    takes: Duration,
}

const BAD: f32 = -1.0;

impl Engine for Echo {
    fn run(&mut self, inputs: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>> {
        self.seen.most_rows.fetch_max(inputs[0].shape().rows(), Relaxed);
        self.seen.most_running.fetch_max(self.seen.running.fetch_add(1, Relaxed) + 1, Relaxed);
        std::thread::sleep(self.takes);
        self.seen.running.fetch_sub(1, Relaxed);
        if inputs[0].values::<f32>().is_some_and(|values| values.contains(&BAD)) {
            return Err(Error::new(Code::RunFailed, "a bad row"));
        }
        Ok(inputs.to_vec())
    }

    fn tokens(&self) -> Option<TokenCount> {
        Some(TokenCount { read: 3, padding: 1 })
    }
}

fn batcher(execution: Execution, instances: usize, limits: Limits, takes: Duration) -> (Arc<Batcher>, Arc<Seen>) {
    let (batcher, seen, _) = metered(execution, instances, limits, takes);
    (batcher, seen)
}

fn metered(
    execution: Execution,
    instances: usize,
    limits: Limits,
    takes: Duration,
) -> (Arc<Batcher>, Arc<Seen>, Arc<VersionMeter>) {
    named("echo@1", execution, instances, limits, takes)
}

fn named(
    name: &str,
    execution: Execution,
    instances: usize,
    limits: Limits,
    takes: Duration,
) -> (Arc<Batcher>, Arc<Seen>, Arc<VersionMeter>) {
    let seen = Arc::new(Seen::default());
    let engine = || -> Box<dyn Engine> { Box::new(Echo { seen: seen.clone(), takes }) };
    let setup = Setup { name: name.into(), execution, limits, preferred: Vec::new(), batched: true, padding: Padding::default() };
    let meter = Arc::new(VersionMeter::new(&"echo".parse().expect("a name"), 1, &Digest::sha256(&[0; 32]), "tract", false));
    let engines = (0..instances).map(|_| engine()).collect();
    (Arc::new(Batcher::new(engines, setup, meter.clone())), seen, meter)
}

fn limits(max_rows: usize, max_delay: Duration) -> Limits {
    Limits { max_rows, max_delay, queue_rows: 100_000 }
}

/// A request of so many rows of this width, full of a number.
fn job(number: f32, rows: usize, width: usize, time: Duration) -> Job {
    let arrived = Instant::now();
    let input = Tensor::from_vec(Shape::new(&[rows, width]), vec![number; rows * width]).expect("fits");
    Job { inputs: vec![input], wanted: (0..1).collect(), rows, priority: 0, arrived, deadline: arrived + time, trace: None }
}

const LONG: Duration = Duration::from_secs(60);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().expect("threads")
}

/// Ends a queue as the gateway does.
fn free(batcher: Arc<Batcher>) {
    Arc::into_inner(batcher).expect("nobody else has it").free();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whoever_asks_gets_its_own_rows_once_whatever_the_others_do(
        requests in prop::collection::vec((1..9usize, 1..4usize, 0..12u8), 1..120),
        inline in any::<bool>(), instances in 1..4usize, max_rows in 1..7usize, delay_ms in prop_oneof![3 => Just(0u64), 1 => 1..3u64],
    ) {
        let execution = if inline { Execution::Inline } else { Execution::Threads };
        let limits = limits(max_rows, Duration::from_millis(delay_ms));
        let (batcher, seen) = batcher(execution, instances, limits, Duration::from_micros(20));
        let runtime = runtime();
        let asked: Vec<_> = requests.iter().enumerate().map(|(number, &(rows, width, kind))| {
            let batcher = batcher.clone();
            let job = job(if kind == 0 { BAD } else { number as f32 }, rows, width, LONG);
            runtime.spawn(async move {
                // Some are a little later than others, and some leave before their answer.
                if kind % 3 == 1 {
                    tokio::task::yield_now().await;
                }
                let ticket = if kind % 4 == 3 { batcher.submit_here(job) } else { batcher.submit(job) }.expect("there is room");
                if kind == 2 { None } else { Some(ticket.wait().await) }
            })
        }).collect();
        for ((number, &(rows, width, kind)), asked) in requests.iter().enumerate().zip(asked) {
            match runtime.block_on(asked).expect("no panic") {
                None => prop_assert_eq!(kind, 2),
                Some(Err(error)) => {
                    prop_assert_eq!(kind, 0, "request {} failed: {}", number, error);
                    prop_assert_eq!(error.code(), Code::RunFailed);
                }
                Some(Ok(done)) => {
                    prop_assert!(kind != 0);
                    let expected = Tensor::from_vec(Shape::new(&[rows, width]), vec![number as f32; rows * width]).expect("fits");
                    prop_assert_eq!(&done.outputs[0], &expected);
                }
            }
        }
        prop_assert!(seen.most_rows.load(Relaxed) <= max_rows);
        prop_assert!(seen.most_running.load(Relaxed) <= instances);
        // Whoever left is gone from the queue once somebody else has been answered.
        let last = batcher.submit(job(7.0, 1, 1, LONG)).expect("there is room");
        prop_assert!(runtime.block_on(last.wait()).is_ok());
        drop(runtime);
        free(batcher);
    }
}

#[test]
fn who_runs_its_request_itself_starts_no_thread_and_needs_none() {
    let (batcher, seen, _) = named("here@1", Execution::Threads, 1, limits(8, Duration::ZERO), Duration::ZERO);
    let of_name = || {
        let tasks = std::fs::read_dir("/proc/self/task").expect("procfs").flatten();
        tasks.filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "here@1")).count()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a thread");
    let here = |number| runtime.block_on(batcher.submit_here(job(number, 1, 1, LONG)).expect("there is room").wait());
    assert!(here(1.0).is_ok());
    assert_eq!((of_name(), seen.most_running.load(Relaxed)), (0, 1));
    // The only instance has a thread now, which is asked to run what waits.
    assert!(runtime.block_on(batcher.submit(job(2.0, 1, 1, LONG)).expect("there is room").wait()).is_ok());
    assert_eq!(of_name(), 1);
    assert!(here(3.0).is_ok());
    free(batcher);
}

#[test]
fn whoever_comes_when_its_time_is_over_is_told_so() {
    for execution in [Execution::Inline, Execution::Threads] {
        for rows in [1, 9] {
            let (batcher, seen) = batcher(execution, 1, limits(4, Duration::ZERO), Duration::ZERO);
            let runtime = runtime();
            let ticket = batcher.submit(job(1.0, rows, 1, Duration::ZERO)).expect("there is room");
            let error = runtime.block_on(ticket.wait()).expect_err("nobody runs it");
            assert_eq!(error.code(), Code::DeadlineExceeded, "{execution:?}, {rows} rows: {error}");
            assert_eq!(seen.most_rows.load(Relaxed), 0);
            drop(runtime);
            free(batcher);
        }
    }
}

#[test]
fn a_version_that_closes_leaves_nobody_without_an_answer() {
    for execution in [Execution::Inline, Execution::Threads] {
        let (batcher, _) = batcher(execution, 2, limits(4, Duration::ZERO), Duration::from_micros(200));
        let runtime = runtime();
        let ask = |number: usize| {
            let batcher = batcher.clone();
            runtime.spawn(async move { batcher.submit(job(number as f32, 1, 1, LONG))?.wait().await })
        };
        let asked: Vec<_> = (0..200).map(ask).collect();
        for asked in asked {
            assert!(runtime.block_on(asked).expect("no panic").is_ok(), "who holds the version keeps it open");
        }
        let ticket = batcher.submit(job(1.0, 1, 1, LONG)).expect("there is room");
        free(batcher);
        let answer = runtime.block_on(ticket.wait());
        assert!(answer.is_ok() || answer.is_err_and(|error| error.code() == Code::NotReady), "{execution:?}");
    }
}

#[test]
fn a_queue_whose_callers_have_all_left_has_room_again() {
    for execution in [Execution::Inline, Execution::Threads] {
        let (batcher, _) = batcher(execution, 1, Limits { queue_rows: 50, ..limits(4, Duration::ZERO) }, Duration::ZERO);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut tickets: Vec<_> = (0..50).map(|_| batcher.submit(job(1.0, 1, 1, LONG)).expect("there is room")).collect();
            // Half of them leave before they are looked at, the others in the middle.
            tickets.truncate(25);
            for ticket in tickets {
                let mut waiting = Box::pin(ticket.wait());
                let _ = std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx).is_ready())).await;
            }
            for _ in 0..10_000 {
                if batcher.queued_rows() == 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(batcher.queued_rows(), 0, "{execution:?}");
            assert!(batcher.look().is_ok());
        });
        drop(runtime);
        free(batcher);
    }
}

#[test]
fn company_is_waited_for_no_longer_than_half_of_a_requests_time() {
    for execution in [Execution::Inline, Execution::Threads] {
        let (batcher, _) = batcher(execution, 1, limits(8, LONG * 60), Duration::ZERO);
        let runtime = runtime();
        let asked = async { batcher.submit(job(1.0, 1, 1, Duration::from_secs(2)))?.wait().await };
        let done = runtime.block_on(asked);
        assert!(done.is_ok(), "{execution:?}: an instance was idle all the time: {done:?}");
        assert_eq!(batcher.last()[0].left, Left::Delayed);
    }
}

#[test]
fn requests_that_one_thread_reads_in_one_turn_share_a_run() {
    let (batcher, seen) = batcher(Execution::Inline, 1, limits(8, Duration::ZERO), Duration::ZERO);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ask = |number: u8| {
        let batcher = batcher.clone();
        async move { batcher.submit(job(f32::from(number), 1, 1, LONG)).expect("there is room").wait().await }
    };
    runtime.block_on(async {
        // Whether to wait for each other they know when one has looked, which is now and then.
        for _ in 0..20 {
            let asked: Vec<_> = (0..8).map(|number| tokio::spawn(ask(number))).collect();
            for (number, asked) in asked.into_iter().enumerate() {
                let done = asked.await.expect("it ends").expect("answered");
                assert_eq!(done.outputs[0].values::<f32>().expect("numbers")[0], number as f32);
            }
        }
    });
    assert!(seen.most_rows.load(Relaxed) > 1, "no two shared a run");
    drop(runtime);
    free(batcher);
}

#[test]
fn the_runs_of_one_turn_follow_each_other_whatever_their_queues_and_no_answer_leaves_between_them() {
    let queues: Vec<_> = (0..3).map(|_| batcher(Execution::Inline, 1, limits(8, Duration::ZERO), Duration::ZERO).0).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let rows = |queues: &[Arc<Batcher>]| -> Vec<u64> { queues.iter().map(|queue| queue.totals().rows).collect() };
    let ask = |queue: usize| {
        let queues = queues.clone();
        async move {
            queues[queue].submit(job(0.0, 1, 1, LONG)).expect("there is room").wait().await.expect("answered");
            rows(&queues)
        }
    };
    runtime.block_on(async {
        let mut seen = Vec::new();
        for _ in 0..20 {
            let asked: Vec<_> = (0..9).map(|number| tokio::spawn(ask(number % 3))).collect();
            seen.clear();
            for asked in asked {
                seen.push(asked.await.expect("it ends"));
            }
        }
        // By the last round somebody has looked.
        assert!(seen.iter().all(|seen| *seen == rows(&queues)), "{seen:?}");
    });
    drop(runtime);
    queues.into_iter().for_each(free);
}

#[test]
fn no_more_runs_at_once_than_there_are_instances() {
    let (batcher, seen) = batcher(Execution::Threads, 2, limits(1, Duration::ZERO), Duration::from_millis(20));
    let runtime = runtime();
    let tickets: Vec<_> = (0..8).map(|number| batcher.submit(job(number as f32, 1, 1, LONG)).expect("there is room")).collect();
    for ticket in tickets {
        runtime.block_on(ticket.wait()).expect("answered");
    }
    assert_eq!((seen.most_running.load(Relaxed), seen.most_rows.load(Relaxed)), (2, 1));
    let last = batcher.last();
    assert_eq!(last.len(), 8);
    assert!(last.iter().all(|ran| ran.left == Left::Full && ran.rows == 1 && ran.requests == 1));
    free(batcher);
}

#[test]
fn the_tokens_of_a_run_are_counted_once_and_those_of_a_failed_one_not_at_all() {
    let (batcher, _, meter) = metered(Execution::Threads, 1, limits(8, Duration::ZERO), Duration::ZERO);
    let runtime = runtime();
    for (number, is_good) in [(1.0, true), (BAD, false), (2.0, true)] {
        let done = runtime.block_on(batcher.submit(job(number, 1, 1, LONG)).expect("there is room").wait());
        assert_eq!(done.is_ok(), is_good);
    }
    let meters = Meters::default();
    meters.add(meter);
    let mut text = String::new();
    meters.render(&mut text, sluicegate_core::metric::Form::Text);
    for (name, count) in [(metric::TOKENS, 6), (metric::PADDING_TOKENS, 2)] {
        assert!(text.contains(&format!("{name}{{model=\"echo\",version=\"1\"}} {count}\n")), "{text}");
    }
    free(batcher);
}
