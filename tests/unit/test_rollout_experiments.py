"""Reading an experiment: which arm is best, how surely and at what risk, against closed forms and sampling."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from harness.simulations import paths
from skewless.canonical_json import digest, encode
from skewless.errors import InvalidDefinition
from skewless.rollout.counts import ArmCounts
from skewless.rollout.experiments import LOSS_SHARE_MAX, Measure, read_experiment
from skewless.rollout.posteriors import MeanPosterior, RatePosterior, best_arm, credible_interval
from skewless.rollout.routes import Arm, Experiment, ExperimentKind

A, B, C = (digest(name) for name in "abc")
shapes = st.integers(1, 3_000)


def experiment(names: tuple[str, ...] = ("control", "other"), **changed: Any) -> Experiment:
    arms = tuple(Arm(name, A, 1 / len(names)) for name in names)
    return Experiment("prices", ExperimentKind.AB, arms, 1.0, "bought", **changed)


def second_better(a1: int, b1: int, a2: int, b2: int) -> float:
    """Probability that the second of two Beta variables is larger, in closed form for whole numbers."""
    index = np.arange(a2)
    logs = special.betaln(a1 + index, b1 + b2) - np.log(b2 + index) - special.betaln(1 + index, b2)
    return float(np.exp(logs - special.betaln(a1, b1)).sum())


@settings(deadline=None)
@given(shapes, shapes, shapes, shapes)
def test_of_two_arms_the_better_one_is_as_the_closed_form_says(a1: int, b1: int, a2: int, b2: int) -> None:
    best = best_arm([RatePosterior(a1, b1), RatePosterior(a2, b2)])
    assert best.probabilities[1] == pytest.approx(second_better(a1, b1, a2, b2), abs=1e-7)
    assert sum(best.probabilities) == pytest.approx(1.0, abs=1e-9)


@settings(deadline=None)
@given(shapes, shapes, shapes, shapes)
def test_of_two_arms_the_expected_loss_is_as_the_closed_form_says(a1: int, b1: int, a2: int, b2: int) -> None:
    """E[max(second - first, 0)], by shifting one success into the one or the other."""
    gain = a2 / (a2 + b2) * second_better(a1, b1, a2 + 1, b2) - a1 / (a1 + b1) * second_better(a1 + 1, b1, a2, b2)
    best = best_arm([RatePosterior(a1, b1), RatePosterior(a2, b2)])
    assert best.losses[0] == pytest.approx(gain, abs=1e-7)


@pytest.mark.parametrize(
    "arms",
    [
        [(31, 71), (40, 70), (35, 60), (10, 30)],
        [(1, 1)] * 8,
        [(1, 1_000_001), (3, 1_000_001), (2, 500_000)],
        [(500_001, 500_001), (500_501, 499_501), (1, 2)],
    ],
    ids=["four arms", "nothing known", "hardly any success", "a million outcomes and three"],
)
def test_of_many_arms_the_best_one_is_as_sampling_says(arms: list[tuple[float, float]]) -> None:
    random, count = np.random.default_rng(1), 400_000
    drawn = np.stack([random.beta(a, b, count) for a, b in arms])
    best = best_arm([RatePosterior(a, b) for a, b in arms])
    frequencies = np.bincount(drawn.argmax(axis=0), minlength=len(arms)) / count
    assert best.probabilities == pytest.approx(frequencies.tolist(), abs=5 * 0.5 / count**0.5)
    gaps = drawn.max(axis=0) - drawn
    errors = gaps.std(axis=1) / count**0.5
    for loss, gap, error in zip(best.losses, gaps.mean(axis=1), errors, strict=True):
        assert abs(loss - gap) <= 5 * error + 1e-9


def test_of_normal_arms_the_better_one_is_as_the_closed_form_says() -> None:
    first, second = MeanPosterior(10.0, 0.3), MeanPosterior(10.5, 0.4)
    best = best_arm([first, second])
    spread = (0.3**2 + 0.4**2) ** 0.5
    assert best.probabilities[1] == pytest.approx(stats.norm.cdf(0.5 / spread), abs=1e-9)
    expected = 0.5 * stats.norm.cdf(0.5 / spread) + spread * stats.norm.pdf(0.5 / spread)
    assert best.losses[0] == pytest.approx(expected, abs=1e-9)


def test_posteriors_far_apart_and_of_very_different_widths_are_no_difficulty() -> None:
    best = best_arm([RatePosterior(1e9, 1e9), RatePosterior(2, 2), RatePosterior(1, 1e9)])
    assert best.probabilities == pytest.approx((0.5, 0.5, 0.0), abs=1e-4)
    far = best_arm([MeanPosterior(-1e6, 1e-6), MeanPosterior(1e6, 1e-6)])
    assert far.probabilities == pytest.approx((0.0, 1.0), abs=1e-12)
    assert far.losses == pytest.approx((2e6, 0.0), rel=1e-9, abs=1e-3)


@settings(deadline=None)
@given(shapes, shapes, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_a_credible_interval_is_that_of_the_distribution(a: int, b: int, share: float) -> None:
    low, high = credible_interval(RatePosterior(a, b), share)
    below = stats.beta(a, b).cdf([low, high])
    assert below == pytest.approx([(1 - share) / 2, (1 + share) / 2], abs=1e-3)


def test_a_clear_difference_is_decided_and_told() -> None:
    reading = read_experiment(experiment(), {"control": ArmCounts(5_000, 400), "other": ArmCounts(5_000, 600)})
    assert (reading.best, reading.decided) == ("other", True)
    assert reading.words.startswith("decided: `other` is best with probability 100.0%, with a rate of 0.1202 (0.11")
    assert reading.words.endswith("choosing it gives away 0 in expectation")
    control, other = reading.arms
    assert (control.trials, control.successes, other.successes) == (5_000, 400, 600)
    assert control.low < 0.08 < control.high < other.low < 0.12 < other.high
    assert json.loads(encode(reading.to_json()))["arms"][1]["name"] == "other"


def test_an_unclear_difference_stays_open_and_says_what_would_decide() -> None:
    reading = read_experiment(experiment(), {"control": ArmCounts(300, 30), "other": ArmCounts(300, 33)})
    assert not reading.decided
    assert reading.words.startswith("open: `other` is best with probability ")
    assert reading.words.endswith("and 0.0011 or less would decide")


def test_equal_arms_are_decided_once_a_choice_can_cost_little() -> None:
    """Neither arm is better with any certainty, and it does not matter which one is taken."""
    reading = read_experiment(experiment(), {"control": ArmCounts(10**6, 10**5), "other": ArmCounts(10**6, 10**5)})
    assert reading.decided
    assert reading.arms[0].probability_best == pytest.approx(0.5)


def test_few_outcomes_decide_nothing() -> None:
    reading = read_experiment(experiment(), {"control": ArmCounts(1_000, 10), "other": ArmCounts(99, 99)})
    assert not reading.decided
    assert reading.words == "too early: each arm needs 100 outcomes; `other` has 99"
    assert "`control` has 0, `other` has 0" in read_experiment(experiment(), {}).words


def test_the_least_rate_is_best_where_success_is_not_wanted() -> None:
    counts = {"control": ArmCounts(2_000, 100), "other": ArmCounts(2_000, 300)}
    wanted, unwanted = (read_experiment(experiment(maximise=each), counts) for each in (True, False))
    assert (wanted.best, unwanted.best) == ("other", "control")
    assert unwanted.arms[0].value == wanted.arms[0].value == pytest.approx(101 / 2_002)
    assert unwanted.arms[1].expected_loss == pytest.approx(wanted.arms[0].expected_loss, rel=1e-6)


def test_means_of_numbers_are_compared_where_outcomes_are_numbers() -> None:
    random = np.random.default_rng(3)
    values = {"control": random.normal(20.0, 5.0, 2_000), "other": random.normal(19.0, 5.0, 2_000)}
    counts = {arm: ArmCounts(len(each), 0, float(each.sum()), float((each**2).sum())) for arm, each in values.items()}
    reading = read_experiment(experiment(), counts, measure=Measure.MEAN)
    assert (reading.best, reading.decided) == ("control", True)
    low, high = reading.arms[0].low, reading.arms[0].high
    interval = stats.norm(values["control"].mean(), stats.sem(values["control"])).interval(0.95)
    assert (low, high) == pytest.approx(interval, abs=1e-3)
    assert read_experiment(experiment(maximise=False), counts, measure=Measure.MEAN).best == "other"
    assert "with a mean of 2" in reading.words


def test_means_of_outcomes_that_never_differ_are_known_exactly() -> None:
    counts = {"control": ArmCounts(200, 0, 400.0, 800.0), "other": ArmCounts(200, 0, 200.0, 200.0)}
    reading = read_experiment(experiment(), counts, measure=Measure.MEAN)
    assert reading.best == "control"
    assert reading.arms[0].probability_best == pytest.approx(1.0)


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(InvalidDefinition, match="counts are given for third; experiment `prices` has the arms"):
        read_experiment(experiment(), {"third": ArmCounts(1, 1)})
    with pytest.raises(InvalidDefinition, match="a mean needs 2 outcomes of every arm; an arm has 1"):
        read_experiment(experiment(), {"control": ArmCounts(1)}, measure=Measure.MEAN)
    for wrong in ({"trials": 1, "successes": 2}, {"trials": -1, "successes": -1}, {"trials": 1}, {"trials": "1"}):
        with pytest.raises(InvalidDefinition):
            ArmCounts.from_json(wrong)


def test_counts_add_up_and_read_back() -> None:
    counts = ArmCounts(10, 4, 2.5, 3.0) + ArmCounts(1, 1, -1.0, 1.0)
    assert counts == ArmCounts(11, 5, 1.5, 4.0) == ArmCounts.from_json(json.loads(encode(counts.to_json())))


def test_deciding_by_expected_loss_costs_what_it_promises_at_whatever_moment_it_decides() -> None:
    """Read after every 200 outcomes of each arm until decided, with true rates drawn from the prior itself."""
    random, count = np.random.default_rng(4), paths(60)
    given_away = []
    for _ in range(count):
        rates = random.beta(1, 1, 2)
        counts = {"control": ArmCounts(), "other": ArmCounts()}
        for _ in range(25):
            drawn = random.binomial(200, rates)
            arms = zip(counts, drawn.tolist(), strict=True)
            counts = {arm: counts[arm] + ArmCounts(200, more) for arm, more in arms}
            reading = read_experiment(experiment(), counts)
            if reading.decided:
                break
        chosen = float(rates[0 if reading.best == "control" else 1])
        given_away.append((float(rates.max()) - chosen) / max(chosen, 1e-9))
    assert float(np.mean(given_away)) <= LOSS_SHARE_MAX
