"""What operators are told of several workers.

Each is asked beside the others and within a time, so one that hangs is a gap in the answer and not its end.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from skewless.errors import SkewlessError, Unavailable
from skewless.limits import CONTROL_TIMEOUT_S
from skewless.stack.supervision import Health
from skewless_gateway.exposition import joined, merge_expositions
from skewless_gateway.operations import OPEN_METRICS_ASKED, set_log_level
from skewless_gateway.worker_place import Place
from skewless_http.metrics_page import page_of


class WorkerPool(Protocol):
    """Who has the workers."""

    @property
    def places(self) -> Sequence[Place]:
        """By number."""
        ...

    @property
    def is_draining(self) -> bool:
        """Whether the gateway was asked to stop."""
        ...


class _PoolCollector(Collector):
    """Tells of the workers what they cannot tell themselves."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("skewless_worker_up", "Whether a worker gives signs of life.", labels=("worker",))
        restarts = CounterMetricFamily(
            "skewless_worker_restarts", "How often a worker was started again.", labels=("worker",)
        )
        misses = CounterMetricFamily(
            "skewless_worker_misses", "Questions of its parent that a worker did not answer.", labels=("worker",)
        )
        for place in self._pool.places:
            labels = (str(place.number),)
            up.add_metric(labels, place.watched.health is Health.HEALTHY)
            restarts.add_metric(labels, place.watched.restarts)
            misses.add_metric(labels, place.misses)
        yield from (up, restarts, misses)


class PooledOperations:
    """The `Operations` of a parent."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._registry = CollectorRegistry()
        self._registry.register(_PoolCollector(pool))

    async def metrics(self, *, open_metrics: bool = False) -> bytes:
        """See `Operations.metrics`. A worker that does not answer in time is missing, and counted."""
        said = await self._all("metrics", OPEN_METRICS_ASKED if open_metrics else "")
        pages = {name: page for name, page in said.items() if isinstance(page, bytes)}
        of_pool = page_of(self._registry, open_metrics=open_metrics)
        return joined(of_pool, merge_expositions(pages))

    async def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Ready as long as one worker is, and nobody asked the gateway to stop."""
        told: dict[str, Any] = {}
        for name, said in (await self._all("readiness")).items():
            if isinstance(said, bytes):
                is_ready, parts = msgspec.json.decode(said)
                told[name] = {"ready": is_ready, **parts}
            else:
                told[name] = {"ready": False, "detail": said.message}
        is_ready = not self._pool.is_draining and any(each["ready"] for each in told.values())
        return is_ready, {"draining": self._pool.is_draining, "workers": told}

    async def workers(self) -> list[dict[str, Any]]:
        """See `Operations.workers`. Asks nobody: this is what the last sign of life said."""
        return [
            {
                "worker": place.number,
                "health": str(place.watched.health),
                "restarts": place.watched.restarts,
                "last_failure": place.watched.last_failure,
                **(msgspec.to_builtins(place.state) if place.state is not None else {}),
            }
            for place in self._pool.places
        ]

    async def stacks(self) -> str:
        """See `Operations.stacks`."""
        said = await self._all("stacks")
        texts = (each.decode() if isinstance(each, bytes) else f"{each.message}\n" for each in said.values())
        return "\n".join(f"==== worker {name} ====\n{text}" for name, text in zip(said, texts, strict=True))

    async def set_log_level(self, level: str) -> None:
        """See `Operations.set_log_level`. Raises Unavailable where a worker does not say that it did."""
        set_log_level(level)
        for said in (await self._all("log level", level)).values():
            if isinstance(said, SkewlessError):
                raise said

    async def _all(self, what: str, text: str = "") -> dict[str, bytes | Unavailable]:
        """What each worker says, or why it does not."""

        async def ask(place: Place) -> bytes | Unavailable:
            if place.process is None:
                return Unavailable(f"worker {place.number}", place.watched.last_failure or "it is not there")
            try:
                return await place.process.asking.ask(what, text, timeout_s=CONTROL_TIMEOUT_S)
            except Unavailable as error:
                place.misses += 1
                return error

        said = await asyncio.gather(*map(ask, self._pool.places))
        return {str(place.number): each for place, each in zip(self._pool.places, said, strict=True)}
