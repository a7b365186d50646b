"""What JSON may stand in a request for each dtype, and the exact value it becomes. Nothing is coerced by guess."""

import base64
import binascii
from collections.abc import Callable

import numpy as np

from skewless.dtypes import Dtype
from skewless.limits import STRING_BYTES_MAX
from skewless.timestamps import format_timestamp, parse_timestamp

FieldReader = Callable[[object], object]
"""Turns a decoded JSON value into the dtype's Python value. Raises Mismatch."""

FLOAT32_MAX = float(np.finfo(np.float32).max)
_FLOAT64_MAX = float(np.finfo(np.float64).max)
_FIRST_MOMENT = parse_timestamp("0001-01-01T00:00:00Z")
_LAST_MOMENT = parse_timestamp("9999-12-31T23:59:59.999999Z")


class Mismatch(Exception):
    """A value that its field cannot hold: why, what is allowed, and what to do."""

    def __init__(self, reason: str, *, allowed: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.allowed = allowed
        self.hint = hint


def json_kind(value: object) -> str:
    """What JSON calls the type of a decoded value.

    >>> json_kind(True), json_kind(1.5)
    ('a boolean', 'a number')
    """
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


def _read_bool(value: object) -> object:
    if type(value) is not bool:
        raise Mismatch(f"is {json_kind(value)}", allowed="true or false")
    return value


def _integer_reader(bits: int) -> FieldReader:
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    allowed = f"an integer from {low} to {high}"

    def read(value: object) -> object:
        if type(value) is not int:
            hint = "send the number without quotes" if type(value) is str else ""
            raise Mismatch(f"is {json_kind(value)}{_fraction(value)}", allowed=allowed, hint=hint)
        if not low <= value <= high:
            raise Mismatch("is too large", allowed=allowed)
        return value

    return read


def _fraction(value: object) -> str:
    return " with a fraction or exponent" if type(value) is float else ""


def _float_reader(bits: int) -> FieldReader:
    largest = FLOAT32_MAX if bits == 32 else _FLOAT64_MAX
    allowed = f"a number of at most {largest:.6g} in size"

    def read(value: object) -> object:
        if type(value) is not float and type(value) is not int:
            hint = "send the number without quotes" if type(value) is str else ""
            raise Mismatch(f"is {json_kind(value)}", allowed=allowed, hint=hint)
        if not -largest <= value <= largest:
            raise Mismatch("is too large", allowed=allowed)
        return float(value)

    return read


def _read_string(value: object) -> object:
    allowed = f"a string of at most {STRING_BYTES_MAX} UTF-8 bytes"
    if type(value) is not str:
        raise Mismatch(f"is {json_kind(value)}", allowed=allowed)
    # A character is at least one byte and at most four, so most strings need no encoding to be measured.
    if len(value) * 4 > STRING_BYTES_MAX and len(value.encode()) > STRING_BYTES_MAX:
        raise Mismatch(f"has {len(value.encode())} UTF-8 bytes", allowed=allowed)
    return value


def _read_bytes(value: object) -> object:
    allowed = f"base64 of at most {STRING_BYTES_MAX} bytes"
    if type(value) is not str:
        raise Mismatch(f"is {json_kind(value)}", allowed=allowed)
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Mismatch(f"is not base64: {error}", allowed=allowed) from error
    if len(data) > STRING_BYTES_MAX:
        raise Mismatch(f"has {len(data)} bytes", allowed=allowed)
    return data


def read_timestamp(value: object) -> int:
    """Microseconds of an RFC 3339 text. Raises Mismatch."""
    allowed = "an RFC 3339 timestamp with a time zone, such as 2013-05-01T09:30:00Z"
    if type(value) is not str:
        raise Mismatch(f"is {json_kind(value)}", allowed=allowed)
    try:
        moment = parse_timestamp(value)
        if not _FIRST_MOMENT <= moment <= _LAST_MOMENT:
            format_timestamp(moment)  # years 0 and 10000 exist in another zone only; no receipt could show them
    except (ValueError, OverflowError) as error:
        raise Mismatch(f"is {shown(value)}, which is no timestamp: {error}", allowed=allowed) from error
    return moment


def shown(value: object) -> str:
    """A short picture of a value for a message; long values are cut.

    >>> shown("x" * 100)[-8:]
    "xxxxxx…'"
    """
    if isinstance(value, list | dict):  # may be as large and as deep as a body
        return json_kind(value)
    text = repr(value) if not isinstance(value, str) or len(value) <= 40 else repr(value[:40] + "…")
    return text if len(text) <= 80 else text[:80] + "…"


READERS: dict[Dtype, FieldReader] = {
    Dtype.BOOL: _read_bool,
    Dtype.INT32: _integer_reader(32),
    Dtype.INT64: _integer_reader(64),
    Dtype.FLOAT32: _float_reader(32),
    Dtype.FLOAT64: _float_reader(64),
    Dtype.STRING: _read_string,
    Dtype.BYTES: _read_bytes,
    Dtype.TIMESTAMP: read_timestamp,
}
