"""Triton's own gRPC client: calls, streams, compression, deadlines, leaving, on both addresses."""

import asyncio
import queue

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

import zoo
from samples import Sample, Tensors, newest

COMPRESSION = [None, "gzip", "deflate"]


@pytest.fixture(params=["grpc", "http"])
def address(gateway, request) -> str:
    """Its own address, and that of HTTP, which answers gRPC too."""
    return gateway.grpc_address if request.param == "grpc" else gateway.address


@pytest.fixture
def client(address):
    with InferenceServerClient(address) as client:
        yield client


@pytest.fixture
def made_client(made):
    with InferenceServerClient(made.grpc_address) as client:
        yield client


def tensor(name: str, datatype: str, values: np.ndarray) -> InferInput:
    sent = InferInput(name, list(values.shape), datatype)
    sent.set_data_from_numpy(values)
    return sent


def sent(sample: Sample, inputs: Tensors) -> list[InferInput]:
    return [tensor(name, sample.datatype(name), values) for name, values in inputs.items()]


def text(values: np.ndarray) -> list:
    return [value.decode() if isinstance(value, bytes) else value for value in values.reshape(-1)]


def assert_answers(result: triton.InferResult, expected: Tensors) -> None:
    assert [output.name for output in result.get_response().outputs] == list(expected)
    for name, values in expected.items():
        given = result.as_numpy(name)
        assert given.shape == values.shape
        if values.dtype == object:
            assert text(given) == text(values)
        else:
            assert given.dtype == values.dtype
            np.testing.assert_allclose(given, values, rtol=1e-5, atol=1e-5)


