"""What came of one expectation on one batch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class ExpectationResult:
    """The `position`-th expectation of a suite, judged. What has no meaning for its kind is None."""

    position: int
    success: bool
    rows: int
    """Rows of the batch."""
    missing: int | None = None
    """Rows that were not judged because the value is null; NaN counts as null, as it does in Great Expectations."""
    unexpected: int | None = None
    """Rows that do not meet it."""
    observed: object = None
    """What was seen of the column or table, as plain data."""
    examples: tuple[object, ...] = ()
    """A few values that do not meet it, as plain data."""
    error: str = ""
    """Why it could not be judged at all; then `success` is False."""
    failing_rows: NDArray[np.int64] | None = None
    """Numbers of the rows that do not meet it, ascending; None where nobody asked or rows are not judged singly."""

    @property
    def unexpected_share(self) -> float | None:
        """Of all rows, 0 to 1."""
        return None if self.unexpected is None else self.unexpected / max(self.rows, 1)
