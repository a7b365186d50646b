"""Recorded features under another bundle's contract: which values it would have been given, and which nobody recorded.

A record holds values after the policies of the bundle that answered. What its status says of a value is what another
contract starts from:

    ok, null, override   the value as the store held it; the other ttl decides whether it is stale
    missing, invalid     there was none; the other policy stands in
    stale                the value was not kept: stale under the other ttl too, or not known
    default              filled by the recording bundle's policy, so missing or stale before: as there

A column is shared where both contracts read the same feature of the same view by the same join keys, whatever alias
they use. That the view's definition was the same at both times is not looked at: contracts do not hold sources.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column, Dtype, column_of
from skewless.features.contract import Action, FeatureContract, FeatureField, ViewRead, column_name
from skewless.features.policies import policy_for, stand_in
from skewless.features.visibility import NO_EVENT_TIME, STATUS_CODE, Status, row_statuses
from skewless.replays.recorded import RecordedRows

_OK, _NULL, _MISSING, _STALE, _DEFAULT, _INVALID = (
    STATUS_CODE[each] for each in (Status.OK, Status.NULL, Status.MISSING, Status.STALE, Status.DEFAULT, Status.INVALID)
)


@dataclass(frozen=True, slots=True)
class CarriedFeature:
    """A stored feature that both contracts read: its column in the record, and how each of them reads it."""

    column: str
    recorded_column: str
    recorded_view: ViewRead
    view: ViewRead
    feature: FeatureField


@dataclass(frozen=True, slots=True)
class CarryPlan:
    """What of the columns that the other bundle needs a recording bundle's records have.

    `given` are join keys and request fields, by the same name in both. `lacking` has why a needed stored feature is
    not there, `lacking_given` the same of join keys and request fields, which nothing can fill.
    """

    given: tuple[tuple[str, Dtype], ...]
    features: tuple[CarriedFeature, ...]
    lacking: Mapping[str, str]
    lacking_given: Mapping[str, str]
    not_null: frozenset[str]
    """Of `given`, what the other bundle does not take a null for."""


@dataclass(frozen=True, slots=True)
class Carried:
    """Features of some rows as the other contract has them. `unknown` has, per column, the rows (rows,) whose value
    nobody recorded; columns in which every value is known are absent from it. `refused` (rows,) are those that the
    other bundle would have refused, by a policy or for want of a field."""

    columns: dict[str, Column]
    statuses: dict[str, NDArray[np.uint8]]
    event_times: dict[str, NDArray[np.int64]]
    unknown: dict[str, NDArray[np.bool_]]
    refused: NDArray[np.bool_]


def plan_carry(
    recorded: FeatureContract, other: FeatureContract, needed: Iterable[str], not_kept: Mapping[str, str]
) -> CarryPlan:
    """What can be carried of the `needed` columns of `other`, none of them computed on demand.

    `not_kept` has the columns of `recorded` that its records do not hold as they were, with the reason.
    """
    wanted = set(needed)
    dtypes = dict(recorded.columns)
    given: list[tuple[str, Dtype]] = []
    lacking_given: dict[str, str] = {}
    for name, dtype in other.columns[: len(other.join_keys) + len(other.request_fields)]:
        if name in wanted:
            reason = _why_not(name, dtype, dtypes, not_kept)
            if reason:
                lacking_given[name] = reason
            else:
                given.append((name, dtype))
    known = {_identity(view): view for view in recorded.views}
    features: list[CarriedFeature] = []
    lacking: dict[str, str] = {}
    for view in other.views:
        for feature in view.features:
            name = column_name(view.name, feature.name)
            if name not in wanted:
                continue
            source = known.get(_identity(view))
            own = "" if source is None else column_name(source.name, feature.name)
            if source is None or own not in dtypes:
                lacking[name] = "the bundle that answered did not read it"
            elif reason := _why_not(own, feature.dtype, dtypes, not_kept):
                lacking[name] = reason
            else:
                features.append(CarriedFeature(name, own, source, view, feature))
    return CarryPlan(tuple(given), tuple(features), lacking, lacking_given, other.not_null_columns)


def carry(plan: CarryPlan, rows: RecordedRows) -> Carried:
    """The shared columns of records of one bundle, as the other contract has them."""
    columns: dict[str, Column] = {}
    statuses: dict[str, NDArray[np.uint8]] = {}
    event_times: dict[str, NDArray[np.int64]] = {}
    unknown: dict[str, NDArray[np.bool_]] = {}
    refused = np.zeros(rows.rows, dtype=np.bool_)
    for name, _ in plan.given:
        columns[name] = rows.columns[name]
        if name in plan.not_null:
            refused |= ~rows.columns[name].valid
    for each in plan.features:
        times = rows.event_times[each.recorded_view.name]
        event_times[each.view.name] = times
        codes, not_known = other_statuses(
            rows.statuses[each.recorded_column],
            times,
            rows.as_of,
            recorded_ttl_us=each.recorded_view.ttl_us,
            ttl_us=each.view.ttl_us,
        )
        if not_known.any():
            unknown[each.column] = not_known
        refused |= refused_by(each.feature, codes) & ~not_known
        columns[each.column], statuses[each.column] = stood_in(each.feature, rows.columns[each.recorded_column], codes)
    return Carried(columns, statuses, event_times, unknown, refused)


def other_statuses(
    codes: NDArray[np.uint8],
    event_times: NDArray[np.int64],
    as_of: NDArray[np.int64],
    *,
    recorded_ttl_us: int,
    ttl_us: int,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Statuses (rows,) of recorded values under another ttl, before policies, and the rows of which it is not known.

    >>> stale, = (STATUS_CODE[Status.STALE],)
    >>> codes, unknown = other_statuses(
    ...     np.array([stale], np.uint8), np.array([0]), np.array([10]), recorded_ttl_us=5, ttl_us=20
    ... )
    >>> unknown.tolist()
    [True]
    """
    before = _row_codes(event_times, as_of, recorded_ttl_us)
    now = _row_codes(event_times, as_of, ttl_us)
    was_filled = codes == _DEFAULT
    filled = np.where(event_times == NO_EVENT_TIME, _MISSING, np.where(before == _STALE, _STALE, _MISSING))
    told = np.where(was_filled, filled, codes).astype(np.uint8)
    unknown: NDArray[np.bool_] = (told == _STALE) & (now != _STALE)
    was_read = (told == _OK) | (told == _NULL)
    return np.where(was_read & (now == _STALE), _STALE, told).astype(np.uint8), unknown


