"""TensorFlow Serving's REST API: `/v1/models/{model}:predict`, status and metadata. A model is an endpoint.

    rows:     {"instances": [{"origin": "JFK", …}, …]}       → {"predictions": [{"label": …, "probability": …}, …]}
    columns:  {"inputs": {"origin": ["JFK", …], …}}          → {"outputs": {"label": […], "probability": […]}}

Values are those of the REST API's instances, null and RFC 3339 timestamps included; bytes are `{"b64": "…"}`.
"""

import re
from collections.abc import Mapping
from typing import Any

from skewless.dtypes import TABLE, Dtype
from skewless.errors import InvalidRequest
from skewless.serving.data_plane import Answer
from skewless.serving.field_types import json_kind, shown
from skewless.serving.instances import InstanceValidator, unknown_name
from skewless.serving.json_body import parse_json
from skewless.serving.request import PredictOptions, PredictRequest, ReceiptLevel
from skewless.serving.served_bundle import ServedBundle
from skewless_gateway.asgi import HandlerEdge, HotRoute
from skewless_gateway.edges.encoded_bytes import with_encoded_bytes
from skewless_gateway.edges.error_objects import error_reply
from skewless_gateway.edges.oip import check_version
from skewless_gateway.gateway import Gateway
from skewless_gateway.predictions import RequestHead
from skewless_gateway.route_follower import ServedEndpoint
from skewless_http.bodies import check_json
from skewless_http.http_message import HttpRequest, Reply, json_reply

NAME = "tensorflow"
SIGNATURE = "serving_default"
_FIELDS = ("signature_name", "instances", "inputs")
_OPTIONS = PredictOptions(receipt=ReceiptLevel.NONE)
_MODEL = "/v1/models/{endpoint}"
_VERSION = f"{_MODEL}/versions/{{version}}"
_INSTANCE = re.compile(r"\$\.instances\[(\d+)\]\.(\w+)")
_DATA_TYPES = {
    "BOOL": "DT_BOOL",
    "INT32": "DT_INT32",
    "INT64": "DT_INT64",
    "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE",
    "BYTES": "DT_STRING",
}
"""What TensorFlow calls datatypes of the one table."""
_OUTPUTS = {"label": "DT_STRING", "probability": "DT_FLOAT", "prediction_id": "DT_STRING", "rung": "DT_STRING"}


def tensorflow_routes(gateway: Gateway) -> tuple[HotRoute, ...]:
    """The API's routes."""
    predict, views = PredictEdge(gateway), _Views(gateway)
    return (
        HotRoute(("POST",), f"{_MODEL}:predict", predict),
        HotRoute(("POST",), f"{_VERSION}:predict", predict),
        HotRoute(("GET",), "/", HandlerEdge(NAME, views.live, error_reply), authenticated=False),
        *(
            HotRoute(("GET",), f"{path}{suffix}", HandlerEdge(NAME, view, error_reply))
            for suffix, view in (("/metadata", views.metadata), ("", views.status))
            for path in (_VERSION, _MODEL)
        ),
    )


class PredictEdge:
    """POST /v1/models/{endpoint}:predict, also with a version."""

    name = NAME
    refusal = staticmethod(error_reply)

    def __init__(self, gateway: Gateway) -> None:
        self._predictions = gateway.predictions
        self._follower = gateway.follower

    async def handle(self, request: HttpRequest, head: RequestHead) -> Reply:
        """Answer predictions for the rows or columns in the body."""
        endpoint = request.endpoint
        self._predictions.refuse_early(endpoint, head)
        check_version(self._follower.endpoint(endpoint), request.parameters.get("version", ""))
        check_json(request)
        document = _checked(parse_json(await request.body()))
        by_columns = "inputs" in document

        def read(served: ServedBundle) -> PredictRequest:
            validator = served.validator
            if by_columns:
                columns, rows = _read_columns(document["inputs"], validator)
            else:
                columns, rows = validator.columns(with_encoded_bytes(document["instances"], validator))
            return PredictRequest(columns, rows, _OPTIONS)

        answer = (await self._predictions.answer(endpoint, read, head)).answer
        body = {"outputs": _outputs(answer)} if by_columns else {"predictions": predictions(answer)}
        return json_reply(body)


