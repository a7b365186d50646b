"""Metrics of admission, read from its own counters when they are scraped, so that counting costs a request nothing."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_WAIT_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class AdmissionReading:
    """One endpoint's state of admission. `refused` are the requests refused since the process began, by reason."""

    endpoint: str
    limit: int
    in_flight: int
    queued: int
    refused: Mapping[str, int]


class AdmissionMetrics(Collector):
    """How many predictions are computed, wait and are refused, per endpoint."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._readings: Callable[[], Iterable[AdmissionReading]] = tuple
        self._wait = Histogram(
            "skewless_admission_wait_seconds",
            "Seconds that predictions waited for their turn; those that did not have to are not counted.",
            ("endpoint",),
            buckets=_WAIT_BUCKETS_S,
            registry=registry,
        )
        registry.register(self)

    def watch(self, readings: Callable[[], Iterable[AdmissionReading]]) -> None:
        """Tell these at every scrape."""
        self._readings = readings

    def waited(self, endpoint: str, seconds: float) -> None:
        """Count a prediction that had to wait for its turn and got it."""
        self._wait.labels(endpoint).observe(seconds)

    def forget(self, endpoint: str) -> None:
        """Remove the series of an endpoint that is gone."""
        self._wait.remove(endpoint)

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        limit = GaugeMetricFamily(
            "skewless_admission_limit", "Predictions of an endpoint that are computed at once.", labels=("endpoint",)
        )
        in_flight = GaugeMetricFamily(
            "skewless_admission_in_flight", "Predictions being computed.", labels=("endpoint",)
        )
        queued = GaugeMetricFamily(
            "skewless_admission_queued", "Predictions that wait for their turn.", labels=("endpoint",)
        )
        refused = CounterMetricFamily(
            "skewless_admission_refused",
            "Predictions refused before work was spent on them, by reason.",
            labels=("endpoint", "reason"),
        )
        for each in self._readings():
            limit.add_metric((each.endpoint,), each.limit)
            in_flight.add_metric((each.endpoint,), each.in_flight)
            queued.add_metric((each.endpoint,), each.queued)
            for reason, count in each.refused.items():
                refused.add_metric((each.endpoint, reason), count)
        yield from (limit, in_flight, queued, refused)
