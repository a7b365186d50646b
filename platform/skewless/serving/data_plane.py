"""One prediction request from checked columns to its answer, without any transport.

rows     → shares    which bundle answers which rows: one share, all rows, unless the endpoint's traffic is split
columns  → frame     the stored features at `as_of`, read once for all shares that read the same
frame    → tensor    the fitted transform of the share's bundle, float32 (rows, features)
tensor   → outputs   one call to the model backend per share, all at once
outputs  → labels    post-processing
all of it → the prediction log, a batch per share, and only then the answer, in the order of the request

`serving/scoring.py` has the stages of one share. Where a part is away, `serving/ladder.py` says what live answers all
the same. A bundle on trial never costs a caller its answer: where a canary or an arm fails, live answers its rows. A
shadow is asked after the answer, see `serving/shadows.py`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.errors import Unavailable
from skewless.features.frame import FeatureFrame
from skewless.rollout.routes import Role
from skewless.serving.deadline import Deadline
from skewless.serving.frame_rows import frame_at
from skewless.serving.ladder import Ladder
from skewless.serving.ports import FeatureReader, ModelBackend, PredictionLog, RoleObserver
from skewless.serving.records import NORMAL_RUNG, AnsweredBatch
from skewless.serving.request import PredictRequest
from skewless.serving.rungs import lowest
from skewless.serving.scoring import MODEL_BACKEND, Scored, Scoring
from skewless.serving.served_bundle import ServedBundle
from skewless.serving.served_route import ServedRoute, Share
from skewless.serving.shadows import Mirror, Shadows
from skewless.timestamps import Micros

__all__ = ["MODEL_BACKEND", "STAGES", "Answer", "DataPlane"]
STAGES = ("validate", "features", "transform", "model", "log")
"""What a request's time is booked to, in order."""


@dataclass(slots=True)
class Answer:
    """What a request is answered, in the order of its rows, and what was logged for it.

    Not frozen, because making it would take three times as long, and one is made for every request.
    """

    prediction_ids: Sequence[str]
    labels: Sequence[str]
    probabilities: NDArray[np.float32]
    """(rows,) of the positive class."""
    parts: tuple[tuple[AnsweredBatch, ServedBundle], ...]
    """What each bundle answered; receipts are made of them."""
    rung: str
    deadline: Deadline
    """With the time that each stage took, logging included."""


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
        standby: ModelBackend | None = None,
    ) -> None:
        """`observer` is told of split and mirrored traffic alone, `shadows` get what is mirrored.

        `standby` runs models in this process while `backend` is away; None where none is to run here.
        """
        self._scoring = Scoring(features, backend)
        self._ladder = Ladder(self._scoring, standby)
        self._log = log
        self._now = now
        self._new_id = new_id
        self._observer = observer
        self._shadows = shadows

    async def predict(
        self, serving: ServedRoute, request: PredictRequest, *, deadline: Deadline, request_id: str, caller: str = ""
    ) -> Answer:
        """The answer to a checked request, once its record is as safe as the log promises. `caller` is who asks.

        Raises Rejected where a feature's policy refuses, Unavailable where a part is away and the live bundle allows no
        lower rung, DeadlineExceeded where time runs out, InvalidDefinition where the store holds values of another type
        than the bundle declares.
        """
        self._log.refuse_if_full(request.rows)
        options = request.options
        as_of = self._now() if options.as_of is None else options.as_of
        deadline.lap("validate")
        if serving.is_split:
            scored = await self._score_shares(serving, request, as_of, deadline)
        else:
            scored = [await self._ladder.answer(serving.whole, request.columns, request.rows, as_of, deadline)]
        ids = [self._new_id() for _ in range(request.rows)]
        batches = tuple(_batch(each, ids, as_of, serving.endpoint, request_id, caller) for each in scored)
        for batch in batches:
            self._log.append(batch)
        await self._log.commit()
        deadline.lap("log")
        if serving.is_watched:
            self._tell(serving, scored, batches)
        labels, probabilities = _in_order(batches, request.rows)
        parts = tuple((batch, each.share.served) for batch, each in zip(batches, scored, strict=True))
        rung = batches[0].rung if len(batches) == 1 else lowest([each.rung for each in batches])
        return Answer(ids, labels, probabilities, parts, rung, deadline)

    async def _score_shares(
        self, serving: ServedRoute, request: PredictRequest, as_of: int, deadline: Deadline
    ) -> list[Scored]:
        """Every row of a split request scored; rows that a candidate could not score, by live."""
        shares = serving.shares(request.columns, request.rows)
        frames = await self._frames(serving, shares, request, as_of, deadline)
        if len(shares) == 1:
            results = [await _caught(self._score_share(shares[0], request, frames[0], as_of, deadline))]
        else:
            branches = [deadline.branch() for _ in shares]
            shared = zip(shares, frames, branches, strict=True)
            results = await asyncio.gather(
                *(_caught(self._score_share(share, request, frame, as_of, branch)) for share, frame, branch in shared)
            )
            deadline.join(branches)
        scored = [each for each in results if not isinstance(each, Exception)]
        failed = [
            (share, result) for share, result in zip(shares, results, strict=True) if isinstance(result, Exception)
        ]
        if not failed:
            return scored
        lost = _lost(serving, [share for share, _ in failed], request.rows)
        if all(share.role is not Role.LIVE for share, _ in failed):
            columns, rows = lost.columns(request.columns), _rows_of(lost, request.rows)
            answered = await _caught(self._ladder.answer(lost, columns, rows, as_of, deadline))
            if isinstance(answered, Scored):
                scored.append(answered)
            else:
                failed.append((lost, answered))
        self._blame(serving, failed, scored, request.rows)
        return scored

    def _blame(
        self,
        serving: ServedRoute,
        failed: Sequence[tuple[Share, Exception]],
        scored: Sequence[Scored],
        rows: int,
    ) -> None:
        """Tell who failed, and raise what live itself raised.

        Where live had to be answered on a lower rung, what is away is away for all: no candidate is blamed for it.
        """
        if not any(each.rung != NORMAL_RUNG for each in scored if each.share.role is Role.LIVE):
            for share, error in failed:
                self._observer.failed(
                    serving.endpoint,
                    share.role,
                    share.arm,
                    share.served.digest,
                    rows=_rows_of(share, rows),
                    error=error,
                )
        for share, error in failed:
            if share.role is Role.LIVE:
                raise error

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
            try:
                frame = await self._scoring.read(serving.live, request.columns, request.rows, as_of, deadline)
            except Unavailable as error:
                return [error] * len(shares)
            return [frame if share.rows is None else frame_at(frame, share.rows) for share in shares]
        return await asyncio.gather(
            *(
                self._scoring.read_share(
                    share, share.columns(request.columns), _rows_of(share, request.rows), as_of, deadline
                )
                for share in shares
            ),
            return_exceptions=True,
        )

    async def _score_share(
        self,
        share: Share,
        request: PredictRequest,
        read: FeatureFrame | BaseException,
        as_of: int,
        deadline: Deadline,
    ) -> Scored:
        """A share as its bundle scores it; live's goes down the ladder where it has to."""
        columns = share.columns(request.columns)
        if share.role is Role.LIVE and isinstance(read, FeatureFrame | Unavailable):
            return await self._ladder.answer(share, columns, _rows_of(share, request.rows), as_of, deadline, read)
        if isinstance(read, BaseException):
            raise read
        return await self._scoring.score(share, columns, read, deadline)

    def _tell(self, serving: ServedRoute, scored: Sequence[Scored], batches: Sequence[AnsweredBatch]) -> None:
        """Count what each role did, and hand what live answered to the shadow. What was answered on a lower rung says
        nothing about who answered it."""
        for each, batch in zip(scored, batches, strict=True):
            if batch.rung != NORMAL_RUNG:
                continue
            self._observer.answered(batch, took_ms=each.deadline.total_ms())
            if serving.shadow is not None and each.share.role is Role.LIVE:
                self._shadows.offer(Mirror(serving, batch, each.stored))


