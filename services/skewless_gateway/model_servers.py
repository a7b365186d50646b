"""The places where models run, opened as one backend on which requests share calls: servers, and this process."""

import asyncio
import re
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

from skewless.bundles.bundle import Bundle
from skewless.bundles.model_files import ModelFormat
from skewless.bundles.model_repository import model_name
from skewless.bundles.serving_profile import Target
from skewless.errors import BundleRefused, InvalidSettings
from skewless.limits import MODEL_CALLS_MAX, ROWS_MAX, ROWS_WAITING_MAX
from skewless.serving.in_process import InProcessBackend, Run
from skewless.serving.placed_models import PlacedModels
from skewless.serving.ports import ModelBackend
from skewless.serving.replicas import PoolCounts, ReplicaPool, ReplicaState
from skewless.serving.served_bundle import reproduce
from skewless.serving.shared_calls import SharedCalls

IN_PROCESS = "in-process"
"""Instead of an address: ONNX models run in this process."""
_ALLOWED = (
    "`host:port` or `grpc://host:port`, `shm://host:port`, `http://host:port` or `https://host:port`, with "
    f"`?grpc=host:port` where models are to be loaded, and `{IN_PROCESS}` for ONNX models in the gateway itself"
)
_VARIABLE = "SKEWLESS_GATEWAY_TRITON"


class ModelServers:
    """Where models run: replicas of one model server, and this process. Must be opened inside a running event loop."""

    def __init__(
        self,
        listed: str,
        *,
        target: Target,
        bundle_of: Callable[[str], Bundle],
        on_call: Callable[[str, int, int], None],
        standby: bool = True,
        watched: Callable[[ModelBackend], ModelBackend] = lambda servers: servers,
    ) -> None:
        """`listed` has addresses, separated by commas, of servers of a target; `bundle_of` gives the bundle of a model.

        With `standby`, models that allow it are kept ready in this process too, for when the servers are away.
        `on_call` is told of each call's model, requests and rows; `watched` stands before the servers, where one is
        given.
        Raises InvalidSettings for an address of another form.
        """
        addresses = list(dict.fromkeys(each.strip() for each in listed.split(",") if each.strip()))
        if not addresses:
            raise InvalidSettings(f"{_VARIABLE} names no model server. Allowed: {_ALLOWED}, several with commas")
        if IN_PROCESS in addresses and len(addresses) > 1:
            raise InvalidSettings(
                f"{_VARIABLE} names `{IN_PROCESS}` beside servers: {listed}",
                hint="list the servers alone: models are kept ready in the gateway beside them where bundles allow it, "
                "and run there where a bundle's serving profile says so",
            )
        self._target = target
        self._known: dict[str, Bundle] = {}
        self._queue_timeouts: set[str] = set()
        """Models whose servers let each call say how long it may wait in their queue."""
        self._kept_bundle_of = bundle_of
        self.in_process = InProcessBackend(partial(_opened_here, self._bundle_of))
        self.here: ModelBackend = _shared(self.in_process, on_call)
        """Runs models in this process."""
        self.standby: ModelBackend | None = None
        """`here`, where it stands in for the servers; None where there are none, or it is not to."""
        self.pool: ReplicaPool | None = None
        """The servers; None where all models run in this process."""
        self._placed: PlacedModels | None = None
        self.backend: ModelBackend = self.here
        """What predictions ask."""
        if addresses == [IN_PROCESS]:
            return
        replicas = {
            address.partition("?")[0]: _opened(address, self._queue_timeouts.__contains__) for address in addresses
        }
        self.pool = ReplicaPool(replicas, admit=partial(_admit, target, self._bundle_of))
        self._placed = PlacedModels(_shared(watched(self.pool), on_call), self.here)
        self.backend = self._placed
        self.standby = self.here if standby else None

    def take(self, bundle: Bundle) -> None:
        """Know a bundle and where its model runs, before the model is loaded; without servers all run here."""
        model = model_name(bundle.digest)
        self._known[model] = bundle
        profile = bundle.serving.on(self._target)
        # Never written for the embedded target, where it would make calls sleep (docs/adr/0004).
        if self._target is not Target.EMBEDDED_CPU and profile.queue is not None and profile.queue.allow_override:
            self._queue_timeouts.add(model)
        if self._placed is not None:
            self._placed.place(model, profile.place)

    async def forget(self, model: str) -> None:
        """A bundle is not needed any more. In this process its model goes; servers keep it, for other gateways."""
        self._known.pop(model, None)
        self._queue_timeouts.discard(model)
        if self.pool is not None:
            self.pool.forget(model)
        if model in self.in_process.models:
            await self.here.unload(model)

    def _bundle_of(self, model: str) -> Bundle:
        return self._known.get(model) or self._kept_bundle_of(model)

    def states(self) -> tuple[ReplicaState, ...]:
        """Every server as it is now."""
        return self.pool.states() if self.pool is not None else ()

    def counts(self) -> PoolCounts:
        """What happened to calls of servers."""
        return self.pool.counts if self.pool is not None else PoolCounts()

    async def run(self) -> None:
        """Look after the servers until cancelled; returns at once where there are none."""
        if self.pool is not None:
            await self.pool.run()


def _shared(backend: ModelBackend, on_call: Callable[[str, int, int], None]) -> ModelBackend:
    return SharedCalls(
        backend,
        # What every bundle's serving profile takes in one call.
        rows_max=lambda _model: ROWS_MAX,
        calls_max=MODEL_CALLS_MAX,
        rows_waiting_max=ROWS_WAITING_MAX,
        on_call=on_call,
    )


async def _admit(target: Target, bundle_of: Callable[[str], Bundle], backend: ModelBackend, model: str) -> None:
    """Load a model on one replica and let it give the golden outputs again, also when the replica comes back."""
    await backend.load(model)
    bundle = await asyncio.to_thread(bundle_of, model)
    tolerance = bundle.serving.on(target).output_tolerance
    await reproduce(bundle.golden, model, bundle.signature, backend, tolerance=tolerance)


def _opened(address: str, queue_timeouts: Callable[[str], bool] = lambda _model: False) -> ModelBackend:
    scheme, host, loads_at = _parsed(address)
    # Only the one in use, and gRPC for loading when a model has to be loaded: it takes 10 MB.
    if scheme in ("http", "https"):
        from skewless.adapters.triton_http_backend import TritonHttpBackend

        open_loader = partial(_opened, f"grpc://{loads_at}") if loads_at else None
        return TritonHttpBackend(host, secure=scheme == "https", queue_timeouts=queue_timeouts, open_loader=open_loader)
    from skewless.adapters.triton_backend import TritonBackend

    return TritonBackend(host, shared_memory=scheme == "shm", queue_timeouts=queue_timeouts)


def _parsed(address: str) -> tuple[str, str, str]:
    """Scheme, `host:port`, and where models are loaded over gRPC; empty: where they are asked."""
    parts = urlsplit(address if "://" in address else f"grpc://{address}")
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme not in ("grpc", "shm", "http", "https") or not parts.hostname or not port or parts.path.strip("/"):
        raise _no_address(address)
    loads_at = ""
    if parts.query:
        name, _, loads_at = parts.query.partition("=")
        if parts.scheme not in ("http", "https") or name != "grpc" or not re.fullmatch(r"[^\s/?&=]+:\d{1,5}", loads_at):
            raise _no_address(address)
    return parts.scheme, parts.netloc, loads_at


def _no_address(address: str) -> InvalidSettings:
    return InvalidSettings(f"{_VARIABLE} names `{address}`, which is no address of a Triton. Allowed: {_ALLOWED}")


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
