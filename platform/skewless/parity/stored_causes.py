"""Why stored features of one view differ: the event times of both sides, the source's versions, and what was written.

rows      (rows,) of a check; only those in which any column of the view differs are looked at
facts     (differing,) arrays about each such row: which source row each side had, known when, written or not
causes    (differing,) per column, the first cause in order of precedence that applies
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column
from skewless.features.contract import FeatureField, ViewRead, column_name
from skewless.features.frame import NO_EVENT_TIME, STATUS_CODE, FeatureFrame
from skewless.features.visibility import Status
from skewless.parity.causes import CAUSE_CODE, NO_CAUSE, PENDING, Cause
from skewless.parity.equality import Equality, Mask, casts_alike, compare_columns, is_stand_in, rounds_alike
from skewless.parity.evidence import IngestTimes, Versions, Watermark, Written, take

Rows = NDArray[np.int64]

_OK, _NULL, _MISSING, _STALE, _DEFAULT, _INVALID = (
    STATUS_CODE[each] for each in (Status.OK, Status.NULL, Status.MISSING, Status.STALE, Status.DEFAULT, Status.INVALID)
)


@dataclass(frozen=True, slots=True)
class ViewState:
    """What is known about a view beside its rows. Masks are (rows,) of the check."""

    changed: bool
    """Whether it is defined otherwise today than in the contract."""
    written: Written | None
    """Its materializations; None where there are none, such as of a view that is only pushed to."""
    watermark: Watermark | None
    """How far its source reaches; None: nobody looked."""
    lower_rung: Mask
    """Rows answered with features that are not the store's of that moment, as their bundle allows."""
    under_other_key: Mask
    """Rows whose entity the store has under a key of another type."""
    ingested: IngestTimes | None = None
    """When ingested rows became visible online; None where nothing is ingested."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """Of the rows (differing,) at `rows` of the check, ascending."""

    rows: Rows
    as_of: Rows
    served: Rows
    """Event time of the row that was served, NO_EVENT_TIME where none was."""
    offline: Rows
    """Event time of the row that was visible."""
    created: Rows
    """When that row became known."""
    in_source: Mask
    """Whether the source has any version of the row that was served."""
    leaked: Mask
    """Whether what was served is, in every column, a version that became known only later."""
    older: Mapping[str, Mask]
    """By column, whether the served value is of an older version of the visible row."""
    later: Mapping[str, Mask]
    """By column, whether the served value is of a version that became known only later."""
    raw: Mapping[str, NDArray[np.float64]]
    """By column, the source's own number of an integer in the visible row; NaN where unknown."""

    @property
    def same_row(self) -> Mask:
        """Both sides have the row of one event time, or neither has any."""
        return np.asarray(self.served == self.offline, dtype=np.bool_)

    @property
    def behind(self) -> Mask:
        """The served row is older than the visible one, or there was none."""
        return np.asarray(self.served < self.offline, dtype=np.bool_)


def differing(
    view: ViewRead, served: FeatureFrame, offline: FeatureFrame, equal: Mapping[str, Equality]
) -> dict[str, Mask]:
    """By column, the rows (rows,) whose value, status or age differs; values that a request gave are not compared."""
    aged = served.event_times[view.name] != offline.event_times[view.name]
    override = STATUS_CODE[Status.OVERRIDE]
    found = {}
    for name in columns_of(view):
        told = served.statuses[name] != offline.statuses[name]
        found[name] = (~equal[name].close | told | aged) & (served.statuses[name] != override)
    return found


def columns_of(view: ViewRead) -> list[str]:
    """Contract columns of a stored view."""
    return [column_name(view.name, feature.name) for feature in view.features]


