"""Request instances out of Arrow record batches: the declared dtypes, refusals by name and row, no Python per value.

An Arrow column becomes a `Column` of its field's dtype where no value has to be guessed: integers of any width where
every one fits, floats and integers for floats as in JSON, text however it is laid out or encoded, timestamps of any
unit with a zone. What JSON refuses is refused here, with the same words.
"""

import base64
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skewless.adapters.arrow_values import booleans_of, numbers_of, objects_of, valid_of
from skewless.dtypes import TABLE, Column, Dtype, blank
from skewless.errors import InvalidRequest
from skewless.limits import BATCH_CHUNK_ROWS, STRING_BYTES_MAX
from skewless.serving.compiled_request import RequestDecoder
from skewless.serving.field_types import READERS, Mismatch, shown
from skewless.serving.instances import InstanceField
from skewless.timestamps import to_micros

_FIRST_US = to_micros(datetime.min.replace(tzinfo=UTC))
_LAST_US = to_micros(datetime.max.replace(tzinfo=UTC))
_UNITS_US = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}
"""(multiply, divide) to get microseconds."""
_FLOAT_MAX = {Dtype.FLOAT32: float(np.finfo(np.float32).max), Dtype.FLOAT64: float(np.finfo(np.float64).max)}

ALLOWED_TYPES = {
    Dtype.BOOL: "bool",
    Dtype.INT32: "integers of any width",
    Dtype.INT64: "integers of any width",
    Dtype.FLOAT32: "floats or integers of any width",
    Dtype.FLOAT64: "floats or integers of any width",
    Dtype.STRING: "string, large_string, string_view, or a dictionary of one",
    Dtype.BYTES: "binary, large_binary, fixed_size_binary, binary_view, or a dictionary of one",
    Dtype.TIMESTAMP: "timestamp of any unit with a time zone",
}
"""Arrow types that a field of each dtype takes; all-null columns too, where the field may be null."""

WINDOW_ROWS = 8 * BATCH_CHUNK_ROWS
"""Converted at once, in 1.5 ms with seven columns: 0.7 µs for a row, where a chunk at a time takes 6."""

_Converted = tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_] | None]
"""Values, which of them are not null, and which the field cannot hold (None: it can hold all)."""
_Convert = Callable[[Any], _Converted]


class ArrowRows:
    """Implements `Rows` over a record batch that `arrow_messages.ArrowBatches` has checked, or some rows of one."""

    __slots__ = ("_start", "_stop", "_window")

    def __init__(self, window: "_Window", start: int, stop: int) -> None:
        self._window = window
        self._start = start
        self._stop = stop

    @classmethod
    def of(cls, batch: Any) -> "Iterator[ArrowRows]":
        """The rows of a record batch, a window at a time."""
        for start in range(0, batch.num_rows, WINDOW_ROWS):
            window = _Window(batch.slice(start, WINDOW_ROWS))
            yield cls(window, 0, window.batch.num_rows)

    def __len__(self) -> int:
        return self._stop - self._start

    def part(self, start: int, stop: int) -> "ArrowRows":
        """See `Rows.part`."""
        return ArrowRows(self._window, self._start + start, self._start + stop)

    def columns(self, decoder: RequestDecoder) -> Mapping[str, Column]:
        """See `Rows.columns`. A refusal of the schema has the path of a column, `$.columns.origin`."""
        return self._window.columns(decoder, self._start, self._stop)


class _Window:
    """Rows that are converted together, since a call into Arrow costs as much for one row as for hundreds."""

    __slots__ = ("_columns", "_decoder", "batch")

    def __init__(self, batch: Any) -> None:
        self.batch = batch
        self._decoder: RequestDecoder | None = None
        self._columns: Mapping[str, Column] | None = None
        """Of the whole window for `_decoder`; None where one of its rows is wrong."""

    def columns(self, decoder: RequestDecoder, start: int, stop: int) -> Mapping[str, Column]:
        """Of some rows. Raises InvalidRequest where one of these is wrong."""
        if self._decoder is not decoder:  # another bundle may answer the next chunk
            self._columns = _converted_if_right(self.batch, decoder)
            self._decoder = decoder
        if self._columns is None:
            return _converted(self.batch.slice(start, stop - start), decoder)
        return {
            name: Column(column.dtype, column.values[start:stop], column.valid[start:stop])
            for name, column in self._columns.items()
        }


