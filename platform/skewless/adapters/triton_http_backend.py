"""The model backend in a Triton server, over HTTP: for where only HTTP passes, such as most ingresses.

The client brings aiohttp and 20 MB with it, so this module is imported only where an address asks for it.
"""

import asyncio
from functools import lru_cache
from typing import Any

import aiohttp
import numpy as np
from numpy.typing import NDArray
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.http.aio import InferenceServerClient

from skewless.adapters.triton_errors import LOAD_TIMEOUT_S, PART, ServerRefused, cannot_load, translated
from skewless.errors import DeadlineExceeded, Unavailable
from skewless.limits import CONNECT_TIMEOUT_S, REQUESTS_IN_FLIGHT_MAX, RETRY_AFTER_S
from skewless.serving.model_outputs import checked_outputs
from skewless.serving.ports import ModelSignature


class TritonHttpBackend:
    """Implements `ModelBackend`. Must be made inside a running event loop; its pool of connections renews itself.

    `secure` speaks TLS, with the certificates that the system trusts.
    """

    def __init__(self, address: str, *, secure: bool = False) -> None:
        self._client = InferenceServerClient(
            address, conn_limit=REQUESTS_IN_FLIGHT_MAX, conn_timeout=LOAD_TIMEOUT_S, ssl=secure
        )

    async def infer(
        self, model: str, signature: ModelSignature, tensor: NDArray[np.float32], *, timeout_s: float
    ) -> dict[str, NDArray[np.float32]]:
        """See `ModelBackend.infer`."""
        given = InferInput(signature.input_name, list(tensor.shape), "FP32")
        given.set_data_from_numpy(tensor, binary_data=True)
        result = await _within(
            model, timeout_s, self._client.infer(model, [given], outputs=_requested(signature.outputs))
        )
        given_back = {name: result.as_numpy(name) for name, _ in signature.outputs}
        return checked_outputs(model, signature, len(tensor), given_back)

    async def ping(self) -> None:
        """See `ModelBackend.ping`."""
        if not await _within("", CONNECT_TIMEOUT_S, self._client.is_server_live()):
            raise Unavailable(PART, "the server is not live", retry_after_s=RETRY_AFTER_S)

    async def load(self, model: str) -> None:
        """See `ModelBackend.load`. Does nothing to a model that is ready: a bundle's files never change."""
        if await self.is_ready(model):
            return
        try:
            await _within(model, LOAD_TIMEOUT_S, self._client.load_model(model))
        except ServerRefused as error:
            raise cannot_load(model, error) from error

    async def unload(self, model: str) -> None:
        """Forget a model; nothing happens where it is not loaded."""
        await _within(model, LOAD_TIMEOUT_S, self._client.unload_model(model))

    async def is_ready(self, model: str) -> bool:
        """See `ModelBackend.is_ready`."""
        try:
            return bool(await _within(model, CONNECT_TIMEOUT_S, self._client.is_model_ready(model)))
        except (Unavailable, ServerRefused):
            return False

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()


@lru_cache(maxsize=256)
def _requested(outputs: tuple[tuple[str, int], ...]) -> list[InferRequestedOutput]:
    return [InferRequestedOutput(name, binary_data=True) for name, _ in outputs]


async def _within(model: str, timeout_s: float, call: Any) -> Any:
    """What a call of the client gives. Raises Unavailable, DeadlineExceeded or ServerRefused."""
    try:
        with translated(model, timeout_s):
            async with asyncio.timeout(timeout_s):
                return await call
    except TimeoutError as error:
        raise DeadlineExceeded(
            PART, f"no answer within {timeout_s * 1_000:.0f} ms", retry_after_s=RETRY_AFTER_S
        ) from error
    except aiohttp.ClientError as error:
        raise Unavailable(
            PART,
            str(error) or type(error).__name__,
            retry_after_s=RETRY_AFTER_S,
            hint="check that Triton is up; the gateway reconnects and loads its models by itself",
        ) from error
