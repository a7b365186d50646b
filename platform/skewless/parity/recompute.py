"""The offline side of a comparison: the same questions answered from the offline store, as training would."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skewless.bundles.bundle import Bundle
from skewless.dtypes import Column
from skewless.features.contract import FeatureContract
from skewless.features.frame import FeatureFrame
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
