"""Runs of materialization, how far each has come, and how far each view has got."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from skewless.canonical_json import Digest
from skewless.features.materialization import Bounds, Kind, Taking, Watermark
from skewless.ingest_limits import MATERIALIZATION_RUNS_KEPT
from skewless.registry.leases import Lease, check
from skewless.registry.materialization_tables import MaterializationRunRow, MaterializationWatermarkRow
from skewless.registry.transactions import RegistryPart
from skewless.timestamps import format_timestamp

CUT_OFF = "it was cut off, and a later run did not go on with it"


class RunState(StrEnum):
    """What became of a run. One that is `running` and has no process any more is gone on with by the next."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class StartedBy(StrEnum):
    """Who asked for a run."""

    MANUAL = "manual"
    SCHEDULED = "scheduled"


@dataclass(frozen=True, slots=True)
class MaterializationRun:
    """One run for one view, by its name in the store; times in µs. See the table for what bounds and `plan` mean.

    `parts_done` of `parts` are in the store. Rows are counted by what became of them; one part that was written twice,
    because a run was cut off between store and database, is counted as it was found the second time.
    """

    id: str
    view: str
    kind: Kind
    reason: str
    started_by: StartedBy
    engine: str
    owner: str
    as_of: int
    definition: Digest
    plan: Digest
    parts: int
    source_rows: int
    started_time: int
    since_created_time: int | None = None
    since_event_time: int | None = None
    from_time: int | None = None
    to_time: int | None = None
    state: RunState = RunState.RUNNING
    parts_done: int = 0
    set_aside_rows: int = 0
    new_rows: int = 0
    replaced_rows: int = 0
    older_rows: int = 0
    same_rows: int = 0
    verified_rows: int = 0
    newest_event_time: int | None = None
    newest_created_time: int | None = None
    ended_time: int | None = None
    error: str = ""

    @property
    def taking(self) -> Taking:
        """Which rows it takes."""
        bounds = Bounds(self.since_created_time, self.since_event_time, self.from_time, self.to_time)
        return Taking(self.kind, self.reason, self.as_of, bounds)

    @property
    def entity_rows(self) -> int:
        """Newest rows of entities that it has looked at so far."""
        return self.new_rows + self.replaced_rows + self.older_rows + self.same_rows

    def to_json(self) -> dict[str, Any]:
        """Plain data, times in RFC 3339."""
        return {
            name: format_timestamp(value) if name.endswith(("_time", "as_of")) and value is not None else value
            for name, value in asdict(self).items()
        }


