"""UTC time as integer microseconds since 1970, and its one text form at the edges (RFC 3339)."""

from datetime import UTC, datetime, timedelta
from typing import NewType

from skewless.errors import InvalidRequest

Micros = NewType("Micros", int)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US


def to_micros(moment: datetime) -> Micros:
    """Microseconds since 1970 of an aware datetime, exact. Raises ValueError for a naive one.

    >>> to_micros(datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC))
    1000005
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; give one, for example UTC")
    return Micros((moment - _EPOCH) // _MICROSECOND)


def from_micros(moment: int) -> datetime:
    """The aware UTC datetime of microseconds since 1970, exact."""
    return _EPOCH + timedelta(microseconds=moment)


def parse_timestamp(text: str) -> Micros:
    """Microseconds of an RFC 3339 / ISO 8601 text; a date alone is its UTC midnight.

    Raises ValueError for a text that is no timestamp and for one with a clock time but no time zone.

    >>> parse_timestamp("1970-01-01T01:00:00+01:00")
    0
    >>> parse_timestamp("1970-01-02")
    86400000000
    """
    if "\0" in text:  # up to which CPython 3.11 reads, whatever follows
        raise ValueError("it holds a NUL")
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None and len(text) == len("1970-01-02"):
        moment = moment.replace(tzinfo=UTC)
    return to_micros(moment)


def format_timestamp(moment: int) -> str:
    """RFC 3339 text in UTC, with a fraction only where there is one.

    >>> format_timestamp(0)
    '1970-01-01T00:00:00Z'
    """
    return from_micros(moment).isoformat().replace("+00:00", "Z")


def given_moment(moment: datetime | str | None, *, path: str) -> Micros | None:
    """Microseconds of what a program gave as `path`: a datetime with a zone, or text as `parse_timestamp` has it.

    None stays None. Raises InvalidRequest for anything else.
    """
    try:
        return parse_timestamp(moment) if isinstance(moment, str) else None if moment is None else to_micros(moment)
    except ValueError as error:
        raise InvalidRequest(
            f"{moment!r} is no time: {error}",
            path=path,
            allowed="a datetime with a time zone, or text such as 2013-05-01T00:00:00Z",
        ) from error
