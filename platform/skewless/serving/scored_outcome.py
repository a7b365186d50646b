"""Outcomes beside the predictions that they are about: what experiments and canaries are judged by."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from skewless.canonical_json import Digest
from skewless.rollout.counts import ArmCounts
from skewless.rollout.role_counts import RoleCounts
from skewless.rollout.routes import Experiment, Role
from skewless.timestamps import Micros


@dataclass(frozen=True, slots=True)
class ScoredOutcome:
    """What turned out for one prediction, and who made it. `predicted_time` is when it was made (µs), by its id."""

    prediction_id: str
    outcome: str
    predicted: str
    role: Role
    bundle: Digest
    experiment: str
    arm: str
    predicted_time: Micros


def arm_counts(experiment: Experiment, outcomes: Iterable[ScoredOutcome]) -> dict[str, ArmCounts]:
    """What the arms of an experiment counted; outcomes of other predictions count nothing."""
    counts = {arm.name: ArmCounts() for arm in experiment.arms}
    for each in outcomes:
        if each.experiment == experiment.name and each.arm in counts:
            value = _number(each.outcome)
            counts[each.arm] += ArmCounts(1, int(each.outcome == experiment.success), value, value * value)
    return counts


def outcome_counts(outcomes: Iterable[ScoredOutcome], *, role: Role, bundle: Digest, since: Micros) -> RoleCounts:
    """Outcomes of what a bundle answered in a role from `since` on (µs); good are those that it predicted."""
    own = [each for each in outcomes if (each.role, each.bundle) == (role, bundle) and each.predicted_time >= since]
    return RoleCounts(outcomes=len(own), good_outcomes=sum(each.outcome == each.predicted for each in own))


def prediction_time(prediction_id: str) -> Micros:
    """When a prediction was made, to the millisecond, which its UUIDv7 begins with.

    >>> prediction_time("00000000-03e8-7000-8000-000000000000")
    1000000
    """
    return Micros(int(prediction_id[:8] + prediction_id[9:13], 16) * 1_000)


def _number(label: str) -> float:
    """A label as a number, 0 where it is none."""
    try:
        value = float(label)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0
