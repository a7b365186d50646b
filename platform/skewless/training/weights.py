"""How much each training row counts."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import NUMERIC, Column
from skewless.errors import InvalidDefinition
from skewless.timestamps import DAY_US


@dataclass(frozen=True, slots=True)
class RowWeights:
    """A row weighs the product of what is declared; they are scaled so that their mean is 1.

    `half_life_days`: a row that is so much older than the newest one counts half. `positive`: what a positive row
    counts beside a negative one. `column`: a column of the contract that holds a weight, never null or below 0.
    """

    half_life_days: float | None = None
    positive: float = 1.0
    column: str | None = None

    def __post_init__(self) -> None:
        if self.half_life_days is not None and not 0.0 < self.half_life_days < np.inf:
            raise InvalidDefinition(f"half_life_days is {self.half_life_days}; allowed: a number above 0, or None")
        if not 0.0 < self.positive < np.inf:
            raise InvalidDefinition(f"the weight of a positive row is {self.positive}; allowed: a number above 0")

    def of(
        self, columns: Mapping[str, Column], as_of: NDArray[np.int64], labels: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Weights (rows,) of rows with these columns, moments (µs) and labels. Raises InvalidDefinition."""
        weights = np.where(labels, self.positive, 1.0)
        if self.half_life_days is not None:
            weights *= 0.5 ** ((as_of.max() - as_of) / (self.half_life_days * DAY_US))
        if self.column is not None:
            weights *= _column_weights(self.column, columns)
        return weights / weights.mean() if (weights != 1.0).any() else weights


def _column_weights(name: str, columns: Mapping[str, Column]) -> NDArray[np.float64]:
    if name not in columns or columns[name].dtype not in NUMERIC:
        raise InvalidDefinition(
            f"the weight column `{name}` is no numeric column of the contract; columns: {', '.join(columns)}"
        )
    values = columns[name].values.astype(np.float64)
    wrong = ~columns[name].valid | ~(values >= 0.0) | np.isinf(values)
    if wrong.any() or not values.any():
        row = int(wrong.argmax())
        seen = values[row] if columns[name].valid[row] else "null"
        raise InvalidDefinition(
            f"the weight column `{name}` is {seen} in training row {row}; weights are finite, never null or below 0,"
            " and not all 0"
        )
    return values
