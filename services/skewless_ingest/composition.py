"""Builds every part of the ingestion service from its settings."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from skewless.adapters.aggregate_lane import AggregateLane
from skewless.adapters.feature_stream import FeatureStreamConsumer, StreamRecord
from skewless.adapters.feature_stream_intake import StreamIntake
from skewless.adapters.feature_stream_opening import open_feature_stream
from skewless.adapters.ingest_delivery import IngestDelivery, LaneName
from skewless.adapters.ingest_gate import IngestGate
from skewless.adapters.ingest_intake import Intake
from skewless.adapters.ingest_lane import DeliveredBatch, DeliveryFailure
from skewless.adapters.ingest_outbox import Outbox
from skewless.adapters.ingest_room import IngestRoom
from skewless.adapters.ingest_sure_runner import SureRunner
from skewless.adapters.ingest_views import Catalogue, IngestViews, stored_lifetime_s
from skewless.adapters.quality_gate import SuiteRunner
from skewless.adapters.quality_worker import SuiteWorker
from skewless.adapters.quarantine import Quarantine
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.row_lane import RowLane
from skewless.errors import SkewlessError
from skewless.ingest_limits import INGEST_DECODERS, INGEST_DELIVERY_STOP_S
from skewless.ingestion.batches import BatchKind, LaneHandler
from skewless.registry.database import engine
from skewless.registry.definitions import Definitions
from skewless.registry.entity_deletions import Deletions
from skewless.registry.ingest_batches import IngestBatches
from skewless.registry.leases import Leases
from skewless.registry.quality_results import QualityResults
from skewless.registry.repository import Registry
from skewless.timestamps import Micros
from skewless_http.security.opening import open_guard
from skewless_http.security.tls import ServerTls
from skewless_ingest.fullness import Fullness
from skewless_ingest.metrics import IngestMetrics
from skewless_ingest.service import IngestService
from skewless_ingest.settings import IngestSettings

_LOGGER = logging.getLogger(__name__)


def now() -> Micros:
    """The wall clock, in microseconds since 1970."""
    return Micros(time.time_ns() // 1_000)


@asynccontextmanager
async def open_service(
    settings: IngestSettings,
    *,
    draining: Callable[[], bool] = lambda: False,
    tls: ServerTls | None = None,
    runner: SuiteRunner | None = None,
) -> AsyncIterator[IngestService]:
    """Every part of a service. Leaving keeps what is being judged, ends what is being delivered, and closes.

    `runner` None judges by Great Expectations, in a process of its own. What is entered first is left last: nothing
    that takes rows outlives the database.
    """
    async with AsyncExitStack() as stack:
        database = engine(settings.database_url)
        stack.callback(database.dispose)
        batches = IngestBatches(database)
        views = IngestViews(Definitions(database), settings.repo, project=settings.project)
        views.on_change = _tell
        metrics = IngestMetrics(views.knows)
        guard = open_guard(settings, Registry(database), state=settings.state_folder, metrics=metrics.security, now=now)
        stack.callback(guard.close)
        _go_on(stack, guard.run())
        outbox = Outbox(batches, bytes_max=settings.outbox_bytes_max, batches_max=settings.outbox_batches_max)
        fullness = await _looking(stack, settings, outbox, views)
        judging = SureRunner(runner or _worker(stack, views))
        gate = IngestGate(judging, QualityResults(database), Quarantine(settings.quarantine_folder))
        delivery = None
        if settings.deliver:
            delivery = _delivery(settings, views, batches, Leases(database), Deletions(database), metrics)
            delivery.start()
            stack.push_async_callback(asyncio.to_thread, delivery.stop, INGEST_DELIVERY_STOP_S)
        wake = _nobody if delivery is None else delivery.wake
        intake = Intake(views, gate, outbox, now=now, wake=wake, on_group=metrics.group)
        stack.push_async_callback(asyncio.to_thread, intake.close)
        stream_problem = None
        if settings.stream is not None:
            taking = StreamIntake(
                intake,
                gate,
                outbox,
                now=now,
                wake=wake,
                on_group=metrics.group,
                may_give_created_time=settings.stream_created_times,
            )
            stream_problem = stack.enter_context(
                _consuming(settings, settings.stream.get_secret_value(), views, taking)
            )
        decoders = ThreadPoolExecutor(INGEST_DECODERS, thread_name_prefix="decoder")
        stack.push_async_callback(asyncio.to_thread, decoders.shutdown)
        room = IngestRoom()
        metrics.watch(intake=intake, room=room, lanes=lambda: fullness.lanes)
        if tls is not None:
            metrics.security.watch_certificate(tls.left_s)
            _go_on(stack, tls.run())
        yield IngestService(
            intake=intake,
            views=views,
            outbox=outbox,
            room=room,
            fullness=fullness,
            guard=guard,
            metrics=metrics,
            decoders=decoders,
            draining=draining,
            delivery_problem=str if delivery is None else lambda: delivery.state().problem,
            stream_problem=stream_problem,
            public_metrics=settings.public_metrics,
        )


async def _looking(stack: AsyncExitStack, settings: IngestSettings, outbox: Outbox, views: IngestViews) -> Fullness:
    """What looks at the outbox and at the definitions, once it has looked a first time."""
    fullness = Fullness(
        outbox.lanes,
        bytes_max=settings.outbox_bytes_max,
        batches_max=settings.outbox_batches_max,
        look=views.refresh,
    )
    await asyncio.to_thread(fullness.start)
    stack.push_async_callback(asyncio.to_thread, fullness.stop)
    return fullness


def _worker(stack: AsyncExitStack, views: IngestViews) -> SuiteWorker:
    """The process that judges. It imports for seconds, so it begins now where there is anything to judge by."""
    worker = SuiteWorker()
    stack.push_async_callback(asyncio.to_thread, worker.close)
    with suppress(SkewlessError):
        if any(view.suite is not None for view in views.catalogue.views.values()):
            worker.start()
    return worker


def _nobody(_kind: BatchKind, _name: str) -> None:
    """Another process delivers, and looks by itself."""


def _delivery(
    settings: IngestSettings,
    views: IngestViews,
    batches: IngestBatches,
    leases: Leases,
    deletions: Deletions,
    metrics: IngestMetrics,
) -> IngestDelivery:
    lifetime_s = stored_lifetime_s(settings.repo)

    def open_store() -> BlockingRedisOnlineStore:
        return BlockingRedisOnlineStore(settings.online_store)

    def handler(kind: BatchKind, name: str) -> LaneHandler:
        """Made in the lane's thread."""
        if kind is BatchKind.ROWS:
            return RowLane(name, views.delivered_view, open_store, deletions, lifetime_s=lifetime_s)
        return AggregateLane(name, views.delivered_stream, open_store, deletions, lifetime_s=lifetime_s)

    def delivered(batch: DeliveredBatch) -> None:
        if batch.offline_time is None:
            metrics.delivered(batch.kind, "online", batch.online_time - batch.accepted_time)
        else:
            metrics.delivered(batch.kind, "offline", batch.offline_time - batch.accepted_time)

    return IngestDelivery(
        batches,
        leases,
        handler,
        standing=lambda: _standing(views),
        tables=lambda: _tables(views),
        on_delivered=delivered,
        on_failure=lambda failure: _told(failure, metrics),
    )


