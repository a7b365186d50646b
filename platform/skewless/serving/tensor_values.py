"""The elements of one tensor → a column of a dtype, under the rules that JSON requests are read by.

raw contents → values (rows,) by one copy; a list → values one by one, by the readers of `field_types.py`
"""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import TABLE, Column, Dtype, blank, column_of
from skewless.limits import STRING_BYTES_MAX
from skewless.serving.field_types import READERS, FieldReader, Mismatch, shown
from skewless.timestamps import to_micros

_TIMESTAMP_MIN = to_micros(datetime.min.replace(tzinfo=UTC))
_TIMESTAMP_MAX = to_micros(datetime.max.replace(tzinfo=UTC))
_NO_MOMENT = Mismatch(
    "is no moment of the years 1 to 9999",
    allowed=f"microseconds since 1970, UTC, from {_TIMESTAMP_MIN} to {_TIMESTAMP_MAX}",
)
_NOT_FINITE = Mismatch(
    "is not finite",
    allowed="a finite number",
    hint="NaN is no null; say which rows are null by the input whose name ends in `__valid`",
)
_NO_FLAG = Mismatch("is a byte other than 0 and 1", allowed="a byte 0 or 1 per element")

_Find = Callable[[NDArray[Any]], NDArray[np.bool_]]
_FAULTS: dict[Dtype, tuple[_Find, Mismatch]] = {
    Dtype.BOOL: (lambda given: np.greater(given, 1), _NO_FLAG),
    Dtype.FLOAT32: (lambda given: ~np.isfinite(given), _NOT_FINITE),
    Dtype.FLOAT64: (lambda given: ~np.isfinite(given), _NOT_FINITE),
    Dtype.TIMESTAMP: (
        lambda given: np.less(given, _TIMESTAMP_MIN) | np.greater(given, _TIMESTAMP_MAX),
        _NO_MOMENT,
    ),
}
"""Which raw elements of a dtype are none of its values."""
_WIRE: dict[Dtype, np.dtype[np.generic]] = {
    Dtype.BOOL: np.dtype(np.uint8),
    Dtype.INT32: np.dtype("<i4"),
    Dtype.INT64: np.dtype("<i8"),
    Dtype.FLOAT32: np.dtype("<f4"),
    Dtype.FLOAT64: np.dtype("<f8"),
    Dtype.TIMESTAMP: np.dtype("<i8"),
}
"""Raw elements of the dtypes of fixed size."""
_LENGTH_BYTES = 4


class WrongElement(Exception):
    """Element `index` of a tensor is no value of its dtype; `value` is a short picture of it."""

    def __init__(self, index: int, mismatch: Mismatch, value: str) -> None:
        super().__init__(mismatch.reason)
        self.index = index
        self.mismatch = mismatch
        self.value = value


