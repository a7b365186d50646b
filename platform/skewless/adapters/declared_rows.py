"""A table's columns as a view declares them, or what keeps them from being so. Nothing is taken from values."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from skewless.adapters.arrow_columns import ARROW_TYPES
from skewless.dtypes import ELEMENTS, Dtype
from skewless.monitor_limits import QUALITY_TEXT_CHARACTERS_MAX
from skewless.quality.view_schema import SchemaColumn, SchemaFault, ViewSchema

_INTEGERS = frozenset({Dtype.INT32, Dtype.INT64})
_FLOATS = frozenset({Dtype.FLOAT32, Dtype.FLOAT64})


def declared_rows(table: pa.Table, schema: ViewSchema) -> tuple[pa.Table, tuple[SchemaFault, ...]]:
    """The view's columns, each of its declared type, and every fault; with faults the table is of no use.

    Columns that the view does not have are left out. Numbers change their width where every value fits; whole numbers
    that pandas made floats because of a null are whole numbers again. Times lose what is below a microsecond, and are
    UTC where they have no zone. A column without any value has every type.
    """
    columns: dict[str, Any] = {}
    faults = []
    for column in schema.columns:
        if table.column_names.count(column.name) != 1:
            faults.append(SchemaFault(column, ""))
            continue
        given = table.column(column.name)
        try:
            columns[column.name] = _cast(given, column)
        except _Misfit as misfit:
            faults.append(SchemaFault(column, str(given.type), str(misfit)))
    return pa.table({} if faults else columns), tuple(faults)


class _Misfit(Exception):
    """Why a column is not of its declared type; empty where the types say it all."""


def _cast(given: Any, column: SchemaColumn) -> Any:
    wanted = ARROW_TYPES[column.dtype]
    if given.type.equals(wanted) or pa.types.is_null(given.type):
        return given.cast(wanted)
    if not _is_of(given.type, column.dtype):
        if column.dtype not in _INTEGERS or not pa.types.is_floating(given.type):
            raise _Misfit
        _require_whole(given)
    try:
        if column.dtype is Dtype.TIMESTAMP:
            return given.cast(wanted, safe=False)
        # Of a float the declared precision is what is stored; everything else must fit exactly.
        return given.cast(wanted, safe=column.dtype not in _FLOATS)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise _Misfit(str(error).splitlines()[0][:QUALITY_TEXT_CHARACTERS_MAX]) from error


def _require_whole(given: Any) -> None:
    """Raise for values that no integer is; NaN is what pandas writes where an integer is null."""
    numbers = pc.filter(given, pc.invert(pc.fill_null(pc.is_nan(given), True)))  # a null is no number either
    odd = numbers.filter(pc.not_equal(numbers, pc.floor(numbers)))
    if len(odd):
        raise _Misfit(f"values such as {odd[0].as_py()} are no whole numbers")
    if len(numbers) < len(given) - given.null_count:
        raise _Misfit("NaN is no whole number; write a null in its place")


def _is_of(arrow: Any, dtype: Dtype) -> bool:
    """Whether values of an Arrow type are of the kind that a dtype declares, whatever their width."""
    types = pa.types
    if types.is_dictionary(arrow):
        return _is_of(arrow.value_type, dtype)
    if dtype in ELEMENTS:
        listed = types.is_list(arrow) or types.is_large_list(arrow) or types.is_fixed_size_list(arrow)
        return listed and (types.is_null(arrow.value_type) or _is_of(arrow.value_type, ELEMENTS[dtype]))
    if dtype is Dtype.BOOL:
        return bool(types.is_boolean(arrow))
    if dtype in _INTEGERS:
        return bool(types.is_integer(arrow))
    if dtype in _FLOATS:
        return bool(types.is_floating(arrow) or types.is_integer(arrow) or types.is_decimal(arrow))
    if dtype is Dtype.STRING:
        return bool(types.is_string(arrow) or types.is_large_string(arrow))
    if dtype is Dtype.BYTES:
        return bool(types.is_binary(arrow) or types.is_large_binary(arrow))
    return bool(types.is_timestamp(arrow) or types.is_date(arrow))
