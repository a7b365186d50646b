"""The gateway's HTTP application: the front door, and FastAPI behind it, which documents what is answered."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

from fastapi import FastAPI

from skewless_gateway import documentation
from skewless_gateway.asgi import FrontDoor
from skewless_gateway.edges import oip_documentation
from skewless_gateway.gateway import Gateway
from skewless_gateway.routes import hot_routes
from skewless_http.documented_app import DocumentedRoute, documented_app

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
            app.state.requested = gateway.metrics.answers.requested
            front.open(hot_routes(gateway), gateway)
            yield

    front = FrontDoor(documented_app(documentation.TITLE, documentation.DESCRIPTION, _with_paths(), lifespan))
    return front


def _with_paths() -> tuple[DocumentedRoute, ...]:
    """The routes, those of an endpoint with what its name may be."""
    endpoint = {"parameters": documentation.PATH_PARAMETERS}
    return tuple(
        replace(each, documentation={**endpoint, **each.documentation}) if "{endpoint}" in each.path else each
        for each in DOCUMENTED
    )
