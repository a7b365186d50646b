"""Rows of one feature view on their way into the online store."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column


@dataclass(frozen=True, slots=True, eq=False)
class FeatureRows:
    """Rows (rows,) of a view, of any entities in any order; several may be of one entity.

    `keys` has a Column per join key, by the name that callers give it, none of them null; `values` one per feature of
    the view, all of them, as they are stored: cast to the declared dtype, NaN as null. Times are microseconds since
    1970; `created_times` is `row_order.NO_CREATED_TIME` where the source does not say when a row became known.
    """

    keys: Mapping[str, Column]
    values: Mapping[str, Column]
    event_times: NDArray[np.int64]
    created_times: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.event_times)

    def take(self, places: NDArray[np.int64]) -> "FeatureRows":
        """The rows at some places, in the order of the places."""
        return FeatureRows(
            {name: _taken(column, places) for name, column in self.keys.items()},
            {name: _taken(column, places) for name, column in self.values.items()},
            self.event_times[places],
            self.created_times[places],
        )


def _taken(column: Column, places: NDArray[np.int64]) -> Column:
    return Column(column.dtype, np.ascontiguousarray(column.values[places]), column.valid[places])
