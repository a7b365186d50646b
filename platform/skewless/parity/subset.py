"""Some rows of what was checked, so that one check is counted by sample."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column
from skewless.features.frame import STATUS_CODE, FeatureFrame
from skewless.features.visibility import Status
from skewless.parity.check import Checked, Served
from skewless.parity.equality import Equality, Mask
from skewless.parity.evidence import Versions, take

Rows = NDArray[np.int64]


def checked_rows(checked: Checked, chosen: Mask) -> Checked:
    """The chosen rows (rows,) alone, in their order; everything is a copy unless all are chosen."""
    if chosen.all():
        return checked
    rows = np.flatnonzero(chosen)
    served = served_rows(checked.served, rows)
    return replace(
        checked,
        served=served,
        then=_frame(checked.then, rows),
        equal={name: Equality(each.same[rows], each.close[rows]) for name, each in checked.equal.items()},
        features=_lines(checked.features, rows),
        tensor=checked.tensor[rows],
        output=checked.output[rows],
        later=_lines(checked.later, rows),
        finally_equal=_lines(checked.finally_equal, rows),
        tensor_same=checked.tensor_same[rows],
        output_same=checked.output_same[rows],
        judged=checked.judged[rows],
        versions={view: None if each is None else _versions(each, rows) for view, each in checked.versions.items()},
        overrides=sum(
            int(np.count_nonzero(codes == STATUS_CODE[Status.OVERRIDE])) for codes in served.frame.statuses.values()
        ),
    )


def served_rows(served: Served, rows: Rows) -> Served:
    """The predictions at `rows`."""
    return Served(
        prediction_ids=[served.prediction_ids[row] for row in rows.tolist()],
        as_of=served.as_of[rows],
        given=_columns(served.given, rows),
        frame=_frame(served.frame, rows),
        tensor=served.tensor[rows],
        has_tensor=served.has_tensor[rows],
        tensor_digests=[served.tensor_digests[row] for row in rows.tolist()],
        outputs=served.outputs[rows],
        rungs=[served.rungs[row] for row in rows.tolist()],
    )


def _frame(frame: FeatureFrame, rows: Rows) -> FeatureFrame:
    return FeatureFrame(
        len(rows), _columns(frame.columns, rows), _lines(frame.statuses, rows), _lines(frame.event_times, rows)
    )


def _columns(columns: Mapping[str, Column], rows: Rows) -> dict[str, Column]:
    return {name: take(column, rows) for name, column in columns.items()}


def _lines(lines: Mapping[str, NDArray[Any]], rows: Rows) -> dict[str, NDArray[Any]]:
    return {name: line[rows] for name, line in lines.items()}


def _versions(versions: Versions, rows: Rows) -> Versions:
    """The lines that belong to the rows, numbered anew."""
    lines = np.flatnonzero(np.isin(versions.row, rows))
    return Versions(
        np.searchsorted(rows, versions.row[lines]),
        versions.event_time[lines],
        versions.created_time[lines],
        _columns(versions.columns, lines),
        _columns(versions.raw, lines),
    )
