"""Batch bodies and answers as NDJSON: an object on each line."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import msgspec

from skewless.serving.row_chunks import JsonChunks
from skewless_gateway.edges.batch_scoring import AnsweredRows, Chunk

MEDIA_TYPE = b"application/x-ndjson"
_ENCODER = msgspec.json.Encoder()


async def json_chunks(pieces: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
    """Chunks of the body as it arrives. Raises InvalidRequest."""
    cutter = JsonChunks()
    first_row = 0
    async for piece in pieces:
        for rows in cutter.feed(piece):
            yield Chunk(rows, first_row)
            first_row += len(rows)
    for rows in cutter.finish():
        yield Chunk(rows, first_row)


class JsonAnswers:
    """Lines of answers, of rows that failed, and at last of the summary."""

    media_type = MEDIA_TYPE

    def answered(self, answered: AnsweredRows) -> bytes:
        """A line per row."""
        rows = enumerate(
            zip(answered.prediction_ids, answered.labels, answered.probabilities.tolist(), strict=True),
            start=answered.first_row,
        )
        return _ENCODER.encode_lines(
            [
                {"row": row, "prediction_id": each, "label": label, "probability": score, "rung": answered.rung}
                for row, (each, label, score) in rows
            ]
        )

    def failed(self, row: int, problem: Mapping[str, Any]) -> bytes:
        """The line of a row that was not answered."""
        return _ENCODER.encode({"row": row, "error": problem}) + b"\n"

    def finish(self, summary: Mapping[str, Any]) -> bytes:
        """The last line."""
        return _ENCODER.encode({"summary": summary}) + b"\n"
