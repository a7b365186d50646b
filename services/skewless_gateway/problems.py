"""Errors as callers see them: RFC 9457 problem documents. The one table from error class to HTTP status."""

import math
from typing import Any

import msgspec
from starlette.responses import Response

from skewless.errors import (
    BundleRefused,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InvalidDefinition,
    InvalidRequest,
    InvalidSettings,
    LimitExceeded,
    NotFound,
    Overloaded,
    RateLimited,
    Rejected,
    SkewlessError,
    StackFailed,
    Unauthenticated,
    Unavailable,
)

STATUS_OF_CLASS: dict[type[SkewlessError], int] = {
    SkewlessError: 500,
    InvalidRequest: 400,
    LimitExceeded: 413,
    NotFound: 404,
    Unauthenticated: 401,
    Forbidden: 403,
    Rejected: 422,
    InvalidDefinition: 500,
    InvalidSettings: 500,
    BundleRefused: 500,
    Conflict: 409,
    Unavailable: 503,
    Overloaded: 503,
    RateLimited: 429,
    DeadlineExceeded: 504,
    StackFailed: 500,
}
UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
BODY_TOO_SLOW = "body_too_slow"
_STATUS_OF_CODE = {UNSUPPORTED_MEDIA_TYPE: 415, BODY_TOO_SLOW: 408}
"""Codes of InvalidRequest that HTTP has a status of its own for."""
_TITLES = {
    400: "The request is not valid",
    401: "Who asks is not known",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "The request took too long to arrive",
    409: "Conflict",
    413: "The request is too large",
    415: "Unsupported media type",
    429: "Too many requests",
    422: "A feature has no usable value",
    500: "Internal error",
    503: "Unavailable",
    504: "The deadline ran out",
}
_TYPE = "urn:skewless:problem:"
MEDIA_TYPE = "application/problem+json"


def status_of(error: SkewlessError) -> int:
    """The HTTP status of an error, by its code where that has one, else by its class."""
    return _STATUS_OF_CODE.get(error.code) or STATUS_OF_CLASS[type(error)]


def problem(
    status: int, code: str, detail: str, *, request_id: str, headers: dict[str, str] | None = None, **members: Any
) -> Response:
    """A problem document; members that are empty are left out."""
    body = {
        "type": f"{_TYPE}{code}",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "code": code,
        "detail": detail,
        **{name: value for name, value in members.items() if value},
        "request_id": request_id,
    }
    return Response(msgspec.json.encode(body), status, headers=headers, media_type=MEDIA_TYPE)


def problem_of(error: SkewlessError, *, request_id: str) -> Response:
    """The problem document of an error. What the caller cannot mend is told without its details."""
    status = status_of(error)
    if status == 500:
        return internal_problem(request_id=request_id)
    headers: dict[str, str] = {}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if status in (408, 413, 415):
        # The rest of the body was not read, so the connection cannot carry another request.
        headers["Connection"] = "close"
    return problem(
        status,
        error.code,
        error.message,
        request_id=request_id,
        headers=headers,
        path=getattr(error, "path", ""),
        allowed=getattr(error, "allowed", "") or ", ".join(getattr(error, "known", ())),
        hint=error.hint,
    )


def internal_problem(*, request_id: str) -> Response:
    """The answer to our own fault: nothing of it but the id under which it was logged."""
    return problem(
        500, "internal", "internal error", request_id=request_id, hint="give the request id to whoever runs the gateway"
    )
