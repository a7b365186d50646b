"""Operations on numbers against an independent computation of each value: Python's math, statistics, scikit-learn."""

import math
import statistics
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, RobustScaler, StandardScaler

from harness.examples import examples
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidDefinition
from skewless.transforms import Expression, FittedTransform, Transform, column, polynomial
from skewless.transforms.cast_operations import number_text
from skewless.transforms.statistic_operations import rank_at_share

NULL = -12345.0
X, Y = (column(name, Dtype.FLOAT64) for name in ("x", "y"))
WORD = column("word", Dtype.STRING)
NUMBERS = st.none() | st.floats() | st.integers(-9, 9).map(float)
MODERATE = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)
Maybe = float | None
bounded = settings(max_examples=examples(40), deadline=None)


def doubles(values: list[Maybe]) -> Column:
    return column_of(Dtype.FLOAT64, list(values))


def run(expression: Expression, columns: dict[str, Column], rows: int) -> list[float]:
    """The output as float32 numbers, `NULL` where the expression is null; fitted on the zero row."""
    output = expression.impute(NULL) if expression.nullable else expression
    harmless = {"x": doubles([1.0]), "y": doubles([1.0]), "word": column_of(Dtype.STRING, ["1"])}
    fitted = Transform({"out": output}).fit(harmless, 1)
    numbers: list[float] = fitted.prepare().apply(columns, rows)[:, 0].tolist()
    return numbers


def single(value: Maybe) -> float:
    """As it leaves a transform."""
    with np.errstate(over="ignore"):
        return NULL if value is None else float(np.float32(value))


def or_nan(compute: Callable[..., float], *arguments: float) -> float:
    try:
        return compute(*arguments)
    except (ValueError, OverflowError, ZeroDivisionError):
        return math.nan


def _int32(x: float) -> Maybe:
    return float(int(x)) if math.isfinite(x) and -(2**31) <= int(x) < 2**31 else None


UNARY: list[tuple[Expression, Callable[[float], Maybe]]] = [
    (abs(X), abs),
    (X.floor(), lambda x: x if not math.isfinite(x) else float(math.floor(x))),
    (X.ceil(), lambda x: x if not math.isfinite(x) else float(math.ceil(x))),
    (X.round(), lambda x: x if not math.isfinite(x) else float(round(x))),
    (X.sqrt(), lambda x: or_nan(math.sqrt, x)),
    (X**0.5, lambda x: or_nan(math.sqrt, x)),
    (X**2, lambda x: x * x),
    (X**3, lambda x: x * x * x),
    (X**1, lambda x: x),
    (X**-1, lambda x: 1.0 / x if x else math.copysign(math.inf, x)),
    (~X, lambda x: float(x == 0.0)),
    (X.cast(Dtype.BOOL), lambda x: float(x != 0.0)),
    (X.cast(Dtype.FLOAT32), lambda x: x),
    (X.cast(Dtype.FLOAT64), lambda x: x),
    (X.cast(Dtype.INT32), _int32),
    (X.cast(Dtype.INT64), lambda x: float(math.trunc(x)) if -(2.0**63) <= x < 2.0**63 else None),
]


@bounded
@given(st.lists(NUMBERS, min_size=1, max_size=20))
@pytest.mark.parametrize(("expression", "oracle"), UNARY, ids=lambda value: str(getattr(value, "text", "")))
def test_a_function_of_one_number_is_that_of_python(
    expression: Expression, oracle: Callable[[float], Maybe], values: list[Maybe]
) -> None:
    expected = [single(None if value is None else oracle(value)) for value in values]
    assert run(expression, {"x": doubles(values)}, len(values)) == pytest.approx(expected, nan_ok=True, rel=0, abs=0)


