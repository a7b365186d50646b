"""Confidence sequences: right at every moment at once, and not much wider than an interval for a single look."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from harness.simulations import alarms_max, paths
from skewless.rollout.confidence_sequences import mean_bounds, rate_bounds, rate_low

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Floats]
ALPHA = 0.1
RATE_BETS = [2.0 ** (half / 2) for half in range(-24, 9)]
MEAN_BETS = [2.0 ** (half / 2) for half in range(-26, 0)]


def log_mixture(logs: list[Floats]) -> Floats:
    """The mean over bets of what each has won, as a logarithm, at every moment."""
    total = logs[0]
    for each in logs[1:]:
        total = np.logaddexp(total, each)
    mean: Floats = total - np.log(len(logs))
    return mean


def rate_won(successes: Floats, trials: Floats, rate: Floats | float) -> Floats:
    """What betting on more successes than at `rate` has won at every moment: a martingale where that is the rate."""
    return log_mixture([bet * successes - trials * np.log1p(rate * np.expm1(bet)) for bet in RATE_BETS])


def mean_won(sums: Floats, spread: Floats) -> Floats:
    """What betting on larger values than expected has won; `sums` are of value - expectation, of values of width 1."""
    return log_mixture([bet * sums - (-np.log1p(-bet) - bet) * spread for bet in MEAN_BETS])


def guessed_spread(values: Floats) -> Floats:
    """Sums of (value - mean of the values before)² along the last axis."""
    before = np.cumsum(values, axis=-1) - values
    guesses = before / np.maximum(np.arange(values.shape[-1]), 1)
    return np.cumsum(np.square(values - guesses), axis=-1)


@settings(deadline=None)
@given(st.integers(1, 3_000), st.data(), st.floats(0.001, 0.5))
def test_rate_bounds_are_where_the_bets_have_won(trials: int, data: st.DataObject, alpha: float) -> None:
    successes = data.draw(st.integers(0, trials))
    bounds = rate_bounds(successes, trials, alpha=alpha)
    assert 0.0 <= bounds.low <= successes / trials <= bounds.high <= 1.0
    wanted, count, n = np.log(2.0 / alpha), np.array(float(successes)), np.array(float(trials))
    if bounds.low > 1e-6:
        assert rate_won(count, n, bounds.low * 0.999) > wanted > rate_won(count, n, bounds.low * 1.001 + 1e-9)
    if 1.0 - bounds.high > 1e-6:
        missing = 1.0 - bounds.high
        assert rate_won(n - count, n, missing * 0.999) > wanted > rate_won(n - count, n, missing * 1.001 + 1e-9)


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50), st.floats(0.001, 0.5))
def test_mean_bounds_are_where_the_bets_have_won(values: list[float], alpha: float) -> None:
    given_values = np.array(values)
    spread = float(guessed_spread(given_values)[-1])
    bounds = mean_bounds(len(values), float(given_values.sum()), spread, lowest=-1.0, highest=1.0, alpha=alpha)
    mean = float(given_values.mean())
    assert -1.0 <= bounds.low <= mean + 1e-12
    assert mean - 1e-12 <= bounds.high <= 1.0
    for bound in (bounds.low, bounds.high):
        if abs(bound) < 1.0:
            off = np.array(abs(bound - mean) * len(values) / 2)
            assert float(mean_won(off, np.array(spread / 4))) == pytest.approx(np.log(2.0 / alpha), rel=1e-6)


def test_without_rows_everything_is_possible() -> None:
    assert rate_bounds(0, 0, alpha=0.05) == rate_bounds(0, 0, alpha=0.5)
    assert (rate_bounds(0, 0, alpha=0.05).low, rate_bounds(0, 0, alpha=0.05).high) == (0.0, 1.0)
    nothing = mean_bounds(0, 0.0, 0.0, lowest=-1.0, highest=1.0, alpha=0.05)
    assert (nothing.low, nothing.high) == (-1.0, 1.0)


@pytest.mark.parametrize(
    "rate", [0.001, 0.05, 0.5, "of the hour"], ids=["rare", "seldom", "even", "goes up and down over the day"]
)
def test_a_rate_is_within_its_bounds_at_every_moment(rate: float | str) -> None:
    """Looked at after every one of 3,000 trials. Each side has half of alpha."""
    count, rows = paths(200), 3_000
    random = np.random.default_rng(1)
    hours = 0.1 + 0.09 * np.sin(np.arange(rows) / 300)
    expected = hours if isinstance(rate, str) else np.full(rows, rate)
    successes = np.cumsum(random.random((count, rows)) < expected, axis=1).astype(np.float64)
    trials = np.arange(1.0, rows + 1)
    average = np.cumsum(expected) / trials
    below = (rate_won(successes, trials, average) > np.log(2 / ALPHA)).any(axis=1)
    above = (rate_won(trials - successes, trials, 1.0 - average) > np.log(2 / ALPHA)).any(axis=1)
    assert int((below | above).sum()) <= alarms_max(count, ALPHA)


def skewed(random: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Of mean 0: a little above it nearly always, and far below once in two thousand rows."""
    return np.where(random.random(shape) < 0.0005, -1.0, 0.0005 / 0.9995)


