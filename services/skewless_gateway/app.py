"""The gateway's HTTP application: the front door, and FastAPI behind it, which documents what is answered."""

import http
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from skewless_gateway import documentation
from skewless_gateway.asgi import FrontDoor
from skewless_gateway.edges import oip_documentation
from skewless_gateway.gateway import Gateway
from skewless_gateway.routes import hot_routes
from skewless_http.http_message import Reply
from skewless_http.middleware import RequestEnvelope
from skewless_http.problems import problem


@dataclass(frozen=True, slots=True)
class DocumentedRoute:
    """A route as the OpenAPI document tells of it."""

    method: str
    path: str
    name: str
    description: str
    documentation: dict[str, Any]


DOCUMENTED = (
    DocumentedRoute(
        "POST",
        "/v1/endpoints/{endpoint}/predict",
        "predict",
        "Answer predictions for the instances in the body.",
        documentation.PREDICT,
    ),
    DocumentedRoute(
        "POST",
        "/v1/endpoints/{endpoint}/predict:batch",
        "predict_batch",
        "Answer predictions for any number of instances, while they arrive.",
        documentation.PREDICT_BATCH,
    ),
    DocumentedRoute(
        "GET",
        "/v1/endpoints",
        "list_endpoints",
        "Every endpoint of the routing table, and the bundle that answers it.",
        documentation.ENDPOINTS,
    ),
    DocumentedRoute(
        "GET",
        "/v1/endpoints/{endpoint}",
        "show_endpoint",
        "What an endpoint takes, what it answers, and the bundle behind it.",
        documentation.ENDPOINT,
    ),
    DocumentedRoute(
        "POST",
        "/v1/outcomes",
        "take_outcomes",
        "Keep what turned out for earlier predictions: all of a JSON body or nothing of it, NDJSON line by line.",
        documentation.OUTCOMES,
    ),
    DocumentedRoute(
        "GET",
        "/healthz",
        "health",
        "200 as long as the process answers; says nothing about the parts it needs.",
        documentation.HEALTH,
    ),
    DocumentedRoute(
        "GET",
        "/readyz",
        "ready",
        "200 when predictions can be answered, else 503 with what is missing.",
        documentation.READY,
    ),
    DocumentedRoute("GET", "/metrics", "metrics", "Prometheus metrics.", documentation.METRICS),
    *(DocumentedRoute(*each) for each in oip_documentation.ROUTES),
)


def create_app(open_gateway: Callable[[], AbstractAsyncContextManager[Gateway]]) -> FrontDoor:
    """The application. `open_gateway` is entered in the server's event loop at start, left after the last answer."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_gateway() as gateway:
            app.state.gateway = gateway
            front.open(hot_routes(gateway), gateway)
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
    for entry in DOCUMENTED:
        parameters = {"parameters": documentation.PATH_PARAMETERS} if "{endpoint}" in entry.path else {}
        app.add_api_route(
            entry.path,
            _answered_in_front,
            methods=[entry.method],
            name=entry.name,
            description=entry.description,
            response_class=Response,
            response_model=None,
            openapi_extra={**parameters, **entry.documentation},
        )
    described = app.openapi

    def with_security() -> dict[str, Any]:
        document = described()
        document.setdefault("components", {})["securitySchemes"] = documentation.SECURITY_SCHEMES
        return document

    app.openapi = with_security  # type: ignore[method-assign]  # FastAPI's own way to extend the document
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_middleware(RequestEnvelope)
    front = FrontDoor(app)
    return front


async def _answered_in_front(_request: Request) -> Response:
    raise AssertionError("the front door answers every documented route")


async def _answer_http_error(request: Request, error: Exception) -> Response:
    """Paths and methods that no route has."""
    assert isinstance(error, HTTPException), "registered for nothing else"
    headers = (error.headers or {}).items()
    listed = ", ".join(f"{entry.method} {entry.path}" for entry in DOCUMENTED)
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
