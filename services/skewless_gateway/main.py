"""The gateway's composition root: reads settings, builds every part, runs the server."""

import asyncio
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import uuid_utils
import uvicorn

from skewless.adapters.artifact_opening import open_artifact_store
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.adapters.prediction_log import FolderPredictionLog
from skewless.adapters.prediction_sealer import seal_apart
from skewless.adapters.redis_online_store import RedisOnlineStore
from skewless.adapters.step_loader import TransformSteps
from skewless.bundles.admission import DIFFERENTIAL_ROWS_LOADING, Surroundings, admit
from skewless.errors import SkewlessError
from skewless.features.contract_changes import Definitions
from skewless.features.near_cache import NearCache
from skewless.features.reader import FeatureReads
from skewless.limits import FLUSH_ROWS_MAX, FLUSHES_MAX, MIB, NEAR_CACHE_AGE_MAX_S, ROUTE_POLL_S, ROWS_WAITING_MAX
from skewless.registry.change_signal import open_change_signal
from skewless.registry.database import engine
from skewless.registry.repository import Registry
from skewless.registry.snapshots import FeatureSnapshots
from skewless.serving.data_plane import DataPlane
from skewless.serving.shadows import Shadows
from skewless.serving.tallies import Tallies
from skewless.settings import describe, load_settings, step_packages
from skewless.timestamps import Micros
from skewless_gateway.app import create_app
from skewless_gateway.bundle_copies import FOLDER as BUNDLES
from skewless_gateway.bundle_copies import BundleCopies
from skewless_gateway.change_watch import watching
from skewless_gateway.gateway import Admission, Gateway
from skewless_gateway.loaded_bundles import LoadedBundles
from skewless_gateway.logs import configure_logging
from skewless_gateway.metrics import GatewayMetrics
from skewless_gateway.model_servers import ModelServers
from skewless_gateway.role_watch import RoleWatch, keep_tallies
from skewless_gateway.route_follower import RouteFollower, RouteState
from skewless_gateway.routes_copy import RoutesCopy
from skewless_gateway.settings import GatewaySettings
from skewless_gateway.snapshot_follower import SnapshotFollower
from skewless_gateway.snapshots_copy import SnapshotsCopy

_LOGGER = logging.getLogger(__name__)
EXIT_USAGE = 2
SNAPSHOT_WAIT_S = 1.0
"""How long the first bundles wait for the registry snapshots; without them they only read hashes less cleverly."""


def now() -> Micros:
    """The wall clock, in microseconds since 1970."""
    return Micros(time.time_ns() // 1_000)


def new_prediction_id() -> str:
    """A UUIDv7: unique, and sorted by time."""
    return str(uuid_utils.uuid7())


@asynccontextmanager
async def open_gateway(settings: GatewaySettings) -> AsyncIterator[Gateway]:
    """Every part of a gateway, connected when first used. Leaving flushes the log and closes every connection."""
    metrics = GatewayMetrics()
    store, features = _open_features(settings, metrics)
    log = await asyncio.to_thread(
        partial(FolderPredictionLog, settings.prediction_log, flush_ms=settings.log_flush_ms, seal=seal_apart)
    )
    database = engine(settings.database_url)
    copies = _open_copies(settings)
    servers = ModelServers(
        settings.triton, target=settings.target, bundle_of=copies.of_model, on_call=metrics.calls.called
    )
    backend = servers.backend
    snapshots = SnapshotFollower(
        FeatureSnapshots(database),
        poll_s=ROUTE_POLL_S,
        copy=SnapshotsCopy(settings.state_folder),
        on_change=lambda _state: _show_contracts(metrics, follower, snapshots),
    )
    bundles = LoadedBundles(copies.load, backend, hash_sizes=snapshots.hash_sizes, target=settings.target)
    follower = RouteFollower(
        Registry(database).routes,
        bundles,
        poll_s=ROUTE_POLL_S,
        copy=RoutesCopy(settings.state_folder),
        keep_only=copies.keep_only,
        on_change=lambda state: _show_routes(metrics, follower, snapshots, bundles, state),
    )
    tallies = Tallies(now())
    watch = RoleWatch(metrics.roles, tallies, wake=follower.wake)
    shadows = Shadows(features, backend, log, clock=time.monotonic_ns, new_id=new_prediction_id, observer=watch)
    tending = asyncio.create_task(servers.run())
    following = asyncio.create_task(_follow(settings.database_url, snapshots, follower))
    mirroring = asyncio.create_task(shadows.run())
    tallying = asyncio.create_task(keep_tallies(tallies, log, now=now))
    try:
        yield Gateway(
            plane=DataPlane(features, backend, log, now=now, new_id=new_prediction_id, observer=watch, shadows=shadows),
            follower=follower,
            snapshots=snapshots,
            store=store,
            backend=backend,
            log=log,
            metrics=metrics,
            admission=Admission(metrics),
            clock=time.monotonic_ns,
            now=now,
            allow_as_of=settings.allow_as_of,
            buffered_rows=lambda: log.buffered_rows,
        )
    finally:
        await _ended(following, mirroring, tending)
        await _ended(tallying)  # after the last that counts, and before the log that takes its tallies closes
        await features.close()
        await log.close()
        await backend.close()
        await store.close()
        database.dispose()


async def _ended(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task


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


def _open_features(settings: GatewaySettings, metrics: GatewayMetrics) -> tuple[RedisOnlineStore, FeatureReads]:
    """The online store, and what reads features from it for all requests of this process."""
    bytes_max = settings.near_cache_mib * MIB
    store = RedisOnlineStore(settings.online_store, tracked=bytes_max > 0)
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


async def _follow(database_url: str, snapshots: SnapshotFollower, follower: RouteFollower) -> None:
    def wake() -> None:
        snapshots.wake()
        follower.wake()

    with watching(lambda: open_change_signal(database_url), wake):
        await _follow_both(snapshots, follower)


async def _follow_both(snapshots: SnapshotFollower, follower: RouteFollower) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(snapshots.run())
        await snapshots.first_look(timeout_s=SNAPSHOT_WAIT_S)
        group.create_task(follower.run())


def _show_routes(
    metrics: GatewayMetrics,
    follower: RouteFollower,
    snapshots: SnapshotFollower,
    bundles: LoadedBundles,
    state: RouteState,
) -> None:
    metrics.show_routes(state, bundles_loaded=len(bundles.digests))
    _show_contracts(metrics, follower, snapshots)


def _show_contracts(metrics: GatewayMetrics, follower: RouteFollower, snapshots: SnapshotFollower) -> None:
    """Of endpoints whose project has no snapshot nothing is told."""
    metrics.contract_changed.clear()
    for name, endpoint in follower.state.endpoints.items():
        definitions = snapshots.contract_state(endpoint.contract).definitions
        if definitions is not Definitions.UNKNOWN:
            metrics.contract_changed.labels(name).set(definitions is Definitions.CHANGED)


def run() -> None:
    """Run one gateway process until SIGTERM or SIGINT; requests in flight are answered and the log is flushed."""
    configure_logging()
    try:
        settings = load_settings(GatewaySettings)
    except SkewlessError as error:
        _LOGGER.error("%s", error)  # noqa: TRY400  # a wrong setting is explained by its message, not by a trace
        sys.exit(EXIT_USAGE)
    _LOGGER.info("starting with %s", describe(settings).replace("\n", " "))
    config = uvicorn.Config(
        create_app(partial(open_gateway, settings)),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=settings.drain_s,
    )
    # Once it has drained, uvicorn raises the signal that stopped it again, for these handlers.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    uvicorn.Server(config).run()
