"""Which predictions are computed now, which wait for their turn, and which are refused at once.

    refuse_if_full    before the body is read: too many wait already
    admitted          a place is free, nobody waits ──▶ inside          (the way of nearly every request: 2 µs)
                      else ──▶ the endpoint's line ──its turn──▶ inside
                                   └─ too late for its deadline, or waited too long ──▶ refused

Each endpoint has a limit of its own, found by `serving/concurrency_limit.py`, and a line of its own; lines take turns
by rows (`serving/fair_queue.py`) where all endpoints together are at the bound of the process.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from types import TracebackType

from skewless.errors import DeadlineExceeded, Overloaded
from skewless.limits import (
    ENDPOINT_IN_FLIGHT_MAX,
    ENDPOINT_IN_FLIGHT_START,
    ENDPOINT_QUEUE_MAX,
    ENDPOINT_QUEUE_MS,
    REQUESTS_IN_FLIGHT_MAX,
    RETRY_AFTER_S,
    ROWS_IN_FLIGHT_MAX,
    ROWS_QUEUED_MAX,
)
from skewless.serving.concurrency_limit import LATE_SHARE, ConcurrencyLimit
from skewless.serving.deadline import Deadline, MonotonicClock
from skewless.serving.fair_queue import FairQueue, Line
from skewless.timestamps import Micros
from skewless_gateway.admission_lane import DEADLINE, QUEUE_FULL, TOO_LATE, WAITED, Lane, Waiter
from skewless_gateway.admission_metrics import AdmissionMetrics, AdmissionReading

PART = "the endpoint"
_NS_PER_S = 1_000_000_000
_NS_PER_MS = 1_000_000
_RETRY_SPREAD_S = 3.0
"""Callers that were refused together come back spread over so many seconds, and over more the more they are."""
_RETRY_MAX_S = 30.0
_REFUSING_NS = 100 * _NS_PER_MS
"""For so long after a refusal there is taken to be too much to do."""
_STANDING = 1.5
"""Times the wait that is planned for, from which a line is served from its end: it does not move as it should."""
_PATIENCE = 2.0
"""Times the wait that is planned for, after which a request is refused: waiting on would only make it later."""
_WAIT_SHARE = 0.3
"""Of what is left of its deadline a request may have to wait, so that what it waits for still has most of it."""
_BACKGROUND_SHARE = 0.5
"""Of the limit may be taken by requests in the background, while nobody else waits."""


class Admission:
    """Admits predictions of one event loop."""

    def __init__(
        self,
        *,
        clock: MonotonicClock,
        now: Callable[[], Micros],
        random: Callable[[], float],
        metrics: AdmissionMetrics,
        in_flight_max: int = ENDPOINT_IN_FLIGHT_MAX,
        queue_ms: int = ENDPOINT_QUEUE_MS,
    ) -> None:
        """`now` is the wall clock, by which gateways that share what is behind them probe at the same moments;
        `random` gives numbers from 0 to 1, to spread those who come back. `in_flight_max` is the most of one endpoint,
        and `queue_ms` how long one may have to wait; with 0 nobody waits.
        """
        self.clock = clock
        self._now = now
        self._random = random
        self._metrics = metrics
        self._in_flight_max = in_flight_max
        self._queue_ns = queue_ms * _NS_PER_MS
        self._lanes: dict[str, Lane] = {}
        self._queue: FairQueue[Waiter] = FairQueue()
        self._background: FairQueue[Waiter] = FairQueue()
        self.in_flight = 0
        """Predictions being computed."""
        self.answered = 0
        """Predictions that were answered since the process began."""
        self._rows_in_flight = 0
        self._refused_ns = -_REFUSING_NS
        metrics.watch(self.readings)

    @property
    def waiting(self) -> int:
        """Predictions that wait for their turn."""
        return self._queue.waiting + self._background.waiting

    @property
    def is_refusing(self) -> bool:
        """Whether somebody was refused a moment ago because too much is asked."""
        return self.clock() - self._refused_ns < _REFUSING_NS

    def refuse_if_full(self, endpoint: str, deadline_ms: int | None = None) -> None:
        """Raise Overloaded where a request would wait too long, for its deadline (where it is known) or at all.

        An endpoint that was never asked is not full; nor is one that does not exist.
        """
        lane = self._lanes.get(endpoint)
        if lane is None or (not lane.waiting and (self._queue_ns or self._has_place(lane, rows=1))):
            return
        wait_ns = lane.wait_ns(len(lane) + 1)
        if self._is_full(lane, wait_ns):
            raise self._overloaded(lane, QUEUE_FULL)
        if deadline_ms is not None and wait_ns > min(
            deadline_ms * _NS_PER_MS - lane.likely_ns(), _WAIT_SHARE * deadline_ms * _NS_PER_MS
        ):
            raise self._overloaded(lane, TOO_LATE)

    def admitted(self, endpoint: str, deadline: Deadline, *, rows: int = 1, background: bool = False) -> "Place":
        """A context in which the request holds a place; entering it waits for its turn.

        Entering raises Overloaded where its turn does not come in time, and DeadlineExceeded where the deadline is
        shorter than the endpoint ever needs. A request in the background takes no place that another one wants.
        """
        lane = self._lanes.get(endpoint)
        if lane is None:
            lane = self._lanes[endpoint] = self._new_lane(endpoint)
        return Place(self, lane, deadline, rows, background=background)

    def keep_only(self, endpoints: Collection[str]) -> None:
        """Forget endpoints that are gone, but for those that are still asked."""
        for name, lane in [*self._lanes.items()]:
            if name not in endpoints and not lane.in_flight and not lane.waiting and not lane.background.waiting:
                del self._lanes[name]
                with suppress(KeyError):  # nobody ever waited for it
                    self._metrics.forget(name)

    def readings(self) -> Iterator[AdmissionReading]:
        """The state of every endpoint that was asked."""
        for name, lane in self._lanes.items():
            waiting = len(lane) + len(lane.background)
            yield AdmissionReading(name, lane.limit.value, lane.in_flight, waiting, lane.refused)

    def _new_lane(self, endpoint: str) -> Lane:
        start = min(ENDPOINT_IN_FLIGHT_START, self._in_flight_max)
        wall_ns = self._now() * 1_000
        limit = ConcurrencyLimit(start=start, highest=self._in_flight_max, now_ns=self.clock(), wall_ns=wall_ns)
        return Lane(endpoint, limit)

    def _has_place(self, lane: Lane, rows: int) -> bool:
        return (
            lane.in_flight < lane.limit.value
            and self.in_flight < REQUESTS_IN_FLIGHT_MAX
            and (self._rows_in_flight + rows <= ROWS_IN_FLIGHT_MAX or not self._rows_in_flight)
        )

    def _has_spare_place(self, lane: Lane, rows: int) -> bool:
        """Whether a request in the background may be computed."""
        in_background = lane.in_flight < max(1, int(lane.limit.value * _BACKGROUND_SHARE))
        return in_background and not lane.waiting and self._has_place(lane, rows)

    def _is_full(self, lane: Lane, wait_ns: float) -> bool:
        """Whether one more may not wait. One always may, so that a place that is given back is taken at once."""
        waiting = len(lane)
        is_long = wait_ns > self._queue_ns and waiting >= 1
        return not self._queue_ns or is_long or waiting >= ENDPOINT_QUEUE_MAX or self._queue.rows >= ROWS_QUEUED_MAX

    async def wait(self, lane: Lane, deadline: Deadline, rows: int, *, background: bool) -> None:
        """Return when the turn of a request has come and it has a place."""
        waiter = self._enqueued(lane, deadline, rows, background=background)
        queue, line = (self._background, lane.background) if background else (self._queue, lane)
        queue.push(line, waiter, rows)
        loop = waiter.turn.get_loop()
        left_s = (waiter.last_ns - waiter.arrived_ns) / _NS_PER_S
        timer = loop.call_later(left_s, self._expire, queue, line, waiter)
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if not queue.remove(line, waiter) and _has_come(waiter.turn):
                self.leave(lane, rows)  # it was let in and went away in the same moment
            raise
        finally:
            timer.cancel()
        if not background:
            self._metrics.waited(lane.endpoint, (self.clock() - waiter.arrived_ns) / _NS_PER_S)

    def _enqueued(self, lane: Lane, deadline: Deadline, rows: int, *, background: bool) -> Waiter:
        """A request that may wait, not in line yet. Raises Overloaded where it may not."""
        now_ns = self.clock()
        left_ns = deadline.left_ns(now_ns)
        turn = asyncio.get_running_loop().create_future()
        if background:
            if len(lane.background) >= ENDPOINT_QUEUE_MAX or self._background.rows >= ROWS_QUEUED_MAX:
                raise self._overloaded(lane, QUEUE_FULL)
            return Waiter(lane, rows, now_ns, now_ns + max(0, left_ns), turn)
        wait_ns = lane.wait_ns(len(lane) + 1)
        if self._is_full(lane, wait_ns):
            raise self._overloaded(lane, QUEUE_FULL)
        patience_ns = left_ns - lane.likely_ns()
        if wait_ns > min(patience_ns, _WAIT_SHARE * left_ns):
            raise self._overloaded(lane, TOO_LATE)
        return Waiter(lane, rows, now_ns, now_ns + int(min(patience_ns, _PATIENCE * self._queue_ns)), turn)

    def _expire(self, queue: FairQueue[Waiter], line: Line[Waiter], waiter: Waiter) -> None:
        if queue.remove(line, waiter) and not waiter.turn.done():
            waiter.turn.set_exception(self._overloaded(waiter.lane, WAITED))

    def may_enter(self, lane: Lane, rows: int, *, background: bool) -> bool:
        """Whether a request that comes now needs not wait."""
        if background:
            return not lane.background.waiting and self._has_spare_place(lane, rows)
        return not lane.waiting and self._has_place(lane, rows)

    def check_deadline(self, lane: Lane, deadline: Deadline, now_ns: int) -> None:
        """Raise DeadlineExceeded where even the fastest of the last answers took longer than is left."""
        left_ns, low_ns = deadline.left_ns(now_ns), lane.low.at(now_ns)
        if left_ns <= low_ns:
            lane.refused[DEADLINE] += 1
            raise deadline.exceeded(PART, left_s=left_ns / _NS_PER_S, needs_s=low_ns / _NS_PER_S)

    def enter(self, lane: Lane, rows: int) -> None:
        """Take a place."""
        lane.in_flight += 1
        self.in_flight += 1
        self._rows_in_flight += rows

    def leave(self, lane: Lane, rows: int) -> None:
        """Give a place back, to whoever's turn it is."""
        lane.in_flight -= 1
        self.in_flight -= 1
        self._rows_in_flight -= rows
        if self._queue.waiting:
            self._let_in(self._queue, self._may_go)
        if self._background.waiting:
            self._let_in(self._background, self._may_go_behind)

    def _let_in(self, queue: FairQueue[Waiter], may_go: Callable[[Line[Waiter]], bool]) -> None:
        while (waiter := queue.pop(may_go=may_go, newest_first=self._is_standing)) is not None:
            if not waiter.turn.done():  # else it hung up in this moment
                self.enter(waiter.lane, waiter.rows)
                waiter.turn.set_result(None)

    def _may_go(self, line: Line[Waiter]) -> bool:
        waiter = line.oldest()
        return self._has_place(waiter.lane, waiter.rows)

    def _may_go_behind(self, line: Line[Waiter]) -> bool:
        waiter = line.oldest()
        return self._has_spare_place(waiter.lane, waiter.rows)

    def _is_standing(self, line: Line[Waiter]) -> bool:
        """Whether a line does not move as it should: then who came last has the best chance to be answered in time."""
        return self.clock() - line.oldest().arrived_ns > _STANDING * self._queue_ns

    def _overloaded(self, lane: Lane, reason: str) -> Overloaded:
        self._refused_ns = self.clock()
        lane.shed_one(self._refused_ns, reason)
        spread_s = self._random() * _RETRY_SPREAD_S * (1.0 + lane.pressure)
        drain_s = lane.wait_ns(len(lane) + lane.in_flight) / _NS_PER_S
        return Overloaded(
            f"{PART} `{lane.endpoint}`",
            f"{lane.in_flight} predictions are computed and {len(lane)} wait, as many as can be answered in time",
            retry_after_s=min(_RETRY_MAX_S, max(RETRY_AFTER_S, drain_s + spread_s)),
            hint="retry when Retry-After says, send less, or start more gateways",
        )


