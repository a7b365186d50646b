"""Header fields that keep browsers and caches from misusing an answer, and those that standards ask for.

All as ASGI wants them: pairs of lower-case name and value, made once.
"""

import math
from typing import Final

from skewless.errors import RateLimited, Unauthenticated

Headers = tuple[tuple[bytes, bytes], ...]

ANSWER_HEADERS: Final[Headers] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""On every answer but the documentation's. A prediction may be about a person: no cache keeps it, no page shows it."""

DOCS_HEADERS: Final[Headers] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
)
"""Of `/docs` and its files. FastAPI's page starts its viewer by a script within the page, hence `unsafe-inline`; no
script, style or picture comes from another host."""

TLS_HEADERS: Final[Headers] = ((b"strict-transport-security", b"max-age=31536000"),)
"""In addition where the answer goes over TLS: for a year, a browser asks this host over nothing else."""

_CHALLENGE: Final[Headers] = ((b"www-authenticate", b'Bearer realm="skewless"'),)
_CHALLENGE_WRONG: Final[Headers] = ((b"www-authenticate", b'Bearer realm="skewless", error="invalid_token"'),)


def challenge(error: Unauthenticated) -> Headers:
    """What a 401 has to say (RFC 6750, section 3): how to ask; `invalid_token` where a credential was given."""
    return _CHALLENGE_WRONG if error.was_given else _CHALLENGE


def rate_headers(error: RateLimited) -> Headers:
    """`RateLimit-Policy` and `RateLimit` of a 429, in the form of draft-ietf-httpapi-ratelimit-headers-10.

    `q` is the burst, `w` the whole seconds in which it comes back, `r` what is left, `t` when to ask again.
    """
    window_s = max(1, math.ceil(error.window_s))
    again_s = max(1, math.ceil(error.retry_after_s))
    return (
        (b"ratelimit-policy", b'"caller";q=%d;w=%d' % (error.quota, window_s)),
        (b"ratelimit", b'"caller";r=0;t=%d' % again_s),
    )
