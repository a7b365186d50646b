"""What lineage has to tell of: changes out of the audit trail, ended runs, and how far each receiver was told."""

from dataclasses import dataclass

from sqlalchemy import select

from skewless.features.lineage_events import RunFacts
from skewless.registry.definition_tables import LineagePositionRow
from skewless.registry.materialization_tables import MaterializationRunRow
from skewless.registry.transactions import RegistryPart

_AUDIT, _RUNS = "audit", "materialization"


@dataclass(frozen=True, slots=True)
class LineagePosition:
    """How far a receiver was told: the last audit event's number, and when the last run ended (µs)."""

    audit: int = 0
    run_ended_time: int = 0


class LineagePositions(RegistryPart):
    """Positions and ended runs on one engine. Threads and processes may share it.

    Every method raises Unavailable when the database does not answer.
    """

    def position(self, receiver: str) -> LineagePosition:
        """How far a receiver was told, from the beginning where it was told nothing."""
        wanted = select(LineagePositionRow).where(LineagePositionRow.receiver == receiver)
        with self._transactions.read() as session:
            known = {row.source: int(row.position) for row in session.scalars(wanted)}
        return LineagePosition(known.get(_AUDIT, 0), known.get(_RUNS, 0))

    def told(self, receiver: str, position: LineagePosition) -> None:
        """Note how far a receiver was told; never back."""
        now = self._clock()
        with self._transactions.write() as session:
            for source, value in ((_AUDIT, position.audit), (_RUNS, position.run_ended_time)):
                row = session.get(LineagePositionRow, (receiver, source), with_for_update=True)
                if row is None:
                    row = LineagePositionRow(receiver=receiver, source=source, position=str(value), changed_time=now)
                    session.add(row)
                elif int(row.position) < value:
                    row.position, row.changed_time = str(value), now

    def ended_runs(self, *, after: int, limit: int) -> tuple[RunFacts, ...]:
        """Runs of materialization that ended after a moment (µs), in order of their ends."""
        rows = MaterializationRunRow
        wanted = select(rows).where(rows.ended_time > after).order_by(rows.ended_time, rows.id).limit(limit)
        with self._transactions.read() as session:
            return tuple(
                RunFacts(
                    id=row.id,
                    view=row.view,
                    as_of=row.as_of,
                    started_time=row.started_time,
                    ended_time=row.ended_time or 0,
                    stored_rows=row.new_rows + row.replaced_rows,
                    error=row.error,
                )
                for row in session.scalars(wanted)
            )