@contextmanager
def _consuming(
    settings: IngestSettings, url: str, views: IngestViews, take: StreamIntake
) -> Iterator[Callable[[], str]]:
    """Rows of streams are taken inside, by a thread; what it has taken and not kept comes again to the next one.

    Gives what tells why none is taken, empty where they are.
    """
    consumer = FeatureStreamConsumer(
        open_feature_stream(
            url,
            lambda: _names(views),
            consumer=f"{socket.gethostname()}-{settings.port}",
            group=settings.stream_group,
            options=settings.stream_options,
        ),
        take,
        on_refused=_set_aside,
        on_problem=_tell_of_stream,
    )
    stop = threading.Event()
    thread = threading.Thread(target=consumer.run, args=(stop,), name="feature-stream")
    thread.start()
    try:
        yield lambda: consumer.counts.problem if thread.is_alive() else "the thread that reads the stream has ended"
    finally:
        stop.set()
        thread.join()


def _tell(catalogue: Catalogue) -> None:
    """What the definitions in force have come to, for operators."""
    _LOGGER.info(
        "version %d of `%s`: rows of %d views and events of %d streams are taken",
        catalogue.number, catalogue.project, len(catalogue.views), len(catalogue.streams),
    )  # fmt: skip
    for name, error in sorted(catalogue.refused.items()):
        _LOGGER.warning("`%s` takes no rows: %s", name, error)


def _tell_of_stream(problem: str, error: Exception) -> None:
    unforeseen = None if isinstance(error, SkewlessError) else error
    _LOGGER.warning("the feature stream is tried again: %s", problem, exc_info=unforeseen)


def _set_aside(record: StreamRecord, reason: str) -> None:
    about = f"{record.kind} of {record.name}, {record.place}"
    _LOGGER.warning("a record of the feature stream is set aside (%s): %s", about, reason)


def _names(views: IngestViews) -> Sequence[LaneName]:
    """What is read of streams: all that rows can be taken of."""
    with suppress(SkewlessError):
        known = views.catalogue
        return [
            *((BatchKind.ROWS, name) for name in known.views),
            *((BatchKind.EVENTS, name) for name in known.streams),
        ]
    return ()


def _told(failure: DeliveryFailure, metrics: IngestMetrics) -> None:
    metrics.failed(failure.kind, failure.name)
    about = f"{failure.kind} of {failure.name}" + (f", batch {failure.batch_id}" if failure.batch_id else "")
    _LOGGER.error("delivery of %s (%s): %s", about, failure.state, failure.error, exc_info=failure.unexpected)


def _standing(views: IngestViews) -> Sequence[LaneName]:
    """Lanes that have work without batches: windows of streams close by themselves."""
    with suppress(SkewlessError):
        return [(BatchKind.EVENTS, name) for name in views.catalogue.streams]
    return ()


def _tables(views: IngestViews) -> Sequence[Path]:
    """The Delta tables that are written to."""
    with suppress(SkewlessError):
        known = views.catalogue
        tables = [Path(view.source.path) for view in known.delivered.values()]
        return [*tables, *(path for stream in known.streams.values() for path in stream.tables)]
    return ()


def _go_on(stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    """Work that goes on until its turn comes on the way out."""
    stack.push_async_callback(_ended, asyncio.create_task(work))


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
