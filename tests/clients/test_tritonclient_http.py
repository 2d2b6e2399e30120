"""Triton's own Python client, with its defaults (so raw bytes both ways) and with everything else it can do."""

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

import zoo
from gateway import Gateway
from samples import NAMES, SAMPLES, Sample, Tensors, newest

COMPRESSION = [None, "gzip", "deflate"]


@pytest.fixture
def client(gateway: Gateway):
    with InferenceServerClient(gateway.address, concurrency=4, network_timeout=300, connection_timeout=300) as client:
        yield client


@pytest.fixture
def made_client(made: Gateway):
    with InferenceServerClient(made.address, network_timeout=300) as client:
        yield client


def sent(sample: Sample, inputs: Tensors, binary: bool = True) -> list[InferInput]:
    return [tensor(name, sample.datatype(name), values, binary) for name, values in inputs.items()]


def tensor(name: str, datatype: str, values: np.ndarray, binary: bool = True) -> InferInput:
    sent = InferInput(name, list(values.shape), datatype)
    sent.set_data_from_numpy(values, binary_data=binary)
    return sent


def text(values: np.ndarray) -> np.ndarray:
    """tritonclient gives bytes for binary BYTES and str for JSON ones."""
    decode = np.vectorize(lambda value: value.decode() if isinstance(value, bytes) else value, otypes=[object])
    return decode(values) if values.size else values


def assert_answers(result: InferResult, expected: Tensors) -> None:
    answered = [output["name"] for output in result.get_response()["outputs"]]
    assert answered == list(expected)
    for name, values in expected.items():
        given = result.as_numpy(name)
        if values.dtype == object:
            assert text(given).tolist() == values.tolist()
        else:
            assert given.dtype == values.dtype
            np.testing.assert_allclose(given, values, rtol=1e-5, atol=1e-5)


def test_the_server_is_live_and_ready(client):
    assert client.is_server_live()
    assert client.is_server_ready()


def test_the_server_describes_itself(client):
    metadata = client.get_server_metadata()
    assert metadata["name"] == "sluicegate"
    assert metadata["version"]
    assert "binary_tensor_data" in metadata["extensions"]


def test_every_version_is_ready_and_an_unknown_one_is_not(client, sample):
    assert client.is_model_ready(sample.name)
    assert client.is_model_ready(sample.name, str(sample.version))
    assert not client.is_model_ready(sample.name, "77")
    assert not client.is_model_ready("nobody")


def test_metadata_names_tensors_as_the_model_file_does(client, sample, engine):
    metadata = client.get_model_metadata(sample.name, str(sample.version))
    assert metadata["name"] == sample.name
    assert metadata["versions"] == [str(each.version) for each in SAMPLES if each.name == sample.name]
    assert metadata["platform"] == "onnx_onnxv1"
    assert metadata["properties"]["engine"] == engine
    assert metadata["properties"]["version"] == str(sample.version)
    given = {each["name"]: (each["datatype"], each["shape"]) for each in metadata["inputs"]}
    inputs = sample.session.get_inputs()
    assert given == {each.name: (sample.datatype(each.name), [-1, *each.shape[1:]]) for each in inputs}
    assert [each["name"] for each in metadata["outputs"]] == [each.name for each in sample.session.get_outputs()]
    assert all(each["shape"][0] == -1 for each in metadata["outputs"])


@pytest.mark.parametrize("rows", [1, 5, 300])
def test_every_version_answers_the_clients_defaults(client, sample, rows):
    inputs = sample.rows(rows)
    result = client.infer(sample.name, sent(sample, inputs), model_version=str(sample.version))
    assert result.get_response()["model_name"] == sample.name
    assert result.get_response()["model_version"] == str(sample.version)
    assert_answers(result, sample.expected(inputs))


def test_without_a_version_the_newest_answers(client, gateway):
    sample = newest("fraud")
    inputs = sample.rows(3)
    result = client.infer("fraud", sent(sample, inputs))
    assert result.get_response()["model_version"] == str(sample.version)
    assert_answers(result, sample.expected(inputs))


def test_only_requested_outputs_come_back_in_the_order_asked(client, sample):
    inputs = sample.rows(4)
    expected = sample.expected(inputs)
    for names in [list(expected)[:1], list(expected)[::-1]]:
        outputs = [InferRequestedOutput(name) for name in names]
        result = client.infer(sample.name, sent(sample, inputs), str(sample.version), outputs)
        assert_answers(result, {name: expected[name] for name in names})


@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("binary_in", [True, False])
def test_json_and_binary_mix_in_every_way(client, sample, binary_in, binary_out):
    inputs = sample.rows(3)
    expected = sample.expected(inputs)
    mixed = [
        tensor(name, sample.datatype(name), values, binary_in ^ bool(place % 2))
        for place, (name, values) in enumerate(inputs.items())
    ]
    outputs = [InferRequestedOutput(name, binary_out ^ bool(place % 2)) for place, name in enumerate(expected)]
    result = client.infer(sample.name, mixed, str(sample.version), outputs)
    assert_answers(result, expected)
    for place, name in enumerate(expected):
        assert ("data" not in result.get_output(name)) == (binary_out ^ bool(place % 2))


@pytest.mark.parametrize("response", COMPRESSION)
@pytest.mark.parametrize("request_", COMPRESSION)
@pytest.mark.parametrize("binary", [True, False])
def test_compression_both_ways(client, engine, request_, response, binary):
    sample = newest("digits")
    inputs = sample.rows(60)
    outputs = [InferRequestedOutput(each.name, binary) for each in sample.session.get_outputs()]
    result = client.infer(
        sample.name,
        sent(sample, inputs, binary),
        outputs=outputs,
        request_compression_algorithm=request_,
        response_compression_algorithm=response,
    )
    assert_answers(result, sample.expected(inputs))


