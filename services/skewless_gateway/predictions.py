"""One prediction request of any edge: from its endpoint's name to an answer that is logged and counted.

Knows no transport. An edge says who asks and how long there is (`RequestHead`), and hands over a function that reads
its own body for the bundle that will answer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from skewless.errors import Forbidden, Unavailable
from skewless.serving.data_plane import MODEL_BACKEND, Answer, DataPlane
from skewless.serving.deadline import Deadline, MonotonicClock
from skewless.serving.receipt import status_counts
from skewless.serving.request import PredictRequest
from skewless.serving.request_timeout import effective_deadline_ms
from skewless.serving.request_trace import RequestTrace
from skewless.serving.served_bundle import ServedBundle
from skewless_gateway.admission import Admission
from skewless_gateway.metrics import GatewayMetrics, short
from skewless_gateway.route_follower import RouteFollower, ServedEndpoint
from skewless_http.security.callers import Caller
from skewless_http.security.guard import Guard

BATCH = "batch"
"""The edge whose requests take no place that another one wants."""


@dataclass(slots=True)
class RequestHead:
    """What is known of a request before its body. Not frozen: one is made for every request."""

    request_id: str
    started_ns: int
    caller: Caller
    edge: str
    """The protocol: `rest`, `oip`, `oip_grpc`, `tensorflow`, `vertex` or `batch`."""
    deadline_ms: int | None = None
    """From a header or the transport; None where none was given."""
    trace: RequestTrace | None = None
    """Where the request is traced, what is noted of it."""


Read = Callable[[ServedBundle], PredictRequest]
"""Reads an edge's body for the bundle whose contract says what callers send. Raises InvalidRequest."""


@dataclass(slots=True)
class Answered:
    """A request and its answer. `statuses` counts the served feature values of all its rows by status."""

    endpoint: ServedEndpoint
    request: PredictRequest
    answer: Answer
    statuses: Mapping[str, int]


class PredictionService:
    """Answers prediction requests of every edge alike."""

    def __init__(
        self,
        plane: DataPlane,
        follower: RouteFollower,
        *,
        guard: Guard,
        admission: Admission,
        metrics: GatewayMetrics,
        clock: MonotonicClock,
    ) -> None:
        self._plane = plane
        self._follower = follower
        self._guard = guard
        self._admission = admission
        self._answers = metrics.answers
        self._rungs = metrics.rungs
        self._clock = clock

    def refuse_early(self, endpoint: str, head: RequestHead) -> None:
        """Return where a request has a chance; to be asked before its body is read.

        Raises Forbidden, NotFound, Unavailable or Overloaded.
        """
        self._may_ask(endpoint, head.caller)
        self._follower.endpoint(endpoint)
        self._admission.refuse_if_full(endpoint, head.deadline_ms)

    async def answer(self, endpoint: str, read: Read, head: RequestHead) -> Answered:
        """The answer for one request, once its record is as safe as the log promises.

        Raises SkewlessError: Forbidden, NotFound, InvalidRequest, Overloaded, DeadlineExceeded, Rejected, Unavailable.
        """
        caller = head.caller
        self._may_ask(endpoint, caller)
        found = self._follower.endpoint(endpoint)
        request = read(found.served)
        rows = request.rows
        try:
            caller.check_entities(endpoint, request.columns, rows)
        except Forbidden as error:
            self._guard.forbidden(error)
            raise
        self._guard.charge(caller, rows)
        deadline_ms = effective_deadline_ms(head.deadline_ms, request.options.deadline_ms)
        trace = head.trace
        if trace is None:
            deadline = Deadline(self._clock, started_ns=head.started_ns, deadline_ms=deadline_ms)
        else:
            deadline = trace.timed(self._clock, deadline_ms=deadline_ms)
        async with self._admission.admitted(endpoint, deadline, rows=rows, background=head.edge == BATCH):
            try:
                answer = await self._plane.predict(
                    found.serving, request, deadline=deadline, request_id=head.request_id, caller=caller.id
                )
            except Unavailable as error:
                if error.part == MODEL_BACKEND:
                    self._follower.wake()
                raise
        batches = [batch for batch, _ in answer.parts]
        statuses = status_counts(batches)
        self._rungs.answered(batches)
        self._answers.answered(
            endpoint,
            rows=request.rows,
            statuses=statuses,
            stage_ms=deadline.laps_ms,
            total_ms=deadline.total_ms(),
            trace_id=0 if trace is None else trace.trace_id,
        )
        if trace is not None:
            bundles = tuple([short(batch.bundle) for batch in batches])
            version = found.route.version
            trace.answered(rows=rows, rung=answer.rung, bundles=bundles, version=version, statuses=statuses)
        return Answered(found, request, answer, statuses)

    def _may_ask(self, endpoint: str, caller: Caller) -> None:
        """Before anything else: strangers do not learn which endpoints exist."""
        try:
            caller.may_ask(endpoint)
        except Forbidden as error:
            self._guard.forbidden(error)
            raise
