"""A store that is away costs nobody a wait, and is back within a moment of answering again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from harness.fakes import FakeOnlineStore
from harness.polling import until
from skewless.errors import DeadlineExceeded, Unavailable
from skewless.features.online_store import Reply
from skewless.serving.circuit import FAILURES_MAX, PAUSE_MAX_S, CircuitState
from skewless.serving.guarded_store import SLOW_MIN_S, GuardedStore

KEYS = [b"k"]
COMMANDS = [b"*3\r\n$5\r\nHMGET\r\n$1\r\nk\r\n$1\r\nf\r\n"]
GONE = Unavailable("online store", "gone")


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class CountedStore(FakeOnlineStore):
    """Counts what reaches it; `hangs` lets no PING be answered."""

    def __init__(self) -> None:
        super().__init__({b"k": {b"f": b"v"}})
        self.pings = 0
        self.hangs = False

    async def ping(self) -> None:
        self.pings += 1
        if self.hangs:
            raise DeadlineExceeded("online store", "no answer within 1000 ms")
        await super().ping()


async def read(guarded: GuardedStore, *, timeout_s: float = 1.0) -> Sequence[Reply]:
    return await guarded.read(KEYS, COMMANDS, timeout_s=timeout_s)


async def fail(guarded: GuardedStore, times: int = FAILURES_MAX, *, timeout_s: float = 1.0) -> None:
    for _ in range(times):
        with pytest.raises(Unavailable):
            await read(guarded, timeout_s=timeout_s)


@asynccontextmanager
async def tended(guarded: GuardedStore) -> AsyncIterator[None]:
    task = asyncio.create_task(guarded.run())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_store_that_failed_some_times_in_a_row_is_not_asked_any_more_and_the_refusal_says_why() -> None:
    store, clock = CountedStore(), Clock()
    guarded = GuardedStore(store, clock=clock)
    assert await read(guarded) == [[b"v"]]
    store.failure = GONE
    await fail(guarded)
    asked = len(store.reads)
    with pytest.raises(Unavailable, match=r"left alone until it answers again .*gone") as caught:
        await read(guarded)
    with pytest.raises(Unavailable):
        await guarded.read_tracked(KEYS, COMMANDS, timeout_s=1.0)
    assert len(store.reads) == asked
    assert caught.value.retry_after_s > 0
    assert (guarded.state, guarded.openings) == (CircuitState.OPEN, 1)


async def test_an_answer_forgets_earlier_failures() -> None:
    store = CountedStore()
    guarded = GuardedStore(store, clock=Clock())
    for _ in range(3):
        store.failure = GONE
        await fail(guarded, FAILURES_MAX - 1)
        store.failure = None
        assert await read(guarded) == [[b"v"]]
    assert guarded.openings == 0


async def test_tracked_reads_and_others_speak_of_one_store() -> None:
    store = CountedStore()
    guarded = GuardedStore(store, clock=Clock())
    store.failure = GONE
    for _ in range(FAILURES_MAX):
        with pytest.raises(Unavailable):
            await guarded.read_tracked(KEYS, COMMANDS, timeout_s=1.0)
    assert guarded.state is CircuitState.OPEN


async def test_callers_in_a_hurry_cannot_have_the_store_taken_for_dead() -> None:
    store = CountedStore()
    guarded = GuardedStore(store, clock=Clock())
    store.slow_s = 60.0
    await fail(guarded, 10 * FAILURES_MAX, timeout_s=SLOW_MIN_S / 2)
    assert guarded.openings == 0
    await fail(guarded, timeout_s=10 * SLOW_MIN_S)
    assert guarded.openings == 1


async def test_it_is_a_ping_that_ends_an_outage_and_no_request_is_the_probe() -> None:
    store, clock = CountedStore(), Clock()
    guarded = GuardedStore(store, clock=clock)
    async with tended(guarded):
        assert store.pings == 0, "a store that answers is not asked whether it does"
        store.failure = GONE
        await fail(guarded)
        await until(lambda: store.pings >= 2)
        clock.now_s += 10 * PAUSE_MAX_S
        asked = len(store.reads)
        with pytest.raises(Unavailable, match="left alone"):
            await read(guarded)
        assert len(store.reads) == asked
        store.failure, store.hangs = None, True
        pings = store.pings
        await until(lambda: store.pings > pings)
        assert guarded.state is not CircuitState.CLOSED
        store.hangs = False
        await until(lambda: guarded.state is CircuitState.CLOSED)
        assert await read(guarded) == [[b"v"]]


async def test_without_a_keeper_a_read_after_the_pause_is_the_probe() -> None:
    store, clock = CountedStore(), Clock()
    guarded = GuardedStore(store, clock=clock)
    store.failure = GONE
    await fail(guarded)
    clock.now_s += PAUSE_MAX_S
    store.failure = None
    assert await read(guarded) == [[b"v"]]
    assert guarded.state is CircuitState.CLOSED


async def test_changes_ping_and_close_reach_the_store_whatever_the_circuit_says() -> None:
    store = CountedStore()
    guarded = GuardedStore(store, clock=Clock())
    heard: list[object] = []
    guarded.subscribe(heard.append)
    store.failure = GONE
    await fail(guarded)
    store.lose_tracking()
    assert heard == [None]
    with pytest.raises(Unavailable, match="gone"):
        await guarded.ping()
    await guarded.close()
    with pytest.raises(Unavailable, match="closed by this process"):
        await guarded.ping()
