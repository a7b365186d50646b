"""What is learned: right, and the same whatever the order of the rows."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidDefinition
from skewless.transforms import Expression, Transform, column
from skewless.transforms.learning import by_frequency, mean_and_deviation, median, quantile_edges

X = column("x", Dtype.FLOAT64)
S = column("s", Dtype.STRING)
FLOATS = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40)
MODERATE = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


@given(FLOATS, st.randoms(use_true_random=False))
def test_learned_numbers_do_not_depend_on_the_order_of_rows(values: list[float], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis types its Random as object
    for learn in (mean_and_deviation, median, lambda array: quantile_edges(array, 5)):
        assert repr(learn(np.array(values) + 0.0)) == repr(learn(np.array(shuffled) + 0.0))


@given(MODERATE)
def test_mean_deviation_and_median_are_those_of_the_statistics_module(values: list[float]) -> None:
    mean, deviation = mean_and_deviation(np.array(values))
    assert mean == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert deviation == pytest.approx(statistics.pstdev(values), rel=1e-6, abs=1e-6)
    assert median(np.array(values)) == pytest.approx(statistics.median(values))


@given(MODERATE, st.integers(2, 12))
def test_quantile_edges_are_the_inverse_of_the_empirical_distribution(values: list[float], count: int) -> None:
    expected = np.unique([sorted(values)[math.ceil(len(values) * cut / count) - 1] for cut in range(1, count)])
    assert quantile_edges(np.array(values), count) == expected.tolist()


@pytest.mark.parametrize("values", [[1.7e308, -1.7e308], [5e-324, 1e-323], [1.7e308] * 9, [0.0, 5e-324]])
def test_statistics_of_extreme_values_are_finite(values: list[float]) -> None:
    mean, deviation = mean_and_deviation(np.array(values))
    assert min(values) <= mean <= max(values)
    assert math.isfinite(deviation)
    assert min(values) <= median(np.array(values)) <= max(values)


def test_equally_frequent_words_are_ordered_by_code_point() -> None:
    assert by_frequency(["é", "z", "B", "a", "z"], 4) == ["z", "B", "a", "é"]


def test_fitting_rows_in_another_order_gives_the_same_digest() -> None:
    rng = np.random.default_rng(7)
    numbers = rng.lognormal(size=500)
    words = np.array(["a", "b", "c", "d"], dtype=object)[rng.integers(0, 4, 500)]
    valid = rng.random(500) > 0.2
    transform = Transform(
        {
            "mean": X.impute_mean().standardise(),
            "median": X.clip(None, 3.0).impute_median().min_max(),
            "bucket": X.impute_mean().quantile_bucket(7),
            "index": S.impute_most_frequent().index(top_k=3),
            "hot": S.one_hot(top_k=3),
        }
    )
    digests = set()
    for order in (np.arange(500), np.arange(500)[::-1], rng.permutation(500)):
        columns = {
            "x": Column(Dtype.FLOAT64, np.ascontiguousarray(numbers[order]), np.ascontiguousarray(valid[order])),
            "s": Column(Dtype.STRING, words[order], valid[order]),
        }
        digests.add(transform.fit(columns, 500).digest)
    assert len(digests) == 1


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


def test_fitting_on_no_rows_is_refused() -> None:
    with pytest.raises(InvalidDefinition, match="0 rows"):
        Transform({"out": X.impute(0.0)}).fit({"x": column_of(Dtype.FLOAT64, [])}, 0)


def test_outputs_that_end_up_with_one_name_are_refused() -> None:
    transform = Transform({"a": S.one_hot(categories=["b"]), "a[b]": S.is_null()})
    with pytest.raises(InvalidDefinition, match=r"same name: `a\[b\]`"):
        transform.fit({"s": column_of(Dtype.STRING, ["b"])}, 1)