@bounded
@given(st.lists(st.floats(-600, 600), min_size=1, max_size=20), st.floats(-3, 3))
def test_exp_log_and_power_are_those_of_python_to_float32(values: list[float], exponent: float) -> None:
    table = {"x": doubles(list(values))}
    exact = [or_nan(math.exp, value) for value in values]
    assert run(X.exp(), table, len(values)) == pytest.approx([single(value) for value in exact], rel=2e-7, nan_ok=True)
    logs = [-math.inf if value == 0 else or_nan(math.log, value) for value in values]
    assert run(X.log(), table, len(values)) == pytest.approx([single(value) for value in logs], rel=2e-7, nan_ok=True)
    powers = [_power(value, exponent) for value in values]
    assert run(X**exponent, table, len(values)) == pytest.approx(
        [single(value) for value in powers], rel=2e-7, nan_ok=True
    )


def _power(value: float, exponent: float) -> float:
    if value == 0.0 and exponent < 0.0:
        odd = exponent.is_integer() and exponent % 2 == 1
        return math.copysign(math.inf, value) if odd else math.inf
    try:
        return math.pow(value, exponent)
    except OverflowError:
        return math.inf if value > 0 or exponent % 2 == 0 else -math.inf
    except ValueError:
        return math.nan


BINARY: list[tuple[Expression, Callable[[float, float], Maybe]]] = [
    (X.minimum(Y), lambda x, y: math.nan if x != x or y != y else min(x, y)),
    (X.maximum(Y), lambda x, y: math.nan if x != x or y != y else max(x, y)),
    (X & Y, lambda x, y: float(x != 0 and y != 0)),
    (X | Y, lambda x, y: float(x != 0 or y != 0)),
]


@bounded
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=20))
@pytest.mark.parametrize(("expression", "oracle"), BINARY, ids=lambda value: str(getattr(value, "text", "")))
def test_a_function_of_two_numbers_is_that_of_python(
    expression: Expression, oracle: Callable[[float, float], Maybe], pairs: list[tuple[Maybe, Maybe]]
) -> None:
    table = {"x": doubles([x for x, _ in pairs]), "y": doubles([y for _, y in pairs])}
    expected = [single(None if x is None or y is None else oracle(x, y)) for x, y in pairs]
    assert run(expression, table, len(pairs)) == pytest.approx(expected, nan_ok=True, rel=0, abs=0)


@bounded
@given(st.lists(st.tuples(st.integers(-(10**6), 10**6), st.integers(-99, 99)), min_size=1, max_size=20))
def test_floored_division_and_its_remainder_are_those_of_whole_numbers(pairs: list[tuple[int, int]]) -> None:
    table = {"x": doubles([float(x) for x, _ in pairs]), "y": doubles([float(y) for _, y in pairs])}
    assert run(X // Y, table, len(pairs)) == [single(float(x // y) if y else None) for x, y in pairs]
    assert run(X % Y, table, len(pairs)) == [single(float(x % y) if y else None) for x, y in pairs]


@bounded
@given(st.lists(st.floats(), min_size=1, max_size=20))
def test_a_number_written_as_text_reads_back_as_itself(values: list[float]) -> None:
    back = run(X.cast(Dtype.STRING).cast(Dtype.FLOAT64), {"x": doubles(list(values))}, len(values))
    assert back == [single(value if math.isfinite(value) else None) for value in values]
    assert all(float(number_text(value)) == value for value in values if value == value)


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "nan", "inf", "1_000", "0x10", "+", ".", "e5", "1e", "٣", "1,5", "1e999"]
)
def test_what_is_no_number_in_ascii_digits_is_null(text: str) -> None:
    assert run(WORD.cast(Dtype.FLOAT64), {"word": column_of(Dtype.STRING, [text])}, 1) == [NULL]


@pytest.mark.parametrize(("text", "number"), [("-1.5e3", -1500.0), ("+7", 7.0), (".5", 0.5), ("5.", 5.0), ("007", 7.0)])
def test_what_is_a_number_in_ascii_digits_is_read(text: str, number: float) -> None:
    assert run(WORD.cast(Dtype.FLOAT64), {"word": column_of(Dtype.STRING, [text])}, 1) == [number]


def learned(expression: Expression, values: list[float]) -> FittedTransform | None:
    """Fitted on the values; None where they span more than the operation or float32 can hold."""
    try:
        return Transform({"out": expression.impute(0.0)}).fit({"x": doubles(list(values))}, len(values))
    except InvalidDefinition:
        return None


