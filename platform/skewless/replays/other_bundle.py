"""Scoring recorded traffic with a bundle that did not answer it.

recorded columns ──carried.py──▶ stored features under this bundle's ttl and policies
what nobody recorded ──offline store, point in time at the record's as_of──▶ the rest, where that is allowed
on-demand features ──computed from both──▶ transform ──▶ model ──▶ post-processing ──▶ score, label
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skewless.bundles.bundle import Bundle
from skewless.canonical_json import Digest
from skewless.dtypes import Column
from skewless.errors import InvalidRequest
from skewless.features.contract import FeatureContract, OnDemandView, column_name
from skewless.features.frame import FeatureFrame
from skewless.features.on_demand import Load, OnDemandPlan
from skewless.parity.recompute import PointInTime
from skewless.replays.carried import Carried, CarryPlan, carry, plan_carry, refused_by
from skewless.replays.recheck import RunModel
from skewless.replays.recorded import RecordedRows

REFUSED = "this bundle would have refused the request: a feature's policy is `reject`, or a field must be given"
NOT_RECORDED = (
    "a feature was stale by the ttl of the bundle that answered, so its value was not recorded, and is not stale by"
    " this bundle's"
)
NO_PROBABILITY = "this bundle's model gives no probability for it"


@dataclass(frozen=True, slots=True)
class OtherScores:
    """What a bundle says of rows (rows,); NaN and not positive where `left_out` says why there is no score."""

    scores: NDArray[np.float32]
    positive: NDArray[np.bool_]
    left_out: list[str]


class OtherBundle:
    """A bundle, ready to score what others answered."""

    def __init__(self, bundle: Bundle, run: RunModel, *, load: Load, offline: PointInTime | None = None) -> None:
        """`load` imports the modules of on-demand functions; `offline` fills what was not recorded, None: nothing."""
        self.bundle = bundle
        self._run = run
        self._offline = offline
        self._transform = bundle.transform.prepare()
        contract = bundle.contract
        read = {name for name, _ in bundle.transform.inputs}
        computed = tuple(view for view in contract.on_demand if _columns_of(view) & read)
        self._contract = replace(contract, on_demand=computed)
        self._functions = OnDemandPlan.compile(self._contract, load)
        made = {name for view in contract.on_demand for name in _columns_of(view)}
        self.needed = frozenset(read - made) | {column for view in computed for _, column in view.inputs}
        """Columns of the contract that must be known of a row, none of them computed on demand."""
        self._plans: dict[Digest, CarryPlan] = {}

    def plan(self, recorded_by: Digest, recorded: FeatureContract, not_kept: Mapping[str, str]) -> CarryPlan:
        """What is carried from records of a bundle; made once for each.

        Raises InvalidRequest naming what this bundle reads and neither the records nor the offline store can tell.
        """
        if recorded_by not in self._plans:
            plan = plan_carry(recorded, self.bundle.contract, self.needed, not_kept)
            self._require(recorded_by, recorded, plan, not_kept)
            self._plans[recorded_by] = plan
        return self._plans[recorded_by]

    def score(self, plan: CarryPlan, rows: RecordedRows) -> OtherScores:
        """Score rows of the bundle that the plan is for."""
        carried = carry(plan, rows)
        self._fill(plan, rows, carried)
        frame = FeatureFrame(rows.rows, carried.columns, carried.statuses, carried.event_times)
        columns = self._functions.extend(frame, carried.columns).columns
        tensor = self._transform.apply(columns, rows.rows)
        outputs = self._run(tensor)[self.bundle.post.output]
        finite = np.isfinite(outputs[:, -1])
        scores = np.full(rows.rows, np.nan, dtype=np.float32)
        if finite.any():
            scores[finite] = self.bundle.post.scores({self.bundle.post.output: outputs[finite]})
        not_recorded = np.zeros(rows.rows, dtype=np.bool_)
        for mask in carried.unknown.values():
            not_recorded |= mask
        left_out = _reasons(((carried.refused, REFUSED), (not_recorded, NOT_RECORDED), (~finite, NO_PROBABILITY)))
        scores[np.fromiter(map(bool, left_out), dtype=np.bool_, count=rows.rows)] = np.nan
        return OtherScores(scores, scores >= self.bundle.post.labels.threshold, left_out)

    def _require(
        self, recorded_by: Digest, recorded: FeatureContract, plan: CarryPlan, not_kept: Mapping[str, str]
    ) -> None:
        who = f"bundle {self.bundle.digest[:12]}"
        source = f"the records of bundle {recorded_by[:12]}"
        if plan.lacking_given:
            raise InvalidRequest(
                f"{who} asks callers for {_listed(plan.lacking_given)}, and {source} do not tell it",
                path="--bundle",
                allowed="a bundle whose join keys and request fields were recorded",
                hint="nothing else knows what a caller would have given; choose another bundle or period",
            )
        if plan.lacking and self._offline is None:
            raise InvalidRequest(
                f"{who} reads {_listed(plan.lacking)}, and {source} do not tell it",
                path="--bundle",
                allowed="a bundle whose features were recorded, or --fill offline",
                hint="--fill offline reads them from the offline store, point in time at the moment of each record",
            )
        filled = {key.name: key.dtype for key in self._filled(frozenset(plan.lacking)).join_keys}
        dtypes = dict(recorded.columns)
        lost = {
            name: not_kept.get(name, "the bundle that answered did not ask for it")
            for name, dtype in filled.items()
            if dtypes.get(name) is not dtype or name in not_kept
        }
        if lost:
            raise InvalidRequest(
                f"{who} reads {_listed(plan.lacking)}, which the offline store has by {_listed(lost)}, and {source} do"
                " not tell it",
                path="--fill",
                allowed="features whose join keys were recorded",
            )

    def _filled(self, columns: frozenset[str]) -> FeatureContract:
        """The contract of the stored features that are read offline."""
        views = (
            replace(
                view,
                features=tuple(each for each in view.features if column_name(view.name, each.name) in columns),
            )
            for view in self.bundle.contract.views
        )
        return replace(
            self.bundle.contract, views=tuple(view for view in views if view.features), request_fields=(), on_demand=()
        )

    def _fill(self, plan: CarryPlan, rows: RecordedRows, carried: Carried) -> None:
        """Put what the offline store has in place of what nobody recorded; nothing where there is no offline store."""
        wanted = frozenset(plan.lacking) | carried.unknown.keys()
        if self._offline is None or not wanted:
            return
        contract = self._filled(wanted)
        known: dict[str, Column] = {key.name: rows.columns[key.name] for key in contract.join_keys}
        frame = self._offline.features_at(contract, known, rows.as_of)
        for view in contract.views:
            for feature in view.features:
                name = column_name(view.name, feature.name)
                column, codes = frame.columns[name], frame.statuses[name]
                mask = carried.unknown.pop(name, None)
                if mask is not None:
                    old = carried.columns[name]
                    column = Column(
                        column.dtype,
                        np.where(mask, column.values, old.values),
                        np.where(mask, column.valid, old.valid),
                    )
                    codes = np.where(mask, codes, carried.statuses[name]).astype(np.uint8)
                carried.refused[refused_by(feature, codes)] = True
                carried.columns[name], carried.statuses[name] = column, codes
            carried.event_times.setdefault(view.name, frame.event_times[view.name])


def _columns_of(view: OnDemandView) -> set[str]:
    return {column_name(view.name, feature.name) for feature in view.features}


def _reasons(told: tuple[tuple[NDArray[np.bool_], str], ...]) -> list[str]:
    """The first reason that holds for each row; empty where none does."""
    reasons = [""] * len(told[0][0])
    for mask, reason in reversed(told):
        for row in np.flatnonzero(mask).tolist():
            reasons[row] = reason
    return reasons


def _listed(lacking: Mapping[str, str]) -> str:
    return "; ".join(f"`{name}` ({reason})" for name, reason in lacking.items())
