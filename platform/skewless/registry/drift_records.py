"""What the drift monitor found, for whoever shows it: windows, alarms, standings, tallies and unseen words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, select, update

from skewless.canonical_json import Digest
from skewless.drift.alarms import Alarm, Moved
from skewless.drift.season import Grade
from skewless.errors import NotFound
from skewless.registry.drift_tables import (
    DriftAlarmRow,
    DriftEndpointRow,
    DriftRecountRow,
    DriftStateRow,
    DriftTallyRow,
    DriftWindowRow,
    DriftWordRow,
)
from skewless.registry.transactions import RegistryPart


@dataclass(frozen=True, slots=True, order=True)
class DriftKey:
    """What is watched by itself: one bundle of an endpoint, in one role."""

    endpoint: str
    bundle: Digest
    role: str


@dataclass(frozen=True, slots=True)
class DriftWindow:
    """The reading of a sealed window. `level` is in heights of an alarm, `leading` whose it is, '' for nobody's.

    `grade` is what it was compared with, None on a day that is left out. `breaks` are as `Break.to_json` has them.
    """

    key: DriftKey
    start_us: int
    window_us: int
    rows: int
    level: float
    leading: str
    is_open: bool
    grade: Grade | None
    breaks: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class DriftAlarm:
    """An alarm with its id (a UUIDv7). `report` is where a report about it lies, None where none was made."""

    id: str
    key: DriftKey
    alarm: Alarm
    report: str | None
    told_time: int


@dataclass(frozen=True, slots=True)
class DriftStanding:
    """How far the detector of a key is, and what its alarms are worth.

    `next_start_us` is the beginning of the first window that is not scored. `levels` has how high each variable stands,
    in heights, by slice, part and name as `level_name` writes them. `height` and the history's period are None while
    training is compared with, `achieved` where nothing is promised; `problem` says what is not watched, None: nothing.
    """

    key: DriftKey
    window_us: int
    slices: tuple[str, ...]
    next_start_us: int
    grade: Grade
    height: float | None
    promise_days: float
    streams: int
    achieved: float | None
    history_start_us: int | None
    history_end_us: int | None
    levels: Mapping[str, float]
    problem: str | None
    computed_time: int

    @property
    def calibrated(self) -> bool:
        """Whether alarms come at a promised rate."""
        return self.grade.calibrated


@dataclass(frozen=True, slots=True)
class StoredTally:
    """Counts of a slice ('' for all rows) in one window, as bytes that `drift/tally_form.py` reads."""

    key: DriftKey
    slice: str
    start_us: int
    window_us: int
    layout: Digest
    rows: int
    late_rows: int
    recounted: bool
    shapes: Mapping[str, int]
    counts: bytes


@dataclass(frozen=True, slots=True)
class UnseenWord:
    """A word that training never saw, which came `rows` times; `over` of them may be another word's."""

    feature: str
    word: str
    rows: int
    over: int
    first_us: int
    last_us: int


@dataclass(frozen=True, slots=True)
class DriftProgress:
    """How far an endpoint's traffic is counted: the greatest `as_of`, and until when windows are sealed."""

    endpoint: str
    newest_us: int
    sealed_us: int
    is_live: bool
    rows: int
    late_rows: int
    uncounted_rows: int
    problem: str | None
    changed_time: int


@dataclass(frozen=True, slots=True)
class DriftRecount:
    """Earlier rows being counted in a new bundle's bins, back from `until_us` to `since_us`; `next_us` is how far."""

    key: DriftKey
    since_us: int
    until_us: int
    next_us: int
    rows: int

    @property
    def is_done(self) -> bool:
        """Whether all of them are."""
        return self.next_us <= self.since_us


