"""What quality gates found, and which batches of rows they set aside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import groupby
from typing import Any

from sqlalchemy import and_, delete, func, select
from sqlalchemy.orm import Session, selectinload

from skewless.errors import Conflict, NotFound
from skewless.monitor_limits import QUALITY_RUNS_FORGOTTEN_AT_ONCE, QUALITY_RUNS_KEPT
from skewless.quality.verdict import Decision
from skewless.registry.quality_tables import QualityResultRow, QualityRunRow, QuarantineBatchRow
from skewless.registry.transactions import RegistryPart
from skewless.timestamps import Micros

REPLAY = "replay"
"""The origin of runs over rows out of quarantine."""
_OBSERVED = "value"


class QuarantineState(StrEnum):
    """What became of rows that were set aside."""

    HELD = "held"
    REPLAYED = "replayed"
    """They were judged again, and those that pass went on; those that do not are held in a batch of their own."""
    DROPPED = "dropped"
    """Somebody decided that they are not wanted."""


@dataclass(frozen=True, slots=True)
class ResultRecord:
    """What came of one expectation; `follows` is `pass` where it is met."""

    position: int
    type: str
    kwargs: Mapping[str, Any]
    severity: str
    follows: str
    success: bool
    unexpected: int | None
    unexpected_share: float | None
    observed: object
    told: str
    hint: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One batch that was judged, or a part of a large one. `batch` says where its rows are from; `duration_us` is how
    long judging took. Parts of one batch have the same view, origin, `as_of` and `time`."""

    id: str
    view: str
    suite: str
    suite_digest: str
    origin: str
    batch: str
    as_of: int
    time: int
    duration_us: int
    rows: int
    set_aside: int
    decision: Decision
    results: tuple[ResultRecord, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class QuarantineRecord:
    """Rows of one run that were set aside: a file of the quarantine, and what became of it."""

    id: str
    run_id: str
    view: str
    file: str
    digest: str
    rows: int
    created_time: int
    changed_time: int
    released: int = 0
    state: QuarantineState = QuarantineState.HELD


@dataclass(frozen=True, slots=True)
class ViewQuality:
    """The last run of a view, runs kept of it by decision, and rows of it that are held."""

    run: RunRecord
    runs: Mapping[str, int]
    held_rows: int
    held_batches: int
    oldest_held_time: int | None


class QualityResults(RegistryPart):
    """Runs and quarantined batches in the registry's database. Threads and processes may share it.

    Every method raises Unavailable when the database does not answer.
    """

    def add(
        self,
        run: RunRecord,
        quarantined: QuarantineRecord | None = None,
        *,
        replaces: str | None = None,
        actor: str = "unknown",
        runs_kept: int = QUALITY_RUNS_KEPT,
    ) -> None:
        """Keep a run with its results and what it set aside: all of it or nothing.

        `replaces` names the batch whose rows were judged again: it is closed as replayed in the same transaction, with
        as many rows released as do not go back into quarantine, and audited. Raises Conflict where that one is not held
        any more. The oldest runs of the view go, beyond `runs_kept`.
        """
        with self._transactions.write() as session:
            session.add(_run_row(run))
            session.flush()  # results refer to it
            session.add_all(_result_row(run.id, each) for each in run.results)
            if quarantined is not None:
                session.add(QuarantineBatchRow(**_plain(quarantined)))
            if replaces is not None:
                back = 0 if quarantined is None else quarantined.rows
                _close(session, replaces, QuarantineState.REPLAYED, back, self._clock())
            _forget(session, run.view, runs_kept)
            if replaces is not None:
                detail = {"run": run.id, "still_held": back}
                self._audit(session, f"quarantine/{replaces}", "replay", actor=actor, reason="", detail=detail)

    def runs(self, view: str | None = None, *, limit: int = 20) -> tuple[RunRecord, ...]:
        """The newest runs, of all views or one, newest first; without their results."""
        wanted = select(QualityRunRow).order_by(QualityRunRow.id.desc()).limit(limit)
        if view is not None:
            wanted = wanted.where(QualityRunRow.view == view)
        with self._transactions.read() as session:
            return tuple(_run(row) for row in session.scalars(wanted))

    def last_runs(self) -> tuple[RunRecord, ...]:
        """The newest batch of every view with its results, by view; of rows set aside before, none counts.

        Of a batch that was judged in parts it is the worst part's run, with what all parts come to together.
        """
        newest = select(func.max(QualityRunRow.id)).where(QualityRunRow.origin != REPLAY).group_by(QualityRunRow.view)
        last = select(QualityRunRow).where(QualityRunRow.id.in_(newest)).subquery()
        of_batch = [QualityRunRow.__table__.c[name] == last.c[name] for name in _BATCH_FIELDS]
        wanted = select(QualityRunRow).join(last, and_(*of_batch)).order_by(QualityRunRow.view, QualityRunRow.id)
        with self._transactions.read() as session:
            rows = session.scalars(wanted.options(selectinload(QualityRunRow.results)))
            runs = [_run(row, results=True) for row in rows]
        return tuple(_together(list(parts)) for _, parts in groupby(runs, key=lambda each: each.view))

    def run(self, prefix: str) -> RunRecord:
        """A run by its id, or by the beginning of it, with its results. Raises NotFound."""
        wanted = select(QualityRunRow).where(QualityRunRow.id.startswith(prefix, autoescape=True)).limit(2)
        with self._transactions.read() as session:
            rows = list(session.scalars(wanted.options(selectinload(QualityRunRow.results))))
            if len(rows) != 1:
                told = (
                    "more than one run begins so; give more digits" if rows else "`skewless quality report` lists them"
                )
                raise NotFound("quality run", prefix, hint=told)
            return _run(rows[0], results=True)

    def quarantined(
        self, view: str | None = None, *, state: QuarantineState | None = QuarantineState.HELD
    ) -> tuple[QuarantineRecord, ...]:
        """Batches that were set aside, oldest first: those of a view, or of all; in one state, or (None) in any."""
        wanted = select(QuarantineBatchRow).order_by(QuarantineBatchRow.id)
        if view is not None:
            wanted = wanted.where(QuarantineBatchRow.view == view)
        if state is not None:
            wanted = wanted.where(QuarantineBatchRow.state == state.value)
        with self._transactions.read() as session:
            return tuple(_quarantine(row) for row in session.scalars(wanted))

    def quarantined_batch(self, prefix: str) -> QuarantineRecord:
        """A batch by its id, or by the end or beginning of it. Raises NotFound."""
        matches = QuarantineBatchRow.id.startswith(prefix, autoescape=True)
        matches |= QuarantineBatchRow.id.endswith(prefix, autoescape=True)
        with self._transactions.read() as session:
            rows = list(session.scalars(select(QuarantineBatchRow).where(matches).limit(2)))
            if len(rows) != 1:
                told = "more than one batch fits; give more digits" if rows else "`skewless quality quarantine list`"
                raise NotFound("quarantined batch", prefix, hint=told)
            return _quarantine(rows[0])

    def drop(self, batch: str, *, actor: str, reason: str) -> None:
        """Close a held batch: its rows are not wanted. Audited. Raises NotFound, and Conflict where it is not held."""
        with self._transactions.write() as session:
            _close(session, batch, QuarantineState.DROPPED, None, self._clock())
            self._audit(session, f"quarantine/{batch}", "drop", actor=actor, reason=reason, detail={})

    def shrunk(self, batch: str, rows: int, digest: str) -> None:
        """Note what a held batch's file has once rows were deleted out of it; without any it is closed as dropped."""
        with self._transactions.write() as session:
            row = session.get(QuarantineBatchRow, batch, with_for_update=True)
            if row is None or row.state != QuarantineState.HELD.value:
                return
            row.changed_time = self._clock()
            if rows:
                row.rows, row.digest = rows, digest
            else:
                row.state, row.released = QuarantineState.DROPPED.value, 0

    def standing(self) -> tuple[ViewQuality, ...]:
        """How every view stands, by view; for the monitor."""
        runs = {each.view: each for each in self.last_runs()}
        counted = select(QualityRunRow.view, QualityRunRow.decision, func.count()).group_by(
            QualityRunRow.view, QualityRunRow.decision
        )
        held = (
            select(
                QuarantineBatchRow.view,
                func.count().label("batches"),
                func.sum(QuarantineBatchRow.rows).label("rows"),
                func.min(QuarantineBatchRow.created_time).label("oldest"),
            )
            .where(QuarantineBatchRow.state == QuarantineState.HELD.value)
            .group_by(QuarantineBatchRow.view)
        )
        with self._transactions.read() as session:
            decisions: dict[str, dict[str, int]] = {}
            for view, decision, count in session.execute(counted):
                decisions.setdefault(view, {})[decision] = count
            kept = {row.view: row for row in session.execute(held)}
        return tuple(
            ViewQuality(
                run,
                decisions.get(view, {}),
                int(kept[view].rows) if view in kept else 0,
                int(kept[view].batches) if view in kept else 0,
                int(kept[view].oldest) if view in kept else None,
            )
            for view, run in sorted(runs.items())
        )


def _close(session: Session, batch: str, state: QuarantineState, back: int | None, now: Micros) -> None:
    """Close a held batch; `back` of its rows stay in quarantine elsewhere, None where none went on."""
    row = session.get(QuarantineBatchRow, batch, with_for_update=True)
    if row is None:
        raise NotFound("quarantined batch", batch, hint="`skewless quality quarantine list` lists them")
    if row.state != QuarantineState.HELD.value:
        raise Conflict(f"quarantined batch `{batch}` is {row.state} already", hint="list what is still held")
    row.state, row.changed_time = state.value, now
    row.released = 0 if back is None else row.rows - back


def _forget(session: Session, view: str, runs_kept: int) -> None:
    """Remove the oldest runs of a view beyond those that are kept, a few at a time."""
    old = list(
        session.scalars(
            select(QualityRunRow.id)
            .where(QualityRunRow.view == view)
            .order_by(QualityRunRow.id.desc())
            .offset(runs_kept)
            .limit(QUALITY_RUNS_FORGOTTEN_AT_ONCE)
        )
    )
    if old:
        session.execute(delete(QualityResultRow).where(QualityResultRow.run_id.in_(old)))
        session.execute(delete(QualityRunRow).where(QualityRunRow.id.in_(old)))


def _together(parts: Sequence[RunRecord]) -> RunRecord:
    """All parts of a batch as one: as bad as the worst of them, whose id, place and words it has.

    Where one stops, nothing of the batch is set aside.
    """
    ordered = sorted(parts, key=lambda each: -each.decision.rank)
    worst = ordered[0]
    if len(ordered) == 1:
        return worst
    found: dict[tuple[int, str], list[tuple[int, ResultRecord]]] = {}
    for part in ordered:
        for each in part.results:
            found.setdefault((each.position, each.type), []).append((part.rows, each))
    return replace(
        worst,
        rows=sum(each.rows for each in parts),
        set_aside=0 if worst.decision is Decision.STOP else sum(each.set_aside for each in parts),
        duration_us=sum(each.duration_us for each in parts),
        results=tuple(_result_together(found[key]) for key in sorted(found)),
    )


def _result_together(results: Sequence[tuple[int, ResultRecord]]) -> ResultRecord:
    """One expectation over the parts of so many rows: the worst part's, with the rows of all that do not meet it."""
    worst = max((each for _, each in results), key=lambda each: (not each.success, Decision(each.follows).rank))
    counted = [(rows, each.unexpected) for rows, each in results if each.unexpected is not None]
    if not counted:
        return worst
    unexpected = sum(each for _, each in counted)
    return replace(worst, unexpected=unexpected, unexpected_share=unexpected / max(sum(rows for rows, _ in counted), 1))


def _run_row(run: RunRecord) -> QualityRunRow:
    values = {name: getattr(run, name) for name in _RUN_FIELDS}
    return QualityRunRow(**{**values, "decision": run.decision.value})


def _result_row(run_id: str, result: ResultRecord) -> QualityResultRow:
    values = {name: getattr(result, name) for name in _RESULT_FIELDS}
    observed = None if result.observed is None else {_OBSERVED: result.observed}
    return QualityResultRow(run_id=run_id, **{**values, "kwargs": dict(result.kwargs), "observed": observed})


def _run(row: QualityRunRow, *, results: bool = False) -> RunRecord:
    values = {name: getattr(row, name) for name in _RUN_FIELDS}
    record = RunRecord(**{**values, "decision": Decision(row.decision)})
    return replace(record, results=tuple(map(_result, row.results))) if results else record


def _result(row: QualityResultRow) -> ResultRecord:
    values = {name: getattr(row, name) for name in _RESULT_FIELDS}
    return ResultRecord(**{**values, "observed": None if row.observed is None else row.observed[_OBSERVED]})


def _quarantine(row: QuarantineBatchRow) -> QuarantineRecord:
    values = {name: getattr(row, name) for name in _QUARANTINE_FIELDS}
    return QuarantineRecord(**{**values, "state": QuarantineState(row.state)})


def _plain(record: QuarantineRecord) -> dict[str, Any]:
    return {**{name: getattr(record, name) for name in _QUARANTINE_FIELDS}, "state": record.state.value}


def _fields(record: type, *, without: Sequence[str] = ()) -> tuple[str, ...]:
    return tuple(name for name in record.__dataclass_fields__ if name not in without)  # type: ignore[attr-defined]  # a dataclass


_BATCH_FIELDS = ("view", "origin", "as_of", "time")
"""What parts of one batch have in common."""
_RUN_FIELDS = _fields(RunRecord, without=("results",))
_RESULT_FIELDS = _fields(ResultRecord)
_QUARANTINE_FIELDS = _fields(QuarantineRecord)
