"""What the hashes of one project's entities may hold, and what of a hash nobody reads any more.

Feast never takes anything out of a hash: fields of renamed and dropped features stay, and so do whole hashes whose join
keys changed their type or are gone. A hash is known by the names and types of the join keys in its key.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from skewless.features.contract import JoinKey, ViewRead
from skewless.features.redis_layout import TIMESTAMP_PREFIX, StoredKey, feature_field, key_types, timestamp_field
from skewless.features.row_order import ROW_TIME_PREFIX

_HASHED_BYTES = 4
_Kind = tuple[tuple[str, ...], tuple[int, ...]]


class Leftover(StrEnum):
    """Why nobody reads a field or a hash."""

    FIELD = "orphan_field"
    """No view has such a feature for these join keys."""
    ENTITY = "orphan_entity"
    """No view has these join keys."""
    KEY_TYPE = "entity_key_type"
    """Views have these join keys, of other types: whoever reads looks elsewhere."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields that one view keeps in the hashes of its entities."""

    join_keys: tuple[JoinKey, ...]
    names: tuple[bytes, ...]

    @classmethod
    def of(cls, view: ViewRead) -> "Fields":
        """Event time first, then the features in order."""
        features = (feature_field(view.field_name, each.name) for each in view.features)
        return cls(view.join_keys, (timestamp_field(view.field_name), *features))

    @classmethod
    def named(cls, stored_name: str, features: Iterable[str], join_keys: tuple[JoinKey, ...]) -> "Fields":
        """Of what is stored like a view under a name: an on-demand view's results, an older version."""
        names = (feature_field(stored_name, each) for each in features)
        return cls(join_keys, (timestamp_field(stored_name), *names))


class KnownHashes:
    """Every field that some reader of a project may ask for."""

    def __init__(self, fields: Iterable[Fields], everywhere: Iterable[bytes] = ()) -> None:
        """`everywhere` are fields that any hash may have, such as Feast's precomputed vectors."""
        self._everywhere = frozenset(everywhere)
        self._fields: dict[_Kind, set[bytes]] = {}
        for each in fields:
            times = {name.replace(TIMESTAMP_PREFIX, ROW_TIME_PREFIX, 1) for name in each.names if _is_time(name)}
            self._fields.setdefault(key_types(each.join_keys), set()).update(each.names, times)
        self._names = {names for names, _ in self._fields}

    def why_unread(self, key: StoredKey) -> Leftover | None:
        """Why nobody reads the hash under a key; None where somebody may."""
        if (key.names, key.types) in self._fields:
            return None
        return Leftover.KEY_TYPE if key.names in self._names else Leftover.ENTITY

    def orphans(self, key: StoredKey, held: Iterable[bytes]) -> list[bytes]:
        """The fields of Feast's making, and of ours beside them, that nobody reads of a hash, in their order.

        All where nobody reads the hash.
        """
        known = self._fields.get((key.names, key.types))
        read = frozenset() if known is None else known | self._everywhere
        return [each for each in held if each not in read and _is_feasts_or_ours(each)]


def _is_time(field: bytes) -> bool:
    return field.startswith(TIMESTAMP_PREFIX)


def _is_feasts_or_ours(field: bytes) -> bool:
    return len(field) == _HASHED_BYTES or field.startswith((TIMESTAMP_PREFIX, ROW_TIME_PREFIX))
