"""One part of a parity check: logged predictions of one bundle against the offline store, each mismatch with its cause.

    served     the log's rows of one bundle                                              (rows,)
    then       the offline answer with what was known at each `as_of`                    (rows,)
    finally    the offline answer with all that is known by now                          (rows,)
    versions   the source's rows behind every mismatch, per view
    causes     a code per column, for the tensor and for the output                      (rows,)

A mismatch is between `served` and `then`. Where `then` and `finally` differ, the source changed afterwards, which no
serving system can have known; that is told apart (`later`) and is no mismatch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column
from skewless.features.contract import FeatureContract, ViewRead
from skewless.features.frame import NO_EVENT_TIME, FeatureFrame
from skewless.features.on_demand import OnDemandPlan
from skewless.features.point_in_time import Known
from skewless.parity.causes import CAUSE_CODE, NO_CAUSE, Cause
from skewless.parity.compare import computed_causes, differing_rows, equal_columns, feature_causes, rows_differ
from skewless.parity.computed_causes import Codes, inherited, made_otherwise
from skewless.parity.equality import Equality, Mask
from skewless.parity.evidence import IngestTimes, OfflineAnswers, Versions, Watermark, Written, take
from skewless.parity.hidden import NOTHING_HIDDEN, Hidden
from skewless.parity.recompute import with_overrides
from skewless.parity.stored_causes import ViewState, columns_of, differing
from skewless.serving.records import tensor_digest
from skewless.serving.rungs import Rung
from skewless.training.learner import Scorer
from skewless.transforms import FittedTransform

KeyProbe = Callable[[ViewRead, Mapping[str, Column]], Mask]
"""Given the join keys (asked,) of entities that a view lacks online: which of them it has under other key types."""

_OLDER_FEATURES = (str(Rung.LAST_KNOWN), str(Rung.DEFAULTS))
_NOT_THE_MODEL = (str(Rung.CONSTANT),)


@dataclass(frozen=True, slots=True)
class Served:
    """Logged predictions of one bundle (rows,). `given` holds join keys and request fields; `as_of` is in µs.

    `tensor` is (rows, columns) with zeros where `has_tensor` says that the log kept only its digest; `outputs` is
    (rows, classes).
    """

    prediction_ids: Sequence[str]
    as_of: NDArray[np.int64]
    given: Mapping[str, Column]
    frame: FeatureFrame
    tensor: NDArray[np.float32]
    has_tensor: Mask
    tensor_digests: Sequence[str]
    outputs: NDArray[np.float32]
    rungs: Sequence[str]

    @property
    def rows(self) -> int:
        """Predictions."""
        return len(self.prediction_ids)


@dataclass(frozen=True, slots=True)
class Subject:
    """What predictions are checked against: a bundle's parts, how it is scored here, and what is known of its views.

    `contract` is the bundle's, with on-demand functions as they are here, cut down to what `hidden` leaves. `changed`
    says by view, in words, what is defined otherwise today; `written` has the materializations by view; `ingested`
    knows when ingested rows became visible online, None where nobody does.
    """

    transform: FittedTransform
    contract: FeatureContract
    plan: OnDemandPlan
    score: Scorer
    output_tolerance: float = 0.0
    changed: Mapping[str, str] = field(default_factory=dict)
    written: Mapping[str, Written] = field(default_factory=dict)
    watermarks: Mapping[str, Watermark] = field(default_factory=dict)
    probe: KeyProbe | None = None
    hidden: Hidden = NOTHING_HIDDEN
    ingested: IngestTimes | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """Everything that was found out about some predictions. Arrays are (rows,)."""

    served: Served
    then: FeatureFrame
    equal: Mapping[str, Equality]
    features: Mapping[str, Codes]
    """By column, the cause of its mismatch."""
    tensor: Codes
    output: Codes
    later: Mapping[str, Codes]
    """By stored column, LATE_ROW or RESTATED_ROW where the source changed after the moment asked for."""
    finally_equal: Mapping[str, Mask]
    """By column, whether the served value equals what is finally known."""
    tensor_same: Mask
    output_same: Mask
    judged: Mask
    """Whether model input and output are compared: not where the log hides what they were made of."""
    versions: Mapping[str, Versions | None]
    overrides: int
    """Values that requests gave themselves; they are not compared."""


def check_rows(subject: Subject, served: Served, offline: OfflineAnswers) -> Checked:
    """Compare the predictions with the offline store and name a cause for each mismatch."""
    contract, hidden = subject.contract, subject.hidden
    raw = offline.features_at(served.given, served.as_of, Known.THEN)
    then, overrides = with_overrides(served.frame, hidden.as_logged(raw))
    raw_final = offline.features_at(served.given, served.as_of, Known.FINALLY)
    final, _ = with_overrides(served.frame, hidden.as_logged(raw_final))
    equal = equal_columns(served.frame, then)
    versions = _versions(subject, served, then, equal, offline)
    states = {view.name: _state(subject, view, served, then) for view in contract.views}
    causes = feature_causes(contract, served.frame, then, served.as_of, equal, states=states, versions=versions)
    causes |= computed_causes(contract, subject.plan, served.frame, then, served.given, equal, causes)
    judged = hidden.judged(served.frame)
    if judged.any():
        known = _Inputs(served.given, hidden.as_served(served.frame.columns, raw), _hash_differs(hidden, equal, served))
        offline_tensor = _apply(subject, {**served.given, **hidden.as_served(then.columns, raw)}, served.rows)
        tensor_same, tensor = _tensor_causes(subject, served, known, offline_tensor, causes, equal)
        output_same, output = _output_causes(subject, served, known, offline_tensor, {**causes, "": tensor}, equal)
        tensor[~judged], output[~judged] = NO_CAUSE, NO_CAUSE
    else:
        tensor_same = output_same = np.zeros(served.rows, dtype=np.bool_)
        tensor = output = np.full(served.rows, NO_CAUSE, dtype=np.uint8)
    return Checked(
        served=served,
        then=then,
        equal=equal,
        features=causes,
        tensor=tensor,
        output=output,
        later=_known_later(contract, then, final),
        finally_equal={name: each.close for name, each in equal_columns(served.frame, final).items()},
        tensor_same=tensor_same,
        output_same=output_same,
        judged=judged,
        versions=versions,
        overrides=overrides,
    )


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What a model input is made of, as it was served; `unsure` (rows,) where a hash says that it was another value."""

    given: Mapping[str, Column]
    features: Mapping[str, Column]
    unsure: Mask

    def at(self, rows: NDArray[np.intp]) -> dict[str, Column]:
        return {name: take(column, rows) for name, column in {**self.given, **self.features}.items()}