def refused_by(feature: FeatureField, codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Rows (rows,) that a feature's policies refuse, by the statuses of its values before policies."""
    refused = np.zeros(len(codes), dtype=np.bool_)
    for status in (Status.MISSING, Status.STALE, Status.INVALID):
        if policy_for(feature, status).action is Action.REJECT:
            refused |= codes == STATUS_CODE[status]
    return refused


def stood_in(feature: FeatureField, column: Column, codes: NDArray[np.uint8]) -> tuple[Column, NDArray[np.uint8]]:
    """A column after a feature's policies, and the statuses that it is then served with."""
    empty = column_of(feature.dtype, [None])
    gone = np.isin(codes, (_MISSING, _STALE, _INVALID))
    values, valid = np.where(gone, empty.values, column.values), column.valid & ~gone
    served = codes.copy()
    for status in (Status.MISSING, Status.STALE, Status.INVALID):
        value, reported = stand_in(feature, status)
        if value is not None:
            rows = codes == STATUS_CODE[status]
            filled = column_of(feature.dtype, [value])
            values, valid = np.where(rows, filled.values, values), valid | rows
            served[rows] = STATUS_CODE[reported]
    return Column(column.dtype, np.ascontiguousarray(values), valid), served


def _row_codes(event_times: NDArray[np.int64], as_of: NDArray[np.int64], ttl_us: int) -> NDArray[np.uint8]:
    codes: NDArray[np.uint8] = row_statuses(event_times[np.newaxis], as_of, np.array([ttl_us], dtype=np.int64))[0]
    return codes


def _identity(view: ViewRead) -> tuple[object, ...]:
    """What makes two reads of a view the same, whatever they call it."""
    return view.view, view.field_name, tuple((key.name, key.key_name, key.dtype) for key in view.join_keys)


def _why_not(name: str, dtype: Dtype, known: Mapping[str, Dtype], not_kept: Mapping[str, str]) -> str:
    """Why a column of a record cannot be used as `dtype`; empty where it can."""
    if name in not_kept:
        return not_kept[name]
    if name not in known:
        return "the bundle that answered did not ask for it"
    if known[name] is not dtype:
        return f"the bundle that answered has it as {known[name]}, this one as {dtype}"
    return ""
