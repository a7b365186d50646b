"""The near cache on a real Valkey: whatever happens to the server or the connection, at rest it equals the store."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from harness.redis_topologies import Server, running_server
from skewless.adapters.redis_online_store import RedisOnlineStore
from skewless.errors import Unavailable
from skewless.features.near_cache import NearCache, NearCacheCounters
from skewless.features.online_store import Reply
from skewless.features.redis_layout import HashCommand
from skewless.stack.ports import free_ports

COMMAND = HashCommand.compile((b"version",), hash_size=0)
KEYS = [b"hot:%d" % number for number in range(40)]
BARRIER = b"barrier"
TIMEOUT_S = 2.0
PATIENCE_S = 80.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Valkey of this module's own: its clients are killed and its data flushed."""
    with running_server(tmp_path_factory.mktemp("tracked")) as running:
        yield running


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in a server
            await asyncio.sleep(0)


class Traffic:
    """Writers and readers of the same keys, until told to rest."""

    def __init__(self, url: str, cache: NearCache, seed: int) -> None:
        self.rng = random.Random(seed)
        self.cache = cache
        self.writes = 0
        self.reads = 0
        self.unavailable = 0
        self.seen: dict[bytes, int] = {}
        self.backwards: list[tuple[bytes, int, int]] = []
        self._client: Redis = Redis.from_url(url, socket_timeout=TIMEOUT_S)
        self._resting = asyncio.Event()

    async def write(self) -> None:
        while not self._resting.is_set():
            key = self.rng.choice(KEYS)
            try:
                if self.rng.random() < 0.05:
                    await self._client.expire(key, 1_000)  # a change of the key, though of no field
                else:
                    await self._client.execute_command("HINCRBY", key, "version", 1)  # type: ignore[no-untyped-call]
                self.writes += 1
            except RedisError:
                await asyncio.sleep(0)

    async def read(self) -> None:
        while not self._resting.is_set():
            try:
                await self.look(self.rng.sample(KEYS, self.rng.randint(1, 4)))
            except Unavailable:
                self.unavailable += 1
            self.reads += 1
            await asyncio.sleep(0)

    async def look(self, keys: list[bytes]) -> None:
        """One read through the cache, as `FeatureReads` makes it."""
        kept = self.cache.lookup([COMMAND.pack(key) for key in keys])
        # What was kept is told at once: while the rest is fetched, other readers may see newer values of it.
        for key, reply in zip(keys, kept, strict=True):
            if reply is not None:
                self._see(key, reply)
        missing = [key for key, reply in zip(keys, kept, strict=True) if reply is None]
        if missing:
            replies = await self.cache.fetch(missing, [COMMAND.pack(key) for key in missing], timeout_s=TIMEOUT_S)
            for key, fetched in zip(missing, replies, strict=True):
                self._see(key, fetched)

    def _see(self, key: bytes, reply: Reply) -> None:
        assert isinstance(reply, list)
        version = -1 if reply[0] is None else int(reply[0])
        if version < self.seen.get(key, -1):
            self.backwards.append((key, self.seen[key], version))
        self.seen[key] = version

    async def rest(self) -> None:
        self._resting.set()
        await self._client.aclose()


@asynccontextmanager
async def traffic(url: str, seed: int, *, bytes_max: int = 10_000_000) -> AsyncIterator[Traffic]:
    """Two writers and three readers under way; at the end they rest, and the cache is compared with the store."""
    async with Redis.from_url(url) as client:
        await client.flushall()
    store = RedisOnlineStore(url, tracked=True)
    cache = NearCache(store, bytes_max=bytes_max, age_max_s=1_000.0, clock=time.monotonic)
    busy = Traffic(url, cache, seed)
    async with asyncio.TaskGroup() as group:
        for work in (busy.write, busy.write, busy.read, busy.read, busy.read):
            group.create_task(work())
        await _until(lambda: cache.counters.hits > 200 and cache.counters.invalidations > 50)
        yield busy
        done = busy.writes
        await _until(lambda: busy.writes > done + 100)
        await busy.rest()
    try:
        await _compare(url, store, cache)
    finally:
        await store.close()


