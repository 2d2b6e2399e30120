"""For each alert a written series at which it fires, and a neighbour at which it stays silent.

A series is in promtool's notation, a sample a minute where `every` says nothing else. `J` is what every gateway's series has.
"""

from dataclasses import dataclass

J = 'job="sluicegate",namespace="serving",instance="10.0.0.1:8082",pod="sluicegate-0"'
POD = 'namespace="serving",pod="sluicegate-0",container="sluicegate"'
FRAUD = f'{J},model="fraud",version="2"'

Series = dict[str, str]


@dataclass(frozen=True)
class Case:
    fires: Series
    silent: Series
    at: str = "1h"
    every: str = "1m"


def requests(ok: str, code: str, failed: str) -> Series:
    """A counter of answers, and one of failures of this code."""
    return {
        f'sluicegate_requests_total{{{FRAUD},code="ok"}}': ok,
        f'sluicegate_requests_total{{{FRAUD},code="{code}"}}': failed,
    }


def slow(fast: str, all_of_them: str) -> Series:
    return {
        f'sluicegate_request_seconds_bucket{{{FRAUD},le="0.25"}}': fast,
        f"sluicegate_request_seconds_count{{{FRAUD}}}": all_of_them,
    }


def stage(stage: str, buckets: dict[str, str], more: str = "") -> Series:
    return {f'sluicegate_stage_seconds_bucket{{{FRAUD},stage="{stage}",le="{le}"}}': values for le, values in buckets.items()}


def both(*parts: Series) -> Series:
    return {name: values for part in parts for name, values in part.items()}


MODEL = f'{J},model="fraud"'
OF_OTHER = MODEL.replace("10.0.0.1", "10.0.0.2").replace("sluicegate-0", "sluicegate-1")


def decided(kind: str, values: str) -> Series:
    return {f'sluicegate_rollout_decisions_total{{{MODEL},kind="{kind}"}}': values}


def phase(name: str, values: str, stage: str = "0x600") -> Series:
    """Where a rollout stands, as two replicas tell; the other has not looked yet."""
    told = {f'sluicegate_rollout_phase{{{MODEL},phase="{name}"}}': values, f"sluicegate_rollout_stage{{{MODEL}}}": stage}
    return told | {f'sluicegate_rollout_phase{{{OF_OTHER},phase="{name}"}}': "0x600"}


def variant(variant: str, values: str) -> Series:
    return {f'sluicegate_variant_requests_total{{{MODEL},variant="{variant}",outcome="ok"}}': values}


def shadow(agreed: str, disagreed: str) -> Series:
    rows = {"agreed": agreed, "disagreed": disagreed}
    return {f'sluicegate_shadow_rows_total{{{MODEL},outcome="{name}"}}': values for name, values in rows.items()}


def copies(outcome: str, values: str) -> Series:
    return {f'sluicegate_shadow_requests_total{{{MODEL},outcome="{outcome}"}}': values} | variant("stable", "0+100x120")


def hook(outcome: str, values: str) -> Series:
    return {f'sluicegate_webhook_events_total{{{J},hook="0",host="hooks.example.com",outcome="{outcome}"}}': values}


LIMIT = f'kube_pod_container_resource_limits{{{POD},resource="memory"}}'
KILLED = f'kube_pod_container_status_last_terminated_reason{{{POD},reason="OOMKilled"}}'
RESTARTS = f"kube_pod_container_status_restarts_total{{{POD}}}"
OTHER = J.replace("10.0.0.1", "10.0.0.2").replace("sluicegate-0", "sluicegate-1")


def live(*who: str) -> Series:
    ready = {f"sluicegate_ready{{{each}}}": "1x120" for each in (J, OTHER)}
    return ready | {
        f'sluicegate_live_version{{{each},model="fraud",version="2",digest="sha256:a",engine="tract"}}': "1x120" for each in who
    }


