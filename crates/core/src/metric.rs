//! Every metric, named once: what it counts, and its labels. Those of a version are kept by [`crate::meter`].

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size.
    Histogram,
}

impl Type {
    /// The word of the exposition format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Prometheus' text format, 0.0.4.
    Text,
    /// OpenMetrics 1.0, which has exemplars.
    OpenMetrics,
}

/// One metric's entry in `docs/metrics.md` and in the exporter's help.
#[derive(Debug)]
pub struct Metric {
    /// `sluicegate_<thing>_<unit>`, `_total` for counters.
    pub name: &'static str,
    /// What it is.
    pub kind: Type,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// A sentence for people.
    pub help: &'static str,
}

macro_rules! metrics_table {
    ($($id:ident $name:literal $kind:ident [$($label:literal),*] $help:literal),* $(,)?) => {
        $(#[doc = $help] pub const $id: &str = $name;)*

        /// Every metric there is.
        pub const ALL: &[Metric] = &[$(Metric {
            name: $name, kind: Type::$kind, labels: &[$($label),*], help: $help,
        }),*];
    };
}

metrics_table! {
    REQUESTS "sluicegate_requests_total" Counter ["model", "version", "code"]
        "Requests answered, by the error code or `ok`.",
    REQUEST_SECONDS "sluicegate_request_seconds" Histogram ["model", "version"]
        "Time from the last byte of a request to its encoded answer, in seconds.",
    STAGE_SECONDS "sluicegate_stage_seconds" Histogram ["model", "version", "stage"]
        "Time that a request spent in a stage (decode, queue, compute, encode), in seconds.",
    UNROUTED "sluicegate_unrouted_total" Counter ["code"]
        "Requests refused before a version was found for them.",
    IN_FLIGHT "sluicegate_in_flight_requests" Gauge []
        "Requests between their arrival and their answer.",
    BATCH_ROWS "sluicegate_batch_rows" Histogram ["model", "version"]
        "Rows in each engine run.",
    TOKENS "sluicegate_tokens_total" Counter ["model", "version"]
        "Tokens of texts in engine runs, special ones included. Only versions that have read text have this and the next one.",
    PADDING_TOKENS "sluicegate_padding_tokens_total" Counter ["model", "version"]
        "Tokens in engine runs beside those, which filled rows up to one length.",
    QUEUE_ROWS "sluicegate_queue_rows" Gauge ["model", "version"]
        "Rows that wait for an instance.",
    ABANDONED "sluicegate_abandoned_total" Counter ["model", "version"]
        "Requests dropped before their run because the caller had left.",
    CACHE_HITS "sluicegate_cache_hits_total" Counter ["model", "version"]
        "Requests that a version's cache had the answer to. Only versions with a cache have this and the next four.",
    CACHE_MISSES "sluicegate_cache_misses_total" Counter ["model", "version"]
        "Requests that a version's cache was asked for and had no answer to.",
    CACHE_EVICTIONS "sluicegate_cache_evictions_total" Counter ["model", "version"]
        "Answers that were dropped from a version's cache to make room.",
    CACHE_BYTES "sluicegate_cache_bytes" Gauge ["model", "version"]
        "Bytes that a version's cache holds.",
    CACHE_SIZE "sluicegate_cache_size_bytes" Gauge ["model", "version"]
        "The bound of what a version's cache holds, as `cache.size` sets it.",
    LOADS "sluicegate_loads_total" Counter ["model", "outcome"]
        "Versions that were loaded (live) or could not be (failed).",
    LOAD_SECONDS "sluicegate_load_seconds" Histogram ["model"]
        "Time from a version's discovery to its being live, in seconds.",
    SWAPS "sluicegate_swaps_total" Counter ["model"]
        "Times that the default version of a model changed while it served.",
    FREED "sluicegate_versions_freed_total" Counter ["model"]
        "Versions whose last request ended and whose memory was given back.",
    WAKES "sluicegate_wakes_total" Counter ["model", "outcome"]
        "Models on demand that a request brought into memory (live), or that could not be (failed).",
    RESTS "sluicegate_rests_total" Counter ["model"]
        "Models on demand that left memory to make room for others.",
    FOOTPRINT "sluicegate_footprint_bytes" Gauge ["model", "version", "device"]
        "Memory that a version in service takes, of the process (cpu) and of GPUs (cuda:0, …): measured when it was loaded, and no less than its files.",
    BUDGET "sluicegate_memory_budget_bytes" Gauge []
        "The memory that models may take together, as `memory.budget` sets it; 0 where it is not set.",
    GPU_BUDGET "sluicegate_gpu_memory_budget_bytes" Gauge []
        "The memory of each GPU that models may take together, as `memory.gpu_budget` sets it; 0 where it is not set.",
    LIVE "sluicegate_live_version" Gauge ["model", "version", "digest", "engine"]
        "1 for every version that serves; the engine label says what really runs it.",
    ENGINE_FALLBACK "sluicegate_engine_fallback" Gauge ["model", "version"]
        "1 where a version runs on another engine or device than the preferred one.",
    REGISTRY_SCANS "sluicegate_registry_scans_total" Counter ["outcome"]
        "Looks at the registry, by outcome (ok, failed).",
    ROLLOUT_PHASE "sluicegate_rollout_phase" Gauge ["model", "phase"]
        "1 for the phase of a model's rollout (running, paused, promoted, rolled_back), 0 for the others.",
    ROLLOUT_STAGE "sluicegate_rollout_stage" Gauge ["model"]
        "The stage of a model's rollout, from 0.",
    ROLLOUT_SHARE "sluicegate_rollout_share_ratio" Gauge ["model"]
        "The candidate's share of requests that name no version, from 0 to 1.",
    ROLLOUT_DIFFERS "sluicegate_rollout_differs" Gauge ["model"]
        "Whether what answers is not, or will not become, what is declared: a rollout ended by itself or by hand.",
    ROLLOUT_CUT_OFF "sluicegate_rollout_cut_off" Gauge ["model"]
        "Whether the state of rollouts cannot be reached: traffic stays as it is, or becomes safer.",
    ROLLOUT_RULE "sluicegate_rollout_rule_value" Gauge ["model", "rule"]
        "The candidate's number for a rule of its rollout, as error_rate or drift, by all replicas; NaN while there is none.",
    ROLLOUT_RULE_STATE "sluicegate_rollout_rule_state" Gauge ["model", "rule"]
        "What is known of a rule of a rollout: 1 where it holds, -1 where it is broken, 0 where neither is known.",
    ROLLOUT_DECISIONS "sluicegate_rollout_decisions_total" Counter ["model", "kind"]
        "Decisions that this replica made, as rollout.promoted.",
    VARIANT_REQUESTS "sluicegate_variant_requests_total" Counter ["model", "variant", "outcome"]
        "Requests of a rollout by the variant that was drawn and what became of them: ok or failed, faults of callers left out.",
    FALLBACKS "sluicegate_fallbacks_total" Counter ["model"]
        "Requests that stable answered because the candidate failed them.",
    SHADOW_ROWS "sluicegate_shadow_rows_total" Counter ["model", "outcome"]
        "Rows that a shadow answered too (agreed, disagreed).",
    SHADOW_REQUESTS "sluicegate_shadow_requests_total" Counter ["model", "outcome"]
        "Requests that a shadow failed, or that were not put to it because it had no room (failed, dropped).",
    CONFIG_RELOADS "sluicegate_config_reloads_total" Counter ["outcome"]
        "Changed configuration files, by outcome (applied, refused).",
    WEBHOOK_EVENTS "sluicegate_webhook_events_total" Counter ["hook", "host", "outcome"]
        "Events of a webhook by what became of them: delivered, refused (by the receiver), given_up (after the last attempt), dropped (the queue was full, or the event too long), abandoned (the gateway ended).",
    WEBHOOK_RETRIES "sluicegate_webhook_retries_total" Counter ["hook", "host"]
        "Further attempts to deliver an event, after one that failed.",
    WEBHOOK_QUEUE "sluicegate_webhook_queue_events" Gauge ["hook", "host"]
        "Events that wait for a webhook's receiver, the one that is being delivered included.",
    TRACE_SPANS "sluicegate_trace_spans_total" Counter ["outcome"]
        "Spans of traces by what became of them: sent, refused (by the receiver), given_up (nobody took them in time), dropped (the queue was full).",
    READY "sluicegate_ready" Gauge []
        "1 while the gateway takes new requests.",
    BUILD "sluicegate_build_info" Gauge ["version", "commit", "rustc"]
        "1, with what was built.",
    PROCESS_MEMORY "sluicegate_process_resident_bytes" Gauge []
        "Resident memory of the process.",
    PROCESS_CPU "sluicegate_process_cpu_seconds_total" Counter []
        "Processor time that the process has used.",
    PROCESS_FDS "sluicegate_process_open_fds" Gauge []
        "File descriptors that the process has open.",
    PROCESS_THREADS "sluicegate_process_threads" Gauge []
        "Threads of the process.",
    PROCESS_START "sluicegate_process_start_time_seconds" Gauge []
        "When the process started, in seconds since 1970.",
    GPU_MEMORY_USED "sluicegate_gpu_memory_used_bytes" Gauge ["uuid", "name"]
        "Memory of a GPU that is taken, by whichever process. It and the next four are there where NVIDIA's driver is.",
    GPU_MEMORY "sluicegate_gpu_memory_bytes" Gauge ["uuid", "name"]
        "Memory that a GPU has.",
    GPU_UTILIZATION "sluicegate_gpu_utilization_ratio" Gauge ["uuid", "name"]
        "The part of the last moment, up to a second, in which a GPU computed anything.",
    GPU_TEMPERATURE "sluicegate_gpu_temperature_celsius" Gauge ["uuid", "name"]
        "Temperature of a GPU.",
    GPU_POWER "sluicegate_gpu_power_watts" Gauge ["uuid", "name"]
        "Power that a GPU draws.",
}

/// Upper bounds of the time histograms, in seconds: 10 microseconds to 10 seconds.
pub const SECONDS: &[f64] = &[
    10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 2.5, 5.0,
    10.0,
];

/// Upper bounds of the histograms of rows.
pub const ROWS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_named_as_the_conventions_ask() {
        for metric in ALL {
            assert!(metric.name.starts_with("sluicegate_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Type::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
