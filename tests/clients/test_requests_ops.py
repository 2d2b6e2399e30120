"""The operators' address: metrics that Prometheus' own parser reads, health, status."""

from prometheus_client.parser import text_string_to_metric_families

from gateway import Gateway
from samples import newest

EXAMPLE = newest("fraud").signature["example"]


def families(gateway: Gateway) -> dict:
    answer = gateway.ops("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def requests_total(gateway: Gateway, **labels: str) -> float:
    family = families(gateway).get("sluicegate_requests")
    return sum(each.value for each in family.samples if labels.items() <= each.labels.items()) if family else 0


def test_health_and_readiness(gateway, engine):
    assert gateway.ops("/livez").status_code == 200
    assert gateway.ops("/readyz").json() == {"ready": True}


def test_metrics_are_read_by_prometheus_own_parser(gateway, engine):
    gateway.post("/models/fraud/predict", json=EXAMPLE)
    found = families(gateway)
    assert all(name.startswith("sluicegate_") for name in found)
    assert all(family.documentation for family in found.values()), "each says what it is"
    assert {
        "sluicegate_requests": "counter",
        "sluicegate_request_seconds": "histogram",
        "sluicegate_stage_seconds": "histogram",
        "sluicegate_batch_rows": "histogram",
        "sluicegate_in_flight_requests": "gauge",
        "sluicegate_loads": "counter",
        "sluicegate_live_version": "gauge",
        "sluicegate_build_info": "gauge",
        "sluicegate_ready": "gauge",
        "sluicegate_process_resident_bytes": "gauge",
    }.items() <= {name: family.type for name, family in found.items()}.items()
    stages = {each.labels["stage"] for each in found["sluicegate_stage_seconds"].samples}
    assert stages == {"decode", "queue", "compute", "encode"}


def test_histograms_are_whole(gateway, engine):
    gateway.post("/models/fraud/predict", json=EXAMPLE)
    family = families(gateway)["sluicegate_request_seconds"]
    buckets = [each for each in family.samples if each.name.endswith("_bucket") and each.labels["version"] == "3"]
    counts = [each.value for each in sorted(buckets, key=lambda each: float(each.labels["le"]))]
    total = next(each for each in family.samples if each.name.endswith("_count") and each.labels["version"] == "3")
    assert counts == sorted(counts), "buckets are cumulative"
    assert counts[-1] == total.value >= 1


def test_requests_are_counted_by_version_and_code(gateway, engine):
    labels = {"model": "fraud", "version": "1"}
    before = requests_total(gateway, **labels, code="ok"), requests_total(gateway, **labels, code="invalid_fields")
    for _ in range(3):
        gateway.post("/models/fraud@1/predict", json=EXAMPLE)
    gateway.post("/models/fraud@1/predict", json={})
    after = requests_total(gateway, **labels, code="ok"), requests_total(gateway, **labels, code="invalid_fields")
    assert (after[0] - before[0], after[1] - before[1]) == (3, 1)


def test_status_tells_every_version_its_state_and_what_serves(gateway, engine):
    status = gateway.ops("/status").json()
    assert status["ready"] is True
    fraud = next(each for each in status["models"] if each["name"] == "fraud")
    assert (fraud["default_version"], fraud["engine"], fraud["ready"]) == ("3", engine, True)
    assert {number: each["state"] for number, each in fraud["versions"].items()} == {"1": "live", "2": "live", "3": "live"}


def test_operators_pages_are_not_on_the_applications_address(gateway, engine):
    for path in ("/metrics", "/status"):
        assert gateway.get(path).status_code == 404
