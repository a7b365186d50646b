"""The prediction log in a folder: memory → spool file → Parquet, so that an answered prediction is kept exactly once.

    append()   puts a request's batch into memory                                     (event loop, never blocks)
    flush      every `flush_ms` one thread writes what is in memory to a spool file   (survives a kill -9)
    seal       a spool file that is large or old becomes Parquet and is then deleted  (another thread)
    recover    spool files of dead processes are sealed when a gateway starts

A segment is in its spool file, in Parquet or, while it is being sealed, in both under one name; readers take one.
"""

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from skewless.adapters.prediction_parquet import (
    OUTCOME_SCHEMA,
    OUTCOMES,
    PREDICTIONS,
    TIMESTAMP,
    outcome_table,
    prediction_table,
    read_table,
    segment_of,
    write_segment,
)
from skewless.adapters.spool import SUFFIX, SpoolFile, read_frames
from skewless.errors import InvalidRequest, NotFound, Unavailable
from skewless.limits import LOG_BUFFER_ROWS_MAX, OUTCOMES_MAX, ROWS_MAX
from skewless.serving.records import AnsweredBatch, LogEntry, Outcome, decode, encode
from skewless.timestamps import DAY_US, parse_timestamp

PART = "prediction log"
SEGMENT_BYTES_MAX = 64 * 1024 * 1024
"""Spool bytes of one segment: about 30,000 rows of 44 features, and as much memory while it is sealed."""
SEGMENT_AGE_S = 60.0
"""A segment with anything in it is sealed after this long, so that Parquet follows the traffic by a minute."""
_SPOOL = "spool"
_CLOSE_TIMEOUT_S = 10.0
_LOGGER = logging.getLogger(__name__)

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
    ) -> None:
        """Recovers what dead processes left behind, then starts to write. Raises OSError for an unusable folder."""
        self._folder = folder
        self._flush_s = flush_ms / 1_000
        self._segment_bytes_max = segment_bytes_max
        self._segment_age_s = segment_age_s
        self._spools = folder / _SPOOL
        self._spools.mkdir(parents=True, exist_ok=True)
        recover(folder)
        self._changed = threading.Condition()
        self._entries: list[LogEntry] = []
        self._rows = 0
        self._waiters: list[Future[None]] = []
        self._closing = False
        self._sealer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prediction-log-seal")
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
            waiters, self._waiters = self._waiters, []
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
            self._rows -= sum(entry.rows if isinstance(entry, AnsweredBatch) else len(entry) for entry in entries)
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
            self._sealer.submit(_seal, self._folder, spool)


def recover(folder: Path) -> int:
    """Seal the spool files that dead processes left in a log's folder; returns how many. Safe to repeat."""
    recovered = 0
    for path in sorted((folder / _SPOOL).glob(f"*{SUFFIX}")):
        spool = SpoolFile.take_over(path)
        if spool is not None:
            _seal(folder, spool)
            recovered += 1
    return recovered


def read_predictions(folder: Path, endpoint: str, start: int, end: int) -> Any:
    """An Arrow table of an endpoint's predictions with `start` <= as_of < `end` (µs), by as_of and then id.

    Includes what is still in spool files, but nothing that was not flushed yet. Columns that only some bundles
    have are null elsewhere. Raises InvalidRequest where two bundles declare a column with different dtypes.
    """

    def wanted(entry: LogEntry) -> bool:
        return isinstance(entry, AnsweredBatch) and entry.endpoint == endpoint and start <= entry.as_of < end

    def is_wanted_file(path: Path) -> bool:
        return path.parent.name == f"endpoint={endpoint}" and _is_day_within(path.parent.parent, start, end)

    spooled, segments = _read_spools(folder, wanted)
    by_bundle: dict[str, list[AnsweredBatch]] = {}
    for entry in spooled:
        assert isinstance(entry, AnsweredBatch), "`wanted` keeps nothing else"
        by_bundle.setdefault(entry.bundle, []).append(entry)
    tables = [prediction_table(batches) for batches in by_bundle.values()]
    files = sorted((folder / PREDICTIONS).glob("day=*/endpoint=*/*.parquet"))
    tables += [_within(table, "as_of", start, end) for table in _read_files(files, segments, is_wanted_file)]
    return _joined(tables, endpoint).sort_by([("as_of", "ascending"), ("prediction_id", "ascending")])


