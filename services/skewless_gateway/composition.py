"""Builds every part of one gateway process from its settings."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any

import uuid_utils

from skewless.adapters.artifact_opening import open_artifact_store
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.adapters.prediction_log import FolderPredictionLog
from skewless.adapters.redis_online_store import RedisOnlineStore
from skewless.adapters.step_loader import TransformSteps
from skewless.bundles.admission import DIFFERENTIAL_ROWS_LOADING, Surroundings, admit
from skewless.features.contract_changes import Definitions
from skewless.features.near_cache import NearCache
from skewless.features.reader import FeatureReads
from skewless.limits import FLUSH_ROWS_MAX, FLUSHES_MAX, MIB, NEAR_CACHE_AGE_MAX_S, ROUTE_POLL_S, ROWS_WAITING_MAX
from skewless.registry.change_signal import open_change_signal
from skewless.registry.database import engine
from skewless.registry.repository import Registry
from skewless.registry.snapshots import FeatureSnapshots
from skewless.rollout.routes import RoutingTable
from skewless.serving.data_plane import DataPlane
from skewless.serving.guarded_store import GuardedStore
from skewless.serving.log_privacy import LogPrivacy
from skewless.serving.log_sampling import LogSampling, SampleShares
from skewless.serving.shadows import Shadows
from skewless.serving.tallies import Tallies
from skewless.settings import step_packages
from skewless.timestamps import Micros
from skewless_gateway.admission import Admission
from skewless_gateway.bundle_copies import FOLDER as BUNDLES
from skewless_gateway.bundle_copies import BundleCopies
from skewless_gateway.change_watch import watching
from skewless_gateway.degrade_metrics import Watched
from skewless_gateway.gateway import Gateway, VertexRoutes
from skewless_gateway.loaded_bundles import LoadedBundles
from skewless_gateway.metrics import GatewayMetrics
from skewless_gateway.model_servers import ModelServers
from skewless_gateway.role_watch import RoleWatch, keep_tallies
from skewless_gateway.route_follower import RouteFollower, RouteState
from skewless_gateway.routes_copy import RoutesCopy
from skewless_gateway.settings import GatewaySettings
from skewless_gateway.snapshot_follower import SnapshotFollower
from skewless_gateway.snapshots_copy import SnapshotsCopy
from skewless_gateway.telemetry import open_access_log, open_tracing
from skewless_gateway.traced_parts import Store, TracedBackend, TracedStore
from skewless_gateway.tracing import Tracing
from skewless_http.security.opening import open_guard
from skewless_http.security.tls import ServerTls

SNAPSHOT_WAIT_S = 1.0
"""How long the first bundles wait for the registry snapshots; without them they only read hashes less cleverly."""


def now() -> Micros:
    """The wall clock, in microseconds since 1970."""
    return Micros(time.time_ns() // 1_000)


def new_prediction_id() -> str:
    """A UUIDv7: unique, and sorted by time."""
    return str(uuid_utils.uuid7())


@asynccontextmanager
async def open_gateway(
    settings: GatewaySettings, *, draining: Callable[[], bool] = lambda: False, tls: ServerTls | None = None
) -> AsyncIterator[Gateway]:
    """Every part of a gateway, connected when first used. Leaving flushes the log and closes every connection.

    What is entered first is left last: nothing that logs outlives the log, nothing that asks a server its connection.
    """
    metrics = GatewayMetrics()
    async with AsyncExitStack() as stack:
        tracing = _open_tracing(stack, settings, metrics)
        database = engine(settings.database_url)
        stack.callback(database.dispose)
        store, features = _open_features(settings, metrics)
        stack.push_async_callback(store.close)
        copies = _open_copies(settings)
        servers = _open_servers(settings, copies, metrics)
        backend = servers.backend
        stack.push_async_callback(backend.close)
        log, sample = await _open_log(settings, metrics)
        stack.push_async_callback(log.close)
        stack.push_async_callback(features.close)
        admission = _open_admission(settings, metrics)
        guard = open_guard(settings, Registry(database), state=settings.state_folder, metrics=metrics.security, now=now)
        stack.callback(guard.close)
        snapshots, follower = _followers(
            settings, Registry(database).routes, FeatureSnapshots(database), servers, copies, metrics, admission, sample
        )
        tallies = Tallies(now())
        watch = RoleWatch(metrics.roles, tallies, wake=follower.wake)
        shadows = Shadows(features, backend, log, clock=time.monotonic_ns, new_id=new_prediction_id, observer=watch)
        _go_on(stack, keep_tallies(tallies, log, now=now))
        _go_on(stack, servers.run())
        _go_on(stack, store.run())
        _go_on(stack, shadows.run())
        _go_on(stack, guard.run())
        _go_on(stack, _follow(settings.database_url, snapshots, follower, guard.wake))
        gateway = Gateway(
            plane=DataPlane(
                features,
                backend,
                log,
                now=now,
                new_id=new_prediction_id,
                observer=watch,
                shadows=shadows,
                # Fallback bundles run in this process also where no model is kept ready in it.
                standby=servers.standby or servers.here,
            ),
            follower=follower,
            snapshots=snapshots,
            store=store,
            backend=backend,
            log=log,
            metrics=metrics,
            admission=admission,
            clock=time.monotonic_ns,
            now=now,
            allow_as_of=settings.allow_as_of,
            privacy=_privacy(settings),
            guard=guard,
            draining=draining,
            public_metrics=settings.public_metrics,
            access_log=open_access_log(settings, metrics.registry),
            tracing=tracing,
            raw_models=settings.raw_models,
            vertex=_vertex_routes(settings),
        )
        metrics.parts.watch(_watched(store, servers))
        await _open_beside(stack, settings, gateway, tls)
        yield gateway


def _followers(
    settings: GatewaySettings,
    read_routes: Callable[[], RoutingTable],
    reader: FeatureSnapshots,
    servers: ModelServers,
    copies: BundleCopies,
    metrics: GatewayMetrics,
    admission: Admission,
    sampling: LogSampling,
) -> tuple[SnapshotFollower, RouteFollower]:
    """What keeps the gateway on the registry, and tells metrics and admission what is in service."""
    snapshots = SnapshotFollower(
        reader,
        poll_s=ROUTE_POLL_S,
        copy=SnapshotsCopy(settings.state_folder),
        on_change=lambda _state: _show_contracts(metrics, follower, snapshots),
    )
    bundles = LoadedBundles(
        copies.load,
        servers.backend,
        hash_sizes=snapshots.hash_sizes,
        target=settings.target,
        places=servers,
        can_hash=settings.log_hash_key is not None,
    )

    def routes_changed(state: RouteState) -> None:
        admission.keep_only(state.endpoints.keys())
        sampling.follow(sample_shares(state))
        metrics.show_routes(state, bundles_loaded=len(bundles.digests))
        _show_contracts(metrics, follower, snapshots)

    follower = RouteFollower(
        read_routes,
        bundles,
        poll_s=ROUTE_POLL_S,
        copy=RoutesCopy(settings.state_folder),
        keep_only=lambda digests: copies.keep_only(digests | bundles.fallbacks),
        on_change=routes_changed,
    )
    return snapshots, follower


def _open_tracing(stack: AsyncExitStack, settings: GatewaySettings, metrics: GatewayMetrics) -> Tracing | None:
    tracing = open_tracing(settings, metrics.registry)
    if tracing is not None:
        stack.push_async_callback(asyncio.to_thread, tracing.close)
    return tracing


async def _open_log(settings: GatewaySettings, metrics: GatewayMetrics) -> tuple[FolderPredictionLog, LogSampling]:
    """The log, and what of it is compared with the offline store, which is for whoever follows the routes to say."""
    sampling = LogSampling()
    log = await asyncio.to_thread(
        partial(
            FolderPredictionLog,
            settings.prediction_log,
            flush_ms=settings.log_flush_ms,
            fsync=settings.log_fsync,
            segment_age_s=settings.log_segment_age_s,
            spool_bytes_max=settings.log_spool_bytes_max,
            when_full=settings.log_when_full,
            privacy=_privacy(settings),
            sampling=sampling,
            flushed=metrics.log.flushed,
        )
    )
    metrics.log.watch(log)
    return log, sampling


def sample_shares(state: RouteState) -> dict[str, SampleShares]:
    """What is compared with the offline store of each endpoint in service, as its route in service says."""
    policies = {name: each.route.monitoring.parity for name, each in state.endpoints.items()}
    return {name: SampleShares(each.entity_share, each.uniform_share) for name, each in policies.items()}


def _privacy(settings: GatewaySettings) -> LogPrivacy:
    key = settings.log_hash_key
    return LogPrivacy() if key is None else LogPrivacy(key.get_secret_value().encode())


def _open_servers(settings: GatewaySettings, copies: BundleCopies, metrics: GatewayMetrics) -> ModelServers:
    return ModelServers(
        settings.triton,
        target=settings.target,
        bundle_of=copies.of_model,
        on_call=metrics.calls.called,
        standby=settings.standby,
        watched=partial(TracedBackend, clock=time.monotonic_ns) if settings.trace_endpoint else lambda servers: servers,
    )


async def _open_beside(
    stack: AsyncExitStack, settings: GatewaySettings, gateway: Gateway, tls: ServerTls | None
) -> None:
    """What not every gateway has: certificates to watch, and gRPC, which takes memory only where it is asked for."""
    if tls is not None:
        gateway.metrics.security.watch_certificate(tls.left_s)
        _go_on(stack, tls.run())
    if settings.grpc_port:
        from skewless_gateway.grpc_server import serving_grpc
        from skewless_gateway.grpc_tls import grpc_credentials

        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        serving = serving_grpc(
            gateway,
            gateway.metrics.grpc,
            address=f"{host}:{settings.grpc_port}",
            drain_s=settings.drain_s,
            shared_port=settings.worker_count > 1,
            credentials=None if tls is None else grpc_credentials(tls),
        )
        await stack.enter_async_context(serving)


def _go_on(stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    """Work that goes on until its turn comes on the way out."""
    stack.push_async_callback(_ended, asyncio.create_task(work))


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _open_admission(settings: GatewaySettings, metrics: GatewayMetrics) -> Admission:
    return Admission(
        clock=time.monotonic_ns,
        now=now,
        random=random.random,
        metrics=metrics.admission,
        in_flight_max=settings.in_flight_max,
        queue_ms=settings.queue_ms,
    )


def _vertex_routes(settings: GatewaySettings) -> VertexRoutes | None:
    if not settings.vertex_endpoint:
        return None
    return VertexRoutes(settings.vertex_endpoint, settings.vertex_predict_route, settings.vertex_health_route)


def _open_copies(settings: GatewaySettings) -> BundleCopies:
    """The gateway's copies of bundles, taken from the artifact store and admitted whenever they are loaded."""
    folder = settings.state_folder / BUNDLES
    surroundings = Surroundings(
        clock=time.monotonic_ns,
        steps=partial(TransformSteps, packages=step_packages(settings.step_packages)),
        differential_rows=DIFFERENTIAL_ROWS_LOADING,
    )
    # A bucket's bundles are cached where the copies lie, and in their form, so they are kept once.
    store = open_artifact_store(settings.artifacts, cache=folder)
    return BundleCopies(
        FolderArtifactStore(folder), store, lambda path, digest: admit(path, digest, surroundings).require()
    )


