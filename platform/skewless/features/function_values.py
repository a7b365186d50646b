"""Columns as an on-demand function is given them, and its results as columns again.

A function sees what Feast's own would: Python values with None for null, UTC datetimes for timestamps, lists for
lists; in a DataFrame 64-bit numbers, with pandas' nullable integers and booleans so that no integer is rounded and no
dtype depends on which other rows are null. A result is cast to the declared dtype where nothing is lost; None and NaN
are null, as Feast stores them.
"""

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from skewless.dtypes import ELEMENTS, TABLE, Column, Dtype, column_of, to_python
from skewless.timestamps import from_micros, to_micros

_INTEGERS = frozenset({Dtype.INT32, Dtype.INT64})
_FLOATS = frozenset({Dtype.FLOAT32, Dtype.FLOAT64})
_EXACT_FLOAT_MAX = 2**53


class WrongValue(ValueError):
    """A function's result is not what was declared; the message goes on after the feature's name."""


def for_python(column: Column) -> list[Any]:
    """The column as a list that the function may keep and change, None where null."""
    values = to_python(column)
    if column.dtype is Dtype.TIMESTAMP:
        return [None if value is None else from_micros(value) for value in values]  # type: ignore[arg-type]  # int64
    if column.dtype is Dtype.TIMESTAMP_LIST:
        return [None if value is None else [from_micros(each) for each in value] for value in values]  # type: ignore[attr-defined]  # tuples
    if column.dtype in ELEMENTS:
        return [None if value is None else list(value) for value in values]  # type: ignore[call-overload]  # tuples
    return values


def for_pandas(pandas: Any, column: Column, *, nullable: bool) -> Any:
    """The column as what a DataFrame is made of; `nullable` is whether a null can ever occur in it."""
    if column.dtype in _FLOATS:
        return np.where(column.valid, column.values, np.nan).astype(np.float64)
    if column.dtype in _INTEGERS:
        whole = column.values.astype(np.int64)
        return pandas.arrays.IntegerArray(whole, ~column.valid) if nullable else whole
    if column.dtype is Dtype.BOOL:
        return pandas.arrays.BooleanArray(column.values.copy(), ~column.valid) if nullable else column.values.copy()
    if column.dtype is Dtype.TIMESTAMP:
        moments = column.values.astype("datetime64[us]")
        moments[~column.valid] = np.datetime64("NaT")
        return pandas.DatetimeIndex(moments).tz_localize("UTC")
    items = np.empty(len(column), dtype=object)
    for number, item in enumerate(for_python(column)):
        items[number] = item
    return items


def items_of(returned: Any, feature: str, *, rows: int, index: Any) -> list[Any]:
    """One Python value per row of a feature from what a function returned; `index` is that of its DataFrame, if any.

    Raises WrongValue where the feature is not there or does not have `rows` values.
    """
    kind = type(returned).__name__
    if index is not None:
        if not hasattr(returned, "columns") or not hasattr(returned, "index"):
            raise WrongValue(f"is asked of a DataFrame, and the function returned a {kind}")
        if not returned.index.equals(index):
            raise WrongValue(f"has another index: {len(returned.index)} rows, the function was given {rows}")
        if feature not in returned.columns:
            raise WrongValue(f"is not among the columns that the function returned: {sorted(map(str, returned))}")
        series = returned[feature]
        return [
            None if missing else item for item, missing in zip(series.tolist(), series.isna().tolist(), strict=True)
        ]
    if not isinstance(returned, dict):
        raise WrongValue(f"is asked of a dict, and the function returned a {kind}")
    if feature not in returned:
        raise WrongValue(f"is not among what the function returned: {sorted(map(str, returned))}")
    items = returned[feature]
    if not isinstance(items, list | tuple | np.ndarray):
        raise WrongValue(f"is a {type(items).__name__} and not a list with one value per row")
    if len(items) != rows:
        raise WrongValue(f"has {len(items)} values, the function was given {rows} rows")
    return items.tolist() if isinstance(items, np.ndarray) else list(items)


def column_from(items: Sequence[Any], dtype: Dtype) -> Column:
    """A column of the declared dtype. Raises WrongValue, naming the row, for a value that would have to be changed."""
    cast = _CASTS[dtype] if dtype not in ELEMENTS else _list_cast(_CASTS[ELEMENTS[dtype]])
    values: list[object] = []
    for row, item in enumerate(items):
        plain = item.item() if isinstance(item, np.generic) and not isinstance(item, np.datetime64) else item
        if plain is None or (isinstance(plain, float) and math.isnan(plain)):
            values.append(None)
            continue
        try:
            values.append(cast(plain))
        except WrongValue as error:
            raise WrongValue(f"is declared `{dtype}`, but row {row} has {item!r}: {error}") from error
    return column_of(dtype, values)


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise WrongValue(f"a {type(value).__name__} is no truth value")
    return value


def _integer(dtype: Dtype) -> Callable[[Any], int]:
    half = 1 << (8 * TABLE[dtype].numpy.itemsize - 1)

    def cast(value: Any) -> int:
        if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT_FLOAT_MAX:
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise WrongValue(f"a {type(value).__name__} that is no whole number")
        if not -half <= value < half:
            raise WrongValue("out of range")
        return value

    return cast


def _float(dtype: Dtype) -> Callable[[Any], float]:
    narrow: Callable[[float], Any] = TABLE[dtype].numpy.type

    def cast(value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise WrongValue(f"a {type(value).__name__} is no number")
        try:
            wide = float(value)
        except OverflowError as error:
            raise WrongValue("out of range") from error
        with np.errstate(over="ignore"):
            # Adding 0.0 makes -0.0 the 0.0 that stored features are.
            return float(narrow(wide)) + 0.0

    return cast


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise WrongValue(f"a {type(value).__name__} is no string")
    return value


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise WrongValue(f"a {type(value).__name__} is no bytes object")
    return value


def _moment(value: Any) -> int:
    if not isinstance(value, datetime):
        raise WrongValue(f"a {type(value).__name__} is no datetime")
    if value.tzinfo is None:
        raise WrongValue("a datetime without a time zone")
    return int(to_micros(value))


def _list_cast(element: Callable[[Any], object]) -> Callable[[Any], tuple[object, ...]]:
    def cast(value: Any) -> tuple[object, ...]:
        if not isinstance(value, list | tuple | np.ndarray):
            raise WrongValue(f"a {type(value).__name__} is no list")
        return tuple(element(each.item() if isinstance(each, np.generic) else each) for each in value)

    return cast


_CASTS: dict[Dtype, Callable[[Any], object]] = {
    Dtype.BOOL: _bool,
    Dtype.INT32: _integer(Dtype.INT32),
    Dtype.INT64: _integer(Dtype.INT64),
    Dtype.FLOAT32: _float(Dtype.FLOAT32),
    Dtype.FLOAT64: _float(Dtype.FLOAT64),
    Dtype.STRING: _text,
    Dtype.BYTES: _bytes,
    Dtype.TIMESTAMP: _moment,
}
