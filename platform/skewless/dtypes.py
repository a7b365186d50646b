"""The one table of dtypes: Skewless ↔ NumPy ↔ Arrow ↔ Feast ↔ Triton / Open Inference Protocol ↔ JSON Schema.

Arrow and Feast types are given by name so that the core imports neither.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.errors import InvalidDefinition


class Dtype(StrEnum):
    """Declared type of a feature, request field or transform column. Never inferred from data."""

    BOOL = "bool"
    INT32 = "int32"
    INT64 = "int64"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    STRING = "string"
    BYTES = "bytes"
    TIMESTAMP = "timestamp"
    """Microseconds since 1970, UTC, as int64."""
    BOOL_LIST = "bool_list"
    INT32_LIST = "int32_list"
    INT64_LIST = "int64_list"
    FLOAT32_LIST = "float32_list"
    FLOAT64_LIST = "float64_list"
    STRING_LIST = "string_list"
    BYTES_LIST = "bytes_list"
    TIMESTAMP_LIST = "timestamp_list"
    """Lists hold tuples of the element's Python values, none of them null, in object arrays."""


@dataclass(frozen=True, slots=True)
class DtypeRow:
    """What one dtype is called elsewhere. (Feast's wire format of a value is in features/value_codec.py.)"""

    numpy: np.dtype[np.generic]
    arrow: str
    duckdb: str
    feast: str
    triton: str
    json_schema: dict[str, Any]
    zero: object
    """What stands in `Column.values` where a row is not valid."""


_OBJECT: np.dtype[np.generic] = np.dtype(object)

_INTEGER = {"type": "integer"}
_NUMBER = {"type": "number"}
_BASE64 = {"type": "string", "contentEncoding": "base64"}
_DATE_TIME = {"type": "string", "format": "date-time"}


def _numpy(kind: type[np.generic]) -> np.dtype[np.generic]:
    return np.dtype(kind)


TABLE: dict[Dtype, DtypeRow] = {
    Dtype.BOOL: DtypeRow(_numpy(np.bool_), "bool", "BOOLEAN", "Bool", "BOOL", {"type": "boolean"}, False),
    Dtype.INT32: DtypeRow(_numpy(np.int32), "int32", "INTEGER", "Int32", "INT32", _INTEGER, 0),
    Dtype.INT64: DtypeRow(_numpy(np.int64), "int64", "BIGINT", "Int64", "INT64", _INTEGER, 0),
    Dtype.FLOAT32: DtypeRow(_numpy(np.float32), "float", "FLOAT", "Float32", "FP32", _NUMBER, 0.0),
    Dtype.FLOAT64: DtypeRow(_numpy(np.float64), "double", "DOUBLE", "Float64", "FP64", _NUMBER, 0.0),
    Dtype.STRING: DtypeRow(_OBJECT, "string", "VARCHAR", "String", "BYTES", {"type": "string"}, ""),
    Dtype.BYTES: DtypeRow(_OBJECT, "binary", "BLOB", "Bytes", "BYTES", _BASE64, b""),
    Dtype.TIMESTAMP: DtypeRow(
        _numpy(np.int64), "timestamp[us, tz=UTC]", "TIMESTAMPTZ", "UnixTimestamp", "INT64", _DATE_TIME, 0
    ),
}

ELEMENTS: dict[Dtype, Dtype] = {
    Dtype.BOOL_LIST: Dtype.BOOL,
    Dtype.INT32_LIST: Dtype.INT32,
    Dtype.INT64_LIST: Dtype.INT64,
    Dtype.FLOAT32_LIST: Dtype.FLOAT32,
    Dtype.FLOAT64_LIST: Dtype.FLOAT64,
    Dtype.STRING_LIST: Dtype.STRING,
    Dtype.BYTES_LIST: Dtype.BYTES,
    Dtype.TIMESTAMP_LIST: Dtype.TIMESTAMP,
}
"""List dtypes, each with the dtype of its elements."""


