"""What surrounds every gRPC call: who asks, the request's id and time, the count, and what an error becomes."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from grpc import StatusCode

from skewless.errors import SkewlessError
from skewless.serving.request_trace import AttributeValue
from skewless.serving.trace_context import TRACEPARENT, TRACESTATE
from skewless_gateway.gateway import Gateway
from skewless_gateway.grpc_metrics import GrpcMetrics
from skewless_gateway.grpc_status import STATUS_OF_CLASS, details_of, trailers_of
from skewless_gateway.predictions import RequestHead
from skewless_http.http_message import request_id_of
from skewless_http.problems import problem_members
from skewless_http.security.guard import credential_of
from skewless_http.security.peers import PeerCertificate

EDGE = "oip_grpc"
REQUEST_ID_KEY = "x-request-id"
_SERVICE = "inference.GRPCInferenceService"
_TRACEPARENT, _TRACESTATE = TRACEPARENT.decode(), TRACESTATE.decode()
_FAULTS = frozenset(
    {
        StatusCode.UNKNOWN,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.UNIMPLEMENTED,
        StatusCode.INTERNAL,
        StatusCode.UNAVAILABLE,
        StatusCode.DATA_LOSS,
    }
)
"""What OpenTelemetry has servers call an error of theirs."""
Response = TypeVar("Response")
_LOGGER = logging.getLogger(__name__)


class Context(Protocol):
    """What is used of a call's `grpc.aio.ServicerContext`."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...

    def auth_context(self) -> Mapping[str, Sequence[bytes]]: ...

    def time_remaining(self) -> float | None: ...

    async def abort(
        self, code: StatusCode, details: str, trailing_metadata: tuple[tuple[str, str], ...] = ()
    ) -> None: ...


class Calls:
    """Answers calls of one gateway. Belongs to one event loop."""

    def __init__(self, gateway: Gateway, metrics: GrpcMetrics) -> None:
        self._guard = gateway.guard
        self._clock = gateway.clock
        self._follower = gateway.follower
        self._metrics = metrics
        self._tracing = gateway.tracing
        self._access_log = gateway.access_log

    async def answer(
        self, context: Context, method: str, endpoint: str, work: Callable[[RequestHead], Awaitable[Response]]
    ) -> Response:
        """What `work` gives to a caller that is known. This is the boundary of the call: it ends in a status."""
        request_id = self.request_id(context)
        head: RequestHead | None = None
        try:
            head = await self.head(context, request_id)
            response = await work(head)
        except Exception as error:  # noqa: BLE001  # a task's boundary: the caller gets an id, the log gets the trace
            status, text, trailers = self.refusal(error, request_id)
            self.ended(method, endpoint, status, head, code=code_of(error))
        else:
            self.ended(method, endpoint, StatusCode.OK, head)
            return response
        await context.abort(status, text, ((REQUEST_ID_KEY, request_id), *trailers))
        raise AssertionError("abort raises")

    def request_id(self, context: Context) -> str:
        """The caller's own where it gave a proper one, else a new one."""
        return request_id_of(_metadata(context).get(REQUEST_ID_KEY))

    async def head(self, context: Context, request_id: str) -> RequestHead:
        """Who asks, and how long there is. Raises Unauthenticated, RateLimited."""
        started_ns = self._clock()
        metadata = _metadata(context)
        credential = credential_of(metadata.get("authorization"), metadata.get("x-api-key"))
        peer = PeerCertificate.of_grpc(context.auth_context())
        caller = self._guard.known(credential, peer)
        if caller is None:
            caller = await self._guard.authenticate(credential, peer)
        self._guard.check_rate(caller)
        left_s = context.time_remaining()
        deadline_ms = None if left_s is None else max(1, int(left_s * 1_000))
        head = RequestHead(request_id, started_ns, caller, EDGE, deadline_ms)
        if self._tracing is not None:
            parent, state = metadata.get(_TRACEPARENT), metadata.get(_TRACESTATE)
            head.trace = self._tracing.begin(parent, state, started_ns)
        return head

    def refusal(self, error: Exception, request_id: str) -> tuple[StatusCode, str, tuple[tuple[str, str], ...]]:
        """Status, details and trailing metadata of an error. What the caller cannot mend is told without its details,
        and logged."""
        known = error if isinstance(error, SkewlessError) else SkewlessError("internal error")
        status = STATUS_OF_CLASS[type(known)]
        if status is StatusCode.INTERNAL:
            _LOGGER.error(
                "request %s over gRPC failed", request_id, exc_info=error, extra={"told": {"request_id": request_id}}
            )
        members = problem_members(known, request_id=request_id)
        return status, details_of(members), trailers_of(known, members["code"])

    def ended(
        self, method: str, endpoint: str, status: StatusCode, head: RequestHead | None, *, code: str = ""
    ) -> None:
        """Count one call, or one request of a stream; hand over its trace and write its line, where it has any.

        `head` is None where the caller was refused; `code` is the stable code of the error, empty where there is none.
        """
        known = endpoint if endpoint in self._follower.state.endpoints else ""
        self._metrics.calls.labels(method, known, status.name).inc()
        if head is None:
            return
        trace = head.trace
        if trace is not None and self._tracing is not None:
            trace.error = code
            told: dict[str, AttributeValue] = {
                "rpc.system": "grpc",
                "rpc.method": method,
                "rpc.grpc.status_code": status.value[0],
                "skewless.edge": EDGE,
                "skewless.endpoint": known,
                "skewless.request_id": head.request_id,
            }
            self._tracing.end(trace, f"{_SERVICE}/{method}", told, is_fault=status in _FAULTS)
        took_ns = self._access_log.ended(head.started_ns, is_error=status is not StatusCode.OK)
        if took_ns:
            self._access_log.write(
                f"{_SERVICE}/{method}",
                took_ns,
                status=status.name,
                edge=EDGE,
                endpoint=known,
                request_id=head.request_id,
                trace_id="" if trace is None else f"{trace.trace_id:032x}",
                code=code,
            )


def code_of(error: Exception) -> str:
    """The stable code by which an error is told."""
    return error.code if isinstance(error, SkewlessError) else SkewlessError.code


def _metadata(context: Context) -> dict[str, bytes]:
    """Of a key that is sent twice the first counts."""
    given = context.invocation_metadata() or ()
    return {key: value.encode() if isinstance(value, str) else value for key, value in reversed(tuple(given))}
