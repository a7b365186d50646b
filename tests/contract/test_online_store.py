"""The contract of the online store's ports, held by the Redis adapters over every topology, and by the fake."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import hiredis
import pytest
import redis
import uvloop

from harness.fakes import FakeOnlineStore
from harness.proxies import proxied
from harness.redis_topologies import load, make_certificates, running_cluster, running_sentinels, running_server
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.redis_online_store import RedisOnlineStore
from skewless.errors import DeadlineExceeded, Unavailable
from skewless.features.online_store import Reply
from skewless.stack.ports import LOOPBACK

TIMEOUT_S = 5.0
CONNECTED_WITHIN_S = 60.0
HASHES = {
    b"contract:a": {b"\x00\xff": b"one", b"y": b""},
    b"contract:b": {b"x": b"\x20\x00"},
    **{b"contract:%d" % number: {b"f": b"%d" % number} for number in range(100)},
}
NO_HASH = b"contract:text"
PASSWORD = "p@ss,w:rd/%?#"
ENCODED = "p%40ss%2Cw%3Ard%2F%25%3F%23"

TOPOLOGIES = ("single", "unix", "tls", "acl", "cluster", "sentinel")
ADAPTERS = ("asyncio", "tracked", "blocking")
KINDS = pytest.mark.parametrize("kind", ["fake", *(f"{each}-{way}" for each in TOPOLOGIES for way in ADAPTERS)])


class Reads(Protocol):
    async def read(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]: ...


@dataclass(frozen=True, slots=True)
class InThread:
    """A blocking store read as the others are."""

    store: BlockingRedisOnlineStore

    async def read(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        return await asyncio.to_thread(self.store.read, keys, commands, timeout_s=timeout_s)


@dataclass(frozen=True, slots=True)
class Tracked:
    """A store read over its tracked connections."""

    store: RedisOnlineStore

    async def read(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        return await self.store.read_tracked(keys, commands, timeout_s=timeout_s)


Write = Callable[[bytes, Mapping[bytes, bytes]], None]


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores that the tests read: where they are, and clients to write to them, by topology."""

    urls: dict[str, str]
    clients: "dict[str, redis.Redis | redis.RedisCluster]"

    def write(self, topology: str) -> Write:
        """Replaces a hash."""
        return lambda key, fields: load(self.clients[topology], {key: fields})


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """A store of each topology with the same hashes in it."""
    folder = tmp_path_factory.mktemp("topologies")
    with ExitStack() as stack:
        server = stack.enter_context(running_server(folder, "--unixsocket", str(folder / "valkey.sock")))
        certificates = make_certificates(folder)
        tls = stack.enter_context(proxied(server.port, tls=certificates.server_context()))
        sentinels = stack.enter_context(running_sentinels(folder))
        cluster = stack.enter_context(running_cluster(folder))
        # What docs/adr/0011 says a user needs, and nothing more.
        server.run("ACL", "SETUSER", "reader", "on", f">{PASSWORD}", "~contract:*", "+ping", "+hmget", "+hgetall")
        server.run("ACL", "SETUSER", "reader", "+hello", "+client|tracking", "+select")
        one, followed = stack.enter_context(server.client()), stack.enter_context(sentinels.master.client())
        many = stack.enter_context(cluster.client())
        for client in (one, many, followed):
            load(client, HASHES)
            client.set(NO_HASH, "no hash")
        yield Stores(
            {
                "single": server.url,
                "unix": f"unix://{folder / 'valkey.sock'}",
                "tls": f"rediss://{LOOPBACK}:{tls.port}?{certificates.options}",
                "acl": f"redis://reader:{ENCODED}@{LOOPBACK}:{server.port}/0",
                "cluster": cluster.url,
                "sentinel": sentinels.url,
            },
            {"single": one, "tls": one, "acl": one, "cluster": many, "sentinel": followed},
        )


@pytest.fixture
def urls(stores: Stores) -> dict[str, str]:
    """The stores' URLs by topology."""
    return stores.urls


@asynccontextmanager
async def opened(kind: str, urls: dict[str, str]) -> AsyncIterator[Reads]:
    if kind == "fake":
        yield FakeOnlineStore(HASHES)
        return
    topology, adapter = kind.split("-")
    if adapter == "blocking":
        blocking = BlockingRedisOnlineStore(urls[topology])
        try:
            yield InThread(blocking)
        finally:
            blocking.close()
        return
    store = RedisOnlineStore(urls[topology], tracked=adapter == "tracked")
    try:
        yield Tracked(store) if adapter == "tracked" else store
    finally:
        await store.close()


