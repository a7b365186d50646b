"""What is counted of one column, output, score or age: its bins, how often each was hit in training, and moments.

Counts stand in the order of the bins:

    numbers   null | NaN | -∞ | below edges[0] | edges[0] ≤ v < edges[1] | … | edges[-1] ≤ v | +∞
    words     null | unseen | other | listed[0] | listed[1] | …

Numbers are compared as float64, which float32 and whole numbers up to 2**53 are exactly; larger ones are rounded
first, the same everywhere. Values have been cast to the declared dtype before, online as offline, so that a value
equal to an edge falls into one and the same bin in both.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import ELEMENTS, Dtype
from skewless.statistics.edges import next_number
from skewless.statistics.moments import Grid, Moments
from skewless.statistics.words import Vocabulary

NULL = 0
NAN, MINUS_INFINITY, BELOW = 1, 2, 3
UNSEEN, OTHER, LISTED = 1, 2, 3
"""Places of counts. BELOW is the first bin of finite numbers, LISTED the first of listed words."""
NUMBER_PLACES = 5
"""Places that numbers have besides one per edge."""


class Part(StrEnum):
    """What a variable is part of."""

    COLUMN = "column"
    """A column of the feature contract, after policies."""
    OUTPUT = "output"
    """An output of the transform: one column of the tensor."""
    SCORE = "score"
    AGE = "age"
    """The age of a view's rows, in µs; null where no row was visible."""


class Measure(StrEnum):
    """What of a value is counted."""

    NUMBER = "number"
    HOUR = "hour"
    """The hour of the day (UTC) of a timestamp: time itself only moves forward, out of every bin."""
    LENGTH = "length"
    """How many elements a list has, or bytes a byte string."""
    WORD = "word"


def measure_of(dtype: Dtype) -> Measure:
    """What is counted of a column of a dtype.

    >>> measure_of(Dtype.FLOAT32_LIST)
    <Measure.LENGTH: 'length'>
    """
    if dtype is Dtype.STRING:
        return Measure.WORD
    if dtype is Dtype.TIMESTAMP:
        return Measure.HOUR
    return Measure.LENGTH if dtype in ELEMENTS or dtype is Dtype.BYTES else Measure.NUMBER


def counted_dtype(dtype: Dtype) -> Dtype:
    """The dtype of what is counted of a column of a dtype: hours and lengths are whole numbers.

    >>> counted_dtype(Dtype.FLOAT32_LIST)
    <Dtype.INT64: 'int64'>
    """
    return dtype if measure_of(dtype) in (Measure.NUMBER, Measure.WORD) else Dtype.INT64


@dataclass(frozen=True, slots=True)
class Variable:
    """One thing that is counted. `counts` are training's, or those of some traffic in the same bins.

    `edges` are strictly ascending, empty for words; `vocabulary` is None for all but words. `moments` are those of
    the finite numbers; None for words, and where there was no finite number.
    """

    part: Part
    name: str
    dtype: Dtype
    counts: tuple[int, ...]
    edges: tuple[float, ...] = ()
    vocabulary: Vocabulary | None = None
    moments: Moments | None = None
    statuses: Mapping[str, int] | None = None
    """How often each status occurred that did, by its name; empty where not known, None for what has no status."""
    measure: Measure = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "measure", measure_of(self.dtype))

    @property
    def key(self) -> tuple[Part, str]:
        """What identifies a variable within a baseline."""
        return self.part, self.name

    @property
    def size(self) -> int:
        """How many bins there are, those for null and the like included."""
        return LISTED + len(self.vocabulary.listed) if self.vocabulary else len(self.edges) + NUMBER_PLACES

    @property
    def total(self) -> int:
        """Values counted, nulls included."""
        return sum(self.counts)

    @property
    def nulls(self) -> int:
        return self.counts[NULL]

    @property
    def unseen(self) -> int | None:
        """Values that training never saw: words outside of a closed vocabulary, finite numbers beyond its extremes.

        None where that is not known: for an open vocabulary, and where the edges are not training's.
        """
        if self.vocabulary:
            return self.counts[UNSEEN] if self.vocabulary.closed else None
        if self.part is Part.AGE or self.measure is Measure.HOUR:
            return None
        if not self.edges:
            return self.counts[BELOW]
        above = self.counts[-2] if next_number(self.edges[-1], counted_dtype(self.dtype)) < math.inf else 0
        return self.counts[BELOW] + above

    @property
    def grid(self) -> Grid:
        """Where moments of traffic are added up."""
        return Grid.of(self.moments)

    @property
    def finite_counts(self) -> NDArray[np.int64]:
        """Counts (edges + 1,) of finite numbers, in ascending order of the bins; numbers only."""
        assert self.vocabulary is None
        return np.array(self.counts[BELOW:-1], dtype=np.int64)
