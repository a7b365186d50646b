"""Why computed values differ: on-demand features, model inputs and outputs, each made again of what was served.

What is computed again from the served inputs and comes out as it was served has the inputs' own cause; what comes out
otherwise was computed in another way, which is a cause of its own, whatever is the matter with the inputs.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column
from skewless.features.contract import OnDemandView, column_name
from skewless.features.frame import FeatureFrame
from skewless.features.on_demand import OnDemandPlan
from skewless.parity.causes import CAUSE_CODE, NO_CAUSE, Cause
from skewless.parity.equality import Equality, Mask, compare_columns
from skewless.parity.evidence import take

Codes = NDArray[np.uint8]


def inherited(of: Mapping[str, Codes], equal: Mapping[str, Equality], rows: NDArray[np.int64]) -> Codes:
    """The cause (chosen,) that rows have from columns they were computed from: the first of them in precedence.

    Where no column differs, one that differs within its tolerance is the reason; where none does, it is not known.
    """
    codes = np.full(len(rows), NO_CAUSE, dtype=np.uint8)
    close = np.zeros(len(rows), dtype=np.bool_)
    for name, causes in of.items():
        codes = np.minimum(codes, causes[rows])
        if name in equal:
            close |= ~equal[name].same[rows]
    nothing = codes == NO_CAUSE
    codes[nothing & close] = CAUSE_CODE[Cause.DECLARED_PRECISION]
    codes[nothing & ~close] = CAUSE_CODE[Cause.UNKNOWN]
    return codes


def on_demand_causes(
    view: OnDemandView,
    plan: OnDemandPlan,
    served: FeatureFrame,
    given: Mapping[str, Column],
    *,
    different: Mapping[str, Mask],
    stored: Mapping[str, Codes],
    equal: Mapping[str, Equality],
) -> dict[str, Codes]:
    """By column of an on-demand view, a cause (rows,) as its code; `stored` are the causes of the stored columns."""
    found = {name: np.full(served.rows, NO_CAUSE, dtype=np.uint8) for name in different}
    rows = np.flatnonzero(np.any(list(different.values()), axis=0)) if different else np.empty(0, dtype=np.int64)
    if not len(rows):
        return found
    again = _again(plan, served, given, rows)
    inputs = {name: stored[name] for _, name in view.inputs if name in stored}
    causes = inherited(inputs, equal, rows)
    for feature in view.features:
        name = column_name(view.name, feature.name)
        reproduced = compare_columns(take(served.columns[name], rows), again.columns[name]).close
        codes = np.where(reproduced, causes, CAUSE_CODE[Cause.ON_DEMAND_CODE])
        found[name][rows] = np.where(different[name][rows], codes, NO_CAUSE)
    return found


def _again(
    plan: OnDemandPlan, served: FeatureFrame, given: Mapping[str, Column], rows: NDArray[np.int64]
) -> FeatureFrame:
    """On-demand features computed once more from the stored features that were served, for some rows."""
    computed = {column_name(each.view.name, one.name) for each in plan.functions for one in each.view.features}
    bare = FeatureFrame(
        len(rows),
        {name: take(column, rows) for name, column in served.columns.items() if name not in computed},
        {name: codes[rows] for name, codes in served.statuses.items() if name not in computed},
        {name: times[rows] for name, times in served.event_times.items()},
    )
    return plan.extend(bare, {name: take(column, rows) for name, column in given.items()})


def made_otherwise(again: Mask, rows: NDArray[np.int64], total: int, inherits: Codes, cause: Cause) -> Codes:
    """Causes (total,) of rows that differ: `cause` where making it again differs, else what they inherit."""
    codes = np.full(total, NO_CAUSE, dtype=np.uint8)
    codes[rows] = np.where(again, CAUSE_CODE[cause], inherits)
    return codes
