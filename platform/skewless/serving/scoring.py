"""How a bundle scores rows while everything is well: read, transform, call, post-process. Raises where anything is not.

What happens then is decided by `ladder.py` for live, and by live's answering for everybody else.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.column_table import beside
from skewless.dtypes import Column
from skewless.errors import Rejected
from skewless.features.frame import FeatureFrame
from skewless.limits import ONLINE_STORE_TIMEOUT_S
from skewless.serving.deadline import Deadline
from skewless.serving.ports import FeatureReader, ModelBackend
from skewless.serving.records import NORMAL_RUNG
from skewless.serving.served_bundle import ServedBundle
from skewless.serving.served_route import Share

ONLINE_STORE = "online store"
MODEL_BACKEND = "model backend"
SPARE_SHARE = 0.2
SPARE_MAX_S = 0.05
"""Of the time that is left, so much is kept for a lower rung where there is one; it takes a few milliseconds."""
_INSTANCE = re.compile(r"(?<=^\$\.instances\[)\d+")


@dataclass(slots=True)
class Scored:
    """A share and all that its bundle made of it. `stored` is the frame as it was read, without on-demand features.

    Not frozen, because making it would take three times as long, and one is made for every request.
    """

    share: Share
    columns: Mapping[str, Column]
    stored: FeatureFrame
    frame: FeatureFrame
    tensor: NDArray[np.float32]
    outputs: Mapping[str, NDArray[np.float32]]
    labels: Sequence[str]
    probabilities: NDArray[np.float32]
    deadline: Deadline
    rung: str = NORMAL_RUNG
    reasons: Sequence[str] = ()
    """Why it was not answered normally."""
    known_age_s: float | None = None
    """How long ago the oldest of the features was read that stand in; None where none do."""


class Scoring:
    """Reads features and asks models, for whoever scores."""

    def __init__(self, features: FeatureReader, backend: ModelBackend) -> None:
        self.features = features
        self._backend = backend

    async def read(
        self, served: ServedBundle, columns: Mapping[str, Column], rows: int, as_of: int, deadline: Deadline
    ) -> FeatureFrame:
        """The stored features of rows. Raises as `FeatureReader.read`, DeadlineExceeded also before it is called."""
        needs = served.needs
        started_ns = deadline.now_ns()
        allowed_s = deadline.allowance_s(
            ONLINE_STORE, at_most_s=ONLINE_STORE_TIMEOUT_S, needs_s=needs.before_read_s(started_ns)
        )
        if served.degrade.goes_on_without_features:
            allowed_s -= _spare_s(allowed_s)
        frame = await self.features.read(served.plan, columns, rows, as_of, timeout_s=allowed_s)
        now_ns = deadline.now_ns()
        needs.read.learn(now_ns - started_ns, now_ns=now_ns)
        return frame

    async def read_share(
        self, share: Share, columns: Mapping[str, Column], rows: int, as_of: int, deadline: Deadline
    ) -> FeatureFrame:
        """As `read`; a refusal names the instance by its place in the request, not in the share."""
        try:
            return await self.read(share.served, columns, rows, as_of, deadline)
        except Rejected as rejected:
            if share.rows is None:
                raise
            places = share.rows
            path = _INSTANCE.sub(lambda found: str(places[int(found.group())]), rejected.path)
            raise Rejected(rejected.message, path=path, hint=rejected.hint) from rejected

    async def score(
        self, share: Share, columns: Mapping[str, Column], stored: FeatureFrame, deadline: Deadline
    ) -> Scored:
        """Transform and model of one share. Raises as `ModelBackend.infer`, BundleRefused also for a wrong answer."""
        frame, tensor = transformed(share.served, columns, stored, deadline)
        outputs = await self.asked(share.served, tensor, deadline)
        return scored(share, columns, stored, frame, tensor, outputs, deadline)

    async def asked(
        self, served: ServedBundle, tensor: NDArray[np.float32], deadline: Deadline, *, spares: bool = False
    ) -> dict[str, NDArray[np.float32]]:
        """The model's outputs; where it `spares`, it leaves time for somebody else to answer."""
        needs = served.needs
        started_ns = deadline.now_ns()
        allowed_s = deadline.allowance_s(
            MODEL_BACKEND, at_most_s=served.call_timeout_s, needs_s=needs.before_call_s(started_ns)
        )
        if spares:
            allowed_s -= _spare_s(allowed_s)
        outputs = await self._backend.infer(served.model, served.signature, tensor, timeout_s=allowed_s)
        now_ns = deadline.now_ns()
        needs.call.learn(now_ns - started_ns, now_ns=now_ns)
        return outputs


def transformed(
    served: ServedBundle, columns: Mapping[str, Column], stored: FeatureFrame, deadline: Deadline
) -> tuple[FeatureFrame, NDArray[np.float32]]:
    """The frame with what is computed on demand, and the model's input (rows, columns)."""
    frame = served.on_demand.extend(stored, columns)
    deadline.lap("features")
    tensor = served.transform.apply(beside(columns, frame.columns, frame.rows), frame.rows)
    deadline.lap("transform")
    return frame, tensor


def scored(
    share: Share,
    columns: Mapping[str, Column],
    stored: FeatureFrame,
    frame: FeatureFrame,
    tensor: NDArray[np.float32],
    outputs: Mapping[str, NDArray[np.float32]],
    deadline: Deadline,
) -> Scored:
    """What callers are told of a model's outputs."""
    labels, probabilities = share.served.post.apply(outputs)
    deadline.lap("model")
    return Scored(share, columns, stored, frame, tensor, outputs, labels, probabilities, deadline)


def _spare_s(allowed_s: float) -> float:
    return min(SPARE_MAX_S, SPARE_SHARE * allowed_s)
