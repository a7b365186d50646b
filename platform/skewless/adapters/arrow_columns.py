"""Arrow arrays as Skewless columns, and back. Types are the declared ones; nothing is inferred from values."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from skewless.dtypes import ELEMENTS, TABLE, Column, Dtype, column_of

_MICROSECONDS = pa.timestamp("us", tz="UTC")  # the one type whose name in the table of dtypes Arrow cannot read
ARROW_TYPES: dict[Dtype, Any] = {
    dtype: _MICROSECONDS if dtype is Dtype.TIMESTAMP else pa.type_for_alias(row.arrow)
    for dtype, row in TABLE.items()
    if dtype not in ELEMENTS
}
ARROW_TYPES.update({listed: pa.list_(ARROW_TYPES[element]) for listed, element in ELEMENTS.items()})


def column_from_arrow(array: Any, dtype: Dtype) -> Column:
    """A column of the declared dtype from an Arrow array or chunked array; Arrow nulls become invalid rows.

    Timestamps become microseconds whatever their Arrow unit. The result owns its memory.
    """
    if dtype in (Dtype.STRING, Dtype.BYTES):
        return column_of(dtype, array.to_pylist())
    if dtype in ELEMENTS:
        return column_of(dtype, [None if each is None else tuple(each) for each in _elements(array, dtype)])
    if dtype is Dtype.TIMESTAMP:
        array = array.cast(_MICROSECONDS).cast(pa.int64())
    row = TABLE[dtype]
    valid = np.array(array.is_valid().to_numpy(zero_copy_only=False) if _single(array) else array.is_valid().to_numpy())
    filled = array.fill_null(row.zero)
    values = filled.to_numpy(zero_copy_only=False) if _single(array) else filled.to_numpy()
    return Column(dtype, np.ascontiguousarray(values, dtype=row.numpy), valid)


def _elements(array: Any, dtype: Dtype) -> list[list[object] | None]:
    if ELEMENTS[dtype] is Dtype.TIMESTAMP:
        array = array.cast(ARROW_TYPES[dtype]).cast(pa.list_(pa.int64()))
    listed: list[list[object] | None] = array.to_pylist()
    return listed


def _single(array: Any) -> bool:
    return not isinstance(array, pa.ChunkedArray)


def column_to_arrow(column: Column) -> Any:
    """The Arrow array of a column in its dtype's own type, null where it is not valid.

    The inverse of `column_from_arrow`, also where all of it is null. A NaN stays a NaN.
    """
    mask = ~column.valid
    if column.dtype is Dtype.TIMESTAMP:
        return pa.array(column.values, type=pa.int64(), mask=mask).cast(_MICROSECONDS)
    # Without `from_pandas=False` a NaN would become a null, and it is a value.
    return pa.array(column.values, type=ARROW_TYPES[column.dtype], mask=mask, from_pandas=False)


def table_from_columns(columns: Mapping[str, Column]) -> Any:
    """An Arrow table with these columns in order."""
    return pa.table([column_to_arrow(column) for column in columns.values()], names=list(columns))


def kept_rows(table: pa.Table, mask: Any) -> pa.Table:
    """Those rows of a table for which `mask` (rows,) is true, without anything of the others."""
    return without_unused_words(table.filter(mask))


def without_unused_words(table: pa.Table) -> pa.Table:
    """The table with only those words in the dictionaries of its columns that its rows have.

    Filtering and slicing leave the words of rows that are gone in them, and from there in files. Looking costs some ns
    a row; where nothing is unused the table is the very same.
    """
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            before = table.column(place).unify_dictionaries().chunks
            chunks = [_used(each) for each in before]
            if any(each is not chunk for each, chunk in zip(chunks, before, strict=True)):
                table = table.set_column(place, field, pa.chunked_array(chunks, field.type))
    return table


def _used(chunk: pa.DictionaryArray) -> pa.DictionaryArray:
    """A chunk without the words that it does not use; the very same where it uses them all."""
    words = chunk.dictionary
    places = chunk.indices.drop_null().to_numpy(zero_copy_only=False)
    is_used = np.zeros(len(words), dtype=np.bool_)
    is_used[places] = True
    if is_used.all():
        return chunk
    moved = np.cumsum(is_used) - 1
    indices = pa.array(moved, chunk.indices.type).take(chunk.indices)
    return pa.DictionaryArray.from_arrays(indices, words.filter(pa.array(is_used)), ordered=chunk.type.ordered)
