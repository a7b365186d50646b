"""The ledger of a stream's consumers: which rows of which segments each group has taken, so that none counts twice.

A consumer's effect and the ledger's row are committed together. What is delivered again finds its rows taken, also
where the segment was cut into other parts when it was published again: rows are known by their place in the segment's
tables, and not by the part that they came in.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased

from skewless.limits import CONSUMED_SEGMENTS_AT_ONCE, CONSUMED_SEGMENTS_KEEP_S
from skewless.registry.row_ranges import RowRange, joined, rows_in, without
from skewless.registry.tables import ConsumedSegmentRow
from skewless.registry.transactions import RegistryPart
from skewless.timestamps import SECOND_US, Micros

Transaction = Session
"""What a consumer works in: everything that it does here is kept together with the ledger's row, or not at all."""
_DAY_MARK = "@"
"""Between a table and a day of it, in names of the ledger; no table's name has one."""
_MANY_ROWS = 1 << 62
"""Rows of a segment that only the log store told of, which does not know how many there are."""


@dataclass(frozen=True, slots=True)
class DeliveredRows:
    """Rows `first` to `end` of one table of a segment, as a stream delivered them.

    `source` is who published the segment, as its `sequence`-th; `segment_rows` are those of all its tables.
    """

    segment: str
    source: str
    sequence: int
    segment_rows: int
    table: str
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class SegmentGap:
    """Segments of one source, `first` to `last` by sequence, that a group was never given.

    `after` and `before` are the segments on both sides that it was given. Names of segments sort by their time.
    """

    source: str
    first: int
    last: int
    after: str
    before: str


@dataclass(frozen=True, slots=True)
class Taking:
    """Rows that are being taken in a transaction: `ranges` are those that nobody of the group has taken before."""

    transaction: Transaction
    ranges: tuple[RowRange, ...]
    gap: SegmentGap | None
    """What was skipped before this segment, told with the first of its rows."""


@dataclass(frozen=True, slots=True)
class Settling:
    """A segment that is being taken as a whole: nothing is left of it where `is_settled`.

    `taken` has the row ranges by table that the group has from the stream, usually none.
    """

    transaction: Transaction
    is_settled: bool
    taken: Mapping[str, tuple[RowRange, ...]]


@dataclass(frozen=True, slots=True)
class StoredRows:
    """The `rows` rows of one day of one table of a segment, as the log store has them: always within one file."""

    segment: str
    table: str
    day: str
    rows: int

    @property
    def name(self) -> str:
        """What they are called in the ledger."""
        return f"{self.table}{_DAY_MARK}{self.day}"


@dataclass(frozen=True, slots=True)
class DaysSettling:
    """Rows that are being taken from the log store; `left` says for each whether nobody of the group took it before."""

    transaction: Transaction
    left: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class MissedSegment:
    """A segment of the log that a group has not taken, or not all of: `taken` has the row ranges by table."""

    segment: str
    taken: Mapping[str, tuple[RowRange, ...]]


