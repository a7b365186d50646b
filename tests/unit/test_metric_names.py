"""Every metric that a gateway tells: named by one rule, documented with its labels, and bounded in its series."""

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open_metrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from harness.asgi_calls import application_of, ask, predict
from harness.bundles import instance
from harness.gateways import ENDPOINT, GatewayOverFakes
from skewless.errors import Unavailable
from skewless_gateway.exposition import joined, merge_expositions, wants_open_metrics
from skewless_gateway.request_metrics import RequestMetrics
from skewless_gateway.runtime_metrics import RuntimeMetrics
from skewless_http.metrics_page import page_of

REFERENCE = (Path(__file__).parents[2] / "docs" / "reference.md").read_text()
UNITS = {"seconds", "bytes", "rows", "requests", "total", "info"}
"""A name ends with what it counts or measures."""
STATES = {
    "skewless_admission_in_flight", "skewless_admission_limit", "skewless_admission_queued", "skewless_batches_open",
    "skewless_bundle_live", "skewless_bundles_loaded", "skewless_circuit_open", "skewless_connections",
    "skewless_contract_changed", "skewless_models_in_process", "skewless_prediction_log_failing",
    "skewless_registry_up", "skewless_replica_models",
    "skewless_replica_rows_in_flight", "skewless_replica_up", "skewless_route_failures", "skewless_shadow_difference",
    "skewless_worker_up",
}  # fmt: skip
"""Gauges of a number of things, or of a state, which have no unit."""
SERIES_MAX = 400
"""Of a gateway with one endpoint; each further endpoint adds some dozens."""
OF_PROMETHEUS = {"le"}


def documented() -> dict[str, tuple[str, set[str]]]:
    """Meaning and labels by name, as the reference's table has them."""
    rows = re.findall(r"^\| `(skewless_\w+)` \|(.*?)\| (.*) \|$", REFERENCE, re.MULTILINE)
    return {name: (meaning, set(re.findall(r"`(\w+)`", labels))) for name, labels, meaning in rows}


def row_name(family: Metric) -> str:
    """A family as the table calls it: counters with their suffix."""
    suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
    return family.name.removesuffix(suffix) + suffix


async def exercised(folder: Path) -> tuple[str, str]:
    """The page of a gateway that has seen answers, refusals and failures: as text, and as OpenMetrics."""
    gateway = GatewayOverFakes.build(folder)
    runtime = RuntimeMetrics(gateway.metrics.registry)
    headers = ((b"content-type", b"application/json"),)
    async with application_of(gateway) as application:
        for rows in (1, 3):
            assert (await predict(application, *[instance()] * rows)).status == 200
        for number in range(50):
            assert (await predict(application, instance(), endpoint=f"none-{number}")).status == 404
            assert await ask(application, "POST", f"/v2/models/none-{number}/infer", b"{}", headers=headers)
        await ask(application, "POST", f"/v1/endpoints/{ENDPOINT}/predict", b"{", headers=headers)
        gateway.backend.failure = Unavailable("model backend", "it is away")
        await predict(application, instance())
        text = await ask(application, "GET", "/metrics")
        accept = (b"accept", b"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2")
        open_metrics = await ask(application, "GET", "/metrics", headers=(accept,))
    runtime.close()
    assert text is not None
    assert open_metrics is not None
    assert text.headers[b"content-type"].startswith(b"text/plain")
    assert open_metrics.headers[b"content-type"].startswith(b"application/openmetrics-text")
    return text.body.decode(), open_metrics.body.decode()


