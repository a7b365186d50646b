"""What is counted of every request: plain numbers, told as Prometheus metrics only when somebody looks.

A counter of the client library takes a lock and a look-up by labels each time; a request counts twenty things.
"""

import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Exemplar, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from skewless.serving.data_plane import STAGES

BOUNDS_S = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Dense from 1 to 50 ms, where an objective for one prediction lies."""
TOTAL = "total"
_BOUNDS_MS = tuple(bound * 1_000 for bound in BOUNDS_S)


class _Durations:
    """A histogram of milliseconds."""

    __slots__ = ("counts", "exemplars", "sum_ms")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS_MS) + 1)
        """By bin: up to each bound, and beyond the last."""
        self.sum_ms = 0.0
        self.exemplars: dict[int, Exemplar] = {}
        """By bin: the last traced request in it."""

    def add(self, taken_ms: float) -> None:
        self.counts[bisect_left(_BOUNDS_MS, taken_ms)] += 1
        self.sum_ms += taken_ms

    def add_traced(self, taken_ms: float, trace_id: int) -> None:
        """As `add`; the trace is told as an example of its bin."""
        self.add(taken_ms)
        exemplar = Exemplar({"trace_id": f"{trace_id:032x}"}, taken_ms / 1_000, time.time())
        self.exemplars[bisect_left(_BOUNDS_MS, taken_ms)] = exemplar

    def buckets(self) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
        """Counts up to each bound, as Prometheus wants them, with an example where there is one."""
        bounds = [*map(str, BOUNDS_S), "+Inf"]
        counts = [(bound, float(count)) for bound, count in zip(bounds, accumulate(self.counts), strict=True)]
        examples = self.exemplars
        return [(*each, examples[place]) if place in examples else each for place, each in enumerate(counts)]


class _Endpoint:
    """What was answered of one endpoint."""

    __slots__ = ("rows", "statuses")

    def __init__(self) -> None:
        self.rows = 0
        self.statuses: dict[str, int] = {}


class RequestMetrics(Collector):
    """Counts requests of one event loop."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests: dict[tuple[str, int], int] = {}
        self._stages = {stage: _Durations() for stage in (*STAGES, TOTAL)}
        self._endpoints: dict[str, _Endpoint] = {}
        registry.register(self)

    def requested(self, endpoint: str, status: int) -> None:
        """Count one HTTP request. `endpoint` is empty, or known: each becomes a label."""
        key = endpoint, status
        self._requests[key] = self._requests.get(key, 0) + 1

    def answered(
        self,
        endpoint: str,
        *,
        rows: int,
        statuses: Mapping[str, int],
        stage_ms: Mapping[str, float],
        total_ms: float,
        trace_id: int = 0,
    ) -> None:
        """Count one answered prediction request of a known endpoint; `trace_id` is 0 where it is not traced."""
        seen = self._endpoints.get(endpoint)
        if seen is None:
            seen = self._endpoints[endpoint] = _Endpoint()
        seen.rows += rows
        for status, count in statuses.items():
            seen.statuses[status] = seen.statuses.get(status, 0) + count
        for stage, taken_ms in stage_ms.items():
            self._stages[stage].add(taken_ms)
        if trace_id:
            self._stages[TOTAL].add_traced(total_ms, trace_id)
        else:
            self._stages[TOTAL].add(total_ms)

    def collect(self) -> Iterator[Metric]:
        """Every counter, see `Collector`."""
        requests = CounterMetricFamily(
            "skewless_requests",
            "HTTP requests by endpoint (empty where the request named none that is known) and status code.",
            labels=("endpoint", "code"),
        )
        for (endpoint, status), count in self._requests.items():
            requests.add_metric((endpoint, str(status)), count)
        stages = HistogramMetricFamily(
            "skewless_stage_seconds",
            "Seconds of answered prediction requests by stage; `total` is the whole request.",
            labels=("stage",),
        )
        for stage, durations in self._stages.items():
            stages.add_metric((stage,), durations.buckets(), durations.sum_ms / 1_000)
        rows = CounterMetricFamily("skewless_rows", "Answered instances by endpoint.", labels=("endpoint",))
        statuses = CounterMetricFamily(
            "skewless_feature_statuses", "Served feature values by endpoint and status.", labels=("endpoint", "status")
        )
        for endpoint, seen in self._endpoints.items():
            rows.add_metric((endpoint,), seen.rows)
            for name, count in seen.statuses.items():
                statuses.add_metric((endpoint, name), count)
        yield from (requests, stages, rows, statuses)
