"""The account of one logged prediction, as plain data: who asked, what was read, what it was computed to, and whether
that is what comes out today."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.bundles.bundle import Bundle
from skewless.features.contract import Action, FeatureContract, FeatureField, Policy, column_name
from skewless.features.visibility import Status, is_stale
from skewless.replays.recheck import Bound, Difference, Recheck, Verdict
from skewless.replays.recorded import RecordedRows
from skewless.serving.rungs import Rung
from skewless.serving.scored_outcome import prediction_time
from skewless.timestamps import Micros, format_timestamp
from skewless.transforms import FittedTransform
from skewless.transforms.description import describe

RUNG_MEANINGS: Mapping[str, str] = {
    Rung.NORMAL: "features as stored, the model on its servers",
    Rung.IN_PROCESS: "the gateway ran the model itself",
    Rung.LAST_KNOWN: "features as the gateway last read them",
    Rung.DEFAULTS: "features that could not be read counted as missing",
    Rung.FALLBACK: "another bundle answered, the one that live names",
    Rung.CONSTANT: "a fixed probability; no model was asked",
}
_FEEDS_TOLD = 4


@dataclass(frozen=True, slots=True)
class RecordedValue:
    """One value of a record as JSON can hold it. `kind` is `join key`, `request field` or `feature`.

    `status` is empty for what is no feature; `event_time` (µs) None where there is none.
    """

    kind: str
    name: str
    value: object
    status: str = ""
    event_time: int | None = None


@dataclass(frozen=True, slots=True)
class RecordedFacts:
    """What a record says about how a prediction came about. Times in µs; None and empty: not recorded."""

    prediction_id: str
    as_of: int
    endpoint: str
    bundle: str
    role: str
    experiment: str | None
    arm: str | None
    live_prediction_id: str | None
    rung: str
    caller: str | None
    request_id: str
    row: int
    label: str
    probability: float
    tensor_digest: str
    tensor_kept: bool
    stage_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class OutcomeTold:
    """What turned out. Times as RFC 3339; `outcome_time` None where the caller did not say."""

    label: str
    outcome_time: str | None
    received_time: str


@dataclass(frozen=True, slots=True)
class ValueTold:
    """One value that the prediction was made of. `age_s` is the age of its row at `as_of`; `filled_by` the policy that
    filled it; `feeds` the transform's outputs that read it; `note` why the value is not shown as it was."""

    kind: str
    name: str
    value: object
    status: str
    age_s: float | None
    event_time: str | None
    filled_by: str
    feeds: tuple[str, ...]
    note: str


@dataclass(frozen=True, slots=True)
class OutputTold:
    """One output of the model. `recomputed` and `difference` (the largest) are None where it was not run."""

    name: str
    served: list[object]
    recomputed: list[object] | None
    difference: float | None


@dataclass(frozen=True, slots=True)
class Account:
    """Everything about one prediction; see `to_json`. `model_*` facts are empty where the bundle is gone."""

    facts: RecordedFacts
    model_name: str
    model_trained: str
    values: tuple[ValueTold, ...]
    transform_digest: str
    tensor_columns: int
    tensor_recomputed: str
    outputs: tuple[OutputTold, ...]
    label_recomputed: str
    probability_recomputed: float | None
    bound: str
    outcome: OutcomeTold | None
    verdict: Verdict
    not_decided: str
    difference: Difference | None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        facts = self.facts
        return {
            "prediction_id": facts.prediction_id,
            "verdict": str(self.verdict),
            "equal": self.verdict in (Verdict.EXACT, Verdict.WITHIN_BOUND),
            "not_decided": self.not_decided or None,
            "difference": None if self.difference is None else self.difference.to_json(),
            "asked": {
                "as_of": format_timestamp(facts.as_of),
                "answered": answered_time(facts.prediction_id),
                "caller": facts.caller,
                "request_id": facts.request_id,
                "row": facts.row,
                "stage_ms": dict(facts.stage_ms),
            },
            "route": {
                "endpoint": facts.endpoint,
                "role": facts.role,
                "experiment": facts.experiment,
                "arm": facts.arm,
                "live_prediction_id": facts.live_prediction_id,
                "rung": facts.rung,
                "rung_meaning": rung_meaning(facts.rung),
            },
            "bundle": {
                "digest": facts.bundle,
                "name": self.model_name or None,
                "trained": self.model_trained or None,
            },
            "values": [{**asdict(each), "feeds": list(each.feeds)} for each in self.values],
            "transform": {"digest": self.transform_digest or None, "columns": self.tensor_columns},
            "tensor": {
                "served": facts.tensor_digest,
                "recomputed": self.tensor_recomputed or None,
                "kept": facts.tensor_kept,
            },
            "outputs": [asdict(each) for each in self.outputs],
            "answer": {
                "served": {"label": facts.label, "probability": facts.probability},
                "recomputed": None
                if self.probability_recomputed is None
                else {"label": self.label_recomputed, "probability": self.probability_recomputed},
            },
            "bound": self.bound or None,
            "outcome": None if self.outcome is None else asdict(self.outcome),
        }


