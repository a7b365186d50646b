"""Writes rows of one view into the online store, in Feast's bytes and by the one order of rows.

Every row is one script, which the store runs as a whole: it sets all fields of the row where the times of what is
stored are still those that the row was compared with. So a row is there whole or not at all, a newer one is never lost
to an older one whoever else writes, and writing the same rows again changes nothing. What somebody changed between
looking and writing is compared again.

    rows ─▶ winners per entity ─▶ times of what is stored ─▶ which to write ─▶ scripts ─▶ those that lost: again
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.redis_replies import PART, error_word_of
from skewless.errors import Conflict, InvalidRequest, Unavailable
from skewless.features.contract import ViewRead
from skewless.features.feature_rows import FeatureRows
from skewless.features.online_store import Reply
from skewless.features.redis_layout import HashCommand, feature_field, timestamp_field
from skewless.features.row_commands import Pieces, RowPacker, bulk, bulks
from skewless.features.row_order import (
    NO_CREATED_TIME,
    Standing,
    created_times_of,
    layout_of,
    row_time_field,
    standing,
    winners,
)
from skewless.features.value_codec import event_times_of
from skewless.features.value_encoding import stored_values
from skewless.ingest_limits import ONLINE_WRITE_ROUNDS_MAX, ONLINE_WRITE_ROWS, ONLINE_WRITE_TIMEOUT_S

# ARGV: the field of the event time, what it must hold, the field of the row's times, what it must hold (`-` where there
# must be none, which neither field ever holds), seconds to live (0: as before), then names and values of all fields to
# set. Lua unpacks some thousand values at a time and no more.
_SET_WHERE_STILL_SO = """\
local held = redis.call('HMGET', KEYS[1], ARGV[1], ARGV[3])
if (held[1] or '-') ~= ARGV[2] or (held[2] or '-') ~= ARGV[4] then return {0} end
for at = 6, #ARGV, 2000 do redis.call('HSET', KEYS[1], unpack(ARGV, at, math.min(at + 1999, #ARGV))) end
if ARGV[5] ~= '0' then redis.call('EXPIRE', KEYS[1], ARGV[5]) end
return {1}
"""
_DIGEST = hashlib.sha1(_SET_WHERE_STILL_SO.encode(), usedforsecurity=False).hexdigest()
_ABSENT = b"-"
_ABSENT_BULK = bulk(_ABSENT)
_MOSTLY = 0.9
"""From this share of new rows on, the next ones are taken for new: they are written without being looked at first."""


class Written(NamedTuple):
    """How many rows were written, by whether their entity had one, and how many were not, by why not."""

    new: int = 0
    replaced: int = 0
    older: int = 0
    """The stored row is newer."""
    same: int = 0
    """The stored row is this one."""

    @property
    def rows(self) -> int:
        """All of them."""
        return sum(self)

    def plus(self, other: "Written") -> "Written":
        """Both together."""
        return Written(*(mine + its for mine, its in zip(self, other, strict=True)))


class _Found(NamedTuple):
    """What is stored of some entities: replies (rows,) to the fields compared, and how the rows stand against it."""

    times: list[bytes | None]
    row_times: list[bytes | None]
    standing: Standing


class OnlineWriter:
    """Writes rows of `view`, which has all of the view's features under its own join keys.

    One thread at a time; several writers, each with a store of its own, may write one view at once. Memory is bounded
    by what it is given and ONLINE_WRITE_ROWS.
    """

    def __init__(
        self,
        store: BlockingRedisOnlineStore,
        project: str,
        view: ViewRead,
        *,
        lifetime_s: int = 0,
        has_created_time: bool,
    ) -> None:
        """`lifetime_s`: how long a hash lives after a write, 0 for ever. Raises InvalidDefinition for unusable keys.

        `has_created_time`: whether the view's source says when rows became known. Where it does not, of rows with equal
        event times the one that is written last stays.
        """
        self._store = store
        self._view = view
        self._has_created_time = has_created_time
        self._packer = RowPacker.compile(view, project, has_created_time=has_created_time)
        self._layout = layout_of(view)
        time, row_time = timestamp_field(view.field_name), row_time_field(view.field_name)
        features = tuple(feature_field(view.field_name, each.name) for each in view.features)
        fields = (time, row_time) if has_created_time else (time, row_time, *features)
        self._look = HashCommand.compile(fields, hash_size=0)
        self._heads = (bulk(time), bulk(row_time), bulk(str(lifetime_s).encode()))
        self._mostly_new = False
        self._has_set_new = not lifetime_s  # the one command cannot also say how long the hash lives

    def write(self, rows: FeatureRows) -> Written:
        """Write what is newer than what is stored, and say what became of the rows.

        Raises Unavailable; then some may have been written, each whole, and writing all again is right. Raises
        InvalidRequest for a null in a join key, and Conflict where something else than a hash lies under a key.
        """
        return self._through(rows, writes=True)

    def compare(self, rows: FeatureRows) -> Written:
        """What `write` would do; nothing is changed."""
        return self._through(rows, writes=False)

    def _through(self, rows: FeatureRows, *, writes: bool) -> Written:
        for name, column in rows.keys.items():
            if not column.valid.all():
                place = int(np.argmin(column.valid))
                raise InvalidRequest(
                    f"join key `{name}` of feature view `{self._view.name}` is null in row {place}",
                    path=name,
                    hint="a row without its entity can be neither stored nor found; leave it out",
                )
        keys = self._packer.keys(rows)
        chosen = winners(keys, rows.event_times, rows.created_times)
        done = Written()
        if len(chosen) < rows.rows:
            done = _superseded(keys, rows, chosen)
            rows, keys = rows.take(chosen), [keys[place] for place in chosen.tolist()]
        for start in range(0, rows.rows, ONLINE_WRITE_ROWS):
            places = np.arange(start, min(start + ONLINE_WRITE_ROWS, rows.rows))
            some = rows.take(places)
            done = done.plus(self._part(some, keys[start : start + ONLINE_WRITE_ROWS], writes=writes))
        return done

    def _part(self, rows: FeatureRows, keys: Sequence[bytes], *, writes: bool) -> Written:
        """Rows of distinct entities, few enough for one exchange."""
        done = Written()
        if writes and self._mostly_new:
            lost = self._set_new(rows, keys)
            done = Written(new=rows.rows - len(lost))
            self._mostly_new = done.new >= _MOSTLY * rows.rows
            rows, keys = rows.take(lost), [keys[place] for place in lost.tolist()]
        for _ in range(ONLINE_WRITE_ROUNDS_MAX):
            if not rows.rows:
                return done
            found = self._found(rows, keys)
            standing = found.standing
            done = done.plus(Written(older=int(standing.older.sum()), same=int(standing.same.sum())))
            places = np.flatnonzero(standing.written)
            lost = self._written(rows, keys, found, places) if writes else places[:0]
            kept = np.setdiff1d(places, lost, assume_unique=True)
            new = int(standing.new[kept].sum())
            self._mostly_new = new >= _MOSTLY * rows.rows
            done = done.plus(Written(new=new, replaced=len(kept) - new))
            rows, keys = rows.take(lost), [keys[place] for place in lost.tolist()]
        raise Unavailable(
            PART,
            f"{rows.rows} rows of feature view `{self._view.name}` are changed by somebody else again and again",
            hint="find out what else writes this view, and run this again",
        )

    def _written(
        self, rows: FeatureRows, keys: Sequence[bytes], found: _Found, places: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Write the rows at some places over what was found, and return those that somebody else changed meanwhile."""
        listed = places.tolist()
        times, row_times = ([_ABSENT if held[each] is None else held[each] for each in listed] for held in found[:2])
        some, some_keys = rows.take(places), [keys[place] for place in listed]
        return places[self._set(some, some_keys, bulks(times), bulks(row_times))]

    def _set_new(self, rows: FeatureRows, keys: Sequence[bytes]) -> NDArray[np.int64]:
        """Set rows of entities of which nothing is stored; the places of those of which something is.

        By one command each where the server has it (Valkey 9, Redis 8), which takes it a fifth of the script's time.
        """
        if self._has_set_new:
            head = b"*%d\r\n" % (5 + 2 * self._packer.fields) + bulk(b"HSETEX")
            tail = bulk(b"FNX") + bulk(b"FIELDS") + bulk(b"%d" % self._packer.fields)
            pieces = [[head + bulk(key) + tail for key in keys], *self._packer.field_pieces(rows)]
            commands = list(map(b"".join, zip(*pieces, strict=True)))
            done = self._store.done(commands, timeout_s=ONLINE_WRITE_TIMEOUT_S)
            if done is not None:
                return np.flatnonzero(~np.array(done, dtype=np.bool_))
            self._has_set_new = False
        absent = [_ABSENT_BULK] * rows.rows
        return self._set(rows, keys, absent, absent)

    def _set(self, rows: FeatureRows, keys: Sequence[bytes], times: Pieces, row_times: Pieces) -> NDArray[np.int64]:
        """Set rows where what is stored has these times, given as arguments; the places of those where it has not."""
        if not keys:
            return np.empty(0, dtype=np.int64)
        time, row_time, lifetime = self._heads
        fields = self._packer.field_pieces(rows)
        fields[0] = [lifetime + each for each in fields[0]]
        compared = [time + first + row_time + second for first, second in zip(times, row_times, strict=True)]
        tails = list(map(b"".join, zip(compared, *fields, strict=True)))
        keyed = [bulk(key) for key in keys]
        head = self._head(b"EVALSHA", _DIGEST.encode())
        replies = self._exchange(keys, [head + key + tail for key, tail in zip(keyed, tails, strict=True)])
        unknown = [place for place, reply in enumerate(replies) if _is_unknown_script(reply)]
        if unknown:  # a server that has not seen the script yet, or has started anew since
            head = self._head(b"EVAL", _SET_WHERE_STILL_SO.encode())
            commands = [head + keyed[place] + tails[place] for place in unknown]
            for place, reply in zip(unknown, self._exchange([keys[each] for each in unknown], commands), strict=True):
                replies[place] = reply
        return np.array([place for place, reply in enumerate(replies) if not self._was_set(reply)], dtype=np.int64)

    def _head(self, command: bytes, script: bytes) -> bytes:
        arguments = 3 + 1 + 5 + 2 * self._packer.fields
        return b"*%d\r\n" % arguments + bulk(command) + bulk(script) + bulk(b"1")

    def _found(self, rows: FeatureRows, keys: Sequence[bytes]) -> _Found:
        """What is stored of the rows' entities."""
        replies = self._exchange(keys, [self._look.pack(key) for key in keys])
        held = [self._hash(reply) for reply in replies]
        times, row_times = [each[0] for each in held], [each[1] for each in held]
        event_times, faults = event_times_of(times)
        absent = np.fromiter((each is None for each in times), dtype=np.bool_, count=len(times))
        absent[[place for place, _ in faults]] = True  # what nobody can read is no row
        if self._has_created_time:
            created, equal = created_times_of(row_times, event_times, self._layout)
        else:
            created = np.full(rows.rows, NO_CREATED_TIME, dtype=np.int64)
            equal = self._equal_values(rows, [each[2:] for each in held])
        stood = standing((rows.event_times, rows.created_times), (event_times, created), absent=absent, equal=equal)
        return _Found(times, row_times, stood)

    def _equal_values(self, rows: FeatureRows, held: Sequence[Sequence[bytes | None]]) -> NDArray[np.bool_]:
        """Which rows' values are what is stored, byte for byte."""
        columns = [stored_values(rows.values[each.name], each.feast_type) for each in self._view.features]
        return np.array([list(mine) == list(its) for mine, its in zip(zip(*columns, strict=True), held, strict=True)])

    def _exchange(self, keys: Sequence[bytes], commands: Sequence[bytes]) -> list[Reply]:
        return self._store.read(keys, commands, timeout_s=ONLINE_WRITE_TIMEOUT_S)

    def _hash(self, reply: Reply) -> list[bytes | None]:
        if isinstance(reply, Exception):
            raise self._no_hash(reply)
        return list(reply)

    def _was_set(self, reply: Reply) -> bool:
        if isinstance(reply, Exception):
            raise self._no_hash(reply)
        return bool(reply[0])

    def _no_hash(self, error: Exception) -> Conflict:
        """Names no entity: it is kept with batches and runs, audited and logged, where a deletion reaches nothing."""
        return Conflict(
            f"an entity of feature view `{self._view.name}` cannot be written: {error}",
            hint="something else than a hash lies under its key: find keys of another kind with `redis-cli --scan "
            "--type string` (list, set, zset, stream), remove them, or give the store to this project alone",
        )


def _superseded(keys: Sequence[bytes], rows: FeatureRows, chosen: NDArray[np.int64]) -> Written:
    """Rows that another row of the same call wins over: older than it, or the same."""
    winner = {keys[place]: place for place in chosen.tolist()}
    beaten = np.setdiff1d(np.arange(rows.rows), chosen, assume_unique=True)
    of = np.array([winner[keys[place]] for place in beaten.tolist()], dtype=np.int64)
    tied = (rows.event_times[beaten] == rows.event_times[of]) & (rows.created_times[beaten] == rows.created_times[of])
    same = int(tied.sum())
    return Written(older=len(beaten) - same, same=same)


def _is_unknown_script(reply: Reply) -> bool:
    return isinstance(reply, Exception) and error_word_of(reply) == "NOSCRIPT"
