"""Baselines beside each other and beside traffic: exact in the same bins, close in other bins, words by name."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import ks_2samp, wasserstein_distance

from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidDefinition
from skewless.features.visibility import STATUS_CODE, Status
from skewless.statistics.ages import NO_AGE
from skewless.statistics.alignment import aligned
from skewless.statistics.baseline import Baseline
from skewless.statistics.bins import age_bins, column_bins
from skewless.statistics.comparison import Difference, compare_baselines, compare_traffic, compare_variables
from skewless.statistics.counter import Counter
from skewless.statistics.divergence import population_stability
from skewless.statistics.observed import Observed
from skewless.statistics.variable import Part, Variable
from skewless.statistics.words import KNOWN_MAX


def numbers(values: NDArray[np.float64], *, null: float = 0.0) -> Column:
    valid = np.ones(len(values), dtype=np.bool_)
    valid[: int(null * len(values))] = False
    return Column(Dtype.FLOAT64, np.where(valid, values, 0.0), valid)


def words(items: Sequence[str | None]) -> Column:
    return column_of(Dtype.STRING, tuple(items))


def baseline(column: Column, name: str = "x", *, known_max: int = KNOWN_MAX) -> Baseline:
    """A baseline of one column."""
    counter = Counter([column_bins(name, column, served=False, known_max=known_max)])
    tally = counter.empty()
    counter.add(Observed(len(column), {name: column}), tally)
    return Baseline(len(column), counter.layout.counted(tally))


def only(column: Column, *, known_max: int = KNOWN_MAX) -> Variable:
    return baseline(column, known_max=known_max).variables[0]


def difference(first: Column, second: Column) -> Difference:
    (found,) = compare_baselines(baseline(first), baseline(second)).differences
    return found


def traffic_difference(training: Column, traffic: Column) -> Difference:
    reference = baseline(training)
    counter = reference.counter()
    tally = counter.empty()
    counter.add(Observed(len(traffic), {"x": traffic}), tally)
    (found,) = compare_traffic(reference, tally).differences
    return found


def draw(seed: int, rows: int = 20_000, *, shift: float = 0.0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(shift, 1.0, rows)


def test_a_baseline_is_at_no_distance_from_itself() -> None:
    for column in (numbers(draw(1), null=0.1), words(["a", "b", None])):
        found = difference(column, column)
        assert found.same_bins
        assert found.psi == 0.0
        assert found.jensen_shannon == 0.0
        assert found.null_share.change == 0.0
        assert found.unseen_share.change == 0.0


def test_the_same_distribution_in_other_bins_is_about_at_the_floor() -> None:
    found = difference(numbers(draw(1)), numbers(draw(2)))
    assert not found.same_bins
    assert found.psi is not None
    assert found.psi_floor is not None
    assert found.psi < 3 * found.psi_floor
    assert found.kolmogorov_smirnov is not None
    assert found.kolmogorov_smirnov.value < 0.02


@pytest.mark.parametrize("shift", [0.1, 0.5, 2.0])
def test_a_shift_measures_nearly_the_same_in_other_bins(shift: float) -> None:
    """Of another training (bins of its own) as of traffic (the baseline's bins)."""
    first, second = numbers(draw(1)), numbers(draw(2, shift=shift))
    across, within = difference(first, second), traffic_difference(first, second)
    assert within.same_bins
    assert across.psi == pytest.approx(within.psi, rel=0.15)
    assert across.jensen_shannon == pytest.approx(within.jensen_shannon, rel=0.1)
    raw = float(ks_2samp(first.values, second.values, method="asymp").statistic)
    for found in (across, within):
        assert found.kolmogorov_smirnov is not None
        assert found.kolmogorov_smirnov.value == pytest.approx(raw, abs=0.01)
        assert found.wasserstein is not None
        assert found.wasserstein.value == pytest.approx(shift, rel=0.1, abs=0.03)


def test_a_heavy_value_stays_whole_in_other_bins() -> None:
    first = np.where(np.arange(20_000) % 3 == 0, 0.0, np.abs(draw(3)))
    second = np.where(np.arange(20_000) % 3 == 0, 0.0, np.abs(draw(4)) * 1.001)
    found = difference(numbers(first), numbers(second))
    assert not found.same_bins
    assert found.psi is not None
    assert found.psi < 0.01


@settings(deadline=None)
@given(
    st.lists(st.integers(-6, 6), min_size=1, max_size=40).flatmap(
        lambda training: st.tuples(st.just(training), st.lists(st.sampled_from(training), min_size=1, max_size=40))
    )
)
def test_distances_are_exact_where_each_bin_holds_one_number(drawn: tuple[list[int], list[int]]) -> None:
    first, second = (np.array(each, dtype=np.float64) for each in drawn)
    found = traffic_difference(numbers(first), numbers(second))
    assert found.kolmogorov_smirnov is not None
    assert found.wasserstein is not None
    assert found.kolmogorov_smirnov.low == found.kolmogorov_smirnov.high
    with np.errstate(all="ignore"):  # the p-value that comes with it divides by zero for few values
        expected = float(ks_2samp(first, second, method="asymp").statistic)
    assert found.kolmogorov_smirnov.value == pytest.approx(expected, abs=1e-12)
    assert found.wasserstein.value == pytest.approx(float(wasserstein_distance(first, second)), abs=1e-12)
    assert found.wasserstein.low == pytest.approx(found.wasserstein.high, abs=1e-12)


def test_more_nulls_are_a_distance_of_their_own() -> None:
    found = traffic_difference(numbers(draw(1), null=0.01), numbers(draw(2), null=0.5))
    assert found.null_share.change == pytest.approx(0.49)
    assert found.psi is not None
    assert found.psi > 1.0
    assert found.kolmogorov_smirnov is not None
    assert found.kolmogorov_smirnov.value < 0.03, "the numbers that are there are as before"


def test_an_outlier_hides_no_shift() -> None:
    """One value of a million stretches bins of equal width over nothing; bins of training's quantiles stay."""
    shifted = draw(2, shift=0.5)
    quiet = traffic_difference(numbers(draw(1)), numbers(shifted))
    shifted[0] = 1e6
    loud = traffic_difference(numbers(draw(1)), numbers(shifted))
    assert loud.psi == pytest.approx(quiet.psi, rel=0.05)
    assert loud.rank_distance == pytest.approx(quiet.rank_distance, rel=0.05)
    assert loud.unseen_share.second is not None
    assert loud.unseen_share.second >= 1 / len(shifted)


def test_traffic_counts_what_training_never_saw() -> None:
    found = traffic_difference(words(["a"] * 50 + ["b"] * 50), words(["a"] * 9 + ["new"]))
    assert found.unseen_share.first == 0.0
    assert found.unseen_share.second == pytest.approx(0.1)
    outside = traffic_difference(numbers(np.arange(100.0)), numbers(np.array([-1.0, 50.0, 99.5, 1e9])))
    assert outside.unseen_share.second == pytest.approx(0.75)


def test_words_are_compared_by_name() -> None:
    found = difference(words(["a"] * 6 + ["b"] * 4), words(["b"] * 8 + ["c"] * 2))
    expected = population_stability(np.array([6.0, 4.0, 0.0]), np.array([0.0, 8.0, 2.0]))
    assert found.psi == pytest.approx(expected)
    assert found.new_words == ("c",)


def test_words_that_one_side_cannot_tell_of_are_one_bin() -> None:
    """Of an open vocabulary nobody knows how often a word came that it does not list."""
    opened = only(words(["a"] * 500 + [f"id-{number}" for number in range(600)] + ["b"] * 400))
    closed = only(words(["a"] * 50 + ["rare"] * 50))
    assert opened.vocabulary is not None
    assert not opened.vocabulary.closed
    first, second = aligned(opened, closed)
    assert first.tolist() == [0.0, 500.0, 400.0, 600.0]
    assert second.tolist() == [0.0, 50.0, 0.0, 50.0]
    assert compare_variables(opened, closed).new_words == (), "an open vocabulary may have seen it"


def test_a_column_that_changed_what_is_counted_of_it_has_no_distance() -> None:
    found = difference(numbers(draw(1)), words(["a", "b"]))
    assert found.psi is None
    assert found.jensen_shannon is None
    assert found.mean.first is not None
    assert found.mean.second is None
    assert found.mean.change is None


@pytest.mark.parametrize("other", [np.array([]), np.array([1.0, 2.0])])
def test_a_column_that_was_always_null_can_be_compared(other: NDArray[np.float64]) -> None:
    never = numbers(np.zeros(10), null=1.0)
    for first, second in ((never, numbers(other)), (numbers(other), never), (never, never)):
        found = difference(first, second)
        assert found.wasserstein is None
        assert found.null_share.first == (1.0 if first is never else None if not len(other) else 0.0)


def test_variables_that_only_one_side_has_are_told() -> None:
    found = compare_baselines(baseline(numbers(draw(1)), "a"), baseline(numbers(draw(1)), "b"))
    assert found.differences == ()
    assert found.only_in_first == ((Part.COLUMN, "a"),)
    assert found.only_in_second == ((Part.COLUMN, "b"),)
    assert found.to_json()["only_in_first"] == [["column", "a"]]


def test_traffic_of_other_bins_is_refused() -> None:
    tally = baseline(numbers(draw(2))).counter().empty()
    with pytest.raises(InvalidDefinition, match="cannot be read"):
        compare_traffic(baseline(numbers(draw(1))), tally)


def test_ages_are_compared_without_any_edges_of_training() -> None:
    hour = 3_600_000_000

    def ages(values: NDArray[np.int64]) -> Variable:
        counter = Counter([age_bins("weather", values)])
        tally = counter.empty()
        counter.add(Observed(len(values), ages_us={"weather": values}), tally)
        return counter.layout.counted(tally)[0]

    fresh = np.arange(1_000) * hour // 1_000
    late = np.where(np.arange(1_000) < 100, NO_AGE, fresh + hour)
    found = compare_variables(ages(fresh), ages(late))
    assert found.same_bins
    assert found.unseen_share.first is None
    assert found.null_share.change == pytest.approx(0.1)
    assert found.mean.change == pytest.approx(hour, rel=0.06)
    assert found.wasserstein is not None
    assert found.wasserstein.low <= hour * 1.06
    assert found.wasserstein.high >= hour


def test_statuses_are_compared_where_both_sides_know_them() -> None:
    column = numbers(draw(1, rows=10))
    counter = Counter([column_bins("x", column, served=True, known_max=KNOWN_MAX)])

    def counted(codes: Sequence[int]) -> Variable:
        tally = counter.empty()
        statuses = {"x": np.array(codes, dtype=np.uint8)} if codes else {}
        counter.add(Observed(10, {"x": column}, statuses), tally)
        return counter.layout.counted(tally)[0]

    ok, missing = STATUS_CODE[Status.OK], STATUS_CODE[Status.MISSING]
    found = compare_variables(counted([ok] * 10), counted([ok] * 7 + [missing] * 3)).status_shares
    assert {name: (pair.first, pair.second) for name, pair in found.items()} == {
        "ok": (1.0, 0.7),
        "missing": (0.0, 0.3),
    }
    unknown = compare_variables(counted([]), counted([ok] * 10)).status_shares
    assert (unknown["ok"].first, unknown["ok"].second) == (None, 1.0)


def test_a_difference_is_plain_data() -> None:
    data = difference(numbers(draw(1)), numbers(draw(2))).to_json()
    assert data["part"] == "column"
    assert data["mean"].keys() == {"first", "second"}
    assert data["kolmogorov_smirnov"].keys() == {"value", "low", "high"}
