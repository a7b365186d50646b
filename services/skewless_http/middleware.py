"""What surrounds the requests that no route answers: an id, a count, and the boundary at which a fault is an answer."""

import logging

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skewless_http.http_message import REQUEST_ID_HEADER, request_id_of, send_reply
from skewless_http.problems import internal_problem
from skewless_http.security.headers import ANSWER_HEADERS, DOCS_HEADERS, TLS_HEADERS

_HEADER = REQUEST_ID_HEADER.decode("ascii")
_DOCUMENTATION = ("/docs", "/openapi.json", "/static-offline-docs")
_LOGGER = logging.getLogger(__name__)


class RequestEnvelope:
    """ASGI middleware around the web framework. The front door does the same for its own routes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(_HEADER)
        request_id = request_id_of(None if given is None else given.encode("latin-1"))
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[_HEADER] = request_id
                is_page = scope["path"].startswith(_DOCUMENTATION)
                headers.raw.extend(DOCS_HEADERS if is_page else ANSWER_HEADERS)
                if scope["scheme"] == "https":
                    headers.raw.extend(TLS_HEADERS)
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:  # the process boundary: the caller gets an id, the log gets the trace
            _LOGGER.exception(
                "request %s to %s failed", request_id, scope["path"], extra={"told": {"request_id": request_id}}
            )
            if not status:
                reply = internal_problem(request_id=request_id)
                assert isinstance(reply.body, bytes), "problem documents are whole"
                await send_reply(send_with_id, reply.status, [(b"content-type", reply.content_type)], reply.body)
        finally:
            if scope["path"].startswith("/v1/"):
                scope["app"].state.requested("", status)
