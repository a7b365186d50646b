"""Expectations that rows plainly meet, seen at once; whatever is doubtful is Great Expectations' to judge.

Great Expectations takes a tenth of a second however few rows there are, and most groups of rows have nothing wrong. So
each expectation is looked at first: where every value lies inside its bounds, and none on them, no reading of the
bounds could say that it is not met. All others, and with them everything that fails, goes on to the other runner, which
alone says what fails and why. Nothing here ever refuses a row.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skewless.adapters.quality_gate import SuiteRunner
from skewless.quality.binding import bound_to
from skewless.quality.catalogue import BETWEEN, IN_SET, LATER, NOT_NULL, UNIQUE, UNIQUE_COLUMN
from skewless.quality.results import ExpectationResult
from skewless.quality.suite import Expectation, Suite
from skewless.timestamps import to_micros

_EXACT = 2.0**53
"""Whole numbers up to here are floats of the same value; Great Expectations' bounds are floats."""


class SureRunner:
    """Implements `quality_gate.SuiteRunner`."""

    def __init__(self, doubtful: SuiteRunner) -> None:
        """`doubtful` judges what is not plain."""
        self._doubtful = doubtful

    def run(self, suite: Suite, table: Any, *, as_of: int, times: frozenset[str]) -> tuple[ExpectationResult, ...]:
        """See `SuiteRunner.run`."""
        bound = bound_to(suite, as_of, times).expectations
        open_places = [place for place, each in enumerate(bound) if not is_plainly_met(each, table)]
        results = [_met(place, table.num_rows) for place in range(len(bound))]
        if open_places:
            part = replace(suite, expectations=tuple(suite.expectations[place] for place in open_places))
            for each in self._doubtful.run(part, table, as_of=as_of, times=times):
                place = open_places[each.position]
                results[place] = replace(each, position=place)
        return tuple(results)


def is_plainly_met(each: Expectation, table: Any) -> bool:
    """Whether every row meets an expectation, whose bounds are moments already, beyond any doubt."""
    look = _LOOKS.get(each.type)
    return look is not None and look(each, table)


def _met(position: int, rows: int) -> ExpectationResult:
    return ExpectationResult(position, True, rows, unexpected=0, failing_rows=np.zeros(0, dtype=np.int64))


def _present(column: Any) -> NDArray[Any] | None:
    """The numbers of a column, times in µs, without nulls and NaN; None for other columns and for numbers too large."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        if kind.unit != "us":
            return None
        return np.asarray(column.cast(pa.int64()).drop_null().to_numpy())
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return None
    numbers = np.asarray(column.drop_null().to_numpy())
    numbers = numbers[~np.isnan(numbers)] if pa.types.is_floating(kind) else numbers
    return None if len(numbers) and np.abs(numbers.astype(np.float64)).max() >= _EXACT else numbers


def _bounds(kwargs: Mapping[str, Any]) -> tuple[float, float] | None:
    """Bounds such that what lies between lies inside, also where they are rounded to a float32; times in µs."""
    ends = []
    for name, missing, inner in (("min_value", -np.inf, max), ("max_value", np.inf, min)):
        value = kwargs.get(name)
        if value is None:
            ends.append(missing)
        elif isinstance(value, datetime):
            ends.append(to_micros(value))
        elif isinstance(value, int | float) and abs(value) < _EXACT:
            ends.append(inner(value, float(np.float32(value))))
        else:
            return None
    return ends[0], ends[1]


def _is_between(each: Expectation, table: Any) -> bool:
    numbers, bounds = _present(table.column(each.kwargs["column"])), _bounds(each.kwargs)
    if numbers is None or bounds is None:
        return False
    return not len(numbers) or bool(numbers.min() > bounds[0] and numbers.max() < bounds[1])


def _is_not_null(each: Expectation, table: Any) -> bool:
    column = table.column(each.kwargs["column"])
    return not column.null_count and not (pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py())


def _is_in_set(each: Expectation, table: Any) -> bool:
    column, values = table.column(each.kwargs["column"]).drop_null(), each.kwargs["value_set"]
    if not pa.types.is_string(column.type) or not all(isinstance(value, str) for value in values):
        return False
    return set(column.unique().to_pylist()) <= set(values)


def _is_unique(each: Expectation, table: Any) -> bool:
    columns = list(each.columns)
    if any(pa.types.is_floating(table.schema.field(name).type) for name in columns):
        return False
    counted = table.select(columns).group_by(columns).aggregate([])
    return bool(counted.num_rows == table.num_rows)


def _is_later(each: Expectation, table: Any) -> bool:
    first, second = (table.column(each.kwargs[name]) for name in ("column_A", "column_B"))
    if first.type != second.type or not (pa.types.is_timestamp(first.type) or pa.types.is_integer(first.type)):
        return False
    return pc.all(pc.fill_null(pc.greater(first, second), True)).as_py() is not False


_LOOKS: Mapping[str, Callable[[Expectation, Any], bool]] = {
    NOT_NULL: _is_not_null,
    BETWEEN: _is_between,
    IN_SET: _is_in_set,
    UNIQUE: _is_unique,
    UNIQUE_COLUMN: _is_unique,
    LATER: _is_later,
}
