"""What the OpenAPI document says about each route: bodies are read without pydantic, so it is written out here."""

import json
from typing import Any

from skewless.limits import BODY_BYTES_MAX, DEADLINE_MS_DEFAULT, DEADLINE_MS_MAX, OUTCOMES_MAX, ROWS_MAX
from skewless_http.documented_app import PROBLEM_SCHEMA

TITLE = "Skewless gateway"
DESCRIPTION = "Online predictions from a feature store. Every error is a problem document with a stable `code`."

_INSTANCE = {"origin": "JFK", "carrier": "B6", "scheduled_departure": "2013-05-01T12:30:00Z"}
_PREDICTION_ID = "0196a1c4-7d1a-7c1e-8f10-2b7f0e6a9d01"
_DIGEST = "5f7c6a0e2b" + "0" * 54

_PROBLEM = {
    "description": "What is wrong, where, what is allowed and what to do",
    "content": {
        "application/problem+json": {
            "schema": PROBLEM_SCHEMA,
            "example": {
                "type": "urn:skewless:problem:mistyped_field",
                "title": "The request is not valid",
                "status": 400,
                "code": "mistyped_field",
                "detail": "join key `origin` (dtype `string`) is a number: 7",
                "path": "$.instances[0].origin",
                "allowed": "a string of at most 1024 UTF-8 bytes",
                "request_id": "4b0c8a52",
            },
        }
    },
}  # fmt: skip


def _body(schema: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}


def _answer(example: dict[str, Any], *statuses: int) -> dict[str, Any]:
    ok = {"description": "Answered", "content": {"application/json": {"example": example}}}
    return {"200": ok, **{str(status): _PROBLEM for status in statuses}}


SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}, {}]
"""Either of them; none is needed in development mode, and where the connection's certificate says who asks."""
_ENDPOINT = {
    "name": "endpoint", "in": "path", "required": True, "schema": {"type": "string"}, "example": "flight-delay",
}  # fmt: skip
_TIMEOUT_HEADER = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "required": False,
    "description": "How long the caller will wait; the shorter of this and `options.deadline_ms` counts.",
    "schema": {"type": "integer", "minimum": 1},
}

PREDICT: dict[str, Any] = {
    "parameters": [_ENDPOINT, _TIMEOUT_HEADER],
    "requestBody": _body(
        {
            "type": "object",
            "required": ["instances"],
            "additionalProperties": False,
            "description": f"At most {BODY_BYTES_MAX} bytes.",
            "properties": {
                "instances": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": ROWS_MAX,
                    "items": {"type": "object"},
                    "description": "See GET /v1/endpoints/{endpoint} for the schema of an instance.",
                },
                "options": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "deadline_ms": {
                            "type": "integer",
                            "minimum": 1,
                            "maximum": DEADLINE_MS_MAX,
                            "default": DEADLINE_MS_DEFAULT,
                        },
                        "receipt": {"enum": ["summary", "full", "none"], "default": "summary"},
                        "as_of": {
                            "type": "string",
                            "format": "date-time",
                            "description": "Only where the server allows it.",
                        },
                    },
                },
            },
        },
        {"instances": [_INSTANCE], "options": {"deadline_ms": 50, "receipt": "summary"}},
    ),
    "responses": _answer(
        {
            "predictions": [{"label": "late", "probability": 0.6171875}],
            "prediction_ids": [_PREDICTION_ID],
            "receipt": {
                "endpoint": "flight-delay",
                "bundle": _DIGEST,
                "role": "live",
                "as_of": "2013-05-01T12:30:00Z",
                "rung": "normal",
                "timings_ms": {
                    "validate": 0.1,
                    "features": 0.6,
                    "transform": 0.2,
                    "model": 0.9,
                    "log": 0.1,
                    "total": 1.9,
                },
                "statuses": {"ok": 41, "missing": 3},
                "not_ok": [
                    {"column": "origin_weather__temp", "statuses": {"missing": 1}, "worst_age_s": None},
                ],
            },
        },
        400, 401, 403, 404, 408, 413, 415, 422, 429, 503, 504,
    ),
    "security": SECURITY,
}  # fmt: skip

_NDJSON = "application/x-ndjson"
_ARROW = "application/vnd.apache.arrow.stream"
_ROW = {"row": 0, "prediction_id": _PREDICTION_ID, "label": "late", "probability": 0.6171875, "rung": "normal"}
_SUMMARY = {"summary": {"complete": True, "rows": 1, "answered": 1, "failed": 0}}


