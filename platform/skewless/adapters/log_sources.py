"""Where the records of a prediction log lie at one moment: segments of the spool, and Parquet files of the log store.

The spool is read first and the store afterwards, without the segments that were seen in the spool: a segment that is
shipped meanwhile is in both for a while, and is counted once. What the spool holds is decoded here, and beyond a bound
goes to Parquet files in a temporary folder, so that a store that is away for a day costs its readers no memory.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.adapters.log_parquet import DAY
from skewless.adapters.log_store import LogStore
from skewless.adapters.log_tables import PREDICTIONS, LogTable, plain
from skewless.adapters.segment_sinks import entries_of, tables_of
from skewless.adapters.spool import PART, SPOOL, segment_frames
from skewless.errors import Unavailable
from skewless.limits import LOG_READ_SPOOL_BYTES
from skewless.serving.log_blocks import LoggedEntry

_LOGGER = logging.getLogger(__name__)


class Days(NamedTuple):
    """From the first to the last UTC day, both inclusive, such as 2013-05-01; None: open."""

    first: str | None = None
    last: str | None = None


ALL_DAYS = Days()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records are looked for, by kind with the days of each; the rest is about predictions."""

    kinds: Mapping[str, "Days"]
    endpoint: str | None = None
    columns: str | None = None
    """One set of columns, by its name; None: all."""
    prediction_id: str | None = None
    entry: Callable[[LoggedEntry], bool] = lambda _entry: True
    """Whether an entry of the spool can hold any of what is wanted."""


@dataclass(slots=True)
class Source:
    """Records of one kind with one set of columns. `schema` has their stored types, without `day`."""

    kind: str
    endpoint: str
    columns: str
    schema: Any
    stored: list[str] = field(default_factory=list)
    """Parquet files of the store, as its file system names them."""
    spilled: list[str] = field(default_factory=list)
    """Parquet files of what the spool holds."""
    held: list[Any] = field(default_factory=list)
    """Arrow tables of what the spool holds."""


@dataclass(frozen=True, slots=True)
class LogSources:
    """What there is of what was wanted. `seen` are the segments that were read from the spool."""

    sources: list[Source]
    seen: list[str]

    def of(self, kind: str) -> list[Source]:
        """The sources of one kind."""
        return [each for each in self.sources if each.kind == kind]


def log_sources(folder: Path | None, store: LogStore | None, wanted: Wanted, *, spill: Path) -> LogSources:
    """The records of a log's folder (its spool) and store at this moment; `spill` is a folder for temporary files.

    What of the spool is damaged is told in the program's log and left out, as the shipper does. Raises Unavailable
    where either cannot be read, or a later version wrote it.
    """
    found: dict[tuple[str, str, str], Source] = {}
    seen: list[str] = []
    spool = _Spooled(found, spill)
    if folder is not None:
        try:
            for segment, frames in segment_frames(folder / SPOOL):
                seen.append(segment)
                for table in _tables(segment, frames, wanted):
                    if _is_wanted(table, wanted):
                        spool.add(table)
        except OSError as error:
            raise Unavailable(
                PART, f"`{folder}` cannot be read: {error.strerror}", hint="check the folder's permissions"
            ) from error
    if store is not None:
        _add_stored(found, store, wanted)
    return LogSources(list(found.values()), seen)


def _add_stored(found: dict[tuple[str, str, str], Source], store: LogStore, wanted: Wanted) -> None:
    for kind, days in sorted(wanted.kinds.items()):
        is_prediction = kind == PREDICTIONS
        for table in store.tables(kind, wanted.endpoint if is_prediction else None):
            if is_prediction and wanted.columns not in (None, table.columns):
                continue
            files = table.files(*days, prediction_id=wanted.prediction_id if is_prediction else None)
            source = found.setdefault(
                (kind, table.endpoint, table.columns),
                Source(kind, table.endpoint, table.columns, _without_day(table.schema)),
            )
            source.stored += files


class _Spooled:
    """Collects tables of the spool into sources; beyond LOG_READ_SPOOL_BYTES they go to files."""

    def __init__(self, found: dict[tuple[str, str, str], Source], spill: Path) -> None:
        self._found = found
        self._spill = spill
        self._held_bytes = 0
        self._files = 0

    def add(self, given: LogTable) -> None:
        table = plain(given.table).drop_columns([DAY])
        source = self._found.setdefault(
            (given.kind, given.endpoint, given.columns),
            Source(given.kind, given.endpoint, given.columns, table.schema),
        )
        if self._held_bytes + table.nbytes <= LOG_READ_SPOOL_BYTES:
            self._held_bytes += table.nbytes
            source.held.append(table)
            return
        path = self._spill / f"spooled-{self._files}.parquet"
        self._files += 1
        pq.write_table(table, path, compression="lz4")
        source.spilled.append(str(path))


def _tables(segment: str, frames: list[bytes], wanted: Wanted) -> list[LogTable]:
    """What a segment of the spool holds that may be wanted."""
    faults: list[str] = []
    entries = list(filter(wanted.entry, entries_of(segment, frames, faults)))
    tables = tables_of(segment, entries, faults)
    if faults:
        _LOGGER.warning(
            "segment %s of the prediction log is read without what is damaged: %s", segment, "; ".join(faults)
        )
    return tables


def _is_wanted(table: LogTable, wanted: Wanted) -> bool:
    is_other = table.kind == PREDICTIONS and not (
        wanted.endpoint in (None, table.endpoint) and wanted.columns in (None, table.columns)
    )
    return table.kind in wanted.kinds and not is_other


def _without_day(schema: Any) -> Any:
    """In the store the day is part of a file's path, and no reader needs it."""
    return pa.schema([each for each in schema if each.name != DAY])
