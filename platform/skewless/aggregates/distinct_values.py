"""How many different values there are: exact up to a bound, beyond it an estimate with a stated error.

Each value has a 64-bit hash. Kept are the `kept + 1` smallest hashes (a bottom-k sketch, Bar-Yossef et al. 2002; its
estimate is Beyer et al. 2007, equation 5). The smallest hashes of a union are among the smallest of its parts, so that
merging gives the same whatever was merged first, and the count depends on the values alone. With up to `kept` values
it is exact, but for two that share a hash (2**-40 for a thousand values); beyond it the relative standard error is
about 1 / sqrt(kept): 3.1 % for 1,024.
"""

import math
from bisect import bisect_left
from hashlib import blake2b

from skewless.dtypes import Dtype

Hashes = tuple[int, ...]
"""The smallest hashes, in order."""
_HASH_BYTES = 8
_RANGE = 1 << 64


def value_hash(value: object) -> int:
    """The hash of a value of one column: the same in every process, version and machine.

    >>> value_hash("JFK") == value_hash("JFK"), value_hash(1) == value_hash(1.0)
    (True, False)
    """
    if isinstance(value, bytes):
        data = value
    elif isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
    else:
        data = repr(value).encode()
    return int.from_bytes(blake2b(data, digest_size=_HASH_BYTES).digest(), "little")


def with_hash(hashes: Hashes, added: int, kept: int) -> Hashes:
    """The smallest hashes with one more value."""
    place = bisect_left(hashes, added)
    if place > kept or (place < len(hashes) and hashes[place] == added):
        return hashes
    return (*hashes[:place], added, *hashes[place:])[: kept + 1]


def merged(one: Hashes, other: Hashes, kept: int) -> Hashes:
    """The smallest hashes of the values of both."""
    return tuple(sorted({*one, *other}))[: kept + 1]


def count(hashes: Hashes, kept: int) -> int:
    """How many values there are.

    >>> count((5, 9), 2), count((1 << 60, 1 << 61, 1 << 62), 2)
    (2, 8)
    """
    if len(hashes) <= kept:
        return len(hashes)
    return kept * _RANGE // hashes[kept]


def standard_error(kept: int) -> float:
    """The relative standard error of an estimate."""
    return 1 / math.sqrt(kept)


HASHED = frozenset({Dtype.BOOL, Dtype.INT32, Dtype.INT64, Dtype.STRING, Dtype.BYTES, Dtype.TIMESTAMP})
"""What can be told apart: of floating-point numbers equality says little."""
