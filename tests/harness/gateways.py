"""The gateway's real application on a real socket: over fakes, with everything a test wants to reach kept at hand."""

import asyncio
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import uvicorn

from harness import http_calls
from harness.bundles import BuiltBundle, build_bundle, flights_at
from harness.fakes import FakeModelBackend, FakeOnlineStore, MemoryPredictionLog
from harness.servers import wait_until
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.bundles.bundle import load_bundle
from skewless.bundles.model_repository import model_name
from skewless.errors import SkewlessError
from skewless.features.reader import FeatureReads
from skewless.limits import (
    ENDPOINT_IN_FLIGHT_MAX,
    ENDPOINT_QUEUE_MS,
    FLUSH_ROWS_MAX,
    FLUSHES_MAX,
    ROWS_WAITING_MAX,
)
from skewless.registry.snapshot_heads import SnapshotHead
from skewless.registry.snapshots import FeatureSnapshot
from skewless.rollout.routes import Route, RoutingTable
from skewless.serving.data_plane import DataPlane
from skewless.serving.shadows import Shadows
from skewless.serving.tallies import Tallies
from skewless.timestamps import parse_timestamp
from skewless_gateway.admission import Admission
from skewless_gateway.app import create_app
from skewless_gateway.bundle_copies import FOLDER, BundleCopies
from skewless_gateway.composition import new_prediction_id
from skewless_gateway.gateway import Gateway
from skewless_gateway.loaded_bundles import LoadedBundles
from skewless_gateway.metrics import GatewayMetrics
from skewless_gateway.role_watch import RoleWatch, keep_tallies
from skewless_gateway.route_follower import RouteFollower
from skewless_gateway.routes_copy import RoutesCopy
from skewless_gateway.snapshot_follower import SnapshotFollower
from skewless_gateway.snapshots_copy import SnapshotsCopy
from skewless_http.security.callers import Caller, anonymous
from skewless_http.security.guard import Guard
from skewless_http.security.rate_limits import SharedRates

NOW = parse_timestamp("2013-05-01T12:30:00Z")
POLL_S = 0.2
ENDPOINT = "flight-delay"


@dataclass
class FakeRegistry:
    """Routes that a test can change, and a failure that it can switch on."""

    table: RoutingTable
    failure: SkewlessError | None = None

    def routes(self) -> RoutingTable:
        if self.failure is not None:
            raise self.failure
        return self.table


@dataclass
class FakeSnapshots:
    """Registry snapshots that a test can change, and a failure that it can switch on."""

    snapshots: dict[str, FeatureSnapshot] = field(default_factory=dict)
    failure: SkewlessError | None = None

    def heads(self) -> tuple[SnapshotHead, ...]:
        if self.failure is not None:
            raise self.failure
        return tuple(snapshot.head for snapshot in self.snapshots.values())

    def newest(self, project: str) -> FeatureSnapshot:
        if self.failure is not None:
            raise self.failure
        return self.snapshots[project]


