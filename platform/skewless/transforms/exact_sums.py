"""Sums of float64 numbers without any rounding, so that neither order nor grouping of the numbers can show.

A block of numbers is cut, again and again, into a high part and an exact rest: adding a power of two that is
2**_MARGIN times the largest number and taking it away again leaves of each number a multiple of one common
unit, small enough that the whole block's multiples sum up in float64 exactly, in any order (the extraction of
Rump, Ogita and Oishi, "Accurate floating-point summation part I", 2008, lemma 3.3). The block's sums go into one
Python integer that counts units of 2**-1074, the smallest float64, which every float64 is a multiple of.

    block     (≤ 16,384,) float64     in the CPU's cache
    fold      high part summed, rest kept; two or three folds empty ordinary numbers, any number ends within 60
    units     one integer of at most about 2,200 bits
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_BLOCK_ROWS = 1 << 14
_MARGIN = 15
"""Bits between the largest number and the power of two: 2**_MARGIN must exceed a block's rows by two or more."""
_UNIT_EXPONENT = 1074
_HUGE = 2.0**960
_HUGE_BITS = 128
"""Numbers from `_HUGE` on are divided by 2**_HUGE_BITS, which is exact for them, or the power of two would overflow."""

assert _BLOCK_ROWS + 2 <= 1 << _MARGIN


class ExactSum:
    """The exact sum of all numbers added so far."""

    __slots__ = ("_units",)

    def __init__(self) -> None:
        self._units = 0

    def add(self, values: NDArray[np.float64]) -> None:
        """Add finite numbers (rows,)."""
        for start in range(0, len(values), _BLOCK_ROWS):
            self._units += exact_units(values[start : start + _BLOCK_ROWS])

    def divided_by(self, power: int) -> float:
        """The sum divided by 2**power, rounded once to the nearest float64; `power` is -1074 or more.

        Raises OverflowError where that is beyond the range of a float64.
        """
        return units_divided_by(self._units, power)


def units_divided_by(units: int, power: int) -> float:
    """`units` of 2**-1074, divided by 2**power and rounded once; see `ExactSum.divided_by`."""
    # Python divides integers of any size with one rounding, to the nearest.
    return units / (1 << (_UNIT_EXPONENT + power))


def exact_units(block: NDArray[np.float64]) -> int:
    """The exact sum of up to 16,384 finite numbers, in units of 2**-1074.

    >>> exact_units(np.array([1e308, 5e-324, -1e308]))
    1
    """
    if not len(block):
        return 0
    if max(float(block.max()), -float(block.min())) >= _HUGE:
        huge = np.abs(block) >= _HUGE
        return (_folded(block[huge] * 2.0**-_HUGE_BITS) << _HUGE_BITS) + _folded(block[~huge])
    return _folded(block)


def grouped_units(block: NDArray[np.float64], groups: NDArray[np.intp], count: int) -> list[int]:
    """The exact sum of each group of a block, in units of 2**-1074; `groups` (rows,) holds 0 to count - 1.

    >>> grouped_units(np.array([5e-324, 1e-323, 5e-324]), np.array([0, 1, 0]), 2)
    [2, 2]
    """
    units = [0] * count
    huge = np.abs(block) >= _HUGE
    parts = ((block[~huge], groups[~huge], 0), (block[huge] * 2.0**-_HUGE_BITS, groups[huge], _HUGE_BITS))
    for values, places, bits in parts:
        for high in _folds(values):
            for place, total in enumerate(np.bincount(places, weights=high, minlength=count).tolist()):
                units[place] += _units_of(total) << bits
    return units


def _folded(block: NDArray[np.float64]) -> int:
    return sum(_units_of(float(high.sum())) for high in _folds(block))


def _folds(block: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """The high parts of a block, the highest first; each is overwritten by the next."""
    rest, high = block.copy(), np.empty_like(block)
    while largest := max(float(rest.max(initial=0.0)), -float(rest.min(initial=0.0))):
        # Not below the smallest normal number: there every float64 is a multiple of the unit already.
        sigma = math.ldexp(1.0, max(math.frexp(largest)[1] + _MARGIN, -1022))
        np.add(rest, sigma, out=high)
        np.subtract(high, sigma, out=high)
        np.subtract(rest, high, out=rest)
        yield high


def _units_of(number: float) -> int:
    numerator, denominator = number.as_integer_ratio()
    return numerator << (_UNIT_EXPONENT - (denominator.bit_length() - 1))
