"""What is kept near is never older than the last change that was told, whatever order things happen in."""

import asyncio
import gc
import tracemalloc
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.examples import examples
from skewless.errors import Unavailable
from skewless.features.near_cache import NearCache
from skewless.features.online_store import Invalidate, Reply

LARGE = 1_000_000
AGE_MAX_S = 60.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(slots=True, eq=False)
class _Call:
    keys: Sequence[bytes]
    result: "asyncio.Future[list[Reply]]"


@dataclass(slots=True)
class TrackedServer:
    """A store at the end of a slow wire: every step of every message is taken when the test says so.

    Requests travel in order and so do replies and news of changes, as on one connection in RESP3.
    """

    versions: dict[bytes, int] = field(default_factory=dict)
    requests: deque[_Call] = field(default_factory=deque)
    answered: deque[_Call] = field(default_factory=deque)
    """Calls whose replies are on the wire."""
    wire: deque[Callable[[], None]] = field(default_factory=deque)
    tracked: set[bytes] = field(default_factory=set)
    told: dict[bytes, int] = field(default_factory=dict)
    """The version of each key that the client has been told of, or was bound to read after it lost its tracking."""
    named: dict[bytes, int] = field(default_factory=dict)
    """The version of each key that the client has been told of by name."""
    subscriber: Invalidate | None = None
    commands: list[bytes] = field(default_factory=list)

    async def read_tracked(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        del timeout_s  # whoever plays the wire decides how long it takes
        call = _Call(keys, asyncio.get_running_loop().create_future())
        self.requests.append(call)
        self.commands += commands
        return await call.result

    def subscribe(self, invalidate: Invalidate) -> None:
        self.subscriber = invalidate

    def write(self, key: bytes) -> None:
        version = self.versions[key] = self.versions.get(key, 0) + 1
        if key in self.tracked:
            self.tracked.discard(key)  # a server tells once, until the key is read again
            self.wire.append(lambda: self._tell(key, version))

    def execute(self) -> None:
        """The server takes the next request."""
        if self.requests:
            call = self.requests.popleft()
            self.tracked.update(call.keys)
            replies: list[Reply] = [self.stored(key) for key in call.keys]
            self.answered.append(call)
            self.wire.append(lambda: self._answer(replies))

    def deliver(self) -> None:
        """The client takes the next message from the wire."""
        if self.wire:
            self.wire.popleft()()

    def cut(self) -> None:
        """The connection is gone with all that was on it; the client notices and is connected again."""
        self.wire.clear()
        self.tracked.clear()
        self.told = dict(self.versions)
        assert self.subscriber is not None
        self.subscriber(None)
        for call in (*self.answered, *self.requests):
            if not call.result.done():
                call.result.set_exception(Unavailable("online store", "the connection was cut"))
        self.answered.clear()
        self.requests.clear()

    def stored(self, key: bytes) -> list[bytes | None]:
        version = self.versions.get(key)
        return [None if version is None else b"%d" % version]

    def _answer(self, replies: list[Reply]) -> None:
        call = self.answered.popleft()
        if not call.result.done():
            call.result.set_result(replies)

    def _tell(self, key: bytes, version: int) -> None:
        self.told[key] = max(version, self.told.get(key, 0))
        self.named[key] = max(version, self.named.get(key, 0))
        assert self.subscriber is not None
        self.subscriber([key])


def command_of(key: bytes, plan: int = 0) -> bytes:
    return b"HMGET %b %d" % (key, plan)


def cache_of(server: TrackedServer, clock: Clock | None = None, *, bytes_max: int = LARGE) -> NearCache:
    return NearCache(server, bytes_max=bytes_max, age_max_s=AGE_MAX_S, clock=clock or Clock())


async def settle() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


async def fetch(server: TrackedServer, cache: NearCache, *keys: bytes, plan: int = 0) -> list[Reply]:
    """A read through the cache with a prompt server."""
    task = asyncio.create_task(cache.fetch(keys, [command_of(key, plan) for key in keys], timeout_s=1.0))
    await settle()
    server.execute()
    server.deliver()
    return await task


def kept(cache: NearCache, *keys: bytes, plan: int = 0) -> list[list[bytes | None] | None]:
    return cache.lookup([command_of(key, plan) for key in keys])


async def test_what_was_read_is_kept_and_costs_no_second_read() -> None:
    server = TrackedServer(versions={b"a": 7})
    cache = cache_of(server)
    assert kept(cache, b"a") == [None]
    assert await fetch(server, cache, b"a", b"b") == [[b"7"], [None]]
    assert kept(cache, b"a", b"b", b"c") == [[b"7"], [None], None], "that an entity does not exist is kept as well"
    assert (cache.counters.hits, cache.counters.misses) == (2, 2)


async def test_a_change_that_is_told_drops_every_command_of_its_key_and_nothing_else() -> None:
    server = TrackedServer()
    cache = cache_of(server)
    await fetch(server, cache, b"a", b"b")
    await fetch(server, cache, b"a", plan=1)
    cache.invalidate([b"a", b"unknown"])
    assert kept(cache, b"a", b"b") == [None, [None]]
    assert kept(cache, b"a", plan=1) == [None]
    assert cache.counters.invalidations == 2


async def test_after_tracking_was_lost_nothing_of_before_is_found() -> None:
    server = TrackedServer()
    cache = cache_of(server)
    await fetch(server, cache, b"a", b"b")
    server.cut()
    assert kept(cache, b"a", b"b") == [None, None]
    assert (cache.counters.invalidations, cache.counters.flushes) == (2, 1)
    assert await fetch(server, cache, b"a") == [[None]]
    assert kept(cache, b"a", b"b") == [[None], None]


async def test_what_was_last_known_is_recalled_after_a_loss_and_past_its_age_up_to_the_age_asked_for() -> None:
    server, clock = TrackedServer(versions={b"a": 1, b"b": 2}), Clock()
    cache = cache_of(server, clock)
    await fetch(server, cache, b"a")
    clock.now_s += 5.0
    await fetch(server, cache, b"b")
    server.cut()
    clock.now_s += AGE_MAX_S
    assert kept(cache, b"a", b"b") == [None, None]
    commands = [command_of(key) for key in (b"a", b"b", b"c")]
    assert cache.recall(commands, age_max_s=600.0) == ([[b"1"], [b"2"], None], AGE_MAX_S + 5.0)
    assert cache.recall(commands, age_max_s=AGE_MAX_S) == ([None, [b"2"], None], AGE_MAX_S)
    assert cache.recall(commands, age_max_s=0.0) == ([None, None, None], 0.0)
    assert cache.counters.recalls == 3


async def test_what_is_known_to_have_changed_is_not_recalled() -> None:
    server = TrackedServer(versions={b"a": 1, b"b": 1})
    cache = cache_of(server)
    await fetch(server, cache, b"a", b"b")
    cache.invalidate([b"a"])
    server.cut()
    assert cache.recall([command_of(b"a"), command_of(b"b")], age_max_s=600.0)[0] == [None, [b"1"]]


async def test_a_read_replaces_what_was_last_known_and_takes_no_room_twice() -> None:
    server = TrackedServer(versions={b"a": 1})
    cache = cache_of(server)
    await fetch(server, cache, b"a")
    size = cache.counters.bytes
    server.cut()
    server.write(b"a")
    await fetch(server, cache, b"a")
    assert cache.recall([command_of(b"a")], age_max_s=600.0)[0] == [[b"2"]]
    assert (len(cache), cache.counters.bytes) == (1, size)


@pytest.mark.parametrize("changed", [b"a", None], ids=["its key changed", "tracking was lost"])
async def test_a_reply_whose_change_is_told_before_the_reader_runs_is_handed_on_but_not_kept(
    changed: bytes | None,
) -> None:
    server = TrackedServer(versions={b"a": 1, b"b": 1})
    cache = cache_of(server)
    task = asyncio.create_task(cache.fetch([b"a", b"b"], [command_of(b"a"), command_of(b"b")], timeout_s=1.0))
    await settle()
    server.execute()
    server.deliver()
    cache.invalidate(None if changed is None else [changed])
    assert await task == [[b"1"], [b"1"]]
    assert kept(cache, b"a", b"b") == ([None, None] if changed is None else [None, [b"1"]])


async def test_a_read_that_fails_or_is_cancelled_keeps_nothing_and_leaves_no_trace() -> None:
    server = TrackedServer()
    cache = cache_of(server)
    failing = asyncio.create_task(cache.fetch([b"a"], [command_of(b"a")], timeout_s=1.0))
    await settle()
    server.cut()
    with pytest.raises(Unavailable):
        await failing
    cancelled = asyncio.create_task(cache.fetch([b"a"], [command_of(b"a")], timeout_s=1.0))
    await settle()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    server.execute()
    server.deliver()
    assert kept(cache, b"a") == [None]
    assert not cache._fills


async def test_an_error_for_one_key_is_handed_on_and_not_kept() -> None:
    class Store(TrackedServer):
        def stored(self, key: bytes) -> list[bytes | None]:
            return ValueError("WRONGTYPE") if key == b"bad" else [b"1"]  # type: ignore[return-value]  # a Reply

    server = Store()
    cache = cache_of(server)
    wrong, right = await fetch(server, cache, b"bad", b"good")
    assert isinstance(wrong, ValueError)
    assert right == [b"1"]
    assert kept(cache, b"bad", b"good") == [None, [b"1"]]


async def test_an_answer_is_let_go_at_its_age_counted_from_when_its_read_was_sent() -> None:
    server, clock = TrackedServer(), Clock()
    cache = cache_of(server, clock)
    task = asyncio.create_task(cache.fetch([b"a"], [command_of(b"a")], timeout_s=1.0))
    await settle()
    clock.now_s += 10.0
    server.execute()
    server.deliver()
    await task
    clock.now_s += AGE_MAX_S - 10.0
    assert kept(cache, b"a") == [[None]]
    clock.now_s += 0.001
    assert kept(cache, b"a", b"a") == [None, None]
    assert cache.counters.expirations == 1


async def test_what_was_unused_for_longest_makes_room() -> None:
    server = TrackedServer()
    cache = cache_of(server)
    await fetch(server, cache, b"a")
    size = cache.counters.bytes
    cache = cache_of(server, bytes_max=3 * size)
    for key in (b"a", b"b", b"c"):
        await fetch(server, cache, key)
    kept(cache, b"a")
    await fetch(server, cache, b"d")
    assert kept(cache, b"a", b"b", b"c", b"d") == [[None], None, [None], [None]]
    assert (cache.counters.evictions, cache.counters.bytes) == (1, 3 * size)


async def test_an_answer_larger_than_the_cache_is_not_kept() -> None:
    server = TrackedServer()
    cache = cache_of(server, bytes_max=10)
    assert await fetch(server, cache, b"a") == [[None]]
    assert (len(cache), cache.counters.bytes) == (0, 0)


def test_the_estimate_of_its_bytes_is_what_python_allocates() -> None:
    """Hashes of 3 to 43 values of 5 to 45 bytes, each of their own, as they come from a parser."""
    cache = cache_of(TrackedServer(), bytes_max=10 * LARGE)
    entries = 500
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(entries):
            key = b"%0*d" % (60, number)
            reply: list[bytes | None] = [
                b"%0*d" % (5 + number % 40, number + place) for place in range(3 + number % 40)
            ]
            cache._keep(key, b"HMGET" + key * 6, reply, 0.0)
        gc.collect()
        allocated = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(cache) == entries
    assert 0.85 < cache.counters.bytes / allocated < 1.15


KEYS = [b"k%d" % number for number in range(3)]
STEPS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(KEYS)),
    st.tuples(st.just("read"), st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True)),
    st.tuples(st.just("execute"), st.none()),
    st.tuples(st.just("execute"), st.none()),
    st.tuples(st.just("deliver"), st.none()),
    st.tuples(st.just("deliver"), st.none()),
    st.tuples(st.just("change and deliver"), st.sampled_from(KEYS)),
    st.tuples(st.just("change and cut"), st.sampled_from(KEYS)),
    st.tuples(st.just("run"), st.none()),
    st.tuples(st.just("cut"), st.none()),
    st.tuples(st.just("cancel"), st.none()),
    st.tuples(st.just("age"), st.floats(0.1, AGE_MAX_S)),
)


