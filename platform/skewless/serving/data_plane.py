"""One prediction request from checked columns to its answer, without any transport.

columns  → frame     the stored features at `as_of`: columns, statuses, event times
frame    → tensor    the fitted transform, float32 (rows, features)
tensor   → outputs   one call to the model backend
outputs  → labels    post-processing
all of it → the prediction log, and only then the answer
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from skewless.column_table import beside
from skewless.limits import MODEL_TIMEOUT_S, ONLINE_STORE_TIMEOUT_S
from skewless.serving.deadline import Deadline
from skewless.serving.ports import FeatureReader, ModelBackend, PredictionLog
from skewless.serving.receipt import receipt
from skewless.serving.records import LIVE_ROLE, NORMAL_RUNG, AnsweredBatch
from skewless.serving.request import PredictRequest
from skewless.serving.served_bundle import ServedBundle
from skewless.timestamps import Micros

ONLINE_STORE = "online store"
MODEL_BACKEND = "model backend"
STAGES = ("validate", "features", "transform", "model", "log")
"""What a request's time is booked to, in order."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The body for the caller, and the batch that was logged for it."""

    body: dict[str, Any]
    batch: AnsweredBatch


class DataPlane:
    """Answers requests from an online store and a model backend, and logs every answer."""

    def __init__(
        self,
        features: FeatureReader,
        backend: ModelBackend,
        log: PredictionLog,
        *,
        now: Callable[[], Micros],
        new_id: Callable[[], str],
    ) -> None:
        self._features = features
        self._backend = backend
        self._log = log
        self._now = now
        self._new_id = new_id

    async def predict(
        self, endpoint: str, served: ServedBundle, request: PredictRequest, *, deadline: Deadline, request_id: str
    ) -> Answer:
        """The answer to a checked request, once its record is as safe as the log promises.

        Raises Rejected where a feature's policy refuses, Unavailable where a part is away, DeadlineExceeded where
        time runs out, InvalidDefinition where the store holds values of another type than the bundle declares.
        """
        options = request.options
        as_of = self._now() if options.as_of is None else options.as_of
        deadline.lap("validate")
        allowed_s = deadline.allowance_s(ONLINE_STORE, at_most_s=ONLINE_STORE_TIMEOUT_S)
        frame = await self._features.read(served.plan, request.columns, request.rows, as_of, timeout_s=allowed_s)
        frame = served.on_demand.extend(frame, request.columns)
        deadline.lap("features")
        tensor = served.transform.apply(beside(request.columns, frame.columns, request.rows), request.rows)
        deadline.lap("transform")
        allowed_s = deadline.allowance_s(MODEL_BACKEND, at_most_s=MODEL_TIMEOUT_S)
        outputs = await self._backend.infer(served.model, served.signature, tensor, timeout_s=allowed_s)
        labels, probabilities = served.post_process(outputs)
        deadline.lap("model")
        batch = AnsweredBatch(
            endpoint=endpoint,
            bundle=served.digest,
            role=LIVE_ROLE,
            rung=NORMAL_RUNG,
            request_id=request_id,
            as_of=as_of,
            prediction_ids=[self._new_id() for _ in range(request.rows)],
            key_names=served.key_names,
            given=request.columns,
            frame=frame,
            tensor=tensor,
            outputs=outputs,
            labels=labels,
            probabilities=probabilities,
            # The record keeps the times up to here; the answer's own also tell how long logging took.
            stage_ms=dict(deadline.laps_ms),
        )
        self._log.append(batch)
        await self._log.commit()
        deadline.lap("log")
        return Answer(_body(batch, served, request, deadline), batch)


def _body(batch: AnsweredBatch, served: ServedBundle, request: PredictRequest, deadline: Deadline) -> dict[str, Any]:
    body: dict[str, Any] = {
        "predictions": [
            {"label": label, "probability": probability}
            for label, probability in zip(batch.labels, batch.probabilities.tolist(), strict=True)
        ],
        "prediction_ids": list(batch.prediction_ids),
    }
    told = receipt(request.options.receipt, batch, served)
    if told is not None:
        told["timings_ms"] = {stage: round(taken, 3) for stage, taken in deadline.laps_ms.items()} | {
            "total": round(deadline.total_ms(), 3)
        }
        body["receipt"] = told
    return body
