"""What surrounds every request: its id, its count, and the boundary at which our own faults become an answer."""

import logging
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skewless_gateway.problems import internal_problem

REQUEST_ID_HEADER = "X-Request-Id"
_REQUEST_ID = re.compile("[A-Za-z0-9._-]{1,100}")
_LOGGER = logging.getLogger(__name__)


class RequestEnvelope:
    """ASGI middleware. A caller's X-Request-Id is kept where it is 1 to 100 of A-Z a-z 0-9 . _ -, else replaced."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:  # the process boundary: the caller gets an id, the log gets the trace
            _LOGGER.exception("request %s to %s failed", request_id, scope["path"])
            if not status:
                await internal_problem(request_id=request_id)(scope, receive, send_with_id)
        finally:
            if scope["path"].startswith("/v1/"):
                metrics = scope["app"].state.gateway.metrics
                # A caller that hung up before there was an answer is counted as 499, as proxies do.
                metrics.requests.labels(scope["state"].get("endpoint", ""), str(status or 499)).inc()
