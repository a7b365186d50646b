"""Compares served predictions with the same rows computed offline: features, tensor and output, bit for bit.

served, offline:  the same rows in the same order, each as features, tensor and model output
comparison:       how many rows are equal at each level, and one difference, with its cause, per row that is not
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column
from skewless.features.contract import FeatureContract
from skewless.features.frame import NO_EVENT_TIME, FeatureFrame


class Cause(StrEnum):
    """Why a served row differs from the offline one, most specific first."""

    MISSING_ONLINE = "missing_online"
    """Offline has a row of the view, the online store had none."""
    EXTRA_ONLINE = "extra_online"
    """The online store had a row that offline was not visible at that moment."""
    OLDER_ONLINE_ROW = "older_online_row"
    """The online store had an older row of the view: a write was late or lost."""
    NEWER_ONLINE_ROW = "newer_online_row"
    """The online store had a newer row than was visible: the future leaked into it."""
    VALUE = "value"
    """Both sides read the row of the same event time, with another value in it."""
    TRANSFORM = "transform"
    """Equal features gave another tensor."""
    MODEL = "model"
    """An equal tensor gave another output."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Rows as one side saw them. `tensor` is (rows, columns), `output` (rows, classes), both float32."""

    frame: FeatureFrame
    tensor: NDArray[np.float32]
    output: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that is not equal, by the first column that differs; `column` is empty where no feature does."""

    prediction_id: str
    cause: Cause
    column: str
    served: str
    offline: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows compared, rows equal at each level, and the rows that are not, in order."""

    rows: int
    features_equal: int
    tensors_equal: int
    outputs_equal: int
    differences: tuple[Difference, ...]


def compare(contract: FeatureContract, prediction_ids: Sequence[str], served: Scored, offline: Scored) -> Comparison:
    """Compare row by row. Floats are compared by their bits, so NaN equals NaN and 0.0 differs from -0.0."""
    differing_columns = {
        name: _values_differ(served.frame.columns[name], offline.frame.columns[name]) for name in served.frame.columns
    }
    features = np.zeros(len(prediction_ids), dtype=np.bool_)
    for mask in differing_columns.values():
        features |= mask
    tensors = _rows_differ(served.tensor, offline.tensor)
    outputs = _rows_differ(served.output, offline.output)
    views = contract.view_of_column
    differences = tuple(
        _difference(row, prediction_ids[row], differing_columns, views, served, offline, bool(tensors[row]))
        for row in np.flatnonzero(features | tensors | outputs).tolist()
    )
    rows = len(prediction_ids)
    return Comparison(
        rows=rows,
        features_equal=rows - int(features.sum()),
        tensors_equal=rows - int(tensors.sum()),
        outputs_equal=rows - int(outputs.sum()),
        differences=differences,
    )


def _difference(
    row: int,
    prediction_id: str,
    differing_columns: dict[str, NDArray[np.bool_]],
    views: dict[str, str],
    served: Scored,
    offline: Scored,
    tensor_differs: bool,
) -> Difference:
    for name, mask in differing_columns.items():
        if mask[row]:
            view = views[name]
            cause = _cause(int(served.frame.event_times[view][row]), int(offline.frame.event_times[view][row]))
            return Difference(
                prediction_id,
                cause,
                name,
                _shown(served.frame.columns[name], row),
                _shown(offline.frame.columns[name], row),
            )
    cause = Cause.TRANSFORM if tensor_differs else Cause.MODEL
    level = (served.tensor, offline.tensor) if tensor_differs else (served.output, offline.output)
    return Difference(prediction_id, cause, "", str(level[0][row].tolist()), str(level[1][row].tolist()))


def _cause(served_time: int, offline_time: int) -> Cause:
    if served_time == offline_time:
        return Cause.VALUE
    if served_time == NO_EVENT_TIME:
        return Cause.MISSING_ONLINE
    if offline_time == NO_EVENT_TIME:
        return Cause.EXTRA_ONLINE
    return Cause.OLDER_ONLINE_ROW if served_time < offline_time else Cause.NEWER_ONLINE_ROW


def _values_differ(served: Column, offline: Column) -> NDArray[np.bool_]:
    """Rows in which one side is null and the other is not, or both have values of other bits."""
    both = served.valid & offline.valid
    if served.values.dtype == np.dtype(object):
        unequal: NDArray[np.bool_] = np.asarray(served.values != offline.values, dtype=np.bool_)
    else:
        size = served.values.dtype.itemsize
        unequal = np.asarray(served.values.view(f"u{size}") != offline.values.view(f"u{size}"), dtype=np.bool_)
    differing: NDArray[np.bool_] = (served.valid != offline.valid) | (both & unequal)
    return differing


def _rows_differ(served: NDArray[np.float32], offline: NDArray[np.float32]) -> NDArray[np.bool_]:
    differing: NDArray[np.bool_] = np.any(served.view(np.uint32) != offline.view(np.uint32), axis=1)
    return differing


def _shown(column: Column, row: int) -> str:
    return repr(column.values[row : row + 1].tolist()[0]) if column.valid[row] else "null"
