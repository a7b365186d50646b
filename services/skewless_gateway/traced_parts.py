"""The online store and model servers, each call of which is noted for the traced requests that it is for.

Only a gateway that traces has these; they stand where requests already share calls.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skewless.coalescing import ASKERS
from skewless.features.online_store import Invalidate, OnlineStore, Reply, TrackedStore
from skewless.serving.deadline import MonotonicClock
from skewless.serving.ports import ModelBackend, ModelSignature
from skewless.serving.request_trace import AttributeValue
from skewless_gateway.tracing import traced_call


class Store(OnlineStore, TrackedStore, Protocol):
    """A store of which hashes can be kept near."""


class TracedStore:
    """Implements `OnlineStore` and `TrackedStore` over another one."""

    def __init__(self, store: Store, *, clock: MonotonicClock) -> None:
        self._store = store
        self._clock = clock

    async def read(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        """See `OnlineStore.read`."""
        if not ASKERS.get():  # the usual case, which is not to pay for a context manager
            return await self._store.read(keys, commands, timeout_s=timeout_s)
        with traced_call("online store", self._clock, _pipeline(commands)):
            return await self._store.read(keys, commands, timeout_s=timeout_s)

    async def read_tracked(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        """See `TrackedStore.read_tracked`."""
        if not ASKERS.get():
            return await self._store.read_tracked(keys, commands, timeout_s=timeout_s)
        with traced_call("online store", self._clock, _pipeline(commands)):
            return await self._store.read_tracked(keys, commands, timeout_s=timeout_s)

    def subscribe(self, invalidate: Invalidate) -> None:
        """See `TrackedStore.subscribe`."""
        self._store.subscribe(invalidate)

    async def ping(self) -> None:
        """See `OnlineStore.ping`."""
        await self._store.ping()

    async def close(self) -> None:
        """See `OnlineStore.close`."""
        await self._store.close()


class TracedBackend:
    """Implements `ModelBackend` over another one, which is told to join the trace."""

    def __init__(self, backend: ModelBackend, *, clock: MonotonicClock) -> None:
        self._backend = backend
        self._clock = clock

    async def infer(
        self, model: str, signature: ModelSignature, tensor: NDArray[np.float32], *, timeout_s: float
    ) -> dict[str, NDArray[np.float32]]:
        """See `ModelBackend.infer`."""
        if not ASKERS.get():
            return await self._backend.infer(model, signature, tensor, timeout_s=timeout_s)
        noted: dict[str, AttributeValue] = {"skewless.model": model, "skewless.rows": len(tensor)}
        with traced_call("model call", self._clock, noted):
            return await self._backend.infer(model, signature, tensor, timeout_s=timeout_s)

    async def ping(self) -> None:
        """See `ModelBackend.ping`."""
        await self._backend.ping()

    async def load(self, model: str) -> None:
        """See `ModelBackend.load`."""
        await self._backend.load(model)

    async def unload(self, model: str) -> None:
        """See `ModelBackend.unload`."""
        await self._backend.unload(model)

    async def is_ready(self, model: str) -> bool:
        """See `ModelBackend.is_ready`."""
        return await self._backend.is_ready(model)

    async def close(self) -> None:
        """See `ModelBackend.close`."""
        await self._backend.close()


def _pipeline(commands: Sequence[bytes]) -> dict[str, AttributeValue]:
    """What may be told of a pipeline: its size. Keys name entities."""
    return {"db.system.name": "redis", "db.operation.batch.size": len(commands)}
