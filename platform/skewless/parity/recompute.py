"""The offline side of a comparison: the same questions answered from the offline store, as training would."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skewless.bundles.bundle import Bundle
from skewless.dtypes import Column
from skewless.features.contract import FeatureContract
from skewless.features.frame import STATUS_CODE, FeatureFrame
from skewless.features.function_source import digest_of
from skewless.features.on_demand import Load
from skewless.features.visibility import Status
from skewless.parity.compare import Scored
from skewless.training.learner import Scorer


class PointInTime(Protocol):
    """The offline store as parity needs it."""

    def features_at(
        self, contract: FeatureContract, keys: Mapping[str, Column], as_of: NDArray[np.int64]
    ) -> FeatureFrame:
        """Every stored feature for each row at its `as_of` (µs), by the visibility rule."""
        ...


def recompute(
    bundle: Bundle, offline: PointInTime, score: Scorer, given: Mapping[str, Column], as_of: NDArray[np.int64]
) -> Scored:
    """Features, tensor and output of rows in one batch, from join keys and request fields `given` at `as_of` (µs)."""
    frame = offline.features_at(bundle.contract, given, as_of)
    tensor = bundle.transform.prepare().apply({**given, **frame.columns}, len(as_of))
    return Scored(frame, tensor, score(tensor))


def with_present_functions(contract: FeatureContract, load: Load) -> tuple[FeatureContract, dict[str, str]]:
    """The contract with on-demand functions as they are here, and by view in words which are not as it pins them.

    Raises InvalidDefinition where a function is away.
    """
    views, changed = [], {}
    for view in contract.on_demand:
        present = digest_of(view.function, load)
        if present != view.source_digest:
            changed[view.name] = (
                f"function `{view.function}` has source {present[:12]}… here, "
                f"the bundle pins {view.source_digest[:12]}…"
            )
        views.append(replace(view, source_digest=present))
    return replace(contract, on_demand=tuple(views)), changed


def with_overrides(served: FeatureFrame, offline: FeatureFrame) -> tuple[FeatureFrame, int]:
    """The offline frame with the values that requests gave themselves, and how many those are."""
    override, count = STATUS_CODE[Status.OVERRIDE], 0
    columns, statuses = dict(offline.columns), dict(offline.statuses)
    for name, codes in served.statuses.items():
        rows = codes == override
        if not rows.any():
            continue
        count += int(np.count_nonzero(rows))
        mine, theirs = served.columns[name], offline.columns[name]
        columns[name] = Column(
            mine.dtype, np.where(rows, mine.values, theirs.values), np.where(rows, mine.valid, theirs.valid)
        )
        statuses[name] = np.where(rows, override, statuses[name]).astype(np.uint8)
    if not count:
        return offline, 0
    return replace(offline, columns=columns, statuses=statuses), count
