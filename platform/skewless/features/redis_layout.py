"""Where Feast 0.67 keeps a feature value in Redis, byte for byte (entity key serialization version 3).

A hash per entity, shared by all views with the same join keys; in it, per view, a timestamp field and one field
per feature. Golden vectors made by Feast itself hold this module to it (tests/contract/test_redis_layout.py).
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import mmh3

from skewless.dtypes import Dtype
from skewless.errors import InvalidDefinition
from skewless.features.contract import JoinKey
from skewless.timestamps import SECOND_US

ENTITYLESS_KEY = "__dummy_id"
"""Feast's join key of a view that has no entity; its value is the empty string."""

_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")
_I64 = struct.Struct("<q")


def _encode_string(value: object) -> bytes:
    return str(value).encode()


def _encode_bytes(value: object) -> bytes:
    return bytes(value)  # type: ignore[call-overload, no-any-return]  # the column's dtype guarantees bytes


def _encode_int32(value: object) -> bytes:
    return _I32.pack(value)


def _encode_int64(value: object) -> bytes:
    return _I64.pack(value)


def _encode_timestamp(value: object) -> bytes:
    return _I64.pack(int(value) // SECOND_US)  # type: ignore[call-overload]  # microseconds; Feast keeps seconds


_KEY_ENCODERS: dict[Dtype, tuple[int, Callable[[object], bytes]]] = {
    Dtype.BYTES: (1, _encode_bytes),
    Dtype.STRING: (2, _encode_string),
    Dtype.INT32: (3, _encode_int32),
    Dtype.INT64: (4, _encode_int64),
    Dtype.TIMESTAMP: (8, _encode_timestamp),
}
"""Feast's ValueType number and the value's bytes, for the dtypes Feast can serialize in a key."""

_STRING_TYPE = _KEY_ENCODERS[Dtype.STRING][0]


@dataclass(frozen=True, slots=True)
class HashRead:
    """Fields of one Redis hash, as raw bytes."""

    key: bytes
    fields: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class KeyTemplate:
    """Builds the Redis key of one entity from its join-key values, given in the order of `names`."""

    names: tuple[str, ...]
    _prefix: bytes
    _encoders: tuple[tuple[bytes, Callable[[object], bytes]], ...]
    _suffix: bytes

    @classmethod
    def compile(cls, join_keys: tuple[JoinKey, ...], project: str) -> "KeyTemplate":
        """The template of an entity. Raises InvalidDefinition for a dtype Feast cannot use as a key."""
        if not join_keys:
            entityless = cls.compile((JoinKey(ENTITYLESS_KEY, Dtype.STRING),), project)
            return cls((), entityless.key(("",)), (), b"")
        ordered = sorted(join_keys, key=lambda key: key.name)
        prefix = _U32.pack(len(ordered)) + b"".join(
            _U32.pack(_STRING_TYPE) + _sized(key.name.encode()) for key in ordered
        )
        encoders = tuple(_key_encoder(key) for key in ordered)
        return cls(tuple(key.name for key in ordered), prefix, encoders, project.encode())

    def key(self, values: tuple[object, ...]) -> bytes:
        """The key of the entity with these values, one per name."""
        parts = [self._prefix]
        for (type_code, encode), value in zip(self._encoders, values, strict=True):
            parts += (type_code, _sized(encode(value)))
        parts.append(self._suffix)
        return b"".join(parts)


def project_of(key: bytes) -> str | None:
    """The project a Redis key belongs to; None for a key that is not one of Feast's.

    A project is what follows the serialized entity, so `prod` is never mistaken for the end of `nonprod`.
    """
    try:
        (count,) = _U32.unpack_from(key, 0)
        position = _U32.size
        for _ in range(2 * count):  # the names first, then the values: each a type, a length and that many bytes
            (length,) = _U32.unpack_from(key, position + _U32.size)
            position += 2 * _U32.size + length
        return key[position:].decode() if count and position < len(key) else None
    except (struct.error, UnicodeDecodeError):
        return None


def feature_field(view: str, feature: str) -> bytes:
    """The hash field of a feature: four bytes of MurmurHash3."""
    return _U32.pack(mmh3.hash(f"{view}:{feature}", signed=False))


def timestamp_field(view: str) -> bytes:
    """The hash field of a view's event time."""
    return f"_ts:{view}".encode()


def _sized(data: bytes) -> bytes:
    return _U32.pack(len(data)) + data


def _key_encoder(key: JoinKey) -> tuple[bytes, Callable[[object], bytes]]:
    if key.dtype not in _KEY_ENCODERS:
        allowed = ", ".join(f"`{dtype}`" for dtype in _KEY_ENCODERS)
        raise InvalidDefinition(
            f"join key `{key.name}` has dtype `{key.dtype}`, which Feast cannot serialize. Allowed: {allowed}",
            hint="declare the entity with one of the allowed types",
        )
    type_code, encode = _KEY_ENCODERS[key.dtype]
    return _U32.pack(type_code), encode
