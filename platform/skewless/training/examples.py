"""Questions with their answers: what a model is trained on, and what a replay asks again."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column

NO_OUTCOME = -1
"""Stands in `Examples.outcome_time` where no outcome ever arrives."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows in the order of their `as_of`.

    `keys` holds the join keys and request fields as columns (rows,); `as_of` and `outcome_time` are int64 µs (rows,),
    the latter -1 where no outcome ever comes; `labels` is bool (rows,), meaningful where `labelled`.
    """

    rows: int
    keys: Mapping[str, Column]
    as_of: NDArray[np.int64]
    labels: NDArray[np.bool_]
    labelled: NDArray[np.bool_]
    outcome_time: NDArray[np.int64]

    def known_by(self, moment: int) -> NDArray[np.bool_]:
        """Which rows have a label that had arrived by `moment` (µs)."""
        return self.labelled & (self.outcome_time <= moment)


def select(columns: Mapping[str, Column], rows: NDArray[np.bool_] | NDArray[np.int64]) -> dict[str, Column]:
    """The same columns with only some rows, by mask or by index; the result owns its memory."""
    return {name: Column(each.dtype, each.values[rows], each.valid[rows]) for name, each in columns.items()}
