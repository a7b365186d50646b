"""Adds counts to those that are kept, in a transaction of the ledger: what was counted and that it was are one change.

An endpoint's row is locked first, so that counts of one endpoint are added one after the other, and which rows were
late does not depend on who adds them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import delete, insert, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from skewless.drift.batch_counts import BatchCounts
from skewless.drift.tally_form import packed, unpacked
from skewless.drift.traffic import ALL
from skewless.drift.unseen_words import SeenWord, together
from skewless.monitor_limits import DRIFT_LIVE_S, DRIFT_ROWS_AT_ONCE
from skewless.registry.drift_records import DriftKey
from skewless.registry.drift_tables import DriftEndpointRow, DriftTallyRow, DriftWordRow
from skewless.statistics.tally import Tally
from skewless.timestamps import SECOND_US, Micros

NEVER = -(1 << 62)
"""Stands for a moment before everything."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Counts of one bundle in one role, to be added."""

    key: DriftKey
    counts: BatchCounts


@dataclass(frozen=True, slots=True)
class Sealing:
    """How an endpoint's windows are sealed: all that end `lateness_us` before the greatest `as_of`, both in µs.

    None is from `pending_us` on, where rows are known to wait that are older than those that come.
    """

    window_us: int
    lateness_us: int
    pending_us: int | None = None

    def until(self, moment_us: int) -> int:
        """Until when windows are sealed once the greatest `as_of` is `moment_us`."""
        ended_us = moment_us - self.lateness_us
        if self.pending_us is not None:
            ended_us = min(ended_us, self.pending_us)
        return ended_us // self.window_us * self.window_us


def add_counts(
    session: Session,
    endpoint: str,
    counted: Sequence[Counted],
    sealing: Sealing,
    *,
    now: Micros,
    uncounted_rows: int = 0,
    problem: str | None = None,
) -> bool:
    """Add what was counted of an endpoint's rows; whether more windows are sealed now than before.

    `uncounted_rows` could not be counted, for a `problem` that is kept where it can be read.
    """
    row = _locked(session, endpoint, now)
    late = 0
    for each in counted:
        late += _add_tallies(session, each, row.sealed_us)
        _add_words(session, each)
    # No further than the clock: a gateway whose clock is some seconds ahead would make the rows of all others late.
    newest_us = min(max([row.newest_us, *(each.counts.newest_us for each in counted)]), now)
    sealed_us = max(row.sealed_us, sealing.until(newest_us)) if newest_us > NEVER else row.sealed_us
    has_sealed = sealed_us > row.sealed_us
    row.newest_us, row.sealed_us = newest_us, sealed_us
    row.is_live = now - newest_us <= DRIFT_LIVE_S * SECOND_US
    row.rows += sum(each.counts.rows for each in counted)
    row.late_rows += late
    row.uncounted_rows += uncounted_rows
    row.problem = problem or row.problem
    row.changed_time = now
    session.flush()
    return has_sealed


def seal_by_clock(session: Session, endpoint: str, sealing: Sealing, *, now: Micros) -> bool:
    """Seal what the clock says is over, of an endpoint whose rows come soon after their `as_of`; whether any was."""
    row = session.get(DriftEndpointRow, endpoint, with_for_update=True)
    if row is None or not row.is_live or (until := sealing.until(now)) <= row.sealed_us:
        return False
    row.sealed_us, row.changed_time = until, now
    return True


def replace_counts(session: Session, counted: Counted, start_us: int, end_us: int) -> None:
    """Put other bundles' rows, counted in this one's bins, in the place of those of the same windows before.

    Windows that have rows of its own keep those.
    """
    key = counted.key
    session.execute(
        delete(DriftTallyRow).where(
            DriftTallyRow.endpoint_name == key.endpoint,
            DriftTallyRow.bundle_digest == key.bundle,
            DriftTallyRow.role == key.role,
            DriftTallyRow.recounted.is_(True),
            DriftTallyRow.window_start_us >= start_us,
            DriftTallyRow.window_start_us < end_us,
        )
    )
    tallies = counted.counts.tallies()
    while some := list(islice(tallies, DRIFT_ROWS_AT_ONCE)):
        own = _known(session, counted, [(name, start) for name, start, _ in some])
        new = [
            _values(counted, name, start, tally, late=0, recounted=True)
            for name, start, tally in some
            if start_us <= start < end_us and (name, start) not in own
        ]
        if new:
            session.execute(insert(DriftTallyRow), new)


def _locked(session: Session, endpoint: str, now: Micros) -> DriftEndpointRow:
    """An endpoint's row, made where it is new, held until the transaction ends."""
    made = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    first = {
        "endpoint_name": endpoint,
        "newest_us": NEVER,
        "sealed_us": NEVER,
        "is_live": False,
        "rows": 0,
        "late_rows": 0,
        "uncounted_rows": 0,
        "problem": None,
        "changed_time": now,
    }
    session.execute(made(DriftEndpointRow).values(first).on_conflict_do_nothing())
    wanted = select(DriftEndpointRow).where(DriftEndpointRow.endpoint_name == endpoint)
    return session.scalars(wanted.with_for_update()).one()