async def test_every_family_is_named_by_the_rule_and_documented_with_its_labels(tmp_path: Path) -> None:
    _, page = await exercised(tmp_path)
    families = [family for family in read_open_metrics(page) if family.name.startswith("skewless_")]  # type: ignore[no-untyped-call]  # the library has no types for it
    table = documented()
    assert len(families) > 30
    for family in families:
        name = row_name(family)
        assert re.fullmatch(r"skewless_[a-z]+(_[a-z]+)*", name), name
        assert name.rsplit("_", 1)[1] in UNITS or name in STATES, f"{name} ends with no unit of {sorted(UNITS)}"
        assert (family.type == "counter") == name.endswith("_total"), name
        assert family.documentation, f"{name} says nothing of itself"
        assert name in table, f"docs/reference.md lacks a row for {name}"
        labels = {label for sample in family.samples for label in sample.labels} - OF_PROMETHEUS
        assert labels <= table[name][1], f"{name} has labels {sorted(labels)}, documented are {sorted(table[name][1])}"


async def test_callers_cannot_make_series(tmp_path: Path) -> None:
    text, _ = await exercised(tmp_path)
    families = list(read_text(text))
    assert "none-" not in text, "a name that nobody serves is no label"
    assert sum(len(family.samples) for family in families) < SERIES_MAX


async def test_both_forms_tell_the_same_and_the_text_is_what_it_was(tmp_path: Path) -> None:
    text, page = await exercised(tmp_path)
    assert page.endswith("# EOF\n")
    families = {family.name for family in read_open_metrics(page)}  # type: ignore[no-untyped-call]  # no types
    assert {family.name.removesuffix("_total").removesuffix("_info") for family in read_text(text)} == families


def test_a_traced_request_is_the_example_of_its_bin() -> None:
    registry = CollectorRegistry()
    metrics = RequestMetrics(registry)
    for total_ms, trace_id in ((1.5, 0), (1.6, 0xABC), (700.0, 0)):
        metrics.answered("a", rows=1, statuses={}, stage_ms={"model": 1.0}, total_ms=total_ms, trace_id=trace_id)
    page = page_of(registry, open_metrics=True).decode()
    examples = re.findall(r'stage="total"\} [\d.]+ # (\{[^}]*\} [\d.]+)', page)
    assert examples == [f'{{trace_id="{0xABC:032x}"}} 0.0016']
    assert "# {" not in page_of(registry, open_metrics=False).decode(), "the text form has no place for it"


def test_several_workers_are_one_page_of_open_metrics() -> None:
    registry = CollectorRegistry()
    metrics = RequestMetrics(registry)
    metrics.answered("a", rows=2, statuses={"ok": 2}, stage_ms={}, total_ms=1.0, trace_id=5)
    page = page_of(registry, open_metrics=True)
    of_pool = b"# HELP skewless_worker_up Up.\n# TYPE skewless_worker_up gauge\nskewless_worker_up 1.0\n# EOF\n"
    merged = joined(of_pool, merge_expositions({"0": page, "1": page})).decode()
    assert merged.count("# EOF") == 1
    families = {family.name: family for family in read_open_metrics(merged)}  # type: ignore[no-untyped-call]  # no types
    assert {sample.labels["worker"] for sample in families["skewless_rows"].samples} == {"0", "1"}
    exemplars = [sample.exemplar for sample in families["skewless_stage_seconds"].samples if sample.exemplar]
    assert len(exemplars) == 2


@pytest.mark.parametrize(("accept", "wants"), [(None, False), (b"*/*", False), (b"text/plain", False)])
def test_who_does_not_name_open_metrics_gets_text(accept: bytes | None, wants: bool) -> None:
    assert wants_open_metrics(accept) is wants


def test_a_pause_of_garbage_collection_is_counted_until_closed() -> None:
    registry = CollectorRegistry()
    ticks = iter((1.0, 1.003, 5.0, 6.0))
    metrics = RuntimeMetrics(registry, clock=lambda: next(ticks))
    metrics._paused("start", {"generation": 2})
    metrics._paused("stop", {"generation": 2})
    metrics.close()
    count = registry.get_sample_value("skewless_gc_pause_seconds_count", {"generation": "2"})
    fast = registry.get_sample_value("skewless_gc_pause_seconds_bucket", {"generation": "2", "le": "0.001"})
    slow = registry.get_sample_value("skewless_gc_pause_seconds_bucket", {"generation": "2", "le": "0.005"})
    assert (count, fast, slow) == (1, 0, 1)
