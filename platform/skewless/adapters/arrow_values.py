"""Values of Arrow arrays as NumPy arrays, and texts as Arrow arrays, over their buffers.

Arrow's own conversions import pandas wherever it is installed, which takes a gateway a second and 80 MiB for nothing.
Layouts are those of the Arrow columnar format; arrays must have been validated in full.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_NUMBERS: dict[Any, type[np.generic]] = {
    pa.int8(): np.int8,
    pa.int16(): np.int16,
    pa.int32(): np.int32,
    pa.int64(): np.int64,
    pa.uint8(): np.uint8,
    pa.uint16(): np.uint16,
    pa.uint32(): np.uint32,
    pa.uint64(): np.uint64,
    pa.float16(): np.float16,
    pa.float32(): np.float32,
    pa.float64(): np.float64,
}


def valid_of(array: Any) -> NDArray[np.bool_]:
    """Which values (rows,) are not null."""
    bitmap = array.buffers()[0] if array.null_count else None
    return np.ones(len(array), dtype=np.bool_) if bitmap is None else _bits(bitmap, array)


def booleans_of(array: Any) -> NDArray[np.bool_]:
    """The values (rows,) of booleans; anything where they are null."""
    return _bits(array.buffers()[1], array)


def numbers_of(array: Any) -> NDArray[Any]:
    """The values (rows,) of integers, floats and timestamps (their ticks), not copied; anything where they are null."""
    return _numbers(array.buffers()[1], _NUMBERS.get(array.type, np.int64), array.offset, len(array))


def objects_of(array: Any, zero: str | bytes) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.int64]]:
    """Texts or bytes (rows,) as Python objects, which of them are not null, and their lengths in bytes.

    Where they are null there is `zero`. Of a dictionary only words that occur become objects, once each.
    """
    if pa.types.is_dictionary(array.type):
        return _words_of(array, zero)
    if array.type in (pa.string_view(), pa.binary_view()):
        array = array.cast(pa.large_string() if isinstance(zero, str) else pa.large_binary())
    starts, stops, data = _places(array)
    valid = valid_of(array)
    lengths = np.where(valid, stops - starts, 0)
    values = np.empty(len(array), dtype=object)
    values[:] = _cut(data, starts.tolist(), (starts + lengths).tolist(), is_text=isinstance(zero, str))
    return values, valid, lengths


def text_array(texts: Sequence[str]) -> Any:
    """An Arrow array of strings, none of them null."""
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int32)
    np.cumsum([len(each) for each in encoded], out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def number_array(values: NDArray[Any]) -> Any:
    """An Arrow array over int64 or float32 values, none of them null."""
    arrow = pa.int64() if values.dtype == np.int64 else pa.float32()
    return pa.Array.from_buffers(arrow, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def _numbers(buffer: Any, numpy: type[np.generic], first: int, count: int) -> NDArray[Any]:
    """`count` numbers from number `first` on. A buffer may be longer, and of no whole number of numbers."""
    return np.frombuffer(buffer, dtype=numpy, count=count, offset=first * np.dtype(numpy).itemsize)


def _bits(buffer: Any, array: Any) -> NDArray[np.bool_]:
    first, last = array.offset, array.offset + len(array)
    held = np.frombuffer(buffer, dtype=np.uint8)[first // 8 : (last + 7) // 8]
    return np.unpackbits(held, bitorder="little")[first % 8 :][: len(array)].astype(np.bool_)


def _words_of(array: Any, zero: str | bytes) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.int64]]:
    valid = valid_of(array)
    # An index under a null may be anything.
    used, inverse = np.unique(np.where(valid, numbers_of(array.indices), 0), return_inverse=True)
    if not len(array.dictionary):
        return np.full(len(array), zero, dtype=object), valid, np.zeros(len(array), dtype=np.int64)
    words = [objects_of(array.dictionary[place : place + 1], zero) for place in used.tolist()]
    values = np.array([each[0][0] for each in words], dtype=object)[inverse]
    known = valid & np.array([each[1][0] for each in words])[inverse]
    lengths = np.where(known, np.array([each[2][0] for each in words])[inverse], 0)
    values[~known] = zero
    return values, known, lengths


def _places(array: Any) -> tuple[NDArray[np.int64], NDArray[np.int64], bytes]:
    """Where each value starts and stops in the bytes that follow."""
    first, last = array.offset, array.offset + len(array)
    if pa.types.is_fixed_size_binary(array.type):
        edges = np.arange(first, last + 1, dtype=np.int64) * array.type.byte_width
        data = array.buffers()[1]
    else:
        is_large = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
        held = _numbers(array.buffers()[1], np.int64 if is_large else np.int32, first, len(array) + 1)
        edges = held.astype(np.int64)
        data = array.buffers()[2]
    base, end = int(edges[0]), int(edges[-1])
    found = b"" if data is None else data.slice(base, end - base).to_pybytes()
    return edges[:-1] - base, edges[1:] - base, found


def _cut(data: bytes, starts: list[int], stops: list[int], *, is_text: bool) -> list[str] | list[bytes]:
    """As objects, which costs 60 ns each here and in Arrow: ASCII is decoded in one go."""
    if not is_text:
        return [data[start:stop] for start, stop in zip(starts, stops, strict=True)]
    if data.isascii():
        text = data.decode("ascii")
        return [text[start:stop] for start, stop in zip(starts, stops, strict=True)]
    return [data[start:stop].decode() for start, stop in zip(starts, stops, strict=True)]
