"""Everything a request handler needs, in one place; made by the composition root, handed to the application."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from skewless.errors import SkewlessError, Unavailable
from skewless.features.contract_changes import Definitions
from skewless.features.online_store import OnlineStore
from skewless.limits import LOG_BUFFER_ROWS_MAX, REQUESTS_IN_FLIGHT_MAX, RETRY_AFTER_S
from skewless.serving.data_plane import DataPlane
from skewless.serving.deadline import MonotonicClock
from skewless.serving.ports import ModelBackend, PredictionLog
from skewless.timestamps import Micros
from skewless_gateway.metrics import GatewayMetrics
from skewless_gateway.route_follower import RouteFollower
from skewless_gateway.snapshot_follower import SnapshotFollower


@dataclass(frozen=True, slots=True)
class PartState:
    """Whether one part the gateway needs is there; `detail` says what is missing, or what is wrong but survivable."""

    ok: bool
    detail: str = ""


class Admission:
    """Bounds the prediction requests that are answered at once; one more is refused at once."""

    def __init__(self, metrics: GatewayMetrics, *, in_flight_max: int = REQUESTS_IN_FLIGHT_MAX) -> None:
        self._metrics = metrics
        self._in_flight_max = in_flight_max
        self._in_flight = 0

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Inside, the request holds one place. Raises Unavailable when all are taken."""
        if self._in_flight >= self._in_flight_max:
            raise Unavailable(
                "gateway",
                f"{self._in_flight} requests are in flight, as many as one process admits",
                retry_after_s=RETRY_AFTER_S,
                hint="retry later, or start more gateways",
            )
        self._in_flight += 1
        self._metrics.in_flight.set(self._in_flight)
        try:
            yield
        finally:
            self._in_flight -= 1
            self._metrics.in_flight.set(self._in_flight)


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
    admission: Admission
    clock: MonotonicClock
    now: Callable[[], Micros]
    allow_as_of: bool
    buffered_rows: Callable[[], int] = lambda: 0
    """Log records in memory only."""

    async def parts(self) -> dict[str, PartState]:
        """State of every part by name. The gateway is ready when all are ok."""
        buffered = self.buffered_rows()
        is_full = buffered >= LOG_BUFFER_ROWS_MAX
        return {
            "online_store": await self._online_store(),
            "model_backend": await self._model_backend(),
            "routes": self._routes(),
            "feature_registry": self._feature_registry(),
            "prediction_log": PartState(not is_full, f"{buffered} records wait to be flushed" if is_full else ""),
        }

    async def _online_store(self) -> PartState:
        try:
            await self.store.ping()
        except SkewlessError as error:
            return PartState(False, error.message)
        return PartState(True)

    async def _model_backend(self) -> PartState:
        try:
            await self.backend.ping()
        except SkewlessError as error:
            return PartState(False, error.message)
        endpoints = self.follower.state.endpoints.values()
        models = {endpoint.served.model for endpoint in endpoints}
        lost = [model for model in sorted(models) if not await self.backend.is_ready(model)]
        return PartState(not lost, f"not loaded: {', '.join(lost)}" if lost else "")

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
