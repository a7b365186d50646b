"""Segments written as gateways write them, and what a log store holds, read file by file without any reader of ours."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import uuid_utils

from harness.log_batches import a_batch
from skewless.adapters.log_store import LogStore, StoredTable
from skewless.adapters.log_tables import PREDICTIONS, LogTable, segment_tables
from skewless.adapters.spool import SPOOL, SpoolFile
from skewless.serving.log_blocks import LoggedEntry, blocks, encode
from skewless.serving.records import AnsweredBatch, LogEntry, Outcome


def answers(rows: int = 2, **changes: Any) -> AnsweredBatch:
    """A batch whose ids are those of its making, as a gateway's are."""
    made = a_batch("batch", rows=rows)
    return replace(made, prediction_ids=[str(uuid_utils.uuid7()) for _ in range(rows)], **changes)


def an_outcome(prediction_id: str | None, label: str = "late", *, received_time: int, **changes: Any) -> Outcome:
    """An outcome told by the id of its prediction, unless changed."""
    told = {"endpoint": None, "entity": None, "at": None, "outcome_time": None, "caller": "anonymous", **changes}
    return Outcome(
        outcome_id=str(uuid_utils.uuid7()),
        prediction_id=prediction_id,
        label=label,
        received_time=received_time,
        **told,
    )


def write_segment(folder: Path, entries: Sequence[LogEntry], *, seal: bool = True) -> Path:
    """A segment in a log's folder, sealed, or left behind by a writer that died."""
    spool_folder = folder / SPOOL
    spool_folder.mkdir(parents=True, exist_ok=True)
    spool = SpoolFile.create(spool_folder)
    for entry in blocks(entries):
        spool.append(encode(entry))
    if not seal:
        spool.release()
        return spool.path
    sealed = spool.seal()
    assert sealed is not None
    return sealed


def tables_of(segment: str, entries: Sequence[LogEntry]) -> list[LogTable]:
    """The tables of a segment that holds these entries."""
    logged: list[LoggedEntry] = blocks(entries)
    return segment_tables(segment, logged)


def stored_rows(store: LogStore, kind: str = PREDICTIONS, endpoint: str | None = None) -> list[dict[str, Any]]:
    """Every row of a kind, with the day of its folder, in no order."""
    return [row for table in store.tables(kind, endpoint) for row in rows_of(table)]


def rows_of(table: StoredTable) -> list[dict[str, Any]]:
    """Every row of a table."""
    found: list[dict[str, Any]] = []
    for file in table.entries:
        with table.fetched(file) as path, pq.ParquetFile(path) as parquet:
            found += [{**row, "day": file.day} for row in parquet.read().to_pylist()]
    return found


def stored_ids(store: LogStore, kind: str = PREDICTIONS) -> list[str]:
    """The ids of every row of a kind, sorted."""
    name = "prediction_id" if kind == PREDICTIONS else "outcome_id"
    return sorted(row[name] for row in stored_rows(store, kind))


def schema_of(table: StoredTable) -> pa.Schema:
    """The types of a table's first file."""
    with table.fetched(table.entries[0]) as path, pq.ParquetFile(path) as parquet:
        return parquet.schema_arrow
