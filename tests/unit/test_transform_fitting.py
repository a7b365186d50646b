"""What is learned: right, and the same bits whatever the order and the batches of the rows."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidDefinition
from skewless.transforms import Expression, FittedTransform, Transform, column
from skewless.transforms.exact_sums import ExactSum, exact_units, grouped_units
from skewless.transforms.fitting import Batch
from skewless.transforms.learning import (
    Extremes,
    Frequencies,
    GroupedSums,
    Mean,
    MeanAndDeviation,
    Median,
    MostFrequentNumber,
    QuantileEdges,
    word_hash,
)
from skewless.transforms.operation import Settings, Statistic, Vector
from skewless.transforms.order_statistics import RankSearch
from skewless.transforms.value_counts import PASSES_MAX, ValueCounts

X = column("x", Dtype.FLOAT64)
S = column("s", Dtype.STRING)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
FLOATS = st.lists(FINITE, min_size=1, max_size=40)
MODERATE = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)
UNIT = 2**1074


def numbers(values: Sequence[float]) -> Vector:
    return Vector(np.array(values, dtype=np.float64), np.ones(len(values), dtype=np.bool_))


def words(values: Sequence[str | None]) -> Vector:
    return Vector(
        np.array(["" if value is None else value for value in values], dtype=object),
        np.array([value is not None for value in values], dtype=np.bool_),
    )


def learned(statistic: Statistic, *batches: tuple[Vector, ...]) -> Settings:
    """Go through the batches for as long as the statistic asks for it."""
    for _ in range(10):
        for batch in batches:
            statistic.add(*batch)
        if not statistic.end_pass():
            return statistic.learned()
    raise AssertionError("ten passes, and the statistic asks for more")


def value(found: object) -> Settings:
    return {"value": found}


def values(*found: object) -> Settings:
    return {"value": found}


NUMBER_STATISTICS: dict[str, Callable[[], Statistic]] = {
    "mean": lambda: Mean(value),
    "mean and deviation": lambda: MeanAndDeviation(values),
    "extremes": lambda: Extremes(values),
    "median": lambda: Median(value),
    "edges": lambda: QuantileEdges(5, value),
    "most frequent": lambda: MostFrequentNumber(value),
}


@pytest.mark.parametrize("make", NUMBER_STATISTICS.values(), ids=NUMBER_STATISTICS)
@given(values=FLOATS, cuts=st.lists(st.integers(0, 40), max_size=4), random=st.randoms(use_true_random=False))
@example(values=[0.0, -0.0, 1e308, -1e308, 5e-324], cuts=[2, 4], random=None)
def test_learned_numbers_do_not_depend_on_order_and_batches(
    make: Callable[[], Statistic], values: list[float], cuts: list[int], random: object
) -> None:
    shuffled = list(reversed(values))
    if random is not None:
        random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis types its Random as object
    edges = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    batches = [(numbers(shuffled[start:stop]),) for start, stop in pairwise(edges)]
    assert repr(learned(make(), *batches)) == repr(learned(make(), (numbers(values),)))


@given(st.lists(FINITE, max_size=60))
@example([1.7e308] * 40)
@example([1.7e308, -1.7e308, 5e-324, 2.0**960, -(2.0**959.5)])
def test_sums_are_exact(items: list[float]) -> None:
    exact = sum((Fraction(item) for item in items), Fraction(0))
    array = np.array(items, dtype=np.float64)
    assert exact_units(array) == exact * UNIT
    groups = np.arange(len(items)) % 3
    grouped = [sum((Fraction(item) for item in items[group::3]), Fraction(0)) * UNIT for group in range(3)]
    assert grouped_units(array, groups, 3) == grouped


def test_sums_of_many_blocks_are_those_of_fsum() -> None:
    rng = np.random.default_rng(3)
    items = rng.normal(size=50_000) * 10.0 ** rng.integers(-30, 30, 50_000)
    total = ExactSum()
    total.add(items)
    assert total.divided_by(0) == math.fsum(items.tolist())
    assert total.divided_by(10) == math.fsum((items / 1024).tolist())


@given(FLOATS)
@example([0.1] * 9)
@example([1e308, -1e308, 1e308])
def test_mean_and_deviation_are_what_they_always_were(items: list[float]) -> None:
    """Bundles carry these numbers: they are those of this naive twin, to the last bit."""
    normal = [item + 0.0 for item in items]
    low, high = min(normal), max(normal)
    scale = math.ldexp(1.0, max(math.frexp(max(-low, high))[1] - 1, -1074))
    mean = math.fsum(item / scale for item in normal) / len(normal)
    variance = math.fsum((item / scale - mean) ** 2 for item in normal) / len(normal)
    expected = (low, 0.0) if low == high else (mean * scale, math.sqrt(variance) * scale)
    found = learned(MeanAndDeviation(values), (numbers(items),))["value"]
    # Dividing what is 2**1000 times smaller than the largest loses bits in the twin, and none in the exact sum.
    if all(abs(item) > high * 2.0**-900 for item in normal if item):
        assert repr(found) == repr(expected)
    assert learned(Mean(value), (numbers(items),))["value"] == found[0]


@given(MODERATE)
def test_mean_deviation_and_median_are_those_of_the_statistics_module(items: list[float]) -> None:
    mean, deviation = learned(MeanAndDeviation(values), (numbers(items),))["value"]
    assert mean == pytest.approx(statistics.fmean(items), abs=1e-9)
    assert deviation == pytest.approx(statistics.pstdev(items), rel=1e-6, abs=1e-6)
    assert learned(Median(value), (numbers(items),))["value"] == pytest.approx(statistics.median(items))


@given(MODERATE, st.integers(2, 12))
def test_quantile_edges_are_the_inverse_of_the_empirical_distribution(items: list[float], count: int) -> None:
    expected = np.unique([sorted(items)[math.ceil(len(items) * cut / count) - 1] for cut in range(1, count)])
    assert learned(QuantileEdges(count, value), (numbers(items),))["value"] == expected.tolist()


KINDS: dict[str, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "both signs": lambda rng, rows: rng.normal(size=rows),
    "any bits": lambda rng, rows: rng.integers(0, 2**64, rows, dtype=np.uint64).view(np.float64),
    "few values": lambda rng, rows: rng.integers(-3, 3, rows).astype(np.float64),
    "neighbours": lambda rng, rows: 1.0 + rng.integers(0, 1000, rows).astype(np.float64) * 2.0**-52,
    "one value": lambda rng, rows: np.zeros(rows) + 7.25 + 0.0 * rng.normal(),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept_max", [8, 100, 5_000])
def test_ranks_are_exact_when_the_numbers_are_too_many_to_keep(kind: str, kept_max: int) -> None:
    rng = np.random.default_rng(11)
    items = KINDS[kind](rng, 3_000)
    items = items[np.isfinite(items)] + 0.0
    ranks = [0, 1, len(items) // 3, len(items) // 2, len(items) // 2 + 1, len(items) - 1]
    search, passes = RankSearch(kept_at_first=kept_max, kept_max=kept_max), 1
    while True:
        for start in range(0, len(items), 271):
            search.add(items[start : start + 271])
        if not search.end_pass(ranks):
            break
        passes += 1
    assert [search.value(rank) for rank in ranks] == np.sort(items)[ranks].tolist()
    assert passes <= 8


@given(st.lists(st.sampled_from("abcdefgh") | st.text(max_size=2), max_size=60), st.integers(1, 5))
def test_the_most_frequent_are_right_when_the_distinct_are_too_many_to_count_at_once(
    items: list[str], most: int
) -> None:
    counts = ValueCounts[str](most, word_hash, counted_max=5)
    passes = 0
    again = True
    while again:
        counts.add(items[:20])
        counts.add(items[20:])
        again = counts.end_pass()
        passes += 1
    counted = Counter(items)
    assert counts.most_frequent() == sorted(counted, key=lambda word: (-counted[word], word))[:most]
    assert passes == 1 or len(counted) > 5


def test_a_column_with_hardly_a_value_twice_is_refused_after_a_bounded_number_of_passes() -> None:
    counts = ValueCounts[str](1, word_hash, counted_max=2)
    items = [f"{number:x}" for number in range(1_000)]
    passes = 1
    with pytest.raises(ValueError, match="distinct values, too many to count"):  # noqa: PT012  # which pass is not known
        while passes < 100:
            counts.add(items)
            counts.end_pass()
            passes += 1
    assert passes == PASSES_MAX


def test_equally_frequent_words_are_ordered_by_code_point() -> None:
    found = learned(
        Frequencies(4, lambda most, rows: {"value": (most, rows)}), (words(["é", "z", "B", None, "a", "z"]),)
    )
    assert found["value"] == (["z", "B", "a", "é"], 6)


def test_of_equally_frequent_numbers_the_smallest_wins() -> None:
    assert learned(MostFrequentNumber(value), (numbers([2.0, 0.0, 2.0, -0.0, math.nan]),)) == {"value": 0.0}


@given(st.lists(st.tuples(st.none() | st.sampled_from("ab"), FINITE | st.just(math.nan)), min_size=1, max_size=30))
def test_grouped_sums_are_those_of_each_word_and_of_all(rows: list[tuple[str | None, float]]) -> None:
    finite = [(word, number) for word, number in rows if math.isfinite(number)]
    statistic = GroupedSums(lambda total, each: {"value": (total, dict(each))})
    batch = (words([word for word, _ in rows]), numbers([number for _, number in rows]))
    sums = {each: sum((Fraction(number) for word, number in finite if word == each), Fraction(0)) for each in "ab"}
    whole = sum((Fraction(number) for _, number in finite), Fraction(0))
    largest = Fraction(float(np.finfo(np.float64).max))
    if not finite:
        with pytest.raises(ValueError, match="none of"):
            learned(statistic, batch)
    elif max(abs(each) for each in (whole, *sums.values())) <= largest:
        total, each = learned(statistic, batch)["value"]
        assert (total.rows, total.sum) == (len(finite), float(whole))
        known = [word for word, _ in finite if word is not None]
        expected = {word: (known.count(word), float(sums[word])) for word in sorted(set(known))}
        assert {word: (found.rows, found.sum) for word, found in each.items()} == expected


@pytest.mark.parametrize("items", [[1.7e308, -1.7e308], [5e-324, 1e-323], [1.7e308] * 9, [0.0, 5e-324]])
def test_statistics_of_extreme_values_are_finite(items: list[float]) -> None:
    mean, deviation = learned(MeanAndDeviation(values), (numbers(items),))["value"]
    assert min(items) <= mean <= max(items)
    assert math.isfinite(deviation)
    assert min(items) <= learned(Median(value), (numbers(items),))["value"] <= max(items)


def table(rows: int = 500, seed: int = 7) -> dict[str, Column]:
    rng = np.random.default_rng(seed)
    valid = rng.random(rows) > 0.2
    letters = np.array(["a", "b", "c", "d"], dtype=object)[rng.integers(0, 4, rows)]
    return {"x": Column(Dtype.FLOAT64, rng.lognormal(size=rows), valid), "s": Column(Dtype.STRING, letters, valid)}


def part(columns: dict[str, Column], rows: slice | NDArray[np.intp]) -> dict[str, Column]:
    return {name: Column(each.dtype, each.values[rows], each.valid[rows]) for name, each in columns.items()}


LEARNS_EVERYTHING = Transform(
    {
        "mean": X.impute_mean().standardise(),
        "median": X.clip(None, 3.0).impute_median().min_max(),
        "on top": X.impute_median().standardise().quantile_bucket(4),
        "bucket": X.impute_mean().quantile_bucket(7),
        "index": S.impute_most_frequent().index(top_k=3),
        "hot": S.one_hot(top_k=3),
    }
)


def in_batches(columns: dict[str, Column], order: NDArray[np.intp], size: int) -> list[Batch]:
    return [
        Batch(part(columns, order[start : start + size]), len(order[start : start + size]))
        for start in range(0, len(order), size)
    ]


def test_fitting_rows_in_another_order_and_other_batches_gives_the_same_digest() -> None:
    columns = table()
    digests = {LEARNS_EVERYTHING.fit(columns, 500).digest}
    for order in (np.arange(500), np.arange(500)[::-1], np.random.default_rng(1).permutation(500)):
        for size in (1, 77, 500):
            digests.add(LEARNS_EVERYTHING.fit_batches(in_batches(columns, order, size)).digest)
    assert len(digests) == 1


def test_batches_longer_than_a_chunk_learn_the_same_as_short_ones() -> None:
    columns = table(40_000)
    short = LEARNS_EVERYTHING.fit_batches(in_batches(columns, np.arange(40_000), 999))
    assert LEARNS_EVERYTHING.fit(columns, 40_000) == short


def test_rows_that_change_between_passes_are_refused() -> None:
    class Shrinking:
        def __init__(self) -> None:
            self.rows = 500

        def __iter__(self):  # type: ignore[no-untyped-def]  # a generator of batches
            self.rows -= 1
            yield Batch(part(table(), slice(0, self.rows)), self.rows)

    with pytest.raises(InvalidDefinition, match="499 in the first pass, then 498"):
        LEARNS_EVERYTHING.fit_batches(Shrinking())


def test_an_iterator_that_is_used_up_is_refused() -> None:
    with pytest.raises(InvalidDefinition, match="500 in the first pass, then 0"):
        LEARNS_EVERYTHING.fit_batches(iter([Batch(table(), 500)]))


def test_an_operation_that_learns_from_the_target_needs_one_of_the_right_shape_and_dtype() -> None:
    transform = Transform({"out": S.target_encode(smoothing=1.0)})
    columns = {"s": column_of(Dtype.STRING, ["a", "b"])}
    with pytest.raises(InvalidDefinition, match="learns from the target, and none was given"):
        transform.fit(columns, 2)
    with pytest.raises(InvalidDefinition, match=r"must be \(2,\)"):
        transform.fit(columns, 2, target=column_of(Dtype.FLOAT64, [1.0]))
    with pytest.raises(InvalidDefinition, match="the target is string"):
        transform.fit(columns, 2, target=column_of(Dtype.STRING, ["a", "b"]))
    fitted = transform.fit(columns, 2, target=column_of(Dtype.BOOL, [True, False]))
    assert isinstance(fitted, FittedTransform)


@pytest.mark.parametrize(
    ("output", "items", "said"),
    [
        (X.impute_mean(), [None, math.nan], "`x.impute_mean()`"),
        (X.impute_median(), [None, None], "none of 2 training rows has a finite value"),
        (X.impute(0.0).min_max(), [-1.7e308, 1.7e308], "span more than a float64"),
        (X.impute(0.0), [1.0, math.inf], "output `out` is inf in training row 1"),
        (X.impute(0.0).log1p(), [0.0, -2.0], "output `out` is nan in training row 1, and not finite in 1 of 2 rows"),
        (X.impute(0.0), [0.0, 1e39], "output `out` is inf in training row 1"),
    ],
)
def test_rows_that_cannot_teach_are_refused(output: Expression, items: list[object], said: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        Transform({"out": output}).fit({"x": column_of(Dtype.FLOAT64, items)}, 2)
    assert said in caught.value.message
    assert caught.value.hint


def test_a_column_of_nulls_has_no_most_frequent_string_but_an_empty_vocabulary() -> None:
    nulls = {"s": column_of(Dtype.STRING, [None, None])}
    with pytest.raises(InvalidDefinition, match="all 2 training rows are null"):
        Transform({"out": S.impute_most_frequent().length()}).fit(nulls, 2)
    assert Transform({"out": S.one_hot(top_k=5)}).fit(nulls, 2).output_names == ("out[oov]",)


@settings(deadline=None)
@given(st.integers(2, 9), st.randoms(use_true_random=False))
def test_the_training_row_of_a_bad_output_is_counted_over_all_batches(size: int, random: object) -> None:
    place = random.randrange(30)  # type: ignore[attr-defined]  # hypothesis types its Random as object
    items: list[object] = [1.0] * 30
    items[place] = math.inf
    columns = {"x": column_of(Dtype.FLOAT64, items)}
    with pytest.raises(InvalidDefinition, match=rf"is inf in training row {place}, and not finite in 1 of 30 rows"):
        Transform({"out": X.impute(0.0)}).fit_batches(in_batches(columns, np.arange(30), size))


def test_fitting_on_no_rows_is_refused() -> None:
    with pytest.raises(InvalidDefinition, match="0 rows"):
        Transform({"out": X.impute(0.0)}).fit({"x": column_of(Dtype.FLOAT64, [])}, 0)


def test_outputs_that_end_up_with_one_name_are_refused() -> None:
    transform = Transform({"a": S.one_hot(categories=["b"]), "a[b]": S.is_null()})
    with pytest.raises(InvalidDefinition, match=r"same name: `a\[b\]`"):
        transform.fit({"s": column_of(Dtype.STRING, ["b"])}, 1)
