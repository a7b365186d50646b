"""One stored value at a time, read with suspicion: the payloads of Feast's `Value` and `Timestamp` messages.

Whatever bytes the store holds, a reader returns a value of its dtype or raises Malformed with what is wrong.
"""

import struct
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from skewless.dtypes import TABLE, Dtype
from skewless.timestamps import SECOND_US

_SIGN_BIT = 1 << 63
NANOS_PER_MICRO = 1_000
NULL_TIME_S = -_SIGN_BIT
"""What Feast stores for a null time: NumPy's NaT as an integer, where every other type has empty bytes."""
TIME_S_MAX = (_SIGN_BIT - 1) // SECOND_US
"""Seconds from 1970 beyond which microseconds do not fit 64 bits."""
VARINT_BYTES_MAX = 10
FIXED: dict[Dtype, tuple[int, str]] = {Dtype.FLOAT64: (9, "<f8"), Dtype.FLOAT32: (5, "<f4"), Dtype.BOOL: (2, "u1")}
"""Bytes of a whole stored value, its one-byte tag included, and the payload's NumPy type."""


Reader = Callable[[bytes, int], object]
"""Reads the payload from a position to the end; None is a null. Raises Malformed."""


class Malformed(ValueError):
    """Bytes that are not a value of the declared type; the message says why."""


@lru_cache(maxsize=8_192)
def event_time(data: bytes) -> int:
    """Microseconds of one Timestamp; raises Malformed. Many rows share one, hence the cache."""
    seconds = nanos = position = 0
    while position < len(data):
        tag = data[position]
        value, position = _varint(data, position + 1)
        if tag == 0x08:
            seconds = value
        elif tag == 0x10:
            nanos = value
        else:
            raise Malformed(f"has the protobuf tag {tag:#04x}, which no Timestamp has")
    if abs(seconds) > TIME_S_MAX:
        raise Malformed(f"is {seconds} s from 1970, which is no date")
    return seconds * SECOND_US + nanos // NANOS_PER_MICRO


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The varint at `position` as a signed 64-bit integer, and the position after it."""
    result = shift = 0
    for place in range(position, min(len(data), position + VARINT_BYTES_MAX)):
        byte = data[place]
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            if result >> 64:
                break
            return (result - (1 << 64) if result & _SIGN_BIT else result), place + 1
        shift += 7
    raise Malformed("holds an integer without an end")


def _whole_varint(data: bytes, position: int) -> int:
    value, end = _varint(data, position)
    if end != len(data):
        raise Malformed(f"has {len(data) - end} bytes too many")
    return value


def _int32(data: bytes, position: int) -> int:
    value = _whole_varint(data, position)
    if not -(1 << 31) <= value < 1 << 31:
        raise Malformed(f"holds {value}, which is no 32-bit integer")
    return value


def _time(data: bytes, position: int) -> int | None:
    return _time_of(_whole_varint(data, position))


def _time_of(seconds: int) -> int | None:
    if seconds == NULL_TIME_S:
        return None
    if abs(seconds) > TIME_S_MAX:
        raise Malformed(f"holds {seconds} s from 1970, which is no date")
    return seconds * SECOND_US


def _sized(data: bytes, position: int) -> bytes:
    """The bytes of a length-delimited field that ends where the data does."""
    length, start = _varint(data, position)
    if start + length != len(data):
        raise Malformed(f"says it has {length} bytes and has {len(data) - start}")
    return data[start:]


def _bytes(data: bytes, position: int) -> bytes | None:
    """Empty bytes are null: Feast writes them so unless another row of the same batch has some, and so does offline."""
    return _sized(data, position) or None


def _text(data: bytes, position: int) -> str:
    return _utf8(_sized(data, position))


def _utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Malformed("is not UTF-8") from error


def _unpacked(name: Dtype) -> Reader:
    """A fixed-width scalar."""
    size, payload = FIXED[name]
    number = struct.Struct({"<f8": "<d", "<f4": "<f", "u1": "B"}[payload])

    def read(data: bytes, position: int) -> object:
        if len(data) != size:
            raise Malformed(f"has {len(data)} bytes instead of {size}")
        value = number.unpack_from(data, position)[0]
        return value != 0 if name is Dtype.BOOL else value + 0.0

    return read


def _repeated_bytes(data: bytes, position: int) -> list[bytes]:
    """The elements of a BytesList or StringList."""
    message = _sized(data, position)
    elements = []
    at = 0
    while at < len(message):
        if message[at] != 0x0A:
            raise Malformed(f"holds a list with the protobuf tag {message[at]:#04x}")
        length, at = _varint(message, at + 1)
        if length < 0 or at + length > len(message):
            raise Malformed("holds a list that is cut off")
        elements.append(message[at : at + length])
        at += length
    return elements


def _packed(data: bytes, position: int) -> bytes:
    """The payload of a list of numbers, which protobuf packs into one field; empty for an empty list."""
    message = _sized(data, position)
    if not message:
        return b""
    if message[0] != 0x0A:
        raise Malformed(f"holds a list with the protobuf tag {message[0]:#04x}")
    return _sized(message, 1)


def _float_list(payload: str) -> Reader:
    size = int(payload[-1])

    def read(data: bytes, position: int) -> object:
        packed = _packed(data, position)
        if len(packed) % size:
            raise Malformed("holds a list that is cut off")
        return tuple((np.frombuffer(packed, dtype=payload) + np.dtype(payload).type(0)).tolist())

    return read


def _integer_list(convert: Callable[[int], object]) -> Reader:
    def read(data: bytes, position: int) -> object:
        packed = _packed(data, position)
        numbers = []
        at = 0
        while at < len(packed):
            number, at = _varint(packed, at)
            numbers.append(convert(number))
        return tuple(numbers)

    return read


def _listed_time(seconds: int) -> int:
    time = _time_of(seconds)
    if time is None:
        raise Malformed("holds a list with a null time")
    return time


def payload_readers() -> dict[Dtype, Reader]:
    """What reads the payload of each dtype."""
    readers: dict[Dtype, Reader] = {
        Dtype.BYTES: _bytes,
        Dtype.STRING: _text,
        Dtype.INT32: _int32,
        Dtype.INT64: _whole_varint,
        Dtype.TIMESTAMP: _time,
        Dtype.BYTES_LIST: lambda data, position: tuple(_repeated_bytes(data, position)),
        Dtype.STRING_LIST: lambda data, position: tuple(_utf8(each) for each in _repeated_bytes(data, position)),
        Dtype.FLOAT64_LIST: _float_list("<f8"),
        Dtype.FLOAT32_LIST: _float_list("<f4"),
        Dtype.BOOL_LIST: _integer_list(bool),
        Dtype.INT32_LIST: _integer_list(int),
        Dtype.INT64_LIST: _integer_list(int),
        Dtype.TIMESTAMP_LIST: _integer_list(_listed_time),
    }
    return readers | {dtype: _unpacked(dtype) for dtype in FIXED}


assert set(payload_readers()) == set(TABLE), "every dtype can be read"
