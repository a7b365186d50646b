"""Batch bodies and answers as Arrow IPC streams. Arrow's library is loaded by the first of them, on another thread."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from functools import partial
from importlib import import_module
from typing import Any

import msgspec

from skewless.limits import BATCH_CHUNK_ROWS
from skewless.serving.arrow_framing import ArrowMessages
from skewless_gateway.edges.batch_scoring import AnsweredRows, Chunk

MEDIA_TYPE = b"application/vnd.apache.arrow.stream"


async def _loaded(module: str) -> Any:
    """An adapter of Arrow's. Most gateways are never asked in Arrow, and it takes 40 MiB and 100 ms to load."""
    return await asyncio.to_thread(partial(import_module, f"skewless.adapters.{module}"))


async def arrow_chunks(pieces: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
    """Chunks of the body as it arrives: a record batch is decoded whole, away from the event loop, and then cut.

    Raises InvalidRequest.
    """
    adapter = await _loaded("arrow_instances")
    messages, batches = ArrowMessages(), (await _loaded("arrow_messages")).ArrowBatches()
    first_row = 0
    async for piece in pieces:
        for message in messages.feed(piece):
            batch = await asyncio.to_thread(batches.read, message)
            if batch is None:
                continue
            for rows in adapter.ArrowRows.of(batch):
                for start in range(0, len(rows), BATCH_CHUNK_ROWS):
                    part = rows.part(start, min(start + BATCH_CHUNK_ROWS, len(rows)))
                    yield Chunk(part, first_row)
                    first_row += len(part)
    messages.finish()


class ArrowAnswerStream:
    """Record batches of answers, of rows that failed, and at last an empty one with the summary."""

    media_type = MEDIA_TYPE

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    @classmethod
    async def open(cls) -> "ArrowAnswerStream":
        """An answer to be written."""
        return cls((await _loaded("arrow_answers")).ArrowAnswers())

    def answered(self, answered: AnsweredRows) -> bytes:
        """A record batch."""
        data: bytes = self._writer.answered(
            answered.first_row, answered.prediction_ids, answered.labels, answered.probabilities, answered.rung
        )
        return data

    def failed(self, row: int, problem: Mapping[str, Any]) -> bytes:
        """A record batch of the row that was not answered."""
        data: bytes = self._writer.failed(row, msgspec.json.encode(problem))
        return data

    def finish(self, summary: Mapping[str, Any]) -> bytes:
        """The summary, and the end of the stream."""
        data: bytes = self._writer.finish(summary)
        return data
