"""Feature rows out of Arrow tables: columns by the names of a view's source, cast to what the view declares."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skewless.adapters.arrow_columns import ARROW_TYPES, column_from_arrow
from skewless.dtypes import ELEMENTS, TABLE, Column, Dtype, array_of, blank, column_of
from skewless.errors import InvalidRequest
from skewless.features.contract import ViewRead
from skewless.features.feature_rows import FeatureRows
from skewless.features.point_in_time import CREATED_US, EVENT_US, OfflineSource
from skewless.features.row_order import NO_CREATED_TIME
from skewless.timestamps import SECOND_US

_FLOATS = frozenset({Dtype.FLOAT32, Dtype.FLOAT64})
_NULL_ELEMENTS: dict[Dtype, object] = {
    element: float("nan") if element in _FLOATS else TABLE[element].zero for element in ELEMENTS.values()
}
"""What Feast has in place of a null within a list; a list of times with a null among them is null itself."""


def feature_rows(table: pa.Table, view: ViewRead, source: OfflineSource) -> FeatureRows:
    """The rows of a table that has the columns of a view's source, as the online store keeps them.

    Of floats the declared precision counts; everything else must fit its type. NaN, and bytes without any, are null;
    times are whole seconds; nulls within lists are what Feast writes for them. Columns that the view does not have are
    left out. Raises InvalidRequest for a column that is missing or of another type, and for a row without event
    time.
    """
    keys = {key.name: _stored(_given(table, source.column(key.key_name)), key.dtype) for key in view.join_keys}
    values = {each.name: _stored(_given(table, source.column(each.name)), each.dtype) for each in view.features}
    event_times = _times(table, source.event_time)
    if (nulls := np.flatnonzero(~event_times.valid)).size:
        raise InvalidRequest(
            f"column `{source.event_time}` is null in row {int(nulls[0])}",
            path=source.event_time,
            hint="every row needs the time at which it happened",
        )
    created = np.full(table.num_rows, NO_CREATED_TIME, dtype=np.int64)
    if source.created_time:
        known = _times(table, source.created_time)
        created = np.where(known.valid, known.values, created)
    return FeatureRows(keys, values, _micros(event_times), created)


def stored_rows(table: pa.Table, view: ViewRead, *, has_created_time: bool) -> FeatureRows:
    """The rows that `point_in_time.rows_sql` answers with, which are as they are stored already."""
    keys = {key.name: column_from_arrow(table.column(key.name), key.dtype) for key in view.join_keys}
    values = {each.name: column_from_arrow(table.column(each.name), each.dtype) for each in view.features}
    event_times = _micros(column_from_arrow(table.column(EVENT_US), Dtype.INT64))
    created = np.full(table.num_rows, NO_CREATED_TIME, dtype=np.int64)
    if has_created_time:
        known = column_from_arrow(table.column(CREATED_US), Dtype.INT64)
        created = np.where(known.valid, known.values, created)
    return FeatureRows(keys, values, event_times, created)


def _given(table: pa.Table, name: str) -> tuple[str, Any]:
    if table.column_names.count(name) != 1:
        raise InvalidRequest(
            f"column `{name}` is missing", path=name, allowed=f"columns that are there: {', '.join(table.column_names)}"
        )
    return name, table.column(name)


def _stored(given: tuple[str, Any], dtype: Dtype) -> Column:
    name, array = given
    try:
        if dtype in ELEMENTS:
            return _stored_lists(array.cast(ARROW_TYPES[dtype]), dtype)
        typed = array.cast(ARROW_TYPES[dtype], safe=dtype not in _FLOATS and dtype is not Dtype.TIMESTAMP)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidRequest(
            f"column `{name}` is {array.type}, and cannot be `{dtype}`: {reason}",
            path=name,
            allowed=str(ARROW_TYPES[dtype]),
        ) from error
    column = column_from_arrow(typed, dtype)
    if dtype in _FLOATS:
        return _without(column, np.isnan(column.values))
    if dtype is Dtype.BYTES:
        return _without(column, np.array([not each for each in column.values.tolist()], dtype=np.bool_))
    if dtype is Dtype.TIMESTAMP:
        whole = _micros(column) // SECOND_US * SECOND_US
        return Column(dtype, whole, column.valid)
    return column


def _stored_lists(array: Any, dtype: Dtype) -> Column:
    column, element = column_from_arrow(array, dtype), ELEMENTS[dtype]
    if not any(None in each for each in column.values.tolist()):
        return Column(dtype, _whole_seconds(column) if element is Dtype.TIMESTAMP else column.values, column.valid)
    rows: list[object] = []
    for items, valid in zip(column.values.tolist(), column.valid.tolist(), strict=True):
        if not valid or (element is Dtype.TIMESTAMP and None in items):
            rows.append(None)
        else:
            rows.append(tuple(_NULL_ELEMENTS[element] if each is None else each for each in items))
    filled = column_of(dtype, rows)
    return Column(dtype, _whole_seconds(filled) if element is Dtype.TIMESTAMP else filled.values, filled.valid)


def _whole_seconds(column: Column) -> NDArray[np.generic]:
    rows = [tuple(each // SECOND_US * SECOND_US for each in items) for items in column.values.tolist()]
    return array_of(column.dtype, rows)


def _without(column: Column, nulls: NDArray[np.bool_]) -> Column:
    """The column with more nulls."""
    if not (nulls & column.valid).any():
        return column
    values = column.values.copy()
    blank(values, nulls, column.dtype)
    return Column(column.dtype, values, column.valid & ~nulls)


def _times(table: pa.Table, name: str) -> Column:
    given = _given(table, name)
    try:
        return column_from_arrow(given[1].cast(ARROW_TYPES[Dtype.TIMESTAMP], safe=False), Dtype.TIMESTAMP)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidRequest(
            f"column `{name}` is {given[1].type}, and no time", path=name, allowed="a timestamp"
        ) from error


def _micros(column: Column) -> NDArray[np.int64]:
    return np.ascontiguousarray(column.values, dtype=np.int64)