def _hash_differs(hidden: Hidden, equal: Mapping[str, Equality], served: Served) -> Mask:
    found = np.zeros(served.rows, dtype=np.bool_)
    for name in hidden.hashed:
        found |= ~equal[name].same
    return found


def _versions(
    subject: Subject,
    served: Served,
    then: FeatureFrame,
    equal: Mapping[str, Equality],
    offline: OfflineAnswers,
) -> dict[str, Versions | None]:
    """The source's rows at both event times of every row that differs, by view; None where none does."""
    found: dict[str, Versions | None] = {}
    for view in subject.contract.views:
        rows = differing_rows(differing(view, served.frame, then, equal))
        if not len(rows):
            found[view.name] = None
            continue
        times = [frame.event_times[view.name][rows] for frame in (served.frame, then)]
        asked, moments = np.tile(rows, 2), np.concatenate(times)
        there = moments != NO_EVENT_TIME
        versions = offline.versions(view, served.given, asked[there], moments[there])
        found[view.name] = subject.hidden.versions_as_logged(view.name, versions)
    return found


def _state(subject: Subject, view: ViewRead, served: Served, then: FeatureFrame) -> ViewState:
    return ViewState(
        changed=view.name in subject.changed,
        written=subject.written.get(view.name),
        watermark=subject.watermarks.get(view.name),
        lower_rung=_on_rungs(served, _OLDER_FEATURES),
        under_other_key=_under_other_key(subject, view, served, then),
        ingested=subject.ingested,
    )


def _on_rungs(served: Served, names: Sequence[str]) -> Mask:
    found = [any(part in names for part in rung.split("+")) for rung in served.rungs]
    return np.array(found, dtype=np.bool_)


