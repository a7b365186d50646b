"""An experiment read from its outcomes: how good each arm is, which is best with what probability, and at what risk.

Bayesian, from a uniform prior. The expected loss of an arm is how much worse than the best arm it is in expectation:
what choosing it now would give away. An experiment is decided when the best arm's loss is too small to matter; that,
unlike a probability of 95 %, bounds what a wrong choice costs. Outcomes are taken for independent of each other.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from skewless.errors import InvalidDefinition
from skewless.rollout.counts import ArmCounts
from skewless.rollout.posteriors import MeanPosterior, Posterior, RatePosterior, best_arm, credible_interval
from skewless.rollout.routes import Experiment

LOSS_SHARE_MAX = 0.01
"""An experiment is decided when choosing the best arm gives away a hundredth of its value or less."""
OUTCOMES_MIN = 100
"""Outcomes of every arm before an experiment is decided: the first few are seldom like the rest."""
CREDIBLE = 0.95
_FLAT = 1e-9
T = TypeVar("T")


class Tally(Protocol):
    """Outcomes of an arm; they need not be whole numbers where old ones count for less."""

    @property
    def trials(self) -> float: ...

    @property
    def successes(self) -> float: ...


class Measure(StrEnum):
    """What of an arm's outcomes is compared."""

    RATE = "rate"
    """The share of outcomes that are the experiment's success."""
    MEAN = "mean"
    """The mean of outcomes that are numbers; for hundreds of outcomes and more, as it is taken for normal."""


@dataclass(frozen=True, slots=True)
class ArmReading:
    """One arm: what was observed, and what is known of its rate (or mean) by it.

    The rate lies between `low` and `high` with probability 0.95. `value` is its expectation, near the observed rate.
    """

    name: str
    trials: int
    successes: int
    value: float
    low: float
    high: float
    probability_best: float
    expected_loss: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True, slots=True)
class ExperimentReading:
    """An experiment as it stands: its arms in order, the name of the one with the least expected loss, a verdict."""

    arms: tuple[ArmReading, ...]
    best: str
    decided: bool
    words: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "arms": [arm.to_json() for arm in self.arms],
            "best": self.best,
            "decided": self.decided,
            "words": self.words,
        }


def read_experiment(
    experiment: Experiment, counts: Mapping[str, ArmCounts], *, measure: Measure = Measure.RATE
) -> ExperimentReading:
    """What the outcomes counted so far say; an arm without counts has none.

    Raises InvalidDefinition for counts of an arm that the experiment lacks.
    """
    tallies = arm_tallies(experiment, counts, ArmCounts())
    posteriors = [_posterior(each, measure) for each in tallies]
    best = best_arm([_better_is_more(each, experiment.maximise) for each in posteriors])
    names = [arm.name for arm in experiment.arms]
    read = zip(names, tallies, posteriors, best.probabilities, best.losses, strict=True)
    arms = tuple(_arm_reading(*each) for each in read)
    chosen = min(arms, key=lambda arm: arm.expected_loss)
    missing = [arm for arm in arms if arm.trials < OUTCOMES_MIN]
    decided = not missing and chosen.expected_loss <= LOSS_SHARE_MAX * abs(chosen.value)
    return ExperimentReading(arms, chosen.name, decided, _words(chosen, missing, measure, decided=decided))


def rate_posterior(tally: Tally, *, maximise: bool) -> RatePosterior:
    """What is known of the rate of success by an arm's outcomes, or where success is to be rare, of failure."""
    more, less = tally.successes, tally.trials - tally.successes
    return RatePosterior(1.0 + more, 1.0 + less) if maximise else RatePosterior(1.0 + less, 1.0 + more)


def arm_tallies(experiment: Experiment, counts: Mapping[str, T], nothing: T) -> list[T]:
    """The counts in the order of the experiment's arms. Raises InvalidDefinition for an arm that it lacks."""
    names = [arm.name for arm in experiment.arms]
    unknown = sorted(set(counts) - set(names))
    if unknown:
        raise InvalidDefinition(
            f"counts are given for {', '.join(unknown)}; experiment `{experiment.name}` has the arms {', '.join(names)}"
        )
    return [counts.get(name, nothing) for name in names]


def _posterior(counts: ArmCounts, measure: Measure) -> Posterior:
    if measure is Measure.RATE:
        return rate_posterior(counts, maximise=True)
    if counts.trials < 2:
        raise InvalidDefinition(f"a mean needs 2 outcomes of every arm; an arm has {counts.trials}")
    mean = counts.total / counts.trials
    variance = max(counts.squares / counts.trials - mean**2, 0.0) * counts.trials / (counts.trials - 1)
    return MeanPosterior(mean, max(math.sqrt(variance / counts.trials), _FLAT * max(abs(mean), 1.0)))


def _better_is_more(posterior: Posterior, maximise: bool) -> Posterior:
    match posterior:
        case RatePosterior(a, b) if not maximise:
            return RatePosterior(b, a)
        case MeanPosterior(mean, deviation) if not maximise:
            return MeanPosterior(-mean, deviation)
    return posterior


def _arm_reading(name: str, counts: ArmCounts, posterior: Posterior, probability: float, loss: float) -> ArmReading:
    low, high = credible_interval(posterior, CREDIBLE)
    return ArmReading(name, counts.trials, counts.successes, posterior.mean, low, high, probability, loss)


def _words(chosen: ArmReading, missing: list[ArmReading], measure: Measure, *, decided: bool) -> str:
    """The reading as a sentence."""
    if missing:
        waiting = ", ".join(f"`{arm.name}` has {arm.trials}" for arm in missing)
        return f"too early: each arm needs {OUTCOMES_MIN} outcomes; {waiting}"
    said = (
        f"`{chosen.name}` is best with probability {chosen.probability_best:.1%}, with a {measure} of "
        f"{chosen.value:.4g} ({chosen.low:.4g} to {chosen.high:.4g}); choosing it gives away "
        f"{chosen.expected_loss:.2g} in expectation"
    )
    allowed = LOSS_SHARE_MAX * abs(chosen.value)
    return f"decided: {said}" if decided else f"open: {said}, and {allowed:.2g} or less would decide"
