"""Prometheus metrics of one gateway process, in a registry of its own."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from skewless.features.near_cache import NearCacheCounters
from skewless.rollout.shadow_comparison import ShadowComparison
from skewless.serving.records import AnsweredBatch
from skewless.serving.tallies import flips
from skewless_gateway.admission_metrics import AdmissionMetrics
from skewless_gateway.degrade_metrics import PartMetrics, RungMetrics
from skewless_gateway.edges.batch_metrics import BatchMetrics
from skewless_gateway.grpc_metrics import GrpcMetrics
from skewless_gateway.log_metrics import LogMetrics
from skewless_gateway.request_metrics import RequestMetrics
from skewless_gateway.route_follower import RouteState
from skewless_http.metrics_page import page_of
from skewless_http.security.metrics import SecurityMetrics

_ROLE_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)
_CALL_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024)
_CALL_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128)
MetricT = TypeVar("MetricT", Counter, Gauge, Histogram)


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


class RoleMetrics:
    """What each role does while traffic is split or mirrored. Only bundles in service have series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("endpoint", "role", "bundle")
        self.rows = Counter(
            "skewless_role_rows", "Rows scored while traffic is split or mirrored.", labels, registry=registry
        )
        self.errors = Counter(
            "skewless_role_errors",
            "Requests whose rows a role could not score; live answered those of a canary or an arm.",
            labels,
            registry=registry,
        )
        self.seconds = Histogram(
            "skewless_role_seconds",
            "Seconds from a request's arrival to a role's outputs, while traffic is split or mirrored.",
            labels,
            buckets=_ROLE_BUCKETS_S,
            registry=registry,
        )
        of_shadow = ("endpoint", "bundle")
        self.shadow_dropped = Counter(
            "skewless_shadow_dropped_rows",
            "Rows that were not mirrored because too many waited.",
            of_shadow,
            registry=registry,
        )
        self.shadow_flips = Counter(
            "skewless_shadow_label_flips",
            "Mirrored rows that the shadow labels otherwise than live.",
            of_shadow,
            registry=registry,
        )
        self.shadow_difference = Gauge(
            "skewless_shadow_difference",
            "Mean of the shadow's score less live's since this process began; bounds hold at every look (95 %).",
            (*of_shadow, "value"),
            registry=registry,
        )
        self._series: dict[Any, set[tuple[str, ...]]] = {}
        self._comparisons: dict[tuple[str, str], tuple[str, ShadowComparison]] = {}

    def of(self, metric: MetricT, *labels: str) -> MetricT:
        """One series of a metric, remembered so that it can be removed; the bundle is a digest, cut to its start."""
        self._series.setdefault(metric, set()).add(labels)
        return metric.labels(*labels)

    def compare(self, shadow: AnsweredBatch, live: AnsweredBatch, rows: NDArray[np.intp]) -> None:
        """Count a shadow's scores of live's `rows`, and compare them."""
        labels = shadow.endpoint, short(shadow.bundle)
        flipped = flips(shadow, live, rows)
        self.of(self.rows, shadow.endpoint, str(shadow.role), short(shadow.bundle)).inc(shadow.rows)
        self.of(self.shadow_flips, *labels).inc(int(flipped.sum()))
        beside, so_far = self._comparisons.get(labels, ("", ShadowComparison()))
        before = so_far if beside == live.bundle else ShadowComparison()
        after = before.added(live.probabilities[rows], shadow.probabilities, flipped)
        self._comparisons[labels] = live.bundle, after

    def show_differences(self) -> None:
        """Tell how far each shadow is from live, which is worked out only when someone looks."""
        for (endpoint, bundle), (_, comparison) in self._comparisons.items():
            reading = comparison.reading()
            for value, number in (("mean", reading.mean), ("low", reading.low), ("high", reading.high)):
                self.of(self.shadow_difference, endpoint, bundle, value).set(number)

    def keep_only(self, bundles: Mapping[str, frozenset[str]]) -> None:
        """Remove the series of bundles that no endpoint has in service; `bundles` are short digests by endpoint."""
        for metric, series in self._series.items():
            bundle = metric._labelnames.index("bundle")  # noqa: SLF001  # the library has no other way to ask
            for labels in [each for each in series if each[bundle] not in bundles.get(each[0], ())]:
                series.discard(labels)
                with suppress(KeyError):
                    metric.remove(*labels)
        for endpoint, short_digest in [*self._comparisons]:
            if short_digest not in bundles.get(endpoint, ()):
                del self._comparisons[endpoint, short_digest]


def short(bundle: str) -> str:
    """A bundle as metrics call it: the first 12 digits of its digest."""
    return bundle[:12]


class CallMetrics:
    """How many requests share a call of a model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._rows = Histogram(
            "skewless_model_call_rows",
            "Rows of one call of a model, which requests that waited together share.",
            buckets=_CALL_ROWS,
            registry=registry,
        )
        self._requests = Histogram(
            "skewless_model_call_requests",
            "Requests that share one call of a model.",
            buckets=_CALL_REQUESTS,
            registry=registry,
        )

    def called(self, _model: str, requests: int, rows: int) -> None:
        """Count one call."""
        self._requests.observe(requests)
        self._rows.observe(rows)


class GatewayMetrics:
    """Every metric of the gateway. Only known endpoints become label values, so their number is bounded."""

    def __init__(self) -> None:
        # A third of the page would say when each series began, which Prometheus finds by itself.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types for it
        self.registry = CollectorRegistry()
        self.answers = RequestMetrics(self.registry)
        self.calls = CallMetrics(self.registry)
        self.batches = BatchMetrics(self.registry)
        self.grpc = GrpcMetrics(self.registry)
        self.admission = AdmissionMetrics(self.registry)
        self.security = SecurityMetrics(self.registry)
        self.rungs = RungMetrics(self.registry)
        self.parts = PartMetrics(self.registry)
        self.log = LogMetrics(self.registry)
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
        self.bundles_loaded = Gauge(
            "skewless_bundles_loaded", "Bundles in memory, ready to answer.", registry=self.registry
        )
        self.roles = RoleMetrics(self.registry)
        self.route_failures = Gauge(
            "skewless_route_failures",
            "Endpoints of whose route a bundle could not be taken into service.",
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

    def watch_near_cache(self, counters: NearCacheCounters) -> None:
        """Tell these counters at every scrape."""
        self._near_cache = counters

    def show_routes(self, state: RouteState, *, bundles_loaded: int) -> None:
        """Tell what is in service, and nothing of what no longer is."""
        self.bundle_live.clear()
        for name, endpoint in state.endpoints.items():
            self.bundle_live.labels(name, short(endpoint.served.digest)).set(1)
        self.roles.keep_only(
            {
                name: frozenset(short(digest) for digest in endpoint.serving.bundles)
                for name, endpoint in state.endpoints.items()
            }
        )
        self.bundles_loaded.set(bundles_loaded)
        self.route_failures.set(len(state.failures))
        self.registry_up.set(0 if state.registry_error else 1)

    def show_snapshot_ages(self, ages_s: Mapping[str, float]) -> None:
        """Tell the age of each project's registry snapshot, and of no other project's."""
        self.snapshot_age_seconds.clear()
        for project, age_s in ages_s.items():
            self.snapshot_age_seconds.labels(project).set(age_s)

    def exposition(self, *, open_metrics: bool = False) -> bytes:
        """What Prometheus scrapes, as its text or as OpenMetrics."""
        self.roles.show_differences()
        return page_of(self.registry, open_metrics=open_metrics)
