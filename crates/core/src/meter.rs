//! What is counted of one version: plain atomics that live and die with it, and their text for Prometheus.
//!
//! The hot path holds them by value. A recorder that looks series up by label would keep those of every version that ever
//! served, and takes longer to record one time than the policy to choose a batch.

use std::cell::Cell;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use crate::histogram::Histogram;
use crate::metric::{self, Form};
use crate::{Code, Digest, ModelName};

/// Copies of each counter, so that threads on different cores do not fight for one cache line.
pub const SHARDS: usize = 4;

/// Versions whose last counts are kept after they were freed, for the next scrape.
const KEPT: usize = 32;

/// What is counted of one version.
pub struct VersionMeter {
    model: ModelName,
    version: u64,
    digest: Digest,
    engine: &'static str,
    fallback: bool,
    live: AtomicBool,
    /// Requests by code, in the order of [`Code::ALL`]; the last one counts those answered well.
    requests: [Sharded; Code::ALL.len() + 1],
    /// The time of those that failed, in nanoseconds.
    failing: Sharded,
    /// [`metric::REQUEST_SECONDS`].
    pub seconds: Histogram,
    /// [`metric::STAGE_SECONDS`] of `decode`.
    pub decode: Histogram,
    /// [`metric::STAGE_SECONDS`] of `queue`.
    pub queue: Histogram,
    /// [`metric::STAGE_SECONDS`] of `compute`.
    pub compute: Histogram,
    /// [`metric::STAGE_SECONDS`] of `encode`.
    pub encode: Histogram,
    /// [`metric::BATCH_ROWS`].
    pub batch_rows: Histogram,
    tokens: Sharded,
    padding: Sharded,
    queue_rows: AtomicUsize,
    abandoned: AtomicU64,
    footprint: OnceLock<Vec<(String, u64)>>,
    /// What is counted of its cache, if it has one.
    pub cache: CacheMeter,
}

/// What is counted of a version's cache.
#[derive(Default)]
pub struct CacheMeter {
    /// The bound of what is kept; 0 where there is no cache.
    size: AtomicU64,
    bytes: AtomicI64,
    hits: Sharded,
    misses: Sharded,
    /// What looking for those took, in nanoseconds.
    hitting: Sharded,
    missing: Sharded,
    evictions: AtomicU64,
}

/// A counter in shards.
#[derive(Default)]
#[repr(align(64))]
struct Sharded([AtomicU64; SHARDS]);

/// How often something happened, and how long that took in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// How often.
    pub count: u64,
    /// Nanoseconds.
    pub ns: u64,
}

pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The calling thread's copy, one of [`SHARDS`].
pub fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: Cell<usize> = Cell::new(NEXT.fetch_add(1, Relaxed) % SHARDS));
    MINE.get()
}

impl Sharded {
    fn add(&self, count: u64) {
        self.0[shard()].fetch_add(count, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.iter().map(|shard| shard.load(Relaxed)).sum()
    }
}

impl VersionMeter {
    /// Nothing counted yet. `fallback` says whether the engine is another than the preferred one.
    pub fn new(model: &ModelName, version: u64, digest: &Digest, engine: &'static str, fallback: bool) -> Self {
        Self {
            model: model.clone(),
            version,
            digest: digest.clone(),
            engine,
            fallback,
            live: AtomicBool::new(false),
            requests: std::array::from_fn(|_| Sharded::default()),
            failing: Sharded::default(),
            seconds: Histogram::times(),
            decode: Histogram::times(),
            queue: Histogram::times(),
            compute: Histogram::times(),
            encode: Histogram::times(),
            batch_rows: Histogram::rows(),
            tokens: Sharded::default(),
            padding: Sharded::default(),
            queue_rows: AtomicUsize::new(0),
            abandoned: AtomicU64::new(0),
            footprint: OnceLock::new(),
            cache: CacheMeter::default(),
        }
    }

