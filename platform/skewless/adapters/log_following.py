"""New rows of the log store for one group, found by files: no row is read to learn that nothing is new.

    look     each table's files as the Delta log has them, without those that are known to hold nothing new
    units    of a new file only the column `segment`: rows of a segment, and of the file's day; always within one file,
             also once files are put together or rows were deleted from them
    left     units that the ledger does not have
    batch    some files of one table and day with their units, in order of the day

A file is noted as known in the transaction that takes its last unit. One that was rewritten long after its day has
segments that the ledger may have forgotten: those are left alone, and counted.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skewless.adapters.log_store import LogStore, StoredFile, StoredTable, translated
from skewless.adapters.log_tables import PREDICTIONS, day_of
from skewless.adapters.spool import begun_us
from skewless.errors import Unavailable
from skewless.limits import CONSUMED_SEGMENTS_KEEP_S
from skewless.monitor_limits import DRIFT_BATCH_ROWS, DRIFT_FILE_TRIES, DRIFT_FINE_DAYS, DRIFT_RETRY_S
from skewless.registry.consumed_segments import ConsumedSegments, StoredRows
from skewless.registry.drift_files import ID_CHARACTERS, DriftFiles, FollowedTable
from skewless.timestamps import DAY_US, SECOND_US, Micros, parse_timestamp

_SEGMENT, _ID = "segment", "prediction_id"
_FIRST_DAY = "1970-01-01"
_MEMORY_US = int(CONSUMED_SEGMENTS_KEEP_S * SECOND_US) - DAY_US
"""How far back the ledger surely remembers, which forgets by the clock now and then."""


@dataclass(frozen=True, slots=True)
class LogBatch:
    """Files of one table and day, and what of them is left to be taken. `followed` is the table once it was.

    `partial` has by segment the ends of ids of rows that came by the stream, and must not be taken again. `pending_us`
    is the beginning of the first day of the endpoint of which more files wait; None where none does.
    """

    table: StoredTable
    files: tuple[StoredFile, ...]
    units: tuple[StoredRows, ...]
    partial: Mapping[str, frozenset[str]]
    followed: FollowedTable
    pending_us: int | None

    @property
    def endpoint(self) -> str:
        """Whose predictions they are."""
        return self.table.endpoint


@dataclass(slots=True)
class _Waiting:
    """New files of one table, in order."""

    table: StoredTable
    followed: FollowedTable
    files: list[StoredFile] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FilesWaiting:
    """Files that are not counted as of the last look, those set aside with them: `since_s` (Unix time) is when the
    oldest of them came, None where none waits."""

    count: int
    since_s: float | None


@dataclass(slots=True)
class _Failed:
    """A file that could not be read: how often, and when it was tried last (µs)."""

    file: StoredFile
    times: int
    at_us: int


class LogFollower:
    """See the module. Not for threads."""

    def __init__(
        self,
        store: LogStore,
        ledger: ConsumedSegments,
        files: DriftFiles,
        *,
        group: str,
        clock: Callable[[], Micros],
        settled_s: float = 0.0,
    ) -> None:
        """Files are left alone until they are `settled_s` seconds old: where a stream delivers the same rows first."""
        self._settled_s = settled_s
        self._store = store
        self._ledger = ledger
        self._files = files
        self._group = group
        self._clock = clock
        self._waiting: list[_Waiting] = []
        self._failed: dict[tuple[str, str], _Failed] = {}
        """By table and path. One that failed DRIFT_FILE_TRIES times is set aside, for others not to wait for it."""

    @property
    def waiting(self) -> FilesWaiting:
        """Files that are new and not counted, as of the last look."""
        files = [file for each in self._waiting for file in each.files]
        files += [each.file for each in self._failed.values() if each.times >= DRIFT_FILE_TRIES]
        return FilesWaiting(len(files), min((each.modified_s for each in files), default=None))

    def next_batch(self) -> LogBatch | None:
        """The next rows to take, those of the earliest day first; None where nothing is new. Raises Unavailable."""
        if not self._waiting:
            self._waiting = list(self._new_files())
        while self._waiting:
            batch = self._batch(min(self._waiting, key=lambda each: (each.files[0].day, each.table.path)))
            if batch is not None:
                return batch
        return None

    def give_up(self) -> None:
        """Look anew: a batch could not be taken, or files are gone."""
        self._waiting = []

    def tables(self, batch: LogBatch, names: Callable[[Sequence[str]], list[str]]) -> Iterator[Any]:
        """The rows of a batch that are left, a row group at a time, with the columns that `names` chooses.

        Texts that repeat themselves are dictionary-encoded. Raises Unavailable.
        """
        left = {each.segment for each in batch.units}
        also = (_SEGMENT, *((_ID,) if batch.partial else ()))
        for file in batch.files:
            with self._reading(batch.table, file) as path:
                for rows in read_rows(path, names, also=also):
                    yield _chosen(rows, left, batch.partial)

    @contextmanager
    def _reading(self, table: StoredTable, file: StoredFile) -> Iterator[Path]:
        """A file of a table to be read; that it could not be is remembered."""
        place = table.path, file.path
        try:
            with translated(), table.fetched(file) as path:
                yield path
        except Unavailable:
            failed = self._failed.setdefault(place, _Failed(file, 0, 0))
            failed.times, failed.at_us = failed.times + 1, self._clock()
            raise

    def _is_set_aside(self, table: StoredTable, file: StoredFile) -> bool:
        failed = self._failed.get((table.path, file.path))
        if failed is None or failed.times < DRIFT_FILE_TRIES:
            return False
        return self._clock() < failed.at_us + int(DRIFT_RETRY_S * SECOND_US)

    def _new_files(self) -> Iterator[_Waiting]:
        tables = [each for each in self._store.tables(PREDICTIONS) if each.entries]
        newest_days: dict[str, str] = {}
        today = day_of(self._clock())
        failed, self._failed = self._failed, {}
        for table in tables:
            # A day to come, of a clock that is ahead, does not make today's rows old.
            day = max((each.day for each in table.entries if each.day <= today), default=_FIRST_DAY)
            newest_days[table.endpoint] = max(newest_days.get(table.endpoint, day), day)
        for table in tables:
            followed = self._files.table(table.path)
            settled_s = self._clock() / SECOND_US - self._settled_s
            new = [
                each
                for each in table.entries
                if each.path not in followed.files and (not self._settled_s or each.modified_s <= settled_s)
            ]
            # Of files that are gone or counted by now nothing is remembered.
            places = [(table.path, each.path) for each in new]
            self._failed |= {place: failed[place] for place in places if place in failed}
            new = [each for each in new if not self._is_set_aside(table, each)]
            if not new:
                continue
            live = frozenset(each.path for each in table.entries)
            newest = parse_timestamp(newest_days[table.endpoint])
            # Days of which counts are no longer kept one by one are for a recount that is asked for.
            wanted = [each for each in new if parse_timestamp(each.day) > newest - DRIFT_FINE_DAYS * DAY_US]
            old = {each.path for each in new} - {each.path for each in wanted}
            followed = replace(followed, files=(followed.files & live) | old)
            if wanted:
                yield _Waiting(table, followed, wanted)
            else:
                self._files.note(followed)

    def _batch(self, waiting: _Waiting) -> LogBatch | None:
        """The next files of a table with what is left of them; None where nothing is, which is noted."""
        files = [waiting.files.pop(0)]
        rows = files[0].rows
        while (
            waiting.files and waiting.files[0].day == files[0].day and rows + waiting.files[0].rows <= DRIFT_BATCH_ROWS
        ):
            rows += waiting.files[0].rows
            files.append(waiting.files.pop(0))
        units = [unit for file in files for unit in self._units(waiting.table, file)]
        left = self._ledger.left_in_store(self._group, units)
        taken, skipped = self._without_forgotten(left, waiting.followed)
        known = waiting.followed.files | {each.path for each in files}
        followed = replace(waiting.followed, files=known, skipped_segments=waiting.followed.skipped_segments + skipped)
        waiting.followed = followed
        if not waiting.files:
            self._waiting.remove(waiting)
        if not taken:
            self._files.note(followed)
            return None
        partial = self._files.partial_ids((each.segment for each in taken), waiting.table.path)
        return LogBatch(waiting.table, tuple(files), taken, partial, followed, self._pending_us(waiting.table.endpoint))

    def _units(self, table: StoredTable, file: StoredFile) -> list[StoredRows]:
        with self._reading(table, file) as path, pq.ParquetFile(path, memory_map=True) as parquet:
            counted = parquet.read(columns=[_SEGMENT], use_threads=False).column(_SEGMENT).value_counts()
        named = zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)
        return [StoredRows(segment, table.path, file.day, rows) for segment, rows in sorted(named)]

    def _without_forgotten(
        self, left: Sequence[StoredRows], followed: FollowedTable
    ) -> tuple[tuple[StoredRows, ...], int]:
        """What can be taken, and how many units may have been taken and forgotten."""
        horizon = self._clock() - _MEMORY_US
        if followed.started_time >= horizon:
            return tuple(left), 0
        fresh = tuple(each for each in left if not 0 < begun_us(Path(each.segment)) < horizon)
        return fresh, len(left) - len(fresh)

    def _pending_us(self, endpoint: str) -> int | None:
        days = [each.files[0].day for each in self._waiting if each.table.endpoint == endpoint and each.files]
        return parse_timestamp(min(days)) if days else None


def read_rows(path: Path, names: Callable[[Sequence[str]], list[str]], *, also: Sequence[str] = ()) -> Iterator[Any]:
    """Some columns of a Parquet file's row groups, texts dictionary-encoded."""
    with pq.ParquetFile(path, memory_map=True) as plain:
        schema = plain.schema_arrow
    chosen = list(dict.fromkeys([*names(schema.names), *also]))
    texts = [name for name in chosen if pa.types.is_string(schema.field(name).type) and name != _ID]
    with pq.ParquetFile(path, memory_map=True, read_dictionary=texts) as parquet:
        for group in range(parquet.num_row_groups):
            yield parquet.read_row_group(group, columns=chosen, use_threads=False)


def _chosen(rows: Any, left: set[str], partial: Mapping[str, frozenset[str]]) -> Any:
    """The rows of segments that are left, without those that came by the stream."""
    segments = rows.column(_SEGMENT).combine_chunks()
    distinct = pc.unique(segments).to_pylist()
    if not left.issuperset(distinct):
        rows = rows.filter(pc.is_in(segments.cast(pa.string()), value_set=pa.array(sorted(left), pa.string())))
    if not any(each in partial for each in distinct):
        return rows
    ends = (each[-ID_CHARACTERS:] for each in rows.column(_ID).to_pylist())
    pairs = zip(rows.column(_SEGMENT).to_pylist(), ends, strict=True)
    new = np.array([end not in partial.get(segment, ()) for segment, end in pairs], dtype=np.bool_)
    return rows.filter(pa.array(new))
