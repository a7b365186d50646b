"""The gateway's front door: every route that is asked often, answered over plain ASGI; all else is the documentation's.

    path ──table──▶ route     a dictionary look-up once a path was seen, see `RouteTable`
    head ──guard──▶ caller    before any of the body is read
    edge.handle ──▶ Reply     or a SkewlessError, which the edge puts into its own form

FastAPI stays behind for /docs, /openapi.json and the answers to paths and methods that do not exist; what it costs per
request is in ADR 26.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from skewless.errors import Overloaded, SkewlessError
from skewless.limits import PATHS_REMEMBERED_MAX
from skewless.serving.request_timeout import ENVOY_HEADER, HEADER, read_timeout_ms
from skewless.serving.request_trace import AttributeValue
from skewless.serving.trace_context import TRACEPARENT, TRACESTATE
from skewless_gateway.gateway import Gateway
from skewless_gateway.predictions import RequestHead
from skewless_http.http_message import (
    REQUEST_ID_HEADER,
    Application,
    ClientGone,
    HttpRequest,
    Receive,
    Reply,
    Scope,
    Send,
    request_id_of,
    send_parts,
    send_reply,
)
from skewless_http.lobby import REFUSED
from skewless_http.security.callers import Caller
from skewless_http.security.guard import credential_of
from skewless_http.security.headers import ANSWER_HEADERS, TLS_HEADERS

PEER = "skewless.peer"
"""Where the server puts the certificate that the caller's connection showed; absent where it showed none."""
ARRIVED_NS = "arrived_ns"
"""Where the server puts into a request's state when its first bytes came, on the gateway's clock."""
CLIENT_GONE = 499
"""What a caller that hung up before there was an answer is counted as, as proxies do."""
_LOGGER = logging.getLogger(__name__)


class Edge(Protocol):
    """Translates one protocol for `PredictionService`, and decides nothing else."""

    @property
    def name(self) -> str:
        """What `RequestHead.edge` says."""
        ...

    async def handle(self, request: HttpRequest, head: RequestHead) -> Reply:
        """The answer. Raises SkewlessError."""
        ...

    def refusal(self, error: SkewlessError, request_id: str) -> Reply:
        """The answer to an error, in the protocol's own form; `problems.problem_of` where it has none."""
        ...


@dataclass(frozen=True, slots=True)
class HandlerEdge:
    """An `Edge` of one function, for what needs nothing else."""

    name: str
    handle: Callable[[HttpRequest, RequestHead], Coroutine[Any, Any, Reply]]
    refusal: Callable[[SkewlessError, str], Reply]


@dataclass(frozen=True, slots=True)
class HotRoute:
    """One line of the table of routes.

    `pattern` is a path with variables, such as `/v2/models/{endpoint}/versions/{version}/infer`; a variable stands for
    anything but a slash, and `{rest}` at the end for anything. The first line that matches wins.
    """

    methods: tuple[str, ...]
    pattern: str
    edge: Edge
    authenticated: bool = True
    """Whether the caller must be known. Requests of other routes are not counted either: probes ask them."""
    caller: Caller | None = None
    """Who asks, where the deployment vouches for it; the guard then looks at no credential, but still at the rate."""


class RouteTable:
    """Finds the route of a method and path. Found paths are remembered, so that none is matched twice in a row."""

    def __init__(self, routes: tuple[HotRoute, ...]) -> None:
        self._routes = [(re.compile(_expression(route.pattern)), route) for route in routes]
        self._remembered: dict[tuple[str, str], tuple[HotRoute, Mapping[str, str]]] = {}

    def find(self, method: str, path: str) -> tuple[HotRoute, Mapping[str, str]] | None:
        """The route and its variables; None where no route has that method and path."""
        found = self._remembered.get((method, path))
        if found is not None:
            return found
        for expression, route in self._routes:
            if method in route.methods and (match := expression.fullmatch(path)) is not None:
                if len(self._remembered) >= PATHS_REMEMBERED_MAX:
                    self._remembered.clear()
                found = self._remembered[method, path] = route, match.groupdict()
                return found
        return None


def _expression(pattern: str) -> str:
    parts = re.split(r"(\{\w+\})", pattern)
    named = (f"(?P<{part[1:-1]}>{'.*' if part == '{rest}' else '[^/]+'})" for part in parts[1::2])
    return "".join(re.escape(literal) + next(named, "") for literal in parts[::2])


_NOBODY = Caller("nobody", ())
"""Who asks where nobody needs to be known; may ask no endpoint."""


class FrontDoor:
    """The ASGI application. Before `open`, and for what is no route of the table, it is `behind` that answers."""

    def __init__(self, behind: Application) -> None:
        self._behind = behind
        self._room: _Room | None = None

    def open(self, routes: tuple[HotRoute, ...], gateway: Gateway) -> None:
        """Answer these routes from now on; called once the gateway's parts are there."""
        self._room = _Room(RouteTable(routes), gateway)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        room = self._room
        if room is not None and scope["type"] == "http":
            found = room.table.find(scope["method"], scope["path"])
            if found is not None:
                await room.serve(found[0], HttpRequest(scope, receive, found[1]), send)
                return
        await self._behind(scope, receive, send)