CASES: dict[str, Case] = {
    # 2 % fail, above 14.4 times the budget of 0.1 %; 0.05 % fail, within it.
    "SluicegateErrorBudgetBurn": Case(
        requests("0+980x120", "queue_full", "0+20x120"), requests("0+9995x120", "queue_full", "0+5x120"), "2h"
    ),
    # 0.4 % fail for three days; a caller's own mistakes do not count.
    "SluicegateErrorBudgetBurnSlow": Case(
        requests("0+996x440", "run_failed", "0+4x440"), requests("0+900x440", "invalid_fields", "0+100x440"), "3d", "10m"
    ),
    "SluicegateLatencyBudgetBurn": Case(slow("0+80x120", "0+100x120"), slow("0+99x120", "0+100x120"), "2h"),
    "SluicegateRefusing": Case(
        both(requests("0+90x60", "ok", "0+90x60"), {f'sluicegate_unrouted_total{{{J},code="too_busy"}}': "0+10x60"}),
        both(requests("0+90x60", "ok", "0+90x60"), {f'sluicegate_unrouted_total{{{J},code="unknown_model"}}': "0+10x60"}),
    ),
    "SluicegateQueueWait": Case(
        stage("queue", {"0.1": "0+50x60", "0.25": "0+100x60", "+Inf": "0+100x60"}),
        stage("compute", {"0.1": "0+50x60", "0.25": "0+100x60", "+Inf": "0+100x60"}),
    ),
    "SluicegateMemoryNearLimit": Case(
        {f"sluicegate_process_resident_bytes{{{J}}}": "950x60", LIMIT: "1000x60"},
        {f"sluicegate_process_resident_bytes{{{J}}}": "950x60", LIMIT: "2000x60"},
    ),
    "SluicegateGpuMemoryFull": Case(
        {
            f'sluicegate_gpu_memory_used_bytes{{{J},uuid="a",name="L4"}}': "96x60",
            f'sluicegate_gpu_memory_bytes{{{J},uuid="a",name="L4"}}': "100x60",
        },
        {
            f'sluicegate_gpu_memory_used_bytes{{{J},uuid="a",name="L4"}}': "90x60",
            f'sluicegate_gpu_memory_bytes{{{J},uuid="a",name="L4"}}': "100x60",
        },
    ),
    "SluicegateDown": Case({f"up{{{J}}}": "1x10 0x60"}, {f"up{{{J}}}": "1x57 0x2 1x10"}),
    "SluicegateNotReady": Case({f"sluicegate_ready{{{J}}}": "0x60"}, {f"sluicegate_ready{{{J}}}": "0x10 1x60"}),
    "SluicegateCrashLooping": Case({RESTARTS: "0x40 1 2 3 4x30"}, {RESTARTS: "0x40 1x40"}),
    "SluicegateOutOfMemory": Case({KILLED: "1x60", RESTARTS: "0x50 1x20"}, {KILLED: "1x60", RESTARTS: "1x70"}),
    "SluicegateConfigRefused": Case(
        {f'sluicegate_config_reloads_total{{{J},outcome="refused"}}': "_x55 1x20"},
        {f'sluicegate_config_reloads_total{{{J},outcome="applied"}}': "_x55 1x20"},
    ),
    "SluicegateRegistryStale": Case(
        {
            f'sluicegate_registry_scans_total{{{J},outcome="failed"}}': "0+60x60",
            f'sluicegate_registry_scans_total{{{J},outcome="ok"}}': "7x60",
        },
        {
            f'sluicegate_registry_scans_total{{{J},outcome="failed"}}': "0+1x60",
            f'sluicegate_registry_scans_total{{{J},outcome="ok"}}': "0+59x60",
        },
    ),
    "SluicegateLoadFailed": Case(
        {f'sluicegate_loads_total{{{J},model="fraud",outcome="failed"}}': "_x55 1x20"},
        {f'sluicegate_loads_total{{{J},model="fraud",outcome="failed"}}': "0x55 0x20"},
    ),
    "SluicegateVersionsDiffer": Case(live(J), live(J, OTHER), "2h"),
    "SluicegateSwapLoop": Case(
        {f'sluicegate_swaps_total{{{J},model="fraud"}}': "0+1x120"},
        {f'sluicegate_swaps_total{{{J},model="fraud"}}': "0x60 1x60"},
        "2h",
    ),
    "SluicegateEngineFallback": Case(
        {f"sluicegate_engine_fallback{{{FRAUD}}}": "1x60"}, {f"sluicegate_engine_fallback{{{FRAUD}}}": "0x60"}
    ),
    "SluicegateModelFailing": Case(requests("0+95x60", "run_failed", "0+5x60"), requests("0+95x60", "queue_full", "0+5x60")),
    "SluicegateInputsRefused": Case(
        requests("0+50x120", "missing_input", "0+50x120"), requests("0+90x120", "missing_input", "0+10x120"), "2h"
    ),
    "SluicegateModelSlower": Case(
        stage("compute", {"0.01": "0+100x144 14400x20", "0.1": "0+100x164", "+Inf": "0+100x164"}),
        stage("compute", {"0.01": "0+100x164", "0.1": "0+100x164", "+Inf": "0+100x164"}),
        "26h",
        "10m",
    ),
    "SluicegateWakeFailed": Case(
        {f'sluicegate_wakes_total{{{J},model="fraud",outcome="failed"}}': "_x55 1x20"},
        {f'sluicegate_wakes_total{{{J},model="fraud",outcome="live"}}': "_x55 1x20"},
    ),
    "SluicegateModelsThrash": Case(
        {f'sluicegate_rests_total{{{J},model="fraud"}}': "0+1x120"},
        {f'sluicegate_rests_total{{{J},model="fraud"}}': "0x60 9x60"},
        "2h",
    ),
    # A counter that is born with its first event; another kind of decision.
    "SluicegateRolledBack": Case(decided("rollout.rolled_back", "_x55 1x20"), decided("rollout.promoted", "_x55 1x20")),
    # Four hours, and half of them: somebody resumed.
    "SluicegateRolloutWaits": Case(phase("paused", "1x600"), phase("paused", "1x120 0x10 1x600"), "5h"),
    # One stage for six hours; the next stage after three.
    "SluicegateRolloutUndecided": Case(phase("running", "1x600"), phase("running", "1x600", "0x180 1x600"), "7h"),
    # A day, and not yet a day.
    "SluicegateRolloutDiffers": Case(
        {f"sluicegate_rollout_differs{{{MODEL}}}": "1x300"}, {f"sluicegate_rollout_differs{{{MODEL}}}": "0x60 1x300"}, "26h", "10m"
    ),
    # 10 % of the candidate's requests, and 2 %.
    "SluicegateFallbacks": Case(
        variant("candidate", "0+90x60") | {f"sluicegate_fallbacks_total{{{MODEL}}}": "0+9x60"},
        variant("candidate", "0+90x60") | {f"sluicegate_fallbacks_total{{{MODEL}}}": "0+2x60"},
    ),
    # A fifth of many rows, and all of a few.
    "SluicegateShadowDisagrees": Case(shadow("0+80x120", "0+20x120"), shadow("0x120", "0+1x120"), "2h"),
    # Far apart as two replicas know it, and for no longer than a few answers make it seem so.
    "SluicegateDrift": Case(
        {f'sluicegate_rollout_rule_value{{{MODEL},rule="drift"}}': "0x20 0.4x60", f'sluicegate_rollout_rule_value{{{OF_OTHER},rule="drift"}}': "0.1x120"},
        {f'sluicegate_rollout_rule_value{{{MODEL},rule="drift"}}': "0x50 0.4x5 0.1x60", f'sluicegate_rollout_rule_value{{{MODEL},rule="error_rate"}}': "0.4x120"},
    ),
    "SluicegateShadowDropped": Case(copies("dropped", "0+20x120"), copies("dropped", "0+5x120"), "2h"),
    "SluicegateShadowFails": Case(copies("failed", "0+5x120"), copies("dropped", "0+5x120"), "2h"),
    # A replica for five minutes, and one that came back in time.
    "SluicegateStateUnreachable": Case(
        {f"sluicegate_rollout_cut_off{{{MODEL}}}": "0x50 1x60", f"sluicegate_rollout_cut_off{{{OF_OTHER}}}": "0x120"},
        {f"sluicegate_rollout_cut_off{{{MODEL}}}": "0x50 1x3 0x60"},
    ),
    "SluicegateWebhooksFail": Case(hook("given_up", "0x50 1x60"), hook("delivered", "0x50 1x60")),
}
