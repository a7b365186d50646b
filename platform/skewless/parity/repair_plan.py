"""What a repair of the online store does about each row that differs from the offline store, and why.

online     what the store holds of some entities of one view, read by the gateway's own reader       (entities,)
offline    the row of each that is visible now, of whatever age                                      (entities,)
reasons    parity's causes, as a check at this moment would name them                                (entities,)

A row is written or removed as a whole. What is only on its way (the next materialization, a source that has not got so
far) is left alone, unless somebody asks for it by name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from skewless.errors import InvalidRequest
from skewless.features.contract import ViewRead
from skewless.features.frame import NO_EVENT_TIME, FeatureFrame
from skewless.features.stored_hashes import Leftover
from skewless.features.visibility import is_stale
from skewless.parity.causes import CAUSE_CODE, CAUSES, PENDING, Cause
from skewless.parity.compare import differing_rows, equal_columns
from skewless.parity.equality import Mask
from skewless.parity.evidence import Versions
from skewless.parity.stored_causes import ViewState, differing, stored_causes

ANY = "any"
EXPIRED = "expired"
"""A row past its view's ttl of which the source has nothing any more; of parity's causes it is `extra_online`."""
PENDING_REASON = "pending"
"""Newer than all of its view's source, as in a check, or come since the repair's moment; never repaired."""


class Action(StrEnum):
    """What is done about one row."""

    WRITE = "write"
    REMOVE = "remove"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Remedy:
    """What a repair does for a reason. `lasting`: it does not come back unless somebody does it again."""

    does: str
    lasting: bool = True
    by_default: bool = True


_WRITES = "writes the row that is visible now"
_WRITES_OR_REMOVES = "writes the row that is visible now, or removes what is there where there is none"

REMEDIES: Mapping[str, Remedy] = {
    Cause.ENTITY_KEY_TYPE: Remedy(
        "writes the row under the declared type, and removes what lies under another", lasting=False
    ),
    Cause.FUTURE_LEAK: Remedy(_WRITES_OR_REMOVES, lasting=False),
    Cause.RESTATED_ROW: Remedy(_WRITES, by_default=False),
    Cause.EQUAL_TIMESTAMP_CORRECTION: Remedy("writes the correction"),
    Cause.TTL: Remedy("writes the row again, whatever its age: readers say that it is stale"),
    Cause.LATE_ROW: Remedy(_WRITES),
    Cause.MATERIALIZATION_LAG: Remedy(_WRITES, by_default=False),
    Cause.MISSING_ONLINE: Remedy("writes the row, also where a push put nulls into it"),
    Cause.EXTRA_ONLINE: Remedy(_WRITES_OR_REMOVES),
    Cause.DECLARED_PRECISION: Remedy("writes the values as the source has them", lasting=False),
    Cause.COERCION: Remedy("writes the values as the source has them", lasting=False),
    Cause.DEFAULT_FILLED: Remedy("writes the values as the source has them, nulls included", lasting=False),
    Cause.PIPELINES_DIFFER: Remedy("writes the source's values", lasting=False),
    Cause.UNKNOWN: Remedy(_WRITES_OR_REMOVES, by_default=False),
    EXPIRED: Remedy("removes the row"),
    Leftover.FIELD: Remedy("removes the field"),
    Leftover.ENTITY: Remedy("removes the hash"),
}
"""What can be repaired, in the order in which it is told; no other reason can, because no row is wrong for it."""

_REASON_CODE = {reason: code for code, reason in enumerate(REMEDIES)}
_LEAK_CODE = _REASON_CODE[Cause.FUTURE_LEAK]
REASONS: tuple[str, ...] = (*REMEDIES, PENDING_REASON)
"""Arrays of reasons hold indexes into this."""
_PENDING_CODE = len(REMEDIES)


def chosen_reasons(names: Iterable[str], *, of_now: bool = True) -> frozenset[str]:
    """The reasons that a repair acts on: those that need somebody where none is named; `any` is all of them.

    As of another moment than now (not `of_now`) what is newer than that moment may well be right today, so it is left
    alone unless it is named. Raises InvalidRequest for a name that stands for nothing.
    """
    named = tuple(names)
    if not named:
        default = frozenset(reason for reason, remedy in REMEDIES.items() if remedy.by_default)
        return default if of_now else default - {Cause.FUTURE_LEAK}
    unknown = [each for each in named if each not in REMEDIES and each != ANY]
    if unknown:
        allowed = ", ".join(f"`{each}`" for each in (ANY, *REMEDIES))
        raise InvalidRequest(f"`{unknown[0]}` is nothing that can be repaired", path="--cause", allowed=allowed)
    return frozenset(REMEDIES) if ANY in named else frozenset(named)


@dataclass(frozen=True, slots=True)
class Difference:
    """Rows (differing,) of some entities of one view whose online row is not the offline one.

    `rows` are their places among the entities, ascending; `reasons` indexes into REASONS; `columns` has a mask
    (differing,) per column that says whether the column differs.
    """

    rows: NDArray[np.int64]
    reasons: NDArray[np.uint8]
    columns: Mapping[str, Mask]

    def actions(self, offline: FeatureFrame, view: str, chosen: frozenset[str]) -> list[Action]:
        """What to do about each row where only some reasons are acted on."""
        there = offline.event_times[view][self.rows] != NO_EVENT_TIME
        return [
            (Action.WRITE if exists else Action.REMOVE) if REASONS[code] in chosen else Action.LEAVE
            for code, exists in zip(self.reasons.tolist(), there.tolist(), strict=True)
        ]


def questions(view: ViewRead, online: FeatureFrame, offline: FeatureFrame) -> NDArray[np.int64]:
    """The entities, by number and ascending, whose online row is not the offline one."""
    return differing_rows(differing(view, online, offline, equal_columns(online, offline)))


def explain(
    view: ViewRead,
    rows: NDArray[np.int64],
    sides: tuple[FeatureFrame, FeatureFrame],
    as_of: int,
    *,
    read_at: int,
    versions: Versions | None,
    state: ViewState,
) -> Difference:
    """Why `rows`, found by `questions`, differ at `as_of` (µs). `sides` are online and offline, both without a ttl.

    `read_at` (µs) is the time once the online side had been read: what is of the future at `as_of` and no longer then
    has come meanwhile, and is pending. Whatever is wrong with several columns of a row, the row has the first reason in
    precedence.
    """
    online, offline = sides
    different = differing(view, online, offline, equal_columns(online, offline))
    # Of whatever age: a store holds the newest row, and its reader says that it is stale.
    ageless = replace(view, ttl_us=0)

    def codes_at(moment: int) -> NDArray[np.uint8]:
        """The first cause of each of `rows` for somebody who asks at a moment."""
        moments = np.full(online.rows, moment, dtype=np.int64)
        found = stored_causes(
            ageless, rows, online, offline, moments, different=different, versions=versions, state=state
        )
        return np.asarray(np.min([each[rows] for each in found.values()], axis=0), dtype=np.uint8)

    first = codes_at(as_of)
    served, there = online.event_times[view.name][rows], offline.event_times[view.name][rows]
    reasons = np.array(
        [
            _reason(code, view.ttl_us, as_of, online_time, offline_time)
            for code, online_time, offline_time in zip(first.tolist(), served.tolist(), there.tolist(), strict=True)
        ],
        dtype=np.uint8,
    )
    leaked = reasons == _LEAK_CODE
    if read_at > as_of and leaked.any():
        reasons[leaked & (codes_at(read_at) != CAUSE_CODE[Cause.FUTURE_LEAK])] = _PENDING_CODE
    return Difference(rows, reasons, {name: mask[rows] for name, mask in different.items()})


def _reason(code: int, ttl_us: int, as_of: int, online: int, offline: int) -> int:
    if code == PENDING:
        return _PENDING_CODE
    cause = CAUSES[code]
    if (
        cause is Cause.MISSING_ONLINE
        and online == NO_EVENT_TIME
        and is_stale(event_time=offline, as_of=as_of, ttl_us=ttl_us)
    ):
        return _REASON_CODE[Cause.TTL]  # as a check calls it, which looks at what is still young enough
    if (
        cause is Cause.EXTRA_ONLINE
        and offline == NO_EVENT_TIME
        and is_stale(event_time=online, as_of=as_of, ttl_us=ttl_us)
    ):
        return _REASON_CODE[EXPIRED]
    return _REASON_CODE[cause]
