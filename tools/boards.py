"""The dashboards of the chart as tables: what tools/dashboards.py draws.

A panel is a line: title, what it says, unit, and queries with their legends. To add one, add its line to a row of a board; where it
stands follows from that. Two columns stand side by side: the application on the left, its models on the right.
"""

from dataclasses import dataclass, field

# What the variables of a board choose.
POD = 'namespace=~"$namespace",job=~"$job"'
MODEL = f'{POD},model=~"$model"'
CONTAINER = 'namespace=~"$namespace",container="sluicegate"'
RATE = "[$__rate_interval]"

# Every request, and those that failed by a fault of the gateway, a model or too much load: see rules/sre.yaml.
ALL = f'{{__name__=~"sluicegate_(requests|unrouted)_total",{POD}}}'
FAULTS = (
    "queue_full|too_busy|deadline_exceeded|not_ready|run_failed|load_failed|"
    "bad_signature|bad_manifest|bad_config|no_engine|io|internal"
)
FAILED = f'{{__name__=~"sluicegate_(requests|unrouted)_total",{POD},code=~"{FAULTS}"}}'
ALL_BY = f"sum by (namespace, job) (rate({ALL}{RATE}))"
FAILED_BY = f"sum by (namespace, job) (rate({FAILED}{RATE}))"
INVALID = "invalid_fields|invalid_tensor|invalid_shape|wrong_dtype|wrong_shape|missing_input|unknown_input"

# Models whose rollout is not at its end. Every replica tells of it, and one that lags is no other rollout: hence the `max`.
UNDER_WAY = f'max by (model) (sluicegate_rollout_phase{{{MODEL},phase=~"running|paused"}}) == 1'
CANDIDATE = f'{MODEL},variant="candidate"'
FAILED_VARIANT = f'{MODEL},outcome="failed"'
DISAGREED = f'{MODEL},outcome="disagreed"'
ALL_CANDIDATE = f'{POD},variant="candidate"'
FAILED_CANDIDATE = f'{ALL_CANDIDATE},outcome="failed"'
IN_PHASE = f"max by (namespace, job, model, phase) (sluicegate_rollout_phase{{{POD}}}) == 1"


@dataclass
class Panel:
    title: str
    says: str
    unit: str
    queries: list[tuple[str, str]]
    kind: str = "timeseries"


@dataclass
class Row:
    title: str
    left: list[Panel] = field(default_factory=list)
    right: list[Panel] = field(default_factory=list)
    stats: list[Panel] = field(default_factory=list)


@dataclass
class Annotation:
    """A line over all panels where the query has a value."""

    name: str
    color: str
    query: str
    text: str


@dataclass
class Board:
    name: str
    title: str
    says: str
    has_model: bool
    rows: list[Row]


def stat(title: str, says: str, unit: str, query: str) -> Panel:
    return Panel(title, says, unit, [(query, "")], "stat")


def per(labels: str, metric: str, selector: str = MODEL) -> str:
    """A rate by these labels."""
    return f"sum by ({labels}) (rate({metric}{{{selector}}}{RATE}))"


def in_five_minutes(labels: str, metric: str, selector: str = MODEL) -> str:
    return f"sum by ({labels}) (increase({metric}{{{selector}}}[5m]))"


def part(labels: str, metric: str, other: str) -> str:
    """The part that one counter has of itself and another one."""
    return f"{per(labels, metric)} / ({per(labels, metric)} + {per(labels, other)})"


def quantile(q: float, metric: str, by: str, selector: str, more: str = "") -> str:
    return f"histogram_quantile({q}, sum by (le{by}) (rate({metric}_bucket{{{selector}{more}}}{RATE})))"


def newest(labels: str, metric: str, selector: str) -> str:
    """What was counted within a minute; a counter that is born with its first event has no increase then."""
    counter = f"{metric}{{{selector}}}"
    return (
        f"sum by ({labels}) (increase({counter}[1m])) > 0 or sum by ({labels}) ({counter} unless {counter} offset 1m) > 0"
    )


def worst(metric: str, selector: str = MODEL) -> str:
    """The most that a replica tells of each model."""
    return f"max by (model) ({metric}{{{selector}}})"