def _add_tallies(session: Session, counted: Counted, sealed_us: int) -> int:
    """Add each tally to what is kept of its window; how many rows came late."""
    late_rows = 0
    tallies = counted.counts.tallies()
    while some := list(islice(tallies, DRIFT_ROWS_AT_ONCE)):
        known = _known(session, counted, [(name, start) for name, start, _ in some])
        new, changed = [], []
        for name, start, tally in some:
            late = tally.rows if start < sealed_us else 0
            late_rows += late if name == ALL else 0
            values = _values(counted, name, start, tally, late=late, recounted=False)
            before = known.get((name, start))
            if before is None:
                new.append(values)
            else:
                changed.append((before, _together(counted, before, tally, values)))
        if new:
            session.execute(insert(DriftTallyRow), new)
        for before, values in changed:
            session.execute(update(DriftTallyRow).where(*_is_at(before)).values(values))
    return late_rows


def _known(
    session: Session, counted: Counted, places: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], DriftTallyRow]:
    key = counted.key
    wanted = select(DriftTallyRow).where(
        DriftTallyRow.endpoint_name == key.endpoint,
        DriftTallyRow.bundle_digest == key.bundle,
        DriftTallyRow.role == key.role,
        DriftTallyRow.window_us == counted.counts.window_us,
        tuple_(DriftTallyRow.slice, DriftTallyRow.window_start_us).in_(places),
    )
    return {(row.slice, row.window_start_us): row for row in session.scalars(wanted)}


def _is_at(row: DriftTallyRow) -> list[Any]:
    return [
        DriftTallyRow.endpoint_name == row.endpoint_name,
        DriftTallyRow.bundle_digest == row.bundle_digest,
        DriftTallyRow.role == row.role,
        DriftTallyRow.slice == row.slice,
        DriftTallyRow.window_start_us == row.window_start_us,
        DriftTallyRow.window_us == row.window_us,
    ]


def _values(counted: Counted, name: str, start_us: int, tally: Tally, *, late: int, recounted: bool) -> dict[str, Any]:
    shapes = counted.counts.shapes.get(start_us) if name == ALL and not recounted else None
    return {
        "endpoint_name": counted.key.endpoint,
        "bundle_digest": counted.key.bundle,
        "role": counted.key.role,
        "slice": name,
        "window_start_us": start_us,
        "window_us": counted.counts.window_us,
        "layout": tally.layout,
        "rows": tally.rows,
        "late_rows": late,
        "recounted": recounted,
        "shapes": shapes or None,
        "counts": packed(tally),
    }


def _together(counted: Counted, before: DriftTallyRow, tally: Tally, values: dict[str, Any]) -> dict[str, Any]:
    """The values of a window's row with what is kept of it. Counts of another version's bins, or of other bundles'
    rows, make room."""
    if before.layout != tally.layout or before.recounted:
        return values
    merged = unpacked(counted.counts.watched.layout, before.counts).merged(tally)
    shapes = dict(before.shapes or {})
    for name, rows in (values["shapes"] or {}).items():
        shapes[name] = shapes.get(name, 0) + rows
    return {
        **values,
        "rows": merged.rows,
        "late_rows": before.late_rows + values["late_rows"],
        "shapes": shapes or None,
        "counts": packed(merged),
    }


def _add_words(session: Session, counted: Counted) -> None:
    key = counted.key
    for feature, found in sorted(counted.counts.words.items()):
        of_feature = [
            DriftWordRow.endpoint_name == key.endpoint,
            DriftWordRow.bundle_digest == key.bundle,
            DriftWordRow.feature == feature,
        ]
        kept = {
            row.word: SeenWord(row.rows, row.over, row.first_us, row.last_us)
            for row in session.scalars(select(DriftWordRow).where(*of_feature))
        }
        after = together(kept, found)
        gone = sorted(kept.keys() - after.keys())
        if gone:
            session.execute(delete(DriftWordRow).where(*of_feature, DriftWordRow.word.in_(gone)))
        for word in sorted(after.keys() & kept.keys()):
            if after[word] != kept[word]:
                changed = update(DriftWordRow).where(*of_feature, DriftWordRow.word == word)
                session.execute(changed.values(_word_values(after[word])))
        new = [
            {"endpoint_name": key.endpoint, "bundle_digest": key.bundle, "feature": feature, "word": word}
            | _word_values(after[word])
            for word in sorted(after.keys() - kept.keys())
        ]
        if new:
            session.execute(insert(DriftWordRow), new)


def _word_values(seen: SeenWord) -> dict[str, Any]:
    return {"rows": seen.rows, "over": seen.over, "first_us": seen.first_us, "last_us": seen.last_us}