@dataclass
class GatewayOverFakes:
    """Everything behind one gateway, for a test to look at and to break."""

    artifacts: Path
    built: BuiltBundle
    store: FakeOnlineStore
    backend: FakeModelBackend
    registry: FakeRegistry
    snapshots: FakeSnapshots = field(default_factory=FakeSnapshots)
    log: MemoryPredictionLog = field(default_factory=MemoryPredictionLog)
    metrics: GatewayMetrics = field(default_factory=GatewayMetrics)
    anonymous: Caller | None = field(default_factory=anonymous)
    """Who asks without a credential; None: nobody may."""
    allow_as_of: bool = False
    in_flight_max: int = ENDPOINT_IN_FLIGHT_MAX
    queue_ms: int = ENDPOINT_QUEUE_MS
    """How long a request may wait for its turn."""
    client: httpx.Client = field(default_factory=http_calls.client)

    @classmethod
    def build(cls, folder: Path, **bundle_options: bool) -> "GatewayOverFakes":
        artifacts = folder / "artifacts"
        artifacts.mkdir(parents=True)
        built = build_bundle(artifacts, **bundle_options)
        return cls(
            artifacts,
            built,
            FakeOnlineStore(flights_at(NOW)),
            FakeModelBackend({model_name(built.digest): built.outputs}),
            FakeRegistry(RoutingTable((route_to(built),))),
        )

    def predict(self, *instances: Mapping[str, object], endpoint: str = ENDPOINT, **options: object) -> httpx.Response:
        body = {"instances": list(instances), **({"options": options} if options else {})}
        return self.client.post(f"/v1/endpoints/{endpoint}/predict", json=body)

    def guard(self) -> Guard:
        """Lets everybody in, as in development mode, unless a test has set `anonymous` to None or to another caller."""
        rates = SharedRates.open(self.artifacts.parent)
        return Guard(rates, self.metrics.security, anonymous=self.anonymous)

    def deploy(self, built: BuiltBundle) -> None:
        """Put another bundle's model into the model backend's repository."""
        self.backend.repository[model_name(built.digest)] = built.outputs

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Gateway]:
        snapshots = SnapshotFollower(self.snapshots, poll_s=POLL_S, copy=SnapshotsCopy(self.artifacts.parent))
        copies = BundleCopies(
            FolderArtifactStore(self.artifacts.parent / FOLDER), FolderArtifactStore(self.artifacts), load_bundle
        )
        bundles = LoadedBundles(copies.load, self.backend, hash_sizes=snapshots.hash_sizes)
        follower = RouteFollower(
            self.registry.routes,
            bundles,
            poll_s=POLL_S,
            copy=RoutesCopy(self.artifacts.parent),
            keep_only=copies.keep_only,
            on_change=lambda state: self.metrics.show_routes(state, bundles_loaded=len(bundles.digests)),
        )
        features = FeatureReads(
            self.store,
            near_cache=None,
            rows_max=FLUSH_ROWS_MAX,
            flushes_max=FLUSHES_MAX,
            rows_waiting_max=ROWS_WAITING_MAX,
        )
        tallies = Tallies(NOW)
        watch = RoleWatch(self.metrics.roles, tallies, wake=follower.wake)
        shadows = Shadows(
            features, self.backend, self.log, clock=time.monotonic_ns, new_id=new_prediction_id, observer=watch
        )
        runs = (snapshots.run(), follower.run(), shadows.run(), keep_tallies(tallies, self.log, now=lambda: NOW))
        tasks = [asyncio.create_task(each) for each in runs]
        try:
            yield Gateway(
                plane=DataPlane(
                    features,
                    self.backend,
                    self.log,
                    now=lambda: NOW,
                    new_id=new_prediction_id,
                    observer=watch,
                    shadows=shadows,
                ),
                follower=follower,
                snapshots=snapshots,
                store=self.store,
                backend=self.backend,
                log=self.log,
                metrics=self.metrics,
                guard=self.guard(),
                admission=Admission(
                    clock=time.monotonic_ns,
                    now=lambda: NOW,
                    random=random.random,
                    metrics=self.metrics.admission,
                    in_flight_max=self.in_flight_max,
                    queue_ms=self.queue_ms,
                ),
                clock=time.monotonic_ns,
                now=lambda: NOW,
                allow_as_of=self.allow_as_of,
            )
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await self.log.close()

    @contextmanager
    def running(self, *, ready: bool = True) -> Iterator["GatewayOverFakes"]:
        """The application on a socket; waits until it is ready unless told otherwise."""
        with running_app(self.opened) as url, http_calls.client(base_url=url, timeout=30) as client:
            self.client = client
            if ready:
                wait_until(lambda: client.get("/readyz").status_code == 200, "the gateway is ready", timeout_s=20)
            yield self


def route_to(built: BuiltBundle, *, endpoint: str = ENDPOINT, version: int = 1) -> Route:
    return Route(endpoint, "Late by 15 minutes?", built.digest, version=version)


@contextmanager
def running_app(open_gateway: Callable[[], AbstractAsyncContextManager[Gateway]]) -> Iterator[str]:
    """The application in a server thread on a free loopback port; yields its base URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        create_app(open_gateway), http="httptools", loop="uvloop", ws="none", access_log=False, log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), "the server started", timeout_s=20)
        assert thread.is_alive(), "the server ended at its start"
        yield "http://{}:{}".format(*listener.getsockname())
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