def account_of(
    facts: RecordedFacts,
    values: Sequence[RecordedValue],
    outcome: OutcomeTold | None,
    bundle: Bundle,
    recorded: RecordedRows,
    found: Recheck,
    bound: Bound,
) -> Account:
    """The account of a prediction whose bundle is there; `recorded` and `found` are of its one row."""
    probability = float(found.probabilities[0]) if found.outputs else None
    return Account(
        facts=facts,
        model_name=bundle.name,
        model_trained=_trained(bundle.provenance),
        values=tuple(_value_told(each, facts, bundle, recorded.not_kept) for each in values),
        transform_digest=bundle.transform.digest,
        tensor_columns=len(bundle.transform.output_names),
        tensor_recomputed=found.digests[0] if found.digests else "",
        outputs=tuple(_output_told(name, served, found.outputs.get(name)) for name, served in recorded.outputs.items()),
        label_recomputed=found.labels[0] if found.outputs else "",
        probability_recomputed=probability,
        bound=bound.text(),
        outcome=outcome,
        verdict=found.verdicts[0],
        not_decided=found.not_decided,
        difference=next(iter(found.differences), None),
    )


def account_without_bundle(
    facts: RecordedFacts,
    values: Sequence[RecordedValue],
    outcome: OutcomeTold | None,
    outputs: Mapping[str, Sequence[float]],
    reason: str,
) -> Account:
    """The account of a prediction whose bundle is gone, for a reason: what the record says, and nothing recomputed."""
    return Account(
        facts=facts,
        model_name="",
        model_trained="",
        values=tuple(
            ValueTold(
                each.kind,
                each.name,
                each.value,
                each.status,
                _age_s(each.event_time, facts.as_of),
                _time(each.event_time),
                "",
                (),
                "",
            )
            for each in values
        ),
        transform_digest="",
        tensor_columns=0,
        tensor_recomputed="",
        outputs=tuple(OutputTold(name, _numbers(served), None, None) for name, served in outputs.items()),
        label_recomputed="",
        probability_recomputed=None,
        bound="",
        outcome=outcome,
        verdict=Verdict.NOT_DECIDED,
        not_decided=reason,
        difference=None,
    )


def rung_meaning(rung: str) -> str:
    """What was done on a rung, in words.

    >>> rung_meaning("last_known+in_process")
    'features as the gateway last read them; the gateway ran the model itself'
    """
    return "; ".join(RUNG_MEANINGS.get(part, "a rung of another version") for part in rung.split("+"))


def answered_time(prediction_id: str) -> str | None:
    """When a prediction was answered, by its id; None for an id that says no time."""
    try:
        return format_timestamp(prediction_time(prediction_id))
    except (ValueError, OverflowError):
        return None


def feeds(fitted: FittedTransform) -> dict[str, tuple[str, ...]]:
    """By input column, the transform's declared outputs that read it."""
    found: dict[str, list[str]] = {}
    for output in describe(fitted):
        for name, _, _ in output.reads:
            found.setdefault(name, []).append(output.name)
    return {name: tuple(outputs) for name, outputs in found.items()}


def filled_by(feature: FeatureField, event_time: int | None, as_of: int, ttl_us: int) -> str:
    """The policy that gave a value with the status `default`, in words."""
    is_old = event_time is not None and is_stale(event_time=event_time, as_of=as_of, ttl_us=ttl_us)
    name, policy = ("on_stale", feature.on_stale) if is_old else ("on_missing", feature.on_missing)
    return f"{name}={_policy(policy)}"


def _value_told(
    recorded: RecordedValue, facts: RecordedFacts, bundle: Bundle, not_kept: Mapping[str, str]
) -> ValueTold:
    filled = ""
    if recorded.status == Status.DEFAULT:
        feature, ttl_us = _declared(bundle.contract, recorded.name)
        filled = "" if feature is None else filled_by(feature, recorded.event_time, facts.as_of, ttl_us)
    return ValueTold(
        kind=recorded.kind,
        name=recorded.name,
        value=recorded.value,
        status=recorded.status,
        age_s=_age_s(recorded.event_time, facts.as_of),
        event_time=_time(recorded.event_time),
        filled_by=filled,
        feeds=feeds(bundle.transform).get(recorded.name, ()),
        note=not_kept.get(recorded.name, ""),
    )


def _declared(contract: FeatureContract, column: str) -> tuple[FeatureField | None, int]:
    """The feature of a stored column, and the ttl of its view."""
    for view in contract.views:
        for feature in view.features:
            if column_name(view.name, feature.name) == column:
                return feature, view.ttl_us
    return None, 0


def _policy(policy: Policy) -> str:
    return f"{policy.action} {policy.value!r}" if policy.action is Action.DEFAULT else str(policy.action)


def _output_told(name: str, served: NDArray[np.float32], recomputed: NDArray[np.float32] | None) -> OutputTold:
    """Of the first row."""
    if recomputed is None:
        return OutputTold(name, _numbers(served[0].tolist()), None, None)
    apart = np.abs(served[0].astype(np.float64) - recomputed[0])
    largest = float(apart.max()) if np.isfinite(apart).all() else None
    return OutputTold(name, _numbers(served[0].tolist()), _numbers(recomputed[0].tolist()), largest)


def _numbers(values: Sequence[float]) -> list[object]:
    """Numbers as JSON can hold them."""
    return [each if np.isfinite(each) else str(each) for each in values]


def _trained(provenance: Mapping[str, Any]) -> str:
    """On what a bundle was trained, in words; empty where it does not say."""
    training, rows = provenance.get("training"), provenance.get("rows")
    if not isinstance(training, Mapping) or not {"start", "end"} <= training.keys():
        return ""
    counted = f"{rows:,} rows of " if isinstance(rows, int) else ""
    return f"{counted}{training['start']} to {training['end']}"


def _age_s(event_time: int | None, as_of: int) -> float | None:
    return None if event_time is None else (as_of - event_time) / 1_000_000


def _time(moment: int | None) -> str | None:
    return None if moment is None else format_timestamp(Micros(moment))
