"""The service's HTTP application: the front door, and FastAPI behind it, which documents what is answered."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

from skewless.ingestion.batches import BatchKind
from skewless_http.documented_app import DocumentedRoute, documented_app
from skewless_ingest import documentation
from skewless_ingest.edges import TakeEdge
from skewless_ingest.front_door import FrontDoor, Route
from skewless_ingest.pages import Pages
from skewless_ingest.service import IngestService

DOCUMENTED = (
    DocumentedRoute(
        "POST",
        "/v1/features/{name}",
        "take_features",
        "Keep rows of a feature view, and bring them to both stores: all of a body or nothing of it, but for rows that "
        "its view's quality suite sets aside.",
        documentation.TAKE_FEATURES,
    ),
    DocumentedRoute(
        "GET",
        "/v1/features",
        "list_features",
        "Feature views that the caller may bring rows for.",
        documentation.LIST_FEATURES,
    ),
    DocumentedRoute(
        "GET",
        "/v1/features/{name}",
        "show_features",
        "What rows of a view must be like, what becomes of odd ones, and what waits.",
        documentation.SHOW_FEATURES,
    ),
    DocumentedRoute(
        "POST",
        "/v1/events/{name}",
        "take_events",
        "Keep raw events of a stream, from which features are computed: all of a body or nothing of it.",
        documentation.TAKE_EVENTS,
    ),
    DocumentedRoute(
        "GET", "/v1/events", "list_events", "Streams that the caller may bring events for.", documentation.LIST_EVENTS
    ),
    DocumentedRoute(
        "GET",
        "/v1/events/{name}",
        "show_events",
        "What events of a stream must be like, and what waits.",
        documentation.SHOW_EVENTS,
    ),
    DocumentedRoute(
        "GET", "/v1/batches/{id}", "show_batch", "Where a batch of accepted rows stands.", documentation.SHOW_BATCH
    ),
    DocumentedRoute(
        "GET",
        "/healthz",
        "health",
        "200 as long as the process answers; says nothing about the parts it needs.",
        documentation.HEALTH,
    ),
    DocumentedRoute(
        "GET", "/readyz", "ready", "200 when rows can be taken, else 503 with what is missing.", documentation.READY
    ),
    DocumentedRoute("GET", "/metrics", "metrics", "Prometheus metrics.", documentation.METRICS),
)
_OPEN = frozenset({"/healthz", "/readyz", "/metrics"})
"""What probes ask, which have no credential."""


def routes_of(service: IngestService) -> tuple[Route, ...]:
    """Every documented route with what answers it."""
    pages = Pages(service)
    handlers = {
        "take_features": TakeEdge(service, BatchKind.ROWS).handle,
        "take_events": TakeEdge(service, BatchKind.EVENTS).handle,
        "list_features": pages.list_features,
        "list_events": pages.list_events,
        "show_features": pages.show_features,
        "show_events": pages.show_events,
        "show_batch": pages.show_batch,
        "health": pages.health,
        "ready": pages.ready,
        "metrics": pages.metrics,
    }
    return tuple(Route(each.method, each.path, handlers[each.name], each.path not in _OPEN) for each in DOCUMENTED)


def create_app(open_service: Callable[[], AbstractAsyncContextManager[IngestService]]) -> FrontDoor:
    """The application. `open_service` is entered in the server's event loop at start, left after the last answer."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_service() as service:
            app.state.requested = service.metrics.requested
            front.open(routes_of(service), service.guard, service.metrics.answered)
            yield

    front = FrontDoor(documented_app(documentation.TITLE, documentation.DESCRIPTION, DOCUMENTED, lifespan))
    return front
