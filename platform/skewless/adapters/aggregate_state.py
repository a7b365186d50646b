"""States of a stream's entities in the online store, with the timers that say when each has something to do.

    skewless:aggregates:{<project>/<stream>/<bucket>}:<entity key>:state    hash: k, the moment it stands at; s, bytes
    skewless:aggregates:{<project>/<stream>/<bucket>}:due                   sorted set: entity key by when it is due
    skewless:aggregates:{<project>/<stream>}:lane                           hash: known, digest, step

An entity lies in one of AGGREGATE_BUCKETS, all of whose keys have one hash tag, so that a cluster keeps them together:
state and timer change in one script, where the state is still the one that was read. None of these keys can be taken
for one of Feast's, whose names begin with a small binary number.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.redis_replies import packed
from skewless.aggregates.declaration import StreamAggregates
from skewless.canonical_json import Digest
from skewless.errors import Conflict
from skewless.features.online_store import Reply
from skewless.ingest_limits import (
    AGGREGATE_BUCKETS,
    AGGREGATE_COMMAND_ENTITIES,
    AGGREGATE_STATE_TIMEOUT_S,
    AGGREGATE_STEP_ENTITIES,
)

# KEYS: state, timers. ARGV: the moment that the state must stand at (`-`: there must be none), entity key, then the new
# moment, the new state and when it is due; without these it is forgotten.
_CHANGE = """\
if (redis.call('HGET', KEYS[1], 'k') or '-') ~= ARGV[1] then return {0} end
if #ARGV == 2 then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[2])
else
  redis.call('HSET', KEYS[1], 'k', ARGV[3], 's', ARGV[4])
  redis.call('ZADD', KEYS[2], ARGV[5], ARGV[2])
end
return {1}
"""
_FORGET = "return {redis.call('DEL', KEYS[1]), redis.call('ZREM', KEYS[2], ARGV[1])}"
_SET_LANE = "redis.call('DEL', KEYS[1]) redis.call('HSET', KEYS[1], unpack(ARGV)) return {1}"
_DROP_LANE = "return {redis.call('DEL', KEYS[1])}"
_ABSENT = b"-"
_SUFFIX = b":state"


class TimerStep(msgspec.Struct, frozen=True, array_like=True):
    """Timers that are being answered: of one bucket those up to the last one taken, at the moment `known` (µs)."""

    known: int
    bucket: int
    last_due: int
    last_key: bytes


@dataclass(frozen=True, slots=True)
class LaneRecord:
    """How far a stream has come: all of it is done up to `known` (µs), by declaration `digest`.

    `step` is what was begun and may be half done; None where nothing was.
    """

    known: int
    digest: Digest
    step: TimerStep | None = None


@dataclass(frozen=True, slots=True)
class StoredState:
    """An entity's state as it was read: the moment that it stands at as text, and its bytes; both None for none."""

    known: bytes | None
    data: bytes | None


@dataclass(frozen=True, slots=True)
class StateChange:
    """What an entity's state becomes; `data` None: it is forgotten. `due` is when its timer goes off (µs)."""

    key: bytes
    read: StoredState
    known: int
    data: bytes | None
    due: int


