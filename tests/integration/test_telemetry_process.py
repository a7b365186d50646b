"""A gateway of two workers over real servers that traces and logs: what a collector, Triton and operators are told."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from harness import http_calls
from harness.bundles import flights_at, instance
from harness.collector import Collector, attributes, running_collector
from harness.gateways import ENDPOINT
from harness.machines import AS_OF, NOW, Machine, running_machine
from harness.servers import wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
SECRET = "skw_" + "hidden" * 8


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Collector]]:
    folder = tmp_path_factory.mktemp("observed")
    with (
        running_collector() as collector,
        running_machine(
            folder, WORKERS="2", TRACE_ENDPOINT=collector.url, TRACE_RATIO="0", ACCESS_LOG_ONE_IN="1"
        ) as machine,
    ):
        machine.stop("triton")
        machine.specs["triton"] = _traced(machine.specs["triton"], collector.url)
        machine.start("triton")
        built = machine.build(0)
        machine.registry.create_endpoint(ENDPOINT, description="", bundle=built.digest, actor="test", reason="test")
        machine.fill(flights_at(NOW))
        machine.wait_until_ready()
        machine.wait_until_answered(lambda: _ask(machine, {}))
        yield machine, collector


def _traced(triton: Any, url: str) -> Any:
    """Triton with its own traces, of requests that its callers have sampled."""
    options = ("mode=opentelemetry", "rate=1", "level=TIMESTAMPS", f"opentelemetry,url={url}")
    return replace(triton, command=(*triton.command, *(f"--trace-config={each}" for each in options)))


def _ask(machine: Machine, headers: dict[str, str], **changes: object) -> httpx.Response:
    body = {"instances": [instance(**changes)], "options": {"as_of": AS_OF}}
    return http_calls.post(f"{machine.url}/v1/endpoints/{ENDPOINT}/predict", json=body, headers=headers, timeout=30)


def _lines(machine: Machine) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _log(machine).splitlines() if line.startswith("{")]


def _log(machine: Machine) -> str:
    return machine.specs["gateway"].log_file.read_text()


def test_triton_goes_on_with_the_callers_trace(observed: tuple[Machine, Collector]) -> None:
    machine, collector = observed
    assert _ask(machine, SAMPLED).status_code == 200
    ours = ("POST /v1/endpoints/{endpoint}/predict", "model call", "online store")
    wait_until(lambda: all(collector.named(name) for name in ours), "the gateway's spans arrive", timeout_s=60)
    (server,), (call,), _ = (collector.named(name) for name in ours)
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, SPAN)
    assert attributes(server)["skewless.endpoint"] == ENDPOINT

    def of_triton() -> list[Any]:
        return [span for span in collector.spans if span.parent_span_id == call.span_id]

    wait_until(lambda: bool(of_triton()), "Triton's own span arrives", timeout_s=60)
    assert of_triton()[0].trace_id.hex() == TRACE
    assert "skewless-gateway" in collector.services


def test_what_is_not_sampled_is_traced_by_nobody(observed: tuple[Machine, Collector]) -> None:
    machine, collector = observed
    before = len(collector.named("POST /v1/endpoints/{endpoint}/predict"))
    for _ in range(10):
        assert _ask(machine, {"traceparent": f"00-{TRACE}-{SPAN}-00"}).status_code == 200
    assert _ask(machine, SAMPLED | {"x-request-id": "the-last"}).status_code == 200

    def told() -> list[object]:
        spans = collector.named("POST /v1/endpoints/{endpoint}/predict")
        return [attributes(span)["skewless.request_id"] for span in spans]

    wait_until(lambda: "the-last" in told(), "the last request's span arrives", timeout_s=60)
    assert len(told()) == before + 1


def test_each_line_says_who_wrote_it_and_for_whom(observed: tuple[Machine, Collector]) -> None:
    machine, _ = observed
    assert _ask(machine, SAMPLED | {"x-request-id": "find-me"}).status_code == 200

    def found() -> list[dict[str, Any]]:
        return [line for line in _lines(machine) if line.get("request_id") == "find-me"]

    wait_until(lambda: bool(found()), "the access log has the request", timeout_s=30)
    (line,) = found()
    assert (line["endpoint"], line["status"], line["trace_id"], line["edge"]) == (ENDPOINT, 200, TRACE, "rest")
    assert line["worker"] in (0, 1)
    assert line["took_ms"] > 0
    assert all({"time", "level", "logger", "message"} <= each.keys() for each in _lines(machine))


def test_no_line_and_no_span_has_a_secret_or_a_value(observed: tuple[Machine, Collector]) -> None:
    machine, collector = observed
    assert _ask(machine, {"authorization": f"Bearer {SECRET}"}).status_code == 401
    assert _ask(machine, {"x-api-key": SECRET}).status_code == 401
    assert _ask(machine, SAMPLED, tailnum="N-HIDDEN").status_code == 200
    assert _ask(machine, SAMPLED | {"x-request-id": "hiding"}, tailnum=["N-HIDDEN"]).status_code == 400
    wait_until(lambda: "hiding" in _log(machine), "the refusal is logged", timeout_s=30)
    told = b"".join(request.SerializeToString() for request in collector.requests) + _log(machine).encode()
    assert SECRET.encode() not in told
    assert b"HIDDEN" not in told


def test_a_scraper_that_takes_examples_finds_the_trace(observed: tuple[Machine, Collector]) -> None:
    machine, _ = observed
    assert _ask(machine, SAMPLED).status_code == 200
    accept = {"accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    page = http_calls.get(f"{machine.admin_url}/metrics", headers=accept, timeout=30)
    assert page.headers["content-type"].startswith("application/openmetrics-text")
    families = {family.name: family for family in text_string_to_metric_families(page.text)}  # type: ignore[no-untyped-call]  # the library has no types for it
    seconds = families["skewless_stage_seconds"].samples
    assert {sample.labels["worker"] for sample in seconds} == {"0", "1"}
    assert TRACE in {sample.exemplar.labels["trace_id"] for sample in seconds if sample.exemplar}
    assert {sample.labels["python"] for sample in families["skewless_build"].samples}
    assert "skewless_gc_pause_seconds" in families
    assert any(sample.value for sample in families["skewless_traces"].samples)


def test_a_collector_that_goes_away_costs_no_answer(observed: tuple[Machine, Collector], tmp_path: Path) -> None:
    machine, collector = observed
    collector.status = 503
    try:
        assert [_ask(machine, SAMPLED).status_code for _ in range(5)] == [200] * 5

        def lost() -> float:
            lines = [line for line in machine.metrics().splitlines() if 'outcome="lost"' in line]
            return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

        wait_until(lambda: lost() > 0, "what was lost is counted", timeout_s=60)
    finally:
        collector.status = 200
