"""Traces of requests: what is noted, what is sent, what it is linked with, and that a collector can be away."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError
from tritonclient.grpc import service_pb2, service_pb2_grpc

from harness.asgi_calls import application_of, ask, predict
from harness.bundles import instance
from harness.collector import Collector, attributes, running_collector
from harness.fakes import FakeModelBackend
from harness.gateways import ENDPOINT, GatewayOverFakes
from harness.polling import until
from skewless.adapters.otlp_exporter import OtlpExporter
from skewless.errors import Unavailable
from skewless.limits import TRACES_PER_S_MAX, TRACES_WAITING_MAX
from skewless.serving.request_trace import OUTGOING, RequestTrace
from skewless.serving.shared_calls import SharedCalls
from skewless_gateway.gateway import Gateway
from skewless_gateway.grpc_server import serving_grpc
from skewless_gateway.telemetry_settings import TelemetrySettings
from skewless_gateway.traced_parts import TracedBackend, TracedStore
from skewless_gateway.tracing import TraceExporter, Tracing
from skewless_http.http_message import Application

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
SAMPLED = (b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())
UNSAMPLED = (b"traceparent", f"00-{TRACE}-{SPAN}-00".encode())
JSON = (b"content-type", b"application/json")
PREDICT = f"/v1/endpoints/{ENDPOINT}/predict"
SECRET = "Bearer sk_1234567890_this-is-a-secret"


class KeptTraces:
    """An exporter that a test can look into, hold up and break."""

    def __init__(self) -> None:
        self.traces: list[RequestTrace] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.failure: Exception | None = None
        self.arrives = True

    def send(self, traces: Sequence[RequestTrace]) -> bool:
        self.go_on.wait(30)
        if self.failure is not None:
            raise self.failure
        self.traces += traces
        return self.arrives

    def close(self) -> None:
        self.go_on.set()


class HeadersSeen(FakeModelBackend):
    """Remembers what its caller would have sent along."""

    headers: list[tuple[tuple[bytes, bytes], ...]]

    async def infer(self, *args: Any, **options: Any) -> Any:
        self.headers.append(OUTGOING.get())
        await asyncio.sleep(0)
        return await super().infer(*args, **options)


@contextmanager
def tracing_to(
    exporter: TraceExporter,
    *,
    ratio: float = 0.0,
    clock: Callable[[], int] = time.monotonic_ns,
    random: Callable[[], float] = lambda: 0.5,
) -> Iterator[Tracing]:
    tracing = Tracing(exporter, ratio=ratio, clock=clock, registry=CollectorRegistry(), random=random)
    try:
        yield tracing
    finally:
        tracing.close()


@dataclass
class TracedFakes(GatewayOverFakes):
    """A gateway over fakes that traces, and shares calls as the real one does."""

    tracing: Tracing | None = None
    traced_headers: list[tuple[tuple[bytes, bytes], ...]] = field(default_factory=list)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Gateway]:
        async with super().opened() as gateway:
            yield replace(gateway, tracing=self.tracing)


@asynccontextmanager
async def traced_gateway(
    folder: Path, collector: Collector, *, ratio: float = 0.0
) -> AsyncIterator[tuple[Application, TracedFakes]]:
    fakes = TracedFakes.build(folder)
    assert isinstance(fakes, TracedFakes)
    exporter = OtlpExporter(collector.url, service="skewless-gateway", instance="test", version="0")
    fakes.tracing = Tracing(exporter, ratio=ratio, clock=time.monotonic_ns, registry=fakes.metrics.registry)
    seen = HeadersSeen(fakes.backend.repository)
    seen.headers = fakes.traced_headers
    shared = SharedCalls(
        TracedBackend(seen, clock=time.monotonic_ns), rows_max=lambda _: 1_024, calls_max=1, rows_waiting_max=10_000
    )
    fakes.backend = shared  # type: ignore[assignment]  # the same port
    fakes.store = TracedStore(fakes.store, clock=time.monotonic_ns)  # type: ignore[assignment]  # the same port
    try:
        async with application_of(fakes) as application:
            yield application, fakes
    finally:
        fakes.tracing.close()


async def arrived(collector: Collector, count: int) -> None:
    """Wait until so many requests are told."""
    await until(lambda: len([span for span in collector.spans if span.kind == 2]) >= count)


async def test_a_request_is_told_as_a_span_of_its_callers_trace_with_its_stages(tmp_path: Path) -> None:
    with running_collector() as collector:
        async with traced_gateway(tmp_path, collector) as (application, _):
            body = b'{"instances": [%b]}' % _instance()
            headers = (JSON, SAMPLED, (b"tracestate", b"vendor=1"), (b"x-request-id", b"mine"))
            answer = await ask(application, "POST", PREDICT, body, headers=headers)
            assert answer is not None
            assert answer.status == 200
            await arrived(collector, 1)

    (server,) = collector.named("POST /v1/endpoints/{endpoint}/predict")
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, SPAN)
    assert server.trace_state == "vendor=1"
    assert server.status.code == 0
    told = attributes(server)
    assert told["skewless.request_id"] == "mine"
    assert (told["skewless.endpoint"], told["skewless.edge"]) == (ENDPOINT, "rest")
    assert (told["skewless.rows"], told["skewless.rung"], told["http.response.status_code"]) == (1, "normal", 200)
    assert len(told["skewless.bundles"]) == 1  # type: ignore[arg-type]  # a list
    assert told["skewless.statuses.ok"]
    stages = [span for span in collector.spans if span.parent_span_id == server.span_id]
    assert [span.name for span in stages] == ["validate", "admission", "features", "transform", "model", "log"]
    for before, after in pairwise(stages):
        assert before.end_time_unix_nano == after.start_time_unix_nano, "a stage begins where the one before ended"
    assert server.start_time_unix_nano == stages[0].start_time_unix_nano
    assert server.end_time_unix_nano >= stages[-1].end_time_unix_nano
    (call,) = collector.named("model call")
    assert call.parent_span_id == stages[4].span_id, "the call is part of the stage that waited for it"
    (pipeline,) = collector.named("online store")
    assert pipeline.parent_span_id == stages[2].span_id
    assert collector.services == {"skewless-gateway"}


async def test_a_model_server_is_told_to_join_the_trace(tmp_path: Path) -> None:
    with running_collector() as collector:
        async with traced_gateway(tmp_path, collector) as (application, fakes):
            body = b'{"instances": [%b]}' % _instance()
            await ask(application, "POST", PREDICT, body, headers=(JSON, SAMPLED, (b"tracestate", b"vendor=1")))
            await ask(application, "POST", PREDICT, body, headers=(JSON, UNSAMPLED))
            seen = fakes.traced_headers[-2:]
            await arrived(collector, 1)

    (call,) = collector.named("model call")
    parent = f"00-{TRACE}-{call.span_id.hex()}-01".encode()
    assert seen == [((b"traceparent", parent), (b"tracestate", b"vendor=1")), ()]


async def test_requests_that_share_a_call_are_linked_through_it(tmp_path: Path) -> None:
    with running_collector() as collector:
        async with traced_gateway(tmp_path, collector, ratio=1.0) as (application, _):
            await asyncio.gather(*(predict(application, instance()) for _ in range(8)))
            await arrived(collector, 8)

    calls = collector.named("model call")
    assert len(calls) < 8, "requests that waited together share a call"
    servers = {span.span_id for span in collector.spans if span.kind == 2}
    shared = [call for call in calls if call.links]
    assert shared, "and the call names the others"
    assert {link.span_id for call in shared for link in call.links} <= servers
    assert len(calls) + sum(len(call.links) for call in calls) == 8, "each request is the parent of a call, or linked"
    told = {call.span_id for call in shared}
    stages = [span for span in collector.named("model") if span.links]
    assert sum(len(call.links) for call in shared) == len(stages)
    assert {link.span_id for stage in stages for link in stage.links} <= told


async def test_nothing_that_was_sent_or_served_is_in_a_span(tmp_path: Path) -> None:
    with running_collector() as collector:
        async with traced_gateway(tmp_path, collector, ratio=1.0) as (application, _):
            given = _instance()
            headers = (JSON, (b"cookie", b"session=hidden"))
            known = (b"authorization", SECRET.encode())
            await ask(application, "POST", PREDICT, b'{"instances": [%b]}' % given, headers=(*headers, known, SAMPLED))
            await ask(application, "POST", PREDICT, b'{"instances": [%b]}' % given, headers=headers)
            await ask(application, "POST", PREDICT, b'{"instances": [{"tailnum": "N-HIDDEN"}]}', headers=headers)
            await ask(application, "POST", "/v1/endpoints/HIDDEN-NAME/predict", given, headers=headers)
            await arrived(collector, 3)

    told = b"".join(request.SerializeToString() for request in collector.requests)
    for hidden in (b"sk_1234567890", b"secret", b"session=hidden", b"HIDDEN", *_values(given)):
        assert hidden not in told, hidden
    refused = [attributes(span) for span in collector.spans if attributes(span).get("error.type")]
    assert {each["error.type"] for each in refused} == {"missing_field", "not_found"}
    assert {each["skewless.endpoint"] for each in refused} == {ENDPOINT, ""}, "an unknown name is nobody's label"


async def test_what_fails_on_our_side_is_an_error_and_what_the_caller_did_is_not(tmp_path: Path) -> None:
    with running_collector() as collector:
        async with traced_gateway(tmp_path, collector, ratio=1.0) as (application, fakes):
            backend = fakes.backend._backend._backend  # type: ignore[attr-defined]  # the fake behind
            await ask(application, "POST", PREDICT, b"{", headers=(JSON,))
            backend.failure = Unavailable("model backend", "it is away")
            await predict(application, instance())
            await arrived(collector, 2)

    by_status = {attributes(span)["http.response.status_code"]: span for span in collector.spans if span.kind == 2}
    assert by_status[400].status.code == 0
    assert by_status[503].status.code == 2
    (call,) = collector.named("model call")
    assert call.status.code == 2
    assert attributes(call)["error.type"] == "unavailable"


async def test_calls_and_streams_over_grpc_are_told_each_in_its_own_trace(tmp_path: Path) -> None:
    fakes = TracedFakes.build(tmp_path)
    assert isinstance(fakes, TracedFakes)
    kept = KeptTraces()
    metadata = ((SAMPLED[0].decode(), SAMPLED[1].decode()),)
    with tracing_to(kept) as fakes.tracing:
        async with (
            fakes.opened() as gateway,
            serving_grpc(gateway, gateway.metrics.grpc, address="127.0.0.1:0", drain_s=1.0) as port,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            await until(lambda: ENDPOINT in gateway.follower.state.endpoints)
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            await stub.ModelMetadata(service_pb2.ModelMetadataRequest(name=ENDPOINT), metadata=metadata)
            request = service_pb2.ModelInferRequest(model_name=ENDPOINT)
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.ModelInfer(request, metadata=metadata)
            stream = stub.ModelStreamInfer(iter([request, request]), metadata=metadata)
            assert len([each async for each in stream]) == 2
            await until(lambda: len(kept.traces) == 4)

    assert {(trace.trace_id, trace.parent_id) for trace in kept.traces} == {(int(TRACE, 16), int(SPAN, 16))}
    assert len({trace.span_id for trace in kept.traces}) == 4
    names = [trace.name.partition("/")[2] for trace in kept.traces]
    assert names == ["ModelMetadata", "ModelInfer", "ModelStreamInfer", "ModelStreamInfer"]
    assert [trace.attributes["rpc.grpc.status_code"] for trace in kept.traces] == [0, 3, 3, 3]
    assert not any(trace.is_fault for trace in kept.traces), "a wrong request is the caller's"
    assert [bool(trace.error) for trace in kept.traces] == [False, True, True, True]


def test_the_callers_decision_is_followed_and_the_ratio_decides_where_there_is_none() -> None:
    shares = iter([0.0, 0.099, 0.1, 0.9])
    with tracing_to(KeptTraces(), ratio=0.1, random=lambda: next(shares)) as tracing:
        assert tracing.begin(SAMPLED[1], None, 1) is not None
        assert tracing.begin(UNSAMPLED[1], None, 1) is None
        decided = [tracing.begin(header, None, 1) is not None for header in (None, b"nonsense", None, None)]
    assert decided == [True, True, False, False]


def test_no_caller_can_have_more_requests_traced_than_a_worker_can_bear() -> None:
    with tracing_to(KeptTraces(), clock=lambda: 5) as tracing:
        begun = [tracing.begin(SAMPLED[1], None, 5) for _ in range(TRACES_PER_S_MAX + 10)]
    assert sum(trace is not None for trace in begun) == TRACES_PER_S_MAX
    assert tracing.limited == 10


def test_a_collector_that_hangs_costs_dropped_traces_and_no_memory() -> None:
    exporter = KeptTraces()
    exporter.go_on.clear()
    with tracing_to(exporter, ratio=1.0) as tracing:
        for _ in range(TRACES_WAITING_MAX * 2):
            tracing.end(RequestTrace(1, 0, b"", 0, 0), "a", {}, is_fault=False)
        assert TRACES_WAITING_MAX // 2 < tracing.dropped <= TRACES_WAITING_MAX
        exporter.go_on.set()
    assert tracing.sent + tracing.dropped == TRACES_WAITING_MAX * 2


@pytest.mark.parametrize("failure", [None, RuntimeError("a bug")])
async def test_what_does_not_arrive_is_counted_and_the_next_is_sent(failure: Exception | None) -> None:
    exporter = KeptTraces()
    exporter.failure, exporter.arrives = failure, False
    with tracing_to(exporter, ratio=1.0) as tracing:
        tracing.end(RequestTrace(1, 0, b"", 0, 0), "a", {}, is_fault=False)
        await until(lambda: tracing.lost == 1)
        exporter.failure, exporter.arrives = None, True
        tracing.end(RequestTrace(2, 0, b"", 0, 0), "b", {}, is_fault=False)
        await until(lambda: tracing.sent == 1)


async def test_a_collector_that_refuses_or_is_away_costs_no_answer(tmp_path: Path) -> None:
    with running_collector() as collector:
        collector.status = 400
        async with traced_gateway(tmp_path, collector, ratio=1.0) as (application, fakes):
            tracing = fakes.tracing
            assert tracing is not None
            assert (await predict(application, instance())).status == 200
            await until(lambda: tracing.lost == 1)


def _instance() -> bytes:
    return json.dumps(instance(tailnum="N14228-secret")).encode()


def _values(given: bytes) -> list[bytes]:
    return [each.encode() for each in json.loads(given).values() if isinstance(each, str) and len(each) > 4]


def test_a_gateway_without_a_collector_loads_nothing_of_opentelemetry() -> None:
    program = "import sys, skewless_gateway.composition; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not [name for name in told.stdout.split() if name.partition(".")[0] == "opentelemetry"]


def test_a_parent_of_workers_loads_neither_metrics_nor_traces() -> None:
    program = "import sys, skewless_gateway.main; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"prometheus_client", "skewless_gateway.tracing"}.intersection(told.stdout.split())


@pytest.mark.parametrize("address", ["collector:4318", "ftp://collector", "http://", "http://name:word@collector"])
def test_what_is_no_address_of_a_collector_is_refused_by_name(address: str) -> None:
    with pytest.raises(ValidationError, match="SKEWLESS_GATEWAY_TRACE_ENDPOINT"):
        TelemetrySettings.model_validate({"trace_endpoint": address})