def test_requests_side_by_side_get_their_own_answers(client, gateway):
    sample = newest("digits")
    asked = [sample.rows(1 + seed % 3, seed) for seed in range(40)]
    waiting = [client.async_infer(sample.name, sent(sample, inputs), request_id=str(i)) for i, inputs in enumerate(asked)]
    for i, (inputs, answer) in enumerate(zip(asked, waiting, strict=True)):
        result = answer.get_result()
        assert result.get_response()["id"] == str(i)
        assert_answers(result, sample.expected(inputs))


@pytest.mark.parametrize("binary", [True, False])
def test_zero_rows_are_answered_with_zero_rows(client, sample, binary):
    inputs = sample.rows(0)
    outputs = [InferRequestedOutput(each.name, binary) for each in sample.session.get_outputs()]
    result = client.infer(sample.name, sent(sample, inputs, binary), str(sample.version), outputs)
    one = sample.expected(sample.rows(1))
    for output in result.get_response()["outputs"]:
        assert output["shape"] == [0, *one[output["name"]].shape[1:]]
        assert result.as_numpy(output["name"]).size == 0


def test_a_request_keeps_its_id_and_may_say_priority_and_timeout(client, gateway):
    sample = newest("fraud")
    inputs = sample.rows(1)
    result = client.infer(
        sample.name,
        sent(sample, inputs),
        request_id="größe-1",
        priority=1,
        timeout=30_000_000,
        parameters={"tenant": "a", "dry_run": False, "weight": 0.5},
    )
    assert result.get_response()["id"] == "größe-1"
    assert_answers(result, sample.expected(inputs))


def test_what_is_not_served_is_said_so(client, gateway):
    sample = newest("fraud")
    inputs = sent(sample, sample.rows(1))
    with pytest.raises(InferenceServerException, match="sequence_id") as refused:
        client.infer(sample.name, inputs, sequence_id=3)
    assert refused.value.status() == "501"
    with pytest.raises(InferenceServerException, match="triton_"):
        client.infer(sample.name, inputs, parameters={"triton_enable_empty_final_response": True})


@pytest.mark.parametrize(
    ("model", "version", "name", "element", "shape", "status", "message"),
    [
        ("nobody", "", "X", "FP32", [1, 8], "404", "nobody"),
        ("fraud", "77", "X", "FP32", [1, 8], "404", "77"),
        ("fraud", "", "X", "FP64", [1, 8], "400", "`X` is FP64, expected FP32"),
        ("fraud", "", "X", "FP32", [1, 7], "400", r"`X` has shape \[1, 7\], expected \[.+, 8\]"),
        ("fraud", "", "X", "FP32", [8], "400", r"`X` has shape \[8\]"),
        ("fraud", "", "Y", "FP32", [1, 8], "400", "no input `Y`.*input `X` is missing"),
    ],
)
def test_errors_come_with_their_status_and_our_words(client, engine, model, version, name, element, shape, status, message):
    zeros = np.zeros(shape, zoo.ELEMENTS[element][1])
    with pytest.raises(InferenceServerException, match=message) as refused:
        client.infer(model, [tensor(name, element, zeros)], version)
    assert refused.value.status() == status


def test_an_unknown_output_is_refused(client, engine):
    sample = newest("fraud")
    with pytest.raises(InferenceServerException, match="no output `nothing`; it has `label`, `probabilities`"):
        client.infer("fraud", sent(sample, sample.rows(1)), outputs=[InferRequestedOutput("nothing")])


def test_every_element_type_comes_back_bit_for_bit(made_client, datatype):
    values = zoo.values(datatype)
    for inputs in (values, values[:0], values[:1]):
        result = made_client.infer(zoo.identity(datatype), [tensor("x", datatype, inputs)])
        output = result.as_numpy("y")
        assert result.get_output("y")["datatype"] == datatype
        assert result.get_output("y")["shape"] == list(inputs.shape)
        if datatype == "BYTES":
            assert text(output).tolist() == inputs.tolist()
        else:
            assert output.astype(inputs.dtype).tobytes() == inputs.tobytes()


def test_every_element_type_that_json_has_comes_back_whole(made_client, datatype):
    values = zoo.values(datatype)
    outputs = [InferRequestedOutput("y", binary_data=False)]
    if datatype in zoo.BINARY_ALONE:
        with pytest.raises(InferenceServerException, match=f"{datatype} has no JSON form"):
            made_client.infer(zoo.identity(datatype), [tensor("x", datatype, values)], outputs=outputs)
        return
    result = made_client.infer(zoo.identity(datatype), [tensor("x", datatype, values, binary=False)], outputs=outputs)
    output = result.as_numpy("y")
    assert "data" in result.get_output("y")
    assert text(output).tolist() == values.tolist()


@pytest.mark.parametrize("floats", ["FP16", "FP32", "FP64"])
def test_numbers_that_are_not_finite_travel_as_raw_bytes(made_client, engine, floats):
    values = np.array([[np.nan, np.inf], [-np.inf, -0.0]]).astype(zoo.ELEMENTS[floats][1])
    output = made_client.infer(zoo.identity(floats), [tensor("x", floats, values)]).as_numpy("y")
    assert output.tobytes() == values.tobytes()




def test_all_sample_models_are_covered():
    assert NAMES == ["breast-cancer", "diabetes", "digits", "fraud", "penguins"]
    assert [sample.version for sample in SAMPLES if sample.name == "fraud"] == [1, 2, 3]
