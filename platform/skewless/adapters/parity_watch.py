"""The running parity monitor: finds sampled predictions, waits until the offline store has passed them, compares them.

    look      how many sampled predictions the log has, by step and bundle          `LogReader.sampled_steps`
    ready     steps whose views' sources have got past them                        `parity/schedule.py`
    compare   what is ready, portion by portion, and once more when it is final    `parity_portions.py`
    note      what was found, together with what it was found in                  `registry/parity_history.py`

All that it knows is in the log and in the database: it can be ended anywhere, and goes on where it was.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from skewless.adapters.log_reader import LogReader
from skewless.adapters.parity_checker import Checker
from skewless.adapters.parity_portions import Compared, compare_sampled
from skewless.canonical_json import Digest
from skewless.errors import InvalidDefinition, NotFound, SkewlessError
from skewless.monitor_limits import (
    PARITY_FULL_LOOK_S,
    PARITY_LOOK_BACK_S,
    PARITY_LOOK_S,
    PARITY_RECENT_S,
    PARITY_RUN_S_MAX,
)
from skewless.parity.schedule import (
    PERIOD_US,
    SETTLE_US,
    STEP_US,
    Moment,
    Pass,
    Portion,
    Step,
    is_ready,
    period_of,
    portions,
)
from skewless.registry.parity_history import NotedPass, ParityExample, ParityHistory
from skewless.registry.transactions import system_clock
from skewless.serving.monitoring_policy import ParityPolicy
from skewless.timestamps import SECOND_US

_RECENT_US = int(PARITY_RECENT_S * SECOND_US)
_LOOK_BACK_US = int(PARITY_LOOK_BACK_S * SECOND_US)


@dataclass(frozen=True, slots=True)
class Watched:
    """An endpoint to be watched, with its policy."""

    endpoint: str
    policy: ParityPolicy


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run came to: whether there is more to do at once, and else in how many seconds there may be something."""

    more: bool
    next_s: float | None
    compared: int = 0
    """Predictions compared, in either pass."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """By endpoint, why it was not compared; the next run tries again."""


@dataclass(slots=True)
class _Sight:
    """What is known of one endpoint: steps that are not compared yet, and predictions by hour."""

    newest: int
    moment: Moment
    full_look_s: float | None = None
    """When all was looked through, on the monotonic clock."""
    open: dict[int, Step] = field(default_factory=dict)
    hours: dict[int, int] = field(default_factory=dict)
    """Of the hours looked at in full."""


@dataclass(frozen=True, slots=True)
class _Means:
    """What a turn works with."""

    history: ParityHistory
    open_checker: Callable[[], AbstractContextManager[Checker]]
    clock: Callable[[], int]
    monotonic: Callable[[], float]


class ParityWatch:
    """Watches endpoints of one registry; for one thread, and for one process at a time."""

    def __init__(
        self,
        history: ParityHistory,
        open_log: Callable[[], AbstractContextManager[LogReader]],
        open_checker: Callable[[], AbstractContextManager[Checker]],
        *,
        clock: Callable[[], int] = system_clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """A checker is opened for each run in which there is something to compare."""
        self._means = _Means(history, open_checker, clock, monotonic)
        self._history = history
        self._open_log = open_log
        self._clock = clock
        self._monotonic = monotonic
        self._sights: dict[str, _Sight] = {}

    def run(self, watched: Sequence[Watched], stop: threading.Event) -> Ran:
        """Look at endpoints and compare what is ready, for some PARITY_RUN_S_MAX; who waits longest has the first turn.

        An endpoint that fails does not keep the others from their turn. Raises the first error where all of them fail.
        """
        give_up_s = self._monotonic() + PARITY_RUN_S_MAX
        ran: list[Ran] = []
        failed: dict[str, SkewlessError] = {}
        with self._open_log() as log:
            in_turn = self._in_turn(watched)
            for place, each in enumerate(in_turn):
                if stop.is_set() or (place and self._monotonic() >= give_up_s):
                    # Those left keep the time of their last turn, by which the next run has them first.
                    ran.append(Ran(not stop.is_set(), None))
                    break
                try:
                    ran.append(self._turn(log, each, stop, give_up_s))
                except SkewlessError as error:
                    failed[each.endpoint] = error
        if failed and not ran:
            raise next(iter(failed.values()))
        waits = [each.next_s for each in ran if each.next_s is not None] + [PARITY_LOOK_S] * bool(failed)
        told = {endpoint: error.message for endpoint, error in failed.items()}
        return Ran(any(each.more for each in ran), min(waits, default=None), sum(each.compared for each in ran), told)

    def _in_turn(self, watched: Sequence[Watched]) -> list[Watched]:
        """The endpoints by the wall clock of their last turn, which also a process that is replaced remembers."""
        last = {each.endpoint: int(each.state["wall"]) for each in self._history.states()}
        return sorted(watched, key=lambda each: last.get(each.endpoint, -1))

    def _turn(self, log: LogReader, watched: Watched, stop: threading.Event, give_up_s: float) -> Ran:
        """One endpoint's part of a run."""
        sight = self._look(log, watched)
        if sight is None or stop.is_set():
            return Ran(False, None)
        return _Turn(self._means, log, watched, sight, stop, give_up_s).run()

    def _look(self, log: LogReader, watched: Watched) -> _Sight | None:
        """Bring what is known of an endpoint up to the log; None where it has no sampled prediction."""
        sight = self._sights.get(watched.endpoint)
        wall = self._clock()
        if sight is None:
            sight = self._remembered(watched.endpoint, wall)
        now_s = self._monotonic()
        full = sight.full_look_s is None or now_s - sight.full_look_s >= PARITY_FULL_LOOK_S
        since = None
        if sight.newest >= 0:
            since = period_of(sight.newest - (_LOOK_BACK_US if full else _RECENT_US))
        found = _by_step(log.sampled_steps(watched.endpoint, since, step_us=STEP_US))
        done = self._history.passes(watched.endpoint, Pass.THEN, since)
        final = self._history.passes(watched.endpoint, Pass.FINALLY, since)
        # All is read that may fail: what is known changes as a whole.
        newest = max(found, default=-1)
        sight.newest = max(sight.newest, newest)
        if sight.newest < 0:
            return None
        sight.moment = sight.moment.then(wall, sight.newest)
        if full:
            sight.full_look_s = now_s
            sight.open.clear()
            sight.hours.clear()
        _take(sight, found, done, final)
        self._sights[watched.endpoint] = sight
        return sight

    def _remembered(self, endpoint: str, wall: int) -> _Sight:
        """What an earlier process knew of the endpoint's time."""
        for each in self._history.states():
            if each.endpoint == endpoint:
                return _Sight(int(each.state["newest"]), Moment(int(each.state["now"]), int(each.state["wall"])))
        return _Sight(-1, Moment(-1, wall))


