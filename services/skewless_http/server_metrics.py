"""Metrics of a gateway process itself: its connections, its event loop, and what the system counts for it."""

import asyncio
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from skewless.limits import EVENT_LOOP_LOOK_S
from skewless_http.http_server import HttpServer

_LAGS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class _ServerCollector(Collector):
    """Reads the server's own counters when it is scraped."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("skewless_connections", "Open connections.", value=self._server.connections)
        yield CounterMetricFamily(
            "skewless_connections_refused", "Connections refused as one too many.", value=self._server.refused
        )
        yield CounterMetricFamily(
            "skewless_accept_failures",
            "Accepts that failed for want of file descriptors or memory.",
            value=self._server.accept_failures,
        )

    def describe(self) -> Iterator[Metric]:
        """Nothing, so that registering asks the server nothing."""
        return iter(())


class ServerMetrics:
    """Registers itself; `watch_event_loop` runs for as long as the process."""

    def __init__(self, registry: CollectorRegistry, server: HttpServer) -> None:
        registry.register(_ServerCollector(server))
        ProcessCollector(registry=registry)
        self._lag = Histogram(
            "skewless_event_loop_lag_seconds",
            "By how much a timer of the event loop came late: what every request waits on top of its work.",
            buckets=_LAGS_S,
            registry=registry,
        )

    async def watch_event_loop(self) -> None:
        """Measure until cancelled."""
        clock: Callable[[], float] = asyncio.get_running_loop().time
        while True:
            due_s = clock() + EVENT_LOOP_LOOK_S
            await asyncio.sleep(EVENT_LOOP_LOOK_S)
            self._lag.observe(max(0.0, clock() - due_s))
