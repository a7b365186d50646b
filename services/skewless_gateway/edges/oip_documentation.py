"""What the OpenAPI document says about the routes of the Open Inference Protocol and of TensorFlow Serving."""

from typing import Any

from skewless.limits import BODY_BYTES_MAX, DEADLINE_MS_MAX, ROWS_MAX

_ENDPOINT: dict[str, Any] = {
    "name": "endpoint",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "A model is an endpoint.",
    "example": "flight-delay",
}
_VERSION: dict[str, Any] = {
    "name": "version",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "Of the endpoint's route. Only the one in service answers.",
    "example": "1",
}
_PREDICTION_ID = "0196a1c4-7d1a-7c1e-8f10-2b7f0e6a9d01"
_DIGEST = "5f7c6a0e2b" + "0" * 54
_MEMBERS = ("error", "code", "path", "allowed", "hint", "request_id")
_ERROR: dict[str, Any] = {
    "description": "What is wrong, where, what is allowed and what to do, in one text and in parts",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error", "code", "request_id"],
                "properties": {name: {"type": "string"} for name in _MEMBERS},
            },
            "example": {
                "error": "there is no input for join key `origin`; at: $.inputs.origin; allowed: BYTES of shape "
                "[rows, 1] or [rows]",
                "code": "missing_field",
                "path": "$.inputs.origin",
                "allowed": "BYTES of shape [rows, 1] or [rows]",
                "request_id": "4b0c8a52",
            },
        }
    },
}
_PREDICT_ERRORS = (400, 401, 403, 404, 408, 413, 415, 422, 429, 503, 504)
_LOOK_ERRORS = (401, 403, 404, 429, 503)
_NOT_READY: dict[str, Any] = {
    "description": "Not ready",
    "content": {"application/json": {"schema": {"type": "object"}, "example": {"ready": False}}},
}
_TENSOR: dict[str, Any] = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string"},
        "datatype": {"enum": ["BOOL", "INT32", "INT64", "FP32", "FP64", "BYTES"]},
        "shape": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
        "data": {"type": "array", "maxItems": ROWS_MAX, "description": "Left out where binary data follows the JSON."},
        "parameters": {
            "type": "object",
            "properties": {"binary_data_size": {"type": "integer", "minimum": 0}},
        },
    },
}
_INFER_BODY: dict[str, Any] = {
    "type": "object",
    "required": ["inputs"],
    "additionalProperties": False,
    "description": f"At most {BODY_BYTES_MAX} bytes, binary tensors included.",
    "properties": {
        "id": {"type": "string"},
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "inputs": {"type": "array", "items": _TENSOR},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "additionalProperties": False,
                "properties": {
                    "name": {"enum": ["label", "probability", "prediction_id"]},
                    "parameters": {"type": "object", "properties": {"binary_data": {"type": "boolean"}}},
                },
            },
        },
        "parameters": {
            "type": "object",
            "properties": {
                "binary_data_output": {"type": "boolean", "default": False},
                "deadline_ms": {"type": "integer", "minimum": 1, "maximum": DEADLINE_MS_MAX},
                "timeout": {"type": "integer", "minimum": 1_000, "description": "Microseconds."},
                "as_of": {"type": "string", "format": "date-time", "description": "Only where the server allows it."},
            },
        },
    },
}
_ROWS_EXAMPLE = {"origin": "JFK", "carrier": "B6", "scheduled_departure": "2013-05-01T12:30:00Z"}
_PREDICTION = {"label": "late", "probability": 0.6171875, "prediction_id": _PREDICTION_ID, "rung": "normal"}


def _route(
    example: object, *errors: int, body: dict[str, Any] | None = None, versioned: bool = False
) -> dict[str, Any]:
    """One operation; `example` is what it answers."""
    ok = {"description": "Answered", "content": {"application/json": {"example": example}}}
    operation: dict[str, Any] = {"responses": {"200": ok, **{str(status): _ERROR for status in errors}}}
    if body is not None:
        operation["requestBody"] = body
    if versioned:
        operation["parameters"] = [_ENDPOINT, _VERSION]
    return operation


def _or_not_ready(operation: dict[str, Any]) -> dict[str, Any]:
    operation["responses"]["503"] = _NOT_READY
    return operation


def _body(schema: dict[str, Any], example: object) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}


def _infer(*, versioned: bool) -> dict[str, Any]:
    given = [{"name": "origin", "datatype": "BYTES", "shape": [1, 1], "data": ["JFK"]}]
    outputs = [{"name": "probability", "datatype": "FP32", "shape": [1, 1], "data": [0.6171875]}]
    return _route(
        {
            "model_name": "flight-delay",
            "model_version": "1",
            "parameters": {"rung": "normal", "bundle": _DIGEST},
            "outputs": outputs,
        },
        *_PREDICT_ERRORS,
        body=_body(_INFER_BODY, {"inputs": given, "outputs": [{"name": "probability"}]}),
        versioned=versioned,
    )


