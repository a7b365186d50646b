"""Requests that wait together share one call of the model, and each gets its own rows back."""

import asyncio

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.fakes import FakeModelBackend
from harness.polling import until
from skewless.errors import BundleRefused, DeadlineExceeded, Unavailable
from skewless.serving.ports import ModelSignature
from skewless.serving.shared_calls import SharedCalls

SIGNATURE = ModelSignature("input", 2, (("sum", 1), ("twice", 2)))
ROWS_MAX = 64


def score(tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    if np.isnan(tensor).any():
        raise BundleRefused("the model takes no NaN")
    return {"sum": tensor.sum(axis=1, keepdims=True), "twice": tensor * np.float32(2)}


class Gated(FakeModelBackend):
    """Answers when it is let to, and remembers how many rows each call had."""

    def __init__(self) -> None:
        super().__init__({"a": score, "b": score})
        self.loaded = {"a", "b"}
        self.open = asyncio.Event()
        self.open.set()
        self.sizes: list[tuple[str, int]] = []

    async def infer(
        self, model: str, signature: ModelSignature, tensor: NDArray[np.float32], *, timeout_s: float
    ) -> dict[str, NDArray[np.float32]]:
        self.sizes.append((model, len(tensor)))
        await asyncio.sleep(0)  # a call to another process never answers within one turn of the loop
        await self.open.wait()
        return await super().infer(model, signature, tensor, timeout_s=timeout_s)


def shared(backend: Gated, *, rows_waiting_max: int = 10_000) -> SharedCalls:
    return SharedCalls(backend, rows_max=lambda _: ROWS_MAX, calls_max=1, rows_waiting_max=rows_waiting_max)


def rows(count: int, start: float = 0.0) -> NDArray[np.float32]:
    return (np.arange(2 * count, dtype=np.float32) + np.float32(start)).reshape(count, 2)


async def check(calls: SharedCalls, model: str, tensor: NDArray[np.float32]) -> None:
    outputs = await calls.infer(model, SIGNATURE, tensor, timeout_s=30.0)
    expected = score(tensor)
    assert outputs.keys() == expected.keys()
    for name, output in outputs.items():
        assert output.tobytes() == expected[name].tobytes()


async def test_one_request_is_one_call_with_its_own_tensor() -> None:
    backend = Gated()
    await check(shared(backend), "a", rows(3))
    assert backend.sizes == [("a", 3)]


async def test_what_arrives_while_a_call_is_under_way_is_the_next_call() -> None:
    backend = Gated()
    calls = shared(backend)
    backend.open.clear()
    first = asyncio.create_task(check(calls, "a", rows(1)))
    await until(lambda: backend.sizes == [("a", 1)])
    others = [asyncio.create_task(check(calls, "a", rows(count, 100.0 * count))) for count in (2, 3, 5)]
    await asyncio.sleep(0)
    backend.open.set()
    await asyncio.gather(first, *others)
    assert backend.sizes == [("a", 1), ("a", 10)]


async def test_a_shared_call_holds_no_more_rows_than_the_model_takes() -> None:
    backend = Gated()
    calls = shared(backend)
    backend.open.clear()
    tasks = [asyncio.create_task(check(calls, "a", rows(30, float(place)))) for place in range(7)]
    tasks.append(asyncio.create_task(check(calls, "a", rows(ROWS_MAX + 1))))
    await until(lambda: len(backend.sizes) == 1)
    backend.open.set()
    await asyncio.gather(*tasks)
    assert backend.sizes == [("a", 30), ("a", 60), ("a", 60), ("a", 60), ("a", ROWS_MAX + 1)]


async def test_models_do_not_wait_for_each_other() -> None:
    backend = Gated()
    calls = shared(backend)
    backend.open.clear()
    slow = asyncio.create_task(check(calls, "a", rows(1)))
    other = asyncio.create_task(check(calls, "b", rows(2)))
    await until(lambda: sorted(backend.sizes) == [("a", 1), ("b", 2)])
    backend.open.set()
    await asyncio.gather(slow, other)


async def test_rows_that_the_model_refuses_harm_only_their_own_request() -> None:
    backend = Gated()
    calls = shared(backend)
    backend.open.clear()
    first = asyncio.create_task(check(calls, "a", rows(1)))
    await until(lambda: len(backend.sizes) == 1)
    bad = asyncio.create_task(calls.infer("a", SIGNATURE, np.full((1, 2), np.nan, np.float32), timeout_s=30.0))
    good = [asyncio.create_task(check(calls, "a", rows(2, 7.0))) for _ in range(3)]
    await asyncio.sleep(0)
    backend.open.set()
    await asyncio.gather(first, *good)
    with pytest.raises(BundleRefused, match="NaN"):
        await bad


async def test_each_request_keeps_its_own_deadline() -> None:
    backend = Gated()
    calls = shared(backend)
    backend.open.clear()
    first = asyncio.create_task(check(calls, "a", rows(1)))
    await until(lambda: len(backend.sizes) == 1)
    patient = asyncio.create_task(check(calls, "a", rows(2)))
    with pytest.raises(DeadlineExceeded):
        await calls.infer("a", SIGNATURE, rows(1), timeout_s=0.01)
    backend.open.set()
    await asyncio.gather(first, patient)
    assert backend.sizes == [("a", 1), ("a", 2)], "who gave up is not computed"


async def test_too_much_waiting_is_refused_at_once_and_unloading_refuses_who_waits() -> None:
    backend = Gated()
    calls = shared(backend, rows_waiting_max=5)
    backend.open.clear()
    first = asyncio.create_task(check(calls, "a", rows(1)))
    await until(lambda: len(backend.sizes) == 1)
    waiting = asyncio.create_task(calls.infer("a", SIGNATURE, rows(4), timeout_s=30.0))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="at most 5"):
        await calls.infer("a", SIGNATURE, rows(2), timeout_s=30.0)
    await calls.unload("a")
    backend.open.set()
    with pytest.raises(Unavailable, match="closing"):
        await waiting
    with pytest.raises(Unavailable, match="not loaded"):
        await first
    assert not await calls.is_ready("a")
    await calls.load("a")
    await check(calls, "a", rows(1))


async def test_thousands_of_mixed_requests_get_their_own_rows() -> None:
    backend = Gated()
    calls = shared(backend, rows_waiting_max=100_000)
    generator = np.random.default_rng(11)
    sizes = generator.integers(1, 40, 3_000)
    tensors = [generator.integers(-1_000, 1_000, (int(size), 2)).astype(np.float32) for size in sizes]
    models = generator.choice(["a", "b"], len(tensors))
    await asyncio.gather(*(check(calls, str(model), tensor) for model, tensor in zip(models, tensors, strict=True)))
    assert len(backend.sizes) < len(tensors)