class _Turn:
    """One run over one endpoint."""

    def __init__(
        self,
        means: _Means,
        log: LogReader,
        watched: Watched,
        sight: _Sight,
        stop: threading.Event,
        give_up_s: float,
    ) -> None:
        self._means = means
        self._history = means.history
        self._log = log
        self._watched = watched
        self._sight = sight
        self._stop = stop
        self._give_up_s = give_up_s
        self._now = sight.moment.now
        self._compared = 0
        self._delays: list[float] = []
        self._unchecked: dict[Digest, str] = {}
        self._passed: dict[str, int] = {}

    def run(self) -> Ran:
        sight, horizon_us = self._sight, self._watched.policy.horizon_us
        # What is older than the horizon is left to the final pass: so what is behind is bounded.
        first = self._now - horizon_us
        steps = [each for each in sight.open.values() if each.end > first and self._now >= each.end + SETTLE_US]
        hours = self._final_hours()
        more, waiting, lost = False, 0, {}
        if steps or hours:
            try:
                with self._means.open_checker() as checker:
                    ready = self._ready(steps, checker)
                    waiting = sum(each.total for each in steps) - sum(each.total for each in ready)
                    # The oldest hour goes first, since a first pass that is always behind would keep it for ever.
                    more = (
                        self._finally(hours[:1], checker)
                        or self._then(portions(ready), checker)
                        or self._finally(hours[1:], checker)
                    )
                    lost = checker.not_comparable
            except SkewlessError as error:
                # What waits is told with the reason, and the endpoint has had its turn.
                self._note_state(first, waiting, lost, failed=error.message)
                raise
        self._note_state(first, waiting, lost)
        return Ran(more, self._next_s(first), self._compared)

    def _ready(self, steps: Sequence[Step], checker: Checker) -> list[Step]:
        passed: dict[Digest, int] = {}
        for digest in sorted({digest for step in steps for digest in step.rows}):
            try:
                progress = checker.progress(digest)
            except (NotFound, InvalidDefinition) as error:
                self._unchecked[digest] = error.message
                continue
            passed[digest] = progress.least
            for view, moment in progress.passed.items():
                self._passed[view] = moment
        quiet_us = self._watched.policy.quiet_us
        return [each for each in steps if is_ready(each, passed, now=self._now, quiet_us=quiet_us)]

    def _final_hours(self) -> list[int]:
        """Hours that are final now, and of which the log has more than a final pass has seen."""
        horizon_us = self._watched.policy.horizon_us
        over = [each for each in self._sight.hours if self._now >= each + PERIOD_US + max(horizon_us, SETTLE_US)]
        if not over:
            return []
        noted = self._history.passes(self._watched.endpoint, Pass.FINALLY, min(over))
        return sorted(each for each in over if each not in noted or noted[each].rows < self._sight.hours[each])

    def _is_over(self) -> bool:
        return self._stop.is_set() or self._means.monotonic() >= self._give_up_s

    def _then(self, due: Any, checker: Checker) -> bool:
        """The first pass over what is ready; whether some is left."""
        for portion in due:
            if self._is_over():
                return True
            self._compare(portion, checker)
        return False

    def _compare(self, portion: Portion, checker: Checker) -> None:
        endpoint, starts = self._watched.endpoint, {each.start for each in portion.steps}
        found = compare_sampled(self._log, checker, endpoint, portion.start, portion.end, wanted=starts.__contains__)
        # A step whose rows have gone from the log meanwhile is done as well.
        steps = dict.fromkeys(sorted(starts), 0) | found.steps
        self._history.note_then(endpoint, steps, found.tally, self._examples(found, Pass.THEN))
        for start in starts:
            self._sight.open.pop(start, None)
        self._took(found)
        wall_behind = self._now_of_endpoint() - portion.start
        self._delays.append(wall_behind / SECOND_US)

    def _finally(self, hours: Sequence[int], checker: Checker) -> bool:
        """The final pass over whole hours; whether some are left."""
        for period in hours:
            if self._is_over():
                return True
            endpoint = self._watched.endpoint
            found = compare_sampled(self._log, checker, endpoint, period, period + PERIOD_US, wanted=lambda _step: True)
            self._history.note_finally(endpoint, period, found.steps, found.tally, self._examples(found, Pass.FINALLY))
            for start in [each for each in self._sight.open if period_of(each) == period]:
                del self._sight.open[start]
            self._took(found)
        if hours:
            self._history.forget(self._watched.endpoint, self._now)
        return False

    def _took(self, found: Compared) -> None:
        self._compared += found.rows
        self._unchecked |= found.unchecked

    def _examples(self, found: Compared, pass_: Pass) -> list[ParityExample]:
        return [
            ParityExample(
                self._watched.endpoint, period_of(min(found.steps)), pass_, digest, view, cause,
                str(told["prediction_id"]), told,
            )
            for digest, view, cause, told in found.examples
        ]  # fmt: skip

    def _now_of_endpoint(self) -> int:
        return self._sight.moment.then(self._means.clock(), self._sight.newest).now

    def _next_s(self, first: int) -> float | None:
        """When there may be something to do though the log stays as it is: sources move on, and hours become final."""
        if any(each.end > first for each in self._sight.open.values()):
            return PARITY_LOOK_S
        horizon_us = self._watched.policy.horizon_us
        noted = self._history.passes(self._watched.endpoint, Pass.FINALLY, self._sight.newest - _LOOK_BACK_US)
        due = [
            each + PERIOD_US + max(horizon_us, SETTLE_US) - self._now for each in self._sight.hours if each not in noted
        ]
        return max(PARITY_LOOK_S, min(due) / SECOND_US) if due else None

    def _note_state(
        self, first: int, waiting: int, lost: Mapping[Digest, tuple[str, ...]], *, failed: str = ""
    ) -> None:
        left = [each for each in self._sight.open.values() if each.end > first]
        known = self._known()
        # What this run had no reason to look at is as it was.
        told = {
            "verdict_s": max(self._delays, default=known.get("verdict_s")),
            "passed": self._passed or known.get("passed", {}),
            "unchecked": self._unchecked or ({} if self._compared else known.get("unchecked", {})),
            "not_comparable": {each: list(names) for each, names in lost.items()}
            or ({} if self._compared else known.get("not_comparable", {})),
        }
        self._history.note_state(
            self._watched.endpoint,
            {
                "newest": self._sight.newest,
                "now": self._now,
                "wall": self._sight.moment.wall,
                "backlog": sum(each.total for each in left),
                "waiting": waiting,
                "oldest": min((each.start for each in left), default=None),
                "quiet_us": self._watched.policy.quiet_us,
                "horizon_us": self._watched.policy.horizon_us,
                "failed": failed,
                **told,
            },
        )

    def _known(self) -> Mapping[str, Any]:
        """The state that an earlier run noted; nothing where none did."""
        for each in self._history.states():
            if each.endpoint == self._watched.endpoint:
                return each.state
        return {}


def _take(
    sight: _Sight, found: Mapping[int, Step], done: Mapping[int, NotedPass], final: Mapping[int, NotedPass]
) -> None:
    """Keep the steps that no pass has compared, and count the hours."""
    for period in {period_of(start) for start in found}:
        sight.hours[period] = 0
    for start, step in found.items():
        period = period_of(start)
        sight.hours[period] += step.total
        noted = done.get(period)
        if period in final or (noted is not None and start in noted.steps):
            sight.open.pop(start, None)
        else:
            sight.open[start] = step


def _by_step(table: Any) -> dict[int, Step]:
    rows: dict[int, dict[Digest, int]] = {}
    for each in table.to_pylist():
        rows.setdefault(int(each["step"]) * STEP_US, {})[Digest(each["bundle_digest"])] = int(each["rows"])
    return {start: Step(start, found) for start, found in rows.items()}
