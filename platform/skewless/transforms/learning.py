"""Statistics learned from training rows, batch by batch: exact, so that order and chunking of the rows cannot show.

Each is a `Statistic` (operation.py): `add` every batch, `end_pass`, and again from the first batch while that says
True; then `learned`. Rows that are null teach nothing, nor do NaN and infinities. What is found goes through `then`,
which makes the learned settings of it. Memory is bounded whatever the rows: ADR 12.

| statistic | passes | holds |
|---|---|---|
| Mean, Extremes | 1 | one number or two |
| MeanAndDeviation | 2 | two numbers |
| Median, QuantileEdges, OrderStatistics | 1 up to 262,144 rows, then mostly 2 | 4 MiB, later 16 MiB at most |
| Frequencies, MostFrequentNumber | 1 per million distinct values | a million values |
| GroupedSums | 1 | a number for each of a million words |
"""

import math
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skewless.transforms.checks import VOCABULARY_MAX
from skewless.transforms.exact_sums import ExactSum, grouped_units, units_divided_by
from skewless.transforms.operation import Settings, Vector
from skewless.transforms.order_statistics import RankSearch
from skewless.transforms.value_counts import ValueCounts

_GROUP_BLOCK_ROWS = 1 << 14


class Given:
    """Settings that are known without any row; fitting does not even evaluate the operands."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def add(self, *operands: Vector) -> None:
        """Nothing: no row matters."""

    def end_pass(self) -> bool:
        return False

    def learned(self) -> Settings:
        return self._settings


class _Numbers:
    """What all statistics of one column of numbers share: which rows can teach, and how many there were."""

    def __init__(self) -> None:
        self._rows = 0
        self._count = 0
        self._passes = 0

    def add(self, *operands: Vector) -> None:
        """One batch; the first operand is the numbers (rows,), the statistic takes no other."""
        values = finite_values(operands[0])
        if self._passes == 0:
            self._rows += len(operands[0].values)
            self._count += len(values)
        if len(values):
            self._add(values)

    def end_pass(self) -> bool:
        self._passes += 1
        return self._count > 0 and self._end_pass()

    def learned(self) -> Settings:
        if not self._count:
            raise ValueError(f"none of {self._rows:,} training rows has a finite value to learn from")
        return self._learned()

    def _add(self, values: NDArray[np.float64]) -> None:
        """A batch with a number or more."""
        raise NotImplementedError

    def _end_pass(self) -> bool:
        return False

    def _learned(self) -> Settings:
        raise NotImplementedError


class Extremes(_Numbers):
    """The smallest and the largest number."""

    def __init__(self, then: Callable[[float, float], Settings]) -> None:
        super().__init__()
        self._then = then
        self.low, self.high = math.inf, -math.inf

    def _add(self, values: NDArray[np.float64]) -> None:
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))

    def _learned(self) -> Settings:
        return self._then(self.low, self.high)


class _Moments(_Numbers):
    """The first pass of mean and deviation: count, extremes and exact sum.

    Sums are scaled by a power of two, which changes no digit and keeps those of very large numbers from overflowing.
    """

    def __init__(self) -> None:
        super().__init__()
        self._extremes = Extremes(lambda low, high: {})  # noqa: ARG005  # only its two numbers are used
        self._sum = ExactSum()

    def _add(self, values: NDArray[np.float64]) -> None:
        self._extremes._add(values)  # noqa: SLF001  # values are usable already
        self._sum.add(values)

    @property
    def _is_constant(self) -> bool:
        """Otherwise the rounding of the mean would come out as a tiny deviation to divide by."""
        return self._extremes.low == self._extremes.high

    @property
    def _power(self) -> int:
        """Numbers divided by 2**power are at most 2."""
        largest = max(-self._extremes.low, self._extremes.high)
        return max(math.frexp(largest)[1] - 1, -1074)

    @property
    def _scaled_mean(self) -> float:
        return self._sum.divided_by(self._power) / self._count

    @property
    def _mean(self) -> float:
        return self._extremes.low if self._is_constant else self._scaled_mean * math.ldexp(1.0, self._power)


class Mean(_Moments):
    """The arithmetic mean: the exact sum, rounded once, over the count."""

    def __init__(self, then: Callable[[float], Settings]) -> None:
        super().__init__()
        self._then = then

    def _learned(self) -> Settings:
        return self._then(self._mean)


class MeanAndDeviation(_Moments):
    """Mean and population standard deviation; the second pass sums the squared distances from the mean."""

    def __init__(self, then: Callable[[float, float], Settings]) -> None:
        super().__init__()
        self._then = then
        self._squares = ExactSum()

    def _add(self, values: NDArray[np.float64]) -> None:
        if self._passes == 0:
            super()._add(values)
            return
        distances = values / math.ldexp(1.0, self._power) - self._scaled_mean
        self._squares.add(distances * distances)

    def _end_pass(self) -> bool:
        return self._passes == 1 and not self._is_constant

    def _learned(self) -> Settings:
        variance = self._squares.divided_by(0) / self._count
        return self._then(self._mean, math.sqrt(variance) * math.ldexp(1.0, self._power))


class Ordered(Sequence[float]):
    """The training values in ascending order, of which only the ranks asked for are known."""

    def __init__(self, search: RankSearch, count: int) -> None:
        self._search = search
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rank: int) -> float:  # type: ignore[override]  # slices of it make no sense
        return self._search.value(rank)


class OrderStatistics(_Numbers):
    """Values at ranks: `ranks` says which (from 0) for a count of values, `then` is given them by rank."""

    def __init__(self, ranks: Callable[[int], Sequence[int]], then: Callable[[Ordered], Settings]) -> None:
        super().__init__()
        self._ranks = ranks
        self._then = then
        self._search = RankSearch()

    def _add(self, values: NDArray[np.float64]) -> None:
        self._search.add(values)

    def _end_pass(self) -> bool:
        return self._search.end_pass(self._ranks(self._count))

    def _learned(self) -> Settings:
        return self._then(Ordered(self._search, self._count))


class Median(OrderStatistics):
    """The middle value; of an even count, the mean of the two in the middle."""

    def __init__(self, then: Callable[[float], Settings]) -> None:
        super().__init__(median_ranks, lambda ordered: then(median_of(ordered)))


class QuantileEdges(OrderStatistics):
    """Edges that cut the values into up to `count` buckets of like size: fewer where values repeat.

    An edge is the first value that has at least its share of the rows at or below it (an inverse of the
    empirical distribution, so always one of the values).
    """

    def __init__(self, count: int, then: Callable[[list[float]], Settings]) -> None:
        def ranks(rows: int) -> list[int]:
            return [-(-rows * cut // count) - 1 for cut in range(1, count)]

        super().__init__(ranks, lambda ordered: then(sorted({ordered[rank] for rank in ranks(len(ordered))})))


class MostFrequentNumber(_Numbers):
    """The most frequent number; of equally frequent ones the smallest."""

    def __init__(self, then: Callable[[float], Settings]) -> None:
        super().__init__()
        self._then = then
        self._counts = ValueCounts[float](1, lambda number: zlib.crc32(struct.pack("<d", number)))

    def _add(self, values: NDArray[np.float64]) -> None:
        self._counts.add(values.tolist())

    def _end_pass(self) -> bool:
        return self._counts.end_pass()

    def _learned(self) -> Settings:
        return self._then(self._counts.most_frequent()[0])


class Frequencies:
    """The `most` most frequent words, the most frequent first; ties in order of code points.

    `then` is given as many as there are, perhaps none, and the count of training rows.
    """

    def __init__(self, most: int, then: Callable[[list[str], int], Settings]) -> None:
        self._then = then
        self._counts = ValueCounts[str](most, word_hash)
        self._rows = 0

    def add(self, *operands: Vector) -> None:
        """One batch; the first operand is the words (rows,)."""
        self._rows += len(operands[0].values)
        self._counts.add(known(operands[0]))

    def end_pass(self) -> bool:
        again = self._counts.end_pass()
        if again:
            self._rows = 0
        return again

    def learned(self) -> Settings:
        return self._then(self._counts.most_frequent(), self._rows)


class Total(NamedTuple):
    """How many numbers, and their exact sum rounded once."""

    rows: int
    sum: float


class GroupedSums:
    """Count and sum of a target for each word and for all words together; rows without a finite target count nothing.

    `then` is given the whole's total and each word's, in order of code points.
    """

    def __init__(self, then: Callable[[Total, Mapping[str, Total]], Settings]) -> None:
        self._then = then
        self._place: dict[str, int] = {}
        self._units: list[int] = []
        self._counts: list[int] = []
        self._all = [0, 0]
        self._rows = 0

    def add(self, *operands: Vector) -> None:
        """One batch: words (rows,) and the target (rows,). A null word counts for all words together alone."""
        words, target = operands[0], operands[-1]
        self._rows += len(words.values)
        for start in range(0, len(words.values), _GROUP_BLOCK_ROWS):
            rows = slice(start, start + _GROUP_BLOCK_ROWS)
            values, teaches = target.values[rows] + 0.0, target.valid[rows] & np.isfinite(target.values[rows])
            self._add_all(values[teaches])
            self._add_words(words.values[rows], values, teaches & words.valid[rows])

    def end_pass(self) -> bool:
        return False

    def learned(self) -> Settings:
        count, units = self._all
        if not count:
            raise ValueError(f"none of {self._rows:,} training rows has a finite target to learn from")
        try:
            totals = {
                word: Total(self._counts[place], units_divided_by(self._units[place], 0))
                for word, place in sorted(self._place.items())
            }
            return self._then(Total(count, units_divided_by(units, 0)), totals)
        except OverflowError as error:
            raise ValueError("the target's sum is beyond the range of a float64") from error

    def _add_all(self, values: NDArray[np.float64]) -> None:
        self._all[0] += len(values)
        self._all[1] += sum(grouped_units(values, np.zeros(len(values), dtype=np.intp), 1))

    def _add_words(self, words: NDArray[np.object_], values: NDArray[np.float64], teaches: NDArray[np.bool_]) -> None:
        if not teaches.any():
            return
        places, groups = np.unique([self._place_of(word) for word in words[teaches].tolist()], return_inverse=True)
        units = grouped_units(values[teaches], groups, len(places))
        for place, each, count in zip(places.tolist(), units, np.bincount(groups).tolist(), strict=True):
            self._units[place] += each
            self._counts[place] += count

    def _place_of(self, word: str) -> int:
        place = self._place.get(word)
        if place is None:
            place = self._place[word] = len(self._units)
            self._units.append(0)
            self._counts.append(0)
            if place >= VOCABULARY_MAX:
                raise ValueError(f"the column has more than {VOCABULARY_MAX:,} distinct strings")
        return place


def finite_values(vector: Vector) -> NDArray[np.float64]:
    """The values that are neither null nor NaN nor infinite; there may be none."""
    teaches = np.isfinite(vector.values)
    teaches &= vector.valid
    values: NDArray[np.float64] = vector.values if teaches.all() else vector.values[teaches]
    # Adding 0.0 turns -0.0 into 0.0: they are equal, so which of the two came first must not show in a result.
    return values + 0.0


def known(vector: Vector) -> list[str]:
    """The strings that are not null; an empty string is a value like any other."""
    words: list[str] = (vector.values if vector.valid.all() else vector.values[vector.valid]).tolist()
    return words


def word_hash(word: str) -> int:
    """The same 32 bits for a word in every process. Lone surrogates are strings in Python, though no text elsewhere."""
    return zlib.crc32(word.encode("utf-8", "surrogatepass"))


def median_ranks(rows: int) -> list[int]:
    """The ranks that `median_of` looks at."""
    return [(rows - 1) // 2, rows // 2]


def median_of(ordered: Sequence[float]) -> float:
    """The middle of ascending values; of an even count, the mean of the two in the middle.

    >>> median_of([1.0, 2.0, 4.0, 5.0])
    3.0
    """
    below, above = (float(ordered[rank]) for rank in median_ranks(len(ordered)))
    # Adding halves cannot overflow; equal middles are returned as they are, since half of a denormal rounds.
    return below if below == above else below / 2.0 + above / 2.0
