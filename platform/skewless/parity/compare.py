"""Compares served predictions with the same rows computed offline, at four levels, and names a cause for each that
differs.

served, offline   the same rows in the same order, each as features, tensor and model output
equality          (rows,) per column: the same bits, or close enough for the dtype              `equality.py`
causes            (rows,) per column, then of the tensor and of the output, as codes            `causes.py`
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column, Dtype
from skewless.features.contract import FeatureContract, column_name
from skewless.features.frame import FeatureFrame
from skewless.features.on_demand import OnDemandPlan
from skewless.parity.causes import CAUSES, NO_CAUSE, PENDING, Cause
from skewless.parity.computed_causes import Codes, inherited, on_demand_causes
from skewless.parity.equality import Equality, Mask, compare_columns
from skewless.parity.evidence import Versions
from skewless.parity.stored_causes import ViewState, columns_of, differing, stored_causes
from skewless.timestamps import format_timestamp


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
    """Rows compared, rows equal to the bit at each level, and the rows that are not, in order."""

    rows: int
    features_equal: int
    tensors_equal: int
    outputs_equal: int
    differences: tuple[Difference, ...]


def equal_columns(served: FeatureFrame, offline: FeatureFrame) -> dict[str, Equality]:
    """By column, where both sides are equal."""
    return {name: compare_columns(column, offline.columns[name]) for name, column in served.columns.items()}


def feature_causes(
    contract: FeatureContract,
    served: FeatureFrame,
    offline: FeatureFrame,
    as_of: NDArray[np.int64],
    equal: Mapping[str, Equality],
    *,
    states: Mapping[str, ViewState],
    versions: Mapping[str, Versions | None],
) -> dict[str, Codes]:
    """By column of the stored views, a cause (rows,) as its code; see `stored_causes`."""
    found: dict[str, Codes] = {}
    for view in contract.views:
        different = differing(view, served, offline, equal)
        rows = differing_rows(different)
        if not len(rows):
            found |= {name: np.full(served.rows, NO_CAUSE, dtype=np.uint8) for name in columns_of(view)}
            continue
        found |= stored_causes(
            view, rows, served, offline, as_of,
            different=different, versions=versions.get(view.name), state=states[view.name],
        )  # fmt: skip
    return found


def differing_rows(different: Mapping[str, Mask]) -> NDArray[np.int64]:
    """Rows in which any of the columns differs, ascending."""
    if not different:
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(np.any(list(different.values()), axis=0)).astype(np.int64)


def computed_causes(
    contract: FeatureContract,
    plan: OnDemandPlan,
    served: FeatureFrame,
    offline: FeatureFrame,
    given: Mapping[str, Column],
    equal: Mapping[str, Equality],
    stored: Mapping[str, Codes],
) -> dict[str, Codes]:
    """By column of the on-demand views, a cause (rows,) as its code; `stored` has those of the stored columns."""
    found: dict[str, Codes] = {}
    for view in contract.on_demand:
        names = [column_name(view.name, feature.name) for feature in view.features]
        different = {
            name: ~equal[name].close | (served.statuses[name] != offline.statuses[name]) for name in names
        }  # an age differs only where that of an input does, which is told there
        found |= on_demand_causes(view, plan, served, given, different=different, stored=stored, equal=equal)
    return found


def compare(contract: FeatureContract, prediction_ids: Sequence[str], served: Scored, offline: Scored) -> Comparison:
    """Compare row by row, by bits: NaN equals NaN, and 0.0 differs from -0.0.

    The cause of a feature is told from event times and values alone; a check that asks the source tells more.
    """
    rows = len(prediction_ids)
    equal = equal_columns(served.frame, offline.frame)
    unequal = differing_rows({name: ~each.same for name, each in equal.items()})
    tensors = rows_differ(served.tensor, offline.tensor)
    outputs = rows_differ(served.output, offline.output)
    causes = _causes_by_times(contract, served.frame, offline.frame, equal)
    views = contract.view_of_column
    found = []
    for row in np.flatnonzero(tensors | outputs | np.isin(np.arange(rows), unequal)).tolist():
        name = next((each for each in views if not equal[each].same[row]), "")
        if name:
            code = int(causes[name][row]) if name in causes else NO_CAUSE
            cause = CAUSES[code] if code < PENDING else Cause.DECLARED_PRECISION
            sides = [shown(frame.columns[name], row) for frame in (served.frame, offline.frame)]
        else:
            cause = Cause.TRANSFORM if tensors[row] else Cause.MODEL
            level = (served.tensor, offline.tensor) if tensors[row] else (served.output, offline.output)
            sides = [str(each[row].tolist()) for each in level]
        found.append(Difference(prediction_ids[row], cause, name, *sides))
    return Comparison(
        rows=rows,
        features_equal=rows - len(unequal),
        tensors_equal=rows - int(tensors.sum()),
        outputs_equal=rows - int(outputs.sum()),
        differences=tuple(found),
    )


def _causes_by_times(
    contract: FeatureContract, served: FeatureFrame, offline: FeatureFrame, equal: Mapping[str, Equality]
) -> dict[str, Codes]:
    """By column, what event times and values alone tell."""
    nowhere = np.zeros(served.rows, dtype=np.bool_)
    state = ViewState(changed=False, written=None, watermark=None, lower_rung=nowhere, under_other_key=nowhere)
    as_of = np.full(served.rows, np.iinfo(np.int64).max, dtype=np.int64)
    without_ttl = replace(contract, views=tuple(replace(view, ttl_us=0) for view in contract.views))
    states = {view.name: state for view in contract.views}
    causes = feature_causes(without_ttl, served, offline, as_of, equal, states=states, versions={})
    every = np.arange(served.rows)
    for view in contract.on_demand:
        inputs = {name: causes[name] for _, name in view.inputs if name in causes}
        for feature in view.features:
            name = column_name(view.name, feature.name)
            causes[name] = np.where(equal[name].same, NO_CAUSE, inherited(inputs, equal, every)).astype(np.uint8)
    return causes


def rows_differ(served: NDArray[np.float32], offline: NDArray[np.float32]) -> Mask:
    """Which rows (rows,) of two matrices (rows, columns) differ in any bit."""
    return np.asarray(np.any(served.view(np.uint32) != offline.view(np.uint32), axis=1), dtype=np.bool_)


def shown(column: Column, row: int) -> str:
    """One value of a column for people: a float by the fewest digits that name it, a time as RFC 3339."""
    if not column.valid[row]:
        return "null"
    if column.values.dtype.hasobject:
        return repr(column.values[row])
    if column.dtype is not Dtype.TIMESTAMP:
        return str(column.values[row])
    try:
        return format_timestamp(int(column.values[row]))
    except OverflowError:  # a moment outside the years 1 to 9999
        return f"{column.values[row]} µs"
