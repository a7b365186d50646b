"""The model backend in a Triton server: explicit model control and inference over gRPC."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from skewless.errors import BundleRefused, DeadlineExceeded, Unavailable
from skewless.limits import CONNECT_TIMEOUT_S, MODEL_BATCH_ROWS_MAX, RETRY_AFTER_S
from skewless.serving.ports import ModelSignature

PART = "model backend"
LOAD_TIMEOUT_S = 60.0
"""Loading starts a process, an ONNX session and a warm-up: 1 to 3 s here, more on a machine that is starting up."""

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

_AWAY = ("StatusCode.UNAVAILABLE", "StatusCode.NOT_FOUND", "StatusCode.CANCELLED", "StatusCode.RESOURCE_EXHAUSTED")
_LOST_MODEL = ("unknown model", "is not ready", "is not found", "has no available versions", "unloading", "no version")
_FULL = ("exceeds maximum queue size",)
_TOO_LATE = ("request timeout expired", "timeout expired")


class TritonBackend:
    """Implements `ModelBackend`. Must be made inside a running event loop; reconnects by itself."""

    def __init__(self, address: str) -> None:
        self._client = InferenceServerClient(address, channel_args=_CHANNEL_OPTIONS)

    async def infer(
        self, model: str, signature: ModelSignature, tensor: NDArray[np.float32], *, timeout_s: float
    ) -> dict[str, NDArray[np.float32]]:
        """See `ModelBackend.infer`."""
        given = InferInput(signature.input_name, list(tensor.shape), "FP32")
        given.set_data_from_numpy(tensor)
        with _translated(model, timeout_s):
            result = await self._client.infer(
                model, [given], outputs=_requested(signature.outputs), client_timeout=timeout_s
            )
        outputs: dict[str, NDArray[np.float32]] = {}
        for name, columns in signature.outputs:
            output = result.as_numpy(name)
            if output is None or output.shape != (len(tensor), columns) or output.dtype != np.float32:
                seen = "no such output" if output is None else f"{output.dtype} {output.shape}"
                raise BundleRefused(
                    f"model `{model}` gave {seen} for `{name}`, its signature says float32 ({len(tensor)}, {columns})"
                )
            outputs[name] = output
        return outputs

    async def ping(self) -> None:
        """See `ModelBackend.ping`."""
        with _translated("", CONNECT_TIMEOUT_S):
            alive = await self._client.is_server_live(client_timeout=CONNECT_TIMEOUT_S)
        if not alive:
            raise Unavailable(PART, "the server is not live", retry_after_s=RETRY_AFTER_S)

    async def load(self, model: str) -> None:
        """See `ModelBackend.load`. Does nothing to a model that is ready: a bundle's files never change."""
        if await self.is_ready(model):
            return
        try:
            with _translated(model, LOAD_TIMEOUT_S):
                await self._client.load_model(model, client_timeout=LOAD_TIMEOUT_S)
        except _ServerRefused as error:
            raise BundleRefused(
                f"Triton cannot load model `{model}`: {error.reason}",
                hint="deploy the bundle into Triton's model repository; Triton's log has the details",
            ) from error

    async def unload(self, model: str) -> None:
        """Forget a model; nothing happens where it is not loaded."""
        with _translated(model, LOAD_TIMEOUT_S):
            await self._client.unload_model(model, client_timeout=LOAD_TIMEOUT_S)

    async def is_ready(self, model: str) -> bool:
        """See `ModelBackend.is_ready`."""
        try:
            with _translated(model, CONNECT_TIMEOUT_S):
                return bool(await self._client.is_model_ready(model, client_timeout=CONNECT_TIMEOUT_S))
        except (Unavailable, _ServerRefused):
            return False

    async def close(self) -> None:
        """Close the channel."""
        await self._client.close()


class _ServerRefused(BundleRefused):
    """The server answered, and its answer was an error about the model or the request itself."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(f"Triton refused a call of model `{model}`: {reason}")
        self.reason = reason


@lru_cache(maxsize=256)
def _requested(outputs: tuple[tuple[str, int], ...]) -> list[InferRequestedOutput]:
    return [InferRequestedOutput(name) for name, _ in outputs]


@contextmanager
def _translated(model: str, timeout_s: float) -> Iterator[None]:
    """Inside, what Triton and its client raise becomes Unavailable, DeadlineExceeded or _ServerRefused."""
    try:
        yield
    except InferenceServerException as error:
        raise _meaning(error, model, timeout_s) from error
    except (OSError, asyncio.InvalidStateError) as error:
        raise Unavailable(PART, str(error), retry_after_s=RETRY_AFTER_S) from error


def _meaning(error: InferenceServerException, model: str, timeout_s: float) -> Unavailable | BundleRefused:
    status = error.status() or ""
    reason = error.message() or "no reason given"
    said = reason.lower()
    if status == "StatusCode.DEADLINE_EXCEEDED" or any(text in said for text in _TOO_LATE):
        return DeadlineExceeded(PART, f"no answer within {timeout_s * 1_000:.0f} ms", retry_after_s=RETRY_AFTER_S)
    if any(text in said for text in _FULL):
        return Unavailable(PART, "its queue is full", retry_after_s=RETRY_AFTER_S)
    if any(text in said for text in _LOST_MODEL) and "failed to load" not in said:
        return Unavailable(PART, f"model `{model}` is not loaded: {reason}", retry_after_s=RETRY_AFTER_S)
    if status in _AWAY:
        return Unavailable(
            PART,
            reason,
            retry_after_s=RETRY_AFTER_S,
            hint="check that Triton is up; the gateway reconnects and loads its models by itself",
        )
    return _ServerRefused(model, reason)
