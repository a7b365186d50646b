"""Everything a request handler needs, in one place; made by the composition root, handed to the application."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from skewless.errors import Unavailable
from skewless.features.contract_changes import Definitions
from skewless.features.online_store import OnlineStore
from skewless.limits import LOG_BUFFER_ROWS_MAX
from skewless.serving.data_plane import DataPlane
from skewless.serving.deadline import MonotonicClock
from skewless.serving.log_privacy import LogPrivacy
from skewless.serving.ports import ModelBackend, PredictionLog
from skewless.timestamps import Micros
from skewless_gateway.access_log import AccessLog, silent
from skewless_gateway.admission import Admission
from skewless_gateway.degraded_parts import model_backend_state, online_store_state
from skewless_gateway.metrics import GatewayMetrics
from skewless_gateway.predictions import PredictionService
from skewless_gateway.route_follower import RouteFollower
from skewless_gateway.snapshot_follower import SnapshotFollower
from skewless_gateway.tracing import Tracing
from skewless_http.security.guard import Guard


@dataclass(frozen=True, slots=True)
class PartState:
    """Whether one part the gateway needs is there; `detail` says what is missing, or what is wrong but survivable."""

    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class VertexRoutes:
    """Where Vertex AI asks, and which endpoint answers it."""

    endpoint: str
    predict_route: str
    health_route: str


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway process's parts."""

    plane: DataPlane
    follower: RouteFollower
    snapshots: SnapshotFollower
    store: OnlineStore
    backend: ModelBackend
    log: PredictionLog
    metrics: GatewayMetrics
    guard: Guard
    admission: Admission
    clock: MonotonicClock
    now: Callable[[], Micros]
    allow_as_of: bool
    privacy: LogPrivacy = field(default_factory=LogPrivacy)
    """What the log keeps in place of marked values."""
    draining: Callable[[], bool] = lambda: False
    """Whether this process is on its way out, and wants no more requests."""
    public_metrics: bool = True
    """Whether metrics are told to callers of the API, not to operators alone."""
    access_log: AccessLog = field(default_factory=silent)
    tracing: Tracing | None = None
    """None where no request is traced."""
    raw_models: bool = False
    """Whether models can be asked with their own tensors."""
    vertex: VertexRoutes | None = None
    """None where Vertex AI does not ask this gateway."""
    predictions: PredictionService = field(init=False)
    """What answers prediction requests, for every edge."""

    def __post_init__(self) -> None:
        service = PredictionService(
            self.plane,
            self.follower,
            guard=self.guard,
            admission=self.admission,
            metrics=self.metrics,
            clock=self.clock,
        )
        object.__setattr__(self, "predictions", service)

    async def parts(self) -> dict[str, PartState]:
        """State of every part by name. The gateway is ready when all are ok."""
        served = {name: endpoint.served for name, endpoint in self.follower.state.endpoints.items()}
        return {
            "online_store": PartState(*await online_store_state(self.store, served)),
            "model_backend": PartState(*await model_backend_state(self.backend, served)),
            "routes": self._routes(),
            "feature_registry": self._feature_registry(),
            "prediction_log": self._prediction_log(),
            "lifecycle": PartState(not self.draining(), "this gateway is draining" if self.draining() else ""),
        }

    def _prediction_log(self) -> PartState:
        """Ok as long as answers can be kept, be it in memory; that the disk takes nothing is told before that ends."""
        state = self.log.state()
        waiting = f"{state.buffered_rows} records wait to be flushed"
        try:
            self.log.refuse_if_full(1)
        except Unavailable as error:
            return PartState(False, f"{error.message}; {waiting}")
        is_full = state.buffered_rows >= LOG_BUFFER_ROWS_MAX
        if state.failure:
            return PartState(not is_full, f"{state.failure}; {waiting}")
        return PartState(not is_full, waiting if is_full else "")

    def _feature_registry(self) -> PartState:
        """Always ok: what is told here makes no prediction wrong today, but perhaps the next bundle."""
        told = [self.snapshots.state.error] if self.snapshots.state.error else []
        for name, endpoint in self.follower.state.endpoints.items():
            state = self.snapshots.contract_state(endpoint.contract)
            if state.definitions is not Definitions.CURRENT:
                told.append(f"endpoint {name}, definitions {state.definitions}: {state.detail}")
        return PartState(True, "; ".join(told))

    def _routes(self) -> PartState:
        """Ok as long as every endpoint is answered by some bundle; what is stale about it is told all the same."""
        state = self.follower.state
        if state.table is None:
            return PartState(False, state.registry_error or "the registry has not been read yet")
        if not state.has_started:
            return PartState(False, f"bundles are being loaded for {', '.join(state.loading)}")
        wrong = [f"endpoint {name}: {reason}" for name, reason in state.failures.items()]
        if state.registry_error:
            wrong.append(f"serving the last good routes: {state.registry_error}")
        return PartState(state.failures.keys() <= state.endpoints.keys(), "; ".join(wrong))


async def readiness(gateway: Gateway) -> tuple[bool, dict[str, dict[str, Any]]]:
    """Whether predictions can be answered, and the state of every part by name."""
    parts = await gateway.parts()
    told = {name: {"ok": part.ok, "detail": part.detail} for name, part in parts.items()}
    return all(part.ok for part in parts.values()), told


def metrics_text(gateway: Gateway, *, open_metrics: bool = False) -> bytes:
    """Every metric, as Prometheus scrapes them."""
    gateway.metrics.log_buffered_rows.set(gateway.log.state().buffered_rows)
    gateway.metrics.show_snapshot_ages(gateway.snapshots.ages_s(gateway.now()))
    return gateway.metrics.exposition(open_metrics=open_metrics)