def stored_causes(
    view: ViewRead,
    rows: Rows,
    served: FeatureFrame,
    offline: FeatureFrame,
    as_of: Rows,
    *,
    different: Mapping[str, Mask],
    versions: Versions | None,
    state: ViewState,
) -> dict[str, NDArray[np.uint8]]:
    """By column of the view, a cause (rows of the check,) as its code: NO_CAUSE where nothing differs.

    `rows` are those in which something does, ascending; `different` is what `differing` found; `versions` holds the
    source's rows at both event times of each of them (None: nobody looked, and the event times alone decide).
    """
    facts = _facts(view, rows, served, offline, as_of, versions)
    on_its_way = _on_its_way(view, facts, state)
    shared = _row_causes(view, facts, state, on_its_way)
    pending = _pending(facts, state)
    found = {}
    for feature in view.features:
        name = column_name(view.name, feature.name)
        sides = (take(served.columns[name], rows), take(offline.columns[name], rows))
        statuses = (served.statuses[name][rows], offline.statuses[name][rows])
        codes = np.full(len(rows), CAUSE_CODE[Cause.UNKNOWN], dtype=np.uint8)
        for conditions in (shared, _column_causes(view, feature, facts, sides, statuses)):
            for cause, holds in conditions.items():
                codes[holds] = np.minimum(codes[holds], CAUSE_CODE[cause])
        lagging = on_its_way & (codes == CAUSE_CODE[Cause.EQUAL_TIMESTAMP_CORRECTION])
        codes[lagging] = CAUSE_CODE[Cause.MATERIALIZATION_LAG]
        codes[pending & (codes > CAUSE_CODE[Cause.ENTITY_KEY_TYPE])] = PENDING
        everywhere = np.full(served.rows, NO_CAUSE, dtype=np.uint8)
        everywhere[rows] = np.where(different[name][rows], codes, NO_CAUSE)
        found[name] = everywhere
    return found


def _on_its_way(view: ViewRead, facts: _Facts, state: ViewState) -> Mask:
    """Rows (differing,) whose visible row was accepted by ingestion and not online yet at the moment asked for."""
    if state.ingested is None:
        return np.zeros(len(facts.rows), dtype=np.bool_)
    return np.asarray(state.ingested.online_times(view.view, facts.created) > facts.as_of, dtype=np.bool_)


def _pending(facts: _Facts, state: ViewState) -> Mask:
    """Rows of which the served row is newer than anything the source has, so that it may be on its way there."""
    if state.watermark is None:
        return np.zeros(len(facts.rows), dtype=np.bool_)
    ahead = (facts.served > state.watermark.event_time) & (facts.served <= facts.as_of)
    return np.asarray(ahead & ~facts.in_source, dtype=np.bool_)


def _facts(
    view: ViewRead, rows: Rows, served: FeatureFrame, offline: FeatureFrame, as_of: Rows, versions: Versions | None
) -> _Facts:
    times = (served.event_times[view.name][rows], offline.event_times[view.name][rows])
    if versions is None:
        return _facts_by_times(view, rows, as_of[rows], *times)
    moments = as_of[rows]
    place = np.searchsorted(rows, versions.row)
    is_served = versions.event_time == times[0][place]
    is_offline = versions.event_time == times[1][place]
    is_known = (versions.created_time <= moments[place]) & (versions.event_time <= moments[place])
    created = np.full(len(rows), NO_EVENT_TIME, dtype=np.int64)
    visible = is_offline & is_known
    np.maximum.at(created, place[visible], versions.created_time[visible])
    winner = visible & (versions.created_time == created[place])
    older, later, raw = {}, {}, {}
    whole = np.ones(len(place), dtype=np.bool_)
    for feature in view.features:
        name = column_name(view.name, feature.name)
        codes = served.statuses[name][rows]
        usable = (codes == _OK) | (codes == _NULL)
        value = take(served.columns[name], rows[place])
        matches = compare_columns(value, versions.columns[feature.name]).close & usable[place]
        whole &= matches
        older[name] = _any(is_served & is_known & ~winner & matches, place, len(rows))
        later[name] = _any(is_served & ~is_known & matches, place, len(rows))
        if feature.name in versions.raw:
            raw[name] = _raw(versions.raw[feature.name], winner, place, len(rows))
    return _Facts(
        rows, moments, *times, created, _any(is_served, place, len(rows)),
        _any(is_served & ~is_known & whole, place, len(rows)), older, later, raw,
    )  # fmt: skip


def _facts_by_times(view: ViewRead, rows: Rows, as_of: Rows, served: Rows, offline: Rows) -> _Facts:
    """What event times alone tell: a newer row is taken for one of the future, none offline for one that never was."""
    nowhere = np.zeros(len(rows), dtype=np.bool_)
    by_column = dict.fromkeys(columns_of(view), nowhere)
    newer = (served > offline) & (offline != NO_EVENT_TIME)
    in_source = newer | ((served == offline) & (served != NO_EVENT_TIME))
    return _Facts(rows, as_of, served, offline, offline, in_source, newer, by_column, by_column, {})