def _option(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


PREDICT_BATCH: dict[str, Any] = {
    "parameters": [
        _ENDPOINT,
        _option("on_error", "What a wrong row does: end the answer, or have an error.", enum=["fail", "record"]),
        _option("deadline_ms", "For each chunk of the body.", type="integer", minimum=1, maximum=DEADLINE_MS_MAX),
        _option("as_of", "Only where the server allows it.", type="string", format="date-time"),
    ],
    "requestBody": {
        "required": True,
        "content": {
            _NDJSON: {"schema": {"type": "string"}, "example": json.dumps(_INSTANCE) + "\n"},
            _ARROW: {"schema": {"type": "string", "format": "binary"}},
        },
    },
    "responses": {
        "200": {
            "description": "A record per row, then a summary; in the media type of the body, or the one of `Accept`.",
            "content": {
                _NDJSON: {"schema": {"type": "string"}, "example": f"{json.dumps(_ROW)}\n{json.dumps(_SUMMARY)}\n"},
                _ARROW: {"schema": {"type": "string", "format": "binary"}},
            },
        },
        **{str(status): _PROBLEM for status in (400, 401, 403, 404, 408, 413, 415, 429, 503, 504)},
    },
    "security": SECURITY,
}

_TOLD: dict[str, Any] = {
    "label": {"type": ["string", "boolean", "number"]},
    "outcome_time": {"type": ["string", "null"], "format": "date-time"},
}
_OUTCOME: dict[str, Any] = {
    "oneOf": [
        {
            "type": "object",
            "required": ["prediction_id", "label"],
            "additionalProperties": False,
            "properties": {"prediction_id": {"type": "string", "format": "uuid"}, **_TOLD},
        },
        {
            "type": "object",
            "required": ["endpoint", "entity", "at", "label"],
            "additionalProperties": False,
            "properties": {
                "endpoint": {"type": "string"},
                "entity": {"type": "object", "description": "Every join key of the endpoint's instances."},
                "at": {"type": "string", "format": "date-time", "description": "The moment that was asked about."},
                **_TOLD,
            },
        },
    ]
}
_BY_ID = {"prediction_id": _PREDICTION_ID, "label": "late", "outcome_time": "2013-05-01T19:02:00Z"}
_BY_ENTITY = {
    "endpoint": "flight-delay",
    "entity": {"origin": "EWR", "tail_number": "N14228"},
    "at": "2013-05-01T09:30:00Z",
    "label": "late",
}
OUTCOMES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [
                        {
                            "type": "object",
                            "required": ["outcomes"],
                            "additionalProperties": False,
                            "properties": {
                                "outcomes": {
                                    "type": "array",
                                    "minItems": 1,
                                    "maxItems": OUTCOMES_MAX,
                                    "items": _OUTCOME,
                                }
                            },
                        },
                        *_OUTCOME["oneOf"],
                    ]
                },
                "example": {"outcomes": [_BY_ID, _BY_ENTITY]},
            },
            _NDJSON: {
                "schema": {"type": "string", "description": "An outcome on each line, of any number."},
                "example": f"{json.dumps(_BY_ID)}\n{json.dumps(_BY_ENTITY)}\n",
            },
        },
    },
    "responses": _answer({"accepted": 1}, 400, 401, 403, 404, 408, 413, 415, 429, 503),
    "security": SECURITY,
}

ENDPOINTS: dict[str, Any] = {
    "responses": _answer(
        {"endpoints": [{"endpoint": "flight-delay", "description": "Late by 15 minutes?", "bundle": _DIGEST}]},
        401, 429, 503,
    ),
    "security": SECURITY,
}  # fmt: skip
ENDPOINT: dict[str, Any] = {
    "responses": _answer(
        {
            "endpoint": "flight-delay",
            "description": "Late by 15 minutes?",
            "bundle": _DIGEST,
            "bundle_name": "flight-delay",
            "roles": {"canary": {"bundle": _DIGEST, "share": 0.05}},
            "route_version": 1,
            "instance_schema": {"type": "object", "properties": {"origin": {"type": "string"}}},
            "prediction_schema": {"type": "object", "properties": {"probability": {"type": "number"}}},
            "features": ["origin_weather__temp"],
            "definitions": {"state": "current", "detail": ""},
        },
        401, 403, 404, 429, 503,
    ),
    "security": SECURITY,
}  # fmt: skip
HEALTH: dict[str, Any] = {"responses": _answer({"status": "ok"})}
READY: dict[str, Any] = {
    "responses": _answer({"ready": True, "parts": {"online_store": {"ok": True, "detail": ""}}}, 503)
}
METRICS: dict[str, Any] = {
    "responses": {"200": {"description": "Prometheus text format", "content": {"text/plain": {}}}}
}
PATH_PARAMETERS: list[dict[str, Any]] = [_ENDPOINT]
