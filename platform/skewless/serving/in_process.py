"""Models run in this process: no server, no copies, for models so small that a call costs more than the computing.

A few rows are computed at once on the event loop's own thread, which takes less time than handing them to another; more
rows go to threads of their own, so that the loop goes on answering.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from skewless.errors import DeadlineExceeded, Unavailable
from skewless.serving.model_outputs import checked_outputs
from skewless.serving.ports import ModelSignature

PART = "model backend"
INLINE_ROWS_MAX = 8
"""Computed on the loop's thread: about 0.1 ms with a few hundred trees, as much as the hand-over to a thread costs."""
THREADS_DEFAULT = 1
"""Computing beside the event loop. More than the cores that are free only make each call slower."""

Run = Callable[[NDArray[np.float32]], Mapping[str, NDArray[np.float32]]]
"""Runs a model: tensor (rows, columns) to its outputs by name. Raises BundleRefused."""


class InProcessBackend:
    """Implements `ModelBackend`. Belongs to one event loop."""

    def __init__(self, open_model: Callable[[str], Run], *, threads: int = THREADS_DEFAULT) -> None:
        """`open_model` makes a model ready by its name, on another thread; it raises BundleRefused."""
        self._open_model = open_model
        self._models: dict[str, Run] = {}
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="model")

    async def infer(
        self, model: str, signature: ModelSignature, tensor: NDArray[np.float32], *, timeout_s: float
    ) -> dict[str, NDArray[np.float32]]:
        """See `ModelBackend.infer`. A computation that takes too long ends in its thread, and its result is dropped."""
        run = self._models.get(model)
        if run is None:
            raise Unavailable(PART, f"model `{model}` is not loaded")
        rows = len(tensor)
        if rows <= INLINE_ROWS_MAX:
            outputs = run(tensor)
        else:
            outputs = await self._in_a_thread(run, tensor, timeout_s)
        return checked_outputs(model, signature, rows, outputs)

    async def ping(self) -> None:
        """Always there."""

    async def load(self, model: str) -> None:
        """See `ModelBackend.load`."""
        if model not in self._models:
            self._models[model] = await asyncio.to_thread(self._open_model, model)

    @property
    def models(self) -> frozenset[str]:
        """Loaded."""
        return frozenset(self._models)

    async def unload(self, model: str) -> None:
        """Forget a model; calls under way still get their answer."""
        self._models.pop(model, None)

    async def is_ready(self, model: str) -> bool:
        """Whether it is loaded."""
        return model in self._models

    async def close(self) -> None:
        """Forget every model and let the threads end."""
        self._models.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_a_thread(
        self, run: Run, tensor: NDArray[np.float32], timeout_s: float
    ) -> Mapping[str, NDArray[np.float32]]:
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.get_running_loop().run_in_executor(self._threads, run, tensor)
        except TimeoutError as error:
            raise DeadlineExceeded(PART, f"no answer within {timeout_s * 1_000:.0f} ms") from error
