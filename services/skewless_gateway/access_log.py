"""One line for a request that is over: for every error and every slow one, and for one in so many of the others.

What is said of a request is who answered it and how: no body, no header, no feature, no key.
"""

import logging
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from skewless.limits import ACCESS_LINES_PER_S_MAX
from skewless.serving.deadline import MonotonicClock

_LOGGER = logging.getLogger(__name__)
_NS_PER_S = 1_000_000_000
_NS_PER_MS = 1_000_000
_PATH_CHARACTERS_MAX = 200


class AccessLog:
    """Decides in well under a microsecond for a request that gets no line. Belongs to one event loop."""

    def __init__(
        self,
        *,
        one_in: int,
        slow_ms: int,
        clock: MonotonicClock,
        registry: CollectorRegistry | None = None,
        log: Callable[..., None] = _LOGGER.info,
    ) -> None:
        """`one_in` 0: no line for a request that is neither wrong nor slow."""
        self._one_in = one_in
        self._slow_ns = slow_ms * _NS_PER_MS
        self._clock = clock
        self._log = log
        self._countdown = one_in
        self._second_ns = 0
        self._written = 0
        self.dropped = 0
        """Lines that were one too many in their second."""
        if registry is not None:
            registry.register(_DroppedLines(self))

    def ended(self, started_ns: int, *, is_error: bool) -> int:
        """Nanoseconds that the request took where it is to have a line, else 0."""
        now_ns = self._clock()
        took_ns = now_ns - started_ns
        if not is_error and took_ns < self._slow_ns:
            self._countdown -= 1
            if self._countdown:
                return 0
            self._countdown = self._one_in
        if now_ns - self._second_ns >= _NS_PER_S:
            self._second_ns, self._written = now_ns, 0
        if self._written >= ACCESS_LINES_PER_S_MAX:
            self.dropped += 1
            return 0
        self._written += 1
        return max(1, took_ns)

    def write(self, what: str, took_ns: int, **told: object) -> None:
        """The line of a request for which `ended` gave a time."""
        told["took_ms"] = round(took_ns / _NS_PER_MS, 3)
        self._log("%s", what[:_PATH_CHARACTERS_MAX], extra={"told": told})


class _DroppedLines(Collector):
    """Reads the counter when it is scraped."""

    def __init__(self, log: AccessLog) -> None:
        self._log = log

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "skewless_access_log_dropped_lines",
            "Lines of the access log that were one too many in their second.",
            value=self._log.dropped,
        )


def silent() -> AccessLog:
    """An access log of errors alone, for a gateway that nobody reads the log of."""
    return AccessLog(one_in=0, slow_ms=3_600_000, clock=time.monotonic_ns)
