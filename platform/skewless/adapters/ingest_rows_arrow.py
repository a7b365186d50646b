"""Rows out of an Arrow IPC stream: converted column by column to the declared types, refused by name and row."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skewless.adapters.arrow_columns import ARROW_TYPES
from skewless.adapters.arrow_messages import ArrowBatches
from skewless.adapters.ingest_rows import (
    Presence,
    RowBlock,
    RowField,
    RowSchema,
    check_rows,
    missing,
    mistyped,
    unknown,
)
from skewless.dtypes import ELEMENTS, Dtype
from skewless.errors import InvalidRequest, LimitExceeded
from skewless.ingest_limits import INGEST_DECODED_BYTES_MAX, INGEST_LIST_ITEMS_MAX
from skewless.serving.arrow_framing import ArrowMessages
from skewless.serving.field_types import FLOAT32_MAX
from skewless.timestamps import to_micros

_FIRST_US = to_micros(datetime.min.replace(tzinfo=UTC))
_LAST_US = to_micros(datetime.max.replace(tzinfo=UTC))
_TICKS_US = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}
"""(multiply, divide) to get microseconds."""
_FLOATS = {Dtype.FLOAT32: FLOAT32_MAX, Dtype.FLOAT64: float(np.finfo(np.float64).max)}
_INTEGERS = {Dtype.INT32: 31, Dtype.INT64: 63}
_ALLOWED = {
    Dtype.BOOL: "bool",
    Dtype.INT32: "integers of any width",
    Dtype.INT64: "integers of any width",
    Dtype.FLOAT32: "floats or integers of any width",
    Dtype.FLOAT64: "floats or integers of any width",
    Dtype.STRING: "string, large_string, string_view, or a dictionary of one",
    Dtype.BYTES: "binary, large_binary, fixed_size_binary, binary_view, or a dictionary of one",
    Dtype.TIMESTAMP: "timestamp of any unit with a time zone",
}
_PATH = "$.columns"
_ITEM_BYTES = 8
"""What an item of a list counts, of whatever type: its row is noted with it."""


class _Odd(Exception):
    """Values that a field cannot hold: `wrong` is (values,) bool, true there."""

    def __init__(self, wrong: Any, reason: str, allowed: str) -> None:
        super().__init__(reason)
        self.wrong = wrong
        self.reason = reason
        self.allowed = allowed


class _Budget:
    """Bytes that values of one request may still come to: rows may share a word of a dictionary, or a view's bytes."""

    def __init__(self) -> None:
        self._left = INGEST_DECODED_BYTES_MAX

    def take(self, each: RowField, size: int) -> None:
        """Have so many bytes of a column. Raises LimitExceeded before anything is made of them."""
        if size > self._left:
            raise LimitExceeded(
                f"the rows come to more than {INGEST_DECODED_BYTES_MAX:,} bytes once each has its own values",
                path=f"{_PATH}.{each.name}",
                allowed=f"at most {INGEST_DECODED_BYTES_MAX:,} bytes of texts, bytes and list items in a request",
                hint="bring fewer rows in one request",
            )
        self._left -= size


def arrow_rows(schema: RowSchema, body: bytes) -> RowBlock:
    """The rows of a stream. Raises InvalidRequest with the column, and the row where it is one, that is wrong.

    LimitExceeded where they come to more than INGEST_DECODED_BYTES_MAX. Every offset and text is checked before
    anything is read; dictionaries are taken apart, once it is known what that comes to.
    """
    messages, batches = ArrowMessages(), ArrowBatches()
    read: list[Any] = []
    rows = 0
    for message in messages.feed(body):
        batch = batches.read(message)
        if batch is not None:
            rows += batch.num_rows
            check_rows(max(rows, 1))
            read.append(batch)
    messages.finish()
    check_rows(rows)
    given = pa.Table.from_batches(read)
    _check_names(schema, given.column_names)
    budget = _Budget()
    columns = [_column(each, given, rows, budget) for each in schema.fields]
    table = pa.Table.from_arrays(columns, schema=schema.arrow)
    has_created = bool(schema.created) and table.column(schema.created).null_count < rows
    return RowBlock(schema, rows, None, table, has_created=has_created)


def _check_names(schema: RowSchema, names: list[str]) -> None:
    for name in names:
        if name not in schema.by_name:
            raise unknown(name, schema, _PATH)
        if names.count(name) > 1:
            raise InvalidRequest(
                f"the stream has {names.count(name)} columns `{name}`", path=f"{_PATH}.{name}", allowed="one"
            )
    for each in schema.fields:
        if each.name not in names and each.presence is not Presence.OPTIONAL:
            raise missing(each, _PATH)