def _metadata(*, versioned: bool) -> dict[str, Any]:
    tensor = {"name": "origin", "datatype": "BYTES", "shape": [-1, 1]}
    told = {
        "name": "flight-delay",
        "versions": ["1"],
        "platform": "skewless",
        "inputs": [tensor],
        "outputs": [{"name": "probability", "datatype": "FP32", "shape": [-1, 1]}],
        "parameters": {"bundle": _DIGEST},
    }
    return _route(told, *_LOOK_ERRORS, versioned=versioned)


def _config(*, versioned: bool) -> dict[str, Any]:
    told = {
        "name": "flight-delay",
        "max_batch_size": ROWS_MAX,
        "input": [{"name": "origin", "data_type": "TYPE_STRING", "dims": [1], "optional": False}],
    }
    return _route(told, *_LOOK_ERRORS, versioned=versioned)


def _model_ready(*, versioned: bool) -> dict[str, Any]:
    return _or_not_ready(_route({"name": "flight-delay", "ready": True}, *_LOOK_ERRORS, versioned=versioned))


def _tensorflow_predict(*, versioned: bool) -> dict[str, Any]:
    schema = {
        "type": "object",
        "additionalProperties": False,
        "description": f"Either instances or inputs. At most {BODY_BYTES_MAX} bytes.",
        "properties": {
            "signature_name": {"enum": ["", "serving_default"]},
            "instances": {"type": "array", "minItems": 1, "maxItems": ROWS_MAX, "items": {"type": "object"}},
            "inputs": {"type": "object", "additionalProperties": {"type": "array", "maxItems": ROWS_MAX}},
        },
    }
    body = _body(schema, {"instances": [_ROWS_EXAMPLE]})
    return _route({"predictions": [_PREDICTION]}, *_PREDICT_ERRORS, body=body, versioned=versioned)


def _tensorflow_status(*, versioned: bool) -> dict[str, Any]:
    available = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    told = {"model_version_status": [available], "name": "flight-delay", "ready": True}
    return _route(told, *_LOOK_ERRORS, versioned=versioned)


def _tensorflow_metadata(*, versioned: bool) -> dict[str, Any]:
    spec = {"name": "flight-delay", "signature_name": "", "version": "1"}
    told = {"model_spec": spec, "metadata": {"signature_def": {"signature_def": {"serving_default": {}}}}}
    return _route(told, *_LOOK_ERRORS, versioned=versioned)


_OF_A_MODEL = (
    ("POST", "/v2", "/infer", "oip_infer", "Predictions for tensors, by the Open Inference Protocol.", _infer),
    ("GET", "/v2", "", "oip_metadata", "What an endpoint takes and gives as a model.", _metadata),
    ("GET", "/v2", "/config", "oip_config", "The same as a Triton model configuration.", _config),
    ("GET", "/v2", "/ready", "oip_model_ready", "200 when the model would answer, else 503.", _model_ready),
    ("POST", "/v1", ":predict", "tensorflow_predict", "Predictions by TensorFlow Serving's API.", _tensorflow_predict),
    (
        "GET",
        "/v1",
        "",
        "tensorflow_status",
        "The version in service, as TensorFlow Serving says it.",
        _tensorflow_status,
    ),
    ("GET", "/v1", "/metadata", "tensorflow_metadata", "What an endpoint takes, as a signature.", _tensorflow_metadata),
)
_INDEX_BODY = {
    "required": False,
    "content": {
        "application/json": {
            "schema": {"type": "object", "properties": {"ready": {"type": "boolean", "default": False}}},
            "example": {"ready": True},
        }
    },
}
_INDEX_ROW = {"name": "flight-delay", "version": "1", "state": "READY", "reason": ""}

ROUTES: tuple[tuple[str, str, str, str, dict[str, Any]], ...] = (
    (
        "GET",
        "/v2",
        "oip_server",
        "Metadata of the server.",
        _route({"name": "skewless", "version": "1.0", "extensions": ["binary_tensor_data"]}, 401, 429),
    ),
    (
        "GET",
        "/",
        "tensorflow_live",
        "200 as long as the process answers, for KServe's clients of its first protocol.",
        _route({"status": "alive"}),
    ),
    (
        "GET",
        "/v2/health/live",
        "oip_live",
        "200 as long as the process answers.",
        _route({"live": True}),
    ),
    (
        "GET",
        "/v2/health/ready",
        "oip_ready",
        "200 when predictions can be answered, else 503.",
        _or_not_ready(_route({"ready": True})),
    ),
    (
        "GET",
        "/v2/models",
        "oip_models",
        "Names of the models that the caller may ask.",
        _route({"models": ["flight-delay"]}, 401, 429, 503),
    ),
    (
        "POST",
        "/v2/repository/index",
        "oip_index",
        "Every model that the caller may ask, with its state.",
        _route([_INDEX_ROW], 400, 401, 408, 413, 429, 503, body=_INDEX_BODY),
    ),
    *(
        (
            method,
            f"{prefix}/models/{{endpoint}}{'/versions/{version}' if versioned else ''}{suffix}",
            f"{name}_of_version" if versioned else name,
            description,
            make(versioned=versioned),
        )
        for method, prefix, suffix, name, description, make in _OF_A_MODEL
        for versioned in (False, True)
    ),
)
"""(method, path, name, description, operation) of every route, but for Vertex AI's, whose paths are settings."""
