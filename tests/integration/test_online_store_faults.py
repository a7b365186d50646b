"""What breaks around the online store: a fault ends in a typed error in time or is overcome, never in a wrong value."""

import asyncio
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import hiredis
import psutil
import pytest
import redis
import uvloop

from harness.proxies import Proxy, proxied
from harness.redis_topologies import Server, load, running_server, server_spec
from harness.servers import wait_until
from harness.stopped import stop_still
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.redis_online_store import RedisOnlineStore
from skewless.errors import DeadlineExceeded, Unavailable
from skewless.features.online_store import Reply
from skewless.limits import (
    ONLINE_STORE_CALLS_MAX,
    ONLINE_STORE_HEARTBEAT_S,
    ONLINE_STORE_SILENCE_S,
)
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.stack.process import start

ENTITIES = 500
FIELDS = (b"a", b"b", b"c", b"never")
BUSY_S = 20.0
"""How much later than its deadline a test may see an error: the machine may be busy."""


def value(entity: int, field: bytes) -> bytes:
    """What is stored: it names its own place, so that any mix-up shows."""
    return b"%d:%s:" % (entity, field) + b"." * (entity % 97)


def key(entity: int) -> bytes:
    return b"faults:%d" % entity


def command(*parts: bytes) -> bytes:
    packed: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]  # its stub asks for exactly one part
    return packed


COMMANDS = [command(b"HMGET", key(entity), *FIELDS) for entity in range(ENTITIES)]
KEYS = [key(entity) for entity in range(ENTITIES)]
STORED = [[value(entity, field) for field in FIELDS[:-1]] + [None] for entity in range(ENTITIES)]


def fill(server: Server) -> None:
    with server.client() as client, client.pipeline(transaction=False) as pipeline:
        load(
            pipeline,
            {key(entity): {field: value(entity, field) for field in FIELDS[:-1]} for entity in range(ENTITIES)},
        )
        pipeline.execute()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with every entity, for tests that leave it as it was."""
    with running_server(tmp_path_factory.mktemp("faults")) as server:
        fill(server)
        yield server


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A server for one test to ill-treat. Started from a fixture, where no event loop runs."""
    with running_server(tmp_path) as server:
        fill(server)
        yield server


@pytest.fixture
def proxy(shared: Server) -> Iterator[Proxy]:
    with proxied(shared.port) as proxy:
        yield proxy


@asynccontextmanager
async def opened(url: str, *, tracked: bool = False) -> AsyncIterator[RedisOnlineStore]:
    store = RedisOnlineStore(url, tracked=tracked)
    try:
        yield store
    finally:
        await store.close()


async def read(store: RedisOnlineStore, entity: int, timeout_s: float = 5.0) -> Reply:
    (reply,) = await store.read((KEYS[entity],), (COMMANDS[entity],), timeout_s=timeout_s)
    return reply


async def until_read(store: RedisOnlineStore, entity: int, within_s: float = 10.0) -> None:
    """Return once the store answers again, and rightly."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                reply = await read(store, entity, timeout_s=0.5)
            except Unavailable:
                await asyncio.sleep(0.02)
            else:
                assert reply == STORED[entity]
                return


class Clock:
    """Asserts how long something took, in seconds."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def assert_within(self, seconds: float) -> None:
        assert time.monotonic() - self._started < seconds + BUSY_S


async def test_a_server_that_was_killed_is_unavailable_at_once_and_is_found_again(own: Server, tmp_path: Path) -> None:
    async with opened(own.url) as store:
        assert await read(store, 1) == STORED[1]
        own.process.signal_group(signal.SIGKILL)
        wait_until(lambda: own.process.exit_status() is not None, "the server is gone")
        clock = Clock()
        with pytest.raises(Unavailable, match="online store") as caught:
            await read(store, 1)
        assert not isinstance(caught.value, DeadlineExceeded)
        clock.assert_within(0)
        again = start(server_spec(tmp_path, own.port))
        try:
            await until_read(store, 1)
        finally:
            again.stop()


