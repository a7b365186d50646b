"""Metrics of the prediction log: what is written, what waits, what was given up."""

from collections.abc import Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from skewless.adapters.log_segments import LogCounts
from skewless.serving.ports import LogState

_FLUSH_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class WatchedLog(Protocol):
    """What is read when the metrics are."""

    @property
    def counts(self) -> LogCounts:
        """What was done so far."""
        ...

    def state(self) -> LogState:
        """How it does now."""
        ...


class LogMetrics(Collector):
    """Reads the log's own counters when it is scraped, so that counting costs a request nothing."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._log: WatchedLog | None = None
        self._flush_seconds = Histogram(
            "skewless_prediction_log_flush_seconds",
            "Seconds of one flush of the prediction log: making frames, writing and, where set so, syncing them.",
            buckets=_FLUSH_BUCKETS_S,
            registry=registry,
        )
        registry.register(self)

    def watch(self, log: WatchedLog) -> None:
        """Tell of this log from now on."""
        self._log = log

    def flushed(self, took_s: float) -> None:
        """Count one flush. Any thread may call it."""
        self._flush_seconds.observe(took_s)

    def collect(self) -> Iterator[Metric]:
        """Every metric, with the values of now; without a log, those of one that has done nothing."""
        log = self._log
        counts = log.counts if log is not None else LogCounts()
        for name, help_text, count in (
            ("skewless_prediction_log_rows", "Records written to segments of the prediction log.", counts.rows),
            ("skewless_prediction_log_frames", "Frames they were written in, each of one bundle.", counts.frames),
            ("skewless_prediction_log_bytes", "Bytes of those frames.", counts.bytes),
            ("skewless_prediction_log_segments_sealed", "Segments that were sealed.", counts.segments_sealed),
        ):
            yield CounterMetricFamily(name, help_text, value=count)
        dropped = CounterMetricFamily(
            "skewless_prediction_log_dropped_rows",
            "Records that are not in the prediction log, by reason: the disk, a full spool, or no encoding for them.",
            labels=("reason",),
        )
        for reason, rows in [*counts.dropped_rows.items()]:
            dropped.add_metric((reason,), rows)
        yield dropped
        yield GaugeMetricFamily(
            "skewless_prediction_log_spool_bytes",
            "Bytes of all segments in the spool folder, of every process that writes there.",
            value=counts.spool_bytes,
        )
        yield GaugeMetricFamily(
            "skewless_prediction_log_failing",
            "Whether the last flush of the prediction log could not write everything.",
            value=log is not None and log.state().failure != "",
        )
