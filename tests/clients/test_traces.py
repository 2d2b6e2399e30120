"""Traces as a receiver gets them, over HTTP and gRPC, read by the official messages of OTLP; and the log that has their ids."""

import json
import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from prometheus_client import parser as prometheus
from prometheus_client.openmetrics import parser as openmetrics
from tritonclient.grpc import InferInput, service_pb2, service_pb2_grpc

import zoo
from gateway import Gateway, binary, environment, free_addresses, running

MODEL = zoo.identity("FP32")
PREDICT = f"/models/{MODEL}/predict"
RECORD = {"x": [1.0, 2.0]}

# Two requests of one row are a batch, and one waits for another for long.
PAIRS = """
    max_batch_size: 8 input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ] output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
    dynamic_batching { preferred_batch_size: [ 2 ] max_queue_delay_microseconds: 20000000 } instance_group [ { count: 1 } ]
"""
# Two steps that are such a pair.
SIDES = """
    platform: "ensemble" max_batch_size: 8
    input [ { name: "a" data_type: TYPE_FP32 dims: [ 2 ] }, { name: "b" data_type: TYPE_FP32 dims: [ 2 ] } ]
    output [ { name: "c" data_type: TYPE_FP32 dims: [ 2 ] }, { name: "d" data_type: TYPE_FP32 dims: [ 2 ] } ]
    ensemble_scheduling { step [
      { model_name: "pairs" input_map { key: "x" value: "a" } output_map { key: "y" value: "c" } },
      { model_name: "pairs" input_map { key: "x" value: "b" } output_map { key: "y" value: "d" } }
    ] }
"""

# A bound on waiting, not a promise of speed.
SECONDS = 60

DEBUG = {"format": "json", "level": "debug"}


class Receiver:
    """What was received, and what is answered: statuses of HTTP that come first, and how many spans are refused."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.statuses: list[int] = []
        self.refuses = 0

    def take(self, request: ExportTraceServiceRequest, headers: dict[str, str]) -> ExportTraceServiceResponse:
        self.headers.append(headers)
        self.requests.append(request)
        answer = ExportTraceServiceResponse()
        if self.refuses:
            answer.partial_success.rejected_spans = self.refuses
            answer.partial_success.error_message = "no room"
        return answer

    def spans(self) -> list[Span]:
        requests = list(self.requests)
        return [span for one in requests for part in one.resource_spans for scope in part.scope_spans for span in scope.spans]

    def resource(self) -> dict[str, str]:
        return attributes(self.requests[0].resource_spans[0].resource)

    def wait(self, found: Callable[[list[Span]], object]) -> object:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            if result := found(self.spans()):
                return result
            time.sleep(0.02)
        pytest.fail(f"what was waited for is not in {[(span.name, span.attributes) for span in self.spans()]}")

    def server(self, trace: bytes) -> Span:
        """The server's span of a trace."""
        return self.wait(lambda spans: next((one for one in spans if one.trace_id == trace and one.kind == Span.SPAN_KIND_SERVER), None))

    def parts(self, whole: Span) -> dict[str, Span]:
        """The spans that are parts of this one. They came with it."""
        return {span.name: span for span in self.spans() if span.parent_span_id == whole.span_id and span.trace_id == whole.trace_id}

    def batch(self, member: Span) -> Span:
        """The batch that a span was in."""
        return self.wait(lambda spans: next((s for s in spans for link in member.links if link.span_id == s.span_id), None))


@contextmanager
def over_http() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()} | {":path": self.path}
            status = receiver.statuses.pop(0) if receiver.statuses else 200
            answer = receiver.take(ExportTraceServiceRequest.FromString(body), headers) if status == 200 else None
            self.send_response(status)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(answer.SerializeToString() if answer else b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        receiver.url = f"http://127.0.0.1:{server.server_port}"
        yield receiver
        server.shutdown()


@contextmanager
def over_grpc() -> Iterator[Receiver]:
    receiver = Receiver()

    class Service(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request, context):
            return receiver.take(request, dict(context.invocation_metadata()))

    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)
    receiver.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield receiver
    server.stop(None)


