"""What the OpenAPI document says about each route: bodies are read without pydantic, so it is written out here."""

from typing import Any

from skewless.ingest_limits import INGEST_BODY_BYTES_MAX, INGEST_JSON_BYTES_MAX, INGEST_ROWS_MAX
from skewless_http.documented_app import PROBLEM_SCHEMA

TITLE = "Skewless ingestion"
DESCRIPTION = (
    "Rows of features and raw events, brought to the online and the offline store. Every error is a problem document "
    "with a stable `code`."
)
_BATCH_ID = "0196a1c4-7d1a-7c1e-8f10-2b7f0e6a9d01"
_ROW = {"user_id": 7, "clicks_1h": 12, "event_time": "2026-05-01T12:30:00Z"}
_PROBLEM = {
    "description": "What is wrong, where, what is allowed and what to do",
    "content": {
        "application/problem+json": {
            "schema": PROBLEM_SCHEMA
        }
    },
}  # fmt: skip
_SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}, {}]
"""Either of them; none is needed in development mode, and where the connection's certificate says who asks."""
_TAKEN = {
    "batch_id": _BATCH_ID,
    "view": "clicks",
    "rows": 2,
    "accepted": 1,
    "late": 0,
    "dropped": 0,
    "quarantined": 1,
    "repeated": False,
    "set_aside": {
        "quarantine": "0196a1c4-7d1a-7c1e-8f10-2b7f0e6a9d02",
        "rows": [{"row": 1, "reasons": ["`clicks_1h` is expected to be between (min_value 0)"]}],
    },
}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Of requests with the same key and body the first is taken; the others get its answer.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200},
}


def _parameter(name: str, what: str, example: str) -> dict[str, Any]:
    return {
        "name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": what,
        "example": example,
    }  # fmt: skip


_VIEW = _parameter("name", "A feature view.", "clicks")
_STREAM = _parameter("name", "A stream of events.", "page_views")


def _answers(status: int, example: object, *problems: int) -> dict[str, Any]:
    ok = {"description": "Answered", "content": {"application/json": {"example": example}}}
    return {str(status): ok, **{str(each): _PROBLEM for each in problems}}


def _taking(parameter: dict[str, Any], example: dict[str, Any], taken: dict[str, Any]) -> dict[str, Any]:
    rows = {
        "type": "object",
        "required": ["rows"],
        "additionalProperties": False,
        "properties": {
            "rows": {"type": "array", "minItems": 1, "maxItems": INGEST_ROWS_MAX, "items": {"type": "object"}}
        },
        "description": f"At most {INGEST_JSON_BYTES_MAX} bytes; larger bodies come as NDJSON or Arrow.",
    }
    larger = {"type": "string", "format": "binary", "description": f"At most {INGEST_BODY_BYTES_MAX} bytes."}
    content = {
        "application/json": {"schema": rows, "example": {"rows": [example]}},
        "application/x-ndjson": {"schema": larger},
        "application/vnd.apache.arrow.stream": {"schema": larger},
    }
    return {
        "parameters": [parameter, _KEY],
        "requestBody": {"required": True, "content": content},
        "responses": _answers(202, taken, 400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503),
        "security": _SECURITY,
    }


def _telling(example: object, *parameters: dict[str, Any]) -> dict[str, Any]:
    missing = (404, 500) if parameters else ()
    responses = _answers(200, example, 401, 403, 429, 503, *missing)
    return {"parameters": list(parameters), "responses": responses, "security": _SECURITY}


_WAITING = {
    "batches": 0,
    "rows": 0,
    "bytes": 0,
    "failed_batches": 0,
    "oldest_accepted_time": None,
    "newest_event_time": "2026-05-01T12:30:00Z",
}
TAKE_FEATURES = _taking(_VIEW, _ROW, _TAKEN)
TAKE_EVENTS = _taking(
    _STREAM,
    {"user_id": 7, "page": "home", "event_time": "2026-05-01T12:30:00Z"},
    {
        "batch_id": _BATCH_ID, "stream": "page_views", "rows": 1, "accepted": 1, "late": 0, "dropped": 0,
        "quarantined": 0, "repeated": False,
    },
)  # fmt: skip
LIST_FEATURES = _telling({"views": [{"name": "clicks"}]})
LIST_EVENTS = _telling({"streams": [{"name": "page_views"}]})
SHOW_FEATURES = _telling(
    {
        "view": "clicks", "description": "Clicks of a user", "owner": "growth", "row_schema": {"type": "object"},
        "media_types": ["application/json"], "policies": {"late": "accept", "future": "5m:refuse", "suite": "clicks"},
        "waiting": _WAITING,
    },
    _VIEW,
)  # fmt: skip
SHOW_EVENTS = _telling(
    {
        "stream": "page_views", "view": "clicks", "description": "", "owner": "", "row_schema": {"type": "object"},
        "media_types": ["application/json"], "policies": {"future": "5m:refuse"}, "waiting": _WAITING,
    },
    _STREAM,
)  # fmt: skip
SHOW_BATCH = _telling(
    {
        "batch_id": _BATCH_ID, "view": "clicks", "state": "done", "rows": 1, "accepted_time": "2026-05-01T12:30:00Z",
        "online_time": "2026-05-01T12:30:00.2Z", "offline_time": "2026-05-01T12:30:02Z", "error": "",
    },
    _parameter("id", "The `batch_id` of an answer.", _BATCH_ID),
)  # fmt: skip
HEALTH: dict[str, Any] = {"responses": _answers(200, {"status": "ok"})}
READY: dict[str, Any] = {"responses": _answers(200, {"ready": True, "parts": {}}, 503)}
METRICS: dict[str, Any] = {
    "responses": {"200": {"description": "Prometheus text", "content": {"text/plain": {}}}, "404": _PROBLEM}
}
