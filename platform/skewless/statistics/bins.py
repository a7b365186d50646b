"""The bins of each variable, chosen from training's values. Nothing is counted here yet."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column, Dtype
from skewless.statistics.ages import NO_AGE
from skewless.statistics.edges import AGE_EDGES_US, HOUR_EDGES, number_edges
from skewless.statistics.forms import measured
from skewless.statistics.moments import moments_of
from skewless.statistics.variable import LISTED, NUMBER_PLACES, Measure, Part, Variable, counted_dtype, measure_of
from skewless.statistics.words import KNOWN_MAX, KNOWN_TOTAL_MAX, vocabulary_of


def column_bins(name: str, column: Column, *, served: bool, known_max: int) -> Variable:
    """A column's bins, without counts. `served` says that it is a stored feature, whose values have statuses."""
    measure = measure_of(column.dtype)
    values = column.values if column.valid.all() else column.values[column.valid]
    statuses: dict[str, int] | None = {} if served else None
    if measure is Measure.WORD:
        vocabulary = vocabulary_of(Counter(values.tolist()), known_max=known_max)
        blank = (0,) * (LISTED + len(vocabulary.listed))
        return Variable(Part.COLUMN, name, column.dtype, blank, vocabulary=vocabulary, statuses=statuses)
    numbers = measured(measure, values)
    edges = HOUR_EDGES if measure is Measure.HOUR else number_edges(_finite(numbers), counted_dtype(column.dtype))
    return _variable(Part.COLUMN, name, column.dtype, numbers, edges, statuses)


def number_bins(part: Part, name: str, values: NDArray[np.float32]) -> Variable:
    """The bins of an output or a score (rows,), without counts."""
    return _variable(part, name, Dtype.FLOAT32, values, number_edges(_finite(values), Dtype.FLOAT32), None)


def age_bins(view: str, ages_us: NDArray[np.int64]) -> Variable:
    """The bins of a view's ages, which are those of all views, without counts."""
    return _variable(Part.AGE, view, Dtype.INT64, ages_us[ages_us != NO_AGE], AGE_EDGES_US, None)


def words_known_max(columns: Sequence[tuple[str, Dtype]]) -> int:
    """Up to how many distinct words the vocabulary of each of these columns may be closed."""
    of_strings = sum(dtype is Dtype.STRING for _, dtype in columns)
    return min(KNOWN_MAX, KNOWN_TOTAL_MAX // max(of_strings, 1))


def _variable(
    part: Part,
    name: str,
    dtype: Dtype,
    values: NDArray[Any],
    edges: tuple[float, ...],
    statuses: dict[str, int] | None,
) -> Variable:
    blank = (0,) * (len(edges) + NUMBER_PLACES)
    return Variable(part, name, dtype, blank, edges, moments=moments_of(_finite(values)), statuses=statuses)


def _finite(values: NDArray[Any]) -> NDArray[np.float64]:
    numbers = values.astype(np.float64)
    finite = np.isfinite(numbers)
    return numbers if finite.all() else numbers[finite]
