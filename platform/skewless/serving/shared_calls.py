"""A model backend on which requests that wait together share one call, without a timer that anyone waits for.

    request A ──nothing under way──▶ infer(A)
    request B, C, D while it runs  ──▶ infer(B + C + D), one tensor (rows of all, columns), cut apart again

Each model has calls of its own, so that a slow or crowded one delays no other.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from skewless.coalescing import Coalescer
from skewless.errors import BundleRefused
from skewless.serving.ports import ModelBackend, ModelSignature

PART = "model backend"

_Tensor = NDArray[np.float32]
_Outputs = dict[str, _Tensor]


class SharedCalls:
    """Implements `ModelBackend` over another one. Belongs to one event loop."""

    def __init__(
        self,
        backend: ModelBackend,
        *,
        rows_max: Callable[[str], int],
        calls_max: int,
        rows_waiting_max: int,
        on_call: Callable[[str, int, int], None] = lambda _model, _requests, _rows: None,
    ) -> None:
        """`rows_max` says how many rows a model takes in one call; a larger request goes alone.

        `calls_max` of a model are under way at once, and `rows_waiting_max` rows wait for it. `on_call` is told of each
        call's model, requests and rows.
        """
        self._backend = backend
        self._rows_max = rows_max
        self._calls_max = calls_max
        self._rows_waiting_max = rows_waiting_max
        self._on_call = on_call
        self._calls: dict[str, Coalescer[_Tensor, _Outputs]] = {}

    async def infer(self, model: str, signature: ModelSignature, tensor: _Tensor, *, timeout_s: float) -> _Outputs:
        """See `ModelBackend.infer`. The outputs may be views of what other requests share; nobody writes to them."""
        calls = self._calls.get(model)
        if calls is None:
            calls = self._calls[model] = self._opened(model, signature)
        return await calls.submit(tensor, weight=len(tensor), timeout_s=timeout_s)

    async def ping(self) -> None:
        """See `ModelBackend.ping`."""
        await self._backend.ping()

    async def load(self, model: str) -> None:
        """See `ModelBackend.load`."""
        await self._backend.load(model)

    async def unload(self, model: str) -> None:
        """See `ModelBackend.unload`. Who waits for the model is refused."""
        calls = self._calls.pop(model, None)
        if calls is not None:
            await calls.close()
        await self._backend.unload(model)

    async def is_ready(self, model: str) -> bool:
        """See `ModelBackend.is_ready`."""
        return await self._backend.is_ready(model)

    async def close(self) -> None:
        """Refuse whoever waits, and close the backend."""
        for calls in self._calls.values():
            await calls.close()
        self._calls.clear()
        await self._backend.close()

    def _opened(self, model: str, signature: ModelSignature) -> Coalescer[_Tensor, _Outputs]:
        async def flush(tensors: Sequence[_Tensor], timeout_s: float) -> list[_Outputs | Exception]:
            self._on_call(model, len(tensors), sum(map(len, tensors)))
            if len(tensors) == 1:
                return [await self._backend.infer(model, signature, tensors[0], timeout_s=timeout_s)]
            try:
                outputs = await self._backend.infer(model, signature, np.concatenate(tensors), timeout_s=timeout_s)
            except BundleRefused:
                return [await self._alone(model, signature, tensor, timeout_s) for tensor in tensors]
            return list(_cut(outputs, tensors))

        return Coalescer(
            flush,
            part=PART,
            weight_max=self._rows_max(model),
            flushes_max=self._calls_max,
            waiting_max=self._rows_waiting_max,
        )

    async def _alone(
        self, model: str, signature: ModelSignature, tensor: _Tensor, timeout_s: float
    ) -> _Outputs | Exception:
        """One request's own call after a shared one was refused: rows that a model cannot take harm nobody else."""
        try:
            return await self._backend.infer(model, signature, tensor, timeout_s=timeout_s)
        except BundleRefused as error:
            return error


def _cut(outputs: _Outputs, tensors: Sequence[_Tensor]) -> list[_Outputs]:
    """Each request's rows of every output, as views."""
    cut: list[_Outputs] = []
    start = 0
    for tensor in tensors:
        stop = start + len(tensor)
        cut.append({name: output[start:stop] for name, output in outputs.items()})
        start = stop
    return cut