def sparse(random: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Of mean 0: 0 but for one row in a hundred."""
    return np.where(random.random(shape) < 0.01, random.choice([-0.4, 0.4], shape), 0.0)


def small(random: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return np.clip(random.normal(0.0, 0.05, shape), -1.0, 1.0)


def extreme(random: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return random.choice([-1.0, 1.0], shape)


@pytest.mark.parametrize("values_of", [skewed, sparse, small, extreme])
def test_a_mean_is_within_its_bounds_at_every_moment(values_of: Draw) -> None:
    count = paths(200)
    values = values_of(np.random.default_rng(2), (count, 3_000))
    spread, sums = guessed_spread(values / 2), np.cumsum(values / 2, axis=1)
    alarms = [(mean_won(side * sums, spread) > np.log(2 / ALPHA)).any(axis=1) for side in (1.0, -1.0)]
    assert int((alarms[0] | alarms[1]).sum()) <= alarms_max(count, ALPHA)


def test_an_interval_for_one_look_is_wrong_far_more_often() -> None:
    """Why a confidence sequence at all: 95 % intervals, looked at after every hundred rows."""
    count = paths(200)
    values = small(np.random.default_rng(3), (count, 20_000))
    rows = np.arange(1.0, 20_001)
    sums, squares = np.cumsum(values, axis=1), np.cumsum(np.square(values), axis=1)
    deviation = np.sqrt(squares / rows - np.square(sums / rows)) / np.sqrt(rows)
    alarms = (np.abs(sums / rows) > 1.96 * deviation)[:, 199::100].any(axis=1)
    assert alarms.mean() > 0.3


@pytest.mark.parametrize(("rows", "times"), [(1_000, 2.2), (100_000, 2.2), (10_000_000, 2.4)])
def test_rate_bounds_are_about_twice_as_wide_as_an_interval_for_one_look(rows: int, times: float) -> None:
    for rate in (0.01, 0.3):
        bounds = rate_bounds(int(rate * rows), rows, alpha=0.05)
        once = 2 * stats.norm.ppf(0.975) * (rate * (1 - rate) / rows) ** 0.5
        assert (bounds.high - bounds.low) / once < times


@pytest.mark.parametrize(("rows", "times"), [(1_000, 16.0), (10_000, 6.0), (100_000, 3.0), (10_000_000, 2.2)])
def test_mean_bounds_of_small_differences_close_in_as_rows_come(rows: int, times: float) -> None:
    """With few rows they allow for a large difference that has not come yet."""
    bounds = mean_bounds(rows, 0.0, rows * 0.02**2, lowest=-1.0, highest=1.0, alpha=0.05)
    once = 2 * stats.norm.ppf(0.975) * 0.02 / rows**0.5
    assert (bounds.high - bounds.low) / once < times


def test_rare_events_are_noticed_early() -> None:
    """Three errors of three requests are proof against one in a hundred."""
    assert rate_low(3, 3, alpha=0.001) > 0.015
    assert rate_low(0, 3, alpha=0.001) == 0.0