def _list_row(element: DtypeRow) -> DtypeRow:
    """What a list of such elements is called. Triton takes no lists of varying length; `triton` names the elements."""
    schema = {"type": "array", "items": element.json_schema}
    return DtypeRow(
        _OBJECT,
        f"list<{element.arrow}>",
        f"{element.duckdb}[]",
        f"Array({element.feast})",
        element.triton,
        schema,
        (),
    )


TABLE.update({listed: _list_row(TABLE[element]) for listed, element in ELEMENTS.items()})

FEAST_ALIASES: dict[str, Dtype] = {
    "PdfBytes": Dtype.BYTES,
    "ImageBytes": Dtype.BYTES,
    "Json": Dtype.STRING,
    "Uuid": Dtype.STRING,
    "TimeUuid": Dtype.STRING,
    "Decimal": Dtype.STRING,
    "Array(Json)": Dtype.STRING_LIST,
    "Array(Uuid)": Dtype.STRING_LIST,
    "Array(TimeUuid)": Dtype.STRING_LIST,
    "Array(Decimal)": Dtype.STRING_LIST,
}
"""Feast types whose values are those of another dtype: text stays the text that was written, never parsed."""

NUMERIC = frozenset({Dtype.BOOL, Dtype.INT32, Dtype.INT64, Dtype.FLOAT32, Dtype.FLOAT64})


def from_feast(name: str, *, where: str) -> Dtype:
    """The dtype of what Feast calls `name` (such as `Float32`); `where` names the field in the refusal."""
    for dtype, row in TABLE.items():
        if row.feast == name:
            return dtype
    if name in FEAST_ALIASES:
        return FEAST_ALIASES[name]
    allowed = ", ".join([*(row.feast for row in TABLE.values()), *FEAST_ALIASES])
    raise InvalidDefinition(
        f"{where} has Feast type `{name}`, which cannot be read online. Allowed: {allowed}",
        hint="declare the field with one of the allowed types, or leave it out of the feature service",
    )


@dataclass(frozen=True, slots=True)
class Column:
    """Values of one named thing over rows.

    `values` is (rows,) of the dtype's NumPy type, C-contiguous; `valid` is (rows,) bool. Where `valid` is
    False the row is null and `values` holds the dtype's zero. NaN is a value, not a null.
    """

    dtype: Dtype
    values: NDArray[np.generic]
    valid: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.values)


def column_of(dtype: Dtype, items: list[object] | tuple[object, ...]) -> Column:
    """A column from Python values, where None is null. Values must already be of the dtype's Python type.

    >>> column_of(Dtype.FLOAT32, [1.5, None]).valid.tolist()
    [True, False]
    """
    row = TABLE[dtype]
    valid = np.fromiter((item is not None for item in items), dtype=np.bool_, count=len(items))
    filled: Any = [row.zero if item is None else item for item in items]
    return Column(dtype, array_of(dtype, filled), valid)


def array_of(dtype: Dtype, items: list[Any]) -> NDArray[np.generic]:
    """The array (items,) of the dtype's NumPy type; none of the items may be None."""
    values: NDArray[np.generic] = np.empty(len(items), dtype=TABLE[dtype].numpy)
    if dtype in ELEMENTS:
        for index, item in enumerate(items):  # one by one, or NumPy takes tuples of one length for a matrix
            values[index] = item
    else:
        values[:] = items
    return values


def blank(values: NDArray[Any], where: NDArray[np.bool_], dtype: Dtype) -> None:
    """Put the dtype's zero into `values` at each True of `where`, in place; both have one shape."""
    zero: NDArray[Any] = np.empty((), dtype=TABLE[dtype].numpy)
    zero[()] = TABLE[dtype].zero  # an array of its own, or NumPy takes the empty tuple for no elements
    values[where] = zero


def to_python(column: Column) -> list[object]:
    """Python values of a column, None where null; the inverse of `column_of`."""
    return [item if ok else None for item, ok in zip(column.values.tolist(), column.valid.tolist(), strict=True)]
