"""Which rows no writer may write, because their entities were deleted: what every writer asks first."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column


class KeptOut(Protocol):
    """Knows which entities were deleted; implemented by `registry.entity_deletions.Deletions`."""

    def kept_out(
        self,
        view: str,
        keys: Mapping[str, Column],
        created_times: NDArray[np.int64],
        event_times: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """The mask (rows,) of rows of a view, by its stored name, that were known before a deletion; times in µs."""
        ...
