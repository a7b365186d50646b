"""Operations that learn order statistics and frequencies of numbers: learned clipping, robust scaling, the mode.

Null in gives null out unless a class says otherwise; nulls, NaN and infinities teach nothing.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import ClassVar

from skewless.transforms import checks
from skewless.transforms.learning import MostFrequentNumber, Ordered, OrderStatistics, median_of, median_ranks
from skewless.transforms.number_operations import Clip, ImputeLearned, Rescale
from skewless.transforms.operation import Operation, Settings, Statistic


class ClipQuantiles(Clip):
    """`Clip` with bounds that cut the given shares off the training values.

    A bound is the first value that has at least its share of the rows at or below it, so always one of the values.
    """

    name = "clip_quantiles"
    settings: ClassVar[checks.Checks] = {"low_share": checks.share, "high_share": checks.share}
    learned: ClassVar[checks.Checks] = {"low": checks.finite, "high": checks.finite}

    def check_together(self, parameters: Settings) -> None:
        low, high = parameters["low_share"], parameters["high_share"]
        if low >= high:
            raise ValueError(f"low_share={low!r} must be below high_share={high!r}")
        if "low" in parameters and "high" in parameters:
            super().check_together(parameters)

    def statistic(self, settings: Settings) -> Statistic:
        low, high = settings["low_share"], settings["high_share"]

        def ranks(rows: int) -> tuple[int, int]:
            return rank_at_share(rows, low), rank_at_share(rows, high)

        def learned(ordered: Ordered) -> Settings:
            at_low, at_high = ranks(len(ordered))
            return {"low": ordered[at_low], "high": ordered[at_high]}

        return OrderStatistics(ranks, learned)


def rank_at_share(rows: int, share: float) -> int:
    """The rank (from 0) of the first of ascending values that has at least this share of them at or below it.

    The share counts as the decimal fraction that it is written as: a tenth of ten values is one.

    >>> rank_at_share(10, 0.1)
    0
    """
    return max(math.ceil(Fraction(repr(float(share))) * rows) - 1, 0)


def interpolated_at_share(ordered: Sequence[float], share: Fraction) -> float:
    """The value at a share of the way through ascending values, linear between neighbours (numpy's default).

    >>> interpolated_at_share([0.0, 10.0], Fraction(1, 4))
    2.5
    """
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    low, high = float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
    weight = float(place - below)
    # Weighting both ends cannot overflow where their difference would; equal ends are returned as they are.
    return low if low == high else low * (1.0 - weight) + high * weight


def median_and_quartile_range(ordered: Sequence[float]) -> tuple[float, float]:
    """Median, and the distance between the first and the third quartile, of ascending values.

    >>> median_and_quartile_range([1.0, 2.0, 3.0, 4.0, 5.0])
    (3.0, 2.0)
    """
    quartiles = [interpolated_at_share(ordered, Fraction(quarter, 4)) for quarter in (1, 3)]
    return median_of(ordered), quartiles[1] - quartiles[0]


def _robust_ranks(rows: int) -> list[int]:
    """The ranks that `median_and_quartile_range` looks at."""
    quartiles = [(rows - 1) * quarter // 4 for quarter in (1, 3)]
    return [*median_ranks(rows), *quartiles, *(min(rank + 1, rows - 1) for rank in quartiles)]


def _learn_robust(then: Callable[[float, float], Settings]) -> Statistic:
    return OrderStatistics(_robust_ranks, lambda ordered: then(*median_and_quartile_range(ordered)))


CLIP_QUANTILES = ClipQuantiles()
ROBUST = Rescale("robust", _learn_robust)
IMPUTE_MOST_FREQUENT_NUMBER = ImputeLearned("impute_most_frequent_number", MostFrequentNumber)

OPERATIONS: tuple[Operation, ...] = (CLIP_QUANTILES, ROBUST, IMPUTE_MOST_FREQUENT_NUMBER)