class Materializations(RegistryPart):
    """Runs and watermarks in the registry's database. Threads and processes may share it.

    What changes a run takes the lease of its view, and raises Conflict where that is not held any more. Every method
    raises Unavailable when the database does not answer.
    """

    def runs(self, view: str | None = None, *, limit: int = 20) -> tuple[MaterializationRun, ...]:
        """The newest runs, of all views or one, newest first."""
        wanted = select(MaterializationRunRow).order_by(MaterializationRunRow.id.desc()).limit(limit)
        if view is not None:
            wanted = wanted.where(MaterializationRunRow.view == view)
        with self._transactions.read() as session:
            return tuple(_run(row) for row in session.scalars(wanted))

    def run(self, run_id: str) -> MaterializationRun:
        """One run by its id, which is known."""
        with self._transactions.read() as session:
            return _run(session.get_one(MaterializationRunRow, run_id))

    def unfinished(self, view: str) -> MaterializationRun | None:
        """The newest run of a view, where it was begun and neither ended nor failed."""
        newest = self.runs(view, limit=1)
        return newest[0] if newest and newest[0].state is RunState.RUNNING else None

    def watermark(self, view: str) -> Watermark | None:
        """How far a view has got; None where nothing is known of it."""
        with self._transactions.read() as session:
            row = session.get(MaterializationWatermarkRow, view)
            return None if row is None else Watermark(**{each.name: getattr(row, each.name) for each in _WATERMARK})

    def begin(self, run: MaterializationRun, lease: Lease, *, runs_kept: int = MATERIALIZATION_RUNS_KEPT) -> None:
        """Keep a new run; whatever was begun for its view before has failed. The oldest go, beyond `runs_kept`."""
        with self._transactions.write() as session:
            check(session, lease)
            left = (MaterializationRunRow.view == run.view) & (MaterializationRunRow.state == RunState.RUNNING)
            session.execute(
                update(MaterializationRunRow)
                .where(left)
                .values(state=RunState.FAILED, error=CUT_OFF, ended_time=self._clock())
            )
            session.add(MaterializationRunRow(**{each.name: _plain(getattr(run, each.name)) for each in fields(run)}))
            session.flush()
            _forget(session, run.view, runs_kept)

    def go_on(self, run: MaterializationRun, lease: Lease, *, owner: str) -> None:
        """Somebody else goes on with a run."""
        self._change(run.id, lease, {"owner": owner, "error": ""})

    def advance(self, run_id: str, lease: Lease, *, parts_done: int, counts: Mapping[str, int]) -> None:
        """One more part is in the store; `counts` are its rows by `new`, `replaced`, `older` and `same`."""
        row = MaterializationRunRow
        added = {f"{name}_rows": getattr(row, f"{name}_rows") + rows for name, rows in counts.items()}
        self._change(run_id, lease, {"parts_done": parts_done, **added})

    def finish(self, run_id: str, lease: Lease, *, verified_rows: int, watermark: Watermark | None) -> None:
        """A run is done, and its view has got as far as `watermark` says; None leaves that as it is."""
        now = self._clock()
        values = {"state": RunState.DONE, "verified_rows": verified_rows, "ended_time": now, "error": ""}
        with self._transactions.write() as session:
            check(session, lease)
            session.execute(update(MaterializationRunRow).where(MaterializationRunRow.id == run_id).values(values))
            if watermark is not None:
                kept = {each.name: getattr(watermark, each.name) for each in _WATERMARK} | {"changed_time": now}
                session.merge(MaterializationWatermarkRow(**kept))

    def fail(self, run_id: str, lease: Lease, error: str) -> None:
        """A run has failed, and is not gone on with."""
        self._change(run_id, lease, {"state": RunState.FAILED, "error": error, "ended_time": self._clock()})

    def interrupt(self, run_id: str, lease: Lease, error: str) -> None:
        """A run was interrupted by an error that may pass; the next one goes on with it."""
        self._change(run_id, lease, {"error": error})

    def forget_watermark(self, view: str, lease: Lease) -> None:
        """The view's rows are gone from the store: its next run is a full one, and begins anew."""
        with self._transactions.write() as session:
            check(session, lease)
            session.execute(delete(MaterializationWatermarkRow).where(MaterializationWatermarkRow.view == view))
            left = (MaterializationRunRow.view == view) & (MaterializationRunRow.state == RunState.RUNNING)
            session.execute(
                update(MaterializationRunRow)
                .where(left)
                .values(state=RunState.FAILED, error=CUT_OFF, ended_time=self._clock())
            )

    def _change(self, run_id: str, lease: Lease, values: Mapping[str, Any]) -> None:
        with self._transactions.write() as session:
            check(session, lease)
            session.execute(update(MaterializationRunRow).where(MaterializationRunRow.id == run_id).values(values))


_WATERMARK = fields(Watermark)


def _forget(session: Session, view: str, runs_kept: int) -> None:
    newest = select(MaterializationRunRow.id).where(MaterializationRunRow.view == view)
    oldest_kept = newest.order_by(MaterializationRunRow.id.desc()).offset(runs_kept - 1).limit(1)
    bound = session.scalars(oldest_kept).one_or_none()
    if bound is not None:
        old = (MaterializationRunRow.view == view) & (MaterializationRunRow.id < bound)
        session.execute(delete(MaterializationRunRow).where(old))


def _plain(value: object) -> object:
    return value.value if isinstance(value, StrEnum) else value


def _run(row: MaterializationRunRow) -> MaterializationRun:
    values = {each.name: getattr(row, each.name) for each in fields(MaterializationRun)}
    return MaterializationRun(
        **values
        | {
            "kind": Kind(row.kind),
            "started_by": StartedBy(row.started_by),
            "state": RunState(row.state),
        }
    )
