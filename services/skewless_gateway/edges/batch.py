"""POST /v1/endpoints/{endpoint}/predict:batch: bodies too large to be held, answered while they arrive.

body ──pieces──▶ chunks of rows ──scored two at a time──▶ outcomes in order ──▶ AnswerBuffer ──▶ answer, as it is taken

Nothing is read on while chunks wait to be scored or answers to be taken. What goes wrong before the first chunk has its
answer is told by the status; what goes wrong later, by the summary that ends every whole answer.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Protocol
from urllib.parse import parse_qsl

from skewless.errors import InvalidRequest, Overloaded, SkewlessError
from skewless.limits import (
    BATCH_REQUESTS_MAX,
    BATCH_STALL_S,
    BATCH_UNREAD_BYTES_MAX,
    DEADLINE_MS_MAX,
    RETRY_AFTER_S,
)
from skewless.serving.field_types import shown
from skewless.serving.instances import unknown_name
from skewless.serving.request import PredictOptions, ReceiptLevel, read_options
from skewless.serving.row_faults import row_of
from skewless_gateway.edges.answer_buffer import AnswerBuffer
from skewless_gateway.edges.arrow_batch import MEDIA_TYPE as ARROW
from skewless_gateway.edges.arrow_batch import ArrowAnswerStream, arrow_chunks
from skewless_gateway.edges.batch_metrics import BatchMetrics
from skewless_gateway.edges.batch_scoring import EDGE, AnsweredRows, Chunk, ChunkScorer, Order, Outcome
from skewless_gateway.edges.ndjson_batch import MEDIA_TYPE as NDJSON
from skewless_gateway.edges.ndjson_batch import JsonAnswers, json_chunks
from skewless_gateway.gateway import Gateway
from skewless_gateway.predictions import RequestHead
from skewless_http.http_message import ClientGone, HttpRequest, Reply
from skewless_http.problems import UNSUPPORTED_MEDIA_TYPE, problem_members, problem_of
from skewless_http.streamed_body import bounded

PATH = "/v1/endpoints/{endpoint}/predict:batch"
FAIL, RECORD = "fail", "record"
ON_ERROR = "on_error"
_OPTION_NAMES = (ON_ERROR, "deadline_ms", "as_of")
_LOGGER = logging.getLogger(__name__)


class Answers(Protocol):
    """Writes an answer in one media type."""

    @property
    def media_type(self) -> bytes: ...

    def answered(self, answered: AnsweredRows) -> bytes: ...

    def failed(self, row: int, problem: Mapping[str, Any]) -> bytes: ...

    def finish(self, summary: Mapping[str, Any]) -> bytes: ...


class BatchEdge:
    """The batch route. Holds what all batch bodies of a process share."""

    name = EDGE
    refusal = staticmethod(problem_of)

    def __init__(self, gateway: Gateway, metrics: BatchMetrics) -> None:
        self._predictions = gateway.predictions
        self._allow_as_of = gateway.allow_as_of
        self._metrics = metrics
        self._scorer = ChunkScorer(
            gateway.predictions,
            clock=gateway.clock,
            on_retry=lambda endpoint: metrics.retries.labels(endpoint).inc(),
        )
        self._open = 0

    async def handle(self, request: HttpRequest, head: RequestHead) -> Reply:
        """The answer begins with the outcomes of the first chunk, so that what they refuse has a status of its own."""
        self._refuse_if_full()
        self._predictions.refuse_early(request.endpoint, head)
        body_type = _body_type(request)
        options, records_errors = _read_query(request.query, as_of_allowed=self._allow_as_of)
        order = Order(request.endpoint, head.request_id, head.caller, options, records_errors)
        answers = await _answers(request.header(b"accept") or b"", body_type)
        pieces = bounded(request.stream())
        chunks = arrow_chunks(pieces) if body_type == ARROW else json_chunks(pieces)
        answer = BatchAnswer(chunks, self._scorer, order, answers, self._metrics, on_end=self._ended)
        self._open += 1
        self._metrics.open.set(self._open)
        try:
            await answer.begin()
        except BaseException:
            await answer.aclose()
            raise
        return Reply(200, answers.media_type, answer)

    def _refuse_if_full(self) -> None:
        if self._open >= BATCH_REQUESTS_MAX:
            raise Overloaded(
                "batch prediction",
                f"{self._open} batch bodies are being answered, as many as one process takes",
                retry_after_s=RETRY_AFTER_S,
                hint="retry later, or send fewer batches at once; one of them keeps a process busy",
            )

    def _ended(self) -> None:
        self._open -= 1
        self._metrics.open.set(self._open)


class BatchAnswer:
    """The parts of one answer, made by a task of its own from `begin` to `aclose`, which must be called."""

    def __init__(
        self,
        chunks: AsyncGenerator[Chunk, None],
        scorer: ChunkScorer,
        order: Order,
        answers: Answers,
        metrics: BatchMetrics,
        *,
        on_end: Callable[[], None],
    ) -> None:
        self._chunks = chunks
        self._scorer = scorer
        self._order = order
        self._about = {"told": {"request_id": order.request_id, "endpoint": order.endpoint}}
        self._answers = answers
        self._metrics = metrics
        self._on_end = on_end
        self._buffer = AnswerBuffer(bytes_max=BATCH_UNREAD_BYTES_MAX, stall_s=BATCH_STALL_S)
        self._summary = Summary(order.request_id)
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())
        self._closed = False

    async def begin(self) -> None:
        """Return once the first chunk has its outcomes. Raises what ended the answer before."""
        await self._begun

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if data := await self._buffer.take():
            return data
        await self._task
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the work, whatever is left of it. Closing twice is allowed."""
        if self._closed:
            return
        self._closed = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._begun.done() and not self._begun.cancelled():
            self._begun.exception()  # seen, where nobody waited for it any more
        self._on_end()

    async def _run(self) -> None:
        ended = "gone"
        try:
            await self._pump()
            ended = "complete"
        except ClientGone as error:
            self._fail_early(error)
        except SkewlessError as error:
            ended = "incomplete"
            if not self._fail_early(error):
                await self._finish(error)
        except TimeoutError:
            _LOGGER.info("batch %s was given up: its answer is not read", self._order.request_id, extra=self._about)
        except Exception as error:  # a task's boundary: the caller gets an id, the log gets the trace
            ended = "incomplete"
            if not self._fail_early(error):
                _LOGGER.exception("batch %s failed", self._order.request_id, extra=self._about)
                await self._finish(SkewlessError("internal error"))
        finally:
            self._metrics.ended.labels(self._order.endpoint, ended).inc()
            self._buffer.close()

    async def _pump(self) -> None:
        async with aclosing(self._chunks), aclosing(self._scorer.outcomes(self._chunks, self._order)) as scored:
            async for outcomes in scored:
                data = b"".join([self._told(each) for each in outcomes])
                self._begin()
                await self._buffer.put(data)
        self._begin()
        await self._finish(None)

    def _begin(self) -> None:
        if not self._begun.done():
            self._begun.set_result(None)

    def _fail_early(self, error: Exception) -> bool:
        """Whether the answer has not begun, so that the error is its status."""
        if self._begun.done():
            return False
        self._begun.set_exception(error)
        return True

    def _told(self, outcome: Outcome) -> bytes:
        if isinstance(outcome, AnsweredRows):
            self._summary.count(outcome)
            return self._answers.answered(outcome)
        self._metrics.failed_rows.labels(self._order.endpoint).inc()
        self._summary.failed += 1
        return self._answers.failed(outcome.row, self._problem(outcome.error))

    async def _finish(self, error: SkewlessError | None) -> None:
        if error is None:
            await self._buffer.put(self._answers.finish(self._summary.told(None)))
            return
        problem, row = self._problem(error), row_of(error)
        # Readers of tables see rows and no summary, so a row that ended the answer is told as one too.
        told = b"" if row is None else self._answers.failed(row, problem)
        await self._buffer.put(told + self._answers.finish(self._summary.told(problem)))

    def _problem(self, error: SkewlessError) -> Mapping[str, Any]:
        return problem_members(error, request_id=self._order.request_id)


