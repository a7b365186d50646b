"""What callers of the prediction log hand over: all about one request's answers, outcomes, tallies.

The data plane hands over a whole request at once, as the arrays it already has (`AnsweredBatch`), so that logging
costs a request one append. `log_blocks.py` makes blocks and bytes of it, on the log's own thread. What a row of the
log has at last, column by column, is listed in docs/prediction-log.md.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.canonical_json import Digest
from skewless.dtypes import Column
from skewless.features.frame import FeatureFrame
from skewless.serving.log_privacy import LogMarks
from skewless.serving.role_tally import RoleTally

NORMAL_RUNG = "normal"


@dataclass(slots=True)
class AnsweredBatch:
    """Everything about the rows of one request that one bundle scored. Arrays are shared and never written again.

    Not frozen, because making it would take three times as long, and one is made for every request.

    `given` has a Column (rows,) per join key and request field; `key_names` says which of them are join keys.
    `tensor` is (rows, features); `outputs` has (rows, columns) per model output. `as_of` is in µs.
    """

    endpoint: str
    bundle: Digest
    role: str
    rung: str
    request_id: str
    as_of: int
    prediction_ids: Sequence[str]
    key_names: Sequence[str]
    given: Mapping[str, Column]
    frame: FeatureFrame
    tensor: NDArray[np.float32]
    outputs: Mapping[str, NDArray[np.float32]]
    labels: Sequence[str]
    probabilities: NDArray[np.float32]
    stage_ms: Mapping[str, float]
    experiment: str = ""
    """Empty where the role is no arm of one."""
    arm: str = ""
    """Of the experiment."""
    positions: NDArray[np.intp] | None = None
    """Which rows of the request these are, ascending; None: all of them."""
    twins: Sequence[str] = ()
    """Of a shadow: per row the id of the live prediction that it stands beside."""
    reasons: Sequence[str] = ()
    """Why it was not answered on the normal rung; for the receipt, and not kept in the log."""
    known_age_s: float | None = None
    """How long ago the oldest of the features was read that stand in; None where none do. Not kept in the log."""
    caller: str = ""
    """Who asked: `anonymous`, `key:<name>`, `jwt:<subject>` or `cert:<name>`."""
    marks: LogMarks | None = None
    """What of it must not be kept as it is; None: nothing. The log heeds it and does not keep it."""

    @property
    def rows(self) -> int:
        """Predictions in the batch."""
        return len(self.prediction_ids)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What turned out, for one prediction or for an entity at a moment. Times in µs.

    Either `prediction_id` names the prediction, or `endpoint`, `entity` and `at` say which it was; the others are None.
    """

    prediction_id: str | None
    label: str
    outcome_time: int | None
    """When it turned out; None where the caller did not say."""
    received_time: int
    outcome_id: str = ""
    """A UUIDv7 made at receipt; empty where an older gateway wrote it."""
    endpoint: str | None = None
    entity: str | None = None
    """The join keys as canonical JSON, hashed where the endpoint's contract says so."""
    at: int | None = None
    """The moment that the prediction was asked about."""
    caller: str = ""
    """Who reported it; empty where an older gateway wrote it."""


@dataclass(frozen=True, slots=True)
class TallyBatch:
    """Tallies that one gateway wrote at once, as documents: another version's must not stop a segment's reading."""

    documents: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, tallies: Sequence[RoleTally]) -> "TallyBatch":
        """Tallies as they are kept."""
        return cls(tuple(each.to_json() for each in tallies))


LogEntry = AnsweredBatch | tuple[Outcome, ...] | TallyBatch
"""What is handed over at once: a bundle's part of a request, outcomes that came together, or tallies."""


def entry_rows(entry: LogEntry) -> int:
    """How many records an entry holds."""
    if isinstance(entry, AnsweredBatch):
        return entry.rows
    return len(entry.documents) if isinstance(entry, TallyBatch) else len(entry)


def tensor_digest(row: NDArray[np.float32]) -> str:
    """SHA-256 of one row of model input, over its little-endian float32 bytes."""
    return hashlib.sha256(row.astype("<f4", copy=False).tobytes()).hexdigest()
