"""MLflow's own client of its scoring server; and SageMaker's contract with a container, by plain requests.

No client of SageMaker can be pointed at an address of one's own without its service, so the contract is tested by requests as
its documentation has them: `/ping`, `/invocations`, content types, `accept`, and the header of multi-model endpoints.
"""

import io

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

from gateway import Gateway, running
from samples import MODELS, Sample, newest

TARGET = "X-Amzn-SageMaker-Target-Model"


@pytest.fixture(scope="module", params=["onnxruntime", "tract"])
def fraud(request, tmp_path_factory):
    """A gateway with one model, which needs no name then."""
    with running(tmp_path_factory.mktemp("mlflow"), request.param, {"samples": MODELS}, [{"name": "fraud", "registry": "samples"}]) as gateway:
        yield gateway


def client(gateway: Gateway) -> ScoringServerClient:
    host, port = gateway.address.split(":")
    return ScoringServerClient(host, int(port))


def table(sample: Sample, count: int) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Rows as a frame of named columns, and what the model says of them."""
    inputs = sample.rows(count)
    return pd.DataFrame(sample.records(inputs)), sample.expected(inputs)


def assert_fraud(predictions: pd.DataFrame, expected: dict[str, np.ndarray]) -> None:
    assert list(predictions.columns) == ["label", "probabilities"]
    assert predictions["label"].tolist() == expected["label"].tolist()
    np.testing.assert_allclose(np.stack(predictions["probabilities"]), expected["probabilities"], atol=1e-5)


def test_the_client_finds_the_server_ready(fraud):
    client(fraud).wait_server_ready(timeout=10)
    assert client(fraud).get_version().count(".") == 2


def test_a_frame_is_answered_in_any_order_of_its_columns(fraud):
    frame, expected = table(newest("fraud"), 5)
    for columns in (frame, frame[frame.columns[::-1]]):
        assert_fraud(client(fraud).invoke(columns).get_predictions(), expected)


def test_an_array_and_a_list_of_records_are_answered(fraud):
    sample = newest("fraud")
    inputs = sample.rows(3)
    assert_fraud(client(fraud).invoke(inputs["X"]).get_predictions(), sample.expected(inputs))
    assert_fraud(client(fraud).invoke(sample.records(inputs)).get_predictions(), sample.expected(inputs))


def test_a_frame_without_names_goes_by_position(fraud):
    inputs = newest("fraud").rows(3)
    assert_fraud(client(fraud).invoke(pd.DataFrame(inputs["X"])).get_predictions(), newest("fraud").expected(inputs))


def test_a_missing_number_is_not_a_number(fraud):
    frame, _ = table(newest("fraud"), 2)
    frame.loc[0, "amount"] = np.nan
    assert len(client(fraud).invoke(frame).get_predictions()) == 2


def test_errors_have_mlflows_form(fraud):
    frame, _ = table(newest("fraud"), 1)
    with pytest.raises(Exception, match="columns unknown: `sum`; missing: `amount`"):
        client(fraud).invoke(frame.rename(columns={"amount": "sum"}))
    with pytest.raises(Exception, match="params: the model takes none"):
        client(fraud).invoke(frame, params={"temperature": 1})
    answer = fraud.post("/invocations", json={"instances": [[1.0]]})
    error = MlflowException(answer.json()["message"], error_code=INVALID_PARAMETER_VALUE)
    assert answer.status_code == error.get_http_status_code() == 400
    assert answer.json()["error_code"] == error.error_code


def test_a_model_of_one_output_answers_values(gateways):
    with_many = gateways("onnxruntime", "samples")
    diabetes = newest("diabetes")
    frame, expected = table(diabetes, 4)
    body = {"dataframe_split": frame.to_dict(orient="split")}
    answer = with_many.post("/invocations", json=body, headers={TARGET: "diabetes"})
    (values,) = expected.values()
    np.testing.assert_allclose(answer.json()["predictions"], values, rtol=1e-4)


def test_sagemaker_asks_whether_the_container_is_ready(fraud):
    assert fraud.get("/ping").status_code == 200


def test_sagemaker_sends_csv_with_names_or_without(fraud):
    frame, expected = table(newest("fraud"), 4)
    bodies = [("text/csv", frame.to_csv(index=False)), ("text/csv; header=absent", frame.to_csv(index=False, header=False))]
    for content_type, body in bodies:
        headers = {"content-type": content_type, "accept": "text/csv"}
        answer = fraud.post("/invocations", data=body, headers=headers)
        assert answer.status_code == 200 and answer.headers["content-type"] == "text/csv", answer.text
        given = pd.read_csv(io.StringIO(answer.text), header=None).to_numpy()
        np.testing.assert_allclose(given, np.column_stack([expected["label"], expected["probabilities"]]), atol=1e-5)


def test_sagemaker_names_the_model_of_a_multi_model_endpoint(gateways):
    gateway = gateways("onnxruntime", "samples")
    frame, expected = table(newest("fraud"), 2)
    body = {"dataframe_records": frame.to_dict(orient="records")}
    for name in ("fraud", "fraud.tar.gz", "fraud@3"):
        answer = gateway.post("/invocations", json=body, headers={TARGET: name})
        assert_fraud(pd.DataFrame(answer.json()["predictions"]), expected)
        assert answer.headers["x-model-version"] == "3"
    unnamed = gateway.post("/invocations", json=body)
    assert unnamed.status_code == 404 and "protocols.invocations_model" in unnamed.json()["message"]


def test_what_cannot_be_read_or_written_is_named(fraud):
    body = "{}"
    assert fraud.post("/invocations", data=body, headers={"content-type": "application/x-npy"}).status_code == 415
    assert fraud.post("/invocations", data=body, headers={"accept": "image/png"}).status_code == 406
