"""Keeps what the drift monitor counted within bounds: old windows become hours, and what is older still goes.

A day of one bundle in one role is merged in one transaction; counts are added up as bytes, so that bundles whose files
are gone are merged too.
"""

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, delete, insert, select, update
from sqlalchemy.orm import Session

from skewless.canonical_json import Digest
from skewless.drift.tally_form import added
from skewless.monitor_limits import DRIFT_COARSE_DAYS, DRIFT_FINE_DAYS
from skewless.registry.drift_records import DriftKey
from skewless.registry.drift_tables import (
    DriftAlarmRow,
    DriftEndpointRow,
    DriftRecountRow,
    DriftStateRow,
    DriftTallyRow,
    DriftWindowRow,
    DriftWordRow,
    is_fine,
)
from skewless.registry.transactions import RegistryPart
from skewless.timestamps import DAY_US, HOUR_US


class DriftUpkeep(RegistryPart):
    """See the module."""

    def merge_next(self) -> bool:
        """Merge the windows of one day that is old enough, and forget what is too old; whether there was any."""
        with self._transactions.read() as session:
            newest = {row.endpoint_name: row.newest_us for row in session.scalars(select(DriftEndpointRow))}
            oldest = ((endpoint, _oldest_fine(session, endpoint, newest[endpoint])) for endpoint in sorted(newest))
            found = next(((endpoint, start_us) for endpoint, start_us in oldest if start_us is not None), None)
        if found is None:
            return False
        self._merge(found[0], found[1] // DAY_US * DAY_US)
        return True

    def forget(self, active: Collection[DriftKey]) -> None:
        """Forget hours, alarms and words that are older than they are kept, and what detectors remember of bundles.

        A detector's state goes with the last counts of its bundle. Its calibration, which is large, goes once it was
        not scored for as long as windows are kept one by one, and is not among those that are `active`.
        """
        with self._transactions.write() as session:
            for row in session.scalars(select(DriftEndpointRow)).all():
                before = row.newest_us - DRIFT_COARSE_DAYS * DAY_US
                for table, moment in (
                    (DriftTallyRow, DriftTallyRow.window_start_us),
                    (DriftWindowRow, DriftWindowRow.window_start_us),
                    (DriftAlarmRow, DriftAlarmRow.opened_us),
                    (DriftWordRow, DriftWordRow.last_us),
                ):
                    session.execute(delete(table).where(table.endpoint_name == row.endpoint_name, moment < before))
            for state in (DriftStateRow, DriftRecountRow):
                session.execute(delete(state).where(~_has_counts(state)))
            for key in self._calibrated_long_ago(session):
                if key not in active:
                    session.execute(update(DriftStateRow).where(*_is_key(DriftStateRow, key)).values(calibration=None))

    def _calibrated_long_ago(self, session: Session) -> list[DriftKey]:
        before = self._clock() - DRIFT_FINE_DAYS * DAY_US
        wanted = select(DriftStateRow.endpoint_name, DriftStateRow.bundle_digest, DriftStateRow.role).where(
            DriftStateRow.computed_time < before, DriftStateRow.calibration.is_not(None)
        )
        return [DriftKey(endpoint, Digest(bundle), role) for endpoint, bundle, role in session.execute(wanted)]

    def _merge(self, endpoint: str, day_us: int) -> None:
        with self._transactions.write() as session:
            wanted = (
                select(DriftTallyRow.bundle_digest, DriftTallyRow.role)
                .where(*_fine_of_day(DriftTallyRow, endpoint, day_us))
                .distinct()
                .order_by(DriftTallyRow.bundle_digest, DriftTallyRow.role)
            )
            for bundle, role in session.execute(wanted).all():
                key = DriftKey(endpoint, Digest(bundle), role)
                _merge_tallies(session, key, day_us)
                _merge_windows(session, key, day_us)


def _has_counts(table: type[DriftStateRow | DriftRecountRow]) -> ColumnElement[bool]:
    """Whether anything is counted of the key of a row of a table."""
    same = [
        DriftTallyRow.endpoint_name == table.endpoint_name,
        DriftTallyRow.bundle_digest == table.bundle_digest,
        DriftTallyRow.role == table.role,
    ]
    return select(DriftTallyRow.rows).where(*same).exists()


def _is_key(table: type[DriftStateRow | DriftTallyRow | DriftWindowRow], key: DriftKey) -> list[ColumnElement[bool]]:
    return [table.endpoint_name == key.endpoint, table.bundle_digest == key.bundle, table.role == key.role]


def _oldest_fine(session: Session, endpoint: str, newest_us: int) -> int | None:
    """The beginning of the oldest window that is old enough to be merged."""
    before = (newest_us - DRIFT_FINE_DAYS * DAY_US) // DAY_US * DAY_US
    wanted = (
        select(DriftTallyRow.window_start_us)
        .where(DriftTallyRow.endpoint_name == endpoint, DriftTallyRow.window_start_us < before)
        .where(is_fine(DriftTallyRow.window_us))
        .order_by(DriftTallyRow.window_start_us)
        .limit(1)
    )
    return session.scalars(wanted).one_or_none()


def _fine_of_day(table: type[DriftTallyRow | DriftWindowRow], endpoint: str, day_us: int) -> list[Any]:
    return [
        table.endpoint_name == endpoint,
        table.window_start_us >= day_us,
        table.window_start_us < day_us + DAY_US,
        is_fine(table.window_us),
    ]


def _of_key(table: type[DriftTallyRow | DriftWindowRow], key: DriftKey, day_us: int) -> list[Any]:
    return [*_fine_of_day(table, key.endpoint, day_us), *_is_key(table, key)]


def _merge_tallies(session: Session, key: DriftKey, day_us: int) -> None:
    rows = session.scalars(select(DriftTallyRow).where(*_of_key(DriftTallyRow, key, day_us))).all()
    # Hours of the same day that an earlier, longer window left are added to, not put beside.
    hours = session.scalars(
        select(DriftTallyRow).where(
            *_is_key(DriftTallyRow, key),
            DriftTallyRow.window_us == HOUR_US,
            DriftTallyRow.window_start_us >= day_us,
            DriftTallyRow.window_start_us < day_us + DAY_US,
        )
    ).all()
    fine = {(row.slice, row.window_start_us // HOUR_US) for row in rows}
    joining = [row for row in hours if (row.slice, row.window_start_us // HOUR_US) in fine]
    merged = [_hour_of(key, list(group)) for group in _by_hour([*rows, *joining])]
    for row in joining:
        session.delete(row)
    session.execute(delete(DriftTallyRow).where(*_of_key(DriftTallyRow, key, day_us)))
    session.flush()
    if merged:
        session.execute(insert(DriftTallyRow), merged)


def _by_hour(rows: Iterable[DriftTallyRow]) -> list[list[DriftTallyRow]]:
    def place(row: DriftTallyRow) -> tuple[str, int]:
        return row.slice, row.window_start_us // HOUR_US

    return [list(group) for _, group in groupby(sorted(rows, key=place), key=place)]


def _hour_of(key: DriftKey, rows: Sequence[DriftTallyRow]) -> dict[str, Any]:
    """One hour of the windows in it; of those of several versions, the ones that the most rows were counted in."""
    weight: dict[str, int] = {}
    for row in rows:
        weight[row.layout] = weight.get(row.layout, 0) + row.rows
    layout = max(sorted(weight), key=weight.__getitem__)
    alike = [row for row in rows if row.layout == layout]
    shapes: dict[str, int] = {}
    for row in alike:
        for name, count in (row.shapes or {}).items():
            shapes[name] = shapes.get(name, 0) + count
    return {
        "endpoint_name": key.endpoint,
        "bundle_digest": key.bundle,
        "role": key.role,
        "slice": rows[0].slice,
        "window_start_us": rows[0].window_start_us // HOUR_US * HOUR_US,
        "window_us": HOUR_US,
        "layout": layout,
        "rows": sum(row.rows for row in alike),
        "late_rows": sum(row.late_rows for row in alike),
        "recounted": all(row.recounted for row in alike),
        "shapes": shapes or None,
        "counts": added([row.counts for row in alike]),
    }


def _merge_windows(session: Session, key: DriftKey, day_us: int) -> None:
    """An hour says what the highest of its windows said, and every break of any of them."""
    found = _of_key(DriftWindowRow, key, day_us)
    rows = session.scalars(select(DriftWindowRow).where(*found).order_by(DriftWindowRow.window_start_us)).all()
    merged = []
    for hour, group in groupby(rows, key=lambda row: row.window_start_us // HOUR_US):
        windows = list(group)
        highest = max(windows, key=lambda row: row.level)
        breaks = {(each["rule"], each["part"], each["name"]): each for row in windows for each in row.breaks or ()}
        merged.append(
            {
                "endpoint_name": key.endpoint,
                "bundle_digest": key.bundle,
                "role": key.role,
                "window_start_us": hour * HOUR_US,
                "window_us": HOUR_US,
                "rows": sum(row.rows for row in windows),
                "level": highest.level,
                "leading": highest.leading,
                "is_open": any(row.is_open for row in windows),
                "grade": highest.grade,
                "breaks": list(breaks.values()) or None,
            }
        )
    session.execute(delete(DriftWindowRow).where(*found))
    if merged:
        session.execute(insert(DriftWindowRow), merged)
