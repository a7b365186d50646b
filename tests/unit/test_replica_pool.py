"""Several replicas of a model backend as one: who answers, who is left alone, and when they come back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.fakes import FakeModelBackend
from harness.polling import SOON_S, until
from skewless.errors import BundleRefused, DeadlineExceeded, Unavailable
from skewless.serving.circuit import FAILURES_MAX, PAUSE_MAX_S, PAUSE_MIN_S, Circuit, CircuitState
from skewless.serving.ports import ModelSignature
from skewless.serving.replicas import HEDGE_SHARE_MAX, ReplicaPool

MODEL = "bundle_one"
SIGNATURE = ModelSignature("input", 2, (("sum", 1),))
ROW = np.array([[1.0, 2.0]], dtype=np.float32)


def score(tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    return {"sum": tensor.sum(axis=1, keepdims=True)}


class Replica(FakeModelBackend):
    """A fake that can hold its answers back until it is released."""

    def __init__(self) -> None:
        super().__init__({MODEL: score})
        self.held = asyncio.Event()
        self.held.set()
        self.waiting = 0
        self.cancelled = 0

    async def infer(
        self, model: str, signature: ModelSignature, tensor: NDArray[np.float32], *, timeout_s: float
    ) -> dict[str, NDArray[np.float32]]:
        self.waiting += 1
        try:
            await asyncio.wait_for(self.held.wait(), timeout_s)
        except TimeoutError as error:
            raise DeadlineExceeded("model backend", "no answer in time") from error
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
        return await super().infer(model, signature, tensor, timeout_s=timeout_s)


@asynccontextmanager
async def pool(count: int) -> AsyncIterator[tuple[ReplicaPool, list[Replica]]]:
    replicas = [Replica() for _ in range(count)]
    made = ReplicaPool({f"replica{place}": each for place, each in enumerate(replicas)})
    await made.load(MODEL)
    task = asyncio.create_task(made.run())
    try:
        yield made, replicas
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def ask(made: ReplicaPool, tensor: NDArray[np.float32] = ROW, timeout_s: float = SOON_S) -> float:
    outputs = await made.infer(MODEL, SIGNATURE, tensor, timeout_s=timeout_s)
    return float(outputs["sum"][0, 0])


async def test_the_least_loaded_replica_answers() -> None:
    async with pool(2) as (made, (first, second)):
        first.held.clear()
        second.held.clear()
        large = asyncio.create_task(ask(made, np.repeat(ROW, 100, axis=0)))
        await until(lambda: first.waiting + second.waiting == 1)
        loaded, idle = (first, second) if first.waiting else (second, first)
        small = [asyncio.create_task(ask(made)) for _ in range(5)]
        await until(lambda: idle.waiting == 5)
        assert loaded.waiting == 1
        first.held.set()
        second.held.set()
        assert await asyncio.gather(large, *small) == [3.0] * 6


async def test_a_call_that_a_replica_cannot_answer_is_asked_of_another() -> None:
    async with pool(2) as (made, (first, second)):
        first.failure = Unavailable("model backend", "gone")
        assert [await ask(made) for _ in range(20)] == [3.0] * 20
        assert made.counts.retries <= FAILURES_MAX, "after some failures it is left alone"
        assert second.calls == 20


async def test_a_replica_that_is_back_answers_again_with_its_models() -> None:
    async with pool(2) as (made, (first, _)):
        first.failure = Unavailable("model backend", "gone")
        await until(lambda: made.states()[0].away)
        first.loaded.clear()  # it restarts with nothing loaded
        first.failure = None
        await until(lambda: not made.states()[0].away and MODEL in made.states()[0].models)
        assert MODEL in first.loaded
        before = first.calls
        while first.calls == before:
            assert await ask(made) == 3.0


async def test_a_model_that_a_replica_lost_is_loaded_again() -> None:
    async with pool(1) as (made, (only,)):
        only.loaded.clear()
        with pytest.raises(Unavailable):
            await ask(made)
        await until(lambda: MODEL in only.loaded and MODEL in made.states()[0].models)
        assert await ask(made) == 3.0


async def test_when_nobody_can_answer_it_is_refused_at_once_and_says_why() -> None:
    async with pool(2) as (made, replicas):
        for replica in replicas:
            replica.failure = Unavailable("model backend", "gone")
        await until(lambda: all(each.away for each in made.states()))
        before = [each.calls for each in replicas]
        with pytest.raises(Unavailable, match=r"replica0: .*gone.*replica1"):
            await ask(made)
        assert [each.calls for each in replicas] == before
        with pytest.raises(Unavailable, match="gone"):
            await made.ping()
        assert not await made.is_ready(MODEL)


async def test_a_replica_that_answers_pings_and_no_calls_is_left_alone_and_tried_now_and_then() -> None:
    async with pool(2) as (made, (first, second)):
        first.held.clear()
        for _ in range(2 * FAILURES_MAX):
            with suppress(DeadlineExceeded):
                await ask(made, timeout_s=0.02)
        assert made.states()[0].circuit is not CircuitState.CLOSED
        assert not made.states()[0].away
        first.held.set()

        async def asked() -> bool:
            assert await ask(made) == 3.0
            return made.states()[0].circuit is CircuitState.CLOSED

        async with asyncio.timeout(SOON_S):
            while not await asked():
                pass
        assert second.calls


async def test_a_call_that_takes_unusually_long_is_doubled_and_the_first_answer_counts() -> None:
    async with pool(2) as (made, (first, second)):
        for _ in range(256):
            await ask(made)
        slow, quick = first, second
        slow.held.clear()
        answers = []
        while not made.counts.hedges_won:
            answers.append(await ask(made))
            assert len(answers) < 50
        assert set(answers) == {3.0}
        assert slow.cancelled == made.counts.hedges_won, "the loser is given up"
        assert quick.calls > 0


async def test_doubled_calls_are_bounded_when_everybody_is_slow() -> None:
    async with pool(2) as (made, replicas):
        for _ in range(256):
            await ask(made)
        for replica in replicas:
            replica.held.clear()
        slow = [asyncio.create_task(ask(made)) for _ in range(100)]
        await until(lambda: sum(each.waiting for each in replicas) >= 100)
        # Every one of them has by now been waiting for longer than the hedge's delay, or is about to.
        await asyncio.sleep(0.05)
        for replica in replicas:
            replica.held.set()
        assert await asyncio.gather(*slow) == [3.0] * 100
        assert made.counts.hedges <= HEDGE_SHARE_MAX * made.counts.calls + 1


async def test_what_one_replica_refuses_is_refused() -> None:
    first, second = Replica(), Replica()
    second.repository.clear()
    made = ReplicaPool({"first": first, "second": second})
    with pytest.raises(BundleRefused, match="not in the repository"):
        await made.load(MODEL)


async def test_a_replica_that_is_away_at_first_is_loaded_when_it_is_there() -> None:
    first, second = Replica(), Replica()
    second.failure = Unavailable("model backend", "starting")
    made = ReplicaPool({"first": first, "second": second})
    await made.load(MODEL)
    task = asyncio.create_task(made.run())
    assert await ask(made) == 3.0
    second.failure = None
    await until(lambda: MODEL in made.states()[1].models)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def test_a_circuit_opens_after_failures_in_a_row_and_pauses_longer_each_time() -> None:
    circuit = Circuit()
    now = 0.0
    pauses = []
    for _ in range(8):
        while circuit.state(now) is not CircuitState.OPEN:
            circuit.failed(now)
        pauses.append(circuit.retry_after_s(now))
        now += circuit.retry_after_s(now)
        assert circuit.admits(now)
        assert not circuit.admits(now), "one probe at a time"
    assert pauses[:3] == pytest.approx([PAUSE_MIN_S, 2 * PAUSE_MIN_S, 4 * PAUSE_MIN_S])
    assert max(pauses) == PAUSE_MAX_S
    circuit.succeeded()
    assert circuit.admits(now)
    assert circuit.retry_after_s(now) == 0.0


def test_a_success_forgets_earlier_failures() -> None:
    circuit = Circuit()
    for _ in range(10):
        for _ in range(FAILURES_MAX - 1):
            circuit.failed(1.0)
        circuit.succeeded()
    assert circuit.state(1.0) is CircuitState.CLOSED
