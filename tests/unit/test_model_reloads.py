"""A server that is up and says that it is ready, and refuses every call of a model: it loads the model anew."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.fakes import FakeModelBackend
from harness.polling import SOON_S, until
from skewless.errors import BundleRefused, DeadlineExceeded, Unavailable
from skewless.limits import MODEL_RELOAD_EVERY_S
from skewless.serving.model_outputs import CallRefused, WrongOutputs
from skewless.serving.model_refusals import REFUSALS_MAX, ModelRefusals
from skewless.serving.ports import ModelBackend, ModelSignature
from skewless.serving.replicas import ReplicaPool

MODEL, OTHER = "bundle_one", "bundle_two"
SIGNATURE = ModelSignature("input", 2, (("sum", 1),))
ROW = np.array([[1.0, 2.0]], dtype=np.float32)
ODD = np.array([[np.nan, 2.0]], dtype=np.float32)
DEAD = CallRefused(f"Stub process '{MODEL}_0_0' is not healthy.")


def score(tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    return {"sum": tensor.sum(axis=1, keepdims=True)}


class Server(FakeModelBackend):
    """A server whose models run in processes that can die without its noticing; loading a model starts a new one."""

    def __init__(self) -> None:
        super().__init__({MODEL: score, OTHER: score})
        self.dead: dict[str, Exception] = {}
        """By model, what a call is told."""
        self.stays_dead = False
        self.loading = asyncio.Event()
        self.loading.set()
        """A load ends while it is set."""
        self.unloads: list[str] = []
        self.loads = 0
        self.waiting = 0
        """Loads under way."""

    async def infer(
        self, model: str, signature: ModelSignature, tensor: NDArray[np.float32], *, timeout_s: float
    ) -> dict[str, NDArray[np.float32]]:
        if model in self.loaded and model in self.dead:
            raise self.dead[model]
        if np.isnan(tensor).any():
            raise CallRefused("the model raised an exception, at these rows")
        return await super().infer(model, signature, tensor, timeout_s=timeout_s)

    async def load(self, model: str) -> None:
        if await self.is_ready(model):
            return
        self.waiting += 1
        try:
            await self.loading.wait()
        finally:
            self.waiting -= 1
        await super().load(model)
        self.loads += 1
        if not self.stays_dead:
            self.dead.pop(model, None)

    async def unload(self, model: str) -> None:
        self.unloads.append(model)
        await super().unload(model)


async def admit(backend: ModelBackend, model: str) -> None:
    """As a gateway's does: load, and let it score what it should be able to."""
    await backend.load(model)
    try:
        outputs = await backend.infer(model, SIGNATURE, ROW, timeout_s=SOON_S)
    except DeadlineExceeded as error:
        raise BundleRefused("it did not score the golden rows in time") from error
    if outputs["sum"][0, 0] != 3.0:
        raise BundleRefused("other outputs than the golden ones")


@asynccontextmanager
async def pool(count: int) -> AsyncIterator[tuple[ReplicaPool, list[Server]]]:
    servers = [Server() for _ in range(count)]
    made = ReplicaPool({f"replica{place}": each for place, each in enumerate(servers)}, admit=admit)
    await made.load(MODEL)
    await made.load(OTHER)
    task = asyncio.create_task(made.run())
    try:
        yield made, servers
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def ask(made: ReplicaPool, tensor: NDArray[np.float32] = ROW, model: str = MODEL) -> float:
    outputs = await made.infer(model, SIGNATURE, tensor, timeout_s=SOON_S)
    return float(outputs["sum"][0, 0])


async def refused(made: ReplicaPool, times: int = REFUSALS_MAX) -> None:
    for _ in range(times):
        with pytest.raises((BundleRefused, Unavailable)):
            await ask(made)


async def answered(made: ReplicaPool) -> None:
    """Ask until there is an answer."""
    async with asyncio.timeout(SOON_S):
        while True:
            with suppress(BundleRefused, Unavailable):
                assert await ask(made) == 3.0
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "dead", [DEAD, WrongOutputs("float32 (1, 3)")], ids=["refuses the call", "answers with other tensors"]
)
async def test_a_model_of_which_every_call_is_refused_is_loaded_anew_and_answers_again(dead: Exception) -> None:
    async with pool(1) as (made, (only,)):
        only.dead[MODEL] = dead
        await refused(made)
        await answered(made)
        assert only.unloads == [MODEL]
        assert made.counts.reloads == 1
        (state,) = made.states()
        assert state.models == {MODEL, OTHER}
        assert state.answers
        assert not state.reason


