"""Some rows of what was read for a request, as a frame and as columns of their own."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.column_table import ColumnTable
from skewless.dtypes import Column
from skewless.features.frame import Fault, FeatureFrame, Lines
from skewless.limits import FAULTS_MAX

Rows = NDArray[np.intp]
"""Positions of rows in their request, ascending."""


def columns_at(columns: Mapping[str, Column], names: Iterable[str], rows: Rows) -> dict[str, Column]:
    """Copies of the named columns at `rows`."""
    return {name: Column(columns[name].dtype, columns[name].values[rows], columns[name].valid[rows]) for name in names}


def frame_at(frame: FeatureFrame, rows: Rows) -> FeatureFrame:
    """The frame of `rows` alone; every array is a copy, in the layout that the transform was prepared for."""
    assert isinstance(frame.columns, ColumnTable), "only frames read online are taken apart"
    columns = frame.columns
    place = {row: position for position, row in enumerate(rows.tolist())}
    faults = (Fault(place[each.row], each.column, each.reason) for each in frame.faults if each.row in place)
    return FeatureFrame(
        len(rows),
        ColumnTable(
            columns.layout,
            # `take` keeps each line contiguous, which indexing a second axis does not promise.
            [block.take(rows, axis=1) for block in columns.value_blocks],
            [block.take(rows, axis=1) for block in columns.valid_blocks],
            len(rows),
        ),
        _lines_at(frame.statuses, rows),
        _lines_at(frame.event_times, rows),
        tuple(islice(faults, FAULTS_MAX)),
        {view: near[rows] for view, near in frame.near.items()},
    )


def _lines_at(lines: Mapping[str, NDArray[Any]], rows: Rows) -> Lines:
    assert isinstance(lines, Lines), "only frames read online are taken apart"
    return Lines(lines.line, lines.matrix.take(rows, axis=1))
