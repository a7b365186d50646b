"""Metrics of the Python process: what it is, how long garbage collection stops it, and what its log lost."""

import gc
import logging
import platform
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from skewless_http.logs import WaitingLines

_PAUSES_S = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5)
_GENERATIONS = 3


class RuntimeMetrics(Collector):
    """Counts every pause from here on, until closed.

    A pause may begin while any lock of this process is held, so what counts it takes none and makes no object.
    """

    def __init__(self, registry: CollectorRegistry, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began_s = 0.0
        self._counts = [[0] * (len(_PAUSES_S) + 1) for _ in range(_GENERATIONS)]
        self._sums_s = [0.0] * _GENERATIONS
        registry.register(self)
        gc.callbacks.append(self._paused)

    def close(self) -> None:
        """Stop counting. Closing twice is allowed."""
        if self._paused in gc.callbacks:
            gc.callbacks.remove(self._paused)

    def _paused(self, phase: str, told: Mapping[str, int]) -> None:
        if phase == "start":
            self._began_s = self._clock()
            return
        took_s = self._clock() - self._began_s
        generation = told["generation"]
        self._counts[generation][bisect_left(_PAUSES_S, took_s)] += 1
        self._sums_s[generation] += took_s

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        yield InfoMetricFamily(
            "skewless_build",
            "What runs here.",
            value={"version": version("skewless"), "python": platform.python_version()},
        )
        pauses = HistogramMetricFamily(
            "skewless_gc_pause_seconds",
            "How long garbage collection stopped the process, by generation.",
            labels=("generation",),
        )
        bounds = [*map(str, _PAUSES_S), "+Inf"]
        for generation, counts in enumerate(self._counts):
            buckets = [(bound, float(count)) for bound, count in zip(bounds, accumulate(counts), strict=True)]
            pauses.add_metric((str(generation),), buckets, self._sums_s[generation])
        yield pauses
        handlers = logging.getLogger().handlers
        yield CounterMetricFamily(
            "skewless_log_dropped_lines",
            "Log lines that were lost because they came faster than they could be written.",
            value=sum(each.dropped for each in handlers if isinstance(each, WaitingLines)),
        )