async def test_a_model_whose_refusals_come_too_late_for_its_callers_is_loaded_anew_too() -> None:
    """Triton takes a second to find that a model's process is gone; callers with less time only see a timeout."""

    class Late(Server):
        async def infer(
            self, model: str, signature: ModelSignature, tensor: NDArray[np.float32], *, timeout_s: float
        ) -> dict[str, NDArray[np.float32]]:
            if model in self.dead and timeout_s < 1.0:
                raise DeadlineExceeded("model backend", "no answer in time")
            return await super().infer(model, signature, tensor, timeout_s=timeout_s)

    late = Late()
    made = ReplicaPool({"late": late}, admit=admit)
    await made.load(MODEL)
    late.dead[MODEL] = DEAD
    for _ in range(REFUSALS_MAX):
        with pytest.raises(DeadlineExceeded):
            await made.infer(MODEL, SIGNATURE, ROW, timeout_s=0.5)
    task = asyncio.create_task(made.run())
    await answered(made)
    assert made.counts.reloads == 1
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_meanwhile_nobody_asks_for_that_model_there_and_its_other_models_answer() -> None:
    async with pool(1) as (made, (only,)):
        only.loading.clear()
        only.dead[MODEL] = DEAD
        await refused(made)
        await until(lambda: only.waiting == 1)
        before = only.calls
        with pytest.raises(Unavailable, match=r"loads model `bundle_one` anew.*is not healthy"):
            await ask(made)
        assert only.calls == before
        assert await ask(made, model=OTHER) == 3.0
        assert not await made.is_ready(MODEL)
        again = asyncio.create_task(made.load(MODEL))  # a gateway's follower that finds it missing waits for it
        await asyncio.sleep(0)
        only.loading.set()
        await again
        assert (only.loads, made.counts.reloads) == (3, 1)
        assert await ask(made) == 3.0


async def test_rows_that_a_model_cannot_take_load_nothing_anew() -> None:
    async with pool(1) as (made, (only,)):
        for _ in range(5 * REFUSALS_MAX):
            with pytest.raises(CallRefused, match="at these rows"):
                await ask(made, ODD)
        await until(lambda: not made._replicas[0].refusals.due(asyncio.get_running_loop().time()))
        assert made.counts.reloads == 0
        assert not only.unloads
        assert await ask(made) == 3.0
        assert not made._replicas[0].refusals.in_a_row, "an answer forgets them"


async def test_other_outputs_than_the_golden_ones_unload_nothing_that_others_may_use() -> None:
    """Two gateways that disagree about a tolerance must not take the model from each other."""
    server = Server()
    await server.load(MODEL)
    server.repository[MODEL] = lambda tensor: {"sum": tensor.sum(axis=1, keepdims=True) + 1}
    made = ReplicaPool({"only": server}, admit=admit)
    with pytest.raises(BundleRefused, match="golden"):
        await made.load(MODEL)
    assert not server.unloads


async def test_a_gateway_that_starts_beside_such_a_server_has_it_load_the_model_anew() -> None:
    server = Server()
    await server.load(MODEL)
    server.dead[MODEL] = DEAD
    made = ReplicaPool({"only": server}, admit=admit)
    await made.load(MODEL)
    assert made.counts.reloads == 1
    assert await ask(made) == 3.0


async def test_a_model_that_stays_dead_is_loaded_anew_once_in_a_while_and_back_when_it_runs() -> None:
    async with pool(1) as (made, (only,)):
        only.stays_dead = True
        only.dead[MODEL] = DEAD
        await refused(made)
        await until(lambda: made.counts.reloads == 1 and MODEL not in made.states()[0].models)
        for _ in range(3):  # looks, of which each tries whether it runs
            made._replicas[0].wake.set()
            await until(lambda: not made._replicas[0].wake.is_set())
        await refused(made, 10)
        assert only.unloads == [MODEL]
        del only.dead[MODEL]
        await answered(made)


async def test_replicas_load_a_model_anew_one_after_the_other_and_the_rest_answer() -> None:
    async with pool(3) as (made, (first, second, third)):
        for server in (first, second):
            server.dead[MODEL] = DEAD
            server.loading.clear()
        async with asyncio.timeout(SOON_S):
            while first.waiting + second.waiting == 0:
                # More at a time than the well one takes alone, so that the others are asked too.
                assert set(await asyncio.gather(*(ask(made) for _ in range(3)))) == {3.0}
        # The other one's turn is not yet, whatever it refuses.
        for _ in range(20):
            assert set(await asyncio.gather(*(ask(made) for _ in range(3)))) == {3.0}
            await asyncio.sleep(0.01)
        assert first.waiting + second.waiting == 1
        assert not third.unloads
        first.loading.set()
        second.loading.set()
        async with asyncio.timeout(SOON_S):
            while made.counts.reloads < 2 or any(MODEL not in each.models for each in made.states()):
                assert set(await asyncio.gather(*(ask(made) for _ in range(3)))) == {3.0}
                await asyncio.sleep(0.01)
        assert (first.unloads, second.unloads, third.unloads) == ([MODEL], [MODEL], [])


def test_a_model_is_due_again_only_after_a_while() -> None:
    refusals = ModelRefusals()
    for _ in range(REFUSALS_MAX):
        refusals.refused(MODEL)
    assert refusals.due(100.0) == [MODEL]
    refusals.tried(MODEL, 100.0)
    for _ in range(10 * REFUSALS_MAX):
        refusals.refused(MODEL)
    assert not refusals.due(100.0 + 0.99 * MODEL_RELOAD_EVERY_S)
    assert refusals.due(100.0 + MODEL_RELOAD_EVERY_S) == [MODEL]
    refusals.forget(MODEL)
    assert not refusals.due(1_000.0)
    assert refusals.may_reload(MODEL, 0.0)
