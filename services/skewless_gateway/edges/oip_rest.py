"""The Open Inference Protocol over HTTP (`/v2/…`), as Triton's and KServe's clients speak it."""

from typing import Any

from skewless.errors import InvalidRequest, NotFound
from skewless.serving.answer_tensors import AnswerTensor, answer_parameters, answer_tensors, checked_names, selected
from skewless.serving.field_tensors import field_tensors
from skewless.serving.field_types import json_kind, shown
from skewless.serving.json_body import parse_json
from skewless.serving.request import PredictRequest
from skewless.serving.request_parameters import read_parameters
from skewless.serving.served_bundle import ServedBundle
from skewless_gateway.asgi import HandlerEdge, HotRoute
from skewless_gateway.edges.error_objects import error_reply
from skewless_gateway.edges.oip import OipModel, OipModels
from skewless_gateway.edges.oip_binary import JSON_LENGTH_HEADER, OipBody, read_body, written
from skewless_gateway.edges.raw_model import RawModels
from skewless_gateway.gateway import Gateway
from skewless_gateway.predictions import RequestHead
from skewless_http.http_message import JSON, HttpRequest, Reply, json_reply
from skewless_http.problems import UNSUPPORTED_MEDIA_TYPE

NAME = "oip"
_BINARY = b"application/octet-stream"
_MEDIA_TYPES = frozenset({b"", b"application/json", _BINARY})
"""Triton's clients send no type with JSON, or that of bytes; KServe's send both."""
_MODEL = "/v2/models/{endpoint}"
_VERSION = f"{_MODEL}/versions/{{version}}"
_EVERY_METHOD = ("GET", "POST", "PUT", "DELETE", "PATCH")


def oip_routes(gateway: Gateway) -> tuple[HotRoute, ...]:
    """The protocol's routes. Only health is told without a credential."""
    models = OipModels(gateway)
    infer, views = InferEdge(gateway, models), _Views(gateway, models)
    versioned = {"": views.metadata, "/ready": views.model_ready, "/config": views.config}
    return (
        HotRoute(("POST",), f"{_MODEL}/infer", infer),
        HotRoute(("POST",), f"{_VERSION}/infer", infer),
        HotRoute(("GET",), "/v2/health/live", HandlerEdge(NAME, views.live, error_reply), authenticated=False),
        HotRoute(("GET",), "/v2/health/ready", HandlerEdge(NAME, views.ready, error_reply), authenticated=False),
        HotRoute(("GET",), "/v2", HandlerEdge(NAME, views.server, error_reply)),
        HotRoute(("GET",), "/v2/models", HandlerEdge(NAME, views.models, error_reply)),
        HotRoute(("POST",), "/v2/repository/index", HandlerEdge(NAME, views.index, error_reply)),
        *(
            HotRoute(("GET",), f"{path}{suffix}", HandlerEdge(NAME, view, error_reply))
            for suffix, view in versioned.items()
            for path in (_MODEL, _VERSION)
        ),
        HotRoute(_EVERY_METHOD, "/v2/{rest}", HandlerEdge(NAME, views.unknown, error_reply)),
    )


class InferEdge:
    """POST /v2/models/{endpoint}/infer, also with a version."""

    name = NAME
    refusal = staticmethod(error_reply)

    def __init__(self, gateway: Gateway, models: OipModels) -> None:
        self._predictions = gateway.predictions
        self._allow_as_of = gateway.allow_as_of
        self._models = models
        self._raw_models = RawModels(gateway)

    async def handle(self, request: HttpRequest, head: RequestHead) -> Reply:
        """Answer predictions for the tensors in the body."""
        endpoint = self._models.endpoint_of(request.endpoint)
        self._predictions.refuse_early(endpoint, head)
        model = self._models.find(request.endpoint, request.parameters.get("version", ""), head.caller)
        _check_media_type(request)
        body = read_body(await request.body(), request.header(JSON_LENGTH_HEADER))
        _check_repeated(body, model)
        wanted = checked_names(body.outputs, model.outputs)
        options = read_parameters(body.parameters, as_of_allowed=self._allow_as_of)
        if model.is_raw:
            given = await self._raw_models.answer(model, body.tensors, options, head)
            return _reply(model, model.version, {}, selected(given, wanted), body)

        def read(served: ServedBundle) -> PredictRequest:
            columns, rows = field_tensors(served.validator).columns(body.tensors)
            return PredictRequest(columns, rows, options)

        answered = await self._predictions.answer(endpoint, read, head)
        version = str(answered.endpoint.route.version)
        parameters = answer_parameters(answered.answer)
        return _reply(model, version, parameters, selected(answer_tensors(answered.answer), wanted), body)