def _column(each: RowField, given: Any, rows: int, budget: _Budget) -> Any:
    if each.name not in given.column_names:
        return pa.nulls(rows, ARROW_TYPES[each.dtype])
    try:
        return _converted(each, given, rows, budget)
    except pa.ArrowException as error:
        raise InvalidRequest(
            f"the column of {each.role} `{each.name}` cannot be read: {error}"[:300],
            path=f"{_PATH}.{each.name}",
            allowed=_ALLOWED[ELEMENTS.get(each.dtype, each.dtype)],
            code="mistyped_field",
        ) from error


def _converted(each: RowField, given: Any, rows: int, budget: _Budget) -> Any:
    array = given.column(each.name).combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.nulls(0, array.type)
    _require(each, array)
    if pa.types.is_null(array.type):
        return pa.nulls(rows, ARROW_TYPES[each.dtype])
    try:
        is_list = each.dtype in ELEMENTS
        made = _list(each, array, budget) if is_list else _scalar(each, each.dtype, array, budget)
    except _Odd as odd:
        row = int(np.argmax(odd.wrong))
        raise mistyped(
            each, f"$.rows[{row}].{each.name}", odd.reason, value=_told(array[row]), allowed=odd.allowed
        ) from odd
    _require(each, made)  # a word of a dictionary may be null, too
    return made


def _require(each: RowField, array: Any) -> None:
    """Raises InvalidRequest at the first null of a field that must have a value."""
    if each.required and array.null_count:
        row = int(np.argmax(np.asarray(array.is_null().to_numpy(zero_copy_only=False))))
        raise mistyped(each, f"$.rows[{row}].{each.name}", "is null", value=None, allowed=_ALLOWED[each.dtype])


def _told(scalar: Any) -> object:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):  # a time that Python has none for
        return str(scalar.type)


def _scalar(each: RowField, dtype: Dtype, array: Any, budget: _Budget) -> Any:
    """The array in the dtype's own Arrow type. Raises InvalidRequest for another kind of array, _Odd for a value,
    LimitExceeded.
    """
    is_dictionary = pa.types.is_dictionary(array.type)
    kind = array.type.value_type if is_dictionary else array.type
    _check_kind(each, dtype, kind)
    if dtype in (Dtype.STRING, Dtype.BYTES):
        lengths = _lengths(array)
        if (wrong := lengths > each.bytes_max).any():
            raise _Odd(wrong, "is too long", f"at most {each.bytes_max} bytes")
        budget.take(each, int(lengths.sum()))
    if is_dictionary:
        array = array.cast(kind)
    if dtype in _INTEGERS:
        return _integers(array, dtype)
    if dtype in _FLOATS:
        return _floats(array, dtype)
    if dtype is Dtype.TIMESTAMP:
        return _times(array)
    return array.cast(ARROW_TYPES[dtype])


def _check_kind(each: RowField, dtype: Dtype, kind: Any) -> None:
    """Raises InvalidRequest where values of the dtype cannot be of that Arrow type."""
    types = pa.types
    if dtype is Dtype.BOOL and types.is_boolean(kind):
        return
    if dtype in _INTEGERS and types.is_integer(kind):
        return
    if dtype in _FLOATS and (types.is_floating(kind) or types.is_integer(kind)):
        return
    if dtype is Dtype.STRING and (types.is_string(kind) or types.is_large_string(kind) or kind == pa.string_view()):
        return
    if dtype is Dtype.BYTES and _is_binary(kind):
        return
    if dtype is Dtype.TIMESTAMP and types.is_timestamp(kind) and kind.tz is not None:
        return
    is_naive = dtype is Dtype.TIMESTAMP and types.is_timestamp(kind)
    raise InvalidRequest(
        f"the column of {each.role} `{each.name}` ({each.dtype}) is of Arrow type `{kind}`"[:300],
        path=f"{_PATH}.{each.name}",
        allowed=_ALLOWED[dtype] + (", in a list" if each.dtype in ELEMENTS else ""),
        hint='cast it to the zone that it is in, for example pa.timestamp("us", tz="UTC")' if is_naive else "",
        code="mistyped_field",
    )


def _is_binary(kind: Any) -> bool:
    types = pa.types
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or kind == pa.binary_view()
    )


def _integers(array: Any, dtype: Dtype) -> Any:
    bits = _INTEGERS[dtype]
    low, high = -(1 << bits), (1 << bits) - 1
    try:
        return array.cast(ARROW_TYPES[dtype])
    except pa.ArrowInvalid:
        wide = pa.uint64() if pa.types.is_unsigned_integer(array.type) else pa.int64()
        numbers = array.cast(wide)
        wrong = pc.greater(numbers, pa.scalar(high, wide))
        if wide == pa.int64():
            wrong = pc.or_(wrong, pc.less(numbers, pa.scalar(low, wide)))
        raise _Odd(_mask(wrong), "is too large", f"an integer from {low} to {high}") from None