def phase_count(phases: str) -> str:
    """Models whose rollout is in one of these phases."""
    models = f'max by (namespace, job, model) (sluicegate_rollout_phase{{{POD},phase=~"{phases}"}}) == 1'
    return f"count({models}) or vector(0)"


# Each decision is made, and told, by one replica.
DECISIONS = "sluicegate_rollout_decisions_total"
ANNOTATIONS = [
    Annotation("Swaps", "blue", f"sum by (model) (increase(sluicegate_swaps_total{{{POD}}}[1m])) > 0", "{{model}} swapped"),
    Annotation("Rollouts", "purple", newest("model, kind", DECISIONS, f'{POD},kind!="rollout.rolled_back"'), "{{model}} {{kind}}"),
    Annotation("Rollbacks", "red", newest("model, kind", DECISIONS, f'{POD},kind="rollout.rolled_back"'), "{{model}} {{kind}}"),
]


SERVING = Board(
    "serving",
    "Sluicegate",
    "The application on the left, its models on the right.",
    True,
    [
        Row(
            "Now",
            stats=[
                stat("Requests", "Answers a second, refusals included.", "reqps", f"sum(rate({ALL}{RATE}))"),
                stat(
                    "Failed",
                    "The part that failed by a fault of the gateway, a model or too much load.",
                    "percentunit",
                    f"(sum(rate({FAILED}{RATE})) or vector(0)) / sum(rate({ALL}{RATE}))",
                ),
                stat(
                    "p99", "One request in a hundred takes longer.", "s", quantile(0.99, "sluicegate_request_seconds", "", POD)
                ),
                stat("Ready pods", "Pods that take requests.", "none", f"sum(sluicegate_ready{{{POD}}})"),
                stat(
                    "Models",
                    "Models with a version that serves.",
                    "none",
                    f"count(count by (model) (sluicegate_live_version{{{POD}}}))",
                ),
                stat(
                    "Failed loads",
                    "Versions that could not be served, in the last day.",
                    "none",
                    f'sum(increase(sluicegate_loads_total{{{POD},outcome="failed"}}[1d])) or vector(0)',
                ),
                stat(
                    "Swaps",
                    "Versions swapped in the last day.",
                    "none",
                    f"sum(increase(sluicegate_swaps_total{{{POD}}}[1d])) or vector(0)",
                ),
                stat(
                    "On a fallback",
                    "Versions on a slower engine or device than preferred.",
                    "none",
                    f"sum(sluicegate_engine_fallback{{{POD}}})",
                ),
            ],
        ),
        Row(
            "Requests",
            left=[
                Panel(
                    "Requests by outcome",
                    "`ok` or the code of the error.",
                    "reqps",
                    [(f"sum by (code) (rate({ALL}{RATE}))", "{{code}}")],
                ),
                Panel(
                    "Failed",
                    "By fault of the gateway, a model or too much load, beside all refusals.",
                    "percentunit",
                    [
                        (f"(sum(rate({FAILED}{RATE})) or vector(0)) / sum(rate({ALL}{RATE}))", "failed"),
                        (
                            f'(sum(rate({{__name__=~"sluicegate_(requests|unrouted)_total",{POD},code!="ok"}}{RATE})) or vector(0)) '
                            f"/ sum(rate({ALL}{RATE}))",
                            "all but ok",
                        ),
                    ],
                ),
                Panel(
                    "Latency",
                    "From the last byte of a request to its encoded answer.",
                    "s",
                    [(quantile(q, "sluicegate_request_seconds", "", MODEL), f"p{int(q * 100)}") for q in (0.5, 0.9, 0.99)],
                ),
                Panel(
                    "In flight",
                    "Requests between arrival and answer, by pod.",
                    "none",
                    [(f"sum by (instance) (sluicegate_in_flight_requests{{{POD}}})", "{{instance}}")],
                ),
            ],
            right=[
                Panel(
                    "Requests by version",
                    "Who answers: versions beside each other show a canary, a change of all lines a swap.",
                    "reqps",
                    [(per("model, version", "sluicegate_requests_total"), "{{model}}@{{version}}")],
                ),
                Panel(
                    "Inputs refused",
                    "The part of requests that do not fit the signature: callers and model changed apart.",
                    "percentunit",
                    [
                        (
                            f'sum by (model) (rate(sluicegate_requests_total{{{MODEL},code=~"{INVALID}"}}{RATE})) '
                            f"/ sum by (model) (rate(sluicegate_requests_total{{{MODEL}}}{RATE}))",
                            "{{model}}",
                        )
                    ],
                ),
                Panel(
                    "Compute, p99 by version",
                    "In the engine alone.",
                    "s",
                    [
                        (
                            quantile(0.99, "sluicegate_stage_seconds", ", model, version", MODEL, ',stage="compute"'),
                            "{{model}}@{{version}}",
                        )
                    ],
                ),
                Panel(
                    "Live versions",
                    "Pods that serve each version. Two lines of one model at once are a swap, or versions side by side.",
                    "none",
                    [
                        (
                            f"count by (model, version, digest, engine) (sluicegate_live_version{{{MODEL}}})",
                            "{{model}}@{{version}} {{engine}}",
                        )
                    ],
                ),
            ],
        ),
        Row(
            "Rollouts",
            left=[
                Panel(
                    "Candidate's share",
                    "Of the requests that name no version. The lines over all panels are the decisions.",
                    "percentunit",
                    [(worst("sluicegate_rollout_share_ratio"), "{{model}}")],
                ),
                Panel(
                    "Phase",
                    "Where each rollout stands: running by itself, paused until a person says more, promoted, or rolled back.",
                    "none",
                    [(f"max by (model, phase) (sluicegate_rollout_phase{{{MODEL}}}) == 1", "{{model}} {{phase}}")],
                ),
                Panel(
                    "Fallbacks",
                    "The part of the candidate's requests that stable answered, because the candidate failed them or took too long.",
                    "percentunit",
                    [
                        (
                            f"{per('model', 'sluicegate_fallbacks_total')} "
                            f"/ ({per('model', 'sluicegate_variant_requests_total', CANDIDATE)} > 0)",
                            "{{model}}",
                        )
                    ],
                ),
                Panel(
                    "Copies for shadows that came to nothing",
                    "Dropped for want of room, or failed. Callers notice neither.",
                    "reqps",
                    [(per("model, outcome", "sluicegate_shadow_requests_total"), "{{model}} {{outcome}}")],
                ),
                Panel(
                    "State out of reach",
                    "Replicas that cannot reach the state of rollouts: traffic stays as it is there, or becomes safer.",
                    "none",
                    [(f"sum by (model) (sluicegate_rollout_cut_off{{{MODEL}}})", "{{model}}")],
                ),
            ],
            right=[
                Panel(
                    "Requests by variant",
                    "The variant that was drawn, whoever answered in the end.",
                    "reqps",
                    [(per("model, variant", "sluicegate_variant_requests_total"), "{{model}} {{variant}}")],
                ),
                Panel(
                    "Failed, candidate against stable",
                    "Faults of callers left out. A fallback is the candidate's failure.",
                    "percentunit",
                    [
                        (
                            f"{per('model, variant', 'sluicegate_variant_requests_total', FAILED_VARIANT)} "
                            f"/ ({per('model, variant', 'sluicegate_variant_requests_total')} > 0)",
                            "{{model}} {{variant}}",
                        )
                    ],
                ),
                Panel(
                    "p99, candidate against stable",
                    "The versions of models whose rollout is under way, from the last byte of a request to its encoded answer.",
                    "s",
                    [
                        (
                            f"{quantile(0.99, 'sluicegate_request_seconds', ', model, version', MODEL)} and on (model) ({UNDER_WAY})",
                            "{{model}}@{{version}}",
                        )
                    ],
                ),
                Panel(
                    "Shadow disagrees",
                    "The part of rows on which shadow and stable disagree. GET /models/{model}/shadow at the ops address has the worst of them.",
                    "percentunit",
                    [
                        (
                            f"{per('model', 'sluicegate_shadow_rows_total', DISAGREED)} "
                            f"/ ({per('model', 'sluicegate_shadow_rows_total')} > 0)",
                            "{{model}}",
                        )
                    ],
                ),
                Panel(
                    "Drift of predictions",
                    "How far the distributions of the first output of candidate and stable lie apart, where a rule has `drift`: the population stability index. Up to 0.1 is little, from 0.25 on much.",
                    "none",
                    [(worst("sluicegate_rollout_rule_value", f'{MODEL},rule="drift"'), "{{model}}")],
                ),
                Panel(
                    "Rules",
                    "1 where a rule of the stage holds, -1 where it is broken, 0 where neither is known yet.",
                    "none",
                    [(f"min by (model, rule) (sluicegate_rollout_rule_state{{{MODEL}}})", "{{model}} {{rule}}")],
                ),
                Panel(
                    "Not as declared",
                    "1 where what answers is not, or will not become, what Git says: a rollout came to its end and its patch is not merged.",
                    "none",
                    [(worst("sluicegate_rollout_differs"), "{{model}}")],
                ),
            ],
        ),
        Row(
            "Batches",
            left=[
                Panel(
                    "Stages, p99",
                    "Where the time goes.",
                    "s",
                    [(quantile(0.99, "sluicegate_stage_seconds", ", stage", MODEL), "{{stage}}")],
                ),
                Panel(
                    "Rows that wait",
                    "By model; near `batching.queue_rows` requests are refused.",
                    "none",
                    [(f"sum by (model) (sluicegate_queue_rows{{{MODEL}}})", "{{model}}")],
                ),
            ],
            right=[
                Panel(
                    "Rows in a run",
                    "The mean size of a batch: 1 where instances are idle.",
                    "none",
                    [
                        (
                            f"{per('model', 'sluicegate_batch_rows_sum')} / {per('model', 'sluicegate_batch_rows_count')}",
                            "{{model}}",
                        )
                    ],
                ),
                Panel(
                    "Queue, p99",
                    "How long a request waits for an instance.",
                    "s",
                    [(quantile(0.99, "sluicegate_stage_seconds", ", model", MODEL, ',stage="queue"'), "{{model}}")],
                ),
            ],
        ),
        Row(
            "Versions",
            left=[
                Panel(
                    "Configuration",
                    "Changes of sluicegate.yaml, applied and refused.",
                    "none",
                    [(in_five_minutes("outcome", "sluicegate_config_reloads_total", POD), "{{outcome}}")],
                ),
                Panel(
                    "Registry",
                    "Looks at the registries.",
                    "ops",
                    [(per("outcome", "sluicegate_registry_scans_total", POD), "{{outcome}}")],
                ),
                Panel(
                    "Webhooks",
                    "Events by what became of them, and those that wait.",
                    "none",
                    [
                        (in_five_minutes("host, outcome", "sluicegate_webhook_events_total", POD), "{{host}} {{outcome}}"),
                        (f"sum by (host) (sluicegate_webhook_queue_events{{{POD}}})", "{{host}} waiting"),
                    ],
                ),
            ],
            right=[
                Panel(
                    "Loads",
                    "Versions loaded, and those that could not be.",
                    "none",
                    [(in_five_minutes("model, outcome", "sluicegate_loads_total"), "{{model}} {{outcome}}")],
                ),
                Panel(
                    "Swaps",
                    "Changes of the version that answers.",
                    "none",
                    [(in_five_minutes("model", "sluicegate_swaps_total"), "{{model}}")],
                ),
            ],
        ),
        Row(
            "Resources",
            left=[
                Panel(
                    "Memory",
                    "Resident, beside the container's limit.",
                    "bytes",
                    [
                        (f"sum by (instance) (sluicegate_process_resident_bytes{{{POD}}})", "{{instance}}"),
                        (
                            f'max by (pod) (kube_pod_container_resource_limits{{{CONTAINER},resource="memory"}})',
                            "limit of {{pod}}",
                        ),
                    ],
                ),
                Panel(
                    "Processor",
                    "Cores in use.",
                    "none",
                    [(per("instance", "sluicegate_process_cpu_seconds_total", POD), "{{instance}}")],
                ),
                Panel(
                    "GPU in use",
                    "The part of the time in which it computes.",
                    "percentunit",
                    [(f"avg by (instance, uuid) (sluicegate_gpu_utilization_ratio{{{POD}}})", "{{instance}} {{uuid}}")],
                ),
                Panel(
                    "GPU memory",
                    "Taken, of what there is.",
                    "percentunit",
                    [
                        (
                            f"sum by (instance, uuid) (sluicegate_gpu_memory_used_bytes{{{POD}}}) / sum by (instance, uuid) (sluicegate_gpu_memory_bytes{{{POD}}})",
                            "{{instance}} {{uuid}}",
                        )
                    ],
                ),
            ],
            right=[
                Panel(
                    "Memory of models",
                    "As measured when each was loaded, beside `memory.budget` and, for each GPU, `memory.gpu_budget`.",
                    "bytes",
                    [
                        (f"max by (model, version, device) (sluicegate_footprint_bytes{{{MODEL}}})", "{{model}}@{{version}} on {{device}}"),
                        (f"max(sluicegate_memory_budget_bytes{{{POD}}})", "budget"),
                        (f"max(sluicegate_gpu_memory_budget_bytes{{{POD}}})", "budget of each GPU"),
                    ],
                ),
                Panel(
                    "On demand",
                    "Models that were loaded for a request, and that made room.",
                    "none",
                    [
                        (in_five_minutes("model", "sluicegate_wakes_total"), "{{model}} woken"),
                        (in_five_minutes("model", "sluicegate_rests_total"), "{{model}} rests"),
                    ],
                ),
                Panel(
                    "Cache hits",
                    "The part of look-ups that had their answer, where a model has a cache.",
                    "percentunit",
                    [(part("model", "sluicegate_cache_hits_total", "sluicegate_cache_misses_total"), "{{model}}")],
                ),
                Panel(
                    "Padding",
                    "The part of tokens that only fill rows up, where models read text.",
                    "percentunit",
                    [(part("model", "sluicegate_padding_tokens_total", "sluicegate_tokens_total"), "{{model}}")],
                ),
            ],
        ),
    ],
)

