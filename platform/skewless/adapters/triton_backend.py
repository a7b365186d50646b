"""The model backend in a Triton server: explicit model control and inference over gRPC."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from skewless.adapters.triton_errors import LOAD_TIMEOUT_S, PART, ServerRefused, cannot_load, translated
from skewless.adapters.triton_shared_memory import LOST, TENSOR_BYTES_MIN, Regions
from skewless.errors import Unavailable
from skewless.limits import CONNECT_TIMEOUT_S, MODEL_BATCH_ROWS_MAX, RETRY_AFTER_S
from skewless.serving.model_outputs import WrongOutputs, checked_outputs
from skewless.serving.ports import ModelSignature
from skewless.serving.request_trace import OUTGOING

_MESSAGE_BYTES_MAX = 64 * 1024 * 1024
"""MODEL_BATCH_ROWS_MAX rows of 16,384 float32 columns, more than any bundle has."""
assert MODEL_BATCH_ROWS_MAX * 4 * 16_384 <= _MESSAGE_BYTES_MAX

_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
    # gRPC backs off up to two minutes by default; a restarted server must be found again at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A server that hangs or a peer that vanished without a FIN is noticed by a ping.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    # Without this, channels of one process to one address share connections, and their back-off.
    ("grpc.use_local_subchannel_pool", 1),
]


class TritonBackend:
    """Implements `ModelBackend`. Must be made inside a running event loop; reconnects by itself.

    With `shared_memory` tensors of `shared_bytes_min` bytes or more reach a server on the same host without being sent.
    `queue_timeouts` says of which models each call tells the server's queue how long it may wait there.
    """

    def __init__(
        self,
        address: str,
        *,
        shared_memory: bool = False,
        shared_bytes_min: int = TENSOR_BYTES_MIN,
        queue_timeouts: Callable[[str], bool] = lambda _model: False,
    ) -> None:
        self._client = InferenceServerClient(address, channel_args=_CHANNEL_OPTIONS)
        self._regions = Regions(self._client, bytes_min=shared_bytes_min) if shared_memory else None
        self._queue_timeouts = queue_timeouts

    async def infer(
        self, model: str, signature: ModelSignature, tensor: NDArray[np.float32], *, timeout_s: float
    ) -> dict[str, NDArray[np.float32]]:
        """See `ModelBackend.infer`."""
        given = InferInput(signature.input_name, list(tensor.shape), "FP32")
        with translated(model, timeout_s):
            if self._regions is not None and self._regions.takes(tensor):
                result = await self._infer_shared(self._regions, model, given, signature, tensor, timeout_s)
            else:
                given.set_data_from_numpy(tensor)
                result = await self._call(model, given, signature, timeout_s)
        return checked_outputs(model, signature, len(tensor), _given_back(model, signature, result))

    async def ping(self) -> None:
        """See `ModelBackend.ping`."""
        with translated("", CONNECT_TIMEOUT_S):
            alive = await self._client.is_server_live(client_timeout=CONNECT_TIMEOUT_S)
        if not alive:
            raise Unavailable(PART, "the server is not live", retry_after_s=RETRY_AFTER_S)

    async def load(self, model: str) -> None:
        """See `ModelBackend.load`. Does nothing to a model that is ready: a bundle's files never change."""
        if await self.is_ready(model):
            return
        try:
            with translated(model, LOAD_TIMEOUT_S):
                await self._client.load_model(model, client_timeout=LOAD_TIMEOUT_S)
        except ServerRefused as error:
            raise cannot_load(model, error) from error

    async def unload(self, model: str) -> None:
        """Forget a model; nothing happens where it is not loaded."""
        with translated(model, LOAD_TIMEOUT_S):
            await self._client.unload_model(model, client_timeout=LOAD_TIMEOUT_S)

    async def is_ready(self, model: str) -> bool:
        """See `ModelBackend.is_ready`."""
        try:
            with translated(model, CONNECT_TIMEOUT_S):
                return bool(await self._client.is_model_ready(model, client_timeout=CONNECT_TIMEOUT_S))
        except (Unavailable, ServerRefused):
            return False

    async def close(self) -> None:
        """Close the channel, and give shared memory back."""
        await self._client.close()
        if self._regions is not None:
            await self._regions.close()

    async def _call(self, model: str, given: InferInput, signature: ModelSignature, timeout_s: float) -> InferResult:
        return await self._client.infer(
            model,
            [given],
            outputs=_requested(signature.outputs),
            client_timeout=timeout_s,
            timeout=int(timeout_s * 1_000_000) if self._queue_timeouts(model) else None,
            headers={name.decode(): value.decode() for name, value in OUTGOING.get()},
        )

    async def _infer_shared(
        self,
        regions: Regions,
        model: str,
        given: InferInput,
        signature: ModelSignature,
        tensor: NDArray[np.float32],
        timeout_s: float,
    ) -> InferResult:
        region = await regions.filled(tensor)
        if region is None:
            given.set_data_from_numpy(tensor)
            return await self._call(model, given, signature, timeout_s)
        try:
            given.set_shared_memory(region.name, tensor.nbytes)
            try:
                return await self._call(model, given, signature, timeout_s)
            except InferenceServerException as error:
                if LOST not in (error.message() or "").lower():
                    raise
            await regions.register_again()
            return await self._call(model, given, signature, timeout_s)
        finally:
            regions.release(region)


def _given_back(model: str, signature: ModelSignature, result: InferResult) -> dict[str, NDArray[np.float32] | None]:
    """The outputs as they came. Raises WrongOutputs for one whose bytes are not what its shape needs."""
    try:
        return {name: result.as_numpy(name) for name, _ in signature.outputs}
    except ValueError as error:
        raise WrongOutputs(
            f"model `{model}` gave an output whose bytes do not fill its shape, its signature says float32: {error}"
        ) from error


@lru_cache(maxsize=256)
def _requested(outputs: tuple[tuple[str, int], ...]) -> list[InferRequestedOutput]:
    return [InferRequestedOutput(name) for name, _ in outputs]
