"""What a read answers: values, statuses and ages, as NumPy, Arrow or pandas."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import ELEMENTS, Column, Dtype, to_python
from skewless.features.frame import Fault, FeatureFrame
from skewless.features.visibility import NO_EVENT_TIME, STATUS_CODES, Status
from skewless.timestamps import SECOND_US, from_micros

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """Features of some rows at one moment. Columns are the join keys as given, then every `view__feature`."""

    keys: Mapping[str, Column]
    frame: FeatureFrame
    as_of: int
    """The moment that was asked for, in microseconds since 1970."""

    def __len__(self) -> int:
        """Rows."""
        return self.frame.rows

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, in order."""
        return tuple(self._columns())

    @property
    def statuses(self) -> dict[str, list[Status]]:
        """By feature, why each row's value is what it is."""
        return {name: [STATUS_CODES[code] for code in codes] for name, codes in self.frame.statuses.items()}

    @property
    def ages_s(self) -> dict[str, NDArray[np.float64]]:
        """By view, seconds between each row's event time and the moment asked for (rows,); NaN where there is none."""
        return {
            view: np.where(times == NO_EVENT_TIME, np.nan, (self.as_of - times) / SECOND_US)
            for view, times in self.frame.event_times.items()
        }

    @property
    def near(self) -> dict[str, NDArray[np.bool_]]:
        """By view, which rows (rows,) came from the near cache; empty where none did."""
        return dict(self.frame.near)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Stored values that could not be read, and why."""
        return self.frame.faults

    def to_dict(self) -> dict[str, list[object]]:
        """Python values by column, None where null; timestamps are aware datetimes."""
        return {name: _python(column) for name, column in self._columns().items()}

    def to_numpy(self) -> "dict[str, np.ma.MaskedArray[Any, Any]]":
        """A masked array (rows,) of the dtype's NumPy type by column, masked where null.

        Timestamps are datetime64[us] in UTC. Owns its memory.
        """
        return {name: np.ma.MaskedArray(_numpy(column), mask=~column.valid) for name, column in self._columns().items()}

    def to_arrow(self) -> Any:
        """A pyarrow Table of the declared types, null where null. Needs pyarrow."""
        from skewless.adapters.arrow_columns import table_from_columns

        return table_from_columns(self._columns())

    def to_pandas(self) -> "pd.DataFrame":
        """A DataFrame of pandas' nullable types, so that integers stay integers beside a null. Needs pandas."""
        import pandas as pd

        return pd.DataFrame({name: _pandas(column)(pd) for name, column in self._columns().items()})

    def _columns(self) -> dict[str, Column]:
        return {**self.keys, **self.frame.columns}


def _python(column: Column) -> list[object]:
    values = to_python(column)
    dtype = ELEMENTS.get(column.dtype, column.dtype)
    if dtype is not Dtype.TIMESTAMP:
        return [list(value) if isinstance(value, tuple) else value for value in values]
    return [_moments(value) for value in values]


def _moments(value: Any) -> object:
    if isinstance(value, tuple):
        return [from_micros(each) for each in value]
    return None if value is None else from_micros(value)


def _numpy(column: Column) -> NDArray[Any]:
    if column.dtype is Dtype.TIMESTAMP:
        return column.values.astype("datetime64[us]")
    return column.values.copy()


_MASKED = {
    Dtype.BOOL: "BooleanArray",
    Dtype.INT32: "IntegerArray",
    Dtype.INT64: "IntegerArray",
    Dtype.FLOAT32: "FloatingArray",
    Dtype.FLOAT64: "FloatingArray",
}
"""pandas' arrays that keep values and a mask apart."""


def _pandas(column: Column) -> Callable[[Any], Any]:
    """What makes the pandas array of a column, given pandas."""
    if column.dtype in _MASKED:
        return lambda pd: getattr(pd.arrays, _MASKED[column.dtype])(column.values.copy(), ~column.valid)
    if column.dtype is Dtype.TIMESTAMP:
        moments = _numpy(column)
        moments[~column.valid] = np.datetime64("NaT")
        return lambda pd: pd.DatetimeIndex(moments).tz_localize("UTC")
    if column.dtype is Dtype.STRING:
        return lambda pd: pd.array(to_python(column), dtype="string")
    return lambda pd: pd.Series(_python(column), dtype=object)