class _Views:
    """What can be looked at: health, metadata, the index."""

    def __init__(self, gateway: Gateway, models: OipModels) -> None:
        self._gateway = gateway
        self._models = models

    async def live(self, _request: HttpRequest, _head: RequestHead) -> Reply:
        """200 as long as the process answers."""
        return json_reply({"live": True})

    async def ready(self, _request: HttpRequest, _head: RequestHead) -> Reply:
        """200 when predictions can be answered, as /readyz says, else 503."""
        parts = await self._gateway.parts()
        is_ready = all(part.ok for part in parts.values())
        return json_reply({"ready": is_ready}, status=200 if is_ready else 503)

    async def server(self, _request: HttpRequest, _head: RequestHead) -> Reply:
        """Metadata of the server."""
        return json_reply(self._models.server())

    async def models(self, _request: HttpRequest, head: RequestHead) -> Reply:
        """Names of the models that the caller may ask."""
        return json_reply({"models": [each["name"] for each in self._models.index(head.caller)]})

    async def index(self, request: HttpRequest, head: RequestHead) -> Reply:
        """Every model that the caller may ask, with its state; `{"ready": true}` asks for those in service."""
        body = await request.body()
        asked = parse_json(body) if body.strip() else {}
        if type(asked) is not dict:
            raise InvalidRequest(f"the body is {json_kind(asked)}", path="$", allowed='nothing, or {"ready": true}')
        return json_reply(self._models.index(head.caller, ready_only=asked.get("ready") is True))

    async def metadata(self, request: HttpRequest, head: RequestHead) -> Reply:
        """What a model takes and gives."""
        return json_reply(self._models.metadata(self._model(request, head)))

    async def config(self, request: HttpRequest, head: RequestHead) -> Reply:
        """The same as a Triton model configuration."""
        return json_reply(self._models.config(self._model(request, head)))

    async def model_ready(self, request: HttpRequest, head: RequestHead) -> Reply:
        """200 when the model would answer, else 503."""
        model = self._model(request, head)
        is_ready = await self._models.is_ready(model)
        return json_reply({"name": model.name, "ready": is_ready}, status=200 if is_ready else 503)

    async def unknown(self, request: HttpRequest, _head: RequestHead) -> Reply:
        """Whatever else Triton's servers have under /v2."""
        raise NotFound(
            "route",
            f"{request.method} {request.path[:200]}",
            hint="docs/protocols.md lists what there is; shared memory, statistics, tracing and loading are not",
        )

    def _model(self, request: HttpRequest, head: RequestHead) -> OipModel:
        return self._models.find(request.endpoint, request.parameters.get("version", ""), head.caller)


def _check_media_type(request: HttpRequest) -> None:
    """Return where the body is JSON, or bytes after JSON, and is not compressed. Raises InvalidRequest."""
    given = request.header(b"content-type") or b""
    encoding = request.header(b"content-encoding")
    if given.partition(b";")[0].strip().lower() in _MEDIA_TYPES and encoding in (None, b"identity"):
        return
    seen = f"content type {shown(given.decode('latin-1'))}"
    if encoding is not None:
        seen += f" and content encoding {shown(encoding.decode('latin-1'))}"
    raise InvalidRequest(
        f"the body has {seen}",
        path="$",
        allowed="application/json or application/octet-stream, not compressed",
        code=UNSUPPORTED_MEDIA_TYPE,
    )


def _check_repeated(body: OipBody, model: OipModel) -> None:
    """Return where what the body repeats of the path is the same. Raises InvalidRequest."""
    for name, repeated, meant in (
        ("model_name", body.model_name, model.name),
        ("model_version", body.model_version, model.version),
    ):
        if repeated not in ("", meant):
            raise InvalidRequest(
                f"`{name}` is {shown(repeated)}, the path asks `{meant}`", path=f"$.{name}", allowed=f"`{meant}`"
            )


def _reply(
    model: OipModel, version: str, parameters: dict[str, str], tensors: list[AnswerTensor], body: OipBody
) -> Reply:
    document: dict[str, Any] = {"model_name": model.name, "model_version": version}
    if body.id:
        document["id"] = body.id
    if parameters:
        document["parameters"] = parameters
    content, json_length = written(document, tensors, body.binary)
    if json_length == len(content):
        return Reply(200, JSON, content)
    return Reply(200, _BINARY, content, ((JSON_LENGTH_HEADER, b"%d" % json_length),))