class _Run:
    """One run of random steps, with what must hold after each."""

    def __init__(self, room: int) -> None:
        self.server = TrackedServer()
        self.clock = Clock()
        self.cache = cache_of(self.server, self.clock, bytes_max=room)
        self.readers: list[asyncio.Task[list[Reply]]] = []

    async def step(self, name: str, argument: object) -> None:
        match name, argument:
            case "write", bytes(key):
                self.server.write(key)
            case "read", list(keys):
                commands = [command_of(key) for key in keys]
                self.readers.append(asyncio.create_task(self.cache.fetch(keys, commands, timeout_s=1.0)))
                await settle()
            case "change and deliver", bytes(key):
                # Replies and the news that they are old come in one piece from the wire, before their readers run.
                self.server.write(key)
                while self.server.wire:
                    self.server.deliver()
            case "change and cut", bytes(key):
                # The news is lost with the connection, after a reply came and before its reader runs.
                self.server.write(key)
                self.server.deliver()
                self.server.cut()
            case "age", float(seconds):
                self.clock.now_s += seconds
            case "cancel", _:
                if self.readers:
                    self.readers[0].cancel()
            case "run", _:
                await settle()
            case _:
                getattr(self.server, name)()

    def check(self) -> None:
        entries = self.cache._entries.values()
        for entry in entries:
            version = int(entry.reply[0] or 0)
            if entry.era == self.cache._era:
                assert version >= self.server.told.get(entry.key, 0), f"{entry.key!r} is older than what was told"
            assert version >= self.server.named.get(entry.key, 0), f"{entry.key!r} is known to have changed"
            assert entry.read_at <= self.clock.now_s
        assert self.cache._found == sum(entry.era == self.cache._era for entry in entries)
        assert self.cache.counters.bytes == sum(entry.size for entry in entries)
        assert {entry.key for entry in entries} == set(self.cache._commands)

    async def quiesce(self) -> None:
        while True:
            await settle()
            if not self.server.requests and not self.server.wire:
                break
            self.server.execute()
            self.server.deliver()
        await asyncio.gather(*self.readers, return_exceptions=True)
        for key, reply in zip(KEYS, kept(self.cache, *KEYS), strict=True):
            assert reply is None or reply == self.server.stored(key), f"{key!r} differs from a direct read"
        assert not self.cache._fills


@given(st.lists(STEPS, max_size=60), st.sampled_from([1_200, LARGE]))
@settings(max_examples=examples(300), deadline=None)
def test_nothing_kept_is_ever_older_than_what_was_told_and_at_rest_it_equals_the_store(
    steps: list[tuple[str, object]], room: int
) -> None:
    async def drive() -> None:
        run = _Run(room)
        for name, argument in steps:
            await run.step(name, argument)
            run.check()
        await run.quiesce()

    asyncio.run(drive())
