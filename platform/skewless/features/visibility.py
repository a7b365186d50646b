"""The rule of what is visible when, and the statuses of served values. Online and offline both apply this."""

from enum import StrEnum


class Status(StrEnum):
    """Why a served value is what it is. Offline, `missing` and `stale` are both NULL."""

    OK = "ok"
    NULL = "null"
    MISSING = "missing"
    STALE = "stale"
    DEFAULT = "default"
    OVERRIDE = "override"


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


def status_of(*, stored: bool, null: bool, event_time: int | None, as_of: int, ttl_us: int) -> Status:
    """Status of what the online store holds for one feature of one entity.

    `stored` is False where the entity or the field does not exist; `event_time` is None where the view was
    never written for the entity. A row of the future (event_time > as_of) is not visible, so it is `missing`.
    """
    if not stored or event_time is None or event_time > as_of:
        return Status.MISSING
    if is_stale(event_time=event_time, as_of=as_of, ttl_us=ttl_us):
        return Status.STALE
    return Status.NULL if null else Status.OK


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
