"""Several replicas of a model backend as one: who answers, who is left alone, and when they come back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.fakes import FakeModelBackend
from harness.polling import SOON_S, until
from skewless.errors import BundleRefused, DeadlineExceeded, Overloaded, Unavailable
from skewless.serving.circuit import FAILURES_MAX, PAUSE_MAX_S, PAUSE_MIN_S, Circuit, CircuitState
from skewless.serving.model_outputs import WrongOutputs
from skewless.serving.ports import ModelSignature
from skewless.serving.replicas import HEDGE_SHARE_MAX, HEDGES_SAVED_MAX, ReplicaPool

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
        self.failing: Exception | None = None
        """Raised by calls alone; it still answers pings."""
        self.failing_every = 0

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
        if self.failing is not None:
            raise self.failing
        outputs = await super().infer(model, signature, tensor, timeout_s=timeout_s)
        if self.failing_every and self.calls % self.failing_every == 0:
            raise Unavailable("model backend", "a bad day")
        return outputs


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
                await ask(made, timeout_s=0.05)
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


async def test_a_replica_is_asked_again_as_soon_as_it_is_ready_and_not_at_the_next_look() -> None:
    """Found by killing two servers one after the other: the second died while the first was ready and not yet asked."""
    first, second = Replica(), Replica()
    made = ReplicaPool({"first": first, "second": second})
    await made.load(MODEL)
    first.failure = Unavailable("model backend", "gone")
    for _ in range(2):
        with suppress(Unavailable):
            await made._look_at(made._replicas[0])
    made._replicas[0].models.clear()
    assert made.states()[0].away
    first.failure = None
    await made.load(MODEL)  # what the route follower does, while nobody tends the replicas
    second.failure = Unavailable("model backend", "gone")
    assert await ask(made) == 3.0
    assert first.calls


async def test_one_look_that_is_answered_late_takes_nobody_away() -> None:
    class Busy(Replica):
        late = 0

        async def ping(self) -> None:
            if self.late:
                self.late -= 1
                raise DeadlineExceeded("model backend", "no answer within 500 ms")
            await super().ping()

        async def is_ready(self, model: str) -> bool:
            return not self.late and await super().is_ready(model)

    busy = Busy()
    made = ReplicaPool({"busy": busy})
    await made.load(MODEL)
    task = asyncio.create_task(made.run())
    busy.late = 1
    made._replicas[0].wake.set()
    assert not await made.is_ready(MODEL), "it did not say so"
    await until(lambda: not busy.late)
    assert await ask(made) == 3.0, "nor did it say that it lost the model"
    busy.late = 1_000
    await until(lambda: made.states()[0].away)
    with pytest.raises(Unavailable, match="does not answer in time"):
        await ask(made)
    busy.late = 0
    await until(lambda: not made.states()[0].away)
    assert await ask(made) == 3.0
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_model_that_a_replica_refuses_does_not_keep_it_from_answering_for_others() -> None:
    async with pool(1) as (made, (only,)):
        only.repository["bundle_two"] = score
        await made.load("bundle_two")
        only.failure = Unavailable("model backend", "gone")
        await until(lambda: made.states()[0].away)
        only.loaded.clear()
        del only.repository["bundle_two"]
        only.failure = None
        await until(lambda: not made.states()[0].away)
        assert await ask(made) == 3.0
        assert made.states()[0].models == {MODEL}


async def test_a_model_that_is_forgotten_is_not_loaded_on_who_comes_back_and_stays_where_it_is() -> None:
    async with pool(1) as (made, (only,)):
        made.forget(MODEL)
        assert MODEL in only.loaded
        only.failure = Unavailable("model backend", "gone")
        await until(lambda: made.states()[0].away)
        only.loaded.clear()
        only.failure = None
        await until(lambda: not made.states()[0].away)
        assert not only.loaded


@pytest.mark.parametrize("error", [WrongOutputs("float32 (1, 3)"), BundleRefused("an exception in the model")])
async def test_what_one_replica_refuses_or_answers_wrongly_is_asked_of_another_and_speaks_against_the_first(
    error: BundleRefused,
) -> None:
    async with pool(2) as (made, (first, second)):
        first.failing = error
        assert [await ask(made) for _ in range(20)] == [3.0] * 20
        assert made.states()[0].openings >= 1
        assert second.calls == 20


async def test_what_all_replicas_refuse_is_the_calls_own_fault_and_speaks_against_nobody() -> None:
    async with pool(2) as (made, replicas):
        for replica in replicas:
            replica.failing = BundleRefused("an exception in the model, at these rows")
        for _ in range(10):
            with pytest.raises(BundleRefused, match="at these rows"):
                await ask(made)
        for replica in replicas:
            replica.failing = None
        assert [each.openings for each in made.states()] == [0, 0]
        assert await ask(made) == 3.0


async def test_a_replica_that_is_full_is_passed_over_and_not_taken_for_sick() -> None:
    async with pool(2) as (made, (first, _)):
        first.failing = Overloaded("model backend", "its queue is full")
        assert [await ask(made) for _ in range(20)] == [3.0] * 20
        assert made.states()[0].openings == 0


async def test_a_replica_that_does_much_worse_than_the_others_is_left_alone_for_a_while() -> None:
    async with pool(3) as (made, (first, *others)):
        first.failing_every = 3
        answers = 0
        while not made.counts.ejections:
            calls = [ask(made, np.repeat(ROW, rows, axis=0)) for rows in (1, 2, 3)]
            assert set(await asyncio.gather(*calls)) == {3.0}
            answers += 3
            assert answers < 3_000
        assert [each.ejected for each in made.states()] == [True, False, False]
        before = first.calls
        for _ in range(20):
            assert await ask(made) == 3.0
        assert first.calls == before
        for other in others:
            other.failing = Unavailable("model backend", "gone")
        first.failing_every = 0
        assert [await ask(made) for _ in range(3)] == [3.0] * 3, "where nobody else is left it is asked all the same"


async def test_a_single_server_that_does_not_answer_is_refused_at_once_until_it_does() -> None:
    async with pool(1) as (made, (only,)):
        only.held.clear()
        for _ in range(FAILURES_MAX):
            with pytest.raises(DeadlineExceeded):
                await ask(made, timeout_s=0.05)
        made._replicas[0].answered_s = -60.0
        asked = only.waiting
        with pytest.raises(Unavailable) as caught:
            await ask(made)
        assert not isinstance(caught.value, DeadlineExceeded)
        assert only.waiting == asked
        only.held.set()

        async with asyncio.timeout(SOON_S):
            while made.states()[0].circuit is not CircuitState.CLOSED:
                with suppress(Unavailable):
                    await ask(made)
                await asyncio.sleep(0.01)


async def test_calls_of_hours_without_a_doubled_one_allow_no_burst_of_them() -> None:
    async with pool(2) as (made, replicas):
        for _ in range(600):
            await ask(made)
        before = made.counts.hedges
        for replica in replicas:
            replica.held.clear()
        slow = [asyncio.create_task(ask(made)) for _ in range(60)]
        await until(lambda: sum(each.waiting for each in replicas) >= 60 and made.counts.hedges > before)
        await asyncio.sleep(0.05)
        for replica in replicas:
            replica.held.set()
        await asyncio.gather(*slow)
        assert made.counts.hedges - before <= HEDGES_SAVED_MAX + HEDGE_SHARE_MAX * 60


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
