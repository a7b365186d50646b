"""Which trace a request belongs to, as callers say it and servers are told: W3C Trace Context, `traceparent`."""

import re
from dataclasses import dataclass

from skewless.limits import TRACESTATE_BYTES_MAX

TRACEPARENT = b"traceparent"
TRACESTATE = b"tracestate"
_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_FORBIDDEN_VERSION = b"ff"
_KNOWN_VERSION = b"00"
_STATE = re.compile(rb"[\x20-\x7e\t]*")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The span of a caller. `state` is what vendors keep in a trace, handed on as it came."""

    trace_id: int
    span_id: int
    is_sampled: bool
    state: bytes = b""


def read_context(traceparent: bytes | None, tracestate: bytes | None = None) -> TraceContext | None:
    """What the two headers say; None where there is none or it cannot be read, which begins a trace of its own.

    >>> read_context(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").is_sampled
    True
    >>> read_context(b"00-00000000000000000000000000000000-b7ad6b7169203331-01")
    """
    if traceparent is None or (found := _PARENT.fullmatch(traceparent.strip())) is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    # A later version may say more behind what this one says; this one may not.
    if version == _FORBIDDEN_VERSION or (more and version == _KNOWN_VERSION):
        return None
    trace, span = int(trace_id, 16), int(span_id, 16)
    if not trace or not span:
        return None
    state = (tracestate or b"").strip()
    if len(state) > TRACESTATE_BYTES_MAX or not _STATE.fullmatch(state):
        state = b""
    return TraceContext(trace, span, bool(int(flags, 16) & 1), state)


def written(trace_id: int, span_id: int) -> bytes:
    """The `traceparent` of a span that is recorded.

    >>> written(1, 2)
    b'00-00000000000000000000000000000001-0000000000000002-01'
    """
    return b"00-%032x-%016x-01" % (trace_id, span_id)