async def _compare(url: str, store: RedisOnlineStore, cache: NearCache) -> None:
    """News of every write that was acknowledged is on the wire before the reply to a read that is sent after it."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await store.read_tracked([BARRIER], [COMMAND.pack(BARRIER)], timeout_s=TIMEOUT_S)
                break
            except Unavailable:
                await asyncio.sleep(0)
    commands = [COMMAND.pack(key) for key in KEYS]
    kept = cache.lookup(commands)
    stored = await store.read(KEYS, commands, timeout_s=TIMEOUT_S)
    wrong = {key: (near, far) for key, near, far in zip(KEYS, kept, stored, strict=True) if near not in (None, far)}
    assert not wrong


async def test_with_concurrent_writers_nothing_goes_backwards_and_at_rest_all_is_equal(server: Server) -> None:
    async with traffic(server.url, 1) as busy:
        await _until(lambda: busy.reads > 10_000)
    assert busy.backwards == []
    assert busy.unavailable == 0


async def test_what_is_pushed_out_for_room_is_read_again(server: Server) -> None:
    async with traffic(server.url, 2, bytes_max=10_000) as busy:
        await _until(lambda: busy.cache.counters.evictions > 200)
    assert busy.backwards == []
    assert busy.cache.counters.bytes <= 10_000


async def test_a_server_that_forgets_whom_to_tell_says_so(server: Server) -> None:
    """Past `tracking-table-max-keys` a server drops keys from its table, and tells their readers."""
    server.run("CONFIG", "SET", "tracking-table-max-keys", 8)
    try:
        async with traffic(server.url, 3) as busy:
            await _until(lambda: busy.reads > 5_000)
    finally:
        server.run("CONFIG", "SET", "tracking-table-max-keys", 1_000_000)
    assert busy.backwards == []


async def test_killed_connections_lose_nothing_but_what_was_kept(server: Server) -> None:
    async with traffic(server.url, 4) as busy:
        counters = busy.cache.counters
        for _ in range(10):
            flushes = counters.flushes
            await asyncio.to_thread(server.run, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await _until(partial(_more, counters, "flushes", flushes))
            await _until(partial(_more, counters, "hits", counters.hits + 50))
    assert busy.backwards == []


async def test_a_flushed_store_is_seen_empty(server: Server) -> None:
    async with traffic(server.url, 5) as busy:
        flushes = busy.cache.counters.flushes
        await asyncio.to_thread(server.run, "FLUSHALL")
        await _until(lambda: busy.cache.counters.flushes > flushes)


async def test_a_restarted_server_is_read_anew(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    store = RedisOnlineStore(f"redis://127.0.0.1:{port}", tracked=True)
    cache = NearCache(store, bytes_max=1_000_000, age_max_s=1_000.0, clock=time.monotonic)
    command = COMMAND.pack(KEYS[0])
    try:
        async with _started(tmp_path / "before", port) as first:
            await asyncio.to_thread(first.run, "HSET", KEYS[0], "version", "1")
            for _ in range(2):  # what the read that connects gets is not kept: connecting makes tracking new
                assert await cache.fetch([KEYS[0]], [command], timeout_s=TIMEOUT_S) == [[b"1"]]
            assert cache.lookup([command]) == [[b"1"]]
        await _until(lambda: cache.lookup([command]) == [None])
        with pytest.raises(Unavailable):
            await cache.fetch([KEYS[0]], [command], timeout_s=TIMEOUT_S)
        async with _started(tmp_path / "after", port) as second:
            await asyncio.to_thread(second.run, "HSET", KEYS[0], "version", "2")
            assert await _patiently(cache, command) == [[b"2"]]
            await asyncio.to_thread(second.run, "HSET", KEYS[0], "version", "3")
            await _compare(second.url, store, cache)
            assert cache.lookup([command]) == [None], "the new connection is tracked like the old"
    finally:
        await store.close()


def _more(counters: NearCacheCounters, name: str, than: int) -> bool:
    return bool(getattr(counters, name) > than)


@asynccontextmanager
async def _started(folder: Path, port: int) -> AsyncIterator[Server]:
    """A server that is started and stopped from a thread, so that this loop goes on."""
    with ExitStack() as stack:
        yield await asyncio.to_thread(stack.enter_context, running_server(folder, port=port))
        await asyncio.to_thread(stack.close)


async def _patiently(cache: NearCache, command: bytes) -> object:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await cache.fetch([KEYS[0]], [command], timeout_s=TIMEOUT_S)
            except Unavailable:
                await asyncio.sleep(0.01)
