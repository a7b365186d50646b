"""Tensors handed to a Triton on the same host through shared memory instead of a message.

Only inputs go this way: outputs are small, and a region that the server writes to could not be used again after a call
that nobody waits for any more. A region that is read late gives such a call other rows, and its answer goes nowhere.
"""

import os
import secrets
from multiprocessing.shared_memory import SharedMemory
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc.aio import InferenceServerClient

from skewless.limits import CONNECT_TIMEOUT_S

REGION_BYTES = 4 * 1024 * 1024
"""1,024 rows of 1,024 float32 columns; a larger tensor goes in a message."""
REGIONS_MAX = 8
"""Regions per process, made when needed; a call that finds none free goes in a message."""
TENSOR_BYTES_MIN = 64 * 1024
"""Below this a message costs no more than the hand-over (measured, see docs/performance.md)."""
LOST = "unable to find shared memory region"
"""What a server says that was started again, and knows nothing of the regions any more."""


class Region(NamedTuple):
    """A piece of shared memory under the name that the server knows it by."""

    name: str
    memory: SharedMemory


class Regions:
    """Regions of one process and one server. Belongs to one event loop."""

    def __init__(self, client: InferenceServerClient, *, bytes_min: int = TENSOR_BYTES_MIN) -> None:
        """Tensors of fewer than `bytes_min` bytes are not worth a region."""
        self._client = client
        self._bytes_min = bytes_min
        self._free: list[Region] = []
        self._all: list[Region] = []

    def takes(self, tensor: NDArray[np.float32]) -> bool:
        """Whether a tensor is worth a region, and fits one."""
        return self._bytes_min <= tensor.nbytes <= REGION_BYTES

    async def filled(self, tensor: NDArray[np.float32]) -> Region | None:
        """A region that holds the tensor, until `release`; None where all are in use. Raises what the client raises."""
        if self._free:
            region = self._free.pop()
        elif len(self._all) < REGIONS_MAX:
            region = await self._made()
        else:
            return None
        assert region.memory.buf is not None, "regions are closed at the very end"
        target = np.ndarray(tensor.shape, dtype=np.float32, buffer=region.memory.buf)
        target[:] = tensor
        del target  # or the memory could not be closed
        return region

    def release(self, region: Region) -> None:
        """Let another call use a region."""
        self._free.append(region)

    async def register_again(self) -> None:
        """Tell a server that was started again of all regions."""
        for region in self._all:
            await self._register(region)

    async def close(self) -> None:
        """Give the memory back; the server forgets its side when it is told, or when it ends."""
        for region in self._all:
            region.memory.close()
            region.memory.unlink()
        self._all.clear()
        self._free.clear()

    async def _made(self) -> Region:
        name = f"skewless-{os.getpid()}-{secrets.token_hex(4)}"
        region = Region(name, SharedMemory(name=name, create=True, size=REGION_BYTES))
        self._all.append(region)  # before anything is awaited, so that concurrent calls count it
        try:
            await self._register(region)
        except BaseException:
            self._all.remove(region)
            region.memory.close()
            region.memory.unlink()
            raise
        return region

    async def _register(self, region: Region) -> None:
        await self._client.register_system_shared_memory(
            region.name, f"/{region.memory.name}", REGION_BYTES, client_timeout=CONNECT_TIMEOUT_S
        )
