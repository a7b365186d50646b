"""Bounds that move with the moment a batch is judged for: `max_value: {as_of: +5m}` is that moment and five minutes."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from skewless.quality.suite import AS_OF, Suite
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, SECOND_US, from_micros, parse_timestamp

_UNITS_US = {"s": SECOND_US, "m": MINUTE_US, "h": HOUR_US, "d": DAY_US}
_OFFSET = re.compile(r"([+-])(\d{1,6})([smhd])")
_BOUNDS = ("min_value", "max_value")


def offset_us(text: str) -> int:
    """Microseconds of an offset such as `+5m` or `-400d`. Raises ValueError for anything else.

    >>> offset_us("-1h")
    -3600000000
    """
    if (found := _OFFSET.fullmatch(text)) is None:
        raise ValueError(f"`{text}` is no offset")
    sign, count, unit = found.groups()
    return (1 if sign == "+" else -1) * int(count) * _UNITS_US[unit]


def bound_to(suite: Suite, as_of: int, times: frozenset[str]) -> Suite:
    """The suite with every bound of the columns `times` as a moment, those that move bound to `as_of` (µs)."""
    bound = []
    for each in suite.expectations:
        timed = times.intersection(each.columns)
        kwargs = {
            name: _moment(value, as_of) if timed and name in _BOUNDS and value is not None else value
            for name, value in each.kwargs.items()
        }
        bound.append(replace(each, kwargs=kwargs))
    return replace(suite, expectations=tuple(bound))


def _moment(value: Any, as_of: int) -> object:
    if isinstance(value, Mapping):
        return from_micros(as_of + offset_us(value[AS_OF]))
    return from_micros(parse_timestamp(value))
