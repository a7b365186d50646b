"""UTC offsets of an IANA zone as a table, so that local time is one search instead of a call per row.

The table is taken from this machine's tz database once, when a transform is fitted, and stored with it:
another tz database, newer or older, then gives the same bits. The zone is asked once a day over the years
covered; where its offset differs from the day before, the moment of change is found by bisection.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

FIRST_YEAR, LAST_YEAR = 1900, 2100
"""Outside these years the offset of the nearest moment inside them is used."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S = 86_400


def check_zone(value: object) -> str:
    """The name of a zone, as text. Whether this machine knows it is for `load_zone` to say."""
    if not isinstance(value, str) or not value:
        raise ValueError(f'must be the name of an IANA time zone such as "America/New_York", got {value!r}')
    return value


def load_zone(name: str) -> ZoneInfo:
    """The zone. Raises ValueError where this machine's tz database has no zone of that name."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(
            f"no time zone `{name}` in this machine's tz database; names are those of IANA, such as"
            ' "America/New_York" or "UTC" (the package tzdata brings the database where the system has none)'
        ) from error


@lru_cache(maxsize=64)
def offsets_of(name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(transitions, offsets) in seconds: before transitions[0] offsets[0] holds, from transitions[i] offsets[i + 1].

    >>> offsets_of("UTC")
    ((), (0,))
    """
    zone = load_zone(name)
    first = int((datetime(FIRST_YEAR, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds())
    last = int((datetime(LAST_YEAR, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds())
    transitions: list[int] = []
    offsets = [_offset_s(zone, first)]
    for day in range(first, last, _DAY_S):
        after = _offset_s(zone, day + _DAY_S)
        if after != offsets[-1]:
            transitions.append(_first_with(zone, after, day, day + _DAY_S))
            offsets.append(after)
    return tuple(transitions), tuple(offsets)


def _first_with(zone: ZoneInfo, offset: int, low: int, high: int) -> int:
    """The first second after `low`, up to `high`, from which `offset` holds."""
    while high - low > 1:
        middle = (low + high) // 2
        if _offset_s(zone, middle) == offset:
            high = middle
        else:
            low = middle
    return high


def _offset_s(zone: ZoneInfo, moment_s: int) -> int:
    offset = (_EPOCH + timedelta(seconds=moment_s)).astimezone(zone).utcoffset()
    assert offset is not None, "an aware datetime of a zone has an offset"
    return int(offset.total_seconds())
