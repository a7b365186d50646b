"""Logged predictions as plain arrays: what a replay is given of them, whatever they were read from.

A record keeps what a prediction was made of (join keys, request fields, features with statuses and event times), what
it was (tensor and its digest, outputs, label, probability) and how it came about (role, rung, bundle). A field that
must not be kept is hashed or left out; then the tensor is left out too where it was made of it, never its digest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.canonical_json import Digest
from skewless.dtypes import Column


@dataclass(frozen=True, slots=True)
class RecordedRows:
    """Predictions of one bundle, in some order; everything is (rows,) or one item per row.

    `columns` has the columns of the contract that the record keeps as they were: join keys, request fields,
    `view__feature` after policies. `statuses` are codes per `view__feature`, `event_times` µs per view (-1: no row).
    """

    bundle: Digest
    prediction_ids: Sequence[str]
    as_of: NDArray[np.int64]
    roles: Sequence[str]
    rungs: Sequence[str]
    columns: Mapping[str, Column]
    statuses: Mapping[str, NDArray[np.uint8]]
    event_times: Mapping[str, NDArray[np.int64]]
    tensors: Sequence[bytes | None]
    """Little-endian float32 of each row; None where it was left out."""
    tensor_digests: Sequence[str]
    outputs: Mapping[str, NDArray[np.float32]]
    """(rows, columns) of each output of the model."""
    labels: Sequence[str]
    probabilities: NDArray[np.float32]
    not_kept: Mapping[str, str]
    """Columns of the contract that the record does not hold as they were, and why."""

    @property
    def rows(self) -> int:
        """How many predictions."""
        return len(self.prediction_ids)
