"""One look of a scheduler: what has ended, what is scheduled by now, what is due, and what begins.

Everything that must outlive it is in the database; a look that fails anywhere is made good by the next.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from skewless.adapters.cron_times import CronTimes
from skewless.errors import InvalidDefinition
from skewless.features.definition_metadata import DefinitionSet
from skewless.features.schedule import Outcome, Run, ScheduleState, lateness_us, scheduled, to_run
from skewless.ingest_limits import (
    SCHEDULE_DEFINITIONS_S,
    SCHEDULE_RENEW_S,
    SCHEDULE_STOP_S,
    SCHEDULE_TOLD_CHARACTERS,
)
from skewless.registry.definitions import Definitions
from skewless.registry.schedules import Schedules
from skewless.registry.transactions import system_clock
from skewless.timestamps import SECOND_US, Micros, format_timestamp
from skewless_scheduler.children import Children, Ended

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ViewShown:
    """One scheduled view, for metrics. Times are µs; None where there was or will be none."""

    state: ScheduleState
    next_due: int | None
    late_us: int


@dataclass(slots=True)
class Counts:
    """What one scheduler did since it started."""

    runs: dict[tuple[str, Outcome], int] = field(default_factory=dict)
    run_s: dict[str, float] = field(default_factory=dict)
    looks: int = 0
    overtaken: int = 0
    """Due times that another scheduler took first."""


class Scheduler:
    """For one thread, which must live as long as the runs. `shown` may be read by others."""

    def __init__(
        self,
        schedules: Schedules,
        definitions: Definitions,
        children: Children,
        *,
        owner: str,
        runs_max: int,
        clock: Callable[[], Micros] = system_clock,
        follow_s: float = SCHEDULE_DEFINITIONS_S,
        renew_s: float = SCHEDULE_RENEW_S,
    ) -> None:
        """`follow_s` and `renew_s` are how often it looks for new definitions, and says that it is alive."""
        self._schedules = schedules
        self._definitions = definitions
        self._children = children
        self._owner = owner
        self._runs_max = runs_max
        self._clock = clock
        self._follow_s, self._renew_s = follow_s, renew_s
        self._seen_number: int | None = None
        self._seen_s = self._renewed_s = -float("inf")
        self._times: dict[str, CronTimes] = {}
        self._unfinished: list[Ended] = []
        self.counts = Counts()
        self.shown: tuple[ViewShown, ...] = ()
        self.refused: dict[str, str] = {}
        """Views whose schedule is wrong, with the reason."""

    def look(self) -> None:
        """Do what is to be done now. Raises Unavailable while the database is away; runs go on meanwhile."""
        self._unfinished.extend(self._children.ended())
        self._note_ended()
        self._renew()
        self._follow()
        self._begin()
        self.counts.looks += 1

    def stop(self) -> None:
        """End all runs; whoever comes next begins them again. Raises Unavailable where that cannot be noted."""
        self._unfinished.extend(self._children.stop(SCHEDULE_STOP_S))
        self._note_ended()
        self._schedules.gone(self._owner)

    @property
    def running(self) -> int:
        """Runs under way."""
        return len(self._children)

    def _note_ended(self) -> None:
        """Keep what runs came to; what cannot be kept now is tried again with the next look."""
        while self._unfinished:
            ended = self._unfinished[0]
            was_ours = self._schedules.finish(ended.claimed, ended.outcome, ended.told)
            self._unfinished.pop(0)
            self._count(ended)
            _tell(ended, was_ours=was_ours)

    def _count(self, ended: Ended) -> None:
        key = (ended.claimed.view, ended.outcome)
        self.counts.runs[key] = self.counts.runs.get(key, 0) + 1
        self.counts.run_s[ended.claimed.view] = ended.took_s

    def _renew(self) -> None:
        now_s = time.monotonic()
        if now_s - self._renewed_s < self._renew_s:
            return
        for view in self._schedules.alive(self._owner, self._runs_max):
            _LOGGER.warning("the scheduler that materialized %s has died; it is begun again", view)
        self._renewed_s = now_s

    def _follow(self) -> None:
        """Take up new definitions."""
        now_s = time.monotonic()
        if now_s - self._seen_s < self._follow_s:
            return
        head = self._definitions.head()
        number = None if head is None else head.number
        if number is not None and number != self._seen_number:
            current = self._definitions.current()
            assert current is not None, "versions are never taken away"
            self._take_up(current.definitions)
            self._seen_number = current.number
        self._seen_s = now_s

    def _take_up(self, definitions: DefinitionSet) -> None:
        expressions = scheduled(definitions.views)
        self._times, self.refused = {}, {}
        for view, expression in expressions.items():
            try:
                self._times[view] = CronTimes(expression)
            except InvalidDefinition as error:
                self.refused[view] = error.message
                _LOGGER.error("%s is not scheduled: %s", view, error)  # noqa: TRY400  # explained by its message
        self._schedules.follow({view: times.expression for view, times in self._times.items()})
        _LOGGER.info("%d views are scheduled", len(self._times))

    def _begin(self) -> None:
        """Begin what is due, that which is due longest first, as many at once as may be."""
        now = self._clock()
        states = {view: state for view, state in self._schedules.states().items() if view in self._times}
        due: list[tuple[int, str, Run]] = []
        for view, state in states.items():
            run = to_run(state, self._times[view], now)
            if run is not None and view not in self._children.views:
                due.append((run.due, view, run))
        for _, view, run in sorted(due, key=lambda each: each[:2])[: max(0, self._runs_max - len(self._children))]:
            states[view] = self._begun(states[view], run) or states[view]
        self.shown = tuple(
            ViewShown(state, self._times[view].next_after(now), lateness_us(state, self._times[view], now))
            for view, state in states.items()
        )

    def _begun(self, state: ScheduleState, run: Run) -> ScheduleState | None:
        claimed = self._schedules.claim(state, run, self._owner)
        if claimed is None:
            self.counts.overtaken += 1
            return None
        try:
            self._children.start(claimed)
        except OSError as error:
            told = f"no process could be started: {error}"
            self._unfinished.append(Ended(claimed, Outcome.FAILED, told, 0.0))
            return claimed
        _LOGGER.info(
            "materializing %s, due at %s%s%s",
            claimed.view,
            format_timestamp(run.due),
            f", attempt {run.attempt}" if run.attempt > 1 else "",
            f", which makes up for {run.missed} missed times" if run.missed else "",
        )
        return claimed


def _tell(ended: Ended, *, was_ours: bool) -> None:
    view, told = ended.claimed.view, ended.told[:SCHEDULE_TOLD_CHARACTERS]
    if not was_ours:
        _LOGGER.warning("a run of %s ended (%s) after another had been begun in its place", view, ended.outcome)
    elif ended.outcome is Outcome.DONE:
        _LOGGER.info("materialized %s in %.1f s", view, ended.took_s)
    elif ended.outcome is Outcome.FAILED:
        _LOGGER.error("materializing %s failed (attempt %d): %s", view, ended.claimed.attempts, told)
    else:
        _LOGGER.warning("materializing %s was %s: %s", view, ended.outcome, told)


def seconds(moment: int | None) -> float | None:
    """A moment as Unix time in seconds."""
    return None if moment is None else moment / SECOND_US
