"""The prediction log of one process: memory, then segments in a folder, from where a shipper takes them.

    append()   puts a request's batch into memory                                          (event loop, never blocks)
    flush      every `flush_ms` one thread makes blocks of what is in memory and writes them      (survives a kill -9)
    sync       where asked, before whoever waits is answered                                    (survives a power cut)
    seal       a segment that is large or old enough is renamed, and is the shipper's from then on  (adapters/spool.py)

Where the disk is full, or the folder holds as much as it may that is not shipped, everything written stays, memory
fills up to LOG_BUFFER_ROWS_MAX, and then the log refuses or drops, as it was told. It tries again by itself.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from skewless.adapters.log_segments import LogCounts, SegmentWriter, SpoolFull
from skewless.adapters.spool import PART, SPOOL
from skewless.errors import Unavailable
from skewless.limits import (
    LOG_BUFFER_ROWS_MAX,
    LOG_CLOSE_TRY_S,
    LOG_RETRY_S,
    LOG_TOLD_EVERY_S,
    OUTCOMES_MAX,
    ROWS_MAX,
)
from skewless.serving.log_policy import FLUSH_MS, SEGMENT_AGE_S, SEGMENT_BYTES_MAX, SPOOL_BYTES_MAX, WhenFull
from skewless.serving.log_privacy import LogPrivacy
from skewless.serving.log_sampling import NO_SAMPLING, LogSampling
from skewless.serving.ports import LogState
from skewless.serving.records import AnsweredBatch, LogEntry, Outcome, TallyBatch, entry_rows
from skewless.serving.role_tally import RoleTally

_LOGGER = logging.getLogger(__name__)

assert max(ROWS_MAX, OUTCOMES_MAX) <= LOG_BUFFER_ROWS_MAX, "one request must fit into an empty buffer"


class FolderPredictionLog:
    """Implements `PredictionLog`. Several processes may share the folder; each has segments of its own."""

    def __init__(
        self,
        folder: Path,
        *,
        flush_ms: int = FLUSH_MS,
        fsync: bool = False,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
        segment_age_s: float = SEGMENT_AGE_S,
        spool_bytes_max: int = SPOOL_BYTES_MAX,
        when_full: WhenFull = WhenFull.REFUSE,
        privacy: LogPrivacy | None = None,
        sampling: LogSampling = NO_SAMPLING,
        flushed: Callable[[float], None] = lambda _took_s: None,
    ) -> None:
        """Starts to write. `flushed` is told how many seconds each flush took, by the writing thread.

        Raises OSError for an unusable folder.
        """
        self._writer = SegmentWriter(
            folder / SPOOL,
            fsync=fsync,
            segment_bytes_max=segment_bytes_max,
            segment_age_s=segment_age_s,
            spool_bytes_max=spool_bytes_max,
            privacy=privacy or LogPrivacy(),
            sampling=sampling,
        )
        self._flush_s = flush_ms / 1_000
        self._drops = when_full is WhenFull.DROP
        self._flushed = flushed
        self._changed = threading.Condition()
        self._entries: list[LogEntry] = []
        self._rows = 0
        self._waiters: list[Future[None]] = []
        self._failure: OSError | None = None
        self._told_s = 0.0
        self._closing = False
        self._thread = threading.Thread(target=self._write_until_closed, name="prediction-log", daemon=True)
        self._thread.start()

    @property
    def counts(self) -> LogCounts:
        """What was done so far; goes on counting."""
        return self._writer.counts

    def state(self) -> LogState:
        """See `PredictionLog.state`."""
        failure = self._failure
        return LogState(self._rows, "" if failure is None else _reason(failure))

    def refuse_if_full(self, rows: int) -> None:
        """See `PredictionLog.refuse_if_full`."""
        if self._failure is not None and not self._drops and not self._has_room(rows):
            raise self._refusal()

    def append(self, batch: AnsweredBatch) -> None:
        """See `PredictionLog.append`."""
        self._take(batch, batch.rows)

    def append_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """See `PredictionLog.append_outcomes`."""
        self._take(tuple(outcomes), len(outcomes))

    def append_tallies(self, tallies: Sequence[RoleTally]) -> None:
        """See `PredictionLog.append_tallies`."""
        try:
            self._take(TallyBatch.of(tallies), len(tallies))
        except Unavailable:  # nobody waits for tallies
            self._drop(len(tallies))

    async def commit(self) -> None:
        """See `PredictionLog.commit`: flushes when `flush_ms` is 0 or LOG_BUFFER_ROWS_MAX rows are in memory."""
        if self._flush_s and self._rows < LOG_BUFFER_ROWS_MAX:
            return
        if self._drops and self._failure is not None:
            return
        waiter: Future[None] = Future()
        with self._changed:
            self._waiters.append(waiter)
            self._changed.notify()
        await asyncio.wrap_future(waiter)

    async def close(self) -> None:
        """Flush, seal and stop. Nothing may be appended afterwards."""
        await asyncio.to_thread(self._close)

    # --- the event loop's side ---------------------------------------------------------------------------------------

    def _take(self, entry: LogEntry, rows: int) -> None:
        with self._changed:
            if self._failure is None or self._has_room(rows):
                self._entries.append(entry)
                self._rows += rows
                return
        if not self._drops:
            raise self._refusal()
        self._drop(rows)

    def _has_room(self, rows: int) -> bool:
        """Whether memory takes so many rows while the disk does not.

        Where every answer waits for its flush there is no use in it: nobody could be answered.
        """
        return (self._drops or self._flush_s > 0) and self._rows + rows <= LOG_BUFFER_ROWS_MAX

    def _refusal(self) -> Unavailable:
        failure = self._failure
        if isinstance(failure, SpoolFull):
            hint = "see that the shipper runs and reaches its log store; what it ships makes room"
        else:
            hint = "check the disk that holds the prediction log"
        return Unavailable(PART, _reason(failure) if failure is not None else "it could not be written", hint=hint)

    def _drop(self, rows: int) -> None:
        self._writer.counts.drop("spool_full" if isinstance(self._failure, SpoolFull) else "disk", rows)

    def _close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(LOG_CLOSE_TRY_S + LOG_RETRY_S)

    # --- the writing thread's side -----------------------------------------------------------------------------------

    def _write_until_closed(self) -> None:
        """One flush per interval, or at once when a request waits for it."""
        while True:
            with self._changed:
                if not self._waiters and not self._closing:
                    self._changed.wait(self._pause_s())
                closing = self._closing
            if closing:
                break
            self._flush()
            self._writer.seal_if_due()
        self._flush_for_the_last_time()
        self._writer.close()

    def _pause_s(self) -> float:
        if self._failure is not None:
            return LOG_RETRY_S
        return min(self._flush_s or self._writer.due_in_s(), self._writer.due_in_s())

    def _flush(self, *, heed_bound: bool = True) -> None:
        started_s = time.monotonic()
        with self._changed:
            entries, self._entries = self._entries, []
            # One whose caller hung up is given up; from here on none can be, so that each can be told.
            waiters, self._waiters = [each for each in self._waiters if each.set_running_or_notify_cancel()], []
        left, failure = self._writer.write(entries, heed_bound=heed_bound)
        with self._changed:
            self._entries = left + self._entries
            self._rows -= sum(map(entry_rows, entries)) - sum(map(entry_rows, left))
            self._note(failure)
        for waiter in waiters:
            if failure is None or self._drops:
                waiter.set_result(None)
            else:
                waiter.set_exception(self._refusal())
        if entries:
            self._flushed(time.monotonic() - started_s)

    def _flush_for_the_last_time(self) -> None:
        """The bound of the spool holds no longer: it is kept for later what would be lost now."""
        give_up_s = time.monotonic() + LOG_CLOSE_TRY_S
        self._flush(heed_bound=False)
        while self._entries and time.monotonic() < give_up_s:
            with self._changed:
                self._changed.wait(LOG_RETRY_S)
            self._flush(heed_bound=False)
        if self._entries:
            self._drop(self._rows)
            _LOGGER.error("%d records of the prediction log are lost: %s", self._rows, self.state().failure)

    def _note(self, failure: OSError | None) -> None:
        """Remember what a flush came to, and tell it where that is new, or was last told long ago."""
        before, self._failure = self._failure, failure
        now_s = time.monotonic()
        if failure is None:
            if before is not None:
                _LOGGER.warning("the prediction log is written again; %d records are in memory", self._rows)
        elif before is None or now_s - self._told_s >= LOG_TOLD_EVERY_S:
            self._told_s = now_s
            dropped = sum(self._writer.counts.dropped_rows.values())
            _LOGGER.error(
                "the prediction log cannot be written: %s; %d records are in memory, %d were dropped",
                _reason(failure), self._rows, dropped,
            )  # fmt: skip


def _reason(failure: OSError) -> str:
    """In words, without the path of a file, which is no caller's business."""
    return failure.strerror or str(failure)
