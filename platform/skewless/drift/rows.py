"""Some rows of what was observed, in another order: rows of one window, or of one slice."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.column_table import ColumnTable
from skewless.dtypes import Column
from skewless.features.frame import Lines
from skewless.statistics.observed import Observed


def taken(observed: Observed, places: NDArray[np.intp]) -> Observed:
    """The rows at `places` (chosen,), in that order, of every part; arrays are copied."""
    return Observed(
        len(places),
        _columns(observed.columns, places),
        _arrays(observed.statuses, places),
        _arrays(observed.ages_us, places),
        None if observed.tensor is None else observed.tensor[places],
        _arrays(observed.scores, places),
    )


def _columns(columns: Mapping[str, Column], places: NDArray[np.intp]) -> Mapping[str, Column]:
    if not isinstance(columns, ColumnTable):
        return {name: Column(each.dtype, each.values[places], each.valid[places]) for name, each in columns.items()}
    # Taken along the rows, so that each line of a block stays contiguous.
    values = [np.take(block, places, axis=1) for block in columns.value_blocks]
    valid = [np.take(block, places, axis=1) for block in columns.valid_blocks]
    return ColumnTable(columns.layout, values, valid, len(places))


def _arrays(arrays: Mapping[str, NDArray[Any]], places: NDArray[np.intp]) -> Mapping[str, NDArray[Any]]:
    if isinstance(arrays, Lines):
        return Lines(arrays.line, np.take(arrays.matrix, places, axis=1))
    return {name: each[places] for name, each in arrays.items()}