@contextmanager
def traced(tmp_path, receiver: str, variables: dict[str, str] | None = None, **sections: dict) -> Iterator[Gateway]:
    """A gateway that tells a receiver, over HTTP where nothing else is said."""
    registry = tmp_path / "models"
    zoo.write(registry)
    shutil.copytree(registry / MODEL, registry / "pairs")
    (registry / "pairs" / "config.pbtxt").write_text(PAIRS)
    (registry / "sides" / "1").mkdir(parents=True)
    (registry / "sides" / "config.pbtxt").write_text(SIDES)
    told = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver, "OTEL_BSP_SCHEDULE_DELAY": "20"} | (variables or {})
    models = [{"name": name, "registry": "made"} for name in [MODEL, "pairs", "sides"]]
    with running(tmp_path / "gateway", "tract", {"made": registry}, models, told, **sections) as gateway:
        yield gateway


@pytest.fixture(scope="module", params=["http/protobuf", "grpc"])
def told(request, tmp_path_factory) -> Iterator[tuple[Gateway, Receiver]]:
    variables = {
        "OTEL_EXPORTER_OTLP_PROTOCOL": request.param,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=s3cret%20key",
        "OTEL_SERVICE_NAME": "gate",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=other,deployment.environment.name=test",
    }
    receive = over_http if request.param == "http/protobuf" else over_grpc
    with receive() as receiver, traced(tmp_path_factory.mktemp("traces"), receiver.url, variables, log=DEBUG) as gateway:
        yield gateway, receiver


def parent(sampled: bool = True) -> tuple[bytes, bytes, str]:
    """A caller's trace and span, and what it sends."""
    trace, span = os.urandom(16), os.urandom(8)
    return trace, span, f"00-{trace.hex()}-{span.hex()}-{int(sampled):02x}"


def attributes(of: object) -> dict[str, object]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}


def outcomes(gateway: Gateway) -> dict[str, float]:
    lines = [line for line in gateway.ops("/metrics").text.splitlines() if line.startswith("sluicegate_trace_spans_total{")]
    return {line.split('"')[1]: float(line.rsplit(" ", 1)[1]) for line in lines}


def assert_within(whole: Span, *parts: Span) -> None:
    for part in parts:
        assert part.trace_id == whole.trace_id and part.parent_span_id == whole.span_id, part.name
        assert whole.start_time_unix_nano <= part.start_time_unix_nano <= part.end_time_unix_nano, part.name
        assert part.end_time_unix_nano <= whole.end_time_unix_nano, part.name


def test_a_request_over_http_is_a_part_of_its_callers_trace(told):
    gateway, receiver = told
    trace, caller, header = parent()
    answer = gateway.post(PREDICT, json=[RECORD] * 2, headers={"traceparent": header, "tracestate": "vendor=1", "x-request-id": "r-1"})
    assert answer.status_code == 200, answer.text
    server = receiver.server(trace)
    assert answer.headers["traceparent"] == f"00-{trace.hex()}-{server.span_id.hex()}-01"
    assert (server.parent_span_id, server.trace_state, server.name) == (caller, "vendor=1", "POST /models/{model}/predict")
    assert server.flags & 0x300 == 0x300, "its parent is another process's"
    assert server.status.code == Status.STATUS_CODE_UNSET
    said = attributes(server)
    assert said.pop("user_agent.original").startswith("python-requests/")
    assert said == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/models/{model}/predict",
        "network.protocol.version": "1.1",
        "sluicegate.device": "cpu",
        "sluicegate.engine": "tract",
        "sluicegate.model.name": MODEL,
        "sluicegate.model.version": "1",
        "sluicegate.request.id": "r-1",
        "url.path": PREDICT,
        "url.scheme": "http",
    }
    parts = receiver.parts(server)
    assert sorted(parts) == ["decode", "encode", "infer", "queue"]
    assert_within(server, *parts.values())
    assert all(part.kind == Span.SPAN_KIND_INTERNAL and part.flags & 0x300 == 0x100 for part in parts.values())
    assert parts["decode"].end_time_unix_nano <= parts["queue"].start_time_unix_nano
    assert parts["queue"].end_time_unix_nano == parts["infer"].start_time_unix_nano
    assert parts["infer"].end_time_unix_nano <= parts["encode"].start_time_unix_nano
    assert attributes(parts["infer"]) == {"sluicegate.batch.size": 2}

    batch = receiver.batch(parts["infer"])
    assert (batch.name, batch.parent_span_id, batch.trace_id != trace) == ("batch", b"", True)
    assert [(link.trace_id, link.span_id) for link in batch.links] == [(trace, server.span_id)]
    said = attributes(batch)
    assert (said["sluicegate.batch.size"], said["sluicegate.batch.requests"], said["sluicegate.batch.left"]) == (2, 1, "took_all")
    assert (said["sluicegate.model.name"], said["sluicegate.model.version"]) == (MODEL, "1")
    assert batch.start_time_unix_nano < batch.end_time_unix_nano

    resource = receiver.resource()
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("gate", "test")
    assert {headers["x-key"] for headers in receiver.headers} == {"s3cret key"}
    assert {headers.get(":path", "/v1/traces") for headers in receiver.headers} == {"/v1/traces"}


