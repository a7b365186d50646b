"""Which files of the log store hold nothing new for the drift monitor, and which rows came by the stream."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from skewless.monitor_limits import DRIFT_PARTIALS_KEEP_S
from skewless.registry.drift_tables import DriftLogTableRow, DriftPartialRow
from skewless.registry.transactions import RegistryPart
from skewless.timestamps import SECOND_US, Micros

ID_CHARACTERS = 12
"""Of a prediction's id, its last ones: 48 random bits, enough to tell the rows of one segment apart."""


@dataclass(frozen=True, slots=True)
class FollowedTable:
    """A table of the log store: its files that hold nothing new, and since when it is followed."""

    path: str
    files: frozenset[str]
    started_time: Micros
    skipped_segments: int


class DriftFiles(RegistryPart):
    """See the module."""

    def table(self, path: str) -> FollowedTable:
        """What is known of a table; nothing, since now, for one that is new."""
        with self._transactions.read() as session:
            row = session.get(DriftLogTableRow, path)
            if row is None:
                return FollowedTable(path, frozenset(), self._clock(), 0)
            return FollowedTable(path, frozenset(row.files), Micros(row.started_time), row.skipped_segments)

    def note(self, followed: FollowedTable) -> None:
        """Keep what is known of a table."""
        with self._transactions.write() as session:
            note_files(session, followed)

    def forget_partials(self) -> None:
        """Forget ids that no segment of the stream can need any more."""
        with self._transactions.write() as session:
            before = self._clock() - int(DRIFT_PARTIALS_KEEP_S * SECOND_US)
            session.execute(delete(DriftPartialRow).where(DriftPartialRow.changed_time < before))

    def partial_ids(self, segments: Iterable[str], table: str) -> dict[str, frozenset[str]]:
        """By segment, the ends of the ids of rows of a table that came by the stream; segments without are left out."""
        wanted = select(DriftPartialRow).where(
            DriftPartialRow.segment.in_(sorted(segments)), DriftPartialRow.table_name == table
        )
        found: dict[str, set[str]] = {}
        with self._transactions.read() as session:
            for row in session.scalars(wanted):
                found.setdefault(row.segment, set()).update(_ids(row.ids))
        return {segment: frozenset(ids) for segment, ids in found.items()}


def note_files(session: Session, followed: FollowedTable) -> None:
    """Keep what is known of a table, in a transaction."""
    row = session.get(DriftLogTableRow, followed.path, with_for_update=True)
    if row is None:
        row = DriftLogTableRow(path=followed.path, started_time=followed.started_time)
        session.add(row)
    row.files, row.skipped_segments = sorted(followed.files), followed.skipped_segments


def note_partial(session: Session, segment: str, table: str, first: int, ids: Iterable[str], *, now: Micros) -> None:
    """Remember rows of a segment that came by the stream before all of it had."""
    data = "".join(each[-ID_CHARACTERS:].rjust(ID_CHARACTERS) for each in ids).encode()
    session.add(DriftPartialRow(segment=segment, table_name=table, first=first, ids=data, changed_time=now))


def drop_partials(session: Session, segment: str) -> None:
    """Forget the rows of a segment of which everything came."""
    session.execute(delete(DriftPartialRow).where(DriftPartialRow.segment == segment))


def _ids(data: bytes) -> list[str]:
    text = data.decode()
    return [text[start : start + ID_CHARACTERS].strip() for start in range(0, len(text), ID_CHARACTERS)]
