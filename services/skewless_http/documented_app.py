"""FastAPI behind a front door: it documents what the front door answers, and answers what no route has."""

import http
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from skewless_http.http_message import Reply
from skewless_http.middleware import RequestEnvelope
from skewless_http.problems import problem

SECURITY_SCHEMES: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a token of the identity provider."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail", "request_id"],
    "properties": {
        name: {"type": "integer" if name == "status" else "string"}
        for name in ("type", "title", "status", "code", "detail", "path", "allowed", "hint", "request_id")
    },
}
"""JSON Schema of every error."""


@dataclass(frozen=True, slots=True)
class DocumentedRoute:
    """A route as the OpenAPI document tells of it."""

    method: str
    path: str
    name: str
    description: str
    documentation: dict[str, Any]


def documented_app(
    title: str,
    description: str,
    routes: Sequence[DocumentedRoute],
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
) -> FastAPI:
    """An application that documents routes which a front door answers, and refuses every other path and method.

    `lifespan` is entered in the server's event loop at start, and left after the last answer.
    """
    # The documentation page's scripts come from an installed package, so it works where no network is.
    app = FastAPIOffline(
        title=title,
        description=description,
        version=version("skewless"),
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
    )
    for entry in routes:
        app.add_api_route(
            entry.path,
            _answered_in_front,
            methods=[entry.method],
            name=entry.name,
            description=entry.description,
            response_class=Response,
            response_model=None,
            openapi_extra=entry.documentation,
        )
    described = app.openapi

    def with_security() -> dict[str, Any]:
        document = described()
        document.setdefault("components", {})["securitySchemes"] = SECURITY_SCHEMES
        return document

    app.openapi = with_security  # type: ignore[method-assign]  # FastAPI's own way to extend the document
    listed = ", ".join(f"{entry.method} {entry.path}" for entry in routes)

    async def answer_http_error(request: Request, error: Exception) -> Response:
        return _unknown_route(request, error, listed)

    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_middleware(RequestEnvelope)
    return app


async def _answered_in_front(_request: Request) -> Response:
    raise AssertionError("the front door answers every documented route")


def _unknown_route(request: Request, error: Exception, listed: str) -> Response:
    """Paths and methods that no route has."""
    assert isinstance(error, HTTPException), "registered for nothing else"
    headers = (error.headers or {}).items()
    is_method = error.status_code == http.HTTPStatus.METHOD_NOT_ALLOWED
    return as_response(
        problem(
            error.status_code,
            "method_not_allowed" if is_method else "path_not_found",
            f"{request.method} {request.url.path[:200]}: {error.detail}",
            request_id=request.state.request_id,
            headers=tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers),
            allowed=listed,
            hint="/docs describes every route",
        )
    )


def as_response(reply: Reply) -> Response:
    """A whole reply as the web framework sends it."""
    assert isinstance(reply.body, bytes), "what FastAPI answers is whole"
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reply.headers}
    return Response(reply.body, reply.status, headers, reply.content_type.decode("latin-1"))