def _converted_if_right(batch: Any, decoder: RequestDecoder) -> Mapping[str, Column] | None:
    try:
        return _converted(batch, decoder)
    except InvalidRequest:
        return None


def _converted(batch: Any, decoder: RequestDecoder) -> Mapping[str, Column]:
    names, fields = batch.schema.names, decoder.validator.fields
    if sorted(names) != sorted(field.name for field in fields):
        raise _wrong_names(names, fields)
    return {field.name: _column(field, batch.column(field.name)) for field in fields}


def _wrong_names(names: Sequence[str], fields: Sequence[InstanceField]) -> InvalidRequest:
    known = [field.name for field in fields]
    for field in fields:
        if field.name not in names:
            return InvalidRequest(
                f"the Arrow stream has no column for {field.role} `{field.name}`",
                path=f"$.columns.{field.name}",
                allowed=f"for dtype `{field.dtype}`: {ALLOWED_TYPES[field.dtype]}",
                hint="give a column of nulls when no row has one" if field.nullable else "",
                code="missing_field",
            )
    twice = next((name for name in known if names.count(name) > 1), None)
    if twice is not None:
        return InvalidRequest(
            f"the Arrow stream has {names.count(twice)} columns `{twice}`", path=f"$.columns.{twice}", allowed="one"
        )
    unknown = next(name for name in names if name not in known)[:100]
    close = difflib.get_close_matches(unknown, known, n=1)
    return InvalidRequest(
        f"the Arrow stream has an unknown column {shown(unknown)}",
        path=f"$.columns.{unknown}",
        allowed=", ".join(f"`{name}`" for name in known),
        hint=f"did you mean `{close[0]}`?" if close else "leave the column out",
        code="unknown_field",
    )


def _column(field: InstanceField, array: Any) -> Column:
    rows, row = len(array), TABLE[field.dtype]
    if field.nullable and pa.types.is_null(array.type):
        zeros: NDArray[Any] = np.full(rows, row.zero, dtype=row.numpy)
        return Column(field.dtype, zeros, np.zeros(rows, dtype=np.bool_))
    values, valid, wrong = _converter(field, array.type)(array)
    has_nulls = not valid.all()
    if has_nulls and not field.nullable:
        raise _mistyped(field, array, int((~valid).argmax()))
    if wrong is not None and (wrong & valid).any():
        raise _mistyped(field, array, int((wrong & valid).argmax()))
    if has_nulls:
        values = values.copy()
        blank(values, ~valid, field.dtype)
    return Column(field.dtype, values, valid)


def _converter(field: InstanceField, arrow_type: Any) -> _Convert:
    """How values of the Arrow type become those of the field. Raises InvalidRequest where they do not."""
    types, dtype = pa.types, field.dtype
    inner = arrow_type.value_type if types.is_dictionary(arrow_type) else arrow_type
    is_text = types.is_string(inner) or types.is_large_string(inner) or inner == pa.string_view()
    is_binary = types.is_binary(inner) or types.is_large_binary(inner) or types.is_fixed_size_binary(inner)
    if dtype is Dtype.STRING and is_text:
        return _objects("")
    if dtype is Dtype.BYTES and (is_binary or inner == pa.binary_view()):
        return _objects(b"")
    if dtype is Dtype.BOOL and types.is_boolean(arrow_type):
        return _booleans
    if dtype in (Dtype.INT32, Dtype.INT64) and types.is_integer(arrow_type):
        return _integers(dtype)
    if dtype in _FLOAT_MAX and (types.is_integer(arrow_type) or types.is_floating(arrow_type)):
        return _floats(dtype)
    if dtype is Dtype.TIMESTAMP and types.is_timestamp(arrow_type) and arrow_type.tz is not None:
        return _timestamps(arrow_type.unit)
    is_naive = dtype is Dtype.TIMESTAMP and types.is_timestamp(arrow_type)
    raise InvalidRequest(
        f"the column for {field.role} `{field.name}` (dtype `{dtype}`) is of Arrow type `{arrow_type}`"[:300],
        path=f"$.columns.{field.name}",
        allowed=ALLOWED_TYPES[dtype],
        hint='cast it to the zone that it is in, for example pa.timestamp("us", tz="UTC")' if is_naive else "",
        code="mistyped_field",
    )