class _Room:
    """What is behind the front door once it is open."""

    def __init__(self, table: RouteTable, gateway: Gateway) -> None:
        self.table = table
        self._clock = gateway.clock
        self._guard = gateway.guard
        self._follower = gateway.follower
        self._count = gateway.metrics.answers.requested
        self._tracing = gateway.tracing
        self._access_log = gateway.access_log

    async def serve(self, route: HotRoute, request: HttpRequest, send: Send) -> None:
        """Answer one request, whatever happens: this is the boundary of its task."""
        # A request that waited unread has less time left than one that has just arrived.
        started_ns: int = request.scope["state"].get(ARRIVED_NS) or self._clock()
        request_id = request_id_of(request.header(REQUEST_ID_HEADER))
        status = CLIENT_GONE
        try:
            reply = await self._reply(route, request, request_id, started_ns)
            status = reply.status
            await _send(send, reply, request_id, is_secure=request.scope["scheme"] == "https")
        except (ClientGone, asyncio.CancelledError):
            pass  # nobody is there to be answered: the connection ended, or the server does
        finally:
            if route.authenticated:
                # Only what is in service becomes a label, so the number of series is bounded.
                endpoint = request.endpoint if request.endpoint in self._follower.state.endpoints else ""
                self._count(endpoint, status)
                self._tell(route, request, endpoint, request_id=request_id, started_ns=started_ns, status=status)

    def _tell(
        self, route: HotRoute, request: HttpRequest, endpoint: str, *, request_id: str, started_ns: int, status: int
    ) -> None:
        """Hand over the trace, and write the line, of a request that is over; most have neither."""
        trace = request.trace
        if trace is not None and self._tracing is not None:
            trace.error = request.refused_with
            told: dict[str, AttributeValue] = {
                "http.request.method": request.method,
                "http.route": route.pattern,
                "http.response.status_code": status,
                "skewless.edge": route.edge.name,
                "skewless.endpoint": endpoint,
                "skewless.request_id": request_id,
            }
            self._tracing.end(trace, f"{request.method} {route.pattern}", told, is_fault=status >= 500)
        took_ns = self._access_log.ended(started_ns, is_error=status >= 400)
        if took_ns:
            self._access_log.write(
                f"{request.method} {request.path}",
                took_ns,
                status=status,
                edge=route.edge.name,
                endpoint=endpoint,
                request_id=request_id,
                trace_id="" if trace is None else f"{trace.trace_id:032x}",
                code=request.refused_with,
            )

    async def _reply(self, route: HotRoute, request: HttpRequest, request_id: str, started_ns: int) -> Reply:
        try:
            caller = await self._caller(route, request) if route.authenticated else _NOBODY
            deadline_ms = read_timeout_ms(request.header(HEADER), request.header(ENVOY_HEADER))
            head = RequestHead(request_id, started_ns, caller, route.edge.name, deadline_ms)
            if self._tracing is not None and route.authenticated:
                parent, state = request.header(TRACEPARENT), request.header(TRACESTATE)
                request.trace = head.trace = self._tracing.begin(parent, state, started_ns)
            return await route.edge.handle(request, head)
        except SkewlessError as error:
            request.refused_with = error.code
            if type(error) is Overloaded:
                request.scope["state"][REFUSED] = True
            reply = route.edge.refusal(error, request_id)
            if reply.status == 500:
                _log_failure(request, request_id)
            return reply
        except ClientGone:
            raise
        except Exception:  # noqa: BLE001  # a task's boundary: the caller gets an id, the log gets the trace
            request.refused_with = SkewlessError.code
            _log_failure(request, request_id)
            return route.edge.refusal(SkewlessError("internal error"), request_id)

    async def _caller(self, route: HotRoute, request: HttpRequest) -> Caller:
        caller = route.caller
        if caller is None:
            credential = credential_of(request.header(b"authorization"), request.header(b"x-api-key"))
            peer = request.scope.get(PEER)
            caller = self._guard.known(credential, peer) or await self._guard.authenticate(credential, peer)
        self._guard.check_host(caller, request.header(b"host"))
        self._guard.check_rate(caller)
        return caller


def _log_failure(request: HttpRequest, request_id: str) -> None:
    """To be called while the error is being handled."""
    told = {"request_id": request_id, "endpoint": request.endpoint}
    if request.trace is not None:
        told["trace_id"] = f"{request.trace.trace_id:032x}"
    _LOGGER.exception("request %s to %s failed", request_id, request.path, extra={"told": told})


async def _send(send: Send, reply: Reply, request_id: str, *, is_secure: bool) -> None:
    headers = [
        (b"content-type", reply.content_type),
        (REQUEST_ID_HEADER, request_id.encode("ascii")),
        *ANSWER_HEADERS,
        *reply.headers,
    ]
    if is_secure:
        headers += TLS_HEADERS
    body = reply.body
    if isinstance(body, bytes):
        await send_reply(send, reply.status, headers, body)
    else:
        await send_parts(send, reply.status, headers, body)
