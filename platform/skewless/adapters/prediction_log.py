"""The prediction log in a folder: memory → spool file → Parquet, so that an answered prediction is kept exactly once.

    append()   puts a request's batch into memory                                     (event loop, never blocks)
    flush      every `flush_ms` one thread writes what is in memory to a spool file   (survives a kill -9)
    seal       a spool file that is large or old becomes Parquet and is then deleted  (another thread)
    recover    spool files of dead processes are sealed when a gateway starts

A segment is in its spool file, in Parquet or, while it is being sealed, in both under one name; readers
(`prediction_reader.py`) take one.
"""

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from skewless.adapters.prediction_sealer import seal
from skewless.adapters.spool import SUFFIX, SpoolFile
from skewless.errors import Unavailable
from skewless.limits import LOG_BUFFER_ROWS_MAX, OUTCOMES_MAX, ROWS_MAX
from skewless.serving.records import AnsweredBatch, LogEntry, Outcome, TallyBatch, encode, entry_rows
from skewless.serving.role_tally import RoleTally

PART = "prediction log"
SEGMENT_BYTES_MAX = 64 * 1024 * 1024
"""Spool bytes of one segment: about 30,000 rows of 44 features, and as much memory while it is sealed."""
SEGMENT_AGE_S = 60.0
"""A segment with anything in it is sealed after this long, so that Parquet follows the traffic by a minute."""
SPOOL = "spool"
"""The folder of spool files within a log's folder."""
_CLOSE_TIMEOUT_S = 10.0
_LOGGER = logging.getLogger(__name__)

Seal = Callable[[Path, Path], None]
"""Turns a spool file (second) into Parquet in the log's folder (first), and leaves it; raises where it cannot."""

assert max(ROWS_MAX, OUTCOMES_MAX) <= LOG_BUFFER_ROWS_MAX, "one request must fit into an empty buffer"


class FolderPredictionLog:
    """Implements `PredictionLog`. Several processes may share the folder; each has spool files of its own."""

    def __init__(
        self,
        folder: Path,
        *,
        flush_ms: int = 200,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
        segment_age_s: float = SEGMENT_AGE_S,
        seal: Seal = seal,
    ) -> None:
        """Starts to write, and to recover what dead processes left behind. Raises OSError for an unusable folder."""
        self._folder = folder
        self._flush_s = flush_ms / 1_000
        self._segment_bytes_max = segment_bytes_max
        self._segment_age_s = segment_age_s
        self._spools = folder / SPOOL
        self._spools.mkdir(parents=True, exist_ok=True)
        self._seal = seal
        self._changed = threading.Condition()
        self._entries: list[LogEntry] = []
        self._rows = 0
        self._waiters: list[Future[None]] = []
        self._closing = False
        self._sealer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prediction-log-seal")
        # Beside the first predictions and not before them: a kill -9 must not make the next start slower.
        self._sealer.submit(recover, folder, seal)
        self._spool: SpoolFile | None = None
        self._spool_since = 0.0
        self._writer = threading.Thread(target=self._write_until_closed, name="prediction-log", daemon=True)
        self._writer.start()

    @property
    def buffered_rows(self) -> int:
        """Rows that are in memory only."""
        return self._rows

    def append(self, batch: AnsweredBatch) -> None:
        """See `PredictionLog.append`."""
        self._take(batch, batch.rows)

    def append_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """See `PredictionLog.append_outcomes`."""
        self._take(tuple(outcomes), len(outcomes))

    def append_tallies(self, tallies: Sequence[RoleTally]) -> None:
        """See `PredictionLog.append_tallies`."""
        self._take(TallyBatch.of(tallies), len(tallies))

    async def commit(self) -> None:
        """See `PredictionLog.commit`: flushes when `flush_ms` is 0 or LOG_BUFFER_ROWS_MAX rows are in memory."""
        if self._flush_s and self._rows < LOG_BUFFER_ROWS_MAX:
            return
        waiter: Future[None] = Future()
        with self._changed:
            self._waiters.append(waiter)
            self._changed.notify()
        await asyncio.wrap_future(waiter)

    async def close(self) -> None:
        """Flush, seal and stop. Nothing may be appended afterwards."""
        await asyncio.to_thread(self._close)

    def _take(self, entry: LogEntry, rows: int) -> None:
        with self._changed:
            self._entries.append(entry)
            self._rows += rows

    def _close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._writer.join(_CLOSE_TIMEOUT_S)
        self._sealer.shutdown(wait=True)

    def _write_until_closed(self) -> None:
        """The writer thread: one flush per interval, or at once when a request waits for it."""
        closing = False
        while not closing:
            with self._changed:
                if not self._waiters and not self._closing:
                    self._changed.wait(self._flush_s or self._segment_age_s)
                closing = self._closing
            self._flush()
            self._seal_if_due(at_once=closing)
        if self._spool is not None:
            self._spool.release()

    def _flush(self) -> None:
        with self._changed:
            entries, self._entries = self._entries, []
            # One whose caller hung up is given up; from here on none can be, so that each can be told.
            waiters, self._waiters = [each for each in self._waiters if each.set_running_or_notify_cancel()], []
        try:
            if entries:
                self._open_spool().append([encode(entry) for entry in entries])
        except Exception as error:  # a thread's boundary: without it, waiting requests would wait for ever
            with self._changed:
                self._entries = entries + self._entries
            _LOGGER.exception("the prediction log cannot be written; its records stay in memory")
            refusal = Unavailable(PART, str(error), hint="check the disk that holds the prediction log")
            for waiter in waiters:
                waiter.set_exception(refusal)
            return
        with self._changed:
            self._rows -= sum(map(entry_rows, entries))
        for waiter in waiters:
            waiter.set_result(None)

    def _open_spool(self) -> SpoolFile:
        if self._spool is None:
            segment = f"{time.time_ns() // 1_000:014x}{uuid.uuid4().hex[:12]}"
            self._spool = SpoolFile.create(self._spools / f"{segment}{SUFFIX}")
            self._spool_since = time.monotonic()
        return self._spool

    def _seal_if_due(self, *, at_once: bool) -> None:
        spool = self._spool
        if spool is None:
            return
        is_old = time.monotonic() - self._spool_since >= self._segment_age_s
        if at_once or is_old or spool.size >= self._segment_bytes_max:
            self._spool = None
            self._sealer.submit(_seal, self._folder, spool, self._seal)


def recover(folder: Path, seal: Seal = seal) -> int:
    """Seal the spool files that dead processes left in a log's folder; returns how many. Safe to repeat."""
    recovered = 0
    for path in sorted((folder / SPOOL).glob(f"*{SUFFIX}")):
        spool = SpoolFile.take_over(path)
        if spool is not None:
            _seal(folder, spool, seal)
            recovered += 1
    return recovered


def _seal(folder: Path, spool: SpoolFile, seal: Seal) -> None:
    """Turn a spool file into Parquet and delete it. A file that cannot be sealed stays for the next start."""
    try:
        seal(folder, spool.path)
    except Exception:  # a task boundary: the records are safe in the spool file, serving goes on
        _LOGGER.exception("segment %s of the prediction log cannot be sealed; it stays in its spool file", spool.path)
        spool.release()
    else:
        spool.delete()