FLEET = Board(
    "fleet",
    "Sluicegate fleet",
    "Every release beside the others: on the left how they are, on the right what they serve.",
    False,
    [
        Row(
            "Now",
            stats=[
                stat("Releases", "Jobs of gateways.", "none", f"count(count by (namespace, job) (sluicegate_ready{{{POD}}}))"),
                stat(
                    "Pods",
                    "Pods that are ready, of all.",
                    "percentunit",
                    f"sum(sluicegate_ready{{{POD}}}) / count(sluicegate_ready{{{POD}}})",
                ),
                stat("Requests", "Answers a second.", "reqps", f"sum(rate({ALL}{RATE}))"),
                stat(
                    "Versions",
                    "Different versions that serve.",
                    "none",
                    f"count(count by (model, digest) (sluicegate_live_version{{{POD}}}))",
                ),
            ],
        ),
        Row(
            "Releases",
            left=[
                Panel(
                    "Requests",
                    "By release.",
                    "reqps",
                    [(f"sum by (namespace, job) (rate({ALL}{RATE}))", "{{namespace}}/{{job}}")],
                ),
                Panel(
                    "Failed",
                    "By fault of the gateway, a model or too much load.",
                    "percentunit",
                    [(f"({FAILED_BY} or 0 * {ALL_BY}) / {ALL_BY}", "{{namespace}}/{{job}}")],
                ),
                Panel(
                    "p99",
                    "By release.",
                    "s",
                    [(quantile(0.99, "sluicegate_request_seconds", ", namespace, job", POD), "{{namespace}}/{{job}}")],
                ),
                Panel(
                    "Restarts",
                    "Of containers, in an hour.",
                    "none",
                    [
                        (
                            f"sum by (namespace, pod) (increase(kube_pod_container_status_restarts_total{{{CONTAINER}}}[1h]))",
                            "{{namespace}}/{{pod}}",
                        )
                    ],
                ),
            ],
            right=[
                Panel(
                    "Models",
                    "Models that serve, by release.",
                    "none",
                    [
                        (
                            f"count by (namespace, job) (count by (namespace, job, model) (sluicegate_live_version{{{POD}}}))",
                            "{{namespace}}/{{job}}",
                        )
                    ],
                ),
                Panel(
                    "Versions by release",
                    "Where dev, staging and production have different digests, something waits for promotion.",
                    "none",
                    [
                        (
                            f"count by (namespace, model, version, digest) (sluicegate_live_version{{{POD}}})",
                            "{{namespace}} {{model}}@{{version}} {{digest}}",
                        )
                    ],
                    "table",
                ),
                Panel(
                    "Builds",
                    "Pods of each build of the gateway.",
                    "none",
                    [
                        (
                            f"count by (namespace, version, commit) (sluicegate_build_info{{{POD}}})",
                            "{{namespace}} {{version}} {{commit}}",
                        )
                    ],
                    "table",
                ),
                Panel(
                    "Queue",
                    "Rows that wait, by release.",
                    "none",
                    [(f"sum by (namespace, job) (sluicegate_queue_rows{{{POD}}})", "{{namespace}}/{{job}}")],
                ),
            ],
        ),
        Row(
            "Rollouts",
            stats=[
                stat("Running", "Models whose rollout moves by itself.", "none", phase_count("running")),
                stat("Waiting for a person", "Models whose rollout is paused.", "none", phase_count("paused")),
                stat("Promoted", "Models that the candidate answers, until Git says so.", "none", phase_count("promoted")),
                stat("Rolled back", "Models whose candidate was taken out.", "none", phase_count("rolled_back")),
            ],
            left=[
                Panel(
                    "Decisions",
                    "Of rollouts, in an hour.",
                    "none",
                    [(f"sum by (namespace, job, kind) (increase({DECISIONS}{{{POD}}}[1h]))", "{{namespace}}/{{job}} {{kind}}")],
                ),
                Panel(
                    "Failed candidates",
                    "The part of the candidates' requests that they failed, by release.",
                    "percentunit",
                    [
                        (
                            f"{per('namespace, job', 'sluicegate_variant_requests_total', FAILED_CANDIDATE)} "
                            f"/ ({per('namespace, job', 'sluicegate_variant_requests_total', ALL_CANDIDATE)} > 0)",
                            "{{namespace}}/{{job}}",
                        )
                    ],
                ),
            ],
            right=[
                Panel(
                    "Where each rollout stands",
                    "Running, paused, promoted or rolled back: what is declared and has come to its end waits for its patch to be merged.",
                    "none",
                    [(IN_PHASE, "{{namespace}} {{model}} {{phase}}")],
                    "table",
                ),
                Panel(
                    "Candidates' shares",
                    "Of the requests that name no version.",
                    "percentunit",
                    [
                        (
                            f"max by (namespace, job, model) (sluicegate_rollout_share_ratio{{{POD}}})",
                            "{{namespace}}/{{job}} {{model}}",
                        )
                    ],
                ),
            ],
        ),
        Row(
            "Resources",
            left=[
                Panel(
                    "Memory",
                    "Resident, by release.",
                    "bytes",
                    [(f"sum by (namespace, job) (sluicegate_process_resident_bytes{{{POD}}})", "{{namespace}}/{{job}}")],
                ),
                Panel(
                    "Descriptors and threads",
                    "The most of a pod.",
                    "none",
                    [
                        (
                            f"max by (namespace, job) (sluicegate_process_open_fds{{{POD}}})",
                            "{{namespace}}/{{job}} descriptors",
                        ),
                        (f"max by (namespace, job) (sluicegate_process_threads{{{POD}}})", "{{namespace}}/{{job}} threads"),
                    ],
                ),
            ],
            right=[
                Panel(
                    "Processor",
                    "Cores in use, by release.",
                    "none",
                    [(per("namespace, job", "sluicegate_process_cpu_seconds_total", POD), "{{namespace}}/{{job}}")],
                ),
                Panel(
                    "Power of GPUs",
                    "By release.",
                    "watt",
                    [(f"sum by (namespace, job) (sluicegate_gpu_power_watts{{{POD}}})", "{{namespace}}/{{job}}")],
                ),
            ],
        ),
    ],
)

BOARDS = [SERVING, FLEET]
