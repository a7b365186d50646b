"""How long a caller will wait, as its request's head says it: a header of ours, or the one that Envoy adds.

gRPC has `grpc-timeout`, which its server reads. Whatever is said several times over, the smallest counts.
"""

from skewless.errors import InvalidRequest
from skewless.limits import DEADLINE_MS_DEFAULT, DEADLINE_MS_MAX

HEADER = b"x-request-timeout-ms"
"""Whole milliseconds from the arrival of the request, 1 or more; what is beyond the server's cap is cut to it."""
ENVOY_HEADER = b"x-envoy-expected-rq-timeout-ms"
"""What Envoy, and meshes made of it, tell the server they forward to; 0 is Envoy's word for no timeout."""
_DIGITS_MAX = 10


def read_timeout_ms(value: bytes | None, envoy: bytes | None = None) -> int | None:
    """Milliseconds by the two headers, None where neither says any. Raises InvalidRequest for a wrong one of ours.

    >>> read_timeout_ms(b"250"), read_timeout_ms(None, b"15000"), read_timeout_ms(b"250", b"100")
    (250, 15000, 100)
    """
    ours = None if value is None else _milliseconds(value)
    if value is not None and not ours:
        raise InvalidRequest(
            f"the header X-Request-Timeout-Ms is `{value[:40].decode('latin-1')}`",
            path="$",
            allowed=f"a whole number of milliseconds from 1; more than {DEADLINE_MS_MAX} counts as {DEADLINE_MS_MAX}",
            hint="leave it out, or send what your client will wait",
            code="invalid_option",
        )
    # A proxy's header is not the caller's to mend, so one that makes no sense is as good as none.
    proxied = None if envoy is None else _milliseconds(envoy) or None
    if ours is None or proxied is None:
        return ours or proxied
    return min(ours, proxied)


def effective_deadline_ms(*given: int | None) -> int:
    """The smallest that is given, at most the server's cap; the server's default where none is given.

    >>> effective_deadline_ms(None, 50), effective_deadline_ms(None, None), effective_deadline_ms(60_000, None)
    (50, 1000, 10000)
    """
    stated = [each for each in given if each is not None]
    return max(1, min(*stated, DEADLINE_MS_MAX)) if stated else DEADLINE_MS_DEFAULT


def _milliseconds(value: bytes) -> int | None:
    """A number in ASCII digits; None for anything else."""
    return int(value) if value.isdigit() and len(value) <= _DIGITS_MAX else None