    /// Counts a request that was answered well.
    pub fn answered(&self, time: Duration) {
        self.requests[Code::ALL.len()].add(1);
        self.seconds.record(time);
    }

    /// Counts a request that failed after this time.
    pub fn failed(&self, code: Code, time: Duration) {
        self.failing.add(nanoseconds(time));
        // A fieldless enum counts its variants in the order of its definition, which is that of `ALL`.
        self.requests[code as usize].add(1);
    }

    /// Requests that were answered well, and their time.
    pub fn succeeded(&self) -> Total {
        self.seconds.total()
    }

    /// Requests that failed, for whatever reason, and their time.
    pub fn failures(&self) -> Total {
        Total { count: self.requests[..Code::ALL.len()].iter().map(Sharded::get).sum(), ns: self.failing.get() }
    }

    /// Counts the tokens of a run, and those of padding beside them.
    pub fn tokens(&self, read: u64, padding: u64) {
        self.tokens.add(read);
        self.padding.add(padding);
    }

    /// Says how many rows wait.
    pub fn set_queue_rows(&self, rows: usize) {
        self.queue_rows.store(rows, Relaxed);
    }

    /// How many rows wait.
    pub fn queue_rows(&self) -> usize {
        self.queue_rows.load(Relaxed)
    }

    /// Counts requests whose callers left before their run.
    pub fn abandoned(&self, count: u64) {
        self.abandoned.fetch_add(count, Relaxed);
    }

    /// Says how many bytes it takes of which devices' memory. Only the first word counts.
    pub fn set_footprint(&self, devices: Vec<(String, u64)>) {
        let _ = self.footprint.set(devices);
    }

    /// Says whether the version serves.
    pub fn set_live(&self, live: bool) {
        self.live.store(live, Relaxed);
    }

    fn labels(&self) -> String {
        // Neither a model's name nor a number has anything to escape.
        format!("model=\"{}\",version=\"{}\"", self.model, self.version)
    }

    fn stages(&self) -> [(&'static str, &Histogram); 4] {
        [("decode", &self.decode), ("queue", &self.queue), ("compute", &self.compute), ("encode", &self.encode)]
    }
}

impl CacheMeter {
    /// There is a cache with so many bytes of room.
    pub fn open(&self, size: u64) {
        self.size.store(size, Relaxed);
    }

    /// The cache is freed.
    pub fn close(&self) {
        self.bytes.store(0, Relaxed);
    }

    /// Counts a request that the cache had the answer to, which took so long to find.
    pub fn hit(&self, time: Duration) {
        self.hits.add(1);
        self.hitting.add(nanoseconds(time));
    }

    /// Counts a request that it had no answer to, which took so long to find out.
    pub fn miss(&self, time: Duration) {
        self.misses.add(1);
        self.missing.add(nanoseconds(time));
    }

    /// Requests that it had the answer to, and the time of the looks.
    pub fn hits(&self) -> Total {
        Total { count: self.hits.get(), ns: self.hitting.get() }
    }

    /// Requests that it had no answer to, and the time of the looks.
    pub fn misses(&self) -> Total {
        Total { count: self.misses.get(), ns: self.missing.get() }
    }

    /// Counts an answer that made room for others.
    pub fn evicted(&self) {
        self.evictions.fetch_add(1, Relaxed);
    }

    /// So many bytes came in.
    pub fn took(&self, bytes: u64) {
        self.bytes.fetch_add(bytes.cast_signed(), Relaxed);
    }

    /// So many bytes went out.
    pub fn gave(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes.cast_signed(), Relaxed);
    }

    /// Bytes that are kept. An answer may be counted out by one thread just before another counts it in.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed).max(0).cast_unsigned()
    }
}

/// The meters of a process.
#[derive(Default)]
pub struct Meters(Mutex<Vec<Arc<VersionMeter>>>);

