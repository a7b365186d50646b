"""Edges of bins: from the data, strictly ascending, in every dtype, with heavy values by themselves."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from skewless.dtypes import TABLE, Dtype
from skewless.statistics.edges import DISTINCT_MAX, EDGES_MAX, HEAVY_SHARE, LEVELS, next_number, number_edges

NUMBERS = {
    Dtype.BOOL: st.booleans(),
    Dtype.INT32: st.integers(-(2**31), 2**31 - 1),
    Dtype.INT64: st.integers(-(2**63), 2**63 - 1),
    Dtype.FLOAT32: st.floats(width=32, allow_nan=False, allow_infinity=False),
    Dtype.FLOAT64: st.floats(allow_nan=False, allow_infinity=False),
}
numbers = st.sampled_from(list(NUMBERS)).flatmap(
    lambda dtype: st.tuples(st.just(dtype), st.lists(NUMBERS[dtype], max_size=120))
)


def cast(dtype: Dtype, items: Sequence[float]) -> NDArray[np.float64]:
    return np.array(items, dtype=TABLE[dtype].numpy).astype(np.float64)


def bin_of(value: float, edges: tuple[float, ...]) -> int:
    return sum(edge <= value for edge in edges)


@settings(deadline=None)
@given(numbers)
def test_edges_ascend_strictly_are_few_and_cover_the_values(drawn: tuple[Dtype, list[float]]) -> None:
    dtype, items = drawn
    values = cast(dtype, items)
    edges = number_edges(values, dtype)
    assert len(edges) <= EDGES_MAX
    assert list(edges) == sorted(set(edges))
    assert np.isfinite(edges).all()
    if items:
        assert edges[0] == values.min(), "nothing of training is below the first edge"
        largest_possible = next_number(float(values.max()), dtype) == np.inf
        assert largest_possible or edges[-1] > values.max(), "nothing of training is above the last edge"


@settings(deadline=None)
@given(numbers)
def test_edges_are_numbers_of_the_dtype(drawn: tuple[Dtype, list[float]]) -> None:
    dtype, items = drawn
    edges = np.array(number_edges(cast(dtype, items), dtype))
    if dtype is Dtype.FLOAT32:
        assert (edges.astype(np.float32) == edges).all()
    elif dtype is not Dtype.FLOAT64:
        assert (edges == np.rint(edges)).all()


@settings(deadline=None)
@given(numbers, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_show(drawn: tuple[Dtype, list[float]], random: object) -> None:
    dtype, items = drawn
    shuffled = list(items)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    assert number_edges(cast(dtype, items), dtype) == number_edges(cast(dtype, shuffled), dtype)


@settings(deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=200))
def test_few_distinct_values_have_a_bin_each(items: list[int]) -> None:
    edges = number_edges(cast(Dtype.FLOAT64, items), Dtype.FLOAT64)
    bins = {bin_of(value, edges) for value in items}
    assert len(bins) == len(set(items))
    gaps = {bin_of(value + 0.5, edges) for value in items}
    assert not gaps & bins, "a value between two of training's falls into a bin of neither"


@settings(deadline=None)
@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=DISTINCT_MAX + 1, max_size=300, unique=True))
def test_a_heavy_value_among_many_has_a_bin_of_its_own(others: list[float]) -> None:
    zeros = len(others) // (HEAVY_SHARE - 1) + 1
    values = np.array([*others, *[-1.0] * zeros])
    edges = number_edges(values, Dtype.FLOAT64)
    own = bin_of(-1.0, edges)
    assert np.count_nonzero(np.searchsorted(edges, values, "right") == own) == zeros


def test_no_bin_of_distinct_values_holds_more_than_a_twentieth_of_them() -> None:
    values = np.random.default_rng(5).lognormal(0.0, 3.0, 10_000)
    counts = np.bincount(np.searchsorted(number_edges(values, Dtype.FLOAT64), values, "right"))
    assert counts.max() <= len(values) / 20
    assert counts[0] == 0
    assert len(counts) == len(LEVELS) + 2, "levels, the minimum, and above the maximum, which no value is"


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (0.0, Dtype.BOOL, 1.0),
        (-3.0, Dtype.INT32, -2.0),
        (2.0**53, Dtype.INT64, 2.0**53 + 2),
        (1.0, Dtype.FLOAT32, 1.0 + 2.0**-23),
        (1.0, Dtype.FLOAT64, 1.0 + 2.0**-52),
        (-0.0, Dtype.FLOAT64, float(np.finfo(np.float64).tiny)),
        (1e-45, Dtype.FLOAT32, float(np.finfo(np.float32).tiny)),
        (-5e-324, Dtype.FLOAT64, 0.0),
        (float(np.finfo(np.float32).max), Dtype.FLOAT32, np.inf),
        (float(np.finfo(np.float64).max), Dtype.FLOAT64, np.inf),
    ],
)
def test_the_next_number_is_that_of_the_dtype(value: float, dtype: Dtype, expected: float) -> None:
    assert next_number(value, dtype) == expected


def test_what_is_left_of_a_column_of_zeros_still_has_its_bins() -> None:
    rng = np.random.default_rng(7)
    values = np.where(rng.random(20_000) < 0.95, 0.0, rng.lognormal(0.0, 1.0, 20_000))
    edges = number_edges(values, Dtype.FLOAT64)
    counts = np.bincount(np.searchsorted(edges, values, "right"))
    others = np.delete(counts, bin_of(0.0, edges))
    assert others.max() <= others.sum() / 20 + 1
    assert np.count_nonzero(others) > 20


def test_the_largest_numbers_there_are_have_edges() -> None:
    largest = float(np.finfo(np.float64).max)
    assert number_edges(np.array([-largest, 0.0, largest]), Dtype.FLOAT64)[0] == -largest


def test_an_outlier_moves_no_inner_edge() -> None:
    values = np.random.default_rng(6).normal(size=5_000)
    inner = number_edges(values, Dtype.FLOAT64)[1:-1]
    with_outlier = np.append(values[:-1], 1e12)
    assert number_edges(with_outlier, Dtype.FLOAT64)[1:-4] == pytest.approx(inner[:-3], abs=0.05)