class ConsumedSegments(RegistryPart):
    """The ledger, in the registry's database or in any other of the registry's schema. Threads may share it.

    Every method raises Unavailable when the database does not answer, and Conflict when another writer was first:
    then nothing was taken, and taking it again is right.
    """

    @contextmanager
    def taking(self, group: str, rows: DeliveredRows) -> Iterator[Taking]:
        """A transaction in which a group takes rows; they are noted as taken when it ends without an error.

        Members of a group that take rows of one segment do so one after the other. Where nothing is left to be taken,
        `ranges` is empty.
        """
        with self._transactions.write() as session:
            row, is_new = _locked(session, group, rows, self._clock())
            gap = _gap_before(session, row) if is_new else None
            known = _ranges(row.taken).get(rows.table, ())
            left = () if row.whole else tuple(without(known, rows.first, rows.end))
            yield Taking(session, left, gap)
            if left:
                _note(row, rows.table, joined(known, rows.first, rows.end), self._clock())

    @contextmanager
    def settling(self, group: str, segment: str) -> Iterator[Settling]:
        """A transaction in which a group takes the rest of a segment from elsewhere, such as the log store.

        When it ends without an error the whole segment is noted as taken, and what a stream delivers of it later is
        nothing new.
        """
        with self._transactions.write() as session:
            row, _ = _locked(session, group, DeliveredRows(segment, "", 0, 0, "", 0, 0), self._clock())
            yield Settling(session, row.whole, _ranges(row.taken))
            row.whole = True
            row.changed_time = self._clock()

    @contextmanager
    def settling_days(self, group: str, stored: Sequence[StoredRows]) -> Iterator[DaysSettling]:
        """A transaction in which a group takes rows of many segments from the log store; all are noted, or none is.

        What a stream delivers later of a table that has days which were settled so is for `is_settled_from_store` to
        tell; no two of `stored` may be alike.
        """
        with self._transactions.write() as session:
            now, left = self._clock(), [False] * len(stored)
            # In one order for all members, so that none waits for another in a ring.
            for place in sorted(range(len(stored)), key=lambda each: stored[each].segment):
                rows = stored[place]
                unknown = DeliveredRows(rows.segment, "", 0, _MANY_ROWS, "", 0, 0)
                row, _ = _locked(session, group, unknown, now)
                left[place] = _is_left(row, rows)
                if left[place]:
                    row.taken = {**row.taken, rows.name: [[0, rows.rows]]}
                    row.changed_time = now
            yield DaysSettling(session, tuple(left))

    def left_in_store(self, group: str, stored: Sequence[StoredRows]) -> tuple[StoredRows, ...]:
        """Those that the group has not taken, from the store or all of the segment from a stream."""
        found: list[StoredRows] = []
        for start in range(0, len(stored), CONSUMED_SEGMENTS_AT_ONCE):
            some = stored[start : start + CONSUMED_SEGMENTS_AT_ONCE]
            wanted = select(ConsumedSegmentRow).where(
                ConsumedSegmentRow.group_name == group,
                ConsumedSegmentRow.segment.in_(sorted({each.segment for each in some})),
            )
            with self._transactions.read() as session:
                rows = {row.segment: row for row in session.scalars(wanted)}
                found += [each for each in some if each.segment not in rows or _is_left(rows[each.segment], each)]
        return tuple(found)

    def missed(self, group: str, segments: Iterable[str]) -> Iterator[MissedSegment]:
        """Those of the segments that the group has not taken, or not all of, in their order."""
        names = list(segments)
        for start in range(0, len(names), CONSUMED_SEGMENTS_AT_ONCE):
            asked = names[start : start + CONSUMED_SEGMENTS_AT_ONCE]
            wanted = select(ConsumedSegmentRow).where(
                ConsumedSegmentRow.group_name == group, ConsumedSegmentRow.segment.in_(asked)
            )
            with self._transactions.read() as session:
                rows = {row.segment: (row.whole, _ranges(row.taken)) for row in session.scalars(wanted)}
            for name in asked:
                whole, taken = rows.get(name, (False, {}))
                if not whole:
                    yield MissedSegment(name, taken)

    def gaps(self, group: str) -> tuple[SegmentGap, ...]:
        """Every gap between the segments that the group has taken any rows of, by source and sequence.

        A segment that another member of the group holds at this moment is in one too: `missed` after it tells.
        """
        following = func.lead(ConsumedSegmentRow.sequence).over(
            partition_by=ConsumedSegmentRow.source, order_by=ConsumedSegmentRow.sequence
        )
        before = func.lead(ConsumedSegmentRow.segment).over(
            partition_by=ConsumedSegmentRow.source, order_by=ConsumedSegmentRow.sequence
        )
        each = (
            select(
                ConsumedSegmentRow.source,
                ConsumedSegmentRow.sequence,
                ConsumedSegmentRow.segment,
                following.label("following"),
                before.label("before"),
            )
            .where(ConsumedSegmentRow.group_name == group, ConsumedSegmentRow.sequence > 0)
            .subquery()
        )
        wanted = select(each).where(each.c.following > each.c.sequence + 1).order_by(each.c.source, each.c.sequence)
        with self._transactions.read() as session:
            return tuple(
                SegmentGap(row.source, row.sequence + 1, row.following - 1, row.segment, row.before)
                for row in session.execute(wanted)
            )

    def forget(self, group: str, *, keep_s: float = CONSUMED_SEGMENTS_KEEP_S) -> int:
        """Forget segments that no stream can deliver again, at most CONSUMED_SEGMENTS_AT_ONCE; how many those were.

        The newest of each source stays, so that a gap after it is noticed.
        """
        newest = aliased(ConsumedSegmentRow)
        is_followed = (
            select(newest.segment)
            .where(
                newest.group_name == group,
                newest.source == ConsumedSegmentRow.source,
                newest.sequence > ConsumedSegmentRow.sequence,
            )
            .exists()
        )
        old = (
            select(ConsumedSegmentRow.segment)
            .where(
                ConsumedSegmentRow.group_name == group,
                ConsumedSegmentRow.changed_time < self._clock() - int(keep_s * SECOND_US),
                (ConsumedSegmentRow.sequence == 0) | is_followed,
            )
            .order_by(ConsumedSegmentRow.changed_time)
            .limit(CONSUMED_SEGMENTS_AT_ONCE)
        )
        with self._transactions.write() as session:
            names = list(session.scalars(old))
            session.execute(
                delete(ConsumedSegmentRow).where(
                    ConsumedSegmentRow.group_name == group, ConsumedSegmentRow.segment.in_(names)
                )
            )
        return len(names)