class DriftRecords(RegistryPart):
    """See the module. Times are event times in µs, `start` inclusive and `end` exclusive, None for open ends."""

    def progress(self, endpoint: str | None = None) -> tuple[DriftProgress, ...]:
        """Of one endpoint, or of all that have traffic, by name."""
        wanted = select(DriftEndpointRow).order_by(DriftEndpointRow.endpoint_name)
        if endpoint is not None:
            wanted = wanted.where(DriftEndpointRow.endpoint_name == endpoint)
        with self._transactions.read() as session:
            return tuple(_progress(row) for row in session.scalars(wanted))

    def standings(self, endpoint: str | None = None) -> tuple[DriftStanding, ...]:
        """The detector of every bundle and role that was ever scored."""
        wanted = select(DriftStateRow).order_by(
            DriftStateRow.endpoint_name, DriftStateRow.role, DriftStateRow.bundle_digest
        )
        if endpoint is not None:
            wanted = wanted.where(DriftStateRow.endpoint_name == endpoint)
        with self._transactions.read() as session:
            return tuple(_standing(row) for row in session.scalars(wanted))

    def windows(
        self,
        endpoint: str,
        *,
        bundle: Digest | None = None,
        role: str | None = None,
        start: int | None = None,
        end: int | None = None,
    ) -> tuple[DriftWindow, ...]:
        """Readings by key and time."""
        wanted = (
            select(DriftWindowRow)
            .where(*_within(DriftWindowRow, endpoint, bundle=bundle, role=role, start=start, end=end))
            .order_by(DriftWindowRow.bundle_digest, DriftWindowRow.role, DriftWindowRow.window_start_us)
        )
        with self._transactions.read() as session:
            return tuple(_window(row) for row in session.scalars(wanted))

    def alarms(
        self,
        endpoint: str | None = None,
        *,
        start: int | None = None,
        end: int | None = None,
        open_only: bool = False,
        limit: int | None = None,
    ) -> tuple[DriftAlarm, ...]:
        """Alarms that opened within the time, the newest first."""
        wanted = select(DriftAlarmRow).order_by(DriftAlarmRow.opened_us.desc(), DriftAlarmRow.id.desc())
        if endpoint is not None:
            wanted = wanted.where(DriftAlarmRow.endpoint_name == endpoint)
        if start is not None:
            wanted = wanted.where(DriftAlarmRow.opened_us >= start)
        if end is not None:
            wanted = wanted.where(DriftAlarmRow.opened_us < end)
        if open_only:
            wanted = wanted.where(DriftAlarmRow.closed_us.is_(None))
        with self._transactions.read() as session:
            return tuple(_alarm(row) for row in session.scalars(wanted.limit(limit)))

    def alarm(self, alarm_id: str) -> DriftAlarm:
        """One alarm by its id, or by its first characters. Raises NotFound."""
        wanted = select(DriftAlarmRow).where(DriftAlarmRow.id.startswith(alarm_id, autoescape=True)).limit(2)
        with self._transactions.read() as session:
            found = [_alarm(row) for row in session.scalars(wanted)]
        if len(found) != 1 or not alarm_id:
            raise NotFound("alarm", alarm_id, hint="`skewless drift status` lists alarms with their ids")
        return found[0]

    def set_report(self, alarm_id: str, report: str) -> None:
        """Remember where a report about an alarm lies."""
        with self._transactions.write() as session:
            session.execute(update(DriftAlarmRow).where(DriftAlarmRow.id == alarm_id).values(report=report))

    def keys(self, endpoint: str | None = None) -> tuple[DriftKey, ...]:
        """Every bundle and role of which something is counted."""
        wanted = select(DriftTallyRow.endpoint_name, DriftTallyRow.bundle_digest, DriftTallyRow.role).distinct()
        if endpoint is not None:
            wanted = wanted.where(DriftTallyRow.endpoint_name == endpoint)
        with self._transactions.read() as session:
            return tuple(sorted(DriftKey(row[0], Digest(row[1]), row[2]) for row in session.execute(wanted)))

    def tallies(
        self,
        key: DriftKey,
        *,
        of_slice: str | None = "",
        start: int | None = None,
        end: int | None = None,
    ) -> tuple[StoredTally, ...]:
        """Counts of windows that begin within the time, by slice and time; of every slice for None."""
        wanted = (
            select(DriftTallyRow)
            .where(*_within(DriftTallyRow, key.endpoint, bundle=key.bundle, role=key.role, start=start, end=end))
            .order_by(DriftTallyRow.slice, DriftTallyRow.window_start_us, DriftTallyRow.window_us)
        )
        if of_slice is not None:
            wanted = wanted.where(DriftTallyRow.slice == of_slice)
        with self._transactions.read() as session:
            return tuple(_tally(row) for row in session.scalars(wanted))

    def span(self, key: DriftKey) -> tuple[int, int] | None:
        """The beginning of a key's first window and of its last one; None where nothing is counted."""
        wanted = select(func.min(DriftTallyRow.window_start_us), func.max(DriftTallyRow.window_start_us)).where(
            DriftTallyRow.endpoint_name == key.endpoint,
            DriftTallyRow.bundle_digest == key.bundle,
            DriftTallyRow.role == key.role,
        )
        with self._transactions.read() as session:
            ends: list[int | None] = list(session.execute(wanted).one())
        return None if ends[0] is None or ends[1] is None else (ends[0], ends[1])

    def words(self, endpoint: str, bundle: Digest | None = None) -> tuple[UnseenWord, ...]:
        """Words that training never saw, by feature, the most frequent first."""
        wanted = (
            select(DriftWordRow)
            .where(DriftWordRow.endpoint_name == endpoint)
            .order_by(DriftWordRow.feature, DriftWordRow.rows.desc(), DriftWordRow.word)
        )
        if bundle is not None:
            wanted = wanted.where(DriftWordRow.bundle_digest == bundle)
        with self._transactions.read() as session:
            return tuple(
                UnseenWord(row.feature, row.word, row.rows, row.over, row.first_us, row.last_us)
                for row in session.scalars(wanted)
            )

    def recounts(self, endpoint: str | None = None) -> tuple[DriftRecount, ...]:
        """Earlier rows being counted, or counted, in new bundles' bins."""
        wanted = select(DriftRecountRow).order_by(DriftRecountRow.endpoint_name, DriftRecountRow.bundle_digest)
        if endpoint is not None:
            wanted = wanted.where(DriftRecountRow.endpoint_name == endpoint)
        with self._transactions.read() as session:
            return tuple(
                DriftRecount(_key(row), row.since_us, row.until_us, row.next_us, row.rows)
                for row in session.scalars(wanted)
            )