def assert_share_a_batch(receiver: Receiver, *members: Span) -> None:
    batch = receiver.batch(receiver.parts(members[0])["infer"])
    assert {(link.trace_id, link.span_id) for link in batch.links} == {(one.trace_id, one.span_id) for one in members}
    assert attributes(batch)["sluicegate.batch.requests"] == len(members)
    for member in members:
        [link] = receiver.parts(member)["infer"].links
        assert (link.trace_id, link.span_id) == (batch.trace_id, batch.span_id)


def test_a_batch_is_linked_to_each_of_its_members_and_they_to_it(told):
    gateway, receiver = told

    def ask(_: int) -> bytes:
        trace, _, header = parent()
        answer = gateway.post("/models/pairs/predict", json=RECORD, headers={"traceparent": header})
        assert answer.status_code == 200, answer.text
        return trace

    with futures.ThreadPoolExecutor(2) as callers:
        members = [receiver.server(trace) for trace in callers.map(ask, range(2))]
    assert members[0].trace_id != members[1].trace_id
    assert_share_a_batch(receiver, *members)


def test_each_step_of_an_ensemble_is_a_part_of_it(told):
    gateway, receiver = told
    trace, _, header = parent()
    answer = gateway.post("/models/sides/predict", json={"a": [1.0, 2.0], "b": [3.0, 4.0]}, headers={"traceparent": header})
    assert answer.status_code == 200, answer.text
    server = receiver.server(trace)
    assert attributes(server)["sluicegate.model.name"] == "sides"
    parts = [span for span in receiver.spans() if span.parent_span_id == server.span_id]
    assert sorted(part.name for part in parts) == ["decode", "encode", "step", "step"]
    assert_within(server, *parts)
    steps = [part for part in parts if part.name == "step"]
    for step in steps:
        assert attributes(step)["sluicegate.model.name"] == "pairs"
        assert sorted(receiver.parts(step)) == ["infer", "queue"]
        assert_within(step, *receiver.parts(step).values())
    assert_share_a_batch(receiver, *steps)


def infer_request() -> service_pb2.ModelInferRequest:
    values = np.array([[1.0, 2.0]], np.float32)
    tensor = InferInput("x", list(values.shape), "FP32")
    tensor.set_data_from_numpy(values)
    return service_pb2.ModelInferRequest(model_name=MODEL, inputs=[tensor._get_tensor()], raw_input_contents=[values.tobytes()])