impl Meters {
    /// Adds a version's meter. It is shown for as long as anybody holds it, and a while longer.
    pub fn add(&self, meter: Arc<VersionMeter>) {
        let mut meters = self.0.lock();
        meters.push(meter);
        let mut over = meters.iter().filter(|meter| Arc::strong_count(meter) == 1).count().saturating_sub(KEPT);
        meters.retain(|meter| {
            let gone = over > 0 && Arc::strong_count(meter) == 1;
            over -= usize::from(gone);
            !gone
        });
    }

    /// Appends every series, each metric's together, as the exposition format wants them.
    pub fn render(&self, out: &mut String, form: Form) {
        let meters = self.0.lock().clone();
        let mut family = |name: &str, meters: &[Arc<VersionMeter>], each: &dyn Fn(&mut String, &VersionMeter, &str)| {
            if meters.is_empty() {
                return;
            }
            let Some(about) = metric::ALL.iter().find(|metric| metric.name == name) else { return };
            let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {}", about.help, about.kind.name());
            meters.iter().for_each(|meter| each(out, meter, &meter.labels()));
        };
        family(metric::REQUESTS, &meters, &|out, meter, labels| {
            let codes = Code::ALL.iter().map(|code| code.name()).chain(["ok"]);
            for (code, count) in codes.zip(&meter.requests) {
                let count = count.get();
                if count > 0 || code == "ok" {
                    let _ = writeln!(out, "{}{{{labels},code=\"{code}\"}} {count}", metric::REQUESTS);
                }
            }
        });
        family(metric::REQUEST_SECONDS, &meters, &|out, meter, labels| {
            meter.seconds.render(out, metric::REQUEST_SECONDS, labels, form);
        });
        family(metric::STAGE_SECONDS, &meters, &|out, meter, labels| {
            for (stage, histogram) in meter.stages() {
                histogram.render(out, metric::STAGE_SECONDS, &format!("{labels},stage=\"{stage}\""), form);
            }
        });
        family(metric::BATCH_ROWS, &meters, &|out, meter, labels| meter.batch_rows.render(out, metric::BATCH_ROWS, labels, form));
        let readers: Vec<_> = meters.iter().filter(|meter| meter.tokens.get() > 0).cloned().collect();
        family(metric::TOKENS, &readers, &|out, meter, labels| {
            let _ = writeln!(out, "{}{{{labels}}} {}", metric::TOKENS, meter.tokens.get());
        });
        family(metric::PADDING_TOKENS, &readers, &|out, meter, labels| {
            let _ = writeln!(out, "{}{{{labels}}} {}", metric::PADDING_TOKENS, meter.padding.get());
        });
        family(metric::QUEUE_ROWS, &meters, &|out, meter, labels| {
            let _ = writeln!(out, "{}{{{labels}}} {}", metric::QUEUE_ROWS, meter.queue_rows.load(Relaxed));
        });
        family(metric::ABANDONED, &meters, &|out, meter, labels| {
            let _ = writeln!(out, "{}{{{labels}}} {}", metric::ABANDONED, meter.abandoned.load(Relaxed));
        });
        let caches: Vec<_> = meters.iter().filter(|meter| meter.cache.size.load(Relaxed) > 0).cloned().collect();
        let mut of_caches = |name: &str, value: &dyn Fn(&CacheMeter) -> u64| {
            family(name, &caches, &|out, meter, labels| {
                let _ = writeln!(out, "{name}{{{labels}}} {}", value(&meter.cache));
            });
        };
        of_caches(metric::CACHE_HITS, &|cache| cache.hits.get());
        of_caches(metric::CACHE_MISSES, &|cache| cache.misses.get());
        of_caches(metric::CACHE_EVICTIONS, &|cache| cache.evictions.load(Relaxed));
        of_caches(metric::CACHE_BYTES, &CacheMeter::bytes);
        of_caches(metric::CACHE_SIZE, &|cache| cache.size.load(Relaxed));
        family(metric::FOOTPRINT, &meters, &|out, meter, labels| {
            for (device, bytes) in meter.footprint.get().into_iter().flatten() {
                let bytes = if meter.live.load(Relaxed) { *bytes } else { 0 };
                let _ = writeln!(out, "{}{{{labels},device=\"{device}\"}} {bytes}", metric::FOOTPRINT);
            }
        });
        family(metric::LIVE, &meters, &|out, meter, labels| {
            let live = u8::from(meter.live.load(Relaxed));
            let (digest, engine) = (&meter.digest, meter.engine);
            let _ = writeln!(out, "{}{{{labels},digest=\"{digest}\",engine=\"{engine}\"}} {live}", metric::LIVE);
        });
        family(metric::ENGINE_FALLBACK, &meters, &|out, meter, labels| {
            let fallback = u8::from(meter.fallback && meter.live.load(Relaxed));
            let _ = writeln!(out, "{}{{{labels}}} {fallback}", metric::ENGINE_FALLBACK);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(version: u64) -> Arc<VersionMeter> {
        let model = "m".parse().expect("a name");
        Arc::new(VersionMeter::new(&model, version, &Digest::sha256(&[0; 32]), "tract", true))
    }

    fn value(text: &str, series: &str) -> f64 {
        let line = text.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("{series} in {text}"));
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
    }

    #[test]
    fn what_is_counted_is_what_is_shown() {
        let (meters, meter) = (Meters::default(), meter(7));
        meters.add(meter.clone());
        meter.answered(Duration::from_micros(30));
        meter.answered(Duration::from_secs(60));
        meter.failed(Code::QueueFull, Duration::from_nanos(7));
        meter.cache.miss(Duration::from_nanos(5));
        assert_eq!((meter.succeeded().count, meter.failures()), (2, Total { count: 1, ns: 7 }));
        assert_eq!((meter.cache.hits(), meter.cache.misses()), (Total::default(), Total { count: 1, ns: 5 }));
        meter.batch_rows.record_rows(64);
        meter.set_live(true);
        let mut text = String::new();
        meters.render(&mut text, Form::Text);
        assert!(!text.contains("tokens_total"), "it has read no text");
        meter.tokens(30, 2);
        meter.tokens(12, 0);
        text.clear();
        meters.render(&mut text, Form::Text);
        assert_eq!((value(&text, metric::TOKENS), value(&text, metric::PADDING_TOKENS)), (42.0, 2.0));
        let request = |rest: &str| value(&text, &format!("sluicegate_request_seconds_{rest}"));
        assert_eq!(request("bucket{model=\"m\",version=\"7\",le=\"0.000025\"}"), 0.0);
        assert_eq!(request("bucket{model=\"m\",version=\"7\",le=\"0.00005\"}"), 1.0);
        assert_eq!(request("bucket{model=\"m\",version=\"7\",le=\"+Inf\"}"), 2.0);
        assert_eq!(request("count"), 2.0);
        assert!((request("sum") - 60.000_03).abs() < 1e-9);
        assert_eq!(value(&text, "sluicegate_batch_rows_bucket{model=\"m\",version=\"7\",le=\"64\"}"), 1.0);
        assert_eq!(value(&text, "sluicegate_requests_total{model=\"m\",version=\"7\",code=\"ok\"}"), 2.0);
        assert_eq!(value(&text, "sluicegate_requests_total{model=\"m\",version=\"7\",code=\"queue_full\"}"), 1.0);
        assert_eq!(value(&text, "sluicegate_engine_fallback"), 1.0);
    }

    #[test]
    fn a_code_is_counted_under_its_own_name() {
        for (place, &code) in Code::ALL.iter().enumerate() {
            assert_eq!(code as usize, place);
        }
    }

    #[test]
    fn meters_of_freed_versions_are_not_kept_for_ever() {
        let meters = Meters::default();
        let held = meter(0);
        meters.add(held.clone());
        (1..1000).for_each(|version| meters.add(meter(version)));
        let versions: Vec<u64> = meters.0.lock().iter().map(|meter| meter.version).collect();
        assert!(versions.len() <= KEPT + 2 && versions[0] == held.version && versions.contains(&999), "{versions:?}");
    }
}