def _within(
    table: type[DriftTallyRow] | type[DriftWindowRow],
    endpoint: str,
    *,
    bundle: Digest | None,
    role: str | None,
    start: int | None,
    end: int | None,
) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [table.endpoint_name == endpoint]
    if bundle is not None:
        conditions.append(table.bundle_digest == bundle)
    if role is not None:
        conditions.append(table.role == role)
    if start is not None:
        conditions.append(table.window_start_us >= start)
    if end is not None:
        conditions.append(table.window_start_us < end)
    return conditions


def _key(row: DriftAlarmRow | DriftStateRow | DriftTallyRow | DriftWindowRow | DriftRecountRow) -> DriftKey:
    return DriftKey(row.endpoint_name, Digest(row.bundle_digest), row.role)


def _progress(row: DriftEndpointRow) -> DriftProgress:
    return DriftProgress(
        row.endpoint_name,
        row.newest_us,
        row.sealed_us,
        row.is_live,
        row.rows,
        row.late_rows,
        row.uncounted_rows,
        row.problem,
        row.changed_time,
    )


def _standing(row: DriftStateRow) -> DriftStanding:
    return DriftStanding(
        key=_key(row),
        window_us=row.window_us,
        slices=tuple(row.slices),
        next_start_us=row.next_start_us,
        grade=Grade(row.grade),
        height=row.height,
        promise_days=row.promise_days,
        streams=row.streams,
        achieved=row.achieved,
        history_start_us=row.history_start_us,
        history_end_us=row.history_end_us,
        levels=row.levels,
        problem=row.problem,
        computed_time=row.computed_time,
    )


def _window(row: DriftWindowRow) -> DriftWindow:
    return DriftWindow(
        key=_key(row),
        start_us=row.window_start_us,
        window_us=row.window_us,
        rows=row.rows,
        level=row.level,
        leading=row.leading,
        is_open=row.is_open,
        grade=None if row.grade is None else Grade(row.grade),
        breaks=tuple(row.breaks or ()),
    )


def _alarm(row: DriftAlarmRow) -> DriftAlarm:
    moved: Sequence[Mapping[str, Any]] = row.moved
    alarm = Alarm(
        row.opened_us,
        row.since_us,
        row.closed_us,
        row.peak,
        row.calibrated,
        tuple(Moved.from_json(each) for each in moved),
    )
    return DriftAlarm(row.id, _key(row), alarm, row.report, row.told_time)


def _tally(row: DriftTallyRow) -> StoredTally:
    return StoredTally(
        key=_key(row),
        slice=row.slice,
        start_us=row.window_start_us,
        window_us=row.window_us,
        layout=Digest(row.layout),
        rows=row.rows,
        late_rows=row.late_rows,
        recounted=row.recounted,
        shapes=row.shapes or {},
        counts=row.counts,
    )
