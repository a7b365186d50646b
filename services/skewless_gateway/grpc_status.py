"""Errors as gRPC's callers see them. The one table from error class to status code."""

import math
from typing import Any

from grpc import StatusCode

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
from skewless_gateway.edges.error_objects import error_text

STATUS_OF_CLASS: dict[type[SkewlessError], StatusCode] = {
    SkewlessError: StatusCode.INTERNAL,
    InvalidRequest: StatusCode.INVALID_ARGUMENT,
    LimitExceeded: StatusCode.INVALID_ARGUMENT,
    NotFound: StatusCode.NOT_FOUND,
    Unauthenticated: StatusCode.UNAUTHENTICATED,
    Forbidden: StatusCode.PERMISSION_DENIED,
    Rejected: StatusCode.FAILED_PRECONDITION,
    BatchRefused: StatusCode.FAILED_PRECONDITION,
    VerificationFailed: StatusCode.INTERNAL,
    InvalidDefinition: StatusCode.INTERNAL,
    InvalidSettings: StatusCode.INTERNAL,
    BundleRefused: StatusCode.INTERNAL,
    Conflict: StatusCode.ABORTED,
    Unavailable: StatusCode.UNAVAILABLE,
    Overloaded: StatusCode.UNAVAILABLE,
    RateLimited: StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
    StackFailed: StatusCode.INTERNAL,
}
"""As google.rpc.Code means them: what a caller may simply send again is UNAVAILABLE or RESOURCE_EXHAUSTED."""
CODE_KEY = "skewless-code"
PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""When trying again is worth it; gRPC's own retry policy waits so long."""
_DETAILS_CHARACTERS_MAX = 1_000
"""Details travel in the trailers, which a peer takes up to 8 KiB of, with up to nine bytes for one character."""


def details_of(members: dict[str, Any]) -> str:
    """The text of a status, from the members of a problem document."""
    text = error_text(members)
    return text if len(text) <= _DETAILS_CHARACTERS_MAX else text[: _DETAILS_CHARACTERS_MAX - 1] + "…"


def trailers_of(error: SkewlessError, code: str) -> tuple[tuple[str, str], ...]:
    """Trailing metadata of an error: its stable code, and when to try again where that can succeed."""
    if isinstance(error, Unavailable):
        return ((CODE_KEY, code), (PUSHBACK_KEY, str(math.ceil(error.retry_after_s * 1_000))))
    return ((CODE_KEY, code),)
