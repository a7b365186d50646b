"""Scores the chunks of a batch body, two at a time for all bodies of a process, and gives their answers in order.

A chunk is asked like any request of its endpoint, but waits where there is no room, and is taken apart where one of its
rows is wrong and the caller wants the others answered.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.errors import SkewlessError, Unavailable
from skewless.limits import BATCH_CHUNKS_MAX, BATCH_PATIENCE_S, BATCH_PAUSE_S_MAX
from skewless.serving.request import PredictOptions, PredictRequest
from skewless.serving.row_chunks import Rows
from skewless.serving.row_faults import placed, row_of
from skewless.serving.served_bundle import ServedBundle
from skewless_gateway.predictions import PredictionService, RequestHead
from skewless_http.security.callers import Caller

EDGE = "batch"
PAUSE_S_MIN = 0.05


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that are scored together. `first_row` is their place in the body."""

    rows: Rows
    first_row: int


@dataclass(frozen=True, slots=True)
class Order:
    """What one batch body asks for. `records_errors`: wrong rows are answered one by one, and do not end the answer."""

    endpoint: str
    request_id: str
    caller: Caller
    options: PredictOptions
    records_errors: bool


@dataclass(frozen=True, slots=True)
class AnsweredRows:
    """Rows of the body from `first_row` on, answered alike; `bundles` are digests with the rows each scored."""

    first_row: int
    prediction_ids: Sequence[str]
    labels: Sequence[str]
    probabilities: NDArray[np.float32]
    rung: str
    bundles: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class FailedRow:
    """A row of the body that cannot be answered; the error names it by its place in the body."""

    row: int
    error: SkewlessError


Outcome = AnsweredRows | FailedRow


class ChunkScorer:
    """Shared by all batch bodies of a process. Belongs to one event loop."""

    def __init__(
        self,
        predictions: PredictionService,
        *,
        clock: Callable[[], int],
        on_retry: Callable[[str], None] = lambda _endpoint: None,
    ) -> None:
        self._predictions = predictions
        self._clock = clock
        self._on_retry = on_retry
        self._places = asyncio.Semaphore(BATCH_CHUNKS_MAX)

    async def outcomes(self, chunks: AsyncGenerator[Chunk, None], order: Order) -> AsyncGenerator[list[Outcome], None]:
        """The outcomes of each chunk, in order. `chunks` is read on only while few of its chunks are under way.

        Raises SkewlessError once the outcomes of all chunks before the one that it is about were given.
        """
        under_way: deque[asyncio.Task[list[Outcome]]] = deque()
        failure: SkewlessError | None = None
        try:
            while failure is None:
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    break
                except SkewlessError as error:
                    failure = error
                    break
                under_way.append(asyncio.create_task(self.score(chunk, order)))
                if len(under_way) >= BATCH_CHUNKS_MAX:
                    yield await under_way.popleft()
            while under_way:
                yield await under_way.popleft()
            if failure is not None:
                raise failure
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def score(self, chunk: Chunk, order: Order) -> list[Outcome]:
        """What came of one chunk. Raises SkewlessError, which names rows by their place in the body."""
        async with self._places:
            try:
                return [await self._patiently(chunk, order)]
            except SkewlessError as error:
                if not order.records_errors or row_of(error) is None:
                    raise placed(error, chunk.first_row) from error
                return await self._halved(chunk, order, error)

    async def _halved(self, chunk: Chunk, order: Order, error: SkewlessError) -> list[Outcome]:
        """A chunk with a wrong row: halved until each wrong row is alone, so that one costs few calls, and all of them
        no more than two calls each."""
        rows = len(chunk.rows)
        if rows == 1:
            return [FailedRow(chunk.first_row, placed(error, chunk.first_row))]
        found: list[Outcome] = []
        for start, stop in ((0, rows // 2), (rows // 2, rows)):
            half = Chunk(chunk.rows.part(start, stop), chunk.first_row + start)
            try:
                found.append(await self._patiently(half, order))
            except SkewlessError as wrong:
                if row_of(wrong) is None:
                    raise
                found += await self._halved(half, order, wrong)
        return found

    async def _patiently(self, chunk: Chunk, order: Order) -> AnsweredRows:
        """The answer, asked for again while there is no room. Before anything is answered the caller hears at once."""
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + (BATCH_PATIENCE_S if chunk.first_row else 0.0)
        while True:
            try:
                return await self._once(chunk, order)
            except Unavailable as error:
                pause_s = min(max(error.retry_after_s, PAUSE_S_MIN), BATCH_PAUSE_S_MAX)
                if loop.time() + pause_s > give_up_s:
                    raise
            self._on_retry(order.endpoint)
            await asyncio.sleep(pause_s)

    async def _once(self, chunk: Chunk, order: Order) -> AnsweredRows:
        def read(served: ServedBundle) -> PredictRequest:
            return PredictRequest(chunk.rows.columns(served.requests), len(chunk.rows), order.options)

        head = RequestHead(f"{order.request_id}.{chunk.first_row}", self._clock(), order.caller, EDGE)
        answer = (await self._predictions.answer(order.endpoint, read, head)).answer
        return AnsweredRows(
            chunk.first_row,
            answer.prediction_ids,
            answer.labels,
            answer.probabilities,
            answer.rung,
            tuple((batch.bundle, batch.rows) for batch, _ in answer.parts),
        )