def _under_other_key(subject: Subject, view: ViewRead, served: Served, then: FeatureFrame) -> Mask:
    """Rows (rows,) whose entity is missing online and found there under another type of key."""
    found = np.zeros(served.rows, dtype=np.bool_)
    absent = served.frame.event_times[view.name] == NO_EVENT_TIME
    rows = np.flatnonzero(absent & (then.event_times[view.name] != NO_EVENT_TIME))
    if subject.probe is not None and len(rows) and view.join_keys:
        found[rows] = subject.probe(view, {key.name: take(served.given[key.name], rows) for key in view.join_keys})
    return found


def _tensor_causes(
    subject: Subject,
    served: Served,
    inputs: _Inputs,
    offline: NDArray[np.float32],
    causes: Mapping[str, Codes],
    equal: Mapping[str, Equality],
) -> tuple[Mask, Codes]:
    """Where the model input is the offline one to the bit, and a cause where it is not."""
    same = _same_tensors(served, np.arange(served.rows), offline)
    rows = np.flatnonzero(~same)
    again = _apply(subject, inputs.at(rows), len(rows))
    otherwise = ~_same_tensors(served, rows, again) & ~inputs.unsure[rows]
    return same, made_otherwise(otherwise, rows, served.rows, inherited(causes, equal, rows), Cause.TRANSFORM)


def _apply(subject: Subject, columns: Mapping[str, Column], rows: int) -> NDArray[np.float32]:
    """The bundle's model input (rows, columns)."""
    return subject.transform.prepare().apply(columns, rows)


def _same_tensors(served: Served, rows: NDArray[np.intp], tensor: NDArray[np.float32]) -> Mask:
    """Whether a tensor (chosen, columns) has the served bits of the rows, by its digest where only that was kept."""
    same = np.zeros(len(rows), dtype=np.bool_)
    kept = served.has_tensor[rows]
    if kept.any():  # where none was kept, nobody knows how wide they were
        same[kept] = ~rows_differ(served.tensor[rows[kept]], tensor[kept])
    for place in np.flatnonzero(~kept).tolist():
        same[place] = tensor_digest(tensor[place]) == served.tensor_digests[int(rows[place])]
    return same


def _output_causes(
    subject: Subject,
    served: Served,
    known: _Inputs,
    tensor: NDArray[np.float32],
    causes: Mapping[str, Codes],
    equal: Mapping[str, Equality],
) -> tuple[Mask, Codes]:
    """Where the model output is the offline one within the bundle's tolerance, and a cause where it is not.

    `tensor` is the offline model input; `causes` holds those of the served one as well.
    """
    same = _same_outputs(served.outputs, subject.score(tensor), subject.output_tolerance)
    rows = np.flatnonzero(~same)
    inputs = _apply(subject, known.at(rows), len(rows))
    kept = served.has_tensor[rows]
    if kept.any():
        inputs[kept] = served.tensor[rows[kept]]
    otherwise = ~_same_outputs(served.outputs[rows], subject.score(inputs), subject.output_tolerance)
    otherwise &= kept | ~known.unsure[rows]
    codes = made_otherwise(otherwise, rows, served.rows, inherited(causes, equal, rows), Cause.MODEL)
    constant = _on_rungs(served, _NOT_THE_MODEL)
    codes[constant & (codes != NO_CAUSE)] = CAUSE_CODE[Cause.STALE_SERVING]
    return same, codes


def _same_outputs(one: NDArray[np.float32], other: NDArray[np.float32], tolerance: float) -> Mask:
    bits = one.view(np.uint32) == other.view(np.uint32)
    if tolerance:
        bits |= np.abs(one - other) <= tolerance
    return np.asarray(np.all(bits, axis=1), dtype=np.bool_)


def _known_later(contract: FeatureContract, then: FeatureFrame, final: FeatureFrame) -> dict[str, Codes]:
    """By stored column, what became known only after the moment asked for: a late row, or another version of it."""
    equal = equal_columns(then, final)
    found = {}
    for view in contract.views:
        aged = then.event_times[view.name] != final.event_times[view.name]
        cause = np.where(aged, CAUSE_CODE[Cause.LATE_ROW], CAUSE_CODE[Cause.RESTATED_ROW])
        for name in columns_of(view):
            found[name] = np.where(aged | ~equal[name].close, cause, NO_CAUSE).astype(np.uint8)
    return found
