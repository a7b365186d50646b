"""Moments: exact in training, in any order; on the grid of whole steps within half a step."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skewless.statistics.moments import STEPS_MAX, Grid, Moments, moments_of

finite = st.floats(allow_nan=False, allow_infinity=False)
moderate = st.floats(-1e150, 1e150)


@settings(deadline=None)
@given(st.lists(finite, min_size=1, max_size=50))
def test_moments_are_those_of_exact_arithmetic(items: list[float]) -> None:
    moments = moments_of(np.array(items))
    assert moments is not None
    assert (moments.count, moments.minimum, moments.maximum) == (len(items), min(items), max(items))
    mean = sum(map(Fraction, items)) / len(items)
    # The rounding of a mean that is less than a normal number is no relative error.
    assert moments.mean == pytest.approx(float(mean), rel=1e-15, abs=1e-307)
    if max(map(abs, items)) < 1e150:
        variance = sum((Fraction(item) - Fraction(moments.mean)) ** 2 for item in items) / len(items)
        assert moments.deviation == pytest.approx(math.sqrt(variance), rel=1e-12, abs=1e-160)


@settings(deadline=None)
@given(st.lists(finite, max_size=50), st.randoms(use_true_random=False))
def test_the_order_of_the_numbers_does_not_show(items: list[float], random: object) -> None:
    shuffled = list(items)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    assert moments_of(np.array(items)) == moments_of(np.array(shuffled))


def test_no_numbers_have_no_moments() -> None:
    assert moments_of(np.array([])) is None


@settings(deadline=None)
@given(st.lists(finite, min_size=1, max_size=50))
def test_a_step_is_a_power_of_two_of_at_most_a_512th_of_the_deviation(items: list[float]) -> None:
    moments = moments_of(np.array(items))
    assert moments is not None
    grid = Grid.of(moments)
    assert math.frexp(grid.unit)[0] == 0.5
    assert math.isfinite(grid.centre)
    if moments.deviation > 1e-290:
        assert moments.deviation / 1024 <= grid.unit <= moments.deviation / 512
        assert abs(grid.centre - moments.mean) <= grid.unit


@settings(deadline=None)
@given(st.lists(st.integers(-500, 500), min_size=1, max_size=100))
def test_small_whole_numbers_are_exact_on_the_grid(items: list[int]) -> None:
    grid = Grid.of(moments_of(np.array(items, dtype=np.float64)))
    assert all(((item - grid.centre) / grid.unit).is_integer() for item in items)


@settings(deadline=None)
@given(st.lists(moderate, min_size=1, max_size=50), st.lists(moderate, min_size=1, max_size=50))
def test_moments_of_steps_are_within_half_a_step(training: list[float], traffic: list[float]) -> None:
    grid = Grid.of(moments_of(np.array(training)))
    near = [each for each in traffic if abs(each - grid.centre) / grid.unit < STEPS_MAX]
    steps = [round((each - grid.centre) / grid.unit) for each in near]
    extremes = min(near, default=math.inf), max(near, default=-math.inf)
    moments = grid.moments(len(near), sum(steps), sum(step**2 for step in steps), extremes)
    if moments is None:
        assert not near
        return
    assert (moments.minimum, moments.maximum) == extremes
    rounding = 4 * np.spacing(max(abs(grid.centre), *map(abs, near)))
    assert abs(moments.mean - float(np.mean(np.array(near)))) <= grid.unit / 2 + rounding
    deviation = float(np.std((np.array(near) - grid.centre) / grid.unit)) * grid.unit  # squares of units underflow
    assert abs(moments.deviation - deviation) <= grid.unit / 2 + rounding


@pytest.mark.parametrize("training", [[5.0], [0.0], [1e300, 1e300], [5e-324], [1e308, -1e308]])
def test_a_grid_exists_for_any_training(training: list[float]) -> None:
    grid = Grid.of(moments_of(np.array(training)))
    assert grid.unit > 0
    assert math.isfinite(1 / grid.unit)


def test_a_column_that_never_had_a_number_has_a_grid_around_zero() -> None:
    assert Grid.of(None) == Grid(0.0, 2.0**-10)
    assert Grid.of(None).moments(0, 0, 0, (math.inf, -math.inf)) is None
    assert Grid.of(None).moments(1, 2048, 2048**2, (2.0, 2.0)) == Moments(1, 2.0, 0.0, 2.0, 2.0)
