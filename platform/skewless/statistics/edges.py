"""Where bins of numbers begin and end. Chosen once, from training, and then fixed: only equal bins can be compared.

Edges of training values are values of the data, so that the same rows give the same edges in any order. Each heavy
value (a zero, a code for "unknown", a cap) has a bin of its own. Between edges lie equal shares of all others, however
few they are, with finer bins at both ends. One bin lies below and one above everything that training has seen.
"""

import math

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Dtype
from skewless.timestamps import SECOND_US

EDGES_MAX = 61
"""With the two ends of the number line, a table of 63 edges: six halvings find a bin."""
DISTINCT_MAX = 24
"""Up to so many distinct values, each has its own bin."""
HEAVY_SHARE = 16
"""A value that makes up one row in so many has a bin of its own."""
LEVELS = (0.001, 0.01, *(step / 20 for step in range(1, 20)), 0.99, 0.999)
"""Shares of the values that are not heavy below each inner edge."""
AGE_EDGES_US = (0.0, *(float(SECOND_US << power) for power in range(26)))
"""Ages are counted in bins that double: below 0, below 1 s, below 2 s, … and 388 days or more."""
HOUR_EDGES = tuple(float(hour) for hour in range(1, 24))

assert 2 + len(LEVELS) + 2 * HEAVY_SHARE <= EDGES_MAX, "ends, inner edges, and both of each heavy value"
assert 2 + 2 * DISTINCT_MAX <= EDGES_MAX
assert len(AGE_EDGES_US) <= EDGES_MAX

_WHOLE = frozenset({Dtype.BOOL, Dtype.INT32, Dtype.INT64, Dtype.TIMESTAMP})
_EXACT_WHOLE = 2.0**53


def number_edges(values: NDArray[np.float64], dtype: Dtype) -> tuple[float, ...]:
    """Strictly ascending, finite edges for finite values (rows,) of a dtype; none for no values. Sorts a copy.

    A bin holds `edges[i] <= value < edges[i + 1]`. The first edge is the smallest value, and the last one is just
    above the largest, or the largest itself where the dtype has none above it.

    >>> number_edges(np.array([0.0, 0.0, 1.0]), Dtype.BOOL)
    (0.0, 1.0, 2.0)
    """
    if not len(values):
        return ()
    ordered = np.sort(values)
    ordered += 0.0  # -0.0 becomes 0.0, its equal
    heavy, light = _parted(ordered)
    largest = float(ordered[-1])
    beyond = next_number(largest, dtype)
    chosen = {float(ordered[0]), beyond if beyond < math.inf else largest}
    chosen.update(heavy)
    chosen.update(next_number(value, dtype) for value in heavy)
    if len(light):
        chosen.update(light[_ranks(len(light))].tolist())
    edges = tuple(sorted(chosen - {math.inf}))
    assert len(edges) <= EDGES_MAX
    return edges


def next_number(value: float, dtype: Dtype) -> float:
    """The smallest number above `value` that the dtype has, infinite above its largest.

    Numbers too small to be normal count with zero: some processors take them for it.

    >>> next_number(3.0, Dtype.INT64), next_number(0.0, Dtype.FLOAT64)
    (4.0, 2.2250738585072014e-308)
    """
    if dtype in _WHOLE and abs(value) < _EXACT_WHOLE:
        return value + 1.0
    kind = np.float32 if dtype is Dtype.FLOAT32 else np.float64
    tiny = float(np.finfo(kind).tiny)
    if -tiny <= value < tiny:
        return tiny if value >= 0.0 else 0.0
    with np.errstate(over="ignore"):
        return float(np.nextafter(kind(value), kind(np.inf)))


def _ranks(count: int) -> list[int]:
    """Where the value stands below or at which each level's share of the values lies."""
    return [max(math.ceil(level * count) - 1, 0) for level in LEVELS]


def _parted(ordered: NDArray[np.float64]) -> tuple[list[float], NDArray[np.float64]]:
    """The heavy ones of ascending values, each once, and all others as they are."""
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    counts = np.diff(starts, append=len(ordered))
    is_heavy = counts * HEAVY_SHARE >= len(ordered)
    if len(starts) <= DISTINCT_MAX:
        is_heavy[:] = True
    heavy: list[float] = ordered[starts[is_heavy]].tolist()
    return heavy, ordered[np.repeat(~is_heavy, counts)] if heavy else ordered
