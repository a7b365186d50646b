"""Models at the place where their bundles want them to run, as one backend: in servers, or in this process."""

import numpy as np
from numpy.typing import NDArray

from skewless.bundles.serving_profile import Place
from skewless.serving.ports import ModelBackend, ModelSignature


class PlacedModels:
    """Implements `ModelBackend` over two others. A model runs in the servers until its place is told otherwise."""

    def __init__(self, servers: ModelBackend, here: ModelBackend) -> None:
        self._servers = servers
        self._here = here
        self._placed_here: set[str] = set()

    def place(self, model: str, place: Place) -> None:
        """Say where a model runs, before it is loaded."""
        if place is Place.GATEWAY:
            self._placed_here.add(model)
        else:
            self._placed_here.discard(model)

    async def infer(
        self, model: str, signature: ModelSignature, tensor: NDArray[np.float32], *, timeout_s: float
    ) -> dict[str, NDArray[np.float32]]:
        """See `ModelBackend.infer`."""
        backend = self._here if model in self._placed_here else self._servers
        return await backend.infer(model, signature, tensor, timeout_s=timeout_s)

    async def ping(self) -> None:
        """Return when the servers answer. Raises Unavailable."""
        await self._servers.ping()

    async def load(self, model: str) -> None:
        """See `ModelBackend.load`."""
        await self._of(model).load(model)

    async def unload(self, model: str) -> None:
        """See `ModelBackend.unload`."""
        await self._of(model).unload(model)

    async def is_ready(self, model: str) -> bool:
        """See `ModelBackend.is_ready`."""
        return await self._of(model).is_ready(model)

    async def close(self) -> None:
        """Close both places."""
        await self._servers.close()
        await self._here.close()

    def _of(self, model: str) -> ModelBackend:
        return self._here if model in self._placed_here else self._servers
