"""Mean, spread and extremes: exact in training, and as whole numbers of a grid while counting.

Training's moments are rounded once, from exact sums, so that they do not depend on the order of the rows. What is
counted later is added up in units of a power of two, between 1/1024 and 1/512 of training's standard deviation, as
distances from about training's mean. Sums of whole numbers are exact: counting in any order, in any parts, merged in
any way, gives the same bits.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.transforms.learning import Extremes, MeanAndDeviation
from skewless.transforms.operation import ALL_VALID, Vector

STEPS_MAX = 1 << 15
"""A number further than this many units from the centre (32 standard deviations or more) counts as that far."""
_STEPS_BITS = 10
_EXPONENT_MIN = -1_000
"""Keeps what is divided by a unit inside of float64's range."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Of `count` finite numbers, one or more. `deviation` is the population standard deviation."""

    count: int
    mean: float
    deviation: float
    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class Grid:
    """Numbers as whole `unit`s from `centre`, at most STEPS_MAX of them to either side."""

    centre: float
    unit: float

    @classmethod
    def of(cls, moments: Moments | None) -> "Grid":
        """The grid that training's moments give; None where training had no finite number.

        Whole numbers stay exact where the deviation is below 512: then `unit` is 1 or less, and `centre` a multiple.

        >>> Grid.of(Moments(2, mean=1.5, deviation=0.5, minimum=1.0, maximum=2.0))
        Grid(centre=1.5, unit=0.0009765625)
        """
        if moments is None:
            return cls(0.0, math.ldexp(1.0, -_STEPS_BITS))
        scale = moments.deviation or abs(moments.mean) or 1.0
        exponent = math.frexp(scale)[1] - _STEPS_BITS
        unit = math.ldexp(1.0, max(exponent, _EXPONENT_MIN))
        # From 2**53 steps on, every float64 is a whole number of them.
        steps = moments.mean / unit
        return cls(math.trunc(steps) * unit if abs(steps) < 2.0**53 else moments.mean, unit)

    def moments(self, count: int, steps: int, squares: int, extremes: tuple[float, float]) -> Moments | None:
        """Of `count` numbers whose distances in units sum up to `steps`, and their squares to `squares`.

        The mean is within half a unit of the numbers' own, unless some were too far from the centre. None for none.
        """
        if not count:
            return None
        low, high = extremes
        mean = min(max(self.centre + self.unit * (steps / count), low), high)
        variance = (count * squares - steps * steps) / (count * count)  # whole numbers, divided once
        return Moments(count, mean, self.unit * math.sqrt(variance), low, high)


def moments_of(values: NDArray[np.float64]) -> Moments | None:
    """Exact moments of finite numbers (rows,), each rounded once; None for no numbers.

    >>> moments_of(np.array([3.0, 1.0]))
    Moments(count=2, mean=2.0, deviation=1.0, minimum=1.0, maximum=3.0)
    """
    if not len(values):
        return None
    both = MeanAndDeviation(lambda mean, deviation: {"mean": mean, "deviation": deviation})
    ends = Extremes(lambda low, high: {"minimum": low, "maximum": high})
    numbers = Vector(values, ALL_VALID)
    ends.add(numbers)
    both.add(numbers)
    while both.end_pass():
        both.add(numbers)
    return Moments(len(values), **_floats(both.learned()), **_floats(ends.learned()))


def _floats(learned: object) -> dict[str, float]:
    assert isinstance(learned, dict)
    return learned
