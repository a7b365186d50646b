"""Vertex AI's contract with custom containers: one path for health, one for predictions of one endpoint.

    {"instances": [{…}, …], "parameters": {"deadline_ms": 50}}  →  {"predictions": [{"label": …, "probability": …}, …]}

Vertex AI checks who asks and calls the container without a credential, so these routes need none: whoever runs the
gateway opts in by naming the endpoint, and no other is answered on them. Vertex AI lets through 1.5 MB of a request or
an answer, less than the body limit here.
"""

from skewless.errors import InvalidRequest
from skewless.registry.api_scopes import ApiScope
from skewless.serving.field_types import json_kind
from skewless.serving.instances import unknown_name
from skewless.serving.json_body import parse_json
from skewless.serving.request import PredictRequest
from skewless.serving.request_parameters import read_parameters
from skewless.serving.served_bundle import ServedBundle
from skewless_gateway.asgi import HotRoute
from skewless_gateway.edges.encoded_bytes import with_encoded_bytes
from skewless_gateway.edges.error_objects import error_reply
from skewless_gateway.edges.tensorflow import predictions
from skewless_gateway.gateway import Gateway, readiness
from skewless_gateway.predictions import RequestHead
from skewless_http.bodies import check_json
from skewless_http.http_message import HttpRequest, Reply, json_reply
from skewless_http.security.callers import Caller

NAME = "vertex"
_FIELDS = ("instances", "parameters")


def vertex_routes(gateway: Gateway) -> tuple[HotRoute, ...]:
    """The two routes, where Vertex AI asks this gateway."""
    vertex = gateway.vertex
    if vertex is None:
        return ()
    caller = Caller(NAME, (ApiScope((vertex.endpoint,)),))
    return (
        HotRoute(("POST",), vertex.predict_route, PredictEdge(gateway, vertex.endpoint), caller=caller),
        HotRoute(("GET",), vertex.health_route, HealthEdge(gateway), authenticated=False),
    )


class PredictEdge:
    """Predictions of the one endpoint."""

    name = NAME
    refusal = staticmethod(error_reply)

    def __init__(self, gateway: Gateway, endpoint: str) -> None:
        self._predictions = gateway.predictions
        self._allow_as_of = gateway.allow_as_of
        self._endpoint = endpoint

    async def handle(self, request: HttpRequest, head: RequestHead) -> Reply:
        """Answer predictions for the instances in the body."""
        request.endpoint = self._endpoint  # the path names none, and requests are counted by it
        self._predictions.refuse_early(self._endpoint, head)
        check_json(request)
        document = parse_json(await request.body())

        def read(served: ServedBundle) -> PredictRequest:
            return _read(document, served, as_of_allowed=self._allow_as_of)

        answered = await self._predictions.answer(self._endpoint, read, head)
        return json_reply({"predictions": predictions(answered.answer)})


class HealthEdge:
    """Whether Vertex AI may send predictions."""

    name = NAME
    refusal = staticmethod(error_reply)

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def handle(self, _request: HttpRequest, _head: RequestHead) -> Reply:
        """200 when predictions can be answered, else 503."""
        is_ready, _ = await readiness(self._gateway)
        return json_reply({"ready": is_ready}, status=200 if is_ready else 503)


def _read(document: object, served: ServedBundle, *, as_of_allowed: bool) -> PredictRequest:
    """The request in a decoded body. Raises InvalidRequest with the path of the first wrong thing."""
    if type(document) is not dict:
        raise InvalidRequest(f"the body is {json_kind(document)}", path="$", allowed='an object {"instances": […]}')
    for name in document:
        if name not in _FIELDS:
            raise unknown_name(name, _FIELDS, path="$", what="field")
    parameters = document.get("parameters")
    if parameters is not None and type(parameters) is not dict:
        raise InvalidRequest(f"`parameters` is {json_kind(parameters)}", path="$.parameters", allowed="an object")
    if "instances" not in document:
        raise InvalidRequest(
            "the body has no `instances`", path="$.instances", allowed="an array of objects", code="missing_field"
        )
    options = read_parameters(parameters or {}, as_of_allowed=as_of_allowed)
    columns, rows = served.validator.columns(with_encoded_bytes(document["instances"], served.validator))
    return PredictRequest(columns, rows, options)