class Summary:
    """What one answer held, told at its end."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._answered = 0
        self.failed = 0
        self._rungs: dict[str, int] = {}
        self._bundles: dict[str, int] = {}

    def count(self, answered: AnsweredRows) -> None:
        """Add rows that were answered."""
        rows = len(answered.prediction_ids)
        self._answered += rows
        self._rungs[answered.rung] = self._rungs.get(answered.rung, 0) + rows
        for bundle, scored in answered.bundles:
            self._bundles[bundle] = self._bundles.get(bundle, 0) + scored

    def told(self, problem: Mapping[str, Any] | None) -> dict[str, Any]:
        """The summary. `rows` is also the row to go on from where the answer is not complete."""
        told = {
            "complete": problem is None,
            "rows": self._answered + self.failed,
            "answered": self._answered,
            "failed": self.failed,
            "rungs": self._rungs,
            "bundles": self._bundles,
            "request_id": self._request_id,
        }
        return told if problem is None else {**told, "error": problem}


def _body_type(request: HttpRequest) -> bytes:
    given = request.header(b"content-type") or b""
    encoding = request.header(b"content-encoding") or b"identity"
    media_type = given.partition(b";")[0].strip().lower()
    if media_type in (ARROW, NDJSON) and encoding == b"identity":
        return media_type
    is_type = media_type not in (ARROW, NDJSON)
    what, value = ("type", given) if is_type else ("encoding", encoding)
    raise InvalidRequest(
        f"the body has content {what} {shown(value.decode('latin-1'))}",
        path="$",
        allowed=f"{ARROW.decode()} or {NDJSON.decode()}, not compressed",
        hint="POST …/predict takes application/json",
        code=UNSUPPORTED_MEDIA_TYPE,
    )


async def _answers(accept: bytes, body_type: bytes) -> Answers:
    """In the first media type of ours that the caller names, else in that of the body."""
    named = [part.partition(b";")[0].strip().lower() for part in accept.split(b",")]
    wanted = next((each for each in named if each in (ARROW, NDJSON)), body_type)
    return JsonAnswers() if wanted == NDJSON else await ArrowAnswerStream.open()


def _read_query(query: bytes, *, as_of_allowed: bool) -> tuple[PredictOptions, bool]:
    """The options of a batch, and whether wrong rows are recorded. Raises InvalidRequest with the path of an option."""
    given = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    options: dict[str, object] = {"receipt": str(ReceiptLevel.NONE), "deadline_ms": DEADLINE_MS_MAX}
    for name, text in given.items():
        if name not in _OPTION_NAMES:
            raise unknown_name(name, _OPTION_NAMES, path="$.options", what="option")
        if name != ON_ERROR:
            options[name] = int(text) if name == "deadline_ms" and text.isdecimal() else text
    on_error = given.get(ON_ERROR, FAIL)
    if on_error not in (FAIL, RECORD):
        raise InvalidRequest(
            f"option `{ON_ERROR}` is {shown(on_error)}",
            path=f"$.options.{ON_ERROR}",
            allowed=f"`{FAIL}` (a wrong row ends the answer) or `{RECORD}` (it is answered by an error)",
            code="invalid_option",
        )
    return read_options(options, as_of_allowed=as_of_allowed), on_error == RECORD
