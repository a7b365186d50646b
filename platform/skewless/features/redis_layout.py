"""Where Feast 0.67 keeps a feature value in Redis, byte for byte (entity key serialization version 3).

A hash per entity, shared by all views with the same join keys; in it, per view, a timestamp field and one field
per feature. Golden vectors made by Feast itself hold this module to it (tests/contract/test_redis_layout.py).
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import mmh3

from skewless.dtypes import Dtype
from skewless.errors import InvalidDefinition
from skewless.features.contract import JoinKey
from skewless.timestamps import SECOND_US

ENTITYLESS_KEY = "__dummy_id"
"""Feast's join key of a view that has no entity; its value is the empty string."""

TIMESTAMP_PREFIX = b"_ts:"
"""What the field of a view's event time begins with."""

_PACKED_FIELDS_MAX = 512
"""Valkey's default of hash-max-listpack-entries."""

_U32 = struct.Struct("<I")
_TYPE_SIZE = struct.Struct("<II")


def _encode_string(value: object) -> bytes:
    return _sized(str(value).encode())


def _encode_bytes(value: object) -> bytes:
    return _sized(bytes(value))  # type: ignore[call-overload]  # the column's dtype guarantees bytes


def _sized(data: bytes) -> bytes:
    return _U32.pack(len(data)) + data


_SIZE_I32 = struct.Struct("<Ii")
_SIZE_I64 = struct.Struct("<Iq")


def _encode_int32(value: object) -> bytes:
    return _SIZE_I32.pack(4, value)


def _encode_int64(value: object) -> bytes:
    return _SIZE_I64.pack(8, value)


