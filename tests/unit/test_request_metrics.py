"""Counted by hand, told as the client library would tell it."""

import random

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from skewless.serving.data_plane import STAGES
from skewless_gateway.request_metrics import BOUNDS_S, TOTAL, RequestMetrics


def samples(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What a scrape reads, without the moments at which series were created."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_what_is_told_is_what_the_client_library_would_tell() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    metrics = RequestMetrics(ours)
    requests = Counter("skewless_requests", "-", ("endpoint", "code"), registry=theirs)
    stages = Histogram("skewless_stage_seconds", "-", ("stage",), buckets=BOUNDS_S, registry=theirs)
    rows = Counter("skewless_rows", "-", ("endpoint",), registry=theirs)
    statuses = Counter("skewless_feature_statuses", "-", ("endpoint", "status"), registry=theirs)
    for stage in (*STAGES, TOTAL):
        stages.labels(stage)
    generator = random.Random(7)
    for _ in range(500):
        endpoint = generator.choice(["a", 'b"\\', ""])
        status = generator.choice([200, 503])
        metrics.requested(endpoint, status)
        requests.labels(endpoint, str(status)).inc()
        # Whole and half numbers of milliseconds: bounds themselves are among them, and sums are exact.
        taken_ms = {stage: generator.randrange(30_000) / 2 for stage in STAGES}
        counted = {"ok": generator.randrange(3), "stale": generator.randrange(1, 3)}
        metrics.answered(endpoint, rows=3, statuses=counted, stage_ms=taken_ms, total_ms=12_000.0)
        rows.labels(endpoint).inc(3)
        for name, count in counted.items():
            statuses.labels(endpoint, name).inc(count)
        for stage, each in [*taken_ms.items(), (TOTAL, 12_000.0)]:
            stages.labels(stage).observe(each / 1_000)
    expected, seen = samples(theirs), samples(ours)
    assert seen.keys() == expected.keys()
    assert all(abs(seen[key] - value) < 1e-6 * max(1.0, value) for key, value in expected.items())


def test_a_scrape_before_any_request_tells_every_stage() -> None:
    registry = CollectorRegistry()
    RequestMetrics(registry)
    counts = {key: value for key, value in samples(registry).items() if key[0] == "skewless_stage_seconds_count"}
    assert {dict(labels)["stage"] for _, labels in counts} == {*STAGES, TOTAL}
    assert set(counts.values()) == {0.0}