class AggregateStates:
    """States of one stream. Entities are named by their keys in Feast's form. Every method raises Unavailable."""

    def __init__(self, store: BlockingRedisOnlineStore, project: str, declaration: StreamAggregates) -> None:
        """Nothing is connected yet."""
        self._store = store
        self._names = f"{project}/{declaration.name}".encode()
        self._lane = b"skewless:aggregates:{%b}:lane" % self._names

    def lane(self) -> LaneRecord | None:
        """How far the stream has come; None where the store knows nothing of it."""
        ((known, digest, step),) = self._asked([self._lane], [packed("HMGET", self._lane, "known", "digest", "step")])
        if known is None or digest is None:
            return None
        return LaneRecord(
            int(known), Digest(digest.decode()), msgspec.msgpack.decode(step, type=TimerStep) if step else None
        )

    def set_lane(self, record: LaneRecord) -> None:
        """Note how far the stream has come."""
        step = b"" if record.step is None else msgspec.msgpack.encode(record.step)
        arguments = ("known", record.known, "digest", record.digest, "step", step)
        self._asked([self._lane], [packed("EVAL", _SET_LANE, 1, self._lane, *arguments)])

    def drop_lane(self) -> None:
        """Forget how far the stream has come, so that states are made anew before anything else."""
        self._asked([self._lane], [packed("EVAL", _DROP_LANE, 1, self._lane)])

    def read(self, keys: Sequence[bytes]) -> list[StoredState]:
        """The states of entities, in their order."""
        found = []
        for start in range(0, len(keys), AGGREGATE_COMMAND_ENTITIES):
            state_keys = [self._state_key(each) for each in keys[start : start + AGGREGATE_COMMAND_ENTITIES]]
            commands = [packed("HMGET", each, "k", "s") for each in state_keys]
            found += [StoredState(known, data) for known, data in self._asked(state_keys, commands)]
        return found

    def change(self, changes: Sequence[StateChange]) -> None:
        """Change states. Raises Conflict where one is another than was read; then some have been changed."""
        for start in range(0, len(changes), AGGREGATE_COMMAND_ENTITIES):
            some = changes[start : start + AGGREGATE_COMMAND_ENTITIES]
            state_keys = [self._state_key(each.key) for each in some]
            commands = [self._command(key, each) for key, each in zip(state_keys, some, strict=True)]
            if not all(done for (done,) in self._asked(state_keys, commands)):
                raise Conflict(
                    "states of the stream's entities were changed by somebody else meanwhile",
                    hint="let one process at a time compute a stream; it goes on by itself",
                )

    def due(self, until: int) -> list[tuple[int, list[tuple[bytes, int]]]]:
        """Timers that go off by a moment (µs): per bucket the first AGGREGATE_STEP_ENTITIES, (entity key, when)."""
        buckets = range(AGGREGATE_BUCKETS)
        keys = [self._due_key(bucket) for bucket in buckets]
        commands = [
            packed("ZRANGEBYSCORE", key, "-inf", until, "WITHSCORES", "LIMIT", 0, AGGREGATE_STEP_ENTITIES)
            for key in keys
        ]
        found = []
        for bucket, reply in zip(buckets, self._asked(keys, commands), strict=True):
            flat = [part for each in reply for part in (each if isinstance(each, list) else [each])]
            timers = [(key, int(float(due))) for key, due in zip(flat[::2], flat[1::2], strict=True)]
            if timers:
                found.append((bucket, timers))
        return found

    def timers(self) -> int:
        """How many entities have a state."""
        keys = [self._due_key(bucket) for bucket in range(AGGREGATE_BUCKETS)]
        commands = [packed("EVAL", "return {redis.call('ZCARD', KEYS[1])}", 1, key) for key in keys]
        return sum(int(count) for (count,) in self._asked(keys, commands))

    def stored_keys(self) -> Iterator[list[bytes]]:
        """The keys of all entities with a state, in parts; one that changes meanwhile comes at least once."""
        for bucket in range(AGGREGATE_BUCKETS):
            key, cursor = self._due_key(bucket), b"0"
            while True:
                command = packed("ZSCAN", key, cursor, "COUNT", AGGREGATE_STEP_ENTITIES)
                ((cursor, found),) = self._asked([key], [command])
                flat = [part for each in found for part in (each if isinstance(each, list) else [each])]
                if flat:
                    yield flat[::2]
                if cursor == b"0":
                    break

    def forget(self, keys: Sequence[bytes]) -> int:
        """Remove the states and timers of entities, and say how many there were."""
        gone = 0
        for start in range(0, len(keys), AGGREGATE_COMMAND_ENTITIES):
            some = keys[start : start + AGGREGATE_COMMAND_ENTITIES]
            state_keys = [self._state_key(each) for each in some]
            commands = [
                packed("EVAL", _FORGET, 2, state_key, self._due_key(bucket_of(key)), key)
                for state_key, key in zip(state_keys, some, strict=True)
            ]
            gone += sum(int(state) for state, _ in self._asked(state_keys, commands))
        return gone

    def _command(self, state_key: bytes, change: StateChange) -> bytes:
        read = _ABSENT if change.read.known is None else change.read.known
        new = () if change.data is None else (change.known, change.data, change.due)
        return packed("EVAL", _CHANGE, 2, state_key, self._due_key(bucket_of(change.key)), read, change.key, *new)

    def _state_key(self, key: bytes) -> bytes:
        return self._bucket(bucket_of(key)) + key + _SUFFIX

    def _due_key(self, bucket: int) -> bytes:
        return self._bucket(bucket) + b"due"

    def _bucket(self, bucket: int) -> bytes:
        return b"skewless:aggregates:{%b/%d}:" % (self._names, bucket)

    def _asked(self, keys: Sequence[bytes], commands: Sequence[bytes]) -> list[Any]:
        replies = self._store.read(keys, commands, timeout_s=AGGREGATE_STATE_TIMEOUT_S)
        return [_checked(key, reply) for key, reply in zip(keys, replies, strict=True)]


def bucket_of(key: bytes) -> int:
    """The part of the stream that an entity is kept in.

    >>> bucket_of(b"entity")
    8
    """
    return zlib.crc32(key) % AGGREGATE_BUCKETS


def _checked(key: bytes, reply: Reply) -> Any:
    if isinstance(reply, Exception):
        raise Conflict(
            f"`{key!r}` of the online store is no state of a stream: {reply}",
            hint="something else lies under its key; remove it, or give the store to this project alone",
        )
    return reply
