"""Thompson sampling: each arm answers the share of traffic that is the probability of its being the best.

Sampling an arm from the posteriors for every request, as Thompson (1933) has it, gives each arm just these shares; they
are computed instead (`rollout/posteriors.py`), so that the same counts give the same shares, everywhere and without a
seed, and entities stay with their arm until shares move. Outcomes may be late: shares follow what has arrived.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from skewless.rollout.experiments import Tally, arm_tallies, rate_posterior
from skewless.rollout.posteriors import best_arm
from skewless.rollout.routes import Experiment
from skewless.timestamps import SECOND_US

MOVE_MIN = 0.01
"""A change of shares that moves less of the traffic is not worth a new version of the route."""


@dataclass(frozen=True, slots=True)
class FadedCounts:
    """Outcomes of which old ones count for less."""

    trials: float = 0.0
    successes: float = 0.0


def thompson_shares(counts: Mapping[str, Tally], experiment: Experiment) -> dict[str, float]:
    """The share of each of the experiment's arms, summing to 1, none below its `exploration_min`.

    Raises InvalidDefinition for counts of an arm that the experiment lacks.
    """
    tallies: list[Tally] = arm_tallies(experiment, counts, FadedCounts())
    best = best_arm([rate_posterior(each, maximise=experiment.maximise) for each in tallies])
    least = experiment.exploration_min
    free = 1.0 - least * len(tallies)
    return {
        arm.name: least + free * probability
        for arm, probability in zip(experiment.arms, best.probabilities, strict=True)
    }


def moved_share(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """How much of the experiment's traffic changes its arm: the total variation distance of the shares.

    >>> round(moved_share({"a": 0.5, "b": 0.5}, {"a": 0.8, "b": 0.2}), 6)
    0.3
    """
    return sum(abs(after[arm] - before[arm]) for arm in before) / 2


def faded(
    segments: Iterable[tuple[int, Mapping[str, Tally]]], *, now: int, half_life_s: float | None
) -> dict[str, FadedCounts]:
    """Counts by arm in which an outcome counts half after `half_life_s`, and in full where that is None.

    Each segment has a time (µs) and what arrived at that time.
    """
    sums: dict[str, FadedCounts] = {}
    for time, counts in segments:
        age_s = max(now - time, 0) / SECOND_US
        weight = 1.0 if half_life_s is None else 0.5 ** (age_s / half_life_s)
        for arm, tally in counts.items():
            sums[arm] = _plus(sums.get(arm, FadedCounts()), tally, weight)
    return sums


def _plus(sums: FadedCounts, tally: Tally, weight: float) -> FadedCounts:
    return FadedCounts(sums.trials + weight * tally.trials, sums.successes + weight * tally.successes)
