"""The operations on one row's Python numbers and strings, as source text for `row_program.py`.

Each form says what the operation's kernel says, and only where Python's arithmetic is the same IEEE 754 on the same
float64, or the same integers: it has no meaning of its own. Operations that round in their own way (log1p, sine,
power) have no form; their kernels run instead. The differential check and the tests compare both, bit for bit.

In a form `{0}`, `{1}`, … are the operands, `{s0}`, `{s1}`, … the scalars of a stackable operation and other names its
parameters. Operands are never null except where `nulls` is True; there None is null. A form may give None.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, SECOND_US

_INT64_SPAN = 2**64
_INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class RowForm:
    """An expression of Python; `nulls` where it takes nulls itself instead of giving null for null."""

    source: str
    nulls: bool = False


def _truth(condition: str) -> RowForm:
    return RowForm(f"1.0 if {condition} else 0.0")


_CLIP = RowForm("{s0} if {0} < {s0} else {s1} if {0} > {s1} else {0}")
_IMPUTE = RowForm("{s0} if {0} is None else {0}", nulls=True)
_IMPUTE_TEXT = RowForm("{value} if {0} is None else {0}", nulls=True)
_RESCALE = RowForm("({0} - {s0}) / {s1}")
_BUCKET = RowForm("float(bisect_right({edges}, {0}))")

FORMS: Mapping[str, RowForm] = {
    "add": RowForm("{0} + {1}"),
    "subtract": RowForm("{0} - {1}"),
    "multiply": RowForm("{0} * {1}"),
    "divide": RowForm("{0} / {1} if {1} else None"),
    "less": _truth("{0} < {1}"),
    "less_equal": _truth("{0} <= {1}"),
    "greater": _truth("{0} > {1}"),
    "greater_equal": _truth("{0} >= {1}"),
    "equal": _truth("{0} == {1}"),
    "not_equal": _truth("{0} != {1}"),
    "and": _truth("{0} and {1}"),
    "or": _truth("{0} or {1}"),
    "not": RowForm("0.0 if {0} else 1.0"),
    "where": RowForm("None if {0} is None else {1} if {0} else {2}", nulls=True),
    "is_null": RowForm("1.0 if {0} is None else 0.0", nulls=True),
    "impute": _IMPUTE,
    "impute_mean": _IMPUTE,
    "impute_median": _IMPUTE,
    "impute_most_frequent_number": _IMPUTE,
    "clip": _CLIP,
    "clip_quantiles": _CLIP,
    # A finite number minus itself is 0, any other is NaN.
    "clean": RowForm("{0} if {s0} <= {0} <= {s1} and {0} - {0} == 0.0 else None"),
    "standardise": _RESCALE,
    "min_max": _RESCALE,
    "robust": _RESCALE,
    "abs": RowForm("abs({0})"),
    "bucket": _BUCKET,
    "quantile_bucket": _BUCKET,
    "impute_text": _IMPUTE_TEXT,
    "impute_most_frequent": _IMPUTE_TEXT,
    "lower": RowForm("{0}.lower()"),
    "upper": RowForm("{0}.upper()"),
    "strip": RowForm("{0}.strip()"),
    "length": RowForm("float(len({0}))"),
    "text_equal": _truth("{0} == {1}"),
    "text_not_equal": _truth("{0} != {1}"),
    "local_time": RowForm("local_time({0}, {transitions}, {offsets})"),
    "hour": RowForm(f"float({{0}} // {HOUR_US} % 24)"),
    "minute_of_day": RowForm(f"float({{0}} // {MINUTE_US} % 1440)"),
    "day_of_week": RowForm(f"float(({{0}} // {DAY_US} + 3) % 7)"),
    "minute": RowForm(f"float({{0}} // {MINUTE_US} % 60)"),
    "second": RowForm(f"float({{0}} // {SECOND_US} % 60)"),
    "month": RowForm("float(months({0}) % 12 + 1)"),
    "quarter": RowForm("float(months({0}) % 12 // 3 + 1)"),
    "year": RowForm("float(months({0}) // 12 + 1970)"),
}


def local_time(moment: int, transitions: Sequence[int], offsets: Sequence[int]) -> int:
    """`LocalTime`'s kernel for one moment; past the ends of int64 it comes round as NumPy does."""
    local = moment + offsets[bisect_right(transitions, moment // SECOND_US)] * SECOND_US
    return (local + 2**63) % _INT64_SPAN - 2**63


def months(local: int) -> int:
    """Months since January 1970 of a wall clock; NumPy takes the least int64 for no time at all, and keeps it."""
    if not -_INT64_MAX <= local <= _INT64_MAX:
        return local
    # Days and months of the civil calendar, counted in years that begin in March (Hinnant, "chrono-compatible
    # low-level date algorithms", civil_from_days), so that the leap day is a year's last.
    era, day = divmod(local // DAY_US + 719_468, 146_097)
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    month = (5 * (day - (365 * year + year // 4 - year // 100)) + 2) // 153
    return (era * 400 + year) * 12 + month + 2 - 1970 * 12


def one_of(code: float, parts: int) -> list[float]:
    """`parts` numbers: 1 in the one whose number is the code, 0 elsewhere."""
    numbers = [0.0] * parts
    if 0.0 <= code < parts:
        numbers[int(code)] = 1.0
    return numbers


NAMES: Mapping[str, object] = {
    "bisect_right": bisect_right,
    "float64": np.float64,
    "local_time": local_time,
    "months": months,
    "one_of": one_of,
}
"""What forms may call."""