class _Views:
    """What can be looked at of a model."""

    def __init__(self, gateway: Gateway) -> None:
        self._follower = gateway.follower

    async def live(self, _request: HttpRequest, _head: RequestHead) -> Reply:
        """200 as long as the process answers; KServe's clients of this protocol ask it so."""
        return json_reply({"status": "alive"})

    async def status(self, request: HttpRequest, head: RequestHead) -> Reply:
        """The version in service; `name` and `ready` beside it are for KServe's clients of this protocol."""
        endpoint = self._find(request, head)
        available = {
            "version": str(endpoint.route.version),
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
        told = {"model_version_status": [available], "name": request.endpoint, "ready": True}
        return json_reply(told)

    async def metadata(self, request: HttpRequest, head: RequestHead) -> Reply:
        """What a model takes and gives, as a signature."""
        endpoint = self._find(request, head)
        inputs = {field.name: _data_type(field.dtype) for field in endpoint.served.validator.fields}
        signature = {
            "inputs": _tensors(inputs),
            "outputs": _tensors(_OUTPUTS),
            "method_name": "tensorflow/serving/predict",
        }
        told = {
            "model_spec": {
                "name": request.endpoint,
                "signature_name": "",
                "version": str(endpoint.route.version),
            },
            "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
        }
        return json_reply(told)

    def _find(self, request: HttpRequest, head: RequestHead) -> ServedEndpoint:
        head.caller.may_ask(request.endpoint)
        endpoint = self._follower.endpoint(request.endpoint)
        check_version(endpoint, request.parameters.get("version", ""))
        return endpoint


def predictions(answer: Answer) -> list[dict[str, Any]]:
    """An object per row, in the order of the request."""
    rows = zip(answer.labels, answer.probabilities.tolist(), answer.prediction_ids, strict=True)
    return [
        {"label": label, "probability": probability, "prediction_id": prediction_id, "rung": answer.rung}
        for label, probability, prediction_id in rows
    ]


def _checked(document: object) -> dict[str, Any]:
    """The body's object, with either rows or columns. Raises InvalidRequest."""
    if type(document) is not dict:
        raise InvalidRequest(
            f"the body is {json_kind(document)}", path="$", allowed='{"instances": […]} or {"inputs": {…}}'
        )
    for name in document:
        if name not in _FIELDS:
            raise unknown_name(name, _FIELDS, path="$", what="field")
    if ("instances" in document) == ("inputs" in document):
        both = "both `instances` and `inputs`" if "inputs" in document else "neither `instances` nor `inputs`"
        raise InvalidRequest(
            f"the body has {both}",
            path="$",
            allowed="`instances`, an array of objects, or `inputs`, an object of arrays",
            code="missing_field",
        )
    signature = document.get("signature_name", SIGNATURE)
    if signature not in ("", SIGNATURE):
        raise InvalidRequest(
            f"`signature_name` is {shown(signature)}",
            path="$.signature_name",
            allowed=f"`{SIGNATURE}`",
            code="invalid_option",
        )
    return document


def _read_columns(inputs: object, validator: InstanceValidator) -> tuple[Mapping[str, Any], int]:
    """The columns of a request by columns: read as rows, under the rows' rules. Paths name the column first."""
    names = tuple(field.name for field in validator.fields)
    if type(inputs) is not dict:
        raise InvalidRequest(f"`inputs` is {json_kind(inputs)}", path="$.inputs", allowed="an object of arrays")
    for name in inputs:
        if name not in names:
            raise unknown_name(name, names, path="$.inputs", what="input")
    lengths: dict[str, int] = {}
    for name in names:
        given = inputs.get(name)
        if type(given) is not list:
            seen = f"is {json_kind(given)}" if name in inputs else "is missing"
            raise InvalidRequest(
                f"input `{name}` {seen}",
                path=f"$.inputs.{name}",
                allowed="an array with a value per row",
                code="mistyped_field" if name in inputs else "missing_field",
            )
        lengths[name] = len(given)
    if len(set(lengths.values())) > 1:
        raise InvalidRequest(
            f"the inputs have different lengths: {', '.join(f'`{name}` {length}' for name, length in lengths.items())}",
            path="$.inputs",
            allowed="arrays of one length",
            code="invalid_tensor",
        )
    rows = [dict(zip(names, values, strict=True)) for values in zip(*(inputs[name] for name in names), strict=True)]
    try:
        return validator.columns(with_encoded_bytes(rows, validator))
    except InvalidRequest as error:
        error.path = _INSTANCE.sub(r"$.inputs.\2[\1]", error.path).replace("$.instances", "$.inputs")
        raise


def _outputs(answer: Answer) -> dict[str, Any]:
    return {
        "label": list(answer.labels),
        "probability": answer.probabilities.tolist(),
        "prediction_id": list(answer.prediction_ids),
        "rung": [answer.rung] * len(answer.labels),
    }


def _data_type(dtype: Dtype) -> str:
    """What a field is as a tensor of this API; a timestamp is its text."""
    return "DT_STRING" if dtype is Dtype.TIMESTAMP else _DATA_TYPES[TABLE[dtype].triton]


def _tensors(data_types: Mapping[str, str]) -> dict[str, Any]:
    shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    return {name: {"dtype": data_type, "tensor_shape": shape, "name": name} for name, data_type in data_types.items()}