async def first_read(store: Reads) -> None:
    """Have it connected. A busy machine may take longer for that than a store waits, which is not what is looked at."""
    give_up_at_s = time.monotonic() + CONNECTED_WITHIN_S
    while True:
        try:
            await store.read([b"contract:a"], [hmget(b"contract:a", b"y")], timeout_s=TIMEOUT_S)
        except Unavailable:
            if time.monotonic() > give_up_at_s:
                raise
        else:
            return


def hmget(key: bytes, *fields: bytes) -> bytes:
    command: bytes = hiredis.pack_command(("HMGET", key, *fields))  # type: ignore[arg-type]  # stub: one part
    return command


def hgetall(key: bytes) -> bytes:
    command: bytes = hiredis.pack_command(("HGETALL", key))  # type: ignore[arg-type]  # stub: one part
    return command


@KINDS
async def test_values_come_in_the_order_asked_and_none_is_what_does_not_exist(kind: str, urls: dict[str, str]) -> None:
    keys = (b"contract:b", b"contract:nobody", b"contract:a", b"contract:b")
    fields = ((b"x", b"y"), (b"x", b"y"), (b"y", b"\x00\xff", b"x"), (b"x",))
    async with opened(kind, urls) as store:
        commands = [hmget(key, *names) for key, names in zip(keys, fields, strict=True)]
        replies = await store.read(keys, commands, timeout_s=TIMEOUT_S)
    assert replies == [[b"\x20\x00", None], [None, None], [b"", b"one", None], [b"\x20\x00"]]


@KINDS
async def test_a_whole_hash_comes_as_fields_and_values_in_turn(kind: str, urls: dict[str, str]) -> None:
    keys = (b"contract:a", b"contract:nobody", b"contract:b")
    async with opened(kind, urls) as store:
        whole, nothing, one = await store.read(keys, [hgetall(key) for key in keys], timeout_s=TIMEOUT_S)
    assert isinstance(whole, list)
    assert dict(zip(whole[::2], whole[1::2], strict=True)) == HASHES[b"contract:a"]
    assert (nothing, one) == ([], [b"x", b"\x20\x00"])


@KINDS
async def test_many_reads_at_once_do_not_mix(kind: str, urls: dict[str, str]) -> None:
    async with opened(kind, urls) as store:

        async def read(first: int) -> list[Reply]:
            numbers = [(first + step) % 100 for step in range(1 + first % 5)]
            keys = [b"contract:%d" % number for number in numbers]
            replies = await store.read(keys, [hmget(key, b"f") for key in keys], timeout_s=TIMEOUT_S)
            assert replies == [[b"%d" % number] for number in numbers]
            return replies

        await first_read(store)
        # All are waited for: one that a thread still does after another has failed would connect to a closed store.
        answered = await asyncio.gather(*(read(first) for first in range(200)), return_exceptions=True)
    assert [each for each in answered if isinstance(each, BaseException)] == []


@pytest.mark.parametrize("kind", TOPOLOGIES)
def test_uvloop_reads_as_asyncio_does(kind: str, urls: dict[str, str]) -> None:
    async def read() -> list[list[Reply]]:
        keys = [b"contract:%d" % number for number in range(100)]
        commands = [hmget(key, b"f") for key in keys]
        store = RedisOnlineStore(urls[kind], tracked=True)
        try:
            return [
                await store.read(keys, commands, timeout_s=TIMEOUT_S),
                await store.read_tracked(keys, commands, timeout_s=TIMEOUT_S),
            ]
        finally:
            await store.close()

    assert uvloop.run(read()) == [[[b"%d" % number] for number in range(100)]] * 2


@KINDS
async def test_no_commands_have_no_replies(kind: str, urls: dict[str, str]) -> None:
    async with opened(kind, urls) as store:
        assert await store.read([], [], timeout_s=TIMEOUT_S) == []


@KINDS
async def test_no_time_left_is_a_deadline_exceeded(kind: str, urls: dict[str, str]) -> None:
    async with opened(kind, urls) as store:
        with pytest.raises(DeadlineExceeded, match="online store"):
            await store.read((b"contract:b",), (hmget(b"contract:b", b"x"),), timeout_s=0)
        assert await store.read((b"contract:b",), (hmget(b"contract:b", b"x"),), timeout_s=TIMEOUT_S) == [[b"\x20\x00"]]