@pytest.mark.parametrize("on_http", [False, True])
@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_call_over_grpc_is_a_part_of_its_callers_trace(told, on_http, compression):
    gateway, receiver = told
    trace, caller, header = parent()
    with grpc.insecure_channel(gateway.address if on_http else gateway.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        _, call = stub.ModelInfer.with_call(infer_request(), metadata=[("traceparent", header)], compression=compression)
    server = receiver.server(trace)
    assert dict(call.initial_metadata())["traceparent"] == f"00-{trace.hex()}-{server.span_id.hex()}-01"
    assert (server.parent_span_id, server.name) == (caller, "inference.GRPCInferenceService/ModelInfer")
    said = attributes(server)
    assert (said["rpc.system.name"], said["rpc.response.status_code"]) == ("grpc", "OK")
    assert (said["rpc.method"], said["network.protocol.version"]) == (server.name, "2")
    assert (said["sluicegate.model.name"], said["sluicegate.model.version"]) == (MODEL, "1")
    parts = receiver.parts(server)
    assert sorted(parts) == ["decode", "encode", "infer", "queue"]
    assert_within(server, *parts.values())


def test_each_message_of_a_stream_is_a_part_of_it(told):
    gateway, receiver = told
    trace, caller, header = parent()
    with grpc.insecure_channel(gateway.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answers = list(stub.ModelStreamInfer(iter([infer_request()] * 3), metadata=[("traceparent", header)]))
    assert len(answers) == 3
    server = receiver.server(trace)
    assert (server.parent_span_id, attributes(server)["rpc.response.status_code"]) == (caller, "OK")
    messages = [span for span in receiver.spans() if span.parent_span_id == server.span_id]
    assert [span.name for span in messages] == ["message"] * 3
    assert_within(server, *messages)
    for message in messages:
        assert attributes(message)["sluicegate.model.name"] == MODEL
        parts = receiver.parts(message)
        assert sorted(parts) == ["decode", "encode", "infer", "queue"]
        assert_within(message, *parts.values())


@pytest.mark.parametrize(
    ("path", "body", "name", "status"),
    [
        (PREDICT, {"x": "no number"}, "POST /models/{model}/predict", 422),
        ("/v2/models/nobody/infer", {"inputs": []}, "POST", 404),
        (f"/v2/models/{MODEL}/versions/1/infer", {"inputs": []}, "POST /v2/models/{model}/versions/{version}/infer", 400),
    ],
)
def test_what_is_the_callers_fault_is_no_failure_of_the_server(told, path, body, name, status):
    gateway, receiver = told
    trace, _, header = parent()
    answer = gateway.post(path, json=body, headers={"traceparent": header})
    assert answer.status_code == status, answer.text
    server = receiver.server(trace)
    said = attributes(server)
    assert (server.name, said["http.response.status_code"], server.status.code) == (name, status, Status.STATUS_CODE_UNSET)
    assert "error.type" not in said
    # A request for which there is no model has none that it could be a failure of.
    assert said.get("sluicegate.code") == (None if status == 404 else answer.json()["code"])


def test_what_is_the_servers_fault_is_one(tmp_path):
    with over_http() as receiver, traced(tmp_path, receiver.url, batching={"queue_timeout": "1ms", "max_delay": "1s", "execution": "threads"}) as gateway:
        def late(_: list[Span]) -> Span | None:
            trace, _, header = parent()
            answer = gateway.post(PREDICT, json=RECORD, headers={"traceparent": header})
            return receiver.server(trace) if answer.status_code == 504 else None

        server = receiver.wait(late)
        assert server.status.code == Status.STATUS_CODE_ERROR
        assert attributes(server)["error.type"] == "deadline_exceeded"
        queue = receiver.parts(server)["queue"]
        assert queue.status.code == Status.STATUS_CODE_ERROR and attributes(queue)["error.type"] == "deadline_exceeded"


def test_a_caller_that_does_not_record_is_followed(told):
    gateway, receiver = told
    quiet, _, header = parent(sampled=False)
    answer = gateway.post(PREDICT, json=RECORD, headers={"traceparent": header})
    assert answer.status_code == 200 and "traceparent" not in answer.headers
    for bad in ["00-" + "0" * 32 + "-00f067aa0ba902b7-01", "nonsense"]:
        begun = gateway.post(PREDICT, json=RECORD, headers={"traceparent": bad}).headers["traceparent"]
        server = receiver.server(bytes.fromhex(begun[3:35]))
        assert server.parent_span_id == b"" and server.flags & 0x200 == 0, "a trace of its own"
    assert all(quiet not in (span.trace_id, *(link.trace_id for link in span.links)) for span in receiver.spans())


def test_who_only_looks_is_not_traced(told):
    gateway, receiver = told
    trace, _, header = parent()
    for path in ["/v2/health/ready", "/models", "/openapi.json"]:
        assert "traceparent" not in gateway.get(path, headers={"traceparent": header}).headers
    with grpc.insecure_channel(gateway.grpc_address) as channel:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ServerReady(service_pb2.ServerReadyRequest(), metadata=[("traceparent", header)])
    after, _, header = parent()
    gateway.post(PREDICT, json=RECORD, headers={"traceparent": header})
    receiver.server(after)
    assert all(span.trace_id != trace for span in receiver.spans())


def test_a_part_of_all_traces_is_taken_by_their_numbers(tmp_path):
    ratio = 0.25
    variables = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": str(ratio)}
    random.seed(1)
    traces = [random.randbytes(16) for _ in range(200)]
    with over_http() as receiver, traced(tmp_path, receiver.url, variables) as gateway:
        answers = {}
        for trace in traces:
            header = f"00-{trace.hex()}-00f067aa0ba902b7-01"
            answers[trace] = gateway.post(PREDICT, json=RECORD, headers={"traceparent": header}).headers.get("traceparent")
        expected = {trace for trace in traces if int.from_bytes(trace[8:]) >> 1 < ratio * 2**63}
        assert 20 < len(expected) < 100
        assert {trace for trace, header in answers.items() if header} == expected
        servers = lambda spans: {span.trace_id for span in spans if span.kind == Span.SPAN_KIND_SERVER}
        receiver.wait(lambda spans: servers(spans) == expected)


def test_every_span_is_accounted_for(tmp_path):
    with over_http() as receiver, traced(tmp_path, receiver.url) as gateway:
        for _ in range(5):
            gateway.post(PREDICT, json=RECORD)
        # Five spans of each request, and its batch.
        receiver.wait(lambda spans: len(spans) == 30)
        receiver.wait(lambda _: outcomes(gateway) == {"sent": 30})

        receiver.statuses = [503, 429]
        trace, _, header = parent()
        gateway.post(PREDICT, json=RECORD, headers={"traceparent": header})
        receiver.server(trace)
        receiver.wait(lambda _: outcomes(gateway) == {"sent": 36})
        assert not receiver.statuses, "it was tried again"

        receiver.statuses = [400] * 2
        gateway.post(PREDICT, json=RECORD)
        receiver.wait(lambda _: outcomes(gateway) == {"sent": 36, "refused": 6})
        receiver.statuses, receiver.refuses = [], 1
        gateway.post(PREDICT, json=RECORD)
        receiver.wait(lambda _: sum(outcomes(gateway).values()) == 48)
        assert outcomes(gateway)["refused"] > 6, "what a receiver refuses of what it takes"


def test_what_waits_at_the_end_is_sent(tmp_path):
    with over_http() as receiver:
        with traced(tmp_path, receiver.url, {"OTEL_BSP_SCHEDULE_DELAY": "3600000"}) as gateway:
            gateway.post(PREDICT, json=RECORD)
            assert receiver.spans() == []
        assert sorted(span.name for span in receiver.spans()) == [
            "POST /models/{model}/predict", "batch", "decode", "encode", "infer", "queue"
        ]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("dead", ["closed", "silent"])
def test_a_dead_receiver_delays_no_answer_and_what_is_lost_is_counted(tmp_path, protocol, dead):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = free_addresses(1)[0] if dead == "closed" else f"127.0.0.1:{silent.getsockname()[1]}"
        variables = {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_BSP_MAX_QUEUE_SIZE": "12", "OTEL_EXPORTER_OTLP_TIMEOUT": "1500"}
        with traced(tmp_path, f"http://{address}", variables) as gateway:
            asked = 0
            deadline = time.monotonic() + SECONDS
            while not {"dropped", "given_up"} <= outcomes(gateway).keys():
                assert gateway.post(PREDICT, json=RECORD).status_code == 200
                asked += 1
                assert time.monotonic() < deadline, outcomes(gateway)
            assert sum(outcomes(gateway).values()) <= 6 * asked
            assert "sent" not in outcomes(gateway)
    log = (tmp_path / "gateway" / "log").read_text()
    assert "traces are not taken" in log, log


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
    ],
)
def test_a_wrong_variable_is_named_at_the_start(tmp_path, name, value):
    zoo.write(tmp_path)
    ended = subprocess.run([binary(), "serve", "--models", tmp_path], env=environment() | {name: value}, capture_output=True, text=True, timeout=SECONDS)
    assert ended.returncode == 2 and f"error: {name}: expected " in ended.stderr, ended.stderr


@pytest.mark.parametrize("variables", [{"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, {"OTEL_SDK_DISABLED": "true"}])
def test_where_nobody_is_told_nothing_is_traced(tmp_path, variables):
    with over_http() as receiver:
        with traced(tmp_path, receiver.url, variables) as gateway:
            _, _, header = parent()
            answer = gateway.post(PREDICT, json=RECORD, headers={"traceparent": header})
            assert answer.status_code == 200 and "traceparent" not in answer.headers
            assert outcomes(gateway) == {}
        assert receiver.spans() == []


def test_latencies_have_exemplars_for_those_who_read_openmetrics(told):
    gateway, receiver = told
    trace, _, header = parent()
    gateway.post(PREDICT, json=RECORD, headers={"traceparent": header})
    server = receiver.server(trace)
    plain = gateway.ops("/metrics")
    assert plain.headers["content-type"].startswith("text/plain") and " # {" not in plain.text
    page = gateway.ops("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2"})
    assert page.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in openmetrics.text_string_to_metric_families(page.text)}
    assert {family.name for family in prometheus.text_string_to_metric_families(plain.text)} == families.keys()
    of = {"model": MODEL, "version": "1"}
    for name, labels in [("request", of), *(("stage", of | {"stage": stage}) for stage in ["decode", "queue", "compute", "encode"])]:
        samples = [one for one in families[f"sluicegate_{name}_seconds"].samples if labels.items() <= one.labels.items() and one.exemplar]
        places = {(one.exemplar.labels["trace_id"], one.exemplar.labels["span_id"]) for one in samples}
        assert (trace.hex(), server.span_id.hex()) in places, (name, labels)
        assert all(one.exemplar.value <= float(one.labels["le"]) for one in samples)


# What the log has of the Elastic Common Schema 8.17 (https://www.elastic.co/guide/en/ecs/8.17/ecs-field-reference.html).
ECS = {
    "@timestamp": datetime.fromisoformat,
    "message": str,
    "labels": dict,
    "ecs.version": str,
    "error.code": str,
    "error.message": str,
    "event.dataset": str,
    "http.request.id": str,
    "log.level": str,
    "log.logger": str,
    "process.pid": int,
    "service.name": str,
    "service.version": str,
    "span.id": str,
    "trace.id": str,
}


def test_every_line_of_the_log_is_one_of_the_common_schema(told, tmp_path_factory):
    gateway, receiver = told
    trace, _, header = parent()
    answer = gateway.post(PREDICT, json={"x": "no number"}, headers={"traceparent": header, "x-request-id": "logged"})
    server = receiver.server(trace)
    # The newest folder with the log of this gateway: each run of these tests has its own.
    logs = sorted(tmp_path_factory.getbasetemp().glob("traces*/gateway/log"), key=lambda log: log.stat().st_mtime)
    text = logs[-1].read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert len(lines) > 10
    for line in lines:
        for name, value in line.items():
            kind = ECS[name]
            assert isinstance(value, kind) if isinstance(kind, type) else kind(value).tzinfo, (name, value)
        assert list(line)[:4] == ["@timestamp", "log.level", "message", "ecs.version"]
        assert line["service.name"] == "gate" and line["log.level"] in {"ERROR", "WARN", "INFO", "DEBUG"}
        assert all(isinstance(value, str) for value in line.get("labels", {}).values()), line
    [refused] = [line for line in lines if line.get("http.request.id") == "logged"]
    assert (refused["trace.id"], refused["span.id"]) == (trace.hex(), server.span_id.hex())
    assert refused["error.code"] == answer.json()["code"]
