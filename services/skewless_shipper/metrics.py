"""What a shipper tells about itself: counted by its own thread, read by whoever asks for the page."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from skewless.adapters.log_shipping import LogShipping
from skewless.adapters.segment_stream import StreamState
from skewless.adapters.shipper import Waiting
from skewless.errors import Unavailable

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ShipperMetrics(Collector):
    """The page of one shipper. `observe` is called by its loop; a scrape touches no folder and no server."""

    def __init__(self) -> None:
        self._shipping: LogShipping | None = None
        self._waiting = Waiting(0, 0, 0.0)
        self._requests = 0
        self._stream: StreamState | None = None
        self.looks = 0
        """Looks for segments since the start."""
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def observe(self, shipping: LogShipping) -> None:
        """Take note of how things are after a look. Raises OSError."""
        self._waiting = shipping.shipper.waiting()
        self._requests = len(shipping.requests.pending())
        if shipping.stream_sink is not None:
            try:
                self._stream = shipping.stream_sink.state()
            except Unavailable:
                self._stream = None  # its sink says that it is down
        self.looks += 1
        self._shipping = shipping

    def page(self) -> bytes:
        """The metrics in Prometheus's text form."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """The families, of the last look."""
        shipping = self._shipping
        if shipping is None:
            return
        yield from self._of_segments(shipping)
        yield from _of_sinks(shipping)
        yield from _of_upkeep(shipping)
        if shipping.stream_sink is not None:
            sink = shipping.stream_sink
            yield _counter("skewless_shipper_stream_parts_total", "Parts of segments published.", sink.parts)
            yield _counter(
                "skewless_shipper_stream_rows_left_out_total",
                "Rows that were too large for a part of the stream, and are in the log store only.",
                sink.rows_left_out,
            )
            yield _counter(
                "skewless_shipper_stream_trimmed_total",
                "Parts that made room before every group had read them.",
                sink.trimmed,
            )
        if self._stream is not None:
            yield from _of_stream(self._stream)

    def _of_segments(self, shipping: LogShipping) -> Iterator[Metric]:
        counts = shipping.shipper.counts
        yield _gauge(
            "skewless_shipper_waiting_segments", "Sealed segments that wait for a sink.", self._waiting.segments
        )
        yield _gauge("skewless_shipper_waiting_bytes", "Bytes of those segments.", self._waiting.bytes)
        yield _gauge(
            "skewless_shipper_oldest_segment_seconds", "Age of the oldest of those segments.", self._waiting.oldest_s
        )
        yield _gauge(
            "skewless_shipper_waiting_requests", "Requests of the command line that wait to be done.", self._requests
        )
        yield _counter("skewless_shipper_looks_total", "Looks for sealed segments.", self.looks)
        yield _counter("skewless_shipper_segments_adopted_total", "Segments of dead writers sealed.", counts.adopted)
        yield _counter(
            "skewless_shipper_segments_removed_total", "Segments deleted, with every sink then.", counts.removed
        )
        yield _counter(
            "skewless_shipper_segments_damaged_total",
            "Segments set aside because something in them cannot be read.",
            counts.damaged,
        )


def _of_sinks(shipping: LogShipping) -> Iterator[Metric]:
    up = GaugeMetricFamily("skewless_shipper_sink_up", "1 where the sink took what it got last.", labels=["sink"])
    failures = CounterMetricFamily(
        "skewless_shipper_sink_failures_total", "Times that the sink did not take segments.", labels=["sink"]
    )
    for supply in shipping.shipper.supplies:
        up.add_metric([supply.sink.name], float(not supply.failing))
        failures.add_metric([supply.sink.name], supply.failures)
    rows = CounterMetricFamily(
        "skewless_shipper_rows_total", "Rows committed to the log store, by kind of record.", labels=["kind"]
    )
    for kind, count in shipping.store_sink.rows.items():
        rows.add_metric([kind], count)
    yield from (up, failures, rows)
    yield _counter(
        "skewless_shipper_rounds_total",
        "Rounds of commits to the log store, of all processes that shipped this folder.",
        shipping.store_sink.rounds,
    )


def _of_upkeep(shipping: LogShipping) -> Iterator[Metric]:
    counts = shipping.upkeep
    yield _counter(
        "skewless_shipper_compactions_total", "Times that small files were put together.", counts.compactions
    )
    yield _counter("skewless_shipper_files_replaced_total", "Files that were put together.", counts.files_replaced)
    yield _counter("skewless_shipper_files_removed_total", "Files removed that no table has.", counts.files_removed)
    yield _counter("skewless_shipper_rows_dropped_total", "Rows that retention dropped.", counts.rows_dropped)
    yield _counter("skewless_shipper_rows_deleted_total", "Rows that were deleted by request.", counts.rows_deleted)
    yield _counter("skewless_shipper_upkeep_failures_total", "Times that upkeep of the store failed.", counts.failures)


def _of_stream(state: StreamState) -> Iterator[Metric]:
    yield _gauge("skewless_shipper_stream_entries", "Parts that the stream holds.", state.entries)
    yield _gauge("skewless_shipper_stream_bytes", "Memory that the stream takes.", state.bytes)
    unread = GaugeMetricFamily(
        "skewless_shipper_stream_group_unread", "Parts that the group has not read yet.", labels=["group"]
    )
    pending = GaugeMetricFamily(
        "skewless_shipper_stream_group_pending", "Parts that the group has read and not done.", labels=["group"]
    )
    for group in state.groups:
        unread.add_metric([group.name], float(group.unread or 0))
        pending.add_metric([group.name], float(group.pending))
    yield from (unread, pending)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)


def _counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(name, meaning, value=value)