def _encode_timestamp(value: object) -> bytes:
    return _SIZE_I64.pack(8, int(value) // SECOND_US)  # type: ignore[call-overload]  # microseconds; Feast keeps seconds


_KEY_ENCODERS: dict[Dtype, tuple[int, Callable[[object], bytes]]] = {
    Dtype.BYTES: (1, _encode_bytes),
    Dtype.STRING: (2, _encode_string),
    Dtype.INT32: (3, _encode_int32),
    Dtype.INT64: (4, _encode_int64),
    Dtype.TIMESTAMP: (8, _encode_timestamp),
}
"""Feast's ValueType number, and what makes the value's size and bytes, for dtypes Feast can serialize in a key."""

_KEY_DECODERS: dict[Dtype, Callable[[bytes], object]] = {
    Dtype.BYTES: bytes,
    Dtype.STRING: lambda data: data.decode(errors="replace"),
    Dtype.INT32: lambda data: int.from_bytes(data, "little", signed=True),
    Dtype.INT64: lambda data: int.from_bytes(data, "little", signed=True),
    Dtype.TIMESTAMP: lambda data: int.from_bytes(data, "little", signed=True) * SECOND_US,
}
"""The inverse of the encoders, for the value's bytes alone."""

_STRING_TYPE = _KEY_ENCODERS[Dtype.STRING][0]


@dataclass(frozen=True, slots=True)
class HashCommand:
    """Reads fields of a hash: everything of the Redis command but the key, packed once."""

    fields: tuple[bytes, ...]
    whole: bool
    """Whether the whole hash is asked for (HGETALL) and the fields are picked from the answer."""
    _head: bytes
    _tail: bytes

    @classmethod
    def compile(cls, fields: tuple[bytes, ...], *, hash_size: int) -> "HashCommand":
        """The cheaper of HMGET and HGETALL for a hash of `hash_size` fields, 0 where that is not known."""
        whole = hash_size > 0 and whole_hash_is_cheaper(len(fields), hash_size)
        name, arguments = (b"HGETALL", ()) if whole else (b"HMGET", fields)
        head = b"*%d\r\n%b$" % (2 + len(arguments), _bulk(name))
        return cls(fields, whole, head, b"\r\n" + b"".join(_bulk(field) for field in arguments))

    def pack(self, key: bytes) -> bytes:
        """The command for one key, in the Redis protocol."""
        return b"%b%d\r\n%b%b" % (self._head, len(key), key, self._tail)


def whole_hash_is_cheaper(wanted: int, hash_size: int) -> bool:
    """Whether HGETALL answers faster than an HMGET of `wanted` of the hash's `hash_size` fields.

    A small hash is one packed list, which HMGET searches from its start for every field; past the list's limit it is
    a table, where HMGET is always faster. Measured per key with Valkey 9.1 on 2 cores: the two cost the same at 24
    of 32 or 64 fields, 27 of 128, 38 of 256 and 60 of 500.

    >>> whole_hash_is_cheaper(20, 64), whole_hash_is_cheaper(30, 64), whole_hash_is_cheaper(600, 600)
    (False, True, False)
    """
    return hash_size <= _PACKED_FIELDS_MAX and wanted >= 20 + hash_size / 12


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


@dataclass(frozen=True, slots=True)
class KeyTemplate:
    """Builds the Redis key of one entity from its join-key values, given in the order of `names`."""

    names: tuple[str, ...]
    """What callers call the join keys."""
    _prefix: bytes
    _encoders: tuple[tuple[bytes, Callable[[object], bytes]], ...]
    _suffix: bytes

    @classmethod
    def compile(cls, join_keys: tuple[JoinKey, ...], project: str) -> "KeyTemplate":
        """The template of an entity. Raises InvalidDefinition for a dtype Feast cannot use as a key."""
        if not join_keys:
            entityless = cls.compile((JoinKey(ENTITYLESS_KEY, Dtype.STRING),), project)
            return cls((), entityless.keys([""])[0], (), b"")
        ordered = sorted(join_keys, key=lambda key: key.key_name)
        prefix = _U32.pack(len(ordered)) + b"".join(
            _U32.pack(_STRING_TYPE) + _sized(key.key_name.encode()) for key in ordered
        )
        encoders = tuple(_key_encoder(key) for key in ordered)
        return cls(tuple(key.name for key in ordered), prefix, encoders, project.encode())

    def keys(self, entities: Iterable[object]) -> list[bytes]:
        """The keys of entities, each given by its one join-key value, or by a tuple with one per name."""
        if not self.names:
            return [self._prefix for _ in entities]
        if len(self.names) > 1:
            return [self._composite(values) for values in entities]  # type: ignore[arg-type]  # tuples, as documented
        ((head, encode),) = self._encoders
        head, suffix = self._prefix + head, self._suffix
        return [head + encode(value) + suffix for value in entities]

    def _composite(self, values: tuple[object, ...]) -> bytes:
        parts = [self._prefix]
        for (type_code, encode), value in zip(self._encoders, values, strict=True):
            parts += (type_code, encode(value))
        parts.append(self._suffix)
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """What a Redis key of Feast's says: names of the join keys in order, Feast's number of each type, raw values."""

    names: tuple[str, ...]
    types: tuple[int, ...]
    values: tuple[bytes, ...]
    project: str

    @property
    def told(self) -> dict[str, str]:
        """Values by stored name, for people; bytes and types that Feast has no keys of in hexadecimal."""
        decoders = {
            code: _KEY_DECODERS[dtype] for dtype, (code, _) in _KEY_ENCODERS.items() if dtype is not Dtype.BYTES
        }
        parts = zip(self.names, self.types, self.values, strict=True)
        return {name: str(decoders[kind](value)) if kind in decoders else value.hex() for name, kind, value in parts}

    def entity(self, join_keys: Iterable[JoinKey]) -> dict[str, object]:
        """Values by what callers call the join keys, which must be of this key's types."""
        by_name = dict(zip(self.names, self.values, strict=True))
        return {key.name: _KEY_DECODERS[key.dtype](by_name[key.key_name]) for key in join_keys}


def stored_key(key: bytes) -> StoredKey | None:
    """A Redis key taken apart; None for one that is none of Feast's."""
    try:
        (count,) = _U32.unpack_from(key, 0)
        position = _U32.size
        parts: list[tuple[int, bytes]] = []
        for _ in range(2 * count):  # the names first, then the values: each a type, a length and that many bytes
            type_code, length = _TYPE_SIZE.unpack_from(key, position)
            position += _TYPE_SIZE.size
            parts.append((type_code, key[position : position + length]))
            position += length
        if not count or position >= len(key):
            return None
        names = tuple(name.decode() for _, name in parts[:count])
        types, values = zip(*parts[count:], strict=True)
        return StoredKey(names, types, values, key[position:].decode())
    except (struct.error, UnicodeDecodeError):
        return None


def key_types(join_keys: Iterable[JoinKey]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and Feast's numbers of the types of an entity's join keys, as its stored keys have them."""
    ordered = sorted(join_keys, key=lambda key: key.key_name) or [JoinKey(ENTITYLESS_KEY, Dtype.STRING)]
    return tuple(key.key_name for key in ordered), tuple(_KEY_ENCODERS[key.dtype][0] for key in ordered)


def project_of(key: bytes) -> str | None:
    """The project a Redis key belongs to; None for a key that is not one of Feast's.

    A project is what follows the serialized entity, so `prod` is never mistaken for the end of `nonprod`.
    """
    found = stored_key(key)
    return None if found is None else found.project


def feature_field(view: str, feature: str) -> bytes:
    """The hash field of a feature: four bytes of MurmurHash3."""
    return _U32.pack(mmh3.hash(f"{view}:{feature}", signed=False))


def timestamp_field(view: str) -> bytes:
    """The hash field of a view's event time."""
    return TIMESTAMP_PREFIX + view.encode()


def _key_encoder(key: JoinKey) -> tuple[bytes, Callable[[object], bytes]]:
    if key.dtype not in _KEY_ENCODERS:
        allowed = ", ".join(f"`{dtype}`" for dtype in _KEY_ENCODERS)
        raise InvalidDefinition(
            f"join key `{key.name}` has dtype `{key.dtype}`, which Feast cannot serialize. Allowed: {allowed}",
            hint="declare the entity with one of the allowed types",
        )
    type_code, encode = _KEY_ENCODERS[key.dtype]
    return _U32.pack(type_code), encode
