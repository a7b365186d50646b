"""Suites judged row by row in plain Python: what expectations mean, and a fake of Great Expectations."""

import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from skewless.quality.binding import bound_to
from skewless.quality.catalogue import CATALOGUE, LATER, NON_NULL_SHARE, NOT_NULL, ROW_COUNT, UNIQUE, Judged
from skewless.quality.results import ExpectationResult
from skewless.quality.suite import Expectation, Suite

Fails = Callable[[Any, Mapping[str, Any]], bool]


class NaiveRunner:
    """Implements `quality_gate.SuiteRunner`. Batch-wise it knows row counts, shares of values, means and medians."""

    def run(self, suite: Suite, table: pa.Table, *, as_of: int, times: frozenset[str]) -> tuple[ExpectationResult, ...]:
        bound = bound_to(suite, as_of, times)
        return tuple(_judged(position, each, table) for position, each in enumerate(bound.expectations))


def is_null(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def failing_rows(each: Expectation, table: pa.Table) -> list[int]:
    """Numbers of the rows that do not meet an expectation of rows."""
    if each.type == LATER:
        pairs = zip(*(table.column(name).to_pylist() for name in each.columns), strict=True)
        return [row for row, (first, second) in enumerate(pairs) if _is_before(first, second, each.kwargs)]
    if each.type == UNIQUE:
        rows = list(zip(*(table.column(name).to_pylist() for name in each.columns), strict=True))
        keys = [tuple(None if is_null(value) else value for value in row) for row in rows]
        counts = Counter(keys)
        return [row for row, key in enumerate(keys) if counts[key] > 1 and any(value is not None for value in key)]
    values = table.column(each.kwargs["column"]).to_pylist()
    if each.type == NOT_NULL:
        return [row for row, value in enumerate(values) if is_null(value)]
    if each.type == "expect_column_values_to_be_null":
        return [row for row, value in enumerate(values) if not is_null(value)]
    if each.type == "expect_column_values_to_be_unique":
        counts = Counter(value for value in values if not is_null(value))
        return [row for row, value in enumerate(values) if not is_null(value) and counts[value] > 1]
    fails = _FAILS[each.type]
    single = pa.types.is_float32(table.schema.field(each.kwargs["column"]).type)
    kwargs = {name: _as_stored(value, single=single) for name, value in each.kwargs.items()}
    return [row for row, value in enumerate(values) if not is_null(value) and fails(value, kwargs)]


def _judged(position: int, each: Expectation, table: pa.Table) -> ExpectationResult:
    if CATALOGUE[each.type].judged is Judged.ROWS:
        rows = failing_rows(each, table)
        judged = table.num_rows
        if each.type != NOT_NULL and "column" in each.kwargs:
            judged -= sum(map(is_null, table.column(each.kwargs["column"]).to_pylist()))
        share = 1.0 if not judged else (judged - len(rows)) / judged
        success = share >= each.kwargs.get("mostly", 1.0)
        failing = np.array(rows, dtype=np.int64)
        return ExpectationResult(position, success, table.num_rows, unexpected=len(rows), failing_rows=failing)
    observed = _observed(each, table)
    success = observed is not None and not _outside(observed, each.kwargs)
    return ExpectationResult(position, success, table.num_rows, observed=observed)


def _observed(each: Expectation, table: pa.Table) -> float | None:
    if each.type == ROW_COUNT:
        return float(table.num_rows)
    values = [value for value in table.column(each.kwargs["column"]).to_pylist() if not is_null(value)]
    if each.type == NON_NULL_SHARE:
        return len(values) / table.num_rows if table.num_rows else None
    if not values:
        return None
    return float(statistics.median(values)) if "median" in each.type else statistics.fmean(values)


def _as_stored(value: Any, *, single: bool) -> Any:
    """A bound of a float32 column is the float32 next to it: 0.1 as a value is not above 0.1 as a bound."""
    if isinstance(value, list):
        return [_as_stored(each, single=single) for each in value]
    return float(np.float32(value)) if single and isinstance(value, float) else value


def _outside(value: Any, kwargs: Mapping[str, Any]) -> bool:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    below = low is not None and (value <= low if kwargs.get("strict_min") else value < low)
    return below or (high is not None and (value >= high if kwargs.get("strict_max") else value > high))


def _is_before(first: Any, second: Any, kwargs: Mapping[str, Any]) -> bool:
    if is_null(first) or is_null(second):
        return False
    if isinstance(first, datetime):
        first, second = first.timestamp(), second.timestamp()
    return not (first >= second if kwargs.get("or_equal") else first > second)


_FAILS: Mapping[str, Fails] = {
    "expect_column_values_to_be_between": _outside,
    "expect_column_values_to_be_in_set": lambda value, kwargs: value not in kwargs["value_set"],
    "expect_column_values_to_not_be_in_set": lambda value, kwargs: value in kwargs["value_set"],
    "expect_column_values_to_match_regex": lambda value, kwargs: re.search(kwargs["regex"], value) is None,
    "expect_column_values_to_not_match_regex": lambda value, kwargs: re.search(kwargs["regex"], value) is not None,
    "expect_column_value_lengths_to_be_between": lambda value, kwargs: _outside(len(value), kwargs),
}
