"""How scheduled views stand, which due times are taken, and which schedulers are alive.

Any number of schedulers may share the tables: a due time is begun by whoever changes the view's row first, and what a
dead scheduler was running is begun again by the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from skewless.features.schedule import Outcome, Run, ScheduleState, ended, started
from skewless.ingest_limits import SCHEDULE_HOLD_S, SCHEDULE_SEEN_KEEP_S, SCHEDULE_TOLD_CHARACTERS
from skewless.registry.schedule_tables import ScheduleRow, SchedulerRow
from skewless.registry.transactions import RegistryPart
from skewless.timestamps import SECOND_US

_HOLD_US = int(SCHEDULE_HOLD_S * SECOND_US)
_KEEP_US = int(SCHEDULE_SEEN_KEEP_S * SECOND_US)
_PLAIN = ("view", "expression", "attempts", "missed", "told", "owner", "version")
_TIMES = ("since", "due", "done", "next_try", "started", "ended", "last_success")
DIED = "its scheduler said nothing any more"


@dataclass(frozen=True, slots=True)
class SchedulerRecord:
    """A scheduler, by its id, and how many runs it has at once. `is_alive` is what was so when it was asked."""

    owner: str
    runs_max: int
    started: int
    seen: int
    is_alive: bool


class Schedules(RegistryPart):
    """See the module. Every method raises Unavailable when the database does not answer."""

    def states(self) -> dict[str, ScheduleState]:
        """Every scheduled view, by name."""
        with self._transactions.read() as session:
            rows = session.scalars(select(ScheduleRow).order_by(ScheduleRow.view))
            return {row.view: _state(row) for row in rows}

    def follow(self, expressions: Mapping[str, str]) -> dict[str, ScheduleState]:
        """Make these the scheduled views, by name with their cron expression; how they all stand then.

        A view that is new, or has another expression, is scheduled from now on. One that is scheduled no more is
        forgotten; what runs of it ends as it may.
        """
        now = self._clock()
        with self._transactions.write() as session:
            rows = {row.view: row for row in session.scalars(select(ScheduleRow).with_for_update())}
            for view in rows.keys() - expressions.keys():
                session.delete(rows.pop(view))
            for view, expression in expressions.items():
                if (row := rows.get(view)) is None:
                    row = rows[view] = ScheduleRow(view=view)
                    _write(row, ScheduleState(view, expression, since=now))
                    session.add(row)
                elif row.expression != expression:
                    _write(row, replace(_state(row), expression=expression, since=now))
            return {view: _state(rows[view]) for view in sorted(rows)}

    def claim(self, state: ScheduleState, run: Run, owner: str) -> ScheduleState | None:
        """Take a due time of a view that stands as `state` says; None where it stands otherwise by now."""
        with self._transactions.write() as session:
            row = session.get(ScheduleRow, state.view, with_for_update=True)
            if row is None or row.version != state.version:
                return None
            _write(row, started(_state(row), run, owner, self._clock()))
            return _state(row)

    def finish(self, claimed: ScheduleState, outcome: Outcome, told: str = "") -> bool:
        """Note how a claimed run ended; whether it still was the claimer's. `told` says why it did not end well."""
        with self._transactions.write() as session:
            row = session.get(ScheduleRow, claimed.view, with_for_update=True)
            if row is None or (row.owner, row.started_time) != (claimed.owner, claimed.started):
                return False
            if row.outcome != Outcome.RUNNING.value:
                return False
            _write(row, ended(_state(row), outcome, told[-SCHEDULE_TOLD_CHARACTERS:], self._clock()))
            return True

    def alive(self, owner: str, runs_max: int) -> tuple[str, ...]:
        """Say that a scheduler is alive, and free what dead ones were running; the views that were freed.

        One that ended long ago is forgotten.
        """
        now = self._clock()
        with self._transactions.write() as session:
            row = session.get(SchedulerRow, owner)
            if row is None:
                session.add(SchedulerRow(owner=owner, runs_max=runs_max, started_time=now, seen_time=now))
            else:
                row.seen_time = now
            session.flush()
            session.execute(delete(SchedulerRow).where(SchedulerRow.seen_time < now - _KEEP_US))
            return _free(session, now)

    def gone(self, owner: str) -> None:
        """Forget a scheduler that ends in good order."""
        with self._transactions.write() as session:
            session.execute(delete(SchedulerRow).where(SchedulerRow.owner == owner))

    def schedulers(self) -> tuple[SchedulerRecord, ...]:
        """Schedulers of the last day, those that were seen last first."""
        now = self._clock()
        with self._transactions.read() as session:
            rows = session.scalars(select(SchedulerRow).order_by(SchedulerRow.seen_time.desc(), SchedulerRow.owner))
            return tuple(
                SchedulerRecord(row.owner, row.runs_max, row.started_time, row.seen_time, _is_alive(row, now))
                for row in rows
            )


def _free(session: Session, now: int) -> tuple[str, ...]:
    """Mark as interrupted what runs under schedulers that are not alive."""
    running = list(session.scalars(select(ScheduleRow).where(ScheduleRow.outcome == Outcome.RUNNING.value)))
    if not running:
        return ()
    known = session.scalars(select(SchedulerRow))
    alive = {row.owner for row in known if _is_alive(row, now)}
    dead = [row for row in running if row.owner not in alive]
    for row in dead:
        _write(row, ended(_state(row), Outcome.INTERRUPTED, DIED, now))
    return tuple(row.view for row in dead)


def _is_alive(row: SchedulerRow, now: int) -> bool:
    # A moment that is far ahead was written before the clock was put right.
    return abs(now - row.seen_time) <= _HOLD_US


def _state(row: ScheduleRow) -> ScheduleState:
    values = {name: getattr(row, name) for name in _PLAIN} | {name: getattr(row, f"{name}_time") for name in _TIMES}
    return ScheduleState(**values, outcome=None if row.outcome is None else Outcome(row.outcome))


def _write(row: ScheduleRow, state: ScheduleState) -> None:
    for name in _PLAIN:
        setattr(row, name, getattr(state, name))
    for name in _TIMES:
        setattr(row, f"{name}_time", getattr(state, name))
    row.outcome = None if state.outcome is None else state.outcome.value
    row.version = state.version + 1
