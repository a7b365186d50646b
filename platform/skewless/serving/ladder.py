"""What live answers while a part is away: the rungs that its bundle allows, one after the other, never silently.

    features cannot be read ─▶ as last read, from the near cache ─▶ those that are not known count as missing ─┐
    the model cannot be asked ─▶ the gateway runs it ───────────────────────────────────────────────────────────┤
                                                     the fallback bundle ─▶ the constant ─▶ refused, as it was ◀┘

Features and model each go down their own side, so that both may be degraded at once. What is below is for where a side
has ended. Only live goes down: where a candidate fails, live answers its rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column
from skewless.errors import BundleRefused, Rejected, SkewlessError, Unavailable
from skewless.features.frame import FeatureFrame
from skewless.features.reader import Recalled
from skewless.limits import RETRY_AFTER_S
from skewless.serving.deadline import Deadline
from skewless.serving.ports import ModelBackend
from skewless.serving.rungs import Rung, joined
from skewless.serving.scoring import MODEL_BACKEND, Scored, Scoring, scored, transformed
from skewless.serving.served_bundle import ServedBundle
from skewless.serving.served_route import Share


@dataclass(slots=True)
class _Question:
    """Rows that live has to answer, and what went wrong so far."""

    share: Share
    columns: Mapping[str, Column]
    rows: int
    as_of: int
    deadline: Deadline
    failures: list[Unavailable]

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(each.message for each in self.failures)


@dataclass(frozen=True, slots=True)
class _Known:
    """Features to go on with: read a moment ago, or recalled."""

    frame: FeatureFrame
    rung: Rung = Rung.NORMAL
    age_s: float | None = None


class Ladder:
    """Answers for live, on the best rung there is."""

    def __init__(self, scoring: Scoring, standby: ModelBackend | None) -> None:
        """`standby` runs models in this process; None where nothing does."""
        self._scoring = scoring
        self._standby = standby

    async def answer(
        self,
        share: Share,
        columns: Mapping[str, Column],
        rows: int,
        as_of: int,
        deadline: Deadline,
        read: FeatureFrame | Unavailable | None = None,
    ) -> Scored:
        """A share of live's, scored. `read` is what its features came to where somebody has read them already.

        Raises Rejected where a policy refuses what the store holds; the Unavailable of what is away where no rung is
        left that the bundle allows; DeadlineExceeded where time runs out.
        """
        if read is None:
            try:
                if share.rows is None:
                    read = await self._scoring.read(share.served, columns, rows, as_of, deadline)
                else:
                    read = await self._scoring.read_share(share, columns, rows, as_of, deadline)
            except Unavailable as error:
                read = error
        if isinstance(read, FeatureFrame):
            known = _Known(read)
            question = None
        else:
            question = _Question(share, columns, rows, as_of, deadline, [read])
            found = self._recalled(question)
            if isinstance(found, Recalled):
                return await self._otherwise(question, None, found.read.whole)
            known = found
        served = share.served
        frame, tensor = transformed(served, columns, known.frame, deadline)
        try:
            outputs = await self._scoring.asked(served, tensor, deadline, spares=served.spares)
            result = scored(share, columns, known.frame, frame, tensor, outputs, deadline)  # refuses NaN
        except (Unavailable, BundleRefused) as error:
            question = question or _Question(share, columns, rows, as_of, deadline, [])
            question.failures.append(_of_the_model(error))
            return await self._without_servers(question, known, frame, tensor)
        return result if question is None else _told(result, question, known, Rung.NORMAL)

    def _recalled(self, question: _Question) -> _Known | Recalled:
        """Features to go on with while the store is away; where the bundle allows none, what is known of them."""
        served, degrade = question.share.served, question.share.served.degrade
        recalled = self._recall(served, question, question.columns)
        if recalled.unknown and not degrade.defaults:
            return recalled
        try:
            frame = recalled.read.frame
        except Rejected as rejected:
            question.failures.append(Unavailable("ladder", rejected.message))
            return recalled
        rung = Rung.DEFAULTS if recalled.unknown else Rung.LAST_KNOWN
        return _Known(frame, rung, recalled.age_s)

    def _recall(self, served: ServedBundle, question: _Question, columns: Mapping[str, Column]) -> Recalled:
        return self._scoring.features.recall(
            served.plan, columns, question.rows, question.as_of, age_max_s=served.degrade.last_known_s
        )

    async def _without_servers(
        self, question: _Question, known: _Known, frame: FeatureFrame, tensor: NDArray[np.float32]
    ) -> Scored:
        """The bundle's own model in this process, or what answers in its place."""
        served = question.share.served
        if served.stands_by:
            share, columns, deadline = question.share, question.columns, question.deadline
            try:
                outputs = await self._run_here(served, tensor, deadline)
                result = scored(share, columns, known.frame, frame, tensor, outputs, deadline)
            except (Unavailable, BundleRefused) as error:
                question.failures.append(_of_the_model(error))
            else:
                return _told(result, question, known, Rung.IN_PROCESS)
        return await self._otherwise(question, known, known.frame)

    async def _otherwise(self, question: _Question, known: _Known | None, stored: FeatureFrame) -> Scored:
        """The fallback bundle's answer, or the constant. `known` is None where features are not known well enough.

        Raises the first of what went wrong where the bundle allows neither.
        """
        fallback = question.share.served.fallback
        if fallback is not None:
            try:
                return await self._fallback(fallback, question, known)
            except (Unavailable, BundleRefused, Rejected) as error:
                question.failures.append(_of_the_model(error))
        constant = question.share.served.degrade.constant
        if constant is None:
            raise question.failures[0]
        return _constant(constant, question, stored)

    async def _fallback(self, served: ServedBundle, question: _Question, known: _Known | None) -> Scored:
        """The answer of the bundle that stands in. Its features come as live's came; the model runs in this process."""
        columns = {name: question.columns[name] for name in served.field_names}
        features = await self._features_of(served, question, known, columns)
        share = Share(served, question.share.role, question.share.rows)
        frame, tensor = transformed(served, columns, features.frame, question.deadline)
        outputs = await self._run_here(served, tensor, question.deadline)
        result = scored(share, columns, features.frame, frame, tensor, outputs, question.deadline)
        return _told(result, question, features, Rung.FALLBACK)

    async def _features_of(
        self, served: ServedBundle, question: _Question, known: _Known | None, columns: Mapping[str, Column]
    ) -> _Known:
        if known is not None and served.plan is question.share.served.plan:
            return known
        if known is not None and known.rung is Rung.NORMAL and served.reads_store:
            return _Known(await self._scoring.read(served, columns, question.rows, question.as_of, question.deadline))
        recalled = self._recall(served, question, columns)
        if recalled.unknown and not served.degrade.defaults:
            raise Unavailable("fallback bundle", "its features cannot be read either")
        rung = Rung.DEFAULTS if recalled.unknown else Rung.LAST_KNOWN if served.reads_store else Rung.NORMAL
        return _Known(recalled.read.frame, rung, recalled.age_s if served.reads_store else None)

    async def _run_here(
        self, served: ServedBundle, tensor: NDArray[np.float32], deadline: Deadline
    ) -> dict[str, NDArray[np.float32]]:
        if self._standby is None:
            raise Unavailable(MODEL_BACKEND, "no model runs in this process")
        allowed_s = deadline.allowance_s(MODEL_BACKEND, at_most_s=served.call_timeout_s)
        return await self._standby.infer(served.model, served.signature, tensor, timeout_s=allowed_s)


