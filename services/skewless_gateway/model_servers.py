"""The model servers that a setting lists, opened as one backend on which requests share calls."""

import asyncio
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

from skewless.adapters.triton_backend import TritonBackend
from skewless.bundles.bundle import Bundle
from skewless.bundles.model_files import ModelFormat
from skewless.bundles.serving_profile import Target
from skewless.errors import BundleRefused, InvalidSettings
from skewless.limits import MODEL_CALLS_MAX, ROWS_MAX, ROWS_WAITING_MAX
from skewless.serving.in_process import InProcessBackend, Run
from skewless.serving.ports import ModelBackend
from skewless.serving.replicas import ReplicaPool
from skewless.serving.served_bundle import reproduce
from skewless.serving.shared_calls import SharedCalls

IN_PROCESS = "in-process"
"""Instead of an address: ONNX models run in this process."""
_ALLOWED = (
    "`host:port` or `grpc://host:port`, `shm://host:port`, `http://host:port` or `https://host:port`, "
    f"and `{IN_PROCESS}` for ONNX models in the gateway itself"
)
_VARIABLE = "SKEWLESS_GATEWAY_TRITON"


class ModelServers:
    """Replicas of one model server. Must be opened inside a running event loop; `run` looks after them."""

    def __init__(
        self,
        listed: str,
        *,
        target: Target,
        bundle_of: Callable[[str], Bundle],
        on_call: Callable[[str, int, int], None],
    ) -> None:
        """`listed` has addresses, separated by commas, of servers of a target; `bundle_of` gives the bundle of a model.

        `on_call` is told of each call's model, requests and rows.
        Raises InvalidSettings for an address of another form.
        """
        addresses = list(dict.fromkeys(each.strip() for each in listed.split(",") if each.strip()))
        if not addresses:
            raise InvalidSettings(f"{_VARIABLE} names no model server. Allowed: {_ALLOWED}, several with commas")
        replicas = {address: _opened(address, bundle_of) for address in addresses}
        # One server needs no choosing, and its outages are for callers to see as they are.
        admit = partial(_admit, target, bundle_of)
        self._pool = ReplicaPool(replicas, admit=admit) if len(replicas) > 1 else None
        self.backend: ModelBackend = SharedCalls(
            self._pool or next(iter(replicas.values())),
            # What every bundle's serving profile takes in one call.
            rows_max=lambda _model: ROWS_MAX,
            calls_max=MODEL_CALLS_MAX,
            rows_waiting_max=ROWS_WAITING_MAX,
            on_call=on_call,
        )

    async def run(self) -> None:
        """Bring replicas that were away back, until cancelled; returns at once where there is one server."""
        if self._pool is not None:
            await self._pool.run()


async def _admit(target: Target, bundle_of: Callable[[str], Bundle], backend: ModelBackend, model: str) -> None:
    """Load a model on one replica and let it give the golden outputs again, also when the replica comes back."""
    await backend.load(model)
    bundle = await asyncio.to_thread(bundle_of, model)
    tolerance = bundle.serving.on(target).output_tolerance
    await reproduce(bundle.golden, model, bundle.signature, backend, tolerance=tolerance)


def _opened(address: str, bundle_of: Callable[[str], Bundle]) -> ModelBackend:
    if address == IN_PROCESS:
        return InProcessBackend(partial(_opened_here, bundle_of))
    scheme, host = _parsed(address)
    if scheme in ("http", "https"):
        from skewless.adapters.triton_http_backend import TritonHttpBackend

        return TritonHttpBackend(host, secure=scheme == "https")
    return TritonBackend(host, shared_memory=scheme == "shm")


def _parsed(address: str) -> tuple[str, str]:
    """Scheme and `host:port`."""
    parts = urlsplit(address if "://" in address else f"grpc://{address}")
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme not in ("grpc", "shm", "http", "https") or not parts.hostname or not port or parts.path.strip("/"):
        raise InvalidSettings(f"{_VARIABLE} names `{address}`, which is no address of a Triton. Allowed: {_ALLOWED}")
    return parts.scheme, parts.netloc


def _opened_here(bundle_of: Callable[[str], Bundle], model: str) -> Run:
    """The model, ready to run in this process. Raises BundleRefused for one that is not ONNX."""
    # ONNX Runtime takes 30 MB, which a gateway in front of a server does not need.
    from skewless.adapters.onnx_scorer import onnx_scorer

    bundle = bundle_of(model)
    files = bundle.read_model()
    if files.format is not ModelFormat.ONNX:
        raise BundleRefused(
            f"the model of bundle {bundle.digest[:12]} is {files.format}; a gateway runs {ModelFormat.ONNX} only",
            hint="point SKEWLESS_GATEWAY_TRITON at a Triton that runs it, see docs/models.md",
        )
    return onnx_scorer(files, bundle.signature)
