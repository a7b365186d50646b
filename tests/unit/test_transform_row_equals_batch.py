"""A row gives the same bits alone, in any batch, and however the batch is cut, sliced or aligned in memory.

Transforms are random graphs over every operation; rows hold nulls, NaN, infinities, denormals, signed zeros,
extremes, unseen and empty strings.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.examples import examples
from skewless.column_table import ColumnTable
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidDefinition
from skewless.transforms import Expression, FittedTransform, PreparedTransform, Transform, column, where
from skewless.transforms.catalogue import CATALOGUE
from skewless.transforms.executions import executions_of, part
from skewless.transforms.fitting import learn
from skewless.transforms.operation import Kind

DTYPES = {
    "flag": Dtype.BOOL,
    "small": Dtype.INT32,
    "count": Dtype.INT64,
    "single": Dtype.FLOAT32,
    "double": Dtype.FLOAT64,
    "word": Dtype.STRING,
    "moment": Dtype.TIMESTAMP,
}
VALUES: dict[Dtype, st.SearchStrategy[object]] = {
    Dtype.BOOL: st.booleans(),
    Dtype.INT32: st.integers(-(2**31), 2**31 - 1),
    Dtype.INT64: st.integers(-(2**63), 2**63 - 1),
    Dtype.FLOAT32: st.floats(width=32),
    Dtype.FLOAT64: st.floats() | st.sampled_from([5e-324, -5e-324, -0.0, 1.7e308, -1.7e308, -1.0]),
    Dtype.STRING: st.sampled_from(["a", "B", " b ", "", "oov"]) | st.text(max_size=4),
    Dtype.TIMESTAMP: st.integers(-(2**63), 2**63 - 1) | st.integers(1_300_000_000_000_000, 1_400_000_000_000_000),
}
ROW = st.tuples(*(st.none() | VALUES[dtype] for dtype in DTYPES.values()))
ZONES = st.sampled_from(["America/New_York", "Europe/Berlin", "UTC"])
CAST_TO = st.sampled_from([Dtype.INT32, Dtype.INT64, Dtype.FLOAT32, Dtype.BOOL])
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def of_kind(kind: Kind) -> st.SearchStrategy[Expression]:
    """Columns of a kind."""
    expressions = [column(name, dtype) for name, dtype in DTYPES.items()]
    return st.sampled_from([each for each in expressions if each.kind is kind])


def text_expressions() -> st.SearchStrategy[Expression]:
    return st.recursive(
        of_kind(Kind.STRING),
        lambda inner: st.one_of(
            inner.map(Expression.lower),
            inner.map(Expression.upper),
            inner.map(Expression.strip),
            inner.map(Expression.impute_most_frequent),
            st.builds(Expression.impute, inner, st.text(max_size=3)),
            st.builds(Expression.replace, inner, st.text(min_size=1, max_size=2), st.text(max_size=2)),
            st.builds(Expression.cross, inner, of_kind(Kind.STRING)),
            of_kind(Kind.NUMBER).map(lambda number: number.cast(Dtype.STRING)),
        ),
        max_leaves=3,
    )


def time_parts() -> st.SearchStrategy[Expression]:
    part = st.sampled_from(
        [
            Expression.hour, Expression.minute, Expression.second, Expression.minute_of_day, Expression.day_of_week,
            Expression.day_of_month, Expression.day_of_year, Expression.week_of_year, Expression.month,
            Expression.quarter, Expression.year,
        ]
    )  # fmt: skip
    moment = of_kind(Kind.TIMESTAMP)
    return st.builds(lambda take, at, zone: take(at, zone), part, moment, ZONES)


def number_leaves() -> st.SearchStrategy[Expression]:
    words = text_expressions()
    return st.one_of(
        of_kind(Kind.NUMBER),
        time_parts(),
        of_kind(Kind.TIMESTAMP).map(Expression.epoch_seconds),
        st.builds(Expression.seconds_since, of_kind(Kind.TIMESTAMP), of_kind(Kind.TIMESTAMP)),
        words.map(Expression.length),
        words.map(lambda word: word.cast(Dtype.FLOAT64)),
        words.map(Expression.target_encode),
        st.builds(
            lambda take, word, text: take(word, text),
            st.sampled_from([Expression.contains, Expression.starts_with, Expression.ends_with]),
            words,
            st.text(min_size=1, max_size=2),
        ),
        st.builds(Expression.is_in, words, st.lists(st.sampled_from(["a", "B", ""]), unique=True)),
        st.builds(Expression.hash_bucket, words, st.integers(1, 1_000)),
        words.map(Expression.is_null),
        of_kind(Kind.TIMESTAMP).map(Expression.is_null),
        st.builds(lambda word, top_k: word.index(top_k=top_k), words, st.integers(1, 3)),
        st.builds(lambda word, other: word == other, words, words | st.text(max_size=2)),
        st.builds(lambda word, other: word != other, words, words | st.text(max_size=2)),
    )


def number_operations(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    either = inner | FINITE
    binary: list[Callable[[Expression, Expression | float], Expression]] = [
        Expression.__add__, Expression.__sub__, Expression.__mul__, Expression.__truediv__, Expression.__lt__,
        Expression.__le__, Expression.__gt__, Expression.__ge__, Expression.__eq__, Expression.__ne__,
        Expression.__mod__, Expression.__floordiv__, Expression.__and__, Expression.__or__, Expression.minimum,
        Expression.maximum,
    ]  # fmt: skip
    unary = [
        Expression.is_null, Expression.impute_mean, Expression.impute_median, Expression.standardise,
        Expression.min_max, Expression.log1p, Expression.robust, Expression.clip_quantiles,
        Expression.impute_most_frequent, Expression.abs, Expression.floor, Expression.ceil, Expression.round,
        Expression.sqrt, Expression.exp, Expression.log, Expression.__invert__,
    ]  # fmt: skip
    bounds = st.tuples(FINITE, FINITE).map(sorted)
    return st.one_of(
        st.builds(lambda take, left, right: take(left, right), st.sampled_from(binary), inner, either),
        st.builds(lambda take, operand: take(operand), st.sampled_from(unary), inner),
        st.builds(lambda operand, dtype: operand.cast(dtype), inner, CAST_TO),
        st.builds(Expression.power, inner, st.sampled_from([-1.0, 0.5, 1.0, 2.0, 3.0, 0.3, -2.5, 7.0])),
        st.builds(where, inner, either, either),
        st.builds(Expression.impute, inner, FINITE),
        st.builds(lambda operand, bound: operand.clip(*bound), inner, bounds),
        st.builds(lambda operand, bound: operand.clean(*bound), inner, bounds),
        st.builds(Expression.bucket, inner, st.lists(FINITE, min_size=1, max_size=4, unique=True).map(sorted)),
        st.builds(Expression.quantile_bucket, inner, st.integers(2, 5)),
    )


def outputs() -> st.SearchStrategy[Expression]:
    numbers = st.recursive(number_leaves(), number_operations, max_leaves=6)
    not_null = st.builds(lambda each, value: each.impute(value) if each.nullable else each, numbers, FINITE)
    return st.one_of(
        not_null,
        st.builds(Expression.cyclical, not_null, st.floats(1e-3, 1e3)),
        st.builds(lambda word, top_k: word.one_hot(top_k=top_k), text_expressions(), st.integers(1, 3)),
        st.builds(lambda word: word.one_hot(categories=["a", "B", ""], oov=False), text_expressions()),
    )


def table(rows: list[tuple[object, ...]]) -> dict[str, Column]:
    columns = zip(*rows, strict=True) if rows else [()] * len(DTYPES)
    return {name: column_of(dtype, list(items)) for (name, dtype), items in zip(DTYPES.items(), columns, strict=True)}


def bits(prepared: PreparedTransform, columns: Mapping[str, Column], rows: int) -> NDArray[np.uint32]:
    tensor = prepared.apply(columns, rows)
    assert tensor.shape == (rows, len(prepared.output_names))
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    return tensor.view(np.uint32)


def fitted(transform: Transform, training: dict[str, Column], rows: int) -> FittedTransform:
    """Fitted without refusing outputs that are not finite: they must be equal too."""
    target = Column(Dtype.FLOAT64, np.arange(rows, dtype=np.float64), np.ones(rows, dtype=np.bool_))
    try:
        return FittedTransform(transform.graph, learn(transform.graph, training, rows, target=target))
    except InvalidDefinition:
        assume(False)
        raise


@settings(max_examples=examples(150), deadline=None)
@given(
    st.lists(outputs(), min_size=1, max_size=6),
    st.lists(ROW, min_size=1, max_size=12),
    st.lists(ROW, max_size=40),
    st.integers(1, 9),
)
def test_a_row_equals_itself_in_every_batch(
    expressions: list[Expression],
    training_rows: list[tuple[object, ...]],
    served_rows: list[tuple[object, ...]],
    size: int,
) -> None:
    transform = Transform({f"out{place}": each for place, each in enumerate(expressions)})
    transformed = fitted(transform, table(training_rows), len(training_rows))
    prepared = transformed.prepare()
    rows = training_rows + served_rows
    columns, count = table(rows), len(rows)
    together = bits(prepared, columns, count)
    for start in range(0, count, size):
        stop = min(start + size, count)
        assert (bits(prepared, part(columns, slice(start, stop)), stop - start) == together[start:stop]).all()
    for place, row in enumerate(rows):
        assert (bits(prepared, table([row]), 1) == together[place]).all()
        blocks = ColumnTable.from_columns(table([row]), 1)
        assert (bits(prepared, blocks, 1) == together[place]).all(), transform.to_json()
    assert bits(prepared, table([]), 0).shape[0] == 0
    for name, execution in executions_of(transformed).items():
        assert (execution(columns, count).view(np.uint32) == together).all(), f"{name} of {transform.to_json()}"


def test_a_table_longer_than_one_chunk_equals_its_rows() -> None:
    seed, rows = 7, 10_000
    rng = np.random.default_rng(seed)
    value = column("value", Dtype.FLOAT32)
    word = column("word", Dtype.STRING)
    transform = Transform(
        {
            "log": value.clip(0.0, None).impute_mean().log1p().standardise(),
            "cycle": value.impute_median().cyclical(0.7),
            "word": word.one_hot(top_k=2),
            "ratio": (value / (value - 1.0)).clean(-9, 9).impute(0.0),
        }
    )
    columns = {
        "value": Column(Dtype.FLOAT32, rng.normal(size=rows).astype(np.float32), rng.random(rows) > 0.1),
        "word": Column(
            Dtype.STRING, np.array(["a", "b", "c"], dtype=object)[rng.integers(0, 3, rows)], rng.random(rows) > 0.1
        ),
    }
    prepared = transform.fit(columns, rows).prepare()
    together = bits(prepared, columns, rows)
    for place in rng.integers(0, rows, 300).tolist():
        assert (bits(prepared, part(columns, slice(place, place + 1)), 1) == together[place]).all(), f"seed {seed}"


def test_threads_that_share_a_prepared_transform_do_not_mix_their_rows() -> None:
    value, word = column("value", Dtype.FLOAT64), column("word", Dtype.STRING)
    training = {
        "value": column_of(Dtype.FLOAT64, [1.0, 2.0, 5.0, None]),
        "word": column_of(Dtype.STRING, ["a", "b", None, "a"]),
    }
    outputs = {
        "scaled": value.impute_median().standardise(),
        "log": value.impute(0.0).abs().log1p(),
        "cycle": value.impute(0.0).cyclical(24.0),
        "word": word.lower().one_hot(top_k=2),
    }
    prepared = Transform(outputs).fit(training, 4).prepare()

    def differing(seed: int) -> int:
        rng = np.random.default_rng(seed)
        wrong = 0
        for _ in range(200):
            rows = int(rng.choice([1, 2, 5, 5, 64]))
            columns = {
                "value": Column(Dtype.FLOAT64, rng.normal(size=rows), rng.random(rows) > 0.2),
                "word": column_of(Dtype.STRING, rng.choice(["a", "B", "c"], rows).tolist()),
            }
            expected = np.concatenate([prepared.apply(part(columns, slice(row, row + 1)), 1) for row in range(rows)])
            wrong += int((prepared.apply(ColumnTable.from_columns(columns, rows), rows) != expected).any())
        return wrong

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(differing, range(4))) == [0] * 4


OUTSIDE_OF_THE_CATALOGUE = {"onnx", "python"}
"""What they compute is not ours; tests of their own check them for rows and batches."""


def test_the_random_transforms_use_every_operation() -> None:
    """A new operation must be added to the strategies above."""
    written = {
        "add", "subtract", "multiply", "divide", "less", "less_equal", "greater", "greater_equal", "equal",
        "not_equal", "is_null", "impute_mean", "impute_median", "standardise", "min_max", "log1p", "where",
        "impute", "clip", "clean", "bucket", "quantile_bucket", "cyclical", "constant", "column", "lower",
        "strip", "length", "impute_text", "impute_most_frequent", "index", "one_hot", "text_equal",
        "text_not_equal", "text_constant", "local_time", "hour", "minute_of_day", "day_of_week", "month",
        "year", "abs", "and", "ceil", "clip_quantiles", "contains", "cross", "day_of_month", "day_of_year",
        "ends_with", "epoch_seconds", "exp", "floor", "floor_divide", "hash_bucket", "impute_most_frequent_number",
        "is_in", "log", "maximum", "minimum", "minute", "modulo", "not", "one_hot_known", "or", "power", "quarter",
        "replace", "robust", "round", "second", "seconds_between", "sqrt", "starts_with", "target_encode",
        "to_float32", "to_integer", "to_number", "to_text", "upper", "week_of_year",
    }  # fmt: skip
    assert set(CATALOGUE) - OUTSIDE_OF_THE_CATALOGUE == written