def is_settled_from_store(transaction: Transaction, group: str, segment: str, table: str) -> bool:
    """Whether any day of a segment's table was taken from the log store, which then takes the others too."""
    row = transaction.get(ConsumedSegmentRow, (group, segment))
    return row is not None and any(name.startswith(f"{table}{_DAY_MARK}") for name in row.taken)


def streamed_rows(transaction: Transaction, group: str, segment: str) -> int | None:
    """How many rows of a segment a stream brought, before those that are being taken; None where any were taken from
    the log store, which then goes by what came by the stream."""
    row = transaction.get(ConsumedSegmentRow, (group, segment))
    if row is None:
        return 0
    return None if _has_days(row) else _streamed(row)


def _has_days(row: ConsumedSegmentRow) -> bool:
    return any(_DAY_MARK in name for name in row.taken)


def _streamed(row: ConsumedSegmentRow) -> int:
    # A day that the store brought is of a table that the stream brings too: it would count twice.
    return sum(rows_in(ranges) for name, ranges in _ranges(row.taken).items() if _DAY_MARK not in name)


def _is_left(row: ConsumedSegmentRow, stored: StoredRows) -> bool:
    if stored.name in row.taken:
        return False
    # All of it came by the stream, unless a part was settled from the store: that part's rows came from both.
    return not row.whole or _has_days(row)


def _locked(session: Session, group: str, rows: DeliveredRows, now: Micros) -> tuple[ConsumedSegmentRow, bool]:
    """The ledger's row of a segment, held until the transaction ends, and whether it was made now."""
    values: dict[str, Any] = {
        "group_name": group,
        "segment": rows.segment,
        "source": rows.source,
        "sequence": rows.sequence,
        "segment_rows": rows.segment_rows,
        "taken": {},
        "whole": False,
        "changed_time": now,
    }
    # Whoever makes the row holds it; another transaction that would make it waits here for that one's end.
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    inserted = insert(ConsumedSegmentRow).values(values).on_conflict_do_nothing()
    made = session.connection().execute(inserted.returning(ConsumedSegmentRow.segment)).one_or_none()
    wanted = select(ConsumedSegmentRow).where(
        ConsumedSegmentRow.group_name == group, ConsumedSegmentRow.segment == rows.segment
    )
    row = session.scalars(wanted.with_for_update()).one()
    if row.sequence == 0 and rows.sequence:
        # It was settled from elsewhere; now the stream says which of its segments it is.
        row.source, row.sequence, row.segment_rows = rows.source, rows.sequence, rows.segment_rows
    return row, made is not None


def _gap_before(session: Session, row: ConsumedSegmentRow) -> SegmentGap | None:
    """What lies between a new row and the one before it of the same source; None where nothing does."""
    wanted = (
        select(ConsumedSegmentRow.sequence, ConsumedSegmentRow.segment)
        .where(
            ConsumedSegmentRow.group_name == row.group_name,
            ConsumedSegmentRow.source == row.source,
            ConsumedSegmentRow.sequence < row.sequence,
            ConsumedSegmentRow.sequence > 0,
        )
        .order_by(ConsumedSegmentRow.sequence.desc())
        .limit(1)
    )
    before = session.execute(wanted).one_or_none()
    if before is None or before.sequence + 1 == row.sequence:
        return None
    return SegmentGap(row.source, before.sequence + 1, row.sequence - 1, before.segment, row.segment)


def _ranges(taken: Mapping[str, Any]) -> dict[str, tuple[RowRange, ...]]:
    return {table: tuple((first, end) for first, end in ranges) for table, ranges in taken.items()}


def _note(row: ConsumedSegmentRow, table: str, ranges: Sequence[RowRange], now: Micros) -> None:
    # A new dictionary: changes within the old one would not be seen.
    row.taken = {**row.taken, table: [list(each) for each in ranges]}
    row.whole = _streamed(row) >= row.segment_rows
    row.changed_time = now