def _watched(store: GuardedStore, servers: ModelServers) -> Watched:
    return Watched(
        store=lambda: (store.state, store.openings),
        replicas=servers.states,
        pool=servers.counts,
        models_here=lambda: len(servers.in_process.models),
    )


def _open_features(settings: GatewaySettings, metrics: GatewayMetrics) -> tuple[GuardedStore, FeatureReads]:
    """The online store, and what reads features from it for all requests of this process."""
    bytes_max = settings.near_cache_mib * MIB
    servers: Store = RedisOnlineStore(settings.online_store, tracked=bytes_max > 0)
    if settings.trace_endpoint:
        servers = TracedStore(servers, clock=time.monotonic_ns)
    store = GuardedStore(servers, clock=time.monotonic)
    near_cache = None
    if bytes_max:
        near_cache = NearCache(store, bytes_max=bytes_max, age_max_s=NEAR_CACHE_AGE_MAX_S, clock=time.monotonic)
        metrics.watch_near_cache(near_cache.counters)
    features = FeatureReads(
        store,
        near_cache=near_cache,
        rows_max=FLUSH_ROWS_MAX,
        flushes_max=FLUSHES_MAX,
        rows_waiting_max=ROWS_WAITING_MAX,
    )
    return store, features


async def _follow(
    database_url: str, snapshots: SnapshotFollower, follower: RouteFollower, wake_guard: Callable[[], None]
) -> None:
    def wake() -> None:
        snapshots.wake()
        follower.wake()
        wake_guard()

    with watching(lambda: open_change_signal(database_url), wake):
        await _follow_both(snapshots, follower)


async def _follow_both(snapshots: SnapshotFollower, follower: RouteFollower) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(snapshots.run())
        await snapshots.first_look(timeout_s=SNAPSHOT_WAIT_S)
        group.create_task(follower.run())


def _show_contracts(metrics: GatewayMetrics, follower: RouteFollower, snapshots: SnapshotFollower) -> None:
    """Of endpoints whose project has no snapshot nothing is told."""
    metrics.contract_changed.clear()
    for name, endpoint in follower.state.endpoints.items():
        definitions = snapshots.contract_state(endpoint.contract).definitions
        if definitions is not Definitions.UNKNOWN:
            metrics.contract_changed.labels(name).set(definitions is Definitions.CHANGED)
