"""Statistics learned from training values: exact, so that order and chunking of the rows cannot change them."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.transforms.operation import Vector


def usable(vector: Vector) -> NDArray[np.float64]:
    """The values that are neither null nor NaN nor infinite. Raises ValueError where there is none."""
    # Adding 0.0 turns -0.0 into 0.0: they are equal, so which of the two came first must not show in a result.
    values: NDArray[np.float64] = vector.values[np.isfinite(vector.values) & vector.valid] + 0.0
    if not len(values):
        raise ValueError(f"none of {len(vector.values):,} training rows has a finite value to learn from")
    return values


def known(vector: Vector) -> list[str]:
    """The strings that are not null; an empty string is a value like any other."""
    words: list[str] = vector.values[vector.valid].tolist()
    return words


def mean_and_deviation(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and population standard deviation.

    `math.fsum` rounds the exact sum once, so the order of the values does not matter. Values are first scaled
    by a power of two, which changes no digit and keeps sums and squares of very large ones from overflowing.

    >>> mean_and_deviation(np.array([1.0, 3.0]))
    (2.0, 1.0)
    """
    low, high = float(values.min()), float(values.max())
    if low == high:  # otherwise the rounding of the mean would come out as a tiny deviation to divide by
        return low, 0.0
    scale = math.ldexp(1.0, max(math.frexp(max(-low, high))[1] - 1, -1074))
    scaled = values / scale
    mean = math.fsum(scaled.tolist()) / len(values)
    deviations = scaled - mean
    variance = math.fsum((deviations * deviations).tolist()) / len(values)
    return mean * scale, math.sqrt(variance) * scale


def median(values: NDArray[np.float64]) -> float:
    """The middle value; of an even count, the mean of the two in the middle.

    >>> median(np.array([5.0, 1.0, 2.0, 4.0]))
    3.0
    """
    ordered = np.sort(values)
    below, above = float(ordered[(len(ordered) - 1) // 2]), float(ordered[len(ordered) // 2])
    # Adding halves cannot overflow; equal middles are returned as they are, since half of a denormal rounds.
    return below if below == above else below / 2.0 + above / 2.0


def quantile_edges(values: NDArray[np.float64], count: int) -> list[float]:
    """Edges that cut the values into up to `count` buckets of like size: fewer where values repeat.

    An edge is the first value that has at least its share of the rows at or below it (an inverse of the
    empirical distribution, so always one of the values).

    >>> quantile_edges(np.array([1.0, 2.0, 3.0, 4.0]), 2)
    [2.0]
    """
    ordered = np.sort(values)
    ranks = (-(-len(ordered) * cut // count) - 1 for cut in range(1, count))
    edges: list[float] = np.unique(ordered[list(ranks)]).tolist()
    return edges


def by_frequency(words: Iterable[str], most: int) -> list[str]:
    """The `most` most frequent words, the most frequent first; ties in order of code points.

    >>> by_frequency(["b", "a", "c", "c"], 2)
    ['c', 'a']
    """
    counted = Counter[Any](words)
    return sorted(counted, key=lambda word: (-counted[word], word))[:most]
