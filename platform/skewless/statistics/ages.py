"""How old the rows were that features came from. One age per view: its features share a row."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from skewless.features.visibility import NO_EVENT_TIME

NO_AGE = -1
"""Stands where no row of the view was visible."""


def ages_of(
    event_times: Mapping[str, NDArray[np.int64]], as_of: int | NDArray[np.int64]
) -> dict[str, NDArray[np.int64]]:
    """Age in µs (rows,) of each view's rows at `as_of` (one moment, or one per row); NO_AGE where there is none.

    >>> ages_of({"weather": np.array([40, NO_EVENT_TIME, 60])}, 50)["weather"].tolist()
    [10, -1, -1]
    """
    return {
        view: np.where((times == NO_EVENT_TIME) | (times > as_of), NO_AGE, as_of - times)
        for view, times in event_times.items()
    }