def find_prediction(folder: Path, prediction_id: str) -> Any:
    """The record of one prediction as an Arrow table of one row. Raises NotFound; reads every file of the log."""

    def wanted(entry: LogEntry) -> bool:
        return isinstance(entry, AnsweredBatch) and prediction_id in entry.prediction_ids

    spooled, segments = _read_spools(folder, wanted)
    tables = [prediction_table([entry]) for entry in spooled if isinstance(entry, AnsweredBatch)]
    files = sorted((folder / PREDICTIONS).glob("day=*/endpoint=*/*.parquet"))
    tables += _read_files(files, segments, lambda path: _holds(path, prediction_id))
    for table in tables:
        found = table.filter(pc.equal(table.column("prediction_id"), prediction_id))
        if found.num_rows:
            return found
    raise NotFound(
        "prediction",
        prediction_id,
        hint="the log keeps a prediction at the latest one flush interval after its answer",
    )


def _holds(path: Path, prediction_id: str) -> bool:
    """Whether a Parquet file has a prediction, by reading that one column."""
    ids = read_table(path, columns=["prediction_id"]).column("prediction_id")
    return bool(pc.any(pc.equal(ids, prediction_id)).as_py())


def read_outcomes(folder: Path, start: int, end: int) -> Any:
    """An Arrow table of the outcomes received from `start` to before `end` (µs), in order of receipt.

    A prediction whose outcome was sent twice is there twice; the later one counts.
    """

    def wanted(entry: LogEntry) -> bool:
        return not isinstance(entry, AnsweredBatch)

    spooled, segments = _read_spools(folder, wanted)
    outcomes = [each for entry in spooled if isinstance(entry, tuple) for each in entry]
    files = sorted((folder / OUTCOMES).glob("day=*/*.parquet"))
    tables = [OUTCOME_SCHEMA.empty_table(), outcome_table(outcomes)]
    tables += _read_files(files, segments, lambda path: _is_day_within(path.parent, start, end))
    return _within(pa.concat_tables(tables), "received_time", start, end).sort_by("received_time")


def _seal(folder: Path, spool: SpoolFile) -> None:
    """Turn a spool file into Parquet and delete it. A file that cannot be sealed stays for the next start."""
    try:
        write_segment(folder, spool.path.stem, [decode(frame) for frame in read_frames(spool.path)])
    except Exception:  # a task boundary: the records are safe in the spool file, serving goes on
        _LOGGER.exception("segment %s of the prediction log cannot be sealed; it stays in its spool file", spool.path)
        spool.release()
    else:
        spool.delete()


def _read_spools(folder: Path, wanted: Callable[[LogEntry], bool]) -> tuple[list[LogEntry], frozenset[str]]:
    """Wanted entries of every spool file, and the names of the segments they come from.

    Spool files are read before Parquet: one that is gone by then has all its Parquet files in place, and one that
    was read counts in place of whatever Parquet files it has got meanwhile.
    """
    entries: list[LogEntry] = []
    segments: set[str] = set()
    for path in sorted((folder / _SPOOL).glob(f"*{SUFFIX}")):
        try:
            frames = read_frames(path)
        except FileNotFoundError:
            continue
        segments.add(path.stem)
        entries += [entry for entry in map(decode, frames) if wanted(entry)]
    return entries, frozenset(segments)


def _read_files(files: Sequence[Path], segments: frozenset[str], wanted: Callable[[Path], bool]) -> list[Any]:
    return [read_table(path) for path in files if segment_of(path) not in segments and wanted(path)]


def _is_day_within(folder: Path, start: int, end: int) -> bool:
    first = parse_timestamp(folder.name.removeprefix("day="))
    return first < end and start < first + DAY_US


def _within(table: Any, column: str, start: int, end: int) -> Any:
    moments = table.column(column).cast(pa.int64()).to_numpy()
    return table.filter(pa.array((moments >= start) & (moments < end)))


def _joined(tables: list[Any], endpoint: str) -> Any:
    if not tables:
        return pa.table({"prediction_id": pa.array([], pa.string()), "as_of": pa.array([], TIMESTAMP)})
    try:
        return pa.concat_tables(tables, promote_options="default").unify_dictionaries()
    except pa.ArrowTypeError as error:
        raise InvalidRequest(
            f"bundles of endpoint `{endpoint}` declare a column with different dtypes: {error}",
            path="start, end",
            allowed="a period in which the endpoint's bundles agree on dtypes",
            hint="read the periods before and after the change separately",
        ) from error
