"""One text for one value: the JSON whose SHA-256 is a digest.

Keys sorted, no white space, UTF-8, floats in their shortest round-trip form, NaN and infinities refused.
"""

import hashlib
import json
from typing import NewType

Digest = NewType("Digest", str)
"""A SHA-256 as 64 lower-case hexadecimal digits."""


def encode(value: object) -> bytes:
    """Canonical JSON of plain data (dict, list, tuple, str, int, float, bool, None).

    Raises ValueError for NaN and infinities, TypeError for anything that is not plain data.

    >>> encode({"b": 1, "a": [1.5, None]})
    b'{"a":[1.5,null],"b":1}'
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def digest(value: object) -> Digest:
    """SHA-256 of `encode(value)`."""
    return digest_bytes(encode(value))


def digest_bytes(data: bytes) -> Digest:
    """SHA-256 of bytes as they are."""
    return Digest(hashlib.sha256(data).hexdigest())
