"""Errors as callers see them: RFC 9457 problem documents. The one table from error class to HTTP status."""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from skewless.errors import (
    BatchRefused,
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
    VerificationFailed,
)
from skewless_http.http_message import BODY_TOO_SLOW, RawHeaders, Reply
from skewless_http.security.headers import challenge, rate_headers

STATUS_OF_CLASS: dict[type[SkewlessError], int] = {
    SkewlessError: 500,
    InvalidRequest: 400,
    LimitExceeded: 413,
    NotFound: 404,
    Unauthenticated: 401,
    Forbidden: 403,
    Rejected: 422,
    BatchRefused: 422,
    VerificationFailed: 500,
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
    422: "A feature has no usable value",
    429: "Too many requests",
    500: "Internal error",
    503: "Unavailable",
    504: "The deadline ran out",
}
_TYPE = "urn:skewless:problem:"
_INTERNAL = "internal"
_INTERNAL_HINT = "give the request id to whoever runs the gateway"
MEDIA_TYPE = b"application/problem+json"


def status_of(error: SkewlessError) -> int:
    """The HTTP status of an error, by its code where that has one, else by its class."""
    return _STATUS_OF_CODE.get(error.code) or STATUS_OF_CLASS[type(error)]


def problem(status: int, code: str, detail: str, *, request_id: str, headers: RawHeaders = (), **members: Any) -> Reply:
    """A problem document; members that are empty are left out."""
    body = _document(status, code, detail, request_id, members)
    return Reply(status, MEDIA_TYPE, msgspec.json.encode(body), headers)


def problem_of(error: SkewlessError, request_id: str) -> Reply:
    """The problem document of an error. What the caller cannot mend is told without its details."""
    body = problem_members(error, request_id=request_id)
    return Reply(body["status"], MEDIA_TYPE, msgspec.json.encode(body), headers_of(error))


def problem_members(error: SkewlessError, *, request_id: str) -> dict[str, Any]:
    """What the problem document of an error says, for edges that put it into an answer of their own form."""
    status = status_of(error)
    if status == 500:
        return _document(status, _INTERNAL, "internal error", request_id, {"hint": _INTERNAL_HINT})
    members = {
        "path": getattr(error, "path", ""),
        "allowed": getattr(error, "allowed", "") or ", ".join(getattr(error, "known", None) or ()),
        "hint": error.hint,
    }
    return _document(status, error.code, error.message, request_id, members)


def headers_of(error: SkewlessError) -> RawHeaders:
    """Headers that the answer to an error must have, whatever its form."""
    if isinstance(error, Unavailable):
        retry_after = (b"retry-after", b"%d" % math.ceil(error.retry_after_s))
        return (retry_after, *rate_headers(error)) if isinstance(error, RateLimited) else (retry_after,)
    if isinstance(error, Unauthenticated):
        return challenge(error)
    if status_of(error) in (408, 413, 415):
        # The rest of the body was not read, so the connection cannot carry another request.
        return ((b"connection", b"close"),)
    return ()


def internal_problem(*, request_id: str) -> Reply:
    """The answer to our own fault: nothing of it but the id under which it was logged."""
    return problem(500, _INTERNAL, "internal error", request_id=request_id, hint=_INTERNAL_HINT)


def _document(status: int, code: str, detail: str, request_id: str, members: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": f"{_TYPE}{code}",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "code": code,
        "detail": detail,
        **{name: value for name, value in members.items() if value},
        "request_id": request_id,
    }
