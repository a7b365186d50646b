"""The table of routes that the front door answers, in the order in which they are tried."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from skewless.errors import SkewlessError
from skewless_gateway.asgi import HotRoute
from skewless_gateway.edges.batch import PATH as BATCH_PATH
from skewless_gateway.edges.batch import BatchEdge
from skewless_gateway.edges.oip_rest import oip_routes
from skewless_gateway.edges.rest import NAME as REST
from skewless_gateway.edges.rest import OutcomesEdge, PredictEdge
from skewless_gateway.edges.tensorflow import tensorflow_routes
from skewless_gateway.edges.vertex import vertex_routes
from skewless_gateway.gateway import Gateway
from skewless_gateway.handlers import Handlers
from skewless_gateway.http_message import HttpRequest, Reply
from skewless_gateway.predictions import RequestHead
from skewless_gateway.problems import problem_of

GET = ("GET",)
POST = ("POST",)


@dataclass(frozen=True, slots=True)
class _Handled:
    """A handler of the REST API as an edge."""

    handle: Callable[[HttpRequest, RequestHead], Coroutine[Any, Any, Reply]]
    name: str = REST

    def refusal(self, error: SkewlessError, request_id: str) -> Reply:
        """See `Edge.refusal`."""
        return problem_of(error, request_id)


def hot_routes(gateway: Gateway) -> tuple[HotRoute, ...]:
    """Every route of a gateway; made at its start, because settings may name some of the paths."""
    handlers = Handlers(gateway)
    return (
        HotRoute(POST, "/v1/endpoints/{endpoint}/predict", PredictEdge(gateway)),
        HotRoute(POST, BATCH_PATH, BatchEdge(gateway, gateway.metrics.batches)),
        HotRoute(POST, "/v1/outcomes", OutcomesEdge(gateway)),
        HotRoute(GET, "/v1/endpoints", _Handled(handlers.list_endpoints)),
        HotRoute(GET, "/v1/endpoints/{endpoint}", _Handled(handlers.show_endpoint)),
        HotRoute(GET, "/healthz", _Handled(handlers.health), authenticated=False),
        HotRoute(GET, "/readyz", _Handled(handlers.ready), authenticated=False),
        HotRoute(GET, "/metrics", _Handled(handlers.metrics), authenticated=False),
        *oip_routes(gateway),
        *tensorflow_routes(gateway),
        *vertex_routes(gateway),
    )