async def test_a_server_that_is_paused_is_left_at_the_deadline_and_used_again_later(own: Server) -> None:
    async with opened(own.url) as store:
        assert await read(store, 1) == STORED[1]
        stop_still(own.process.pid)
        try:
            clock = Clock()
            with pytest.raises(DeadlineExceeded):
                await read(store, 2, timeout_s=0.1)
            clock.assert_within(0.1)
        finally:
            psutil.Process(own.process.pid).resume()
        # The answer that nobody waited for comes now; it must reach nobody.
        replies = await asyncio.gather(*(read(store, entity) for entity in range(3, 50)))
        assert replies == STORED[3:50]
        assert connections(own) == 1, "a short pause is no reason to connect anew"


def connections(server: Server) -> int:
    """Clients of the server but for the one that asks."""
    answer = server.run("INFO", "clients")
    assert isinstance(answer, dict)
    return int(answer["connected_clients"]) - 1


async def test_a_connection_on_which_nothing_comes_any_more_is_cut_and_made_anew(proxy: Proxy) -> None:
    async with opened(proxy.url) as store:
        assert await read(store, 1) == STORED[1]
        proxy.holding = True
        clock = Clock()
        with pytest.raises(DeadlineExceeded):
            await read(store, 2, timeout_s=0.05)
        # One with time to wait outlives the connection: it was never answered, and is sent again over the next.
        patient = asyncio.create_task(read(store, 3, timeout_s=5))
        await asyncio.to_thread(wait_until, lambda: proxy.connections == 2, "it connects anew", timeout_s=5)
        proxy.holding = False
        assert await patient == STORED[3]
        clock.assert_within(ONLINE_STORE_SILENCE_S)


async def test_a_slow_server_keeps_its_connection_and_its_late_answers_to_itself(proxy: Proxy) -> None:
    async with opened(proxy.url) as store:
        assert await read(store, 1) == STORED[1]
        proxy.delay_s = 0.05
        outcomes: Counter[str] = Counter()

        async def one(entity: int) -> None:
            try:
                reply = await read(store, entity, timeout_s=0.01 if entity % 2 else 5.0)
            except DeadlineExceeded:
                outcomes["late"] += 1
            else:
                outcomes["answered"] += 1
                assert reply == STORED[entity]

        await asyncio.gather(*(one(entity) for entity in range(200)))
        assert outcomes["late"] > 50
        assert outcomes["answered"] >= 100
        assert proxy.connections == 1