def _told(result: Scored, question: _Question, known: _Known, model: Rung) -> Scored:
    """The result with its rung and why it is there."""
    return replace(result, rung=joined(known.rung, model), reasons=question.reasons, known_age_s=known.age_s)


def _constant(probability: float, question: _Question, stored: FeatureFrame) -> Scored:
    """The number that the bundle names, for every row. The tensor is what the model would have been asked, so that the
    record replays; its outputs are NaN, because it was not asked."""
    share, deadline = question.share, question.deadline
    served = share.served
    deadline.allowance_s("ladder", at_most_s=1.0)  # whoever has given up is not answered
    frame, tensor = transformed(served, question.columns, stored, deadline)
    outputs = {
        name: np.full((question.rows, columns), np.nan, dtype=np.float32) for name, columns in served.signature.outputs
    }
    probabilities = np.full(question.rows, probability, dtype=np.float32)
    labels = served.post.label_of(probabilities)
    deadline.lap("model")
    return Scored(
        share,
        question.columns,
        stored,
        frame,
        tensor,
        outputs,
        labels,
        probabilities,
        deadline,
        rung=str(Rung.CONSTANT),
        reasons=question.reasons,
    )


def _of_the_model(error: SkewlessError) -> Unavailable:
    """What a failure means to a caller. A backend that answers wrongly is as good as away."""
    if isinstance(error, Unavailable):
        return error
    unavailable = Unavailable(MODEL_BACKEND, error.message, retry_after_s=RETRY_AFTER_S, hint=error.hint)
    unavailable.__cause__ = error
    return unavailable