def _has_come(turn: "asyncio.Future[None]") -> bool:
    return turn.done() and not turn.cancelled() and turn.exception() is None


class Place:
    """A place in the computation, from `__aenter__` on. Made by `Admission.admitted`, used once."""

    __slots__ = ("_admission", "_background", "_deadline", "_entered_ns", "_epoch", "_lane", "_rows")

    def __init__(self, admission: Admission, lane: Lane, deadline: Deadline, rows: int, *, background: bool) -> None:
        self._admission = admission
        self._lane = lane
        self._deadline = deadline
        self._rows = rows
        self._background = background
        self._entered_ns = self._epoch = 0

    async def __aenter__(self) -> None:
        admission, lane = self._admission, self._lane
        if admission.may_enter(lane, self._rows, background=self._background):
            now_ns = admission.clock()
            admission.check_deadline(lane, self._deadline, now_ns)
            admission.enter(lane, self._rows)
        else:
            await admission.wait(lane, self._deadline, self._rows, background=self._background)
            now_ns = admission.clock()
        self._entered_ns = now_ns
        self._epoch = lane.limit.epoch

    async def __aexit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        admission, lane = self._admission, self._lane
        # Whoever is refused, wrong or gone says nothing about how fast answers are made.
        if (kind is None or kind is DeadlineExceeded) and not self._background:
            now_ns = admission.clock()
            took_ns = now_ns - self._entered_ns
            allowed_ns = LATE_SHARE * self._deadline.total_ns
            lane.limit.answered(now_ns, took_ns, epoch=self._epoch, allowed_ns=allowed_ns)
            if kind is None:
                lane.learn(now_ns, took_ns)
        admission.answered += kind is None
        admission.leave(lane, self._rows)
