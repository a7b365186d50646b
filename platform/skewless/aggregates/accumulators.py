"""What is kept of the values of one pane, so that panes can be put together: one family per way of keeping.

None stands for no value. `add` takes one value more, `merge` puts two together; neither order nor grouping changes a
bit of what is told in the end. Values come as `contributions.py` makes them: no nulls, no -0.0, one NaN.
"""

import math
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import Any

from skewless.aggregates import distinct_values as different
from skewless.aggregates import exact_sums
from skewless.aggregates.aggregation import Kind

Accumulator = Any
"""Of one family: an int, a tuple or a plain value."""
Order = tuple[int, int, int]
"""Event time, knowledge time (µs) and row within the batch: no two events of an entity have all three alike."""
Add = Callable[[Accumulator, Any, Order], Accumulator]
Merge = Callable[[Accumulator, Accumulator], Accumulator]

_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1
NOTHING: dict[Kind, int] = {Kind.COUNT: 0, Kind.DISTINCT: 0, Kind.SUM: 0}
"""What is told of a window without values; null of all other kinds."""

_NAN, _POSITIVE, _NEGATIVE = 1, 2, 4
"""Bits for what a sum of floats held beside finite numbers."""


class Family(StrEnum):
    """A way of keeping values."""

    COUNT = "count"
    WHOLE = "whole"
    """(how many, sum) of integers."""
    REAL = "real"
    """(how many, exact sum of the finite ones, bits for the others) of floats."""
    LOW = "low"
    HIGH = "high"
    DISTINCT = "distinct"
    LAST = "last"


def adder(family: Family, kept: int) -> Add:
    """`add` of a family; `kept` is for DISTINCT, how many different values are counted exactly."""
    return partial(_add_distinct, kept) if family is Family.DISTINCT else _ADD[family]


def merger(family: Family, kept: int) -> Merge:
    """`merge` of a family, for two that are not None."""
    return partial(_merge_distinct, kept) if family is Family.DISTINCT else _MERGE[family]


def result(kind: Kind, kept: int, held: Accumulator | None) -> Any:
    """What is told of a window; None is null."""
    if held is None:
        return NOTHING.get(kind)
    return different.count(held, kept) if kind is Kind.DISTINCT else _RESULT[kind](held)


def _add_count(held: int | None, _value: Any, _order: Order) -> int:
    return 1 if held is None else held + 1


def _add_whole(held: tuple[int, int] | None, value: int, _order: Order) -> tuple[int, int]:
    return (1, int(value)) if held is None else (held[0] + 1, held[1] + value)


def _add_real(held: tuple[int, int, int] | None, value: float, _order: Order) -> tuple[int, int, int]:
    count, total, others = held or (0, 0, 0)
    if math.isfinite(value):
        return count + 1, total + exact_sums.exact(value), others
    return count + 1, total, others | (_NAN if value != value else _POSITIVE if value > 0 else _NEGATIVE)


def _low(one: Any, other: Any) -> Any:
    return one if one != one or one <= other else other  # NaN is unlike itself, and stays


def _high(one: Any, other: Any) -> Any:
    return one if one != one or one >= other else other


def _add_distinct(kept: int, held: different.Hashes | None, value: int, _order: Order) -> different.Hashes:
    return different.with_hash(held or (), value, kept)


def _merge_distinct(kept: int, one: different.Hashes, other: different.Hashes) -> different.Hashes:
    return different.merged(one, other, kept)


def _add_last(held: tuple[Order, Any] | None, value: Any, order: Order) -> tuple[Order, Any]:
    return (order, value) if held is None or held[0] < order else held


_ADD: dict[Family, Add] = {
    Family.COUNT: _add_count,
    Family.WHOLE: _add_whole,
    Family.REAL: _add_real,
    Family.LOW: lambda held, value, _: value if held is None else _low(held, value),
    Family.HIGH: lambda held, value, _: value if held is None else _high(held, value),
    Family.LAST: _add_last,
}
_MERGE: dict[Family, Merge] = {
    Family.COUNT: lambda one, other: one + other,
    Family.WHOLE: lambda one, other: (one[0] + other[0], one[1] + other[1]),
    Family.REAL: lambda one, other: (one[0] + other[0], one[1] + other[1], one[2] | other[2]),
    Family.LOW: _low,
    Family.HIGH: _high,
    Family.LAST: lambda one, other: one if one[0] >= other[0] else other,
}


def real_sum(total: float, *, has_nan: bool, has_positive: bool, has_negative: bool) -> float:
    """The sum of floats whose finite ones sum up to `total`, by IEEE 754's rules for the others."""
    if has_nan or (has_positive and has_negative):
        return math.nan
    return math.inf if has_positive else -math.inf if has_negative else total


def int64_or_null(total: int) -> int | None:
    """A sum of integers; None beyond what an INT64 holds."""
    return total if _INT64_MIN <= total <= _INT64_MAX else None


def _sum(held: Any) -> float | int | None:
    if len(held) == 2:
        return int64_or_null(held[1])
    return _real(held)


def _real(held: tuple[int, int, int]) -> float:
    others = held[2]
    if not others:
        return exact_sums.rounded(held[1])
    return real_sum(
        0.0, has_nan=bool(others & _NAN), has_positive=bool(others & _POSITIVE), has_negative=bool(others & _NEGATIVE)
    )


def _mean(held: Any) -> float:
    total: float = float(held[1]) if len(held) == 2 else _real(held)
    return total / int(held[0])


_RESULT: dict[Kind, Callable[[Any], Any]] = {
    Kind.COUNT: lambda held: held,
    Kind.SUM: _sum,
    Kind.MEAN: _mean,
    Kind.MIN: lambda held: held,
    Kind.MAX: lambda held: held,
    Kind.LAST: lambda held: held[1],
}
