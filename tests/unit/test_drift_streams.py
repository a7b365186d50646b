"""What is watched of a window, and how unusual it is: against plain formulas over raw rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from skewless.drift.localisation import named_by_rate, shares_as_high
from skewless.drift.scales import CLIP, scales_of
from skewless.drift.streams import ROWS_MIN, Kind, Raw, Ruler
from skewless.drift.threshold import climbed, increments, is_open, threshold_of
from skewless.dtypes import Column, Dtype, column_of
from skewless.features.visibility import STATUS_CODE, Status
from skewless.statistics.bins import column_bins
from skewless.statistics.counter import Counter
from skewless.statistics.observed import Observed
from skewless.statistics.variable import Part
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US

WATCHED = frozenset({Part.COLUMN})
GENERATOR = np.random.default_rng(20130501)
TRAINING = GENERATOR.normal(10.0, 4.0, 5_000)


def counter() -> Counter:
    return Counter(
        [
            column_bins("x", Column(Dtype.FLOAT64, TRAINING, np.ones(5_000, dtype=np.bool_)), served=True, known_max=9),
            column_bins("w", column_of(Dtype.STRING, ("a", "b", "c") * 9), served=False, known_max=9),
        ]
    )


def counts_of(numbers: NDArray[np.float64], words: list[str | None], statuses: list[int]) -> NDArray[np.int64]:
    valid = ~np.isnan(numbers)
    made = counter()
    tally = made.empty()
    columns = {
        "x": Column(Dtype.FLOAT64, np.where(valid, numbers, 0.0), valid),
        "w": column_of(Dtype.STRING, list(words)),
    }
    made.add(Observed(len(numbers), columns, {"x": np.array(statuses, dtype=np.uint8)}), tally)
    return tally.counts


def raw_of(window: NDArray[np.int64], profile: NDArray[np.int64]) -> tuple[Ruler, Raw]:
    ruler = Ruler(counter().layout, WATCHED)
    return ruler, ruler.raw(window[np.newaxis], profile[np.newaxis].astype(np.float64), np.zeros(1, dtype=np.intp))


def test_each_variable_is_watched_by_its_bins_statuses_and_mean() -> None:
    ruler = Ruler(counter().layout, WATCHED)
    assert [(stream.name, stream.kind) for stream in ruler.streams("a slice")] == [
        ("x", Kind.DISTRIBUTION),
        ("w", Kind.DISTRIBUTION),
        ("x", Kind.STATUSES),
        ("x", Kind.RISE),
        ("x", Kind.FALL),
    ]
    assert {stream.slice for stream in ruler.streams("a slice")} == {"a slice"}
    assert Ruler(counter().layout, frozenset({Part.SCORE})).streams("") == []


def test_ratios_are_pearsons_statistics_of_two_samples() -> None:
    numbers = GENERATOR.normal(10.5, 4.0, 300)
    numbers[:30] = np.nan
    words: list[str | None] = ["a"] * 200 + ["new"] * 60 + [None] * 40
    ok, missing = STATUS_CODE[Status.OK], STATUS_CODE[Status.MISSING]
    window = counts_of(numbers, words, [ok] * 270 + [missing] * 30)
    profile = counts_of(np.resize(TRAINING, 900), ["a", "b", "c"] * 300, [ok] * 900)
    _, raw = raw_of(window, profile)
    layout = counter().layout
    spans = [(layout.starts[0], layout.variables[0].size), (layout.starts[1], layout.variables[1].size)]
    spans.append((layout.status_starts[0] or 0, len(STATUS_CODE)))
    for place, (start, size) in enumerate(spans):
        found, usual = window[start : start + size], profile[start : start + size].astype(np.float64)
        expected = usual * 300 / 900
        distance = ((found - expected) ** 2 / (expected * (1 + 300 / 900) + 1.0)).sum()
        assert raw.ratios[0, place] == pytest.approx(distance / max((usual > 0).sum() - 1, 1))
        assert raw.ratio_rows[0, place] == 300


def test_shifts_are_differences_of_the_raw_means() -> None:
    numbers = GENERATOR.normal(11.0, 5.0, 400)
    usual = np.resize(TRAINING, 2_000)
    window = counts_of(numbers, ["a"] * 400, [0] * 400)
    _, raw = raw_of(window, counts_of(usual, ["a"] * 2_000, [0] * 2_000))
    unit = counter().layout.variables[0].grid.unit
    assert raw.shifts[0, 0] * unit == pytest.approx(numbers.mean() - usual.mean(), abs=unit)
    chance = usual.var() / 400 + usual.var() / 2_000
    assert raw.noises[0, 0] * unit**2 == pytest.approx(chance, rel=0.01)


def test_too_few_values_say_nothing() -> None:
    numbers = np.full(100, np.nan)
    numbers[: ROWS_MIN - 1] = 10.0
    window = counts_of(numbers, ["a"] * 100, [0] * 100)
    profile = counts_of(np.resize(TRAINING, 100), ["a"] * 100, [0] * 100)
    _, raw = raw_of(window, profile)
    assert np.isnan(raw.shifts[0, 0])
    assert not np.isnan(raw.ratios[0, 0]), "nulls are values of their own here"
    few = counts_of(np.full(ROWS_MIN - 1, 10.0), ["a"] * (ROWS_MIN - 1), [0] * (ROWS_MIN - 1))
    _, raw = raw_of(few, profile)
    assert np.isnan(raw.ratios).all()


def null_raw(windows: int, rows: NDArray[np.float64], *, excess: float = 0.0, seed: int = 0) -> Raw:
    """Windows in which nothing happens: 20 degrees of freedom, and means that wander by 3 steps beside chance."""
    generator = np.random.default_rng(seed)
    ratios = generator.chisquare(20, (windows, 1)) / 20 * (1 + excess * rows[:, np.newaxis])
    noises = 1_000.0 / rows[:, np.newaxis]
    shifts = generator.normal(size=(windows, 1)) * np.sqrt(9.0 + noises)
    return Raw(ratios, np.repeat(rows[:, np.newaxis], 1, axis=1), shifts, noises)


def test_scores_are_about_normal_whatever_the_rows_of_a_window() -> None:
    rows = np.where(np.arange(6_000) % 2 == 0, 200.0, 5_000.0)
    raw = null_raw(6_000, rows, excess=0.002)
    scales = scales_of(raw)
    z = scales.standardised(raw)
    for busy in (rows > 1_000, rows < 1_000):
        for stream in range(3):
            assert np.median(z[busy, stream]) == pytest.approx(0.0, abs=0.15)
            assert np.quantile(z[busy, stream], 0.9) == pytest.approx(1.28, abs=0.25)
    assert scales.wanders[0] == pytest.approx(9.0, rel=0.3)
    np.testing.assert_allclose(z[:, 1], -z[:, 2], atol=1e-5)


def test_no_window_counts_for_more_than_the_clip() -> None:
    raw = null_raw(1_000, np.full(1_000, 500.0))
    scales = scales_of(raw)
    odd = Raw(np.array([[1e9]]), np.array([[500.0]]), np.array([[1e9]]), np.array([[2.0]]))
    assert scales.standardised(odd).tolist() == [[CLIP, CLIP, -CLIP]]


def test_streams_that_were_never_scored_stay_silent() -> None:
    nothing = np.full((50, 1), np.nan)
    scales = scales_of(Raw(nothing, np.zeros((50, 1)), nothing, nothing))
    z = scales.standardised(Raw(nothing, np.zeros((50, 1)), nothing, nothing))
    assert np.isnan(z).all()
    assert increments(z).tolist() == [[0.0] * 3] * 50


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=60))
def test_sums_climb_as_the_plain_recursion_says(steps: list[float]) -> None:
    total, expected = np.float32(0.0), []
    for each in np.array(steps, dtype=np.float32):
        total = max(np.float32(0.0), np.float32(total + each))
        expected.append(total)
    found = climbed(np.array(steps, dtype=np.float32)[:, np.newaxis])[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_an_alarm_stays_open_until_half_the_height() -> None:
    statistic = np.array([1.0, 1.0, 0.6, 0.6, 0.4, 0.4], dtype=np.float32)
    was = np.array([False, True, False, True, False, True])
    assert is_open(was, statistic, 1.0).tolist() == [True, True, False, True, False, False]


def test_the_height_keeps_the_promise_on_fresh_noise() -> None:
    """Independent scores: with the height of four weeks, forty others have about one alarm in ten days."""
    z = np.random.default_rng(1).normal(size=(28 * 24, 8)).astype(np.float32)
    weights = np.ones(8, dtype=np.float32)
    threshold = threshold_of(z, weights, HOUR_US, 10.0, seed=3)
    assert threshold.height == threshold_of(z, weights, HOUR_US, 10.0, seed=3).height
    assert 0.5 < threshold.drawn <= 1.0, "an excursion of history is in several drawn months, or in none"
    fresh = np.random.default_rng(2).normal(size=(40 * 28 * 24, 8)).astype(np.float32)
    statistic = (climbed(increments(fresh) / threshold.weights)).max(axis=1)
    opened, is_now = 0, np.zeros(1, dtype=np.bool_)
    for each in statistic:
        was = is_now
        is_now = is_open(was, np.array([each]), threshold.height)
        opened += int(is_now[0] and not was[0])
    promised = 40 * 28 / 10.0
    assert promised / 2.5 < opened < promised * 2.5, opened


def test_a_rarer_promise_is_a_greater_height() -> None:
    z = np.random.default_rng(4).normal(size=(28 * 24, 4)).astype(np.float32)
    weights = np.ones(4, dtype=np.float32)
    heights = [threshold_of(z, weights, HOUR_US, days, seed=0).height for days in (5.0, 30.0, 300.0)]
    assert heights == sorted(heights)
    assert heights[0] < heights[-1]


def test_a_stream_of_three_times_the_weight_must_climb_three_times_as_high() -> None:
    z = np.random.default_rng(5).normal(size=(28 * 24, 1)).astype(np.float32)
    light, heavy = (threshold_of(z, np.full(1, weight, np.float32), HOUR_US, 30.0, seed=0) for weight in (1.0, 3.0))
    assert light.height == pytest.approx(3.0 * heavy.height, rel=1e-2)


@pytest.mark.parametrize("window_us", [5 * MINUTE_US, 6 * HOUR_US, DAY_US])
def test_any_length_of_window_can_be_calibrated(window_us: int) -> None:
    z = np.random.default_rng(6).normal(size=(28 * DAY_US // window_us, 2)).astype(np.float32)
    assert threshold_of(z, np.ones(2, dtype=np.float32), window_us, 30.0, seed=0).height > 0


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=30))
def test_names_are_those_of_benjamini_and_hochberg(values: list[float]) -> None:
    p_values = np.array(values)
    adjusted = false_discovery_control(p_values)
    sure = np.abs(adjusted - 0.1) > 1e-9  # the last bit of a product decides at the edge itself
    np.testing.assert_array_equal(named_by_rate(p_values, 0.1)[sure], (adjusted <= 0.1)[sure])


def test_shares_as_high_are_ranks_among_history() -> None:
    history = np.arange(9, dtype=np.float32)[:, np.newaxis]
    assert shares_as_high(history, np.array([7.5], dtype=np.float32)).tolist() == [0.2]
    assert shares_as_high(history, np.array([99.0], dtype=np.float32)).tolist() == [0.1]
