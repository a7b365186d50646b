"""What scoring reads and writes: counts of windows, the state of a detector, its readings and alarms, kept together."""

import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session, undefer

from skewless.canonical_json import Digest
from skewless.drift.alarms import Alarm, Reading
from skewless.drift.season import Grade
from skewless.drift.traffic import ALL
from skewless.errors import Conflict
from skewless.monitor_limits import DRIFT_ROWS_AT_ONCE
from skewless.registry.drift_counts import Sealing, seal_by_clock
from skewless.registry.drift_records import DriftKey
from skewless.registry.drift_tables import (
    DriftAlarmRow,
    DriftEndpointRow,
    DriftStateRow,
    DriftTallyRow,
    DriftWindowRow,
)
from skewless.registry.transactions import RegistryPart
from skewless.timestamps import DAY_US, Micros


@dataclass(frozen=True, slots=True)
class CalibrationFacts:
    """How a detector was calibrated; what is None was not."""

    grade: Grade
    height: float | None = None
    streams: int = 0
    achieved: float | None = None
    history_start_us: int | None = None
    history_end_us: int | None = None
    data: bytes | None = None
    """For `drift/calibration_form.py`."""


@dataclass(frozen=True, slots=True)
class StoredWatch:
    """What is kept of a watch. `version` grows with every change; 0: nothing is kept yet."""

    window_us: int
    slices: tuple[str, ...]
    """Columns of the policy by whose values it is sliced."""
    next_start_us: int
    promise_days: float
    facts: CalibrationFacts
    levels: Mapping[str, float]
    problem: str | None
    state: Mapping[str, Any]
    version: int = 0


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a key's windows are scored, and by what they were cut."""

    next_start_us: int
    window_us: int
    slices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScoredWindows:
    """Readings of the windows that follow, None for those that are left out, by the beginnings of all of them."""

    starts_us: Sequence[int]
    readings: Sequence[Reading | None]
    rows: Sequence[int]
    alarms: Sequence[Alarm]
    """Those that were opened or changed."""


