"""Which requests are traced, and their way to the collector: a bounded queue that a thread of its own empties.

Where the caller's trace is sampled, so is the request; where it has none, one in so many is. What is not traced costs a
look at a header and a random number; a collector that is away costs no request anything.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from skewless.errors import SkewlessError
from skewless.limits import TRACE_BATCH, TRACE_CLOSE_S, TRACE_EXPORT_S, TRACES_PER_S_MAX, TRACES_WAITING_MAX
from skewless.serving.deadline import MonotonicClock
from skewless.serving.request_trace import OUTGOING, AttributeValue, RequestTrace, begin_call
from skewless.serving.trace_context import read_context

_LOGGER = logging.getLogger(__name__)
_NS_PER_S = 1_000_000_000


class TraceExporter(Protocol):
    """Sends traces somewhere. Used by one thread, closed by another."""

    def send(self, traces: Sequence[RequestTrace]) -> bool:
        """Whether they arrived. Blocks within a bound, and does not raise."""
        ...

    def close(self) -> None: ...


class Tracing:
    """Belongs to one event loop; its thread only takes from the queue."""

    def __init__(
        self,
        exporter: TraceExporter,
        *,
        ratio: float,
        clock: MonotonicClock,
        registry: CollectorRegistry,
        random: Callable[[], float] = random.random,
    ) -> None:
        """Of requests whose caller has no trace, `ratio` (0 to 1) are traced, as `random` decides."""
        self._exporter = exporter
        self._ratio = ratio
        self._clock = clock
        self._random = random
        self._offset_ns = time.time_ns() - clock()
        self._allowed = float(TRACES_PER_S_MAX)
        self._allowed_at_ns = clock()
        self._waiting: deque[RequestTrace] = deque()
        self._wake = threading.Event()
        self._is_closing = False
        self._is_reached = True
        self.sent = self.lost = self.dropped = self.limited = 0
        registry.register(_TraceCounters(self))
        self._thread = threading.Thread(target=self._send_all, name="traces", daemon=True)
        self._thread.start()

    def begin(self, traceparent: bytes | None, tracestate: bytes | None, started_ns: int) -> RequestTrace | None:
        """What to note of a request that arrived then; None where it is not traced."""
        parent = None
        if traceparent is not None:
            parent = read_context(traceparent, tracestate)
        if parent is None:
            if self._random() >= self._ratio:
                return None
        elif not parent.is_sampled:
            return None
        if not self._may_begin():
            self.limited += 1
            return None
        trace = RequestTrace.of(parent, started_ns=started_ns, offset_ns=self._offset_ns)
        trace.enter()
        return trace

    def end(self, trace: RequestTrace, name: str, attributes: dict[str, AttributeValue], *, is_fault: bool) -> None:
        """Hand over a request that is over."""
        trace.end(self._clock())
        trace.name = name
        trace.is_fault = is_fault
        trace.attributes |= attributes
        if len(self._waiting) >= TRACES_WAITING_MAX:
            self.dropped += 1
            return
        self._waiting.append(trace)
        if len(self._waiting) == TRACE_BATCH:
            self._wake.set()

    def close(self) -> None:
        """Send what waits, for a short while. Closing twice is allowed."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(TRACE_CLOSE_S)
        self._exporter.close()

    def _may_begin(self) -> bool:
        """A bucket of one second: a caller's flag may not make tracing the work."""
        now_ns = self._clock()
        refilled = self._allowed + (now_ns - self._allowed_at_ns) / _NS_PER_S * TRACES_PER_S_MAX
        self._allowed = min(float(TRACES_PER_S_MAX), refilled)
        self._allowed_at_ns = now_ns
        if self._allowed < 1:
            return False
        self._allowed -= 1
        return True

    def _send_all(self) -> None:
        while True:
            batch = [self._waiting.popleft() for _ in range(min(TRACE_BATCH, len(self._waiting)))]
            if batch:
                self._send(batch)
            elif self._is_closing:
                return
            if len(self._waiting) < TRACE_BATCH and not self._is_closing:
                self._wake.wait(TRACE_EXPORT_S)
                self._wake.clear()

    def _send(self, batch: Sequence[RequestTrace]) -> None:
        try:
            arrived = self._exporter.send(batch)
        except Exception:  # the thread's boundary: traces are worth no more than a line in the log
            _LOGGER.exception("%d traced requests could not be sent", len(batch))
            arrived = False
        if arrived:
            self.sent += len(batch)
        else:
            self.lost += len(batch)
        if arrived != self._is_reached:
            self._is_reached = arrived
            _LOGGER.warning("the collector of traces %s", "is back" if arrived else "does not take them; they are lost")


class _TraceCounters(Collector):
    """Reads the counters when they are scraped."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def collect(self) -> Iterator[Metric]:
        traces = CounterMetricFamily(
            "skewless_traces",
            "Traced requests by what became of them.",
            labels=("outcome",),
        )
        seen = self._tracing
        counts = {"sent": seen.sent, "lost": seen.lost, "dropped": seen.dropped, "limited": seen.limited}
        for outcome, count in counts.items():
            traces.add_metric((outcome,), count)
        yield traces


@contextmanager
def traced_call(name: str, clock: MonotonicClock, attributes: dict[str, AttributeValue]) -> Iterator[None]:
    """Notes a call made inside for whoever it is made for, and tells its server; nothing where nobody is traced."""
    call = begin_call(name, clock())
    if call is None:
        yield
        return
    call.attributes |= attributes
    call.attributes["skewless.requests"] = len(call.askers)
    token = OUTGOING.set(call.headers)
    try:
        yield
    except SkewlessError as error:
        call.error = error.code
        raise
    finally:
        call.ended_ns = clock()
        OUTGOING.reset(token)