async def test_an_answer_cut_in_the_middle_is_unavailable_for_everyone_in_flight(proxy: Proxy) -> None:
    sizes = itertools.chain([len(b"+PONG\r\n") + 3_000], itertools.repeat(None))
    proxy.budget = lambda: next(sizes)
    async with opened(proxy.url) as store:
        answers = await asyncio.gather(
            *(store.read(KEYS[first : first + 100], COMMANDS[first : first + 100], timeout_s=5) for first in (0, 100)),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [Unavailable, Unavailable]
        assert proxy.cuts == 1
        assert await store.read(KEYS, COMMANDS, timeout_s=5) == STORED


def test_a_blocking_read_cut_in_the_middle_is_unavailable_and_the_next_is_whole(proxy: Proxy) -> None:
    sizes = itertools.chain([3_000], itertools.repeat(None))
    proxy.budget = lambda: next(sizes)
    store = BlockingRedisOnlineStore(proxy.url)
    with pytest.raises(Unavailable, match="closed the connection"):
        store.read(KEYS[:100], COMMANDS[:100], timeout_s=5)
    assert store.read(KEYS, COMMANDS, timeout_s=5) == STORED
    # Found closed when used: no error, one new connection.
    proxy.cut_all()
    wait_until(lambda: not proxy.open_connections, "the proxy has closed them")
    assert store.read(KEYS, COMMANDS, timeout_s=5) == STORED
    store.close()


def test_a_blocking_read_past_its_deadline_never_hands_its_answer_to_the_next(proxy: Proxy) -> None:
    store = BlockingRedisOnlineStore(proxy.url)
    assert store.read(KEYS[:1], COMMANDS[:1], timeout_s=5) == STORED[:1]
    proxy.holding = True
    clock = Clock()
    with pytest.raises(DeadlineExceeded):
        store.read(KEYS[1:2], COMMANDS[1:2], timeout_s=0.1)
    clock.assert_within(0.1)
    proxy.holding = False
    assert store.read(KEYS[2:3], COMMANDS[2:3], timeout_s=5) == STORED[2:3]
    store.close()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_thousands_of_reads_among_random_cuts_are_each_right_or_unavailable(proxy: Proxy, loop: str) -> None:
    random_cuts, random_reads = random.Random(f"cuts {loop}"), random.Random(f"reads {loop}")
    proxy.budget = lambda: random_cuts.randrange(1, 60_000)
    outcomes: Counter[str] = Counter()

    async def caller(store: RedisOnlineStore, reads: int) -> None:
        for _ in range(reads):
            entities = [random_reads.randrange(ENTITIES) for _ in range(random_reads.choice((1, 1, 3, 10)))]
            timeout_s = random_reads.choice((0.002, 1.0, 1.0))
            try:
                replies = await store.read(
                    [KEYS[each] for each in entities], [COMMANDS[each] for each in entities], timeout_s=timeout_s
                )
            except Unavailable as error:
                outcomes[type(error).__name__] += 1
            else:
                outcomes["right"] += 1
                assert replies == [STORED[each] for each in entities]

    async def run() -> None:
        async with opened(proxy.url) as store:
            await asyncio.gather(*(caller(store, 125) for _ in range(32)))

    (uvloop.run if loop == "uvloop" else asyncio.run)(run())
    assert proxy.cuts > 10, outcomes
    assert outcomes["right"] > 2_000, outcomes
    assert outcomes["Unavailable"] > 10, outcomes


def save_and_stop(folder: Path, port: int) -> None:
    """Leave a dump with every entity where the server of that port looks for one."""
    with running_server(folder, "--appendonly", "no", port=port) as server:
        fill(server)
        server.run("SAVE")


async def test_a_server_that_still_loads_its_data_is_unavailable_and_says_so(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    slow = ("--appendonly", "no", "--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024")
    await asyncio.to_thread(save_and_stop, tmp_path, port)
    process = start(server_spec(tmp_path, port, *slow))
    try:
        async with opened(f"redis://{LOOPBACK}:{port}") as store:
            reason = ""
            async with asyncio.timeout(60):
                while "loading" not in reason:
                    with pytest.raises(Unavailable) as caught:
                        await read(store, 1)
                    reason = caught.value.message
                    await asyncio.sleep(0.02)
            Server(port, process).run("CONFIG", "SET", "key-load-delay", "0")
            await until_read(store, 1)
    finally:
        process.stop()


async def test_a_user_who_may_not_read_is_told_what_is_missing(shared: Server) -> None:
    shared.run("ACL", "SETUSER", "weak", "on", ">weak", "allkeys", "+ping")
    async with opened(f"redis://weak:weak@{LOOPBACK}:{shared.port}") as store:
        await store.ping()
        with pytest.raises(Unavailable, match="NOPERM") as caught:
            await read(store, 1)
        assert "+hmget" in caught.value.hint


@pytest.mark.parametrize("login", ["weak:wrong@", "nobody:x@", ":wrong@"])
async def test_a_wrong_password_is_unavailable_and_never_shown(shared: Server, login: str) -> None:
    shared.run("ACL", "SETUSER", "weak", "on", ">weak", "allkeys", "+ping")
    async with opened(f"redis://{login}{LOOPBACK}:{shared.port}") as store:
        with pytest.raises(Unavailable, match=r"password|logged in") as caught:
            await read(store, 1)
        assert "wrong" not in str(caught.value).replace("WRONGPASS", "")


async def test_a_server_out_of_memory_still_answers_reads(own: Server) -> None:
    async with opened(own.url) as store:
        own.run("CONFIG", "SET", "maxmemory", "1mb")
        with own.client() as client, pytest.raises(redis.exceptions.OutOfMemoryError):
            client.hset("faults:more", "f", "v")
        assert await store.read(KEYS, COMMANDS, timeout_s=5) == STORED


async def test_a_server_that_drops_a_client_whose_answers_are_too_large_is_unavailable(own: Server) -> None:
    async with opened(own.url) as store:
        assert await read(store, 1) == STORED[1]
        own.run("CONFIG", "SET", "client-output-buffer-limit", "normal 16384 0 0")
        large = COMMANDS * 40
        with pytest.raises(Unavailable, match="closed the connection"):
            await store.read(KEYS * 40, large, timeout_s=5)
        assert await read(store, 1) == STORED[1]


async def test_bytes_of_another_protocol_are_unavailable() -> None:
    async def http(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(http, LOOPBACK, 0)
    url = f"redis://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
    async with opened(url) as store:
        with pytest.raises(Unavailable, match="is no Redis server"):
            await read(store, 1)
    blocking = BlockingRedisOnlineStore(url)
    with pytest.raises(Unavailable, match="is no Redis server"):
        await asyncio.to_thread(blocking.read, KEYS[:1], COMMANDS[:1], timeout_s=5)
    server.close()
    await server.wait_closed()


async def test_nobody_listening_is_unavailable_at_once() -> None:
    (port,) = free_ports(1)
    clock = Clock()
    async with opened(f"redis://{LOOPBACK}:{port}") as store:
        with pytest.raises(Unavailable, match="cannot be connected to"):
            await store.ping()
        outcomes = await asyncio.gather(*(read(store, entity) for entity in range(100)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    clock.assert_within(0)


async def test_a_server_that_accepts_and_says_nothing_is_left_at_the_deadline(proxy: Proxy) -> None:
    proxy.holding = True
    async with opened(proxy.url) as store:
        clock = Clock()
        outcomes = await asyncio.gather(
            *(read(store, entity, timeout_s=0.1) for entity in range(50)), return_exceptions=True
        )
        clock.assert_within(0.1)
        assert {type(outcome) for outcome in outcomes} == {DeadlineExceeded}
        assert proxy.connections == 1, "one attempt serves everyone"
        proxy.holding = False
        await until_read(store, 1)


async def test_more_calls_than_the_bound_are_refused_at_once(proxy: Proxy) -> None:
    async with opened(proxy.url) as store:
        assert await read(store, 1) == STORED[1]
        proxy.holding = True
        waiting = [asyncio.create_task(read(store, 1)) for _ in range(ONLINE_STORE_CALLS_MAX)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match=f"owes the answers to {ONLINE_STORE_CALLS_MAX} calls"):
            await read(store, 1)
        proxy.holding = False
        assert await asyncio.gather(*waiting) == [STORED[1]] * ONLINE_STORE_CALLS_MAX


async def test_a_caller_that_is_cancelled_leaves_its_place_and_nothing_else(proxy: Proxy) -> None:
    async with opened(proxy.url) as store:
        assert await read(store, 1) == STORED[1]
        proxy.holding = True
        leaving, staying = (asyncio.create_task(read(store, entity)) for entity in (2, 3))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        proxy.holding = False
        assert await staying == STORED[3]
        assert proxy.connections == 1


async def test_a_tracked_connection_that_is_dead_is_found_though_nobody_reads(proxy: Proxy) -> None:
    lost = asyncio.Event()
    async with opened(proxy.url, tracked=True) as store:
        await store.read_tracked(KEYS[:1], COMMANDS[:1], timeout_s=5)
        store.subscribe(lambda keys: lost.set() if keys is None else None)
        proxy.holding = True
        async with asyncio.timeout(ONLINE_STORE_HEARTBEAT_S + ONLINE_STORE_SILENCE_S + BUSY_S):
            await lost.wait()
        proxy.holding = False
