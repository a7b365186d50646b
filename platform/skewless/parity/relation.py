"""Whether values of two pipelines are one another's by a fixed rule, such as a change of unit."""

import numpy as np
from numpy.typing import NDArray

_PAIRS_MIN = 3
_APART = 1e-5
"""Largest relative deviation from the rule: what float32 and a rounded factor leave."""


def relation(served: NDArray[np.float64], offline: NDArray[np.float64]) -> str:
    """The rule in words, `served = 1.609 * offline + 32`; empty where there is none, or too few values to tell.

    >>> relation(np.array([32.0, 50.0, 212.0]), np.array([0.0, 10.0, 100.0]))
    'served = 1.8 * offline + 32'
    """
    finite = np.isfinite(served) & np.isfinite(offline)
    served, offline = served[finite], offline[finite]
    low, high = (int(each(offline)) if len(offline) else 0 for each in (np.argmin, np.argmax))
    if len(np.unique(offline)) < _PAIRS_MIN or len(np.unique(served)) < _PAIRS_MIN:
        return ""
    factor = (served[high] - served[low]) / (offline[high] - offline[low])
    offset = served[low] - factor * offline[low]
    size = max(float(np.abs(served).max()), float(np.abs(offline).max()))
    if abs(offset) <= _APART * size:
        offset = 0.0
    off = np.abs(served - (factor * offline + offset))
    if float(off.max()) > _APART * size:
        return ""
    added = "" if offset == 0.0 else f" {'+' if offset > 0 else '-'} {abs(offset):.6g}"
    return f"served = {factor:.6g} * offline{added}"
