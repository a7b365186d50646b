"""Feast's stored `Value` and `Timestamp` messages, read straight from their protobuf bytes.

A Value has exactly one field set, so its bytes are one tag and one payload; an empty message is a null.
"""

import struct
from collections.abc import Callable

from skewless.dtypes import Dtype
from skewless.errors import InvalidDefinition
from skewless.timestamps import SECOND_US

_FLOAT = struct.Struct("<f")
_DOUBLE = struct.Struct("<d")
_NANOS_PER_MICRO = 1_000
_SIGN_BIT = 1 << 63
_NULL_TIME_S = -(1 << 63)
"""What Feast stores for a null time: NumPy's NaT as an integer, where every other type has empty bytes."""

Decoder = Callable[[bytes], object]
"""Turns a stored Value into the dtype's Python value, or None for a null."""


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The varint at `position` as a signed 64-bit integer, and the position after it."""
    result = shift = 0
    while True:
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return (result - (1 << 64) if result & _SIGN_BIT else result), position


def _payload(data: bytes) -> bytes:
    length, position = _varint(data, 1)
    return data[position : position + length]


def _time(data: bytes) -> int | None:
    seconds, _ = _varint(data, 1)
    return None if seconds == _NULL_TIME_S else seconds * SECOND_US


_READERS: dict[Dtype, tuple[int, Callable[[bytes], object]]] = {
    Dtype.BYTES: (0x0A, _payload),
    Dtype.STRING: (0x12, lambda data: _payload(data).decode()),
    Dtype.INT32: (0x18, lambda data: _varint(data, 1)[0]),
    Dtype.INT64: (0x20, lambda data: _varint(data, 1)[0]),
    # Adding 0.0 makes -0.0 the 0.0 that it is everywhere offline: DuckDB loses the sign when it joins.
    Dtype.FLOAT64: (0x29, lambda data: _DOUBLE.unpack_from(data, 1)[0] + 0.0),
    Dtype.FLOAT32: (0x35, lambda data: _FLOAT.unpack_from(data, 1)[0] + 0.0),
    Dtype.BOOL: (0x38, lambda data: data[1] != 0),
    Dtype.TIMESTAMP: (0x40, _time),
}
"""Tag of the Value field that Feast writes for a dtype, and how its payload is read."""


def decoder(dtype: Dtype, *, where: str) -> Decoder:
    """The decoder of one feature; `where` names the feature when a stored value has another type.

    The decoder raises InvalidDefinition for a value written under another declaration, which must not be served.

    >>> decoder(Dtype.INT64, where="v:f")(bytes.fromhex("2007"))
    7
    """
    expected, read = _READERS[dtype]

    def decode(data: bytes) -> object:
        if not data:
            return None
        if data[0] != expected:
            raise InvalidDefinition(
                f"{where} is declared `{dtype}` (protobuf tag {expected:#04x}) "
                f"but the online store holds tag {data[0]:#04x}",
                hint="the view was materialized under another declaration: materialize it again",
            )
        return read(data)

    return decode


def decode_timestamp(data: bytes) -> int:
    """Microseconds of a stored google.protobuf.Timestamp; nanoseconds below one microsecond are cut.

    >>> decode_timestamp(bytes.fromhex("0801"))
    1000000
    """
    seconds = nanos = position = 0
    while position < len(data):
        tag = data[position]
        value, position = _varint(data, position + 1)
        if tag == 0x08:
            seconds = value
        else:
            nanos = value
    return seconds * SECOND_US + nanos // _NANOS_PER_MICRO
