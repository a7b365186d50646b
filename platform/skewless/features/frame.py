"""Stored features of some rows at one moment each, with what is known about every value. Online and offline alike."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column
from skewless.features.visibility import Status

STATUS_CODES: tuple[Status, ...] = tuple(Status)
"""`FeatureFrame.statuses` holds indexes into this."""
STATUS_CODE: Mapping[Status, int] = {status: code for code, status in enumerate(STATUS_CODES)}
NO_EVENT_TIME = -1
"""Stands in `FeatureFrame.event_times` where there is no row of the view."""


@dataclass(frozen=True, slots=True)
class FeatureFrame:
    """What a bundle's transform is given for the stored features, and what the receipt tells about it.

    `columns` has a Column (rows,) per `view__feature`, after policies; `statuses` a uint8 array (rows,) of indexes
    into STATUS_CODES per `view__feature`; `event_times` an int64 array (rows,) of microseconds per view, -1 for none.
    """

    rows: int
    columns: Mapping[str, Column]
    statuses: Mapping[str, NDArray[np.uint8]]
    event_times: Mapping[str, NDArray[np.int64]]
