"""The service's front door: routes, who asks, and the answer to everything that goes wrong; plain ASGI.

    path ──table──▶ route ──guard──▶ caller ──handler──▶ Reply      before any of the body is read there is a caller

FastAPI stays behind for /docs, /openapi.json and the answers to paths and methods that do not exist.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from skewless.errors import SkewlessError
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
    send_reply,
)
from skewless_http.problems import internal_problem, problem_of
from skewless_http.security.callers import Caller
from skewless_http.security.guard import Guard, credential_of
from skewless_http.security.headers import ANSWER_HEADERS, TLS_HEADERS

PEER = "skewless.peer"
"""Where the server puts the certificate that the caller's connection showed; absent where it showed none."""
CLIENT_GONE = 499
"""What a caller that hung up before there was an answer is counted as, as proxies do."""
_LOGGER = logging.getLogger(__name__)
_NOBODY = Caller("nobody", ())


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of a request before it is handled."""

    request: HttpRequest
    caller: Caller
    request_id: str


Handler = Callable[[Asked], Awaitable[Reply]]
Observe = Callable[[str, str, int, float], None]
"""Told of every answer: the route's pattern, the name in its path, the status, and how long it took in s."""


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the table. `pattern` is a path whose last part may be a variable, `/v1/features/{name}`."""

    method: str
    pattern: str
    handler: Handler
    authenticated: bool = True


class FrontDoor:
    """The ASGI application. Before `open`, and for what is no route, it is `behind` that answers."""

    def __init__(self, behind: Application) -> None:
        self._behind = behind
        self._routes: list[tuple[re.Pattern[str], Route]] = []
        self._guard: Guard | None = None
        self._observe: Observe = lambda _route, _name, _status, _took_s: None

    def open(self, routes: tuple[Route, ...], guard: Guard, observe: Observe) -> None:
        """Answer these routes from now on; called once the service's parts are there."""
        self._guard = guard
        self._observe = observe
        self._routes = [(_expression(route.pattern), route) for route in routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http":
            for expression, route in self._routes:
                if scope["method"] == route.method and (match := expression.fullmatch(scope["path"])) is not None:
                    await self._serve(route, HttpRequest(scope, receive, match.groupdict()), send)
                    return
        await self._behind(scope, receive, send)

    async def _serve(self, route: Route, request: HttpRequest, send: Send) -> None:
        """Answer one request, whatever happens: this is the boundary of its task."""
        begun_s, status = time.perf_counter(), CLIENT_GONE
        request_id = request_id_of(request.header(REQUEST_ID_HEADER))
        try:
            reply = await self._reply(route, request, request_id)
            status = reply.status
            await _send(send, reply, request_id, is_secure=request.scope["scheme"] == "https")
        except (ClientGone, asyncio.CancelledError):
            pass  # nobody is there to be answered: the connection ended, or the server does
        finally:
            if route.authenticated:
                name = request.parameters.get("name", "")
                self._observe(route.pattern, name, status, time.perf_counter() - begun_s)

    async def _reply(self, route: Route, request: HttpRequest, request_id: str) -> Reply:
        try:
            caller = await self._caller(request) if route.authenticated else _NOBODY
            return await route.handler(Asked(request, caller, request_id))
        except SkewlessError as error:
            reply = problem_of(error, request_id)
            if reply.status == 500:
                _log_failure(request, request_id)
            return reply
        except ClientGone:
            raise
        except Exception:  # noqa: BLE001  # a task's boundary: the caller gets an id, the log gets the trace
            _log_failure(request, request_id)
            return internal_problem(request_id=request_id)

    async def _caller(self, request: HttpRequest) -> Caller:
        guard = self._guard
        assert guard is not None, "the door is open"
        credential = credential_of(request.header(b"authorization"), request.header(b"x-api-key"))
        peer = request.scope.get(PEER)
        caller = guard.known(credential, peer) or await guard.authenticate(credential, peer)
        guard.check_host(caller, request.header(b"host"))
        guard.check_rate(caller)
        return caller


def _expression(pattern: str) -> re.Pattern[str]:
    head, _, variable = pattern.partition("{")
    return re.compile(re.escape(head) + (f"(?P<{variable.rstrip('}')}>[^/]+)" if variable else ""))


def _log_failure(request: HttpRequest, request_id: str) -> None:
    """To be called while the error is being handled."""
    told = {"request_id": request_id}
    _LOGGER.exception("request %s to %s failed", request_id, request.path, extra={"told": told})


async def _send(send: Send, reply: Reply, request_id: str, *, is_secure: bool) -> None:
    assert isinstance(reply.body, bytes), "no answer of this service comes in parts"
    headers = [
        (b"content-type", reply.content_type),
        (REQUEST_ID_HEADER, request_id.encode("ascii")),
        *ANSWER_HEADERS,
        *reply.headers,
    ]
    if is_secure:
        headers += TLS_HEADERS
    await send_reply(send, reply.status, headers, reply.body)