class DriftScores(RegistryPart):
    """See the module."""

    def sealed(self) -> dict[str, int]:
        """By endpoint, until when windows are sealed (µs)."""
        with self._transactions.read() as session:
            return {row.endpoint_name: row.sealed_us for row in session.scalars(select(DriftEndpointRow))}

    def reached(self) -> dict[DriftKey, Reached]:
        """How far every key is that was ever scored."""
        row = DriftStateRow
        wanted = select(row.endpoint_name, row.bundle_digest, row.role, row.next_start_us, row.window_us, row.slices)
        with self._transactions.read() as session:
            return {
                DriftKey(endpoint, Digest(bundle), role): Reached(next_start_us, window_us, tuple(slices))
                for endpoint, bundle, role, next_start_us, window_us, slices in session.execute(wanted)
            }

    def watch(self, key: DriftKey) -> StoredWatch | None:
        """What is kept of a key's watch."""
        wanted = (
            select(DriftStateRow)
            .where(*_of(DriftStateRow, key))
            .options(undefer(DriftStateRow.state), undefer(DriftStateRow.calibration))
        )
        with self._transactions.read() as session:
            row = session.scalars(wanted).one_or_none()
            return None if row is None else _stored(row)

    def seal_by_clock(self, endpoint: str, sealing: Sealing) -> bool:
        """Seal what the clock says is over, of an endpoint with live traffic; whether any window was sealed."""
        with self._transactions.write() as session:
            return seal_by_clock(session, endpoint, sealing, now=self._clock())

    def days_with_rows(self, key: DriftKey, start_us: int, end_us: int) -> frozenset[int]:
        """Numbers of the days (µs // DAY_US) in which anything was counted."""
        wanted = (
            select(DriftTallyRow.window_start_us // DAY_US)
            .distinct()
            .where(*_of(DriftTallyRow, key), DriftTallyRow.slice == ALL, DriftTallyRow.rows > 0)
            .where(DriftTallyRow.window_start_us >= start_us, DriftTallyRow.window_start_us < end_us)
        )
        with self._transactions.read() as session:
            return frozenset(int(day) for day in session.scalars(wanted))

    def last_rows(self, key: DriftKey) -> int | None:
        """The beginning of the last window with rows of the key's own."""
        wanted = (
            select(DriftTallyRow.window_start_us)
            .where(*_of(DriftTallyRow, key), DriftTallyRow.slice == ALL, DriftTallyRow.recounted.is_(False))
            .order_by(DriftTallyRow.window_start_us.desc())
            .limit(1)
        )
        with self._transactions.read() as session:
            return session.scalars(wanted).one_or_none()

    def first_rows(self, key: DriftKey) -> int | None:
        """The beginning of the first window with rows of the key's own."""
        wanted = (
            select(DriftTallyRow.window_start_us)
            .where(*_of(DriftTallyRow, key), DriftTallyRow.slice == ALL, DriftTallyRow.recounted.is_(False))
            .order_by(DriftTallyRow.window_start_us)
            .limit(1)
        )
        with self._transactions.read() as session:
            return session.scalars(wanted).one_or_none()

    def counts(
        self, key: DriftKey, layout: str, span: tuple[int, int], *, of_slice: str, window_us: int
    ) -> Iterator[tuple[int, bytes]]:
        """Beginning and counts of the windows of a slice within a time that fit into windows of `window_us`.

        Those of another version's bins are left out.
        """
        wanted = (
            select(DriftTallyRow.window_start_us, DriftTallyRow.window_us, DriftTallyRow.counts)
            .where(*_of(DriftTallyRow, key), DriftTallyRow.slice == of_slice, DriftTallyRow.layout == layout)
            .where(DriftTallyRow.window_start_us >= span[0], DriftTallyRow.window_start_us < span[1])
            .order_by(DriftTallyRow.window_start_us, DriftTallyRow.window_us)
        )
        with self._transactions.read() as session:
            for start_us, length_us, counts in session.execute(wanted).yield_per(DRIFT_ROWS_AT_ONCE):
                if window_us % length_us == 0:
                    yield start_us, counts

    def shapes(self, key: DriftKey, span: tuple[int, int]) -> dict[int, dict[str, int]]:
        """By the beginning of a window, how many rows had a part of another shape, by its name."""
        wanted = (
            select(DriftTallyRow.window_start_us, DriftTallyRow.shapes)
            .where(*_of(DriftTallyRow, key), DriftTallyRow.slice == ALL, DriftTallyRow.shapes.is_not(None))
            .where(DriftTallyRow.window_start_us >= span[0], DriftTallyRow.window_start_us < span[1])
        )
        with self._transactions.read() as session:
            return {start_us: dict(shapes or {}) for start_us, shapes in session.execute(wanted)}

    def keep(self, key: DriftKey, watch: StoredWatch, scored: ScoredWindows, *, recalibrated: bool) -> int:
        """Keep a watch with what it said; its new version. Raises Conflict where another process was faster.

        Its calibration, which is large, is written only where it was `recalibrated`.
        """
        with self._transactions.write() as session:
            row = _written(session, key, watch, self._clock())
            if recalibrated:
                row.calibration = watch.facts.data
            _write_windows(session, key, watch, scored)
            for alarm in scored.alarms:
                _write_alarm(session, key, alarm, self._clock())
            session.flush()
            return row.version


def alarm_id(key: DriftKey, opened_us: int) -> str:
    """The id of an alarm, a UUIDv7 of the moment at which it opened: the same from whoever finds it."""
    noise = hashlib.sha256(f"{key.endpoint}/{key.bundle}/{key.role}/{opened_us}".encode()).digest()
    value = (opened_us // 1_000 & (1 << 48) - 1) << 80 | int.from_bytes(noise[:10])
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return str(uuid.UUID(int=value))


def _of(table: type[DriftStateRow | DriftTallyRow | DriftWindowRow], key: DriftKey) -> list[Any]:
    return [table.endpoint_name == key.endpoint, table.bundle_digest == key.bundle, table.role == key.role]


def _stored(row: DriftStateRow) -> StoredWatch:
    facts = CalibrationFacts(
        Grade(row.grade),
        row.height,
        row.streams,
        row.achieved,
        row.history_start_us,
        row.history_end_us,
        row.calibration,
    )
    return StoredWatch(
        row.window_us,
        tuple(row.slices),
        row.next_start_us,
        row.promise_days,
        facts,
        row.levels,
        row.problem,
        row.state,
        row.version,
    )


def _written(session: Session, key: DriftKey, watch: StoredWatch, now: Micros) -> DriftStateRow:
    place = (key.endpoint, key.bundle, key.role)
    row = session.get(DriftStateRow, place) if watch.version else None
    if row is None:
        row = DriftStateRow(endpoint_name=key.endpoint, bundle_digest=key.bundle, role=key.role)
        session.add(row)
    elif row.version != watch.version:
        raise Conflict(
            f"windows of `{key.endpoint}` were scored by another monitor meanwhile",
            hint="run one monitor with the job `drift` for each registry",
        )
    facts = watch.facts
    row.window_us, row.slices, row.next_start_us = watch.window_us, list(watch.slices), watch.next_start_us
    row.grade, row.height, row.promise_days = facts.grade.value, facts.height, watch.promise_days
    row.streams, row.achieved = facts.streams, facts.achieved
    row.history_start_us, row.history_end_us = facts.history_start_us, facts.history_end_us
    row.levels, row.problem, row.computed_time = dict(watch.levels), watch.problem, now
    row.state = dict(watch.state)
    return row


def _write_windows(session: Session, key: DriftKey, watch: StoredWatch, scored: ScoredWindows) -> None:
    if not scored.starts_us:
        return
    session.execute(
        delete(DriftWindowRow).where(
            *_of(DriftWindowRow, key),
            DriftWindowRow.window_start_us >= scored.starts_us[0],
            DriftWindowRow.window_start_us <= scored.starts_us[-1],
        )
    )
    grade = watch.facts.grade.value
    session.execute(
        insert(DriftWindowRow),
        [
            {
                "endpoint_name": key.endpoint,
                "bundle_digest": key.bundle,
                "role": key.role,
                "window_start_us": start_us,
                "window_us": watch.window_us,
                "rows": rows,
                "level": 0.0 if reading is None else reading.level,
                "leading": "" if reading is None else reading.leading,
                "is_open": reading is not None and reading.is_open,
                "grade": None if reading is None else grade,
                "breaks": None if reading is None else [each.to_json() for each in reading.breaks] or None,
            }
            for start_us, reading, rows in zip(scored.starts_us, scored.readings, scored.rows, strict=True)
        ],
    )


def _write_alarm(session: Session, key: DriftKey, alarm: Alarm, now: Micros) -> None:
    place = alarm_id(key, alarm.opened_us)
    row = session.get(DriftAlarmRow, place)
    if row is None:
        row = DriftAlarmRow(
            id=place, endpoint_name=key.endpoint, bundle_digest=key.bundle, role=key.role, report=None, told_time=now
        )
        session.add(row)
    row.opened_us, row.since_us, row.closed_us = alarm.opened_us, alarm.since_us, alarm.closed_us
    row.peak, row.calibrated = alarm.peak, alarm.calibrated
    row.moved = [each.to_json() for each in alarm.moved]
