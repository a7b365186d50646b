"""A first draft of a suite from data: what held of it, with room for what it has not shown yet.

A draft knows the data and not its meaning: it takes for usual whatever the data holds, mistakes included. So it is
marked as unreviewed, and gates do not rely on it before somebody has read it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import NUMERIC, TABLE, Column, Dtype
from skewless.quality.catalogue import (
    BETWEEN,
    IN_SET,
    INCREASING,
    LATER,
    MEDIAN,
    NON_NULL_SHARE,
    NOT_NULL,
    ROW_COUNT,
    UNIQUE,
)
from skewless.quality.suite import AS_OF, Expectation, OnFailure, Severity, Suite
from skewless.quality.view_schema import Role, SchemaColumn, ViewSchema

CLOCK_TOLERANCE = "+5m"
"""How far event times may be ahead: what clocks of machines differ by."""
_WORDS_MAX = 40
"""Distinct values up to which a set is suggested; beyond it new ones are usual."""
_TAIL = 0.001
"""Share of the values on either side that do not stretch a range."""
_DIGITS = 3
_INTEGERS = frozenset({Dtype.INT32, Dtype.INT64})
_COUNTED = NUMERIC - {Dtype.BOOL}


def suggested(schema: ViewSchema, columns: Mapping[str, Column], *, owner: str) -> Suite:
    """A draft that a gate accepts once it is reviewed; `columns` are the view's, (rows,) each, at least one row."""
    expectations = [
        Expectation(ROW_COUNT, {"min_value": 1}),
        *_of_rows(schema, columns),
        *(found for each in schema.columns for found in _of_column(each, columns[each.name])),
    ]
    return Suite(schema.view, schema.view, tuple(expectations), owner)


def _of_rows(schema: ViewSchema, columns: Mapping[str, Column]) -> Iterator[Expectation]:
    """What keys and times together are expected to be."""
    (event,) = schema.names(Role.EVENT_TIME)
    created = schema.names(Role.CREATED_TIME)
    yield _rows(BETWEEN, {"column": event, "max_value": {AS_OF: CLOCK_TOLERANCE}})
    for name in created:
        if _never_before(columns[name], columns[event]):
            yield _rows(LATER, {"column_A": name, "column_B": event, "or_equal": True})
    identity = list(schema.identity)
    if len(identity) > 1 and _distinct(columns, identity):
        yield _rows(UNIQUE, {"column_list": identity})
    times = columns[event].values[columns[event].valid].astype(np.int64)
    if len(times) > 1 and bool((times[1:] >= times[:-1]).all()):
        yield Expectation(INCREASING, {"column": event}, Severity.INFO, OnFailure.WARN)


def _of_column(declared: SchemaColumn, column: Column) -> Iterator[Expectation]:
    name, valid = declared.name, _present(column)
    values, share = column.values[valid], float(valid.mean())
    if declared.role is not Role.FEATURE:
        if declared.role is not Role.CREATED_TIME or share == 1.0:
            yield _rows(NOT_NULL, {"column": name})
    elif share == 1.0:
        yield Expectation(NOT_NULL, {"column": name}, Severity.WARNING, OnFailure.WARN)
    else:
        low = round(max(share - 0.1, share / 2, 10**-_DIGITS), _DIGITS)
        yield Expectation(NON_NULL_SHARE, {"column": name, "min_value": low}, Severity.WARNING, OnFailure.WARN)
    if not len(values) or declared.role in (Role.EVENT_TIME, Role.CREATED_TIME):
        return
    if declared.dtype in _COUNTED:
        yield from _of_numbers(declared, values.astype(np.float64))
    elif declared.dtype is Dtype.STRING and declared.told:
        yield from _of_words(name, values)


def _of_numbers(declared: SchemaColumn, values: NDArray[np.float64]) -> Iterator[Expectation]:
    values = values[np.isfinite(values)]
    if not len(values):
        return
    low, high = _range(values)
    seen = {"seen": [_number(declared.dtype, float(each)) for each in (values.min(), values.max())]}
    kwargs = {
        "column": declared.name,
        "min_value": _number(declared.dtype, low, down=True),
        "max_value": _number(declared.dtype, high),
    }
    yield Expectation(BETWEEN, kwargs, Severity.CRITICAL, OnFailure.QUARANTINE, seen)
    if declared.role is Role.FEATURE:
        first, last = (float(each) for each in np.quantile(values, [0.05, 0.95]))
        if first < last:
            bounds = {"min_value": _rounded(first), "max_value": _rounded(last)}
            yield Expectation(MEDIAN, {"column": declared.name, **bounds}, Severity.WARNING, OnFailure.WARN)


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    """Bounds with room of half the usual spread on either side, that do not cross zero or one where values do not."""
    first, last = (float(each) for each in np.quantile(values, [_TAIL, 1 - _TAIL]))
    room = (last - first) / 2 or max(abs(first), 1.0)
    low, high = first - room, last + room
    if values.min() >= 0:
        low = max(low, 0.0)
        if values.max() <= 1:
            high = min(high, 1.0) if last > 0 else high
    return low, high


def _of_words(name: str, values: NDArray[Any]) -> Iterator[Expectation]:
    counts = Counter(values.tolist())
    if len(counts) <= _WORDS_MAX and len(values) >= 10 * len(counts):
        kwargs = {"column": name, "value_set": sorted(counts)}
        yield Expectation(IN_SET, kwargs, Severity.WARNING, OnFailure.WARN)


def _rows(name: str, kwargs: Mapping[str, Any]) -> Expectation:
    return Expectation(name, kwargs, Severity.CRITICAL, OnFailure.QUARANTINE)


def _present(column: Column) -> NDArray[np.bool_]:
    """Rows that have a value, where NaN is none, as in Great Expectations."""
    if TABLE[column.dtype].numpy.kind == "f":
        present: NDArray[np.bool_] = column.valid & ~np.isnan(column.values.astype(np.float64))
        return present
    return column.valid


def _never_before(first: Column, second: Column) -> bool:
    both = first.valid & second.valid
    ahead = first.values[both].astype(np.int64) - second.values[both].astype(np.int64)
    return bool(both.any()) and bool((ahead >= 0).all())


def _distinct(columns: Mapping[str, Column], names: list[str]) -> bool:
    rows = list(zip(*(columns[name].values.tolist() for name in names), strict=True))
    return len(set(rows)) == len(rows)


def _number(dtype: Dtype, value: float, *, down: bool = False) -> float | int:
    if dtype in _INTEGERS:
        return int(np.floor(value)) if down else int(np.ceil(value))
    return _rounded(value)


def _rounded(value: float) -> float:
    """To so few digits that a reader can hold it in mind."""
    return float(f"{value:.{_DIGITS}g}")
