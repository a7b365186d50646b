"""Distances of histograms: equal to SciPy's and to naive twins, and ranges that hold the truth about the raw values."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import distance
from scipy.stats import ks_2samp, wasserstein_distance

from skewless.statistics.divergence import (
    PSEUDO_COUNT,
    jensen_shannon,
    kolmogorov_smirnov,
    population_stability,
    rank_distance,
    stability_floor,
    stability_limit,
    wasserstein,
)

Counts = NDArray[np.float64]
histograms = st.integers(1, 12).flatmap(
    lambda bins: st.tuples(*[st.lists(st.integers(0, 1000), min_size=bins, max_size=bins)] * 2)
)
samples = st.lists(st.floats(-100, 100), min_size=1, max_size=60)


def both(drawn: tuple[list[int], list[int]]) -> tuple[Counts, Counts]:
    reference, current = np.array(drawn[0], dtype=np.float64), np.array(drawn[1], dtype=np.float64)
    assume(reference.sum() > 0)
    assume(current.sum() > 0)
    return reference, current


@settings(deadline=None)
@given(histograms)
def test_population_stability_is_that_of_the_formula(drawn: tuple[list[int], list[int]]) -> None:
    reference, current = both(drawn)
    pairs = [(a, b) for a, b in zip(*drawn, strict=True) if a + b]
    n, m = (sum(each) + PSEUDO_COUNT * len(pairs) for each in zip(*pairs, strict=True))
    expected = math.fsum(
        (p - q) * math.log(p / q) for p, q in (((a + PSEUDO_COUNT) / n, (b + PSEUDO_COUNT) / m) for a, b in pairs)
    )
    assert population_stability(reference, current) == pytest.approx(expected, abs=1e-12)
    assert population_stability(current, reference) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(histograms)
def test_jensen_shannon_is_scipys(drawn: tuple[list[int], list[int]]) -> None:
    reference, current = both(drawn)
    expected = float(distance.jensenshannon(reference, current, base=2))
    # Of equal histograms SciPy gives the root of a rounding error.
    assert jensen_shannon(reference, current) == pytest.approx(0.0 if math.isnan(expected) else expected, abs=1e-7)


@settings(deadline=None)
@given(samples, samples, st.lists(st.floats(-100, 100), min_size=1, max_size=8, unique=True))
def test_kolmogorov_smirnov_holds_the_statistic_of_the_raw_values(
    first: list[float], second: list[float], edges: list[float]
) -> None:
    reference, current = (binned(each, sorted(edges)) for each in (first, second))
    found = kolmogorov_smirnov(reference, current)
    assert found is not None
    expected = raw_kolmogorov_smirnov(first, second)
    assert found.low - 1e-12 <= expected <= found.high + 1e-12
    assert found.value == found.low


@settings(deadline=None)
@given(samples, samples)
def test_kolmogorov_smirnov_is_exact_where_each_value_has_its_bin(first: list[float], second: list[float]) -> None:
    ends = own_bins(first, second)
    found = kolmogorov_smirnov(binned(first, ends), binned(second, ends))
    assert found is not None
    assert found.value == pytest.approx(raw_kolmogorov_smirnov(first, second), abs=1e-12)


@settings(deadline=None)
@given(samples, samples, st.lists(st.floats(-100, 100), min_size=1, max_size=8, unique=True))
def test_wasserstein_holds_the_distance_of_the_raw_values(
    first: list[float], second: list[float], edges: list[float]
) -> None:
    edges = sorted(edges)
    ends = np.array([min(*first, *second, edges[0]), *edges, max(*first, *second, edges[-1])])
    found = wasserstein(binned(first, edges), binned(second, edges), ends)
    assert found is not None
    expected = float(wasserstein_distance(first, second))
    assert found.low - 1e-9 <= expected <= found.high + 1e-9
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9


def test_wasserstein_is_exact_for_values_spread_evenly_within_bins() -> None:
    ends = np.array([0.0, 1.0, 3.0, 4.0])
    # All of the first bin moves to the last, on average from 0.5 to 3.5.
    found = wasserstein(np.array([8.0, 4.0, 0.0]), np.array([0.0, 4.0, 8.0]), ends)
    assert found is not None
    assert found.value == pytest.approx(2.0)


def test_rank_distance_is_wasserstein_over_ranks() -> None:
    reference = np.array([10.0, 20.0, 30.0, 40.0])
    current = np.array([40.0, 30.0, 20.0, 10.0])
    ranks = np.concatenate(([0.0], np.cumsum(reference) / 100))
    expected = wasserstein(reference, current, ranks)
    assert expected is not None
    assert rank_distance(reference, current) == pytest.approx(expected.value)


def test_rank_distance_is_a_half_where_everything_left_by_one_end() -> None:
    assert rank_distance(np.array([3.0, 7.0, 0.0]), np.array([0.0, 0.0, 5.0])) == pytest.approx(0.5)


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=12).filter(any))
def test_equal_histograms_are_at_no_distance(drawn: list[int]) -> None:
    counts = np.array(drawn, dtype=np.float64)
    ends = np.arange(len(drawn) + 1.0)
    assert population_stability(counts, counts) == 0.0
    assert jensen_shannon(counts, counts) == 0.0
    assert rank_distance(counts, counts) == 0.0
    for found in (kolmogorov_smirnov(counts, counts), wasserstein(counts, counts, ends)):
        assert found is not None
        assert found.value == found.low == 0.0


def test_nothing_to_compare_has_no_distance() -> None:
    some, none = np.array([1.0, 2.0]), np.zeros(2)
    for left, right in ((some, none), (none, some), (none, none)):
        assert population_stability(left, right) is None
        assert stability_floor(left, right) is None
        assert stability_limit(left, right) is None
        assert jensen_shannon(left, right) is None
        assert kolmogorov_smirnov(left, right) is None
        assert rank_distance(left, right) is None
        assert wasserstein(left, right, np.arange(3.0)) is None


def test_without_a_change_population_stability_is_about_its_floor() -> None:
    rng = np.random.default_rng(11)
    shares = np.array([0.01, 0.04, *[0.05] * 18, 0.04, 0.01])
    draws = [(rng.multinomial(20_000, shares) * 1.0, rng.multinomial(3_000, shares) * 1.0) for _ in range(200)]
    measured = [population_stability(reference, current) or 0.0 for reference, current in draws]
    floor = stability_floor(draws[0][0], draws[0][1])
    assert floor is not None
    assert np.mean(measured) == pytest.approx(floor, rel=0.1)


def test_chance_exceeds_the_limit_of_population_stability_once_in_a_thousand() -> None:
    rng = np.random.default_rng(12)
    for bins in (2, 5, 26):
        shares = np.full(bins, 1 / bins)
        first, second = (rng.multinomial(rows, shares, 20_000) * 1.0 for rows in (20_000, 3_000))
        exceeded = 0
        for reference, current in zip(first, second, strict=True):
            measured, limit = population_stability(reference, current), stability_limit(reference, current)
            assert measured is not None
            assert limit is not None
            exceeded += measured > limit
        assert 5 <= exceeded <= 40, f"{bins} bins: {exceeded} of 20,000"


def test_the_limit_of_one_bin_is_zero() -> None:
    assert stability_limit(np.array([5.0]), np.array([3.0])) == 0.0
    assert population_stability(np.array([5.0]), np.array([3.0])) == 0.0


def test_bins_that_nobody_hit_change_nothing() -> None:
    """Half a count in each of many empty bins would weigh more in the smaller side, and pass for a change."""
    reference, current = np.array([5_000.0, 5_000.0]), np.array([50.0, 50.0])
    padded = [np.concatenate((each, np.zeros(50))) for each in (reference, current)]
    assert population_stability(*padded) == population_stability(reference, current)


def binned(values: list[float], edges: list[float]) -> Counts:
    return np.bincount(np.searchsorted(edges, values, "right"), minlength=len(edges) + 1).astype(np.float64)


def raw_kolmogorov_smirnov(first: list[float], second: list[float]) -> float:
    with np.errstate(all="ignore"):  # the p-value that comes with it divides by zero for few values
        return float(ks_2samp(first, second, method="asymp").statistic)


def own_bins(first: list[float], second: list[float]) -> list[float]:
    return sorted({*first, *second})
