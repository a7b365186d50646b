"""The contract of `ModelBackend`, held over a real Triton by every way to it, in this process, and by the fake."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.bundles import BuiltBundle, build_bundle, content
from harness.fakes import FakeModelBackend
from harness.servers import TritonServer
from skewless.adapters.triton_backend import TritonBackend
from skewless.adapters.triton_http_backend import TritonHttpBackend
from skewless.bundles.bundle import write_bundle
from skewless.bundles.model_repository import deploy, model_name
from skewless.bundles.serving_profile import ServingProfile
from skewless.errors import BundleRefused, DeadlineExceeded, Unavailable
from skewless.serving.in_process import InProcessBackend, Run
from skewless.serving.ports import ModelBackend
from skewless.serving.replicas import ReplicaPool
from skewless.serving.served_bundle import admit_model, prepare_bundle
from skewless.serving.shared_calls import SharedCalls
from skewless.stack.ports import free_ports

KINDS = pytest.mark.parametrize(
    "kind", ["triton", "triton over http", "shared memory", "replicas", "shared calls", "in process", "fake"]
)
SCALE = 2.0**-11
"""Not the scale of other tests, so that the shared server's model is this module's own."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    return build_bundle(tmp_path_factory.mktemp("bundle"), scale=SCALE)


@asynccontextmanager
async def opened(kind: str, server: TritonServer, built: BuiltBundle) -> AsyncIterator[ModelBackend]:
    if kind == "fake":
        yield FakeModelBackend({model_name(built.digest): built.outputs})
        return
    deploy(built.folder, built.digest, server.model_repository)
    backend = way_to(kind, server, built)
    try:
        yield backend
    finally:
        await backend.close()


def way_to(kind: str, server: TritonServer, built: BuiltBundle) -> ModelBackend:
    """A backend by its kind; all but `in process` end at the same Triton."""
    if kind == "triton over http":
        return TritonHttpBackend(server.http_address)
    if kind == "shared memory":
        return TritonBackend(server.grpc_address, shared_memory=True)
    if kind == "replicas":
        return ReplicaPool({"one": TritonBackend(server.grpc_address), "other": TritonHttpBackend(server.http_address)})
    if kind == "shared calls":
        backend = TritonBackend(server.grpc_address)
        return SharedCalls(backend, rows_max=lambda _: 1024, calls_max=1, rows_waiting_max=10_000)
    if kind == "in process":
        return InProcessBackend(lambda name: opened_model(name, built))
    return TritonBackend(server.grpc_address)


def opened_model(name: str, built: BuiltBundle) -> Run:
    if name != model_name(built.digest):
        raise BundleRefused(f"there is no model `{name}`")
    return built.outputs


def batch(built: BuiltBundle, rows: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    generator = np.random.default_rng(7)
    return generator.integers(0, 512, (rows, built.bundle.signature.input_columns)).astype(np.float32)


@KINDS
async def test_outputs_are_the_models_bit_for_bit_whatever_the_batch(
    kind: str, triton_server: TritonServer, built: BuiltBundle
) -> None:
    tensor = batch(built, 1024)
    async with opened(kind, triton_server, built) as backend:
        name = model_name(built.digest)
        await backend.load(name)
        assert await backend.is_ready(name)
        sizes = (1, 2, 7, 64, 1024)
        answers = await asyncio.gather(
            *(backend.infer(name, built.bundle.signature, tensor[:size], timeout_s=30) for size in sizes)
        )
    expected = built.outputs(tensor)["probabilities"]
    for size, answer in zip(sizes, answers, strict=True):
        assert answer.keys() == {"probabilities"}
        assert answer["probabilities"].dtype == np.float32
        assert answer["probabilities"].tobytes() == expected[:size].tobytes()


@KINDS
async def test_a_model_that_is_not_loaded_is_unavailable_until_it_is_loaded_again(
    kind: str, triton_server: TritonServer, built: BuiltBundle
) -> None:
    async with opened(kind, triton_server, built) as backend:
        name = model_name(built.digest)
        await backend.load(name)
        await backend.unload(name)
        assert not await backend.is_ready(name)
        with pytest.raises(Unavailable) as caught:
            await backend.infer(name, built.bundle.signature, batch(built, 1), timeout_s=10)
        assert not isinstance(caught.value, DeadlineExceeded)
        await backend.load(name)
        await backend.infer(name, built.bundle.signature, batch(built, 1), timeout_s=10)


@KINDS
async def test_a_model_that_does_not_exist_is_refused(
    kind: str, triton_server: TritonServer, built: BuiltBundle
) -> None:
    async with opened(kind, triton_server, built) as backend:
        with pytest.raises(BundleRefused, match="bundle_nobody"):
            await backend.load("bundle_nobody")
        assert not await backend.is_ready("bundle_nobody")


@KINDS
async def test_ping_returns_while_the_backend_answers(
    kind: str, triton_server: TritonServer, built: BuiltBundle
) -> None:
    async with opened(kind, triton_server, built) as backend:
        await backend.ping()


@KINDS
async def test_admission_reproduces_the_golden_outputs_and_refuses_other_ones(
    kind: str, triton_server: TritonServer, built: BuiltBundle, tmp_path: Path
) -> None:
    served = prepare_bundle(built.bundle, model_name(built.digest))
    wrong = build_bundle(tmp_path, scale=SCALE, wrong_golden=True)
    async with opened(kind, triton_server, built) as backend:
        await admit_model(served, built.bundle.golden, backend)
        with pytest.raises(BundleRefused, match="golden"):
            await admit_model(served, wrong.bundle.golden, backend)


async def test_a_model_whose_file_is_broken_is_refused_and_the_server_lives_on(
    triton_server: TritonServer, tmp_path: Path
) -> None:
    broken = build_bundle(tmp_path, scale=2.0**-10)
    name = deploy(broken.folder, broken.digest, triton_server.model_repository)
    (triton_server.model_repository / name / "1" / "model.onnx").write_bytes(b"not a model")
    backend = TritonBackend(triton_server.grpc_address)
    with pytest.raises(BundleRefused, match=name):
        await backend.load(name)
    await backend.ping()
    await backend.close()


async def test_a_call_that_takes_too_long_is_left_at_the_deadline(triton_server: TritonServer, tmp_path: Path) -> None:
    unwarmed = replace(content(scale=2.0**-9), serving=ServingProfile(warm_up_rows=()))
    digest = write_bundle(unwarmed, tmp_path)
    name = deploy(tmp_path, digest, triton_server.model_repository)
    code = triton_server.model_repository / name / "1" / "model.py"
    fast = code.read_text()
    code.write_text(
        fast.replace("        return dict", "        __import__('threading').Event().wait(6)\n        return dict")
    )
    assert code.read_text() != fast
    backend = TritonBackend(triton_server.grpc_address)
    await backend.load(name)
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await backend.infer(name, unwarmed.signature, unwarmed.golden.tensor, timeout_s=0.2)
    assert time.monotonic() - started < 5.5, "before the model has answered"
    await backend.unload(name)
    await backend.close()


async def test_nobody_listening_is_unavailable_and_not_ready(built: BuiltBundle) -> None:
    (port,) = free_ports(1)
    backend = TritonBackend(f"127.0.0.1:{port}")
    with pytest.raises(Unavailable, match="model backend"):
        await backend.ping()
    assert not await backend.is_ready("any")
    with pytest.raises(Unavailable):
        await backend.load("any")
    with pytest.raises(Unavailable):
        await backend.infer("any", built.bundle.signature, batch(built, 1), timeout_s=1)
    await backend.close()