def _any(lines: Mask, place: NDArray[np.intp], rows: int) -> Mask:
    """By row, whether any of its lines (versions,) is True."""
    return np.asarray(np.bincount(place[lines], minlength=rows) > 0, dtype=np.bool_)


def _raw(column: Column, winner: Mask, place: NDArray[np.intp], rows: int) -> NDArray[np.float64]:
    found = np.full(rows, np.nan)
    lines = winner & column.valid
    found[place[lines]] = column.values[lines]
    return found


def _row_causes(view: ViewRead, facts: _Facts, state: ViewState, on_its_way: Mask) -> dict[Cause, Mask]:
    """Conditions (differing,) that hold for whole rows."""
    absent = facts.served == NO_EVENT_TIME
    there = facts.offline != NO_EVENT_TIME
    newer = facts.served > facts.offline
    too_old = there & (view.ttl_us > 0) & (facts.as_of - facts.offline > view.ttl_us)
    everywhere = np.ones(len(facts.rows), dtype=np.bool_)
    if state.written is None:
        covered, passed, runs = ~everywhere, ~everywhere, ~everywhere
    else:
        covered = state.written.covers(facts.offline, facts.created, facts.as_of)
        passed = state.written.passed(facts.offline, facts.created, facts.as_of)
        runs = everywhere
    behind = facts.behind & ~covered
    return {
        Cause.DEFINITION_CHANGED: everywhere & state.changed,
        Cause.STALE_SERVING: state.lower_rung[facts.rows],
        Cause.ENTITY_KEY_TYPE: absent & there & state.under_other_key[facts.rows],
        Cause.FUTURE_LEAK: (facts.served > facts.as_of) | (newer & facts.leaked),
        Cause.RESTATED_ROW: newer & facts.in_source & (facts.served <= facts.as_of),
        Cause.TTL: absent & too_old & (covered | ~runs),
        Cause.LATE_ROW: behind & passed & ~on_its_way,
        Cause.MATERIALIZATION_LAG: (behind & (runs | ~absent)) | (facts.behind & on_its_way),
        Cause.MISSING_ONLINE: facts.behind,
        Cause.EXTRA_ONLINE: newer & ~facts.in_source,
    }


def _column_causes(
    view: ViewRead,
    feature: FeatureField,
    facts: _Facts,
    sides: tuple[Column, Column],
    statuses: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> dict[Cause, Mask]:
    """Conditions (differing,) of one column, for rows in which both sides have the row of one event time."""
    name = column_name(view.name, feature.name)
    served, offline = sides
    same = facts.same_row
    apart = same & ~compare_columns(served, offline).close
    both = served.valid & offline.valid
    there = facts.offline != NO_EVENT_TIME
    too_old = there & (view.ttl_us > 0) & (facts.as_of - facts.offline > view.ttl_us)
    one_too_old = (too_old & np.isin(statuses[0], (_OK, _NULL))) | (~too_old & (statuses[0] == _STALE))
    unreadable = statuses[0] == _INVALID
    filled = (statuses[0] == _DEFAULT) != (statuses[1] == _DEFAULT)
    cast = apart & casts_alike(served, offline, facts.raw.get(name))
    stands_in = apart & served.valid & ~offline.valid & is_stand_in(served, feature.on_missing.value)
    lacks = apart & ~served.valid & offline.valid & ~unreadable & ~cast & ~filled
    lacks |= same & there & (statuses[0] == _MISSING)
    adds = apart & served.valid & ~offline.valid & ~stands_in & ~cast & ~filled
    return {
        Cause.FUTURE_LEAK: apart & facts.later[name],
        Cause.EQUAL_TIMESTAMP_CORRECTION: apart & facts.older[name],
        Cause.TTL: same & one_too_old,
        Cause.MISSING_ONLINE: lacks,
        Cause.EXTRA_ONLINE: adds,
        Cause.DECLARED_PRECISION: apart & rounds_alike(served, offline),
        Cause.COERCION: cast | (same & unreadable),
        Cause.DEFAULT_FILLED: stands_in | (same & filled),
        Cause.PIPELINES_DIFFER: apart & both & there,
    }
