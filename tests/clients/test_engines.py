"""Which engine runs what, and what the gateway says of a model that an engine cannot load."""

import zoo
from conftest import REFUSED_BY_TRACT, loads
from samples import NAMES


def state(gateway, model: str) -> dict:
    models = {each["name"]: each for each in gateway.ops("/status").json()["models"]}
    return models[model]


def test_what_tract_cannot_load_is_said_with_its_operator_or_type(gateways):
    gateway = gateways("tract", "everything")
    for model, what in REFUSED_BY_TRACT.items():
        versions = state(gateway, model)["versions"]
        assert [each["state"] for each in versions.values()] == ["failed"], model
        assert all(what in each["reason"] for each in versions.values()), versions
        answer = gateway.post(f"/v2/models/{model}/infer", json={"inputs": []})
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert model in answer.json()["error"]


def test_what_one_model_cannot_do_costs_no_other(gateways):
    for engine in ("onnxruntime", "tract"):
        gateway = gateways(engine, "everything")
        served = set(gateway.get("/v2/models").json()["models"])
        for model in [*NAMES, *map(zoo.identity, zoo.ELEMENTS)]:
            ready = gateway.get(f"/v2/models/{model}/ready").status_code
            assert ready == (200 if loads(engine, model) else 503), (engine, model)
            assert model in served or not loads(engine, model)


def test_the_engine_is_told_in_metadata_status_and_metrics(gateway, engine):
    assert gateway.get("/v2/models/fraud").json()["properties"]["engine"] == engine
    assert gateway.get("/models/fraud").json()["engine"] == engine
    assert state(gateway, "fraud")["engine"] == engine
    assert f'engine="{engine}"' in gateway.ops("/metrics").text
