"""What the data plane needs from the outside. Adapters implement these; the core knows nothing else of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skewless.canonical_json import Digest
from skewless.dtypes import Column
from skewless.features.frame import FeatureFrame
from skewless.features.plan import ReadPlan
from skewless.features.reader import Recalled
from skewless.rollout.routes import Role
from skewless.serving.records import AnsweredBatch, Outcome
from skewless.serving.role_tally import RoleTally


class FeatureReader(Protocol):
    """Reads the stored features of a request, together with those of others that ask at the same moment."""

    async def read(
        self, plan: ReadPlan, keys: Mapping[str, Column], rows: int, as_of: int, *, timeout_s: float
    ) -> FeatureFrame:
        """The features of `rows` entities, given as a Column (rows,) per join key, at `as_of` (µs).

        Raises Rejected where a policy refuses, Unavailable when the store does not answer, DeadlineExceeded when it
        takes longer than `timeout_s`.
        """
        ...

    def recall(
        self, plan: ReadPlan, keys: Mapping[str, Column], rows: int, as_of: int, *, age_max_s: float
    ) -> Recalled:
        """What was last known of the same features, without asking the store; nothing older than `age_max_s`."""
        ...


@dataclass(frozen=True, slots=True)
class ModelSignature:
    """Name, Triton datatype and shape per row of the one input and of the outputs a bundle declares."""

    input_name: str
    input_columns: int
    outputs: tuple[tuple[str, int], ...]
    """(name, columns) of each FP32 output, in order."""


class ModelBackend(Protocol):
    """Runs a loaded model on a batch."""

    async def infer(
        self, model: str, signature: ModelSignature, tensor: NDArray[np.float32], *, timeout_s: float
    ) -> dict[str, NDArray[np.float32]]:
        """Outputs by name, each (rows, columns) float32, for a tensor (rows, input_columns), C-contiguous.

        Raises Unavailable when the backend is away or has no such model, DeadlineExceeded past `timeout_s`.
        """
        ...

    async def ping(self) -> None:
        """Return when the backend answers. Raises Unavailable."""
        ...

    async def load(self, model: str) -> None:
        """Return when the model is loaded and ready. Raises Unavailable, or BundleRefused if it cannot load."""
        ...

    async def unload(self, model: str) -> None: ...

    async def is_ready(self, model: str) -> bool:
        """Whether the model would answer now; False, not an error, while the backend is away."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LogState:
    """How a log does: rows that are in memory only, and why its last flush did not write everything (else empty)."""

    buffered_rows: int = 0
    failure: str = ""


class PredictionLog(Protocol):
    """Keeps every answered prediction and every outcome, each exactly once."""

    def state(self) -> LogState:
        """How it does now."""
        ...

    def refuse_if_full(self, rows: int) -> None:
        """Raise Unavailable where so many rows could not be kept now, before any work is spent on them."""
        ...

    def append(self, batch: AnsweredBatch) -> None:
        """Take the predictions of one request. Never blocks; durable after the next flush.

        Raises Unavailable where there is no room for them; nothing is taken then.
        """
        ...

    def append_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Take outcomes that arrived together. Never blocks; durable after the next flush. Raises as `append`."""
        ...

    def append_tallies(self, tallies: Sequence[RoleTally]) -> None:
        """Take what roles did meanwhile. Never blocks; durable after the next flush, dropped where there is no room."""
        ...

    async def commit(self) -> None:
        """Return when what was appended is as safe as the log promises: at once, or after a flush.

        Raises Unavailable when a flush is due and fails. The entries stay in the log's memory, and are in the log
        once it can be written again, as those of a caller that hung up are.
        """
        ...

    async def close(self) -> None:
        """Flush, and leave the log readable."""
        ...


class RoleObserver(Protocol):
    """Told what the roles of an endpoint do while its traffic is split or mirrored. Must not block or raise."""

    def answered(self, batch: AnsweredBatch, *, took_ms: float) -> None:
        """A role has answered; `took_ms` is from the request's arrival to the role's outputs."""
        ...

    def failed(
        self,
        endpoint: str,
        role: Role,
        arm: str,
        bundle: Digest,
        *,
        rows: int,
        error: Exception,
        beside: Digest | None = None,
    ) -> None:
        """A role could not answer rows; those of a candidate are then answered by live. `beside` is whose answers a
        shadow should have been compared with."""
        ...

    def mirrored(self, shadow: AnsweredBatch, live: AnsweredBatch, rows: NDArray[np.intp]) -> None:
        """A shadow has scored `rows` of what live answered."""
        ...

    def dropped(self, endpoint: str, bundle: Digest, *, rows: int) -> None:
        """Rows were not mirrored, because too many wait already."""
        ...