class WrongContents(Exception):
    """The bytes of a tensor are not those of a tensor of its shape: why, and what is allowed."""

    def __init__(self, reason: str, *, allowed: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.allowed = allowed


def column_of_list(dtype: Dtype, items: Sequence[object], valid: NDArray[np.bool_] | None, *, nullable: bool) -> Column:
    """A column (rows,) of Python values. None is null where the field is nullable.

    Where `valid` (rows,) is False the row is null, and its element is not looked at. Raises WrongElement.
    """
    read = _LIST_READERS[dtype]
    values: list[object] = []
    for index, item in enumerate(items):
        if valid is not None and not valid[index]:
            values.append(None)
            continue
        if item is None and nullable and valid is None:
            values.append(None)
            continue
        try:
            values.append(read(item))
        except Mismatch as mismatch:
            raise WrongElement(index, mismatch, shown(item)) from mismatch
    return column_of(dtype, values)


def column_of_raw(
    dtype: Dtype, raw: bytes | memoryview, every: NDArray[np.bool_], valid: NDArray[np.bool_] | None
) -> Column:
    """A column (rows,) of raw contents, little-endian; elements of BYTES each after its length in four bytes.

    Where `valid` (rows,) is False the row is null, and its element is not looked at. Where it is None no row is null,
    and the column's `valid` is `every`, which is True (rows,) and belongs to all columns of a request.
    Raises WrongElement, and WrongContents where the bytes are not as many elements as there are rows.
    """
    if dtype in (Dtype.STRING, Dtype.BYTES):
        return column_of_list(dtype, split_strings(raw, len(every)), valid, nullable=False)
    values = _fixed(dtype, raw, len(every), valid)
    if valid is None:
        return Column(dtype, values, every)
    blank(values, ~valid, dtype)
    return Column(dtype, values, valid)


def split_strings(raw: bytes | memoryview, count: int) -> list[bytes]:
    """`count` elements, each after its length in four bytes. Raises WrongContents where they are not all of `raw`.

    >>> split_strings(b"\\x02\\x00\\x00\\x00ab", 1)
    [b'ab']
    """
    data = bytes(raw)
    elements: list[bytes] = []
    offset = 0
    for index in range(count):
        start = offset + _LENGTH_BYTES
        length = int.from_bytes(data[offset:start], "little")
        offset = start + length
        if offset > len(data):
            raise WrongContents(
                f"end at byte {len(data)}, inside element {index} of {count}",
                allowed="for each element its length in 4 bytes, little-endian, and then its bytes",
            )
        elements.append(data[start:offset])
    if offset != len(data):
        raise WrongContents(f"have {len(data)} bytes, {count} elements take {offset}", allowed=f"{count} elements")
    return elements


def _fixed(dtype: Dtype, raw: bytes | memoryview, rows: int, valid: NDArray[np.bool_] | None) -> NDArray[np.generic]:
    """A copy of the elements of a dtype of fixed size, each checked where it is valid."""
    wire = _WIRE[dtype]
    if len(raw) != rows * wire.itemsize:
        raise WrongContents(
            f"have {len(raw)} bytes, {rows} elements take {rows * wire.itemsize}",
            allowed=f"{wire.itemsize} bytes a row",
        )
    given: NDArray[Any] = np.frombuffer(raw, dtype=wire)
    if dtype in _FAULTS:
        find, mismatch = _FAULTS[dtype]
        wrong = find(given) if valid is None else find(given) & valid
        if wrong.any():
            index = int(wrong.argmax())
            raise WrongElement(index, mismatch, str(given[index]))
    return given.astype(TABLE[dtype].numpy)


def _read_float(dtype: Dtype) -> FieldReader:
    read = READERS[dtype]

    def read_finite(value: object) -> object:
        if isinstance(value, float) and not math.isfinite(value):
            raise _NOT_FINITE
        return read(value)

    return read_finite


def _read_string(value: object) -> object:
    """Text as JSON has it, or the bytes of it."""
    if not isinstance(value, bytes):
        return READERS[Dtype.STRING](value)
    _check_length(value, "UTF-8 bytes")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise Mismatch(f"is not UTF-8: {error.reason}", allowed="text in UTF-8") from error


def _read_bytes(value: object) -> object:
    """Bytes, or the UTF-8 bytes of a text, which is all that JSON can say of a BYTES tensor."""
    if not isinstance(value, bytes):
        text = READERS[Dtype.STRING](value)
        assert isinstance(text, str), "the reader of texts gives texts"
        return text.encode()
    _check_length(value, "bytes")
    return value


def _check_length(value: bytes, unit: str) -> None:
    if len(value) > STRING_BYTES_MAX:
        raise Mismatch(f"has {len(value)} {unit}", allowed=f"at most {STRING_BYTES_MAX} {unit}")


def _read_micros(value: object) -> object:
    moment = READERS[Dtype.INT64](value)
    assert isinstance(moment, int), "the reader of integers gives integers"
    if not _TIMESTAMP_MIN <= moment <= _TIMESTAMP_MAX:
        raise _NO_MOMENT
    return moment


_LIST_READERS: dict[Dtype, FieldReader] = {
    **READERS,
    Dtype.FLOAT32: _read_float(Dtype.FLOAT32),
    Dtype.FLOAT64: _read_float(Dtype.FLOAT64),
    Dtype.STRING: _read_string,
    Dtype.BYTES: _read_bytes,
    Dtype.TIMESTAMP: _read_micros,
}