async def _caught(scoring: Awaitable[Scored]) -> Scored | Exception:
    """What a share came to. Whatever a bundle on trial raises stays its own: this is its boundary to the caller."""
    try:
        return await scoring
    except Exception as error:  # noqa: BLE001  # the boundary; it is told, and raised again where it is live's
        return error


def _batch(
    scored: Scored, ids: Sequence[str], as_of: int, endpoint: str, request_id: str, caller: str
) -> AnsweredBatch:
    share = scored.share
    return AnsweredBatch(
        endpoint=endpoint,
        bundle=share.served.digest,
        role=share.role,
        rung=scored.rung,
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
        reasons=scored.reasons,
        known_age_s=scored.known_age_s,
        caller=caller,
        marks=share.served.log_marks,
    )


def _rows_of(share: Share, rows: int) -> int:
    """How many of a request's rows are the share's."""
    return rows if share.rows is None else len(share.rows)


def _lost(serving: ServedRoute, shares: Sequence[Share], rows: int) -> Share:
    """The rows of these shares together, as live's."""
    lost = np.sort(np.concatenate([np.arange(rows) if share.rows is None else share.rows for share in shares]))
    return Share(serving.live, Role.LIVE, None if len(lost) == rows else lost)


def _in_order(batches: Sequence[AnsweredBatch], rows: int) -> tuple[Sequence[str], NDArray[np.float32]]:
    """Label and probability of every row, in the order of the request."""
    if len(batches) == 1:
        return batches[0].labels, batches[0].probabilities
    labels = [""] * rows
    probabilities = np.empty(rows, dtype=np.float32)
    for batch in batches:
        positions = np.arange(rows) if batch.positions is None else batch.positions
        probabilities[positions] = batch.probabilities
        for position, label in zip(positions.tolist(), batch.labels, strict=True):
            labels[position] = label
    return labels, probabilities
