"""The one way in for rows, whoever brings them: decoded, judged and kept, many small requests together.

    decode   bytes ─▶ rows of declared types           in the caller's thread; refused alone
    lane     requests of one view or stream wait for each other, for INGEST_GROUP_DELAY_S at most, fair between callers
    group    keys known ─▶ event times ─▶ quality gate ─▶ outbox      in a thread per lane that has something to do
    answer   once the outbox has the rows for good

Callers of `join` get a future; whatever happens to a group, each of its requests gets an answer of its own.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256

from skewless.adapters.ingest_gate import IngestGate
from skewless.adapters.ingest_group import Group
from skewless.adapters.ingest_requests import Decoded, GroupDone, IntakeRequest, Keeper, TakenRows, may_join
from skewless.adapters.ingest_rows import Form, RowBlock, RowSchema
from skewless.adapters.ingest_rows_arrow import arrow_rows
from skewless.adapters.ingest_rows_json import JsonRows
from skewless.adapters.ingest_views import IngestStream, IngestView, IngestViews
from skewless.canonical_json import Digest
from skewless.errors import Forbidden, SkewlessError, Unavailable
from skewless.ingest_limits import (
    INGEST_ALONE_ROWS,
    INGEST_GROUP_DELAY_S,
    INGEST_GROUP_REQUESTS_MAX,
    INGEST_LANE_THREADS,
    INGEST_TAKE_S,
)
from skewless.ingestion.batches import BatchKind
from skewless.timestamps import Micros


@dataclass(slots=True)
class _Waiting:
    """One request in a lane."""

    decoded: Decoded
    answer: "Future[TakenRows]"
    since_s: float


@dataclass(slots=True)
class _Lane:
    """Requests of one view or stream that wait, a line per caller."""

    kind: BatchKind
    name: str
    first: deque[_Waiting] = field(default_factory=deque)
    """Those that wait for the second time."""
    lines: "OrderedDict[str, deque[_Waiting]]" = field(default_factory=OrderedDict)
    rows: int = 0
    requests: int = 0
    is_running: bool = False

    def add(self, waiting: _Waiting) -> None:
        self.lines.setdefault(waiting.decoded.caller, deque()).append(waiting)
        self.rows += waiting.decoded.rows
        self.requests += 1

    def put_back(self, waiting: Sequence[_Waiting]) -> None:
        self.first.extendleft(reversed(waiting))  # before those that came after them
        self.rows += sum(each.decoded.rows for each in waiting)
        self.requests += len(waiting)

    @property
    def oldest_s(self) -> float:
        """Since when the one that waits longest does."""
        heads = [line[0].since_s for line in self.lines.values()] + [each.since_s for each in self.first]
        return min(heads)

    def group(self) -> list[_Waiting]:
        """The next requests, callers in turn. One of many rows is a group of its own."""
        group: list[_Waiting] = []
        rows = 0
        while self.requests and len(group) < INGEST_GROUP_REQUESTS_MAX:
            source = self.first or next(iter(self.lines.values()))
            head = source[0].decoded
            if group and not may_join(head, group[0].decoded, rows):
                break
            group.append(self._take(source, head))
            rows += head.rows
        return group

    def _take(self, source: deque[_Waiting], head: Decoded) -> _Waiting:
        taken = source.popleft()
        self.rows -= head.rows
        self.requests -= 1
        if source is not self.first:
            del self.lines[head.caller]
            if source:
                self.lines[head.caller] = source  # behind the others
        return taken


class Intake:
    """Takes rows. Threads and event loops share it; `close` answers what waits with Unavailable."""

    def __init__(
        self,
        views: IngestViews,
        gate: IngestGate,
        keeper: Keeper,
        *,
        now: Callable[[], Micros],
        wake: Callable[[BatchKind, str], None] = lambda _kind, _name: None,
        on_group: Callable[[GroupDone], None] = lambda _done: None,
        delay_s: float = INGEST_GROUP_DELAY_S,
    ) -> None:
        self._views = views
        self._gate = gate
        self._keeper = keeper
        self._now = now
        self._wake = wake
        self._on_group = on_group
        self._delay_s = delay_s
        self._lanes: dict[tuple[BatchKind, str], _Lane] = {}
        self._changed = threading.Condition()
        self._is_closed = False
        self._threads = ThreadPoolExecutor(INGEST_LANE_THREADS, thread_name_prefix="intake")
        self._decoders: dict[tuple[BatchKind, str], tuple[RowSchema, JsonRows]] = {}

    def decode(self, request: IntakeRequest) -> Decoded:
        """The request's rows. Raises NotFound, InvalidRequest, LimitExceeded, Forbidden; Unavailable as `target`."""
        target = self.target(request.kind, request.name)
        block = self._block(request, target.rows)
        if block.has_created and not request.may_give_created_time:
            raise Forbidden(
                f"`{request.caller}` may not say when rows became known",
                path=f"$.rows[].{target.rows.created}",
                hint="leave the column out, then it is when they were accepted; or have a key made with "
                "--may-give-created-time",
            )
        if request.check_keys is not None:
            request.check_keys(block.key_columns(), block.rows, block.has_created)
        digest = Digest(sha256(request.form.value.encode() + b"\0" + request.body).hexdigest())
        return Decoded(request.kind, target, request.caller, request.key, digest, block)

    def target(self, kind: BatchKind, name: str) -> IngestView | IngestStream:
        """What rows are brought for. Raises NotFound; InvalidRequest where it takes none; Unavailable."""
        return self._views.view(name) if kind is BatchKind.ROWS else self._views.stream(name)

    def join(self, decoded: Decoded) -> "Future[TakenRows]":
        """Have rows judged and kept; the future has the answer, or the SkewlessError that refuses them."""
        answer: Future[TakenRows] = Future()
        answer.set_running_or_notify_cancel()  # whoever hangs up cannot take the answer from under its lane
        key = decoded.kind, decoded.target.name
        with self._changed:
            if self._is_closed:
                raise Unavailable("ingestion", "it is stopping")
            lane = self._lanes.setdefault(key, _Lane(*key))
            had = lane.rows
            lane.add(_Waiting(decoded, answer, time.monotonic()))
            if not lane.is_running:
                lane.is_running = True
                self._threads.submit(self._run, lane)
            elif had < INGEST_ALONE_ROWS <= lane.rows:  # else it goes on by itself, and is not woken a thousand times
                self._changed.notify_all()
        return answer

    def take(self, request: IntakeRequest) -> TakenRows:
        """`decode` and `join`, waiting for the answer: for callers that have a thread of their own."""
        try:
            return self.join(self.decode(request)).result(INGEST_TAKE_S)
        except TimeoutError as error:
            raise Unavailable(
                "ingestion", f"the rows were not taken within {INGEST_TAKE_S:g} s", hint="ask again with the same key"
            ) from error

    @property
    def waiting_rows(self) -> int:
        """Rows that wait for their turn."""
        with self._changed:
            return sum(lane.rows for lane in self._lanes.values())

    def close(self) -> None:
        """Take what waits to its end, then nothing more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._threads.shutdown(wait=True)

    def _block(self, request: IntakeRequest, schema: RowSchema) -> RowBlock:
        if request.form is Form.ARROW:
            return arrow_rows(schema, request.body)
        key = request.kind, request.name
        known = self._decoders.get(key)
        if known is None or known[0] is not schema:
            self._decoders[key] = known = schema, JsonRows(schema)
        return known[1].json(request.body) if request.form is Form.JSON else known[1].ndjson(request.body)

    def _run(self, lane: _Lane) -> None:
        """Take groups of a lane until there are none; the pool's thread then serves another lane."""
        while waiting := self._next(lane):
            begun_s = time.monotonic()
            group = Group([each.decoded for each in waiting], now=self._now)
            try:
                group.take(self._gate, self._keeper)
            except Exception as error:  # noqa: BLE001  # a task's boundary: every request is answered, its edge logs it
                self._fail(waiting, error)
                continue
            self._answer(lane, waiting, group)
            rows, requests = dict(group.counts), sum(each is not None for each in group.results)
            self._on_group(GroupDone(lane.kind, lane.name, requests, rows, time.monotonic() - begun_s))

    @staticmethod
    def _fail(waiting: Sequence[_Waiting], error: Exception) -> None:
        for each in waiting:
            each.answer.set_exception(error)

    def _next(self, lane: _Lane) -> list[_Waiting]:
        with self._changed:
            if not lane.requests:
                lane.is_running = False
                del self._lanes[lane.kind, lane.name]
                return []
            due_s = lane.oldest_s + self._delay_s
            while (left_s := due_s - time.monotonic()) > 0 and not self._is_closed and lane.rows < INGEST_ALONE_ROWS:
                self._changed.wait(left_s)
            return lane.group()

    def _answer(self, lane: _Lane, waiting: Sequence[_Waiting], group: Group) -> None:
        deferred = []
        for each, result in zip(waiting, group.results, strict=True):
            if result is None:
                deferred.append(each)
            elif isinstance(result, SkewlessError):
                each.answer.set_exception(result)
            else:
                each.answer.set_result(result)
        if deferred:
            with self._changed:
                lane.put_back(deferred)
        if group.is_kept:
            self._wake(lane.kind, lane.name)
