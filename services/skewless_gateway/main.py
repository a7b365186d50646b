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

from skewless.adapters.prediction_log import FolderPredictionLog
from skewless.adapters.redis_online_store import RedisOnlineStore
from skewless.adapters.triton_backend import TritonBackend
from skewless.bundles.artifact_store import FolderArtifactStore
from skewless.errors import SkewlessError
from skewless.limits import ROUTE_POLL_S
from skewless.registry.database import engine
from skewless.registry.repository import Registry
from skewless.serving.data_plane import DataPlane
from skewless.settings import describe, load_settings
from skewless.timestamps import Micros
from skewless_gateway.app import create_app
from skewless_gateway.gateway import Admission, Gateway
from skewless_gateway.logs import configure_logging
from skewless_gateway.metrics import GatewayMetrics
from skewless_gateway.route_follower import RouteFollower, RouteState
from skewless_gateway.routes_copy import RoutesCopy
from skewless_gateway.settings import GatewaySettings

_LOGGER = logging.getLogger(__name__)
EXIT_USAGE = 2


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
    store = RedisOnlineStore(settings.online_store)
    backend = TritonBackend(settings.triton)
    log = await asyncio.to_thread(partial(FolderPredictionLog, settings.prediction_log, flush_ms=settings.log_flush_ms))
    database = engine(settings.database_url)
    follower = RouteFollower(
        Registry(database).routes,
        FolderArtifactStore(settings.artifacts).open,
        backend,
        poll_s=ROUTE_POLL_S,
        copy=RoutesCopy(settings.prediction_log),
        on_change=partial(_show_routes, metrics),
    )
    following = asyncio.create_task(follower.run())
    try:
        yield Gateway(
            plane=DataPlane(store, backend, log, now=now, new_id=new_prediction_id),
            follower=follower,
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
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        await log.close()
        await backend.close()
        await store.close()
        database.dispose()


def _show_routes(metrics: GatewayMetrics, state: RouteState) -> None:
    metrics.bundle_live.clear()
    for name, endpoint in state.endpoints.items():
        metrics.bundle_live.labels(name, endpoint.served.digest).set(1)
    metrics.route_failures.set(len(state.failures))
    metrics.registry_up.set(0 if state.registry_error else 1)


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