def _booleans(array: Any) -> _Converted:
    return booleans_of(array), valid_of(array), None


def _objects(zero: str | bytes) -> _Convert:
    def convert(array: Any) -> _Converted:
        values, valid, lengths = objects_of(array, zero)
        return values, valid, lengths > STRING_BYTES_MAX

    return convert


def _integers(dtype: Dtype) -> _Convert:
    numpy = TABLE[dtype].numpy
    high = (1 << (8 * numpy.itemsize - 1)) - 1
    low = -high - 1

    def convert(array: Any) -> _Converted:
        values = numbers_of(array)
        if values.dtype == numpy:
            return values, valid_of(array), None
        return values.astype(numpy), valid_of(array), (values < low) | (values > high)

    return convert


def _floats(dtype: Dtype) -> _Convert:
    numpy, largest = TABLE[dtype].numpy, _FLOAT_MAX[dtype]

    def convert(array: Any) -> _Converted:
        values = numbers_of(array)
        if values.dtype != numpy:
            values = values.astype(np.float64)  # as JSON's numbers, before they are rounded to a float32
        wrong = ~(np.abs(values) <= largest)
        with np.errstate(over="ignore"):  # what is too large is refused
            return values.astype(numpy, copy=False), valid_of(array), wrong

    return convert


def _timestamps(unit: str) -> _Convert:
    multiply, divide = _UNITS_US[unit]
    low, high = -(-_FIRST_US // multiply) * divide, (_LAST_US // multiply + 1) * divide - 1

    def convert(array: Any) -> _Converted:
        ticks = numbers_of(array)
        wrong = (ticks < max(low, -(2**63))) | (ticks > min(high, 2**63 - 1))
        if multiply > 1:
            ticks = np.where(wrong, 0, ticks) * multiply
        return ticks // divide if divide > 1 else ticks, valid_of(array), wrong

    return convert


def _mistyped(field: InstanceField, array: Any, row: int) -> InvalidRequest:
    """The refusal of one value, in the words that JSON's has for it."""
    value, mismatch = _mismatch(field.dtype, array[row])
    return InvalidRequest(
        f"{field.role} `{field.name}` (dtype `{field.dtype}`) {mismatch.reason}: {shown(value)}",
        path=f"$.instances[{row}].{field.name}",
        allowed=mismatch.allowed + (", or null" if field.nullable else ""),
        code="mistyped_field",
    )


def _mismatch(dtype: Dtype, scalar: Any) -> tuple[object, Mismatch]:
    """The value as JSON would have held it, and why it is refused."""
    value: object = None
    if scalar.is_valid and dtype is Dtype.TIMESTAMP:
        return scalar.value, Mismatch(
            f"is outside the years 1 to 9999, in `{scalar.type}`", allowed="a moment of the years 1 to 9999"
        )
    if scalar.is_valid:
        value = base64.b64encode(scalar.as_py()).decode() if dtype is Dtype.BYTES else scalar.as_py()
    try:
        READERS[dtype](value)
    except Mismatch as mismatch:
        return value, mismatch
    raise AssertionError(f"{value!r} is one that `{dtype}` can hold")