def test_the_server_is_live_ready_and_describes_itself(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata.name == "sluicegate"
    assert "binary_tensor_data" in metadata.extensions


def test_readiness_is_a_bool_also_for_what_is_not_there(client, sample):
    assert client.is_model_ready(sample.name)
    assert client.is_model_ready(sample.name, str(sample.version))
    assert not client.is_model_ready(sample.name, "77")
    assert not client.is_model_ready("nobody")


def test_metadata_is_what_http_says(client, gateway, sample):
    grpc_says = client.get_model_metadata(sample.name, str(sample.version))
    http_says = gateway.get(f"/v2/models/{sample.name}/versions/{sample.version}").json()
    assert [grpc_says.name, list(grpc_says.versions), grpc_says.platform] == [
        http_says["name"],
        http_says["versions"],
        http_says["platform"],
    ]
    for side in ("inputs", "outputs"):
        given = [(each.name, each.datatype, list(each.shape)) for each in getattr(grpc_says, side)]
        assert given == [(each["name"], each["datatype"], each["shape"]) for each in http_says[side]]


@pytest.mark.parametrize("rows", [1, 300])
def test_every_version_answers(client, sample, rows):
    inputs = sample.rows(rows)
    result = client.infer(sample.name, sent(sample, inputs), model_version=str(sample.version), request_id="größe-1")
    assert result.get_response().model_version == str(sample.version)
    assert result.get_response().id == "größe-1"
    assert_answers(result, sample.expected(inputs))


def test_only_requested_outputs_come_back_in_the_order_asked(client, sample):
    inputs = sample.rows(4)
    expected = sample.expected(inputs)
    for names in [list(expected)[:1], list(expected)[::-1]]:
        outputs = [InferRequestedOutput(name) for name in names]
        result = client.infer(sample.name, sent(sample, inputs), str(sample.version), outputs)
        assert_answers(result, {name: expected[name] for name in names})


@pytest.mark.parametrize("algorithm", COMPRESSION)
def test_compression_both_ways(client, engine, algorithm):
    sample = newest("digits")
    inputs = sample.rows(60)
    result = client.infer(sample.name, sent(sample, inputs), compression_algorithm=algorithm)
    assert_answers(result, sample.expected(inputs))


def test_the_default_messages_of_triton_clients_are_not_too_large(made_client):
    """4 MiB is tonic's own bound; Triton's clients have none."""
    values = np.zeros((1 << 21, 2), np.float32)
    result = made_client.infer(zoo.identity("FP32"), [tensor("x", "FP32", values)])
    assert result.as_numpy("y").shape == values.shape


def test_every_element_type_comes_back_bit_for_bit(made_client, datatype):
    values = zoo.values(datatype)
    for inputs in (values, values[:1]):
        output = made_client.infer(zoo.identity(datatype), [tensor("x", datatype, inputs)]).as_numpy("y")
        if datatype == "BYTES":
            assert text(output) == text(inputs)
        else:
            assert output.astype(inputs.dtype).tobytes() == inputs.tobytes()


@pytest.mark.parametrize(
    ("model", "version", "name", "element", "shape", "status", "message"),
    [
        ("nobody", "", "X", "FP32", [1, 8], "NOT_FOUND", "nobody"),
        ("fraud", "77", "X", "FP32", [1, 8], "NOT_FOUND", "77"),
        ("fraud", "", "X", "FP64", [1, 8], "INVALID_ARGUMENT", "`X` is FP64, expected FP32"),
        ("fraud", "", "X", "FP32", [1, 7], "INVALID_ARGUMENT", r"`X` has shape \[1, 7\]"),
        ("fraud", "", "Y", "FP32", [1, 8], "INVALID_ARGUMENT", "no input `Y`.*input `X` is missing"),
    ],
)
def test_errors_come_with_their_status_and_our_words(client, engine, model, version, name, element, shape, status, message):
    zeros = np.zeros(shape, zoo.ELEMENTS[element][1])
    with pytest.raises(InferenceServerException, match=message) as refused:
        client.infer(model, [tensor(name, element, zeros)], version)
    assert refused.value.status() == f"StatusCode.{status}"


def test_what_is_not_served_is_said_so(client, gateway):
    sample = newest("fraud")
    inputs = sent(sample, sample.rows(1))
    with pytest.raises(InferenceServerException, match="sequence_id") as refused:
        client.infer(sample.name, inputs, sequence_id=3, sequence_start=True)
    assert refused.value.status() == "StatusCode.UNIMPLEMENTED"
    with pytest.raises(InferenceServerException, match="shared memory") as refused:
        client.register_system_shared_memory("region", "/region", 64)
    assert refused.value.status() == "StatusCode.UNIMPLEMENTED"


def test_priority_timeout_and_headers_are_taken(client, gateway):
    sample = newest("fraud")
    inputs = sample.rows(1)
    result = client.infer(
        sample.name,
        sent(sample, inputs),
        priority=1,
        timeout=30_000_000,
        client_timeout=60,
        headers={"x-request-id": "abc"},
        parameters={"tenant": "a", "dry_run": False},
    )
    assert_answers(result, sample.expected(inputs))


def test_a_callers_time_is_held(client, engine):
    sample = newest("digits")
    inputs = sample.rows(50_000)
    with pytest.raises(InferenceServerException) as refused:
        client.infer(sample.name, sent(sample, inputs), client_timeout=0.001)
    assert refused.value.status() == "StatusCode.DEADLINE_EXCEEDED"


def test_calls_side_by_side_get_their_own_answers(client, gateway):
    sample = newest("digits")
    asked = [sample.rows(1 + seed % 3, seed) for seed in range(40)]
    answers: queue.Queue = queue.Queue()
    for i, inputs in enumerate(asked):
        client.async_infer(
            sample.name,
            sent(sample, inputs),
            lambda result, error, i=i: answers.put((i, result, error)),
            request_id=str(i),
        )
    for _ in asked:
        i, result, error = answers.get(timeout=120)
        assert error is None
        assert result.get_response().id == str(i)
        assert_answers(result, sample.expected(asked[i]))


def test_a_call_can_be_cancelled(client, engine):
    sample = newest("digits")
    answers: queue.Queue = queue.Queue()
    context = client.async_infer(
        sample.name, sent(sample, sample.rows(50_000)), lambda result, error: answers.put((result, error))
    )
    context.cancel()
    result, error = answers.get(timeout=120)
    assert result is None
    assert "CANCELLED" in str(error.status()) or "Locally cancelled" in str(error)


def test_a_stream_answers_in_order_and_tells_errors_in_band(client, engine):
    sample = newest("digits")
    asked = [sample.rows(1 + seed % 3, seed) for seed in range(20)]
    answers: queue.Queue = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for i, inputs in enumerate(asked):
        client.async_stream_infer(sample.name, sent(sample, inputs), request_id=str(i), enable_empty_final_response=i % 2 == 0)
    client.async_stream_infer("nobody", sent(sample, asked[0]), request_id="bad")
    client.async_stream_infer(sample.name, sent(sample, asked[0]), request_id="after")
    for i, inputs in enumerate(asked):
        result, error = answers.get(timeout=120)
        assert error is None
        assert result.get_response().id == str(i)
        assert result.get_response().parameters["triton_final_response"].bool_param
        assert_answers(result, sample.expected(inputs))
    _, error = answers.get(timeout=120)
    assert "nobody" in str(error)
    result, error = answers.get(timeout=120)
    assert error is None and result.get_response().id == "after"
    client.stop_stream()


def test_a_stream_that_wants_a_status_ends_with_it(client, engine):
    sample = newest("digits")
    answers: queue.Queue = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers={"triton_grpc_error": "true"})
    client.async_stream_infer("nobody", sent(sample, sample.rows(1)), request_id="bad")
    _, error = answers.get(timeout=120)
    assert error.status() == "StatusCode.NOT_FOUND"
    client.stop_stream(cancel_requests=True)


