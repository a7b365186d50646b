"""All that the shipper of one prediction log does, put together: segments, requests of the command line, upkeep.

The service runs it in a loop; a command runs it by itself where no service holds the folder.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from skewless.adapters.entity_deletion import Entity, delete_entity
from skewless.adapters.log_store import LogStore, open_log_store
from skewless.adapters.log_store_sink import LogStoreSink
from skewless.adapters.log_upkeep import Compacted, Failures, Retention, compact_once, drop_damaged, retain
from skewless.adapters.shipper import Shipper, Supply, pause_s
from skewless.adapters.shipper_requests import Answer, Request, Requests, Work
from skewless.adapters.shipping import SHIPPING, STREAM_NUMBERS, only_shipper
from skewless.adapters.spool import SPOOL, begun_us, open_segments
from skewless.errors import Conflict, InvalidRequest, NotFound, SkewlessError, Unavailable
from skewless.limits import LOG_REPLACED_KEPT_S, LOG_UNNAMED_AGE_S
from skewless.serving.log_privacy import LogPrivacy
from skewless.settings import ShipperSettings
from skewless.timestamps import Micros

if TYPE_CHECKING:
    from skewless.adapters.stream_sink import StreamSink

SCRATCH = "scratch"
"""The folder, beside the journals, of files on their way to or from a bucket."""
_HOUR_S = 3_600.0
_LOGGER = logging.getLogger(__name__)


@dataclass(slots=True)
class UpkeepCounts:
    """What was done to the store since the start."""

    compactions: int = 0
    files_replaced: int = 0
    files_removed: int = 0
    rows_dropped: int = 0
    """By retention."""
    rows_deleted: int = 0
    """By request."""
    failures: int = 0


@dataclass(slots=True)
class _Deferred:
    """A deletion that could not be done yet. Times are of the monotonic clock, in seconds."""

    looked: set[bool] = field(default_factory=set)
    """Whether segments of before it were still being written, at each look that went before its turn."""
    failing: int = 0
    """In a row."""
    problem: str = ""
    retry_at_s: float = 0.0

    def failed(self, request: Request, error: SkewlessError | OSError) -> None:
        """Leave it alone for a while, as a sink."""
        self.failing += 1
        self.retry_at_s = time.monotonic() + pause_s(self.failing)
        if self.problem != str(error):
            _LOGGER.warning("the deletion %s waits, and is tried again: %s", request.name, error)
        self.problem = str(error)


class LogShipping:
    """See the module. Made by `log_shipping`. Not safe for threads."""

    def __init__(
        self,
        settings: ShipperSettings,
        store: LogStore,
        shipper: Shipper,
        store_sink: LogStoreSink,
        stream_sink: "StreamSink | None",
    ) -> None:
        self._settings = settings
        self._store = store
        self.shipper = shipper
        self.store_sink = store_sink
        self.stream_sink = stream_sink
        self.upkeep = UpkeepCounts()
        self.requests = Requests(settings.prediction_log)
        self._retention = Retention(settings.retention_days, settings.days_by_endpoint)
        key = settings.log_hash_key
        self._privacy = LogPrivacy(key.get_secret_value().encode() if key is not None else b"")
        # Upkeep waits for its first turn, so that a shipper which keeps ending does nothing but ship.
        self._compact_at_s = time.monotonic() + settings.upkeep_s
        self._tidy_at_s = self._compact_at_s
        self._search_at_s = self._compact_at_s
        self._failed: Failures = {}
        self._deferred: dict[str, _Deferred] = {}

    def look(self, *, at_once: bool = False) -> bool:
        """Ship what is due; returns whether nothing waits any more. Raises OSError."""
        return self.shipper.look(at_once=at_once)

    def serve(self) -> None:
        """Do what the command line asks for. What cannot be done yet is looked at again the next time."""
        pending = self.requests.pending()
        self._deferred = {each.name: self._deferred.get(each.name, _Deferred()) for each in pending}
        for request in pending:
            if time.monotonic() < self._deferred[request.name].retry_at_s:
                continue
            answer = self.carry_out(request)
            if answer is not None:
                self.requests.finish(request, answer)

    def carry_out(self, request: Request) -> Answer | None:
        """Do what is wanted; None where it has to wait.

        A deletion waits through every failure that can pass: who asked for it may have gone with `pending`.
        """
        try:
            result = self._result(request)
        except (SkewlessError, OSError) as error:
            if request.work is Work.DELETE and not request.dry_run and not isinstance(error, InvalidRequest | NotFound):
                self._deferred.setdefault(request.name, _Deferred()).failed(request, error)
                return None
            if isinstance(error, SkewlessError):
                return Answer(failure=error.message, hint=error.hint, code=error.code)
            return Answer(failure=error.strerror or str(error), code=Unavailable.code)
        return None if result is None else Answer(result)

    def keep_up(self) -> bool:
        """Do one piece of upkeep where one is due; returns whether there was one. Failures are told and tried later."""
        now_s = time.monotonic()
        try:
            if now_s >= self._compact_at_s:
                return self._compact_when_due(now_s)
            if now_s >= self._tidy_at_s:
                self._tidy_at_s = now_s + _HOUR_S
                self._tidy()
                return True
        except (SkewlessError, OSError) as error:
            self.upkeep.failures += 1
            _LOGGER.warning("the log store is not kept up now: %s", error)
        return False

    def _result(self, request: Request) -> dict[str, Any] | None:
        if request.work is Work.SHIP:
            return {"complete": self.look(at_once=True), **asdict(self.shipper.waiting())}
        if request.work is Work.COMPACT:
            return {"compacted": [asdict(each) for each in self._compact_all()]}
        if request.work is Work.RETAIN:
            retention = self._retention if request.days is None else Retention(request.days)
            dropped = retain(self._store, retention, now=_now())
            self.upkeep.rows_dropped += sum(each.rows for each in dropped)
            self._drop_damaged(retention)
            return {"dropped": [asdict(each) for each in dropped]}
        return self._delete(request)

    def _delete(self, request: Request) -> dict[str, Any] | None:
        """The receipt of a deletion; None while segments that were begun before it are not in the store."""
        # Before its turn once, and once more when nothing of before it is being written: every other look would make
        # small files, or ask a store that is away again and again.
        spool = self._settings.prediction_log / SPOOL
        is_written = any(begun_us(path) <= request.time for path in open_segments(spool))
        looked = self._deferred.setdefault(request.name, _Deferred()).looked
        self.look(at_once=is_written not in looked)
        looked.add(is_written)
        if self.shipper.begun_before(request.time) and not request.dry_run:
            return None
        until = Micros(request.before or request.time)
        entity = Entity(request.endpoint, request.keys, until, self._privacy)
        deleted = delete_entity(self._store, entity, dry_run=request.dry_run)
        if not request.dry_run:
            self.upkeep.rows_deleted += deleted.predictions + deleted.outcomes
            # Not whose they were: that is what was to be forgotten.
            _LOGGER.info(
                "the deletion %s is done: %d predictions and %d outcomes of `%s`",
                request.name,
                deleted.predictions,
                deleted.outcomes,
                request.endpoint,
            )
        return {"request": request.name, "dry_run": request.dry_run, **asdict(deleted)}

    def _compact_when_due(self, now_s: float) -> bool:
        # First of all the next turn, so that no failure, of whatever kind, keeps the rest of the upkeep from its own.
        self._compact_at_s = now_s + self._settings.upkeep_s
        failures = len(self._failed)
        try:
            done = self._compact_once(self._failed, at_once=False)
        except Conflict:  # somebody else put the same files together
            return False
        finally:
            if len(self._failed) > failures:
                self._compact_at_s = now_s  # the next turn goes on behind the day that failed
        if done is None:
            self._failed.clear()
            return False
        self._compact_at_s = now_s
        return True

    def _compact_all(self) -> list[Compacted]:
        """Every day that can be; raises the first failure at the end."""
        found: list[Compacted] = []
        failed: Failures = {}
        while True:
            failures = len(failed)
            try:
                done = self._compact_once(failed, at_once=True)
            except (Conflict, Unavailable):
                if len(failed) == failures:
                    raise
                continue
            if done is None:
                break
            found.append(done)
        for error in failed.values():
            if isinstance(error, Unavailable):
                raise error
        return found

    def _compact_once(self, failed: Failures, *, at_once: bool) -> Compacted | None:
        """See `compact_once`; what was done is counted."""
        done = compact_once(
            self._store, file_bytes=self._settings.file_bytes, now_s=time.time(), at_once=at_once, failed=failed
        )
        if done is not None:
            self.upkeep.compactions += 1
            self.upkeep.files_replaced += done.files
            _LOGGER.info("%d files of %s of %s are one now", done.files, done.day, done.table)
            # Arrow keeps what a merge took for the next one, which may be an hour away.
            pa.default_memory_pool().release_unused()
        return done

    def _tidy(self) -> None:
        """Retention, and files that are in no table any more."""
        self.requests.tidy()
        self._drop_damaged(self._retention)
        for each in retain(self._store, self._retention, now=_now()):
            self.upkeep.rows_dropped += each.rows
            _LOGGER.info("%d rows of %s, until %s, were kept long enough", each.rows, each.table, each.days[-1])
        for table in self._store.tables():
            self.upkeep.files_removed += table.vacuum(kept_s=LOG_REPLACED_KEPT_S)
            if time.monotonic() >= self._search_at_s:
                self.upkeep.files_removed += table.vacuum(kept_s=LOG_UNNAMED_AGE_S, leftovers=True)
        if time.monotonic() >= self._search_at_s:
            self._search_at_s = time.monotonic() + LOG_UNNAMED_AGE_S

    def _drop_damaged(self, retention: Retention) -> None:
        dropped = drop_damaged(self._settings.prediction_log, retention, now=_now())
        if dropped:
            _LOGGER.info("%d damaged segments were kept long enough", dropped)


@contextmanager
def log_shipping(settings: ShipperSettings, *, stop: Callable[[], bool] = lambda: False) -> Iterator[LogShipping]:
    """Everything that ships a folder, with its lock held inside.

    `stop` ends a look between two batches. Raises Conflict where another process ships the folder, InvalidSettings,
    InvalidDefinition for a damaged journal, and Unavailable where the folder cannot be written.
    """
    folder = settings.prediction_log
    try:
        with ExitStack() as stack:
            stack.enter_context(only_shipper(folder))
            store = open_log_store(settings.log_store_address, scratch=folder / SHIPPING / SCRATCH)
            store.files.tidy()
            _warn_of_second_writers(store)
            store_sink = LogStoreSink(folder, store, round_bytes=settings.round_bytes)
            supplies = [Supply(store_sink, every_s=settings.round_s, bytes_min=settings.round_bytes)]
            stream_sink = _stream_sink(settings)
            if stream_sink is not None:
                stack.enter_context(closing(stream_sink))
                supplies.insert(0, Supply(stream_sink))
            shipper = Shipper(folder, supplies, batch_bytes=settings.round_bytes, stop=stop)
            yield LogShipping(settings, store, shipper, store_sink, stream_sink)
    except OSError as error:
        raise Unavailable(
            "the prediction log", f"`{folder}`: {error.strerror or error}", hint="check its disk and permissions"
        ) from error


def _warn_of_second_writers(store: LogStore) -> None:
    try:
        if store.files.stops_second_writers():
            return
    except Unavailable:  # its sink tells of that, and goes on when it is back
        return
    _LOGGER.warning(
        "the server of %s ignores If-None-Match: no other shipper may write to this prefix, or commits are lost",
        store.address,
    )


def _stream_sink(settings: ShipperSettings) -> "StreamSink | None":
    if settings.stream is None:
        return None
    # The clients of streams are loaded only for one.
    from skewless.adapters.segment_stream import WhenFull
    from skewless.adapters.stream_opening import open_segment_stream
    from skewless.adapters.stream_sink import StreamSink

    stream = open_segment_stream(
        settings.stream.get_secret_value(),
        name=settings.stream_name,
        bytes_max=settings.stream_bytes_max,
        when_full=WhenFull(settings.stream_when_full),
        options=settings.stream_options,
    )
    return StreamSink(stream, settings.prediction_log / SHIPPING / STREAM_NUMBERS)


def _now() -> Micros:
    return Micros(time.time_ns() // 1_000)
