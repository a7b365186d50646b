"""Feast's stored `Value` and `Timestamp` messages, written: the inverse of `value_codec.py`.

Only whoever repairs the online store writes values by itself; everything else is written by Feast. Both give the same
bytes, which golden vectors made by Feast hold this module to (tests/contract/test_value_encoding.py).
"""

import struct
from collections.abc import Callable
from typing import Any

from skewless.dtypes import ELEMENTS, Column, Dtype
from skewless.features.value_codec import value_tag, varint
from skewless.timestamps import SECOND_US

_NANOS_PER_MICRO = 1_000
_BITS_64 = 1 << 64
_FLOATS = {Dtype.FLOAT32: struct.Struct("<f"), Dtype.FLOAT64: struct.Struct("<d")}
_ELEMENT = b"\x0a"
"""Tag of the one field that every list message has."""

Payload = Callable[[Any], bytes]


def stored_values(column: Column, feast_type: str = "") -> list[bytes]:
    """What the online store keeps of each row of a column: empty bytes for a null, else a tag and a payload.

    >>> from skewless.dtypes import column_of
    >>> stored_values(column_of(Dtype.INT64, [7, None]))
    [b' \\x07', b'']
    """
    tag, payload = value_tag(column.dtype, feast_type), _PAYLOADS[column.dtype]
    rows = zip(column.values.tolist(), column.valid.tolist(), strict=True)
    return [tag + payload(value) if valid else b"" for value, valid in rows]


def stored_event_time(event_time: int) -> bytes:
    """A Timestamp of microseconds since 1970, as Feast writes it under a view's `_ts:` field.

    >>> stored_event_time(1_000_000)
    b'\\x08\\x01'
    """
    seconds, micros = divmod(event_time, SECOND_US)
    written = b"\x08" + _integer(seconds) if seconds else b""
    return written + (b"\x10" + _integer(micros * _NANOS_PER_MICRO) if micros else b"")


def _integer(value: int) -> bytes:
    return varint(value % _BITS_64)  # a negative number as its 64-bit complement


def _sized(data: bytes) -> bytes:
    return varint(len(data)) + data


def _text(value: str) -> bytes:
    return _sized(value.encode())


def _seconds(value: int) -> bytes:
    return _integer(value // SECOND_US)


def _truth(value: bool) -> bytes:
    return b"\x01" if value else b"\x00"


def _float(dtype: Dtype) -> Payload:
    pack = _FLOATS[dtype].pack
    return lambda value: pack(value)


_SCALARS: dict[Dtype, Payload] = {
    Dtype.BOOL: _truth,
    Dtype.INT32: _integer,
    Dtype.INT64: _integer,
    Dtype.FLOAT32: _float(Dtype.FLOAT32),
    Dtype.FLOAT64: _float(Dtype.FLOAT64),
    Dtype.STRING: _text,
    Dtype.BYTES: _sized,
    Dtype.TIMESTAMP: _seconds,
}


def _repeated(element: Payload) -> Payload:
    """A list of text or bytes: every element has a tag and a length of its own."""
    return lambda items: _sized(b"".join(_ELEMENT + element(item) for item in items))


def _packed(element: Payload) -> Payload:
    """A list of numbers: protobuf packs them into one field, which an empty list has not."""

    def payload(items: tuple[Any, ...]) -> bytes:
        packed = b"".join(element(item) for item in items)
        return _sized(_ELEMENT + _sized(packed) if packed else b"")

    return payload


def _list_payload(element: Dtype) -> Payload:
    make = _repeated if element in (Dtype.STRING, Dtype.BYTES) else _packed
    return make(_SCALARS[element])


_PAYLOADS: dict[Dtype, Payload] = _SCALARS | {listed: _list_payload(element) for listed, element in ELEMENTS.items()}

assert set(_PAYLOADS) == set(Dtype), "every dtype can be written"
