"""Answers of the online store kept in this process for hot entities, as long as the store says that they hold.

    lookup   the kept reply, without a round trip
    fetch    fill opened ──▶ tracked read ──▶ kept, unless its key changed since the fill was opened
    change   what is kept of the key is dropped, and fills under way for it are spoiled
    loss     nothing kept is found any more, every fill is spoiled
    recall   what was last known, also of before a loss and past its age: for when the store is away

So an answer is kept only if no change was told between the moment its read was sent and now: whatever the order in
which the answer and the news of its change are seen, an answer that has become old is never found here. A reader can
still be ahead of news that is on its way, by a network's delay; and should news be lost without the connection
breaking, an upper age bounds how long an answer lives.

What was told to have changed is not known any more and never recalled. What merely may have changed stays until it is
read again or its room is needed; nobody finds it but who asks for what was last known.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from skewless.features.online_store import Reply, TrackedStore

_ENTRY_BYTES = 450
"""What an entry costs beside its bytes and lists: the entry, its places in two dicts and the set of its key's commands.
Measured with tracemalloc on CPython 3.11 to 3.13 (tests/unit/test_near_cache.py holds the estimate to that)."""

Clock = Callable[[], float]
"""Seconds that only ever grow, such as `time.monotonic`."""


@dataclass(slots=True)
class NearCacheCounters:
    """What happened so far, in entries; `bytes` is what is kept now, as estimated."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    """Dropped for room."""
    invalidations: int = 0
    """Not found any more because the store told of a change, or because tracking was lost."""
    expirations: int = 0
    """Not found any more for age."""
    flushes: int = 0
    """How often tracking was lost."""
    recalls: int = 0
    """Found only because what was last known was asked for."""
    bytes: int = 0


@dataclass(slots=True)
class _Entry:
    key: bytes
    reply: list[bytes | None]
    read_at: float
    """When the read was sent, on the cache's clock: the answer is at least this young."""
    size: int
    era: int
    """How often tracking had been lost when it was kept; -1 once it is too old to be found."""


@dataclass(slots=True, eq=False)
class _Fill:
    """A read under way, and the keys of it that changed since it was sent."""

    keys: frozenset[bytes]
    spoiled: set[bytes]


class NearCache:
    """Reads through a tracked store. Belongs to one event loop; evicts what was unused for longest."""

    def __init__(self, store: TrackedStore, *, bytes_max: int, age_max_s: float, clock: Clock) -> None:
        """Keeps at most about `bytes_max` bytes, each answer for at most `age_max_s` from when its read was sent."""
        self.counters = NearCacheCounters()
        self._store = store
        self._bytes_max = bytes_max
        self._age_max_s = age_max_s
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        """By command: plans that read other fields of a hash have entries of their own. Least recently used first."""
        self._commands: dict[bytes, set[bytes]] = {}
        """Commands kept, by the key that they read."""
        self._fills: set[_Fill] = set()
        self._era = 0
        self._found = 0
        """Entries of this era, which `lookup` would find."""
        store.subscribe(self.invalidate)

    def __len__(self) -> int:
        return len(self._entries)

    def lookup(self, commands: Sequence[bytes]) -> list[list[bytes | None] | None]:
        """The kept reply of each command, None where there is none that is young enough.

        Replies are shared with other readers, so nobody changes them.
        """
        entries = self._entries
        era = self._era
        oldest = self._clock() - self._age_max_s
        found: list[list[bytes | None] | None] = []
        hits = 0
        for command in commands:
            entry = entries.get(command)
            if entry is None or entry.era != era:
                found.append(None)
            elif entry.read_at < oldest:
                entry.era = -1
                self._found -= 1
                self.counters.expirations += 1
                found.append(None)
            else:
                hits += 1
                entries.move_to_end(command)
                found.append(entry.reply)
        self.counters.hits += hits
        self.counters.misses += len(commands) - hits
        return found

    def recall(self, commands: Sequence[bytes], *, age_max_s: float) -> tuple[list[list[bytes | None] | None], float]:
        """What was last known of each command, None where nothing is, and the greatest age among it in seconds.

        Nothing older than `age_max_s` is recalled, counted from when its read was sent.
        """
        now = self._clock()
        found: list[list[bytes | None] | None] = []
        age_s = 0.0
        for command in commands:
            entry = self._entries.get(command)
            if entry is None or now - entry.read_at > age_max_s:
                found.append(None)
                continue
            self._entries.move_to_end(command)
            self.counters.recalls += 1
            age_s = max(age_s, now - entry.read_at)
            found.append(entry.reply)
        return found, age_s

    async def fetch(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        """Read from the store and keep what did not change meanwhile; one reply per command, in order.

        Raises what `read_tracked` raises; then nothing is kept. Errors among the replies are not kept either.
        """
        fill = _Fill(frozenset(keys), set())
        self._fills.add(fill)
        sent_at = self._clock()
        try:
            replies = await self._store.read_tracked(keys, commands, timeout_s=timeout_s)
        finally:
            self._fills.discard(fill)
        for key, command, reply in zip(keys, commands, replies, strict=True):
            if not isinstance(reply, Exception) and key not in fill.spoiled:
                self._keep(key, command, reply, sent_at)
        return replies

    def invalidate(self, keys: Sequence[bytes] | None) -> None:
        """Find these keys no more, or nothing of now where None; reads of them that are under way will not be kept."""
        for fill in self._fills:
            fill.spoiled.update(fill.keys if keys is None else fill.keys.intersection(keys))
        if keys is None:
            self._era += 1
            self.counters.flushes += 1
            self.counters.invalidations += self._found
            self._found = 0
            return
        for key in keys:
            for command in tuple(self._commands.get(key, ())):
                self.counters.invalidations += self._entries[command].era == self._era
                self._drop(command)

    def _keep(self, key: bytes, command: bytes, reply: list[bytes | None], read_at: float) -> None:
        """Keep an answer, and let go of others until all fit. An answer too large to fit is let go itself."""
        if command in self._entries:
            # Another read of the same hash was under way; the one sent later is not the older of the two.
            if self._entries[command].read_at > read_at:
                return
            self._drop(command)
        entry = _Entry(key, reply, read_at, _size(key, command, reply), self._era)
        self._entries[command] = entry
        self._found += 1
        self._commands.setdefault(key, set()).add(command)
        self.counters.bytes += entry.size
        while self.counters.bytes > self._bytes_max:
            self._drop(next(iter(self._entries)))
            self.counters.evictions += 1

    def _drop(self, command: bytes) -> None:
        entry = self._entries.pop(command)
        self._found -= entry.era == self._era
        self.counters.bytes -= entry.size
        of_key = self._commands[entry.key]
        of_key.discard(command)
        if not of_key:
            del self._commands[entry.key]


def _size(key: bytes, command: bytes, reply: list[bytes | None]) -> int:
    """About how many bytes of memory an entry takes: its objects' own sizes and what holds them together."""
    values = sum(sys.getsizeof(value) for value in reply if value is not None)
    return _ENTRY_BYTES + sys.getsizeof(key) + sys.getsizeof(command) + sys.getsizeof(reply) + values
