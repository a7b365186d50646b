"""The prediction log read back as Arrow tables: what is sealed in Parquet and what still lies in spool files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from skewless.adapters.prediction_log import SPOOL
from skewless.adapters.prediction_parquet import (
    OUTCOME_SCHEMA,
    OUTCOMES,
    PREDICTIONS,
    TIMESTAMP,
    outcome_table,
    prediction_table,
    read_table,
    segment_of,
)
from skewless.adapters.spool import SUFFIX, read_frames
from skewless.errors import InvalidRequest, NotFound
from skewless.serving.records import AnsweredBatch, LogEntry, decode
from skewless.timestamps import DAY_US, parse_timestamp


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
        return isinstance(entry, tuple)

    spooled, segments = _read_spools(folder, wanted)
    outcomes = [each for entry in spooled if isinstance(entry, tuple) for each in entry]
    files = sorted((folder / OUTCOMES).glob("day=*/*.parquet"))
    tables = [OUTCOME_SCHEMA.empty_table(), outcome_table(outcomes)]
    tables += _read_files(files, segments, lambda path: _is_day_within(path.parent, start, end))
    return _within(pa.concat_tables(tables), "received_time", start, end).sort_by("received_time")


def _read_spools(folder: Path, wanted: Callable[[LogEntry], bool]) -> tuple[list[LogEntry], frozenset[str]]:
    """Wanted entries of every spool file, and the names of the segments they come from.

    Spool files are read before Parquet: one that is gone by then has all its Parquet files in place, and one that
    was read counts in place of whatever Parquet files it has got meanwhile.
    """
    entries: list[LogEntry] = []
    segments: set[str] = set()
    for path in sorted((folder / SPOOL).glob(f"*{SUFFIX}")):
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
