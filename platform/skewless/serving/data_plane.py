"""One prediction request from checked columns to its answer, without any transport.

rows     → shares    which bundle answers which rows: one share, all rows, unless the endpoint's traffic is split
columns  → frame     the stored features at `as_of`, read once for all shares that read the same
frame    → tensor    the fitted transform of the share's bundle, float32 (rows, features)
tensor   → outputs   one call to the model backend per share, all at once
outputs  → labels    post-processing
all of it → the prediction log, a batch per share, and only then the answer, in the order of the request

A bundle on trial never costs a caller its answer: where a canary or an arm fails, live answers its rows. A shadow is
asked after the answer, see `serving/shadows.py`.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.column_table import beside
from skewless.dtypes import Column
from skewless.errors import Rejected
from skewless.features.frame import FeatureFrame
from skewless.limits import MODEL_TIMEOUT_S, ONLINE_STORE_TIMEOUT_S
from skewless.rollout.routes import Role
from skewless.serving.deadline import Deadline
from skewless.serving.frame_rows import Rows, frame_at
from skewless.serving.ports import FeatureReader, ModelBackend, PredictionLog, RoleObserver
from skewless.serving.receipt import receipt
from skewless.serving.records import NORMAL_RUNG, AnsweredBatch
from skewless.serving.request import PredictRequest
from skewless.serving.served_bundle import ServedBundle
from skewless.serving.served_route import ServedRoute, Share
from skewless.serving.shadows import Mirror, Shadows
from skewless.timestamps import Micros

ONLINE_STORE = "online store"
MODEL_BACKEND = "model backend"
STAGES = ("validate", "features", "transform", "model", "log")
"""What a request's time is booked to, in order."""
_INSTANCE = re.compile(r"(?<=^\$\.instances\[)\d+")


@dataclass(frozen=True, slots=True)
class Answer:
    """The body for the caller, and the batches that were logged for it, one for each share of its rows."""

    body: dict[str, Any]
    batches: tuple[AnsweredBatch, ...]


@dataclass(slots=True)
class _Scored:
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
        observer: RoleObserver,
        shadows: Shadows,
    ) -> None:
        """`observer` is told of split and mirrored traffic alone, `shadows` get what is mirrored."""
        self._features = features
        self._backend = backend
        self._log = log
        self._now = now
        self._new_id = new_id
        self._observer = observer
        self._shadows = shadows

    async def predict(
        self, serving: ServedRoute, request: PredictRequest, *, deadline: Deadline, request_id: str
    ) -> Answer:
        """The answer to a checked request, once its record is as safe as the log promises.

        Raises Rejected where a feature's policy refuses, Unavailable where a part is away, DeadlineExceeded where
        time runs out, InvalidDefinition where the store holds values of another type than the bundle declares.
        """
        options = request.options
        as_of = self._now() if options.as_of is None else options.as_of
        deadline.lap("validate")
        if serving.is_split:
            scored = await self._score_shares(serving, request, as_of, deadline)
        else:
            share = serving.whole
            stored = await self._read(share.served, request.columns, request.rows, as_of, deadline)
            scored = [await self._score(share, request.columns, stored, deadline)]
        ids = [self._new_id() for _ in range(request.rows)]
        batches = tuple(_batch(each, ids, as_of, serving.endpoint, request_id) for each in scored)
        for batch in batches:
            self._log.append(batch)
        await self._log.commit()
        deadline.lap("log")
        if serving.is_watched:
            self._tell(serving, scored, batches)
        return Answer(_body(scored, batches, ids, request, deadline), batches)

    async def _score_shares(
        self, serving: ServedRoute, request: PredictRequest, as_of: int, deadline: Deadline
    ) -> list[_Scored]:
        """Every row of a split request scored; rows that a candidate could not score, by live."""
        shares = serving.shares(request.columns, request.rows)
        frames = await self._frames(serving, shares, request, as_of, deadline)
        if len(shares) == 1:
            results = [await _caught(self._score_if_read(shares[0], request, frames[0], deadline))]
        else:
            branches = [deadline.branch() for _ in shares]
            shared = zip(shares, frames, branches, strict=True)
            results = await asyncio.gather(
                *(_caught(self._score_if_read(share, request, frame, branch)) for share, frame, branch in shared)
            )
            deadline.join(branches)
        scored = [each for each in results if not isinstance(each, Exception)]
        lost = self._lost(serving, shares, results, request.rows)
        if lost is not None:
            columns = lost.columns(request.columns)
            rows = request.rows if lost.rows is None else len(lost.rows)
            stored = await self._read_share(lost, columns, rows, as_of, deadline)
            scored.append(await self._score(lost, columns, stored, deadline))
        return scored

    def _lost(
        self, serving: ServedRoute, shares: Sequence[Share], results: Sequence[_Scored | Exception], rows: int
    ) -> Share | None:
        """The rows that candidates could not score, as live's. Raises what live itself raised."""
        lost: list[Rows] = []
        for share, result in zip(shares, results, strict=True):
            if not isinstance(result, Exception):
                continue
            count = rows if share.rows is None else len(share.rows)
            self._observer.failed(
                serving.endpoint, share.role, share.arm, share.served.digest, rows=count, error=result
            )
            if share.role is Role.LIVE:
                raise result
            lost.append(np.arange(rows) if share.rows is None else share.rows)
        if not lost:
            return None
        all_rows = np.sort(np.concatenate(lost))
        return Share(serving.live, Role.LIVE, None if len(all_rows) == rows else all_rows)

    async def _frames(
        self,
        serving: ServedRoute,
        shares: Sequence[Share],
        request: PredictRequest,
        as_of: int,
        deadline: Deadline,
    ) -> Sequence[FeatureFrame | BaseException]:
        """What each share reads, or why it could not be. Where all read as live does, there is one read for all."""
        if all(share.served.plan is serving.live.plan for share in shares):
            frame = await self._read(serving.live, request.columns, request.rows, as_of, deadline)
            return [frame if share.rows is None else frame_at(frame, share.rows) for share in shares]
        return await asyncio.gather(
            *(
                self._read_share(
                    share,
                    share.columns(request.columns),
                    request.rows if share.rows is None else len(share.rows),
                    as_of,
                    deadline,
                )
                for share in shares
            ),
            return_exceptions=True,
        )

    async def _read_share(
        self, share: Share, columns: Mapping[str, Column], rows: int, as_of: int, deadline: Deadline
    ) -> FeatureFrame:
        """As `_read`; a refusal names the instance by its place in the request, not in the share."""
        try:
            return await self._read(share.served, columns, rows, as_of, deadline)
        except Rejected as rejected:
            if share.rows is None:
                raise
            places = share.rows
            path = _INSTANCE.sub(lambda found: str(places[int(found.group())]), rejected.path)
            raise Rejected(rejected.message, path=path, hint=rejected.hint) from rejected

    async def _read(
        self, served: ServedBundle, columns: Mapping[str, Column], rows: int, as_of: int, deadline: Deadline
    ) -> FeatureFrame:
        allowed_s = deadline.allowance_s(ONLINE_STORE, at_most_s=ONLINE_STORE_TIMEOUT_S)
        return await self._features.read(served.plan, columns, rows, as_of, timeout_s=allowed_s)

    async def _score_if_read(
        self, share: Share, request: PredictRequest, frame: FeatureFrame | BaseException, deadline: Deadline
    ) -> _Scored:
        if isinstance(frame, BaseException):
            raise frame
        return await self._score(share, share.columns(request.columns), frame, deadline)

    async def _score(
        self, share: Share, columns: Mapping[str, Column], stored: FeatureFrame, deadline: Deadline
    ) -> _Scored:
        """Transform and model of one share."""
        served = share.served
        frame = served.on_demand.extend(stored, columns)
        deadline.lap("features")
        tensor = served.transform.apply(beside(columns, frame.columns, frame.rows), frame.rows)
        deadline.lap("transform")
        allowed_s = deadline.allowance_s(MODEL_BACKEND, at_most_s=min(MODEL_TIMEOUT_S, served.call_timeout_s))
        outputs = await self._backend.infer(served.model, served.signature, tensor, timeout_s=allowed_s)
        labels, probabilities = served.post.apply(outputs)
        deadline.lap("model")
        return _Scored(share, columns, stored, frame, tensor, outputs, labels, probabilities, deadline)

    def _tell(self, serving: ServedRoute, scored: Sequence[_Scored], batches: Sequence[AnsweredBatch]) -> None:
        """Count what each role did, and hand what live answered to the shadow."""
        for each, batch in zip(scored, batches, strict=True):
            self._observer.answered(batch, took_ms=each.deadline.total_ms())
            if serving.shadow is not None and each.share.role is Role.LIVE:
                self._shadows.offer(Mirror(serving, batch, each.stored))


