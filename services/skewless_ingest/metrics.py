"""What the ingestion service tells about itself. Names in labels are those of definitions, so series are bounded."""

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from skewless.adapters.ingest_intake import Intake
from skewless.adapters.ingest_requests import GroupDone
from skewless.adapters.ingest_room import IngestRoom
from skewless.ingestion.batches import BatchKind, LaneState
from skewless.timestamps import SECOND_US
from skewless_http.security.metrics import SecurityMetrics

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LAGS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_OTHER = ""
"""The name of what no definition knows."""


class IngestMetrics:
    """Counters of one process, and a page of them."""

    def __init__(self, is_known: Callable[[str], bool]) -> None:
        self.registry = CollectorRegistry()
        self.security = SecurityMetrics(self.registry)
        self._is_known = is_known
        self._requests = Counter(
            "skewless_ingest_requests_total",
            "Requests by route, view or stream, and status",
            ["route", "name", "status"],
            registry=self.registry,
        )
        self._took = Histogram(
            "skewless_ingest_request_seconds",
            "How long requests that bring rows took, from their head to their answer",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._rows = Counter(
            "skewless_ingest_rows_total",
            "Rows by view or stream, and what became of them",
            ["kind", "name", "outcome"],
            registry=self.registry,
        )
        self._groups = Histogram(
            "skewless_ingest_group_seconds",
            "How long a group of requests took to be judged and kept",
            ["kind"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._grouped = Counter(
            "skewless_ingest_grouped_requests_total",
            "Requests that were judged and kept, many at once",
            ["kind"],
            registry=self.registry,
        )
        self._lag = Histogram(
            "skewless_ingest_delivery_lag_seconds",
            "From the acceptance of a batch to the moment from which a store has it",
            ["kind", "store"],
            buckets=_LAGS,
            registry=self.registry,
        )
        self._failures = Counter(
            "skewless_ingest_delivery_failures_total",
            "Times that a batch could not be delivered",
            ["kind", "name"],
            registry=self.registry,
        )

    def answered(self, route: str, name: str, status: int, took_s: float) -> None:
        """Count an answer."""
        self._requests.labels(route, name if self._is_known(name) else _OTHER, status).inc()
        if status == 202:
            self._took.labels(route).observe(took_s)

    def requested(self, _name: str, status: int) -> None:
        """Count an answer to what is no route."""
        self._requests.labels("", _OTHER, status).inc()

    def group(self, done: GroupDone) -> None:
        """Count a group; from a lane's thread."""
        self._groups.labels(done.kind).observe(done.took_s)
        self._grouped.labels(done.kind).inc(done.requests)
        for outcome, rows in done.rows.items():
            if rows:
                self._rows.labels(done.kind, done.name, outcome).inc(rows)

    def delivered(self, kind: BatchKind, store: str, lag_us: int) -> None:
        """Count a batch that a store, `online` or `offline`, now has; from a lane's thread."""
        self._lag.labels(kind, store).observe(max(0, lag_us) / SECOND_US)

    def failed(self, kind: BatchKind, name: str) -> None:
        """Count a delivery that failed."""
        self._failures.labels(kind, name).inc()

    def watch(self, *, intake: Intake, room: IngestRoom, lanes: Callable[[], tuple[LaneState, ...]]) -> None:
        """Show how much is under way and waits, whenever the page is read."""
        self.registry.register(_Waiting(intake, room, lanes))


class _Waiting(Collector):
    """Reads how things stand when it is scraped; asks no server."""

    def __init__(self, intake: Intake, room: IngestRoom, lanes: Callable[[], tuple[LaneState, ...]]) -> None:
        self._intake = intake
        self._room = room
        self._lanes = lanes

    def describe(self) -> Iterator[Metric]:
        """Nothing, so that registering reads nothing."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        yield _gauge(
            "skewless_ingest_open_requests", "Requests that bring rows and have no answer yet", self._room.requests
        )
        yield _gauge("skewless_ingest_open_bytes", "Bytes of the bodies of those requests", self._room.bytes)
        yield _gauge("skewless_ingest_waiting_rows", "Decoded rows that wait to be judged", self._intake.waiting_rows)
        yield from self._of_lanes()

    def _of_lanes(self) -> Iterator[Metric]:
        labels = ["kind", "name"]
        batches = GaugeMetricFamily(
            "skewless_ingest_outbox_batches", "Accepted batches that a store does not have yet", labels=labels
        )
        held = GaugeMetricFamily("skewless_ingest_outbox_bytes", "Bytes of those batches", labels=labels)
        failed = GaugeMetricFamily(
            "skewless_ingest_outbox_failed", "Batches that could not be delivered and wait for somebody", labels=labels
        )
        oldest = GaugeMetricFamily(
            "skewless_ingest_outbox_oldest_seconds", "Age of the oldest of the batches that wait", labels=labels
        )
        age = GaugeMetricFamily(
            "skewless_ingest_event_age_seconds", "Age of the newest event time that the online store has", labels=labels
        )
        now = time.time_ns() // 1_000
        for lane in self._lanes():
            named = [lane.kind.value, lane.name]
            batches.add_metric(named, lane.waiting_batches)
            held.add_metric(named, lane.waiting_bytes)
            failed.add_metric(named, lane.failed_batches)
            since = lane.oldest_accepted_time
            oldest.add_metric(named, 0.0 if since is None else max(0, now - since) / SECOND_US)
            if lane.newest_event_time is not None:
                age.add_metric(named, (now - lane.newest_event_time) / SECOND_US)
        yield from (batches, held, failed, oldest, age)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)
