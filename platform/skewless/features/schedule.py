"""When a scheduled view is due, and what a scheduler does about it: pure functions of a schedule's state and a time.

    due times  ──▶ newest one that has come ──▶ claimed by one scheduler ──▶ run ──▶ done
                   (missed ones before it are                      │          │
                    made up by the same run)                       │          └─ failed, refused ─ back-off ─▶ run
                                                                   └─ scheduler died ─▶ run again at once

A due time is handled once: by a run that ends well, or by SCHEDULE_ATTEMPTS_MAX runs that do not. Materializing takes
everything that is new, so one run makes up for any number of due times that were missed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from skewless.features.definition_metadata import ViewMetadata
from skewless.ingest_limits import (
    SCHEDULE_ATTEMPTS_MAX,
    SCHEDULE_CLOCK_AHEAD_S,
    SCHEDULE_MISSED_COUNTED_MAX,
    SCHEDULE_REFUSED_WAIT_S,
    SCHEDULE_RETRY_S,
    SCHEDULE_VIEWS_MAX,
)
from skewless.timestamps import SECOND_US


class DueTimes(Protocol):
    """The moments of a cron expression, in µs."""

    def next_after(self, moment: int) -> int | None:
        """The first one after a moment; None where none ever comes."""

    def last_until(self, moment: int) -> int | None:
        """The last one at or before a moment; None where there was none."""


class Outcome(StrEnum):
    """How the newest run of a view stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    """Another run of the view was under way, such as one by hand."""
    INTERRUPTED = "interrupted"
    """Its scheduler was stopped or died; whoever comes next runs it again at once."""


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """What is remembered of one view's schedule. Moments are µs, None where there was none.

    `since` is when this expression was first seen: what was due before is nobody's. `due` is the due time that was
    handled last, or is being handled; `attempts` counts its runs.
    """

    view: str
    expression: str
    since: int
    due: int | None = None
    outcome: Outcome | None = None
    done: int | None = None
    """The due time whose run ended well last."""
    attempts: int = 0
    next_try: int | None = None
    started: int | None = None
    ended: int | None = None
    last_success: int | None = None
    missed: int = 0
    """Due times that the run of `due` made up for."""
    told: str = ""
    """Why the newest run did not end well; empty where it did."""
    owner: str = ""
    """The scheduler that runs it, or ran it last."""
    version: int = 0
    """Grows with each change; who read an older one has been overtaken."""

    @property
    def is_open(self) -> bool:
        """Whether a due time was claimed that is not done, and will be tried again."""
        return self.outcome not in (None, Outcome.DONE) and not self.is_given_up

    @property
    def is_given_up(self) -> bool:
        """Whether the due time was tried as often as it is; the next one begins anew."""
        return self.outcome in (Outcome.FAILED, Outcome.REFUSED) and self.attempts >= SCHEDULE_ATTEMPTS_MAX


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is to begin: for which due time, which attempt at it, and how many due times it makes up for."""

    due: int
    attempt: int
    missed: int


def scheduled(views: Mapping[str, ViewMetadata]) -> dict[str, str]:
    """The cron expression of every view that has one and is kept online, by name; at most SCHEDULE_VIEWS_MAX."""
    found = {name: view.schedule for name, view in sorted(views.items()) if view.schedule and view.online}
    return dict(list(found.items())[:SCHEDULE_VIEWS_MAX])


def to_run(state: ScheduleState, due_times: DueTimes, now: int) -> Run | None:
    """The run that is to begin at `now` (µs); None where none is.

    A state whose due time lies more than SCHEDULE_CLOCK_AHEAD_S in the future was written while a clock was wrong, and
    counts as if nothing had been handled yet.

    >>> from skewless.features.schedule import ScheduleState
    >>> class Every10s:
    ...     def next_after(self, moment): return moment // 10 * 10 + 10
    ...     def last_until(self, moment): return moment // 10 * 10
    >>> to_run(ScheduleState("weather", "", since=5), Every10s(), 9) is None  # due before anybody asked for it
    True
    >>> to_run(ScheduleState("weather", "", since=5), Every10s(), 31)
    Run(due=30, attempt=1, missed=2)
    """
    if state.outcome is Outcome.RUNNING:
        return None
    handled = handled_due(state, now)
    latest = due_times.last_until(now)
    after = state.since if handled is None else max(handled, state.since)
    if latest is not None and latest > after:
        return Run(latest, 1, _missed(due_times, after, latest))
    if handled is None or not state.is_open:
        return None
    if state.next_try is not None and now < state.next_try <= now + longest_wait_us():
        return None
    return Run(handled, state.attempts + 1, state.missed)


def handled_due(state: ScheduleState, now: int) -> int | None:
    """The due time that was handled; None where none was, or where it was written by a clock that was ahead."""
    if state.due is None or state.due > now + int(SCHEDULE_CLOCK_AHEAD_S * SECOND_US):
        return None
    return state.due


def ended(state: ScheduleState, outcome: Outcome, told: str, now: int) -> ScheduleState:
    """The state after its run has ended.

    An interrupted run is no attempt: it says nothing about the view.
    """
    next_try: int | None = None
    attempts = state.attempts
    if outcome is Outcome.INTERRUPTED:
        next_try, attempts = now, max(attempts - 1, 0)
    elif outcome is Outcome.FAILED:
        next_try = now + int(retry_wait_s(attempts) * SECOND_US)
    elif outcome is Outcome.REFUSED:
        next_try = now + int(SCHEDULE_REFUSED_WAIT_S * SECOND_US)
    is_done = outcome is Outcome.DONE
    return replace(
        state,
        outcome=outcome,
        done=state.due if is_done else state.done,
        attempts=attempts,
        next_try=None if attempts >= SCHEDULE_ATTEMPTS_MAX else next_try,
        ended=now,
        last_success=now if is_done else state.last_success,
        told="" if is_done else told,
    )


def started(state: ScheduleState, run: Run, owner: str, now: int) -> ScheduleState:
    """The state while a run is under way."""
    return replace(
        state,
        due=run.due,
        outcome=Outcome.RUNNING,
        attempts=run.attempt,
        next_try=None,
        started=now,
        ended=None,
        missed=run.missed,
        owner=owner,
    )


def retry_wait_s(attempts: int) -> float:
    """Seconds between the end of so many runs that failed and the next.

    >>> [retry_wait_s(count) for count in (1, 2, 3)]
    [60.0, 120.0, 240.0]
    """
    return SCHEDULE_RETRY_S * 2.0 ** (max(attempts, 1) - 1)


def longest_wait_us() -> int:
    """The longest wait that a run is put off by; a later `next_try` was written by a clock that was ahead."""
    return int(max(retry_wait_s(SCHEDULE_ATTEMPTS_MAX), SCHEDULE_REFUSED_WAIT_S) * SECOND_US)


def lateness_us(state: ScheduleState, due_times: DueTimes, now: int) -> int:
    """For how long the oldest due time that has come and is not done has been waiting, in µs; 0 where none is.

    One that was given up counts until a run ends well: its rows are not in the store.
    """
    done = state.done if state.done is not None and state.done <= now else None
    oldest = due_times.next_after(state.since if done is None else max(done, state.since))
    return 0 if oldest is None or oldest > now else now - oldest


def _missed(due_times: DueTimes, after: int, latest: int) -> int:
    """How many due times lie between; counted up to SCHEDULE_MISSED_COUNTED_MAX."""
    count = 0
    moment = due_times.next_after(after)
    while moment is not None and moment < latest and count < SCHEDULE_MISSED_COUNTED_MAX:
        count += 1
        moment = due_times.next_after(moment)
    return count
