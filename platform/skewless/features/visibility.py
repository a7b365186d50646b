"""The rule of what is visible when, and the statuses of served values. Online and offline both apply this."""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class Status(StrEnum):
    """Why a served value is what it is. Offline, `missing` and `stale` are both NULL."""

    OK = "ok"
    NULL = "null"
    MISSING = "missing"
    STALE = "stale"
    DEFAULT = "default"
    OVERRIDE = "override"
    INVALID = "invalid"
    """The store holds bytes that are not a value of the declared dtype; served as its policy for missing says."""


STATUS_CODES: tuple[Status, ...] = tuple(Status)
"""Arrays of statuses hold indexes into this. Statuses are only ever added at the end: logs hold their names."""
STATUS_CODE: dict[Status, int] = {status: code for code, status in enumerate(STATUS_CODES)}
NO_EVENT_TIME = -1
"""Stands in an array of event times where there is no row of the view."""

_MISSING = STATUS_CODE[Status.MISSING]
_STALE = STATUS_CODE[Status.STALE]
_OK = STATUS_CODE[Status.OK]
assert _OK == 0, "an array of zeros says that everything is ok"


def is_visible(*, event_time: int, created_time: int, as_of: int) -> bool:
    """Whether a feature row may be known at `as_of`; all in microseconds, both bounds inclusive.

    >>> is_visible(event_time=5, created_time=9, as_of=8)
    False
    """
    return event_time <= as_of and created_time <= as_of


def is_stale(*, event_time: int, as_of: int, ttl_us: int) -> bool:
    """Whether a visible row is too old. An age equal to the ttl is still fresh; ttl 0 is unlimited.

    >>> is_stale(event_time=0, as_of=10, ttl_us=10), is_stale(event_time=0, as_of=11, ttl_us=10)
    (False, True)
    """
    return 0 < ttl_us < as_of - event_time


def row_statuses(
    event_times: NDArray[np.int64], as_of: int | NDArray[np.int64], ttl_us: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """What age makes of each view's row: `missing`, `stale` or `ok`, as codes (views, rows).

    `event_times` is (views, rows) with NO_EVENT_TIME where the view was never written for the entity; `as_of` one
    moment, or one per row (rows,); `ttl_us` one per view (views,). A row of the future (event_time > as_of) is not
    visible, so it is `missing`.
    """
    statuses = np.zeros(event_times.shape, dtype=np.uint8)
    ttl = ttl_us[:, np.newaxis]
    statuses[(ttl > 0) & (as_of - event_times > ttl)] = _STALE
    statuses[(event_times == NO_EVENT_TIME) | (event_times > as_of)] = _MISSING
    return statuses


def value_statuses(stored: NDArray[np.uint8], row: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Statuses of values, from what the store holds of each and from their rows' own statuses; all of one shape.

    `stored` has the codes of `ok`, `null`, `missing` (no such field) and `invalid`. A row that is missing or cannot
    be read (`invalid`) says so for all its values; a missing field is `missing`; of what is left a stale row is
    `stale`, whatever it holds.
    """
    return np.where((row == _OK) | ((row == _STALE) & (stored == _MISSING)), stored, row)


def available_at(*, event_time: int, created_time: int) -> int:
    """The first moment at which a row is visible: `is_visible` holds from here on.

    >>> available_at(event_time=5, created_time=9)
    9
    """
    return max(event_time, created_time)


def available_sql(*, event_time: str, created_time: str) -> str:
    """`available_at` as an SQL expression over two microsecond expressions."""
    return f"greatest({event_time}, {created_time})"


def stale_sql(*, event_time: str, as_of: str, ttl_us: int) -> str:
    """`is_stale` as an SQL condition over two microsecond expressions."""
    return f"({ttl_us} > 0 AND {as_of} - {event_time} > {ttl_us})"
