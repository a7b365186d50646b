"""What Triton and its clients raise, in the terms of the platform: over gRPC and over HTTP alike."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from tritonclient.utils import InferenceServerException

from skewless.errors import BundleRefused, DeadlineExceeded, Overloaded, Unavailable
from skewless.limits import RETRY_AFTER_S
from skewless.serving.model_outputs import CallRefused

PART = "model backend"
LOAD_TIMEOUT_S = 60.0
"""Loading starts a process, an ONNX session and a warm-up: 1 to 3 s here, more on a machine that is starting up."""

_AWAY = ("StatusCode.UNAVAILABLE", "StatusCode.NOT_FOUND", "StatusCode.CANCELLED", "StatusCode.RESOURCE_EXHAUSTED")
_AWAY_HTTP = ("404", "429", "502", "503", "504")
_LOST_MODEL = ("unknown model", "is not ready", "is not found", "has no available versions", "unloading", "no version")
_FULL = ("exceeds maximum queue size",)
_TOO_LATE = ("request timeout expired", "timeout expired")


class ServerRefused(CallRefused):
    """The server answered, and its answer was an error about the model or the request itself."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(f"Triton refused a call of model `{model}`: {reason}")
        self.reason = reason


@contextmanager
def translated(model: str, timeout_s: float) -> Iterator[None]:
    """Inside, what Triton and its client raise becomes Unavailable, DeadlineExceeded or ServerRefused."""
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
        return Overloaded(PART, "its queue is full", retry_after_s=RETRY_AFTER_S)
    if any(text in said for text in _LOST_MODEL) and "failed to load" not in said:
        return Unavailable(PART, f"model `{model}` is not loaded: {reason}", retry_after_s=RETRY_AFTER_S)
    if status in _AWAY or status in _AWAY_HTTP:
        return Unavailable(
            PART,
            reason,
            retry_after_s=RETRY_AFTER_S,
            hint="check that Triton is up; the gateway reconnects and loads its models by itself",
        )
    return ServerRefused(model, reason)


def cannot_load(model: str, error: ServerRefused) -> BundleRefused:
    """What a refused load means to whoever wanted the model."""
    return BundleRefused(
        f"Triton cannot load model `{model}`: {error.reason}",
        hint="deploy the bundle into Triton's model repository; Triton's log has the details",
    )
