"""What every model backend makes of a server that answers wrongly, late or not at all: an error, never an answer."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.faulty_triton import Faults, faulty_grpc, faulty_http
from skewless.adapters.triton_backend import TritonBackend
from skewless.adapters.triton_http_backend import TritonHttpBackend
from skewless.errors import DeadlineExceeded, Unavailable
from skewless.serving.in_process import InProcessBackend
from skewless.serving.model_outputs import CallRefused, WrongOutputs
from skewless.serving.ports import ModelBackend, ModelSignature
from skewless.serving.replicas import ReplicaPool
from skewless.serving.shared_calls import SharedCalls

MODEL = "bundle_one"
SIGNATURE = ModelSignature("features", 3, (("probabilities", 2), ("extra", 1)))
TENSOR = np.arange(12, dtype=np.float32).reshape(4, 3)
Change = Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]]
OVER_THE_WIRE = pytest.mark.parametrize("kind", ["grpc", "http", "pool", "shared calls"])
KINDS = pytest.mark.parametrize("kind", ["grpc", "http", "pool", "shared calls", "in process"])


def score(tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    total = tensor.sum(axis=1, keepdims=True)
    return {"probabilities": np.hstack([total, -total]), "extra": total}


@asynccontextmanager
async def opened(kind: str) -> AsyncIterator[tuple[ModelBackend, Faults]]:
    if kind == "in process":
        faults = Faults()

        def run(tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
            outputs = score(tensor)
            return outputs if faults.change is None else faults.change(outputs)

        backend: ModelBackend = InProcessBackend(lambda _model: run)
        await backend.load(MODEL)
        yield backend, faults
        await backend.close()
        return
    serving = faulty_http if kind == "http" else faulty_grpc
    async with serving(score) as (address, faults):
        backend = TritonHttpBackend(address) if kind == "http" else TritonBackend(address)
        if kind == "pool":
            backend = ReplicaPool({"only": backend})
        elif kind == "shared calls":
            backend = SharedCalls(backend, rows_max=lambda _model: 100, calls_max=1, rows_waiting_max=1_000)
        await backend.load(MODEL)
        try:
            yield backend, faults
        finally:
            await backend.close()


async def asked(backend: ModelBackend, *, timeout_s: float = 30.0) -> dict[str, NDArray[np.float32]]:
    return await backend.infer(MODEL, SIGNATURE, TENSOR, timeout_s=timeout_s)


async def assert_answers_again(backend: ModelBackend) -> None:
    """Once the server is well it answers rightly, on the same backend; connections may have to be made anew."""
    async with asyncio.timeout(80):
        while True:
            try:
                outputs = await asked(backend)
                break
            except Unavailable:
                await asyncio.sleep(0.01)
    assert {name: values.tobytes() for name, values in outputs.items()} == {
        name: values.tobytes() for name, values in score(TENSOR).items()
    }


def without_extra(outputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {"probabilities": outputs["probabilities"]}


def changed(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Change:
    return lambda outputs: {**outputs, "probabilities": change(outputs["probabilities"])}


WRONG: dict[str, Change] = {
    "a row less": changed(lambda values: values[:-1]),
    "a row more": changed(lambda values: np.vstack([values, values[:1]])),
    "a column more": changed(lambda values: np.hstack([values, values[:, :1]])),
    "turned round": changed(lambda values: values.T.copy()),
    "flat": changed(lambda values: values.ravel()),
    "empty": changed(lambda values: values[:0]),
    "float64": changed(lambda values: values.astype(np.float64)),
    "int64": changed(lambda values: values.astype(np.int64)),
    "an output less": without_extra,
    "another name": lambda outputs: {"other": outputs["probabilities"], "extra": outputs["extra"]},
}


@KINDS
@pytest.mark.parametrize("wrong", WRONG)
async def test_outputs_other_than_the_signature_says_are_refused(kind: str, wrong: str) -> None:
    async with opened(kind) as (backend, faults):
        assert (await asked(backend))["extra"].shape == (4, 1)
        faults.change = WRONG[wrong]
        with pytest.raises(WrongOutputs, match=f"model `{MODEL}` gave .* its signature says float32"):
            await asked(backend)
        faults.change = None
        await assert_answers_again(backend)


@OVER_THE_WIRE
async def test_outputs_with_fewer_bytes_than_their_shape_needs_are_refused(kind: str) -> None:
    async with opened(kind) as (backend, faults):
        faults.cut_bytes = 3
        with pytest.raises(WrongOutputs, match=MODEL):
            await asked(backend)
        faults.cut_bytes = 0
        await assert_answers_again(backend)


@OVER_THE_WIRE
async def test_an_error_of_the_model_is_a_refusal_with_its_words(kind: str) -> None:
    async with opened(kind) as (backend, faults):
        faults.refuses = True
        with pytest.raises(CallRefused, match="the model raised an exception"):
            await asked(backend)
        faults.refuses = False
        await assert_answers_again(backend)


@OVER_THE_WIRE
async def test_a_server_that_says_it_is_unavailable_is(kind: str) -> None:
    async with opened(kind) as (backend, faults):
        faults.unavailable = True
        with pytest.raises(Unavailable, match="shutting down") as caught:
            await asked(backend)
        assert not isinstance(caught.value, DeadlineExceeded)
        faults.unavailable = False
        await assert_answers_again(backend)


@OVER_THE_WIRE
async def test_a_connection_that_ends_in_the_middle_of_an_answer_is_unavailable(kind: str) -> None:
    async with opened(kind) as (backend, faults):
        faults.resets = True
        with pytest.raises(Unavailable, match="model backend"):
            await asked(backend)
        faults.resets = False
        await assert_answers_again(backend)


@OVER_THE_WIRE
async def test_a_server_that_hangs_costs_no_more_than_the_time_given_and_its_late_answer_goes_nowhere(
    kind: str,
) -> None:
    async with opened(kind) as (backend, faults):
        await asked(backend)
        faults.held.clear()
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await asked(backend, timeout_s=0.3)
        assert time.monotonic() - started < 30.0, "the server answers nothing for as long as it is held"
        faults.held.set()
        await assert_answers_again(backend)


async def test_a_queue_that_takes_it_is_told_how_long_a_call_may_wait_there() -> None:
    async with faulty_grpc(score) as (address, faults):
        backend = TritonBackend(address, queue_timeouts=lambda model: model == MODEL)
        await backend.infer(MODEL, SIGNATURE, TENSOR, timeout_s=2.5)
        await backend.infer("another", SIGNATURE, TENSOR, timeout_s=2.5)
        assert faults.queue_timeouts_us == [2_500_000, 0]
        await backend.close()