@pytest.mark.parametrize("kind", [f"{each}-{way}" for each in TOPOLOGIES for way in ADAPTERS])
async def test_an_error_about_one_key_is_that_keys_reply(kind: str, urls: dict[str, str]) -> None:
    keys = (b"contract:1", NO_HASH, b"contract:2")
    async with opened(kind, urls) as store:
        replies = await store.read(keys, [hmget(key, b"f") for key in keys], timeout_s=TIMEOUT_S)
    assert isinstance(replies[1], Exception)
    assert str(replies[1]).startswith("WRONGTYPE ")
    assert replies[::2] == [[b"1"], [b"2"]]


@pytest.mark.parametrize("kind", ["fake", *TOPOLOGIES])
async def test_ping_returns_while_the_store_answers_and_is_refused_once_it_is_closed(
    kind: str, urls: dict[str, str]
) -> None:
    store = FakeOnlineStore(HASHES) if kind == "fake" else RedisOnlineStore(urls[kind])
    await store.ping()
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await store.read((b"contract:b",), (hmget(b"contract:b", b"x"),), timeout_s=TIMEOUT_S)
    with pytest.raises(Unavailable, match="closed"):
        await store.ping()


TRACKED_KINDS = pytest.mark.parametrize("kind", ["fake", "single", "tls", "acl", "cluster", "sentinel"])


class Told:
    """A subscriber that remembers what it was told."""

    def __init__(self) -> None:
        self.keys: set[bytes] = set()
        self.losses = 0
        self._changed = asyncio.Event()

    def __call__(self, keys: Sequence[bytes] | None) -> None:
        self.losses += keys is None
        self.keys |= set(keys or ())
        self._changed.set()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


@TRACKED_KINDS
async def test_a_change_of_a_hash_that_was_read_tracked_is_told(kind: str, stores: Stores) -> None:
    key = b"contract:changing"
    store = FakeOnlineStore(HASHES) if kind == "fake" else RedisOnlineStore(stores.urls[kind], tracked=True)
    write = store.change if isinstance(store, FakeOnlineStore) else stores.write(kind)
    told = Told()
    store.subscribe(told)
    write(key, {b"f": b"1"})
    assert await store.read_tracked((key,), (hmget(key, b"f"),), timeout_s=TIMEOUT_S) == [[b"1"]]
    write(b"contract:another", {b"f": b"1"})
    write(key, {b"f": b"2"})
    await told.wait_until(lambda: bool(told.keys))
    assert told.keys == {key}
    assert await store.read_tracked((key,), (hmget(key, b"f"),), timeout_s=TIMEOUT_S) == [[b"2"]]
    await store.close()


@pytest.mark.parametrize("kind", ["single", "cluster", "sentinel"])
async def test_tracking_that_may_have_missed_something_is_told_as_lost(kind: str, stores: Stores) -> None:
    key = b"contract:flushed"
    store = RedisOnlineStore(stores.urls[kind], tracked=True)
    told = Told()
    store.subscribe(told)
    stores.write(kind)(key, {b"f": b"1"})
    assert await store.read_tracked((key,), (hmget(key, b"f"),), timeout_s=TIMEOUT_S) == [[b"1"]]
    told.losses = 0
    stores.clients[kind].flushall()
    load(stores.clients[kind], HASHES)
    await told.wait_until(lambda: told.losses > 0)
    assert await store.read_tracked((key,), (hmget(key, b"f"),), timeout_s=TIMEOUT_S) == [[None]]
    told.losses = 0
    await store.close()
    assert told.losses > 0


@pytest.mark.parametrize("answer", [b"", b"-LOADING the dataset\r\n", b"no redis at all\r\n"])
def test_a_blocking_connection_whose_start_fails_is_closed(answer: bytes) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        server.settimeout(TIMEOUT_S)
        store = BlockingRedisOnlineStore(f"redis://{LOOPBACK}:{server.getsockname()[1]}")
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(store.read, [b"contract:a"], [hmget(b"contract:a", b"y")], timeout_s=0.3)
            connected, _ = server.accept()
            with connected:
                connected.settimeout(TIMEOUT_S)
                assert connected.recv(100), "the first command"
                connected.sendall(answer)
                assert connected.recv(100) == b"", "closed, without waiting for the store to be"
            with pytest.raises(Unavailable):
                reading.result()
