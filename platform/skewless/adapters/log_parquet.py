"""Parquet files of the log store: written with what a look-up by id needs, and merged in order within little memory.

Files hold plain types and no Arrow schema, so that every engine reads them alike; the column `day` is in their path and
not in them. A file of one round is in the order of its segments. A merged one is in order of its table's id, cut into
row groups of LOG_ROW_GROUP_ROWS rows whose statistics tell which of them can hold an id.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skewless.adapters.arrow_columns import without_unused_words
from skewless.adapters.log_files import LogFiles
from skewless.adapters.log_tables import OUTCOMES, PREDICTIONS, TALLIES, stored_schema
from skewless.limits import LOG_ROW_GROUP_ROWS

ORDER = {PREDICTIONS: "prediction_id", OUTCOMES: "outcome_id", TALLIES: "end"}
"""The column that the rows of a merged file are in order of; ids begin with the time at which they were made."""
_STATISTICS = frozenset({"prediction_id", "as_of", "outcome_id", "received_time", "start", "end"})
"""Columns whose smallest and largest value the Delta log has for each file. None of them is about a person."""
_UNIQUE = frozenset(
    {"prediction_id", "live_prediction_id", "request_id", "tensor_digest", "outcome_id", "entity", "tally"}
)
"""Texts that hardly ever come twice in a row group."""
DAY = "day"

Keep = Callable[[Any], Any]
"""The rows of a table that stay."""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file that is there and no commit names yet. `statistics` is the JSON that Delta keeps of it."""

    path: str
    day: str
    size_bytes: int
    rows: int
    statistics: str


def write_file(files: LogFiles, path: str, day: str, tables: Iterable[Any]) -> WrittenFile | None:
    """Write and keep a file of tables with one schema, each in row groups of its own; None where they have no row.

    Raises OSError and Unavailable.
    """
    found = Ranges()
    writer: pq.ParquetWriter | None = None
    draft = files.draft(path)
    try:
        for table in tables:
            if table.num_rows:
                writer = writer or _writer(draft, table.schema)
                # What a file does not say in its rows no deletion would find in it.
                writer.write_table(without_unused_words(table), row_group_size=LOG_ROW_GROUP_ROWS)
                found.add(table)
        if writer is None:
            return None
        writer.close()
        size_bytes = draft.stat().st_size
        files.keep(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return WrittenFile(path, day, size_bytes, found.rows, found.to_json())


def merged(paths: Sequence[Path], order: str, keep: Keep = lambda table: table) -> Iterator[Any]:
    """The rows of files in order of a column, as tables of LOG_ROW_GROUP_ROWS rows, the last one smaller.

    Row groups are read in order of their smallest value, and rows go out once no further group can have smaller ones:
    what is held is the groups whose ranges overlap. Rows without a value come first, as do groups without statistics.
    """
    with _opened(paths) as opened:
        groups = sorted(_groups(opened, order), key=lambda each: (each[0] is not None, each[0]))
        waiting: list[Any] = []
        for (_, file, group), following in pairwise([*groups, (None, -1, -1)]):
            waiting.append(keep(opened[file].read_row_group(group, use_threads=False)))
            is_last = following[1] < 0
            if not is_last and sum(table.num_rows for table in waiting) < 2 * LOG_ROW_GROUP_ROWS:
                continue
            rows = _in_order(waiting, order)
            ready = rows.num_rows if is_last else _rows_below(rows, order, following[0])
            if not is_last:
                ready -= ready % LOG_ROW_GROUP_ROWS
            for start in range(0, ready, LOG_ROW_GROUP_ROWS):
                yield rows.slice(start, min(LOG_ROW_GROUP_ROWS, ready - start))
            waiting = [rows.slice(ready)]


def read_columns(path: Path, columns: Sequence[str]) -> Any:
    """Some columns of a file."""
    with pq.ParquetFile(path, memory_map=True) as file:
        return file.read(columns=list(columns), use_threads=False)


def read_groups(path: Path) -> Iterator[Any]:
    """A file's rows in their order, a row group at a time."""
    with _opened([path]) as (file,):
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, use_threads=False)


class Ranges:
    """Rows and ranges of some tables, as the Delta log keeps them of a file."""

    def __init__(self) -> None:
        self.rows = 0
        self._lowest: dict[str, Any] = {}
        self._highest: dict[str, Any] = {}
        self._nulls: dict[str, int] = {}

    def add(self, table: Any) -> None:
        """Count a table's rows."""
        self.rows += table.num_rows
        for name in _STATISTICS.intersection(table.column_names):
            column = table.column(name)
            self._nulls[name] = self._nulls.get(name, 0) + column.null_count
            range_ = pc.min_max(column).as_py()
            if range_["min"] is not None:
                self._lowest[name] = min(self._lowest.get(name, range_["min"]), range_["min"])
                self._highest[name] = max(self._highest.get(name, range_["max"]), range_["max"])

    def to_json(self) -> str:
        """The statistics of an Add action."""
        return json.dumps(
            {
                "numRecords": self.rows,
                "minValues": {name: _plain(value) for name, value in self._lowest.items()},
                "maxValues": {name: _plain(value) for name, value in self._highest.items()},
                "nullCount": self._nulls,
            }
        )


def _plain(value: object) -> object:
    return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if isinstance(value, datetime) else value


def _writer(path: Path, schema: Any) -> pq.ParquetWriter:
    names = list(schema.names)
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=1,
        store_schema=False,
        use_dictionary=[field.name for field in stored_schema(schema) if _repeats(field)],
        write_statistics=[name for name in names if name in _STATISTICS],
    )


def _repeats(field: Any) -> bool:
    """Whether a column's values are worth a dictionary; most numbers are not, and making one takes longer than zstd."""
    return pa.types.is_string(field.type) and field.name not in _UNIQUE


@contextmanager
def _opened(paths: Sequence[Path]) -> Iterator[list[pq.ParquetFile]]:
    """Files open for reading, columns that repeat themselves dictionary-encoded as in memory."""
    with ExitStack() as stack:
        files: list[pq.ParquetFile] = []
        for path in paths:
            with pq.ParquetFile(path) as plain_file:
                encoded = [field.name for field in plain_file.schema_arrow if _repeats(field)]
            files.append(stack.enter_context(pq.ParquetFile(path, read_dictionary=encoded, memory_map=True)))
        yield files


def _groups(files: Sequence[pq.ParquetFile], order: str) -> Iterator[tuple[Any, int, int]]:
    """(smallest value or None, file, row group) of every row group."""
    for number, file in enumerate(files):
        # Leaves are numbered, and a nested column has several of them.
        leaf = next(place for place in range(len(file.schema)) if file.schema.column(place).path == order)
        for group in range(file.num_row_groups):
            statistics = file.metadata.row_group(group).column(leaf).statistics
            yield statistics.min if statistics is not None and statistics.has_min_max else None, number, group


def _in_order(tables: Sequence[Any], order: str) -> Any:
    rows = pa.concat_tables(tables).unify_dictionaries()
    return rows.take(pc.sort_indices(rows, [(order, "ascending", "at_start")]))


def _rows_below(rows: Any, order: str, bound: Any) -> int:
    """How many rows, which are in order, are smaller than a bound; None is smaller than any."""
    if bound is None:
        return 0
    column = rows.column(order)
    smaller = pc.less(column, pa.scalar(bound, column.type))
    return int(column.null_count + (pc.sum(smaller).as_py() or 0))
