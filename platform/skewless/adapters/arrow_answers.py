"""Answers of a batch as an Arrow IPC stream, written message by message."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skewless.adapters.arrow_values import number_array, text_array

ANSWER_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("prediction_id", pa.string()),
        pa.field("label", pa.string()),
        pa.field("probability", pa.float32()),
        pa.field("rung", pa.string()),
        pa.field("error", pa.string()),
    ]
)
"""`row` counts the instances of the body from 0. `error` is a problem document, and then all before it but `row` is
null."""
SUMMARY_KEY = b"skewless.summary"
"""In the metadata of the last record batch, which has no rows: the summary as JSON."""


_SCHEMA: bytes = ANSWER_SCHEMA.serialize().to_pybytes()
_EMPTY = pa.record_batch([pa.nulls(0, field.type) for field in ANSWER_SCHEMA], schema=ANSWER_SCHEMA)


class ArrowAnswers:
    """Writes the messages of one answer stream, each into one piece of bytes."""

    def __init__(self) -> None:
        self._before = _SCHEMA
        """The schema, until something was written."""

    def answered(
        self,
        first_row: int,
        ids: Sequence[str],
        labels: Sequence[str],
        probabilities: NDArray[np.float32],
        rung: str,
    ) -> bytes:
        """A record batch of answered rows, which follow each other in the body from `first_row` on."""
        count = len(ids)
        columns = [
            number_array(np.arange(first_row, first_row + count)),
            text_array(ids),
            text_array(labels),
            number_array(probabilities),
            text_array([rung] * count),
            pa.nulls(count, pa.string()),
        ]
        return self._message(columns)

    def failed(self, row: int, problem: bytes) -> bytes:
        """A record batch of one row that was not answered, and why."""
        absent = [pa.nulls(1, field.type) for field in list(ANSWER_SCHEMA)[1:-1]]
        return self._message([number_array(np.array([row])), *absent, text_array([problem.decode()])])

    def finish(self, summary: Mapping[str, Any]) -> bytes:
        """The summary, and the end of the stream."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, ANSWER_SCHEMA) as writer:
            writer.write_batch(_EMPTY, custom_metadata={SUMMARY_KEY: json.dumps(summary).encode()})
        data: bytes = sink.getvalue().to_pybytes()
        return self._taken_before() + data.removeprefix(_SCHEMA)

    def _message(self, columns: list[Any]) -> bytes:
        data: bytes = pa.record_batch(columns, schema=ANSWER_SCHEMA).serialize().to_pybytes()
        return self._taken_before() + data

    def _taken_before(self) -> bytes:
        before, self._before = self._before, b""
        return before
