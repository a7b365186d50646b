"""Recorded traffic as replays go through it: an endpoint's predictions in order of time, in tables of bounded size."""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from skewless.adapters.log_reader import LogReader
from skewless.limits import REPLAY_CHUNK_ROWS

OUTCOME = "outcome"
"""The column of `answered_with_outcomes` with the label of the outcome in force; null where none has arrived."""
_ANSWERED = "SELECT * FROM predictions_with_outcomes WHERE role <> 'shadow' ORDER BY as_of, prediction_id"


def recorded(log: LogReader, endpoint: str, start: int | None, end: int | None, *, limit: int | None) -> Iterator[Any]:
    """Every prediction with `start` <= as_of < `end` (µs), of every role, or the earliest `limit` of them.

    Without a limit, those that the log keeps with one set of columns come after those with another: bundles may
    disagree on dtypes.
    """
    return _limited(log.prediction_batches(endpoint, start, end, rows=REPLAY_CHUNK_ROWS, apart=limit is None), limit)


def answered_with_outcomes(
    log: LogReader, endpoint: str, start: int | None, end: int | None, *, limit: int | None
) -> Iterator[Any]:
    """As `recorded`, of what callers were answered, so no shadows, each with its outcome in the column OUTCOME."""
    batches = log.sql(_ANSWERED, endpoint=endpoint, start=start, end=end)
    return _limited(tables_of(batches, REPLAY_CHUNK_ROWS), limit)


def count(log: LogReader, endpoint: str, start: int | None, end: int | None) -> int:
    """How many predictions there are, of every role."""
    return sum(table.num_rows for table in log.prediction_batches(endpoint, start, end, columns=["prediction_id"]))


def tables_of(batches: Iterable[Any], rows: int) -> Iterator[Any]:
    """Record batches as tables of `rows` rows, the last one of fewer; no empty ones."""
    waiting: list[Any] = []
    held = 0
    for batch in batches:
        waiting.append(batch)
        held += batch.num_rows
        while held >= rows:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, rows)
            waiting, held = table.slice(rows).to_batches(), held - rows
    if held:
        yield pa.Table.from_batches(waiting)


def _limited(tables: Iterable[Any], limit: int | None) -> Iterator[Any]:
    left = limit
    for table in tables:
        if left is None:
            yield table
            continue
        if left <= 0:
            return
        yield table.slice(0, left)
        left -= table.num_rows