def _floats(array: Any, dtype: Dtype) -> Any:
    """Rounded to the nearest that the dtype has, as numbers in JSON are."""
    largest = _FLOATS[dtype]
    numbers = array.cast(pa.float64(), safe=False)
    within = pc.less_equal(pc.abs(numbers), pa.scalar(largest))  # false of a NaN
    wrong = _mask(pc.invert(within))
    if wrong.any():
        raise _Odd(wrong, "is no number that it can hold", f"a finite number of at most {largest:.6g} in size")
    return array.cast(ARROW_TYPES[dtype], safe=False)


def _lengths(array: Any) -> NDArray[np.int64]:
    """Bytes of each text or bytes value, (rows,), 0 of a null; nothing is copied that rows share."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        words = np.append(_lengths(array.dictionary), 0)  # the last one is what a null has
        own: NDArray[np.int64] = words[_numbers(array.indices, len(words) - 1)]
        return own
    if kind in (pa.string_view(), pa.binary_view()):
        if not len(array):
            return np.zeros(0, dtype=np.int64)
        # 16 bytes each, of which the first four are the length (Arrow columnar format, "Variable-size Binary View").
        views = np.frombuffer(array.buffers()[1], dtype=np.int32, count=4 * (array.offset + len(array)))
        return np.where(_mask(array.is_null()), 0, views[4 * array.offset :: 4]).astype(np.int64)
    return _numbers(pc.binary_length(array), 0)


def _numbers(array: Any, null: int) -> NDArray[np.int64]:
    """Integers (rows,), `null` where they are null."""
    filled = pc.fill_null(array.cast(pa.int64()), null)
    return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.int64)


def _times(array: Any) -> Any:
    multiply, divide = _TICKS_US[array.type.unit]
    low, high = -(-_FIRST_US // multiply) * divide, (_LAST_US // multiply + 1) * divide - 1
    ticks = array.cast(pa.int64())
    bounds = max(low, -(2**63)), min(high, 2**63 - 1)
    outside = pc.or_(pc.less(ticks, bounds[0]), pc.greater(ticks, bounds[1]))
    wrong = _mask(outside)
    if wrong.any():
        raise _Odd(wrong, "is outside the years 1 to 9999", "a moment of the years 1 to 9999")
    if divide > 1:  # Arrow's own division goes towards zero, which before 1970 would be later
        values = ticks.fill_null(0).to_numpy(zero_copy_only=False) // divide
        ticks = pa.array(values, pa.int64(), mask=np.asarray(ticks.is_null().to_numpy(zero_copy_only=False)))
    elif multiply > 1:
        ticks = pc.multiply(ticks, multiply)
    return ticks.cast(ARROW_TYPES[Dtype.TIMESTAMP])


def _list(each: RowField, array: Any, budget: _Budget) -> Any:
    """A list column: its elements are converted as a column of their own, and none of them may be null."""
    types = pa.types
    if not (types.is_list(array.type) or types.is_large_list(array.type) or types.is_fixed_size_list(array.type)):
        raise InvalidRequest(
            f"the column of {each.role} `{each.name}` ({each.dtype}) is of Arrow type `{array.type}`"[:300],
            path=f"{_PATH}.{each.name}",
            allowed=f"a list of {_ALLOWED[ELEMENTS[each.dtype]]}",
            code="mistyped_field",
        )
    if not types.is_list(array.type):
        array = array.cast(pa.list_(array.type.value_type))
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    if (wrong := _mask(pc.greater(lengths, INGEST_LIST_ITEMS_MAX))).any():
        raise _Odd(wrong, "has too many items", f"at most {INGEST_LIST_ITEMS_MAX} items")
    sizes = np.asarray(lengths.to_numpy(zero_copy_only=False), dtype=np.int64)
    budget.take(each, int(sizes.sum()) * _ITEM_BYTES)
    flat = array.flatten()
    owner = np.repeat(np.arange(len(array)), sizes)
    nulls = np.asarray(flat.is_null().to_numpy(zero_copy_only=False), dtype=np.bool_)
    if nulls.any():
        raise _Odd(_owners(owner, nulls, len(array)), "has an item that is null", "a list without nulls")
    try:
        values = _scalar(each, ELEMENTS[each.dtype], flat, budget)
    except _Odd as odd:
        raise _Odd(_owners(owner, odd.wrong, len(array)), f"has an item that {odd.reason}", odd.allowed) from odd
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32())
    mask = array.is_null() if array.null_count else None
    return pa.ListArray.from_arrays(offsets, values, mask=mask).cast(ARROW_TYPES[each.dtype])


def _owners(owner: Any, wrong: Any, rows: int) -> Any:
    """Which rows own a wrong item."""
    found = np.zeros(rows, dtype=np.bool_)
    found[owner[wrong]] = True
    return found


def _mask(array: Any) -> Any:
    """A boolean Arrow array as NumPy's; nulls are false."""
    return np.asarray(pc.fill_null(array, False).to_numpy(zero_copy_only=False), dtype=np.bool_)


ArrowDecoder = Callable[[RowSchema, bytes], RowBlock]
