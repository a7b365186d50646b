"""Entities named by people: values of some join keys as texts, what those mean in a view, and a keyed hash of them.

The hash stands for an entity where its keys must not be kept. It is made of a value's kind and one text of it, so that
the same number in an int32 and an int64 column is the same, and the text `42` is not the number 42. With the key at
hand values can be tried out, so a hash is a pseudonym and not an anonymisation.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column, Dtype, to_python
from skewless.errors import InvalidRequest
from skewless.features.contract import JoinKey
from skewless.timestamps import format_timestamp, parse_timestamp

HASH_KEY_BYTES = 32
_HASH_BYTES = 32
_INTEGER = re.compile(r"-?\d{1,19}")
_KINDS: dict[Dtype, str] = {
    Dtype.STRING: "s",
    Dtype.INT32: "i",
    Dtype.INT64: "i",
    Dtype.TIMESTAMP: "t",
    Dtype.BYTES: "b",
}
"""What a join key can be, one letter per kind of value."""
_RANGES = {Dtype.INT32: 1 << 31, Dtype.INT64: 1 << 63}


@dataclass(frozen=True, slots=True)
class ChosenEntities:
    """Every entity with these values: `keys` has texts by join key, of which an entity may have more."""

    keys: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """The join keys, sorted."""
        return tuple(sorted(self.keys))

    @property
    def texts(self) -> tuple[str, ...]:
        """The values as they were given, in the order of `names`."""
        return tuple(self.keys[name] for name in self.names)

    def are_told_by(self, join_keys: Iterable[str]) -> bool:
        """Whether entities with these join keys, and perhaps more, can be told apart by the values."""
        return set(self.keys) <= set(join_keys)

    def values(self, join_keys: Iterable[JoinKey]) -> dict[str, object]:
        """The values of the named ones among some join keys, each as its dtype has it.

        Raises InvalidRequest for a text that is none.
        """
        return {key.name: _value(key, self.keys[key.name]) for key in join_keys if key.name in self.keys}

    def forms(self, name: str) -> dict[Dtype, object]:
        """What the value of one join key is as each dtype that can hold it."""
        found = ((dtype, _read(dtype, self.keys[name])) for dtype in _KINDS)
        return {dtype: value for dtype, value in found if value is not None}

    def hashes(self, key: bytes) -> tuple[str, ...]:
        """The keyed hashes under which rows of these entities are known, whatever the dtypes of their join keys."""
        each_name = [
            dict.fromkeys(_part(name, dtype, value) for dtype, value in self.forms(name).items()) for name in self.names
        ]
        return tuple(_hashed(key, "".join(parts)) for parts in product(*each_name))


def row_hashes(key: bytes, columns: Mapping[str, Column], rows: NDArray[np.int64]) -> list[str | None]:
    """The keyed hash of some rows' join keys `columns`, in the order of `rows` (numbers); None where one is null."""
    parts = []
    for name in sorted(columns):
        column = columns[name]
        part = Column(column.dtype, column.values[rows], column.valid[rows])
        parts.append([None if each is None else _part(name, column.dtype, each) for each in to_python(part)])
    known: dict[tuple[str | None, ...], str | None] = {}
    found = []
    for told in zip(*parts, strict=True):
        if told not in known:
            known[told] = None if None in told else _hashed(key, "".join(each for each in told if each))
        found.append(known[told])
    return found


def _value(key: JoinKey, text: str) -> object:
    value = _read(key.dtype, text)
    if value is None:
        raise InvalidRequest(
            f"`{text}` is no value of join key `{key.name}`",
            path=key.name,
            allowed=f"a value of `{key.dtype}`",
        )
    return value


def _read(dtype: Dtype, text: str) -> object:
    """A text as a dtype has it, bytes in base64 and times in RFC 3339; None where it is none of its values."""
    try:
        if dtype is Dtype.TIMESTAMP:
            return int(parse_timestamp(text))
        if dtype is Dtype.BYTES:
            return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error, OverflowError):
        return None
    if dtype in _RANGES:
        bound = _RANGES[dtype]
        return int(text) if _INTEGER.fullmatch(text) and -bound <= int(text) < bound else None
    return text if dtype is Dtype.STRING else None


def _part(name: str, dtype: Dtype, value: object) -> str:
    """One join key of the hashed text. Lengths go before texts, so that no two entities give the same."""
    text = value.hex() if isinstance(value, bytes) else format_time(value) if dtype is Dtype.TIMESTAMP else str(value)
    return f"{len(name)}:{name}{_KINDS.get(dtype, 's')}{len(text)}:{text}"


def format_time(value: object) -> str:
    """A time (µs) as text; as a number where it is outside the years 1 to 9999."""
    try:
        return format_timestamp(int(value))  # type: ignore[call-overload]  # the dtype says that it is a number
    except OverflowError:
        return str(value)


def _hashed(key: bytes, text: str) -> str:
    """A keyed BLAKE2b (RFC 7693), which is a message authentication code."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), key=key, digest_size=_HASH_BYTES).hexdigest()
