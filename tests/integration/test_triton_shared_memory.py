"""Tensors that reach Triton through shared memory: the same bits, through restarts, and nothing left behind."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc.aio import InferenceServerClient

from harness.bundles import BuiltBundle, build_bundle
from harness.servers import TritonServer
from skewless.adapters.triton_backend import TritonBackend
from skewless.adapters.triton_shared_memory import REGIONS_MAX
from skewless.bundles.model_repository import deploy, model_name

SCALE = 2.0**-14
OURS = f"skewless-{os.getpid()}-"


@pytest.fixture
def built(tmp_path: Path) -> BuiltBundle:
    return build_bundle(tmp_path, scale=SCALE)


@pytest.fixture
async def backend(triton_server: TritonServer, built: BuiltBundle) -> AsyncIterator[TritonBackend]:
    deploy(built.folder, built.digest, triton_server.model_repository)
    made = TritonBackend(triton_server.grpc_address, shared_memory=True, shared_bytes_min=1)
    await made.load(model_name(built.digest))
    yield made
    await made.close()
    assert not left_behind()


def left_behind() -> list[str]:
    return [each.name for each in Path("/dev/shm").iterdir() if each.name.startswith(OURS)]  # Linux's own


async def check(backend: TritonBackend, built: BuiltBundle, rows: int, seed: int) -> None:
    tensor = np.random.default_rng(seed).integers(0, 512, (rows, built.bundle.signature.input_columns))
    given = tensor.astype(np.float32)
    found = await backend.infer(model_name(built.digest), built.bundle.signature, given, timeout_s=30)
    assert found["probabilities"].tobytes() == built.outputs(given)["probabilities"].tobytes()


async def test_tensors_of_every_size_give_the_same_bits(backend: TritonBackend, built: BuiltBundle) -> None:
    for rows in (1, 1_000, 3):
        await check(backend, built, rows, rows)
    assert len(left_behind()) == 1, "one call at a time needs one region"


async def test_concurrent_calls_never_share_a_region_and_more_than_there_are_go_in_messages(
    backend: TritonBackend, built: BuiltBundle
) -> None:
    await asyncio.gather(*(check(backend, built, 1 + seed % 40, seed) for seed in range(20 * REGIONS_MAX)))
    assert 1 <= len(left_behind()) <= REGIONS_MAX


async def test_a_server_that_forgot_its_regions_is_told_again(
    backend: TritonBackend, built: BuiltBundle, triton_server: TritonServer
) -> None:
    await check(backend, built, 5, 1)
    client = InferenceServerClient(triton_server.grpc_address)
    await client.unregister_system_shared_memory()  # all of them, as a restart does
    await check(backend, built, 5, 2)
    status = await client.get_system_shared_memory_status()
    assert [name for name in status.regions if name.startswith(OURS)]
    await client.close()
