"""Prometheus metrics of one gateway process, in a registry of its own."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from skewless.features.near_cache import NearCacheCounters
from skewless.serving.data_plane import STAGES

_BUCKETS_S = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Dense from 1 to 50 ms, where an objective for one prediction lies."""
TOTAL = "total"


class _NearCacheCollector(Collector):
    """Reads the near cache's own counters when it is scraped, so that counting costs a request nothing."""

    def __init__(self, counters: Callable[[], NearCacheCounters | None]) -> None:
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        seen = self._counters() or NearCacheCounters()
        lookups = CounterMetricFamily(
            "skewless_near_cache_lookups", "Hashes looked up in the near cache, by outcome.", labels=("outcome",)
        )
        lookups.add_metric(("hit",), seen.hits)
        lookups.add_metric(("miss",), seen.misses)
        yield lookups
        dropped = CounterMetricFamily(
            "skewless_near_cache_dropped",
            "Hashes dropped from the near cache: changed, too old, or for want of room.",
            labels=("reason",),
        )
        dropped.add_metric(("changed",), seen.invalidations)
        dropped.add_metric(("age",), seen.expirations)
        dropped.add_metric(("room",), seen.evictions)
        yield dropped
        yield CounterMetricFamily(
            "skewless_near_cache_flushes",
            "How often the near cache was emptied because its connection was lost.",
            value=seen.flushes,
        )
        yield GaugeMetricFamily("skewless_near_cache_bytes", "Bytes kept in the near cache.", value=seen.bytes)


class GatewayMetrics:
    """Every metric of the gateway. Only known endpoints become label values, so their number is bounded."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "skewless_requests",
            "HTTP requests of /v1 by endpoint (empty where the request named none that is known) and status code.",
            ("endpoint", "code"),
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "skewless_stage_seconds",
            "Seconds of answered prediction requests by stage; `total` is the whole request.",
            ("stage",),
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self.rows = Counter("skewless_rows", "Answered instances by endpoint.", ("endpoint",), registry=self.registry)
        self.feature_statuses = Counter(
            "skewless_feature_statuses",
            "Served feature values by endpoint and status.",
            ("endpoint", "status"),
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "skewless_requests_in_flight", "Prediction requests being answered.", registry=self.registry
        )
        self.outcomes = Counter("skewless_outcomes", "Outcomes accepted.", registry=self.registry)
        self.log_buffered_rows = Gauge(
            "skewless_prediction_log_buffered_rows", "Log records in memory only.", registry=self.registry
        )
        self.bundle_live = Gauge(
            "skewless_bundle_live",
            "1 for the bundle that answers an endpoint.",
            ("endpoint", "bundle"),
            registry=self.registry,
        )
        self.route_failures = Gauge(
            "skewless_route_failures",
            "Endpoints whose live bundle could not be taken into service.",
            registry=self.registry,
        )
        self.registry_up = Gauge(
            "skewless_registry_up", "Whether the last read of the routes succeeded.", registry=self.registry
        )
        self.snapshot_age_seconds = Gauge(
            "skewless_registry_snapshot_age_seconds",
            "Seconds since the registry snapshot of a Feast project was last known to say what Feast's registry says.",
            ("project",),
            registry=self.registry,
        )
        self.contract_changed = Gauge(
            "skewless_contract_changed",
            "Whether the feature definitions of an endpoint's bundle are no longer those that are registered.",
            ("endpoint",),
            registry=self.registry,
        )
        self._near_cache: NearCacheCounters | None = None
        self.registry.register(_NearCacheCollector(lambda: self._near_cache))
        self._stages = {stage: self.stage_seconds.labels(stage) for stage in (*STAGES, TOTAL)}

    def watch_near_cache(self, counters: NearCacheCounters) -> None:
        """Tell these counters at every scrape."""
        self._near_cache = counters

    def answered(
        self, endpoint: str, *, rows: int, statuses: Mapping[str, int], stage_ms: Mapping[str, float], total_ms: float
    ) -> None:
        """Count one answered prediction request."""
        self.rows.labels(endpoint).inc(rows)
        for status, count in statuses.items():
            self.feature_statuses.labels(endpoint, status).inc(count)
        for stage, taken in stage_ms.items():
            self._stages[stage].observe(taken / 1_000)
        self._stages[TOTAL].observe(total_ms / 1_000)

    def show_snapshot_ages(self, ages_s: Mapping[str, float]) -> None:
        """Tell the age of each project's registry snapshot, and of no other project's."""
        self.snapshot_age_seconds.clear()
        for project, age_s in ages_s.items():
            self.snapshot_age_seconds.labels(project).set(age_s)

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
