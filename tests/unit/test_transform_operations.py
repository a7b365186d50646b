"""What each operation means, value by value."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from skewless.dtypes import TABLE, Column, Dtype, column_of
from skewless.transforms import Expression, Transform, column, where

INF, NAN = math.inf, math.nan
X = column("x", Dtype.FLOAT64)
Y = column("y", Dtype.FLOAT64)
S = column("s", Dtype.STRING)
Items = Sequence[object]


def computed(expression: Expression, columns: dict[str, Items], *, train: dict[str, Items] | None = None) -> Items:
    """The output over the columns; -99 where the expression is null. Fitted on `train`, or on harmless rows."""
    output = expression.impute(-99.0) if expression.nullable else expression
    transform = Transform({"out": output})
    dtypes = dict(transform.inputs)
    harmless: dict[Dtype, Items] = {dtype: [TABLE[dtype].zero] for dtype in Dtype}
    training = {name: (train or {}).get(name, harmless[dtype]) for name, dtype in dtypes.items()}
    fitted = transform.fit(table(dtypes, training), len(next(iter(training.values()))))
    tensor = fitted.prepare().apply(table(dtypes, columns), len(next(iter(columns.values()))))
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    items: list[object] = tensor[:, 0].tolist() if tensor.shape[1] == 1 else tensor.tolist()
    return items


def table(dtypes: dict[str, Dtype], columns: dict[str, Items]) -> dict[str, Column]:
    return {name: column_of(dtypes[name], list(items)) for name, items in columns.items()}


@pytest.mark.parametrize(
    ("expression", "x", "expected"),
    [
        (X.impute(7), [1.5, None, NAN], [1.5, 7.0, NAN]),
        (X.is_null(), [1.5, None, NAN], [0.0, 1.0, 0.0]),
        (X.clip(-1, 2), [-5.0, 0.5, 9.0, INF, NAN, None], [-1.0, 0.5, 2.0, 2.0, NAN, -99.0]),
        (X.clip(None, 2), [-INF, 3.0], [-INF, 2.0]),
        (X.clean(-1, 2), [-1.0, -1.1, 2.0, 2.1, NAN, INF, None], [-1.0, -99.0, 2.0, -99.0, -99.0, -99.0, -99.0]),
        (X.clean(), [1e300, -INF, NAN], [INF, -99.0, -99.0]),
        (X.log1p(), [0.0, math.e - 1.0, -1.0, -2.0, None, INF], [0.0, 1.0, -INF, NAN, -99.0, INF]),
        (-X, [1.0, None], [-1.0, -99.0]),
        (3 - X, [1.0, None], [2.0, -99.0]),
        (2 * X + 1, [3.0, NAN], [7.0, NAN]),
        (X / 4, [2.0, INF], [0.5, INF]),
        (1 / X, [4.0, 0.0, -0.0, None], [0.25, -99.0, -99.0, -99.0]),
        (X / 0, [1.0, NAN], [-99.0, -99.0]),
        (X < 2, [1.0, 2.0, None, NAN], [1.0, 0.0, -99.0, 0.0]),
        (X <= 2, [2.0, 3.0, NAN], [1.0, 0.0, 0.0]),
        (X > 2, [2.0, 3.0, NAN], [0.0, 1.0, 0.0]),
        (X >= 2, [2.0, 1.0, NAN], [1.0, 0.0, 0.0]),
        (2 < X, [2.0, 3.0], [0.0, 1.0]),  # noqa: SIM300  # the reflected form is the point
        (X == 2, [2.0, 3.0, None, NAN], [1.0, 0.0, -99.0, 0.0]),
        (X != 2, [2.0, 3.0, None, NAN], [0.0, 1.0, -99.0, 1.0]),
        (where(X > 0, 10, X), [1.0, -1.0, None, NAN], [10.0, -1.0, -99.0, NAN]),
        (where(X, 1, 2), [0.0, -0.0, 5.0, NAN, None], [2.0, 2.0, 1.0, 1.0, -99.0]),
        (X.bucket([0, 10]), [-1.0, 0.0, 9.9, 10.0, INF, NAN, None], [0.0, 1.0, 1.0, 2.0, 2.0, 2.0, -99.0]),
        (abs(X), [-1.0, None], [1.0, -99.0]),
        (X.round(), [0.5, 1.5, -2.5], [0.0, 2.0, -2.0]),
        (X.log().clip(-9, 9), [1.0, 0.0, -1.0], [0.0, -9.0, NAN]),
        (X.exp(), [0.0, 1e3, None], [1.0, INF, -99.0]),
        (X**0.5, [4.0, -1.0], [2.0, NAN]),
        ((X**-1).clip(-9, 9), [4.0, 0.0], [0.25, 9.0]),
        (X % 3, [7.0, -7.0, None], [1.0, 2.0, -99.0]),
        (X // 3, [7.0, -7.0], [2.0, -3.0]),
        (7 % X, [4.0, 0.0], [3.0, -99.0]),
        (7 // X, [2.0, 0.0], [3.0, -99.0]),
        (X.minimum(0), [-1.0, 1.0, NAN, None], [-1.0, 0.0, NAN, -99.0]),
        (X.maximum(0), [-1.0, 1.0, NAN, None], [0.0, 1.0, NAN, -99.0]),
        ((X > 0) & (X < 9), [5.0, 9.0, None], [1.0, 0.0, -99.0]),
        ((X < 0) | (X > 9), [5.0, 10.0, None], [0.0, 1.0, -99.0]),
        (~(X > 0), [5.0, 0.0, None], [0.0, 1.0, -99.0]),
        (X.cast(Dtype.INT64), [-1.9, 2.9, 1e19, INF, NAN, None], [-1.0, 2.0, -99.0, -99.0, -99.0, -99.0]),
        (X.cast(Dtype.INT32), [2147483647.5, 2147483648.0], [2147483647.0, -99.0]),
        (X.cast(Dtype.BOOL), [0.0, 0.1, NAN, None], [0.0, 1.0, 1.0, -99.0]),
        (X.cast(Dtype.STRING) == "3", [3.0, 3.5, None], [1.0, 0.0, -99.0]),
        (X.impute(0) * 1e39, [1.0, -1.0, 1e-90], [INF, -INF, 0.0]),
    ],
)
def test_numbers(expression: Expression, x: Items, expected: Items) -> None:
    assert computed(expression, {"x": x}) == pytest.approx(expected, nan_ok=True, rel=1e-6)


def test_only_the_chosen_side_of_where_decides_its_null() -> None:
    chosen = where(X > 0, Y, 5.0)
    assert computed(chosen, {"x": [1.0, -1.0, 1.0], "y": [None, None, 3.0]}) == [-99.0, 5.0, 3.0]


def test_arithmetic_between_columns_is_null_where_either_is() -> None:
    assert computed(X + Y, {"x": [1.0, None, 1.0], "y": [2.0, 2.0, None]}) == [3.0, -99.0, -99.0]


@pytest.mark.parametrize(
    ("expression", "train", "x", "expected"),
    [
        (X.impute_mean(), [1.0, 3.0, None, NAN, INF], [None], [2.0]),
        (X.impute_median(), [9.0, 1.0, None, 2.0], [None], [2.0]),
        (X.impute_median(), [9.0, 1.0, 3.0, 2.0], [None], [2.5]),
        (X.impute(0).standardise(), [1.0, 3.0], [5.0, 2.0], [3.0, 0.0]),
        (X.impute(0).standardise(), [0.1, 0.1, 0.1], [1.1], [1.0]),
        (X.impute(0).min_max(), [2.0, 4.0], [2.0, 4.0, 6.0], [0.0, 1.0, 2.0]),
        (X.impute(0).min_max(), [2.0, 2.0], [3.0], [1.0]),
        (X.impute_most_frequent(), [2.0, 1.0, 2.0, 1.0, 3.0], [None], [1.0]),
        (X.robust(), [1.0, 2.0, 3.0, 4.0, 5.0], [5.0, 3.0], [1.0, 0.0]),
        (X.robust(), [2.0, 2.0], [3.0], [1.0]),
        (X.clip_quantiles(0.25, 0.75), [1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 9.0], [1.0, 2.0, 3.0]),
        (X.quantile_bucket(2), [1.0, 2.0, 3.0, 4.0], [1.9, 2.0], [0.0, 1.0]),
        (X.quantile_bucket(4), [5.0, 5.0, 5.0], [4.0, 5.0], [0.0, 1.0]),
    ],
)
def test_learned_numbers(expression: Expression, train: Items, x: Items, expected: Items) -> None:
    trained = expression.clean() if NAN in train or INF in train else expression
    assert computed(trained, {"x": x}, train={"x": train}) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("expression", "s", "expected"),
    [
        (S.length(), ["", "ab", "é", None], [0.0, 2.0, 1.0, -99.0]),
        (S.strip().length(), ["  a "], [1.0]),
        (S.lower() == "ab", ["aB", "b", None], [1.0, 0.0, -99.0]),
        (S != "ab", ["ab", "b", None], [0.0, 1.0, -99.0]),
        (S.impute("abc").length(), [None, ""], [3.0, 0.0]),
        (S.impute_most_frequent() == "a", [None, "b"], [1.0, 0.0]),
        (S.index(top_k=2), ["a", "b", "c", "", None], [0.0, 1.0, -1.0, -1.0, -2.0]),
        (S.is_null(), ["", None], [0.0, 1.0]),
        (S.contains("b"), ["abc", "ac", None], [1.0, 0.0, -99.0]),
        (S.replace("b", "").length(), ["abba", None], [2.0, -99.0]),
        (S.is_in(["a", "c"]), ["a", "b", None], [1.0, 0.0, -99.0]),
        (S.cross("x") == "a|x", ["a", "b", None], [1.0, 0.0, -99.0]),
        (S.cross("x", S) == "\\||x|\\|", ["|", "a"], [1.0, 0.0]),
        (S.hash_bucket(10), ["", None], [0.0, -99.0]),
        (S.cast(Dtype.INT32), ["-7.9", "7e9", "x", None], [-7.0, -99.0, -99.0, -99.0]),
    ],
)
def test_strings(expression: Expression, s: Items, expected: Items) -> None:
    assert computed(expression, {"s": s}, train={"s": ["a", "b", "a", "b", "c", None]}) == expected


def test_one_hot_has_an_output_per_category_and_one_for_the_unseen_and_none_for_null() -> None:
    rows = computed(S.one_hot(top_k=2), {"s": ["a", "b", "c", "", None]}, train={"s": ["b", "a", "b", "a", "c"]})
    assert rows == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0]]


def test_given_categories_keep_their_order_and_awkward_ones_are_quoted() -> None:
    transform = Transform({"s": S.one_hot(categories=["z", "oov", '"oov"', ""])})
    fitted = transform.fit({"s": column_of(Dtype.STRING, [None])}, 1)
    assert fitted.output_names == ("s[z]", 's["oov"]', 's[""oov""]', "s[]", "s[oov]")


def test_cyclical_gives_sine_and_cosine_of_the_place_in_the_period() -> None:
    rows = computed(X.impute(0).cyclical(24), {"x": [0.0, 6.0, 12.0, 18.0, -6.0, 24.0 * 10**9 + 6.0]})
    expected = [[0, 1], [1, 0], [0, -1], [-1, 0], [-1, 0], [1, 0]]
    assert rows == [pytest.approx(pair, abs=1e-6) for pair in expected]


@pytest.mark.parametrize("dtype", [Dtype.BOOL, Dtype.INT32, Dtype.INT64, Dtype.FLOAT32, Dtype.FLOAT64])
def test_every_numeric_dtype_is_a_number(dtype: Dtype) -> None:
    items = [True, False, None] if dtype is Dtype.BOOL else [1, 0, None]
    assert computed((column("n", dtype) * 2).impute(-1), {"n": items}) == [2.0, 0.0, -1.0]


def test_nan_leaves_in_one_bit_pattern_whatever_came_in() -> None:
    odd = np.array([0x7FF8DEADBEEF0001, 0xFFF8000000000000], dtype=np.uint64).view(np.float64)
    fitted = Transform({"x": X.impute(0.0)}).fit({"x": column_of(Dtype.FLOAT64, [1.0])}, 1)
    tensor = fitted.prepare().apply({"x": Column(Dtype.FLOAT64, odd, np.ones(2, dtype=np.bool_))}, 2)
    assert tensor.view(np.uint32).tolist() == [[0x7FC00000], [0x7FC00000]]
