"""The admin listener's application: metrics, health, and what operators need, apart from the API's callers."""

import hmac
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from pydantic import SecretStr

from skewless.errors import InvalidRequest, NotFound, SkewlessError, Unauthenticated
from skewless.limits import ADMIN_BODY_BYTES_MAX
from skewless_gateway.exposition import OPEN_METRICS, TEXT, wants_open_metrics
from skewless_gateway.operations import Operations
from skewless_http.http_message import (
    REQUEST_ID_HEADER,
    Application,
    HttpRequest,
    Receive,
    Reply,
    Scope,
    Send,
    json_reply,
    request_id_of,
    send_reply,
)
from skewless_http.problems import problem, problem_of

_TEXT = b"text/plain; charset=utf-8"
_OPEN = frozenset({"/healthz", "/readyz"})
"""What probes ask, which have no token."""

Handler = Callable[[Operations, HttpRequest], Awaitable[Reply]]


async def _metrics(operations: Operations, request: HttpRequest) -> Reply:
    open_metrics = wants_open_metrics(request.header(b"accept"))
    page = await operations.metrics(open_metrics=open_metrics)
    return Reply(200, OPEN_METRICS if open_metrics else TEXT, page)


async def _health(_operations: Operations, _request: HttpRequest) -> Reply:
    return json_reply({"status": "ok"})


async def _ready(operations: Operations, request: HttpRequest) -> Reply:
    is_ready, told = await operations.readiness()
    if is_ready:
        return json_reply({"ready": True, **told})
    return problem(
        503,
        "not_ready",
        "the gateway cannot answer predictions",
        request_id=request_id_of(request.header(REQUEST_ID_HEADER)),
        headers=((b"retry-after", b"1"),),
        **told,
    )


async def _workers(operations: Operations, _request: HttpRequest) -> Reply:
    return json_reply({"workers": await operations.workers()})


async def _stacks(operations: Operations, _request: HttpRequest) -> Reply:
    return Reply(200, _TEXT, (await operations.stacks()).encode())


async def _log_level(operations: Operations, request: HttpRequest) -> Reply:
    try:
        wanted = msgspec.json.decode(await request.body(ADMIN_BODY_BYTES_MAX), type=dict[str, str])
    except msgspec.DecodeError as error:
        raise InvalidRequest("the body is no JSON object", path="$", allowed='{"level": "info"}') from error
    if wanted.keys() != {"level"}:
        raise InvalidRequest("the body must have `level` and nothing else", path="$", allowed='{"level": "info"}')
    await operations.set_log_level(wanted["level"])
    return json_reply(wanted)


ROUTES: Mapping[tuple[str, str], Handler] = {
    ("GET", "/metrics"): _metrics,
    ("GET", "/healthz"): _health,
    ("GET", "/readyz"): _ready,
    ("GET", "/workers"): _workers,
    ("GET", "/debug/stacks"): _stacks,
    ("PUT", "/log-level"): _log_level,
}


def admin_app(operations: Operations, token: SecretStr | None) -> Application:
    """The ASGI application. With a token, all but health and readiness is answered only where it is given."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        request = HttpRequest(scope, receive)
        request_id = request_id_of(request.header(REQUEST_ID_HEADER))
        try:
            reply = await _handler(request, token)(operations, request)
        except SkewlessError as error:
            reply = problem_of(error, request_id)
        headers = [(b"content-type", reply.content_type), (REQUEST_ID_HEADER, request_id.encode()), *reply.headers]
        assert isinstance(reply.body, bytes), "no route of this application streams"
        await send_reply(send, reply.status, headers, reply.body)

    return serve


def _handler(request: HttpRequest, token: SecretStr | None) -> Handler:
    handler = ROUTES.get((request.method, request.path))
    if handler is None:
        known = tuple(f"{method} {path}" for method, path in ROUTES)
        raise NotFound("route", f"{request.method} {request.path[:100]}", known=known)
    if token is not None and request.path not in _OPEN and not _is_given(token, request.header(b"authorization")):
        raise Unauthenticated(
            "the admin listener wants its token",
            hint="send `Authorization: Bearer …` with SKEWLESS_GATEWAY_ADMIN_TOKEN",
        )
    return handler


def _is_given(token: SecretStr, authorization: bytes | None) -> bool:
    """In a time that says nothing of how much of it was right. The guard of the API would load what no parent needs."""
    return hmac.compare_digest(authorization or b"", b"Bearer " + token.get_secret_value().encode())


async def _live(receive: Receive, send: Send) -> None:
    """The lifespan of an application that has nothing to open."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
