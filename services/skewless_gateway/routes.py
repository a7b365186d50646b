"""The table of routes that the front door answers, in the order in which they are tried."""

from skewless_gateway.asgi import HandlerEdge, HotRoute
from skewless_gateway.edges.batch import PATH as BATCH_PATH
from skewless_gateway.edges.batch import BatchEdge
from skewless_gateway.edges.oip_rest import oip_routes
from skewless_gateway.edges.outcomes import OutcomesEdge
from skewless_gateway.edges.rest import NAME as REST
from skewless_gateway.edges.rest import PredictEdge
from skewless_gateway.edges.tensorflow import tensorflow_routes
from skewless_gateway.edges.vertex import vertex_routes
from skewless_gateway.gateway import Gateway
from skewless_gateway.handlers import Handlers
from skewless_http.problems import problem_of

GET = ("GET",)
POST = ("POST",)


def hot_routes(gateway: Gateway) -> tuple[HotRoute, ...]:
    """Every route of a gateway; made at its start, because settings may name some of the paths."""
    handlers = Handlers(gateway)
    return (
        HotRoute(POST, "/v1/endpoints/{endpoint}/predict", PredictEdge(gateway)),
        HotRoute(POST, BATCH_PATH, BatchEdge(gateway, gateway.metrics.batches)),
        HotRoute(POST, "/v1/outcomes", OutcomesEdge(gateway)),
        HotRoute(GET, "/v1/endpoints", HandlerEdge(REST, handlers.list_endpoints, problem_of)),
        HotRoute(GET, "/v1/endpoints/{endpoint}", HandlerEdge(REST, handlers.show_endpoint, problem_of)),
        HotRoute(GET, "/healthz", HandlerEdge(REST, handlers.health, problem_of), authenticated=False),
        HotRoute(GET, "/readyz", HandlerEdge(REST, handlers.ready, problem_of), authenticated=False),
        HotRoute(GET, "/metrics", HandlerEdge(REST, handlers.metrics, problem_of), authenticated=False),
        *oip_routes(gateway),
        *tensorflow_routes(gateway),
        *vertex_routes(gateway),
    )