@bounded
@given(MODERATE)
@pytest.mark.parametrize(
    ("expression", "scaler"),
    [(X.standardise(), StandardScaler()), (X.min_max(), MinMaxScaler()), (X.robust(), RobustScaler())],
    ids=["standardise", "min_max", "robust"],
)
def test_scaling_is_that_of_scikit_learn(expression: Expression, scaler: object, values: list[float]) -> None:
    table = np.array(values).reshape(-1, 1)
    if 0 < np.ptp(table) < 1e-6 or 0 < np.subtract(*np.percentile(table, [75, 25])) < 1e-6:
        return  # scikit-learn takes a scale near zero for zero; here only zero is
    expected = scaler.fit_transform(table)[:, 0]  # type: ignore[attr-defined]  # scikit-learn ships no types
    fitted = learned(expression, values)
    assert fitted is not None
    actual = fitted.prepare().apply({"x": doubles(list(values))}, len(values))[:, 0]
    assert actual.tolist() == pytest.approx(expected.tolist(), rel=1e-5, abs=1e-5)


@bounded
@given(MODERATE, st.sampled_from([(0.0, 1.0), (0.01, 0.99), (0.1, 0.9), (0.25, 0.5), (1 / 3, 2 / 3)]))
def test_learned_bounds_cut_the_shares_that_were_asked_for(values: list[float], shares: tuple[float, float]) -> None:
    fitted = learned(X.clip_quantiles(*shares), values)
    assert fitted is not None
    (bounds,) = [entry for entry in fitted.to_json()["learned"] if entry]
    for share, bound in zip(shares, (bounds["low"], bounds["high"]), strict=True):
        exact = Fraction(repr(share))
        below_or_at = sum(value <= bound for value in values)
        below = sum(value < bound for value in values)
        assert bound in values
        assert below_or_at >= exact * len(values)
        assert below < exact * len(values) or bound == min(values)


@bounded
@given(st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=40))
def test_the_most_frequent_number_is_the_smallest_mode(values: list[float]) -> None:
    fitted = Transform({"out": X.impute_most_frequent()}).fit({"x": doubles(list(values))}, len(values))
    actual = fitted.prepare().apply({"x": doubles([None])}, 1)[0, 0]
    assert actual == min(statistics.multimode(values)) == pd.Series(values).mode().min()


@pytest.mark.parametrize(
    ("rows", "share", "rank"), [(10, 0.1, 0), (10, 0.11, 1), (10, 1.0, 9), (10, 0.0, 0), (1, 0.5, 0)]
)
def test_a_share_counts_as_the_decimal_fraction_it_is_written_as(rows: int, share: float, rank: int) -> None:
    assert rank_at_share(rows, share) == rank


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-100, 100)] * 3), min_size=1, max_size=8), st.integers(1, 3), st.booleans())
def test_polynomials_are_those_of_scikit_learn_in_its_order_and_names(
    rows: list[tuple[float, float, float]], degree: int, interactions: bool
) -> None:
    names = ["a", "b", "c"]
    sure = {name: column(name, Dtype.FLOAT64, nullable=False) for name in names}
    table = {name: doubles([row[at] for row in rows]) for at, name in enumerate(names)}
    fitted = Transform(polynomial(sure, degree, interactions_only=interactions)).fit(table, len(rows))
    oracle = PolynomialFeatures(degree, interaction_only=interactions, include_bias=False)
    expected = oracle.fit_transform(np.array(rows))
    assert list(fitted.output_names) == oracle.get_feature_names_out(names).tolist()
    np.testing.assert_allclose(fitted.prepare().apply(table, len(rows)), expected, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize(
    "declare",
    [lambda: polynomial({}, 2), lambda: polynomial({"x": X}, 0), lambda: polynomial({str(i): X for i in range(99)}, 4)],
)
def test_a_polynomial_without_a_sensible_size_is_refused(declare: Callable[[], object]) -> None:
    with pytest.raises(InvalidDefinition, match="test_transform_oracles_numbers"):
        declare()
