"""The gateway's HTTP application: one route table, and the answers to what goes wrong."""

import http
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from skewless.errors import SkewlessError
from skewless_gateway import documentation, handlers
from skewless_gateway.gateway import Gateway
from skewless_gateway.middleware import RequestEnvelope
from skewless_gateway.problems import problem, problem_of


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """One line of the route table."""

    method: str
    path: str
    handler: Callable[[Request], Awaitable[Response]]
    documentation: dict[str, Any]


ROUTES = (
    RouteEntry("POST", "/v1/endpoints/{endpoint}/predict", handlers.predict, documentation.PREDICT),
    RouteEntry("GET", "/v1/endpoints", handlers.list_endpoints, documentation.ENDPOINTS),
    RouteEntry("GET", "/v1/endpoints/{endpoint}", handlers.show_endpoint, documentation.ENDPOINT),
    RouteEntry("POST", "/v1/outcomes", handlers.take_outcomes, documentation.OUTCOMES),
    RouteEntry("GET", "/healthz", handlers.health, documentation.HEALTH),
    RouteEntry("GET", "/readyz", handlers.ready, documentation.READY),
    RouteEntry("GET", "/metrics", handlers.metrics, documentation.METRICS),
)


def create_app(open_gateway: Callable[[], AbstractAsyncContextManager[Gateway]]) -> FastAPI:
    """The application. `open_gateway` is entered in the server's event loop at start, left after the last answer."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_gateway() as gateway:
            app.state.gateway = gateway
            yield

    # The documentation page's scripts come from an installed package, so it works where no network is.
    app = FastAPIOffline(
        title=documentation.TITLE,
        description=documentation.DESCRIPTION,
        version=version("skewless"),
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
    )
    for entry in ROUTES:
        parameters = {"parameters": documentation.PATH_PARAMETERS} if "{endpoint}" in entry.path else {}
        app.add_api_route(
            entry.path,
            entry.handler,
            methods=[entry.method],
            response_class=Response,
            response_model=None,
            openapi_extra={**parameters, **entry.documentation},
        )
    app.add_exception_handler(SkewlessError, _answer_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(ClientDisconnect, handlers.client_gone)
    app.add_middleware(RequestEnvelope)
    return app


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SkewlessError), "registered for nothing else"
    response = problem_of(error, request_id=request.state.request_id)
    if response.status_code == http.HTTPStatus.INTERNAL_SERVER_ERROR:
        raise error  # the envelope logs it under the request's id and answers
    return response


async def _answer_http_error(request: Request, error: Exception) -> Response:
    """Paths and methods that no route has."""
    assert isinstance(error, HTTPException), "registered for nothing else"
    listed = ", ".join(f"{entry.method} {entry.path}" for entry in ROUTES)
    is_method = error.status_code == http.HTTPStatus.METHOD_NOT_ALLOWED
    return problem(
        error.status_code,
        "method_not_allowed" if is_method else "path_not_found",
        f"{request.method} {request.url.path[:200]}: {error.detail}",
        request_id=request.state.request_id,
        headers=dict(error.headers or {}),
        allowed=listed,
        hint="/docs describes every route",
    )
