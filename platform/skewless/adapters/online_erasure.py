"""Takes rows of chosen entities out of the online store: each hash by one compare-and-remove, and then its history.

Where the entities are named by all join keys of the views, their keys are built, in every type that the values can
have, so that what lies under another type is found as well. Where they are named by a part, all keys of the project are
gone through. A row that is newer than the deletion stays; a hash of which nothing is kept goes whole, with fields that
nobody reads. Gateways that keep hashes near are told of it as of any change.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skewless.adapters.online_rows import HashChange, Held, change_hashes
from skewless.adapters.online_scan import OnlineScan
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.redis_replies import packed
from skewless.dtypes import Dtype
from skewless.errors import Conflict
from skewless.features.chosen_entities import ChosenEntities
from skewless.features.contract import JoinKey, ViewRead
from skewless.features.redis_layout import KeyTemplate, StoredKey, stored_key
from skewless.features.row_order import NO_CREATED_TIME, created_times_of, layout_of, row_time_field
from skewless.features.stored_hashes import Fields
from skewless.features.value_codec import event_times_of
from skewless.ingest_limits import ERASURE_TRIES
from skewless.monitor_limits import REPAIR_TIMEOUT_S

OTHER_FIELDS = "fields that no view reads"
"""Under what rows are counted that belong to no view."""


@dataclass(frozen=True, slots=True)
class ErasedViews:
    """What is meant: rows of `views` that were known until `before` (µs).

    `all` are the project's views by name in the store; where all of them are meant (`whole`), what no view reads goes
    as well. Without a created time a row is known at its event time; with `undated_go` it is meant whatever that is.
    """

    all: Mapping[str, ViewRead]
    views: frozenset[str]
    whole: bool
    before: int
    undated_go: bool = False


@dataclass(frozen=True, slots=True)
class _Found:
    """What goes of one hash: fields with what they hold, and how many rows that is by view."""

    change: HashChange
    rows: Counter[str]


class OnlineErasure:
    """Counts and takes out rows of one project. Raises Unavailable where the store does not answer."""

    def __init__(
        self,
        store: BlockingRedisOnlineStore,
        project: str,
        entities: ChosenEntities,
        meant: ErasedViews,
        scan: Callable[[], OnlineScan],
    ) -> None:
        """`scan` is asked for only where keys have to be gone through; what it raises is raised."""
        self._store = store
        self._project = project
        self._entities = entities
        self._meant = meant
        self._scan = scan
        self._fields = {name: Fields.of(view).names for name, view in meant.all.items()}

    def look(self) -> dict[str, int]:
        """Rows by view, of those that have any."""
        return dict(sum((found.rows for part in self._keys() for found in self._found(part)), Counter[str]()))

    def erase(self) -> dict[str, int]:
        """Take them out, and return how many there were by view. Raises Conflict where one is changed all the time."""
        gone: Counter[str] = Counter()
        for part in self._keys():
            waiting: Sequence[bytes] = part
            for _ in range(ERASURE_TRIES):
                found = self._found(waiting)
                if not found:
                    break
                done = change_hashes(self._store, [each.change for each in found])
                for each, is_done in zip(found, done, strict=True):
                    gone += each.rows if is_done else Counter()
                waiting = [each.change.key for each, is_done in zip(found, done, strict=True) if not is_done]
            else:
                raise Conflict("an entity is written again and again", hint="stop its writer meanwhile")
        return dict(gone)

    def _keys(self) -> Iterator[list[bytes]]:
        """The keys of the entities' hashes, in parts."""
        yield self._built_keys()
        names = set(self._entities.keys)
        if any(names < {key.key_name for key in view.join_keys} for view in self._meant.all.values()):
            for part in self._scan().parts():
                yield [key for key, told in part if len(told.names) > len(names) and are_told(self._entities, told)]

    def _built_keys(self) -> list[bytes]:
        found: dict[bytes, None] = {}
        for dtypes in itertools.product(*(self._entities.forms(name).items() for name in self._entities.names)):
            join_keys = tuple(
                JoinKey(name, dtype) for name, (dtype, _) in zip(self._entities.names, dtypes, strict=True)
            )
            template = KeyTemplate.compile(join_keys, self._project)
            values = {key.name: value for key, (_, value) in zip(join_keys, dtypes, strict=True)}
            entity = tuple(values[name] for name in template.names)
            found.update(dict.fromkeys(template.keys([entity if len(entity) > 1 else entity[0]])))
        return list(found)

    def _found(self, keys: Sequence[bytes]) -> list[_Found]:
        """What is to be taken out of some hashes, of those where there is anything."""
        commands = [packed("HGETALL", key) for key in keys]
        replies = self._store.read(keys, commands, timeout_s=REPAIR_TIMEOUT_S)
        found = []
        for key, reply in zip(keys, replies, strict=True):
            if isinstance(reply, Exception) or not reply:
                continue
            held = _pairs(reply)
            rows, fields = self._chosen(held)
            if fields:
                found.append(_Found(HashChange(key, fields, {}), rows))
        return found

    def _chosen(self, held: Mapping[bytes, bytes]) -> tuple[Counter[str], Held]:
        """Rows by view, and the fields that go of a hash."""
        rows: Counter[str] = Counter()
        gone: dict[bytes, bytes | None] = {}
        known: set[bytes] = set()
        for name, fields in self._fields.items():
            own = [each for each in (*fields, row_time_field(name)) if each in held]
            known.update(own)
            if own and name in self._meant.views and self._is_old(name, fields[0], held):
                gone.update({each: held[each] for each in own})
                rows[name] += 1
        others = {field: value for field, value in held.items() if field not in known} if self._meant.whole else {}
        if others:
            rows[OTHER_FIELDS] += 1
        return rows, {**gone, **others}

    def _is_old(self, name: str, time_field: bytes, held: Mapping[bytes, bytes]) -> bool:
        """Whether a row was known until the deletion; of one whose times cannot be read nobody can say otherwise."""
        event_times, _ = event_times_of([held.get(time_field)])
        layout = layout_of(self._meant.all[name])
        created, _ = created_times_of([held.get(row_time_field(name))], event_times, layout)
        if created[0] == NO_CREATED_TIME:
            return self._meant.undated_go or int(event_times[0]) <= self._meant.before
        return int(created[0]) <= self._meant.before


def are_told(entities: ChosenEntities, told: StoredKey) -> bool:
    """Whether a stored key is one of theirs: it has their join keys, and perhaps more, with their values."""
    held = {name: (kind, value) for name, kind, value in zip(told.names, told.types, told.values, strict=True)}
    return all(
        held.get(name) in [_encoded(name, dtype, value) for dtype, value in entities.forms(name).items()]
        for name in entities.names
    )


def _pairs(reply: Any) -> dict[bytes, bytes]:
    """A map as either version of the protocol tells it."""
    return dict(reply.items()) if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))


def _encoded(name: str, dtype: Dtype, value: object) -> tuple[int, bytes]:
    """Feast's number of a value's type, and its bytes within a stored key."""
    told = stored_key(KeyTemplate.compile((JoinKey(name, dtype),), "-").keys([value])[0])
    assert told is not None, "what is built here is a stored key"
    return told.types[0], told.values[0]