def test_the_asyncio_client_calls_and_streams(address, engine):
    sample = newest("fraud")
    asked = [sample.rows(1, seed) for seed in range(10)]

    async def run() -> None:
        async with triton_aio.InferenceServerClient(address) as client:
            assert await client.is_server_ready()
            calls = [client.infer(sample.name, sent_aio(sample, inputs)) for inputs in asked]
            for inputs, result in zip(asked, await asyncio.gather(*calls), strict=True):
                assert_answers(result, sample.expected(inputs))

            async def requests():
                for i, inputs in enumerate(asked):
                    yield {"model_name": sample.name, "inputs": sent_aio(sample, inputs), "request_id": str(i)}

            place = 0
            async for result, error in client.stream_infer(requests()):
                assert error is None
                assert_answers(result, sample.expected(asked[place]))
                place += 1
            assert place == len(asked)

    asyncio.run(run())


def sent_aio(sample: Sample, inputs: Tensors) -> list[InferInput]:
    return sent(sample, inputs)


def test_numeric_contents_are_answered_raw_unless_typed_ones_are_asked_for(address, engine):
    """As a tool would that writes messages by hand: typed contents in, typed contents out."""
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    sample = newest("fraud")
    inputs = sample.rows(2)
    request = service_pb2.ModelInferRequest(model_name="fraud")
    request.inputs.add(name="X", datatype="FP32", shape=[2, 8]).contents.fp32_contents.extend(inputs["X"].reshape(-1).tolist())
    expected = sample.expected(inputs)
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        raw = stub.ModelInfer(request)
        assert len(raw.raw_output_contents) == len(raw.outputs) == 2
        request.parameters["typed_output"].bool_param = True
        typed = stub.ModelInfer(request)
        assert not typed.raw_output_contents
        by_name = {output.name: output for output in typed.outputs}
        assert list(by_name["label"].contents.int64_contents) == expected["label"].tolist()
        np.testing.assert_allclose(
            by_name["probabilities"].contents.fp32_contents, expected["probabilities"].reshape(-1), rtol=1e-5, atol=1e-5
        )


def test_the_messages_are_those_that_the_client_carries():
    """Names, numbers and types of the fields, against the descriptors in Triton's own package."""
    from pathlib import Path

    from google.protobuf import descriptor_pb2
    from grpc_tools import protoc
    from tritonclient.grpc import model_config_pb2, service_pb2

    from gateway import ROOT

    folder = ROOT / "crates/proto/proto"
    out = Path(protoc.__file__).parent  # has google's own files beside it
    target = ROOT / "target" / "clients-descriptors.bin"
    target.parent.mkdir(exist_ok=True)
    files = ["inference.proto", "model_config.proto"]
    assert protoc.main(["protoc", f"-I{folder}", f"-I{out}/_proto", f"--descriptor_set_out={target}", *files]) == 0
    ours = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())
    theirs = descriptor_pb2.FileDescriptorSet()
    for module in (service_pb2, model_config_pb2):
        module.DESCRIPTOR.CopyToProto(theirs.file.add())
    given, wanted = fields(ours), fields(theirs)
    # What only the Open Inference Protocol has, and what Triton alone has and nothing here reads.
    extra = {key for key in given if key not in wanted}
    assert {message.split(".")[0] for message, _ in extra} <= {"ModelMetadataResponse"}, extra
    for key in given.keys() & wanted.keys():
        assert given[key] == wanted[key], key


def fields(files) -> dict[tuple[str, str], tuple[int, int]]:
    found: dict[tuple[str, str], tuple[int, int]] = {}

    def walk(message, path: str) -> None:
        for field in message.field:
            found[path, field.name] = (field.number, field.type)
        for nested in message.nested_type:
            walk(nested, f"{path}.{nested.name}")

    for file in files.file:
        for message in file.message_type:
            walk(message, message.name)
    return found