async def _caught(scoring: Awaitable[_Scored]) -> _Scored | Exception:
    """What a share came to. Whatever a bundle on trial raises stays its own: this is its boundary to the caller."""
    try:
        return await scoring
    except Exception as error:  # noqa: BLE001  # the boundary; it is told, and raised again where it is live's
        return error


def _batch(scored: _Scored, ids: Sequence[str], as_of: int, endpoint: str, request_id: str) -> AnsweredBatch:
    share = scored.share
    return AnsweredBatch(
        endpoint=endpoint,
        bundle=share.served.digest,
        role=share.role,
        rung=NORMAL_RUNG,
        request_id=request_id,
        as_of=as_of,
        prediction_ids=ids if share.rows is None else [ids[row] for row in share.rows.tolist()],
        key_names=share.served.key_names,
        given=scored.columns,
        frame=scored.frame,
        tensor=scored.tensor,
        outputs=scored.outputs,
        labels=scored.labels,
        probabilities=scored.probabilities,
        # The record keeps the times up to here; the answer's own also tell how long logging took.
        stage_ms=dict(scored.deadline.laps_ms),
        experiment=share.experiment,
        arm=share.arm,
        positions=share.rows,
    )


def _body(
    scored: Sequence[_Scored],
    batches: Sequence[AnsweredBatch],
    ids: Sequence[str],
    request: PredictRequest,
    deadline: Deadline,
) -> dict[str, Any]:
    body: dict[str, Any] = {"predictions": _predictions(batches, request.rows), "prediction_ids": list(ids)}
    answered = [(batch, each.share.served) for batch, each in zip(batches, scored, strict=True)]
    told = receipt(request.options.receipt, answered)
    if told is not None:
        told["timings_ms"] = {stage: round(taken, 3) for stage, taken in deadline.laps_ms.items()} | {
            "total": round(deadline.total_ms(), 3)
        }
        body["receipt"] = told
    return body


def _predictions(batches: Sequence[AnsweredBatch], rows: int) -> list[dict[str, Any]]:
    """Label and probability of every row, in the order of the request."""
    answers = [
        {"label": label, "probability": probability}
        for batch in batches
        for label, probability in zip(batch.labels, batch.probabilities.tolist(), strict=True)
    ]
    if len(batches) == 1:
        return answers
    placed: list[dict[str, Any]] = [{}] * rows
    positions = np.concatenate([np.arange(rows) if each.positions is None else each.positions for each in batches])
    for position, answer in zip(positions.tolist(), answers, strict=True):
        placed[position] = answer
    return placed
