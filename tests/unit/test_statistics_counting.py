"""Counting: every value in exactly one bin, the same in any chunks, order and form of table, as a naive twin counts."""

import math
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.examples import examples
from skewless.column_table import ColumnTable, beside
from skewless.dtypes import Column, Dtype, column_of, to_python
from skewless.errors import InvalidDefinition
from skewless.features.frame import FeatureFrame, Lines
from skewless.features.visibility import NO_EVENT_TIME, STATUS_CODES
from skewless.statistics.ages import NO_AGE
from skewless.statistics.bins import age_bins, column_bins, number_bins
from skewless.statistics.counter import CHUNK_NUMBERS, FORMS_MAX, Counter
from skewless.statistics.moments import STEPS_MAX
from skewless.statistics.observed import Observed
from skewless.statistics.tally import ROWS_MAX, Tally
from skewless.statistics.variable import Measure, Part, Variable
from skewless.statistics.words import fingerprint

few = settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Each example is a table of every kind of column."""
HOUR_US = 3_600_000_000
ELEMENTS: dict[Dtype, st.SearchStrategy[object]] = {
    Dtype.BOOL: st.booleans(),
    Dtype.INT32: st.integers(-(2**31), 2**31 - 1) | st.integers(-3, 3),
    Dtype.INT64: st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3),
    Dtype.FLOAT32: st.floats(width=32) | st.sampled_from([0.0, -0.0, 0.1, 1.0]),
    Dtype.FLOAT64: st.floats() | st.sampled_from([0.0, -0.0, 0.1, 1.0]),
    Dtype.STRING: st.text(max_size=3) | st.sampled_from(["", "å", "a", "日本", "\ud800"]),
    Dtype.BYTES: st.binary(max_size=4),
    Dtype.TIMESTAMP: st.integers(-(10**15), 2 * 10**15),
    Dtype.FLOAT32_LIST: st.lists(st.floats(width=32), max_size=3).map(tuple),
}
FEATURES = {dtype: f"view__{dtype}" for dtype in ELEMENTS}
"""One column of each dtype, all of one view."""


@st.composite
def tables(draw: st.DrawFn, *, rows_max: int = 16) -> Observed:
    """Rows of every kind of column, with nulls, ages, statuses, two outputs and a score."""
    rows = draw(st.integers(0, rows_max))

    def listed(element: st.SearchStrategy[object]) -> list[object]:
        return draw(st.lists(element, min_size=rows, max_size=rows))

    columns = {name: column_of(dtype, listed(st.none() | ELEMENTS[dtype])) for dtype, name in FEATURES.items()}
    single = ELEMENTS[Dtype.FLOAT32]
    ages = listed(st.just(NO_AGE) | st.integers(0, 10**14))
    codes = {name: np.array(listed(st.integers(0, len(STATUS_CODES) - 1)), dtype=np.uint8) for name in columns}
    return Observed(
        rows,
        columns,
        codes,
        {"view": np.array(ages, dtype=np.int64)},
        np.array([listed(single), listed(single)], dtype=np.float32).T.reshape(rows, 2),
        {"score": np.array(listed(single), dtype=np.float32)},
    )


def bins_of(training: Observed) -> tuple[Variable, ...]:
    assert training.tensor is not None
    return (
        *(column_bins(name, column, served=True, known_max=5) for name, column in training.columns.items()),
        *(number_bins(Part.OUTPUT, f"out{line}", training.tensor[:, line]) for line in range(2)),
        *(number_bins(Part.SCORE, name, values) for name, values in training.scores.items()),
        *(age_bins(view, ages) for view, ages in training.ages_us.items()),
    )


def tally_of(counter: Counter, *parts: Observed) -> Tally:
    tally = counter.empty()
    for part in parts:
        counter.add(part, tally)
    return tally


def same(left: Tally, right: Tally) -> bool:
    return (
        left.layout == right.layout
        and left.counts.tolist() == right.counts.tolist()
        and left.lows.tolist() == right.lows.tolist()
        and left.highs.tolist() == right.highs.tolist()
    )


def chosen(observed: Observed, rows: Sequence[int]) -> Observed:
    index = np.array(rows, dtype=np.intp)
    assert observed.tensor is not None
    return Observed(
        len(rows),
        {name: Column(each.dtype, each.values[index], each.valid[index]) for name, each in observed.columns.items()},
        {name: codes[index] for name, codes in observed.statuses.items()},
        {view: ages[index] for view, ages in observed.ages_us.items()},
        observed.tensor[index],
        {name: values[index] for name, values in observed.scores.items()},
    )


# The naive twin: one value at a time, by the words of the module's docstring.


def place_of(value: object, variable: Variable) -> int:
    if value is None:
        return 0
    if variable.vocabulary is not None:
        known = variable.vocabulary
        assert isinstance(value, str)
        if value in known.listed:
            return 3 + known.listed.index(value)
        if not known.closed or fingerprint(value) in known.rest:
            return 2
        return 1
    number = number_of(value, variable)
    if math.isnan(number):
        return 1
    if number == -math.inf:
        return 2
    if number == math.inf:
        return variable.size - 1
    return 3 + sum(edge <= number for edge in variable.edges)


def number_of(value: object, variable: Variable) -> float:
    if variable.measure is Measure.HOUR:
        assert isinstance(value, int)
        return float(value // HOUR_US % 24)
    if variable.measure is Measure.LENGTH:
        assert isinstance(value, tuple | bytes)
        return float(len(value))
    assert isinstance(value, int | float)
    return float(value)


def values_of(variable: Variable, observed: Observed) -> list[object]:
    if variable.part is Part.COLUMN:
        return to_python(observed.columns[variable.name])
    if variable.part is Part.AGE:
        return [None if age == NO_AGE else age for age in observed.ages_us[variable.name].tolist()]
    if variable.part is Part.SCORE:
        return list(observed.scores[variable.name].tolist())
    assert observed.tensor is not None
    return list(observed.tensor[:, int(variable.name.removeprefix("out"))].tolist())


def steps_of(number: float, variable: Variable) -> int:
    grid = variable.grid
    with np.errstate(over="ignore"):
        steps = float(np.float64(number - grid.centre) * (1.0 / grid.unit))
    return round(min(max(steps, -STEPS_MAX), STEPS_MAX))


@few
@given(tables(), tables())
def test_counts_are_those_of_a_naive_twin(training: Observed, traffic: Observed) -> None:
    counter = Counter(bins_of(training))
    tally = tally_of(counter, traffic)
    assert tally.rows == traffic.rows
    for place, counted in enumerate(counter.layout.counted(tally)):
        values = values_of(counted, traffic)
        variable = counter.layout.variables[place]
        expected = [0] * variable.size
        for value in values:
            expected[place_of(value, variable)] += 1
        assert counted.counts == tuple(expected), variable.key
        if variable.part is Part.COLUMN:
            codes = traffic.statuses[variable.name].tolist()
            assert counted.statuses == {
                status.value: codes.count(code) for code, status in enumerate(STATUS_CODES) if code in codes
            }


@few
@given(tables(), tables())
def test_sums_and_extremes_are_those_of_a_naive_twin(training: Observed, traffic: Observed) -> None:
    counter = Counter(bins_of(training))
    tally = tally_of(counter, traffic)
    layout = counter.layout
    for variable, line in zip(layout.variables, layout.number_lines, strict=True):
        if line is None:
            continue
        numbers = [number_of(value, variable) for value in values_of(variable, traffic) if value is not None]
        finite = [number for number in numbers if math.isfinite(number)]
        steps = [steps_of(number, variable) for number in finite]
        assert tally.counts[layout.sums_start + line] == sum(steps)
        assert tally.counts[layout.sums_start + layout.numbers + line] == sum(step**2 for step in steps)
        assert tally.lows[line] == min(finite, default=math.inf)
        assert tally.highs[line] == max(finite, default=-math.inf)


@few
@given(tables(), tables(), st.data())
def test_any_chunks_in_any_order_count_as_the_whole_bit_for_bit(
    training: Observed, traffic: Observed, data: st.DataObject
) -> None:
    counter = Counter(bins_of(training))
    whole = tally_of(counter, traffic)
    order = data.draw(st.permutations(range(traffic.rows)))
    cut = data.draw(st.integers(0, traffic.rows))
    first, second = chosen(traffic, order[:cut]), chosen(traffic, order[cut:])
    assert same(tally_of(counter, first, second), whole)
    assert same(tally_of(counter, second).merged(tally_of(counter, first)), whole)
    assert same(tally_of(counter, *(chosen(traffic, [row]) for row in order)), whole)
    assert same(counter.empty().merged(whole), whole)


@few
@given(tables(rows_max=12), tables(rows_max=12))
def test_every_form_of_rows_counts_alike(training: Observed, traffic: Observed) -> None:
    counter = Counter(bins_of(training))
    whole = tally_of(counter, traffic)
    names = list(traffic.columns)
    odd, even = ({name: traffic.columns[name] for name in half} for half in (names[1::2], names[::2]))
    two_tables = beside(odd, even, traffic.rows)
    reversed_columns = {name: traffic.columns[name] for name in reversed(names)}
    wider = {"unread": column_of(Dtype.INT32, [7] * traffic.rows), **traffic.columns}
    matrix = np.array(list(traffic.statuses.values()), dtype=np.uint8).reshape(len(names), traffic.rows)
    lines = Lines({name: line for line, name in enumerate(traffic.statuses)}, matrix)
    for columns in (two_tables, reversed_columns, wider, ColumnTable.from_columns(wider, traffic.rows)):
        formed = Observed(traffic.rows, columns, lines, traffic.ages_us, traffic.tensor, traffic.scores)
        assert same(tally_of(counter, formed), whole)


def test_many_rows_are_counted_as_in_small_chunks() -> None:
    rows = CHUNK_NUMBERS + 1234
    rng = np.random.default_rng(3)
    valid = rng.random(rows) > 0.1
    values = np.where(valid, rng.lognormal(0, 2, rows), 0.0)
    column = Column(Dtype.FLOAT64, values, valid)
    counter = Counter([column_bins("a", column, served=False, known_max=5)])
    whole = tally_of(counter, Observed(rows, {"a": column}))
    pieces = [
        Observed(
            min(997, rows - start),
            {"a": Column(Dtype.FLOAT64, values[start : start + 997], valid[start : start + 997])},
        )
        for start in range(0, rows, 997)
    ]
    assert same(tally_of(counter, *pieces), whole)
    (counted,) = counter.layout.counted(whole)
    assert counted.total == rows
    assert counted.nulls == np.count_nonzero(~valid)


@pytest.mark.parametrize("dtype", [Dtype.FLOAT32, Dtype.FLOAT64])
def test_a_value_equal_to_an_edge_falls_into_the_bin_above_it_in_any_precision(dtype: Dtype) -> None:
    """0.1 as float32 is another number than as float64; cast first, it meets an edge that was cast as well."""
    training = column_of(dtype, (*[0.1] * 40, *[0.2] * 40, *[0.3] * 40))
    counter = Counter([column_bins("a", training, served=False, known_max=5)])
    (training_counts,) = counter.layout.counted(tally_of(counter, Observed(120, {"a": training})))
    for value in (0.1, 0.2, 0.3):
        (counted,) = counter.layout.counted(tally_of(counter, Observed(1, {"a": column_of(dtype, (value,))})))
        place = counted.counts.index(1)
        assert training_counts.counts[place] == 40
        assert counted.unseen == 0


@pytest.mark.parametrize("dtype", [Dtype.FLOAT32, Dtype.FLOAT64])
def test_the_largest_number_of_a_dtype_is_nothing_unseen(dtype: Dtype) -> None:
    """It stands for "unknown" in some sources."""
    largest = float(np.finfo(np.float32 if dtype is Dtype.FLOAT32 else np.float64).max)
    training = column_of(dtype, (1.0, largest, largest))
    counter = Counter([column_bins("a", training, served=False, known_max=5)])
    (counted,) = counter.layout.counted(tally_of(counter, Observed(3, {"a": training})))
    assert counted.unseen == 0
    (counted,) = counter.layout.counted(tally_of(counter, Observed(1, {"a": column_of(dtype, (-1.0,))})))
    assert counted.unseen == 1


def test_a_part_that_is_left_out_is_not_counted() -> None:
    training = Observed(
        3,
        {"a": column_of(Dtype.INT64, [1, 2, 3])},
        tensor=np.ones((3, 2), dtype=np.float32),
        scores={"score": np.ones(3, dtype=np.float32)},
    )
    bins = (
        column_bins("a", training.columns["a"], served=True, known_max=5),
        *(number_bins(Part.OUTPUT, f"out{line}", np.ones(3, dtype=np.float32)) for line in range(2)),
        number_bins(Part.SCORE, "score", np.ones(3, dtype=np.float32)),
        age_bins("view", np.array([1, 2, 3])),
    )
    counter = Counter(bins)
    counted = counter.layout.counted(tally_of(counter, training))
    assert [variable.total for variable in counted] == [3, 3, 3, 3, 0]
    assert counted[0].statuses == {}
    assert counted[4].moments is None


@pytest.mark.parametrize(
    ("observed", "message"),
    [
        (Observed(1, {"b": column_of(Dtype.INT64, [1])}), "column `a` is missing"),
        (Observed(1, {"a": column_of(Dtype.INT32, [1])}), "column `a` is `int32`"),
        (Observed(1, tensor=np.ones((1, 2), dtype=np.float32)), "the tensor has shape"),
        (Observed(1, ages_us={"other": np.array([1])}), "age of view `view` is missing"),
        (Observed(1, statuses={"other": np.zeros(1, dtype=np.uint8)}), "status of feature `a` is missing"),
        (Observed(1, scores={"other": np.ones(1, dtype=np.float32)}), "score `score` is missing"),
        (Observed(2, {"a": column_of(Dtype.INT64, [1])}), "has 1 rows"),
        (Observed(2, scores={"score": np.ones(1, dtype=np.float32)}), "has 1 rows"),
        (Observed(2, tensor=np.ones((1, 1), dtype=np.float32)), "has 1 rows"),
    ],
)
def test_what_does_not_fit_is_refused_and_counts_nothing(observed: Observed, message: str) -> None:
    ones = np.ones(3, dtype=np.float32)
    counter = Counter(
        [
            column_bins("a", column_of(Dtype.INT64, [1, 2, 3]), served=True, known_max=5),
            number_bins(Part.OUTPUT, "out", ones),
            number_bins(Part.SCORE, "score", ones),
            age_bins("view", np.array([1])),
        ]
    )
    tally = counter.empty()
    with pytest.raises(InvalidDefinition, match=message):
        counter.add(observed, tally)
    assert same(tally, counter.empty())


def test_tallies_of_other_bins_are_neither_merged_nor_read() -> None:
    one, other = (
        Counter([column_bins("a", column_of(Dtype.INT64, (items,)), served=False, known_max=5)]) for items in (1, 2)
    )
    with pytest.raises(InvalidDefinition, match="cannot be added"):
        one.empty().merged(other.empty())
    with pytest.raises(InvalidDefinition, match="cannot be read"):
        one.layout.counted(other.empty())


def test_threads_share_a_counter() -> None:
    rng = np.random.default_rng(8)
    column = Column(Dtype.FLOAT64, rng.normal(size=2_000), np.ones(2_000, dtype=np.bool_))
    counter = Counter([column_bins("a", column, served=False, known_max=5)])
    parts = [
        Observed(
            250, {"a": Column(Dtype.FLOAT64, column.values[start : start + 250], column.valid[start : start + 250])}
        )
        for start in range(0, 2_000, 250)
    ]
    with ThreadPoolExecutor(8) as pool:
        tallies = list(pool.map(lambda part: tally_of(counter, part), parts))
    assert same(reduce(Tally.merged, tallies), tally_of(counter, Observed(2_000, {"a": column})))


def test_a_tally_of_too_many_rows_is_refused() -> None:
    counter = Counter([column_bins("a", column_of(Dtype.INT64, [1]), served=False, known_max=5)])
    tally = counter.empty()
    tally.counts[0] = ROWS_MAX
    with pytest.raises(InvalidDefinition, match="count shorter spans"):
        counter.add(Observed(1, {"a": column_of(Dtype.INT64, [1])}), tally)
    with pytest.raises(InvalidDefinition, match="too large"):
        tally.merged(tally)


def test_outliers_of_every_row_allowed_cannot_overflow_a_sum() -> None:
    assert ROWS_MAX * STEPS_MAX**2 < 2**63


def test_a_counter_counts_more_forms_than_it_keeps() -> None:
    columns = {name: column_of(dtype, [None]) for dtype, name in FEATURES.items()}
    counter = Counter([column_bins(name, column, served=False, known_max=5) for name, column in columns.items()])
    tally = counter.empty()
    orders = [random.Random(seed).sample(list(columns), len(columns)) for seed in range(2 * FORMS_MAX)]
    for order in orders:
        counter.add(Observed(1, {name: columns[name] for name in order}), tally)
    assert tally.rows == len(orders)
    assert all(counted.nulls == tally.rows for counted in counter.layout.counted(tally))


def test_served_rows_are_counted_with_their_ages_and_statuses() -> None:
    stored = column_of(Dtype.FLOAT32, [1.5, None])
    given_columns = {"key": column_of(Dtype.STRING, ["a", "b"])}
    frame = FeatureFrame(
        2,
        {"view__x": stored},
        {"view__x": np.array([0, 2], dtype=np.uint8)},
        {"view": np.array([40, NO_EVENT_TIME])},
    )
    observed = Observed.served(given_columns, frame, 100, np.zeros((2, 1), dtype=np.float32), {})
    counter = Counter(
        [
            column_bins("key", given_columns["key"], served=False, known_max=5),
            column_bins("view__x", stored, served=True, known_max=5),
            age_bins("view", np.array([1])),
        ]
    )
    only = Observed(2, observed.columns, observed.statuses, observed.ages_us)
    key, feature, age = counter.layout.counted(tally_of(counter, only))
    assert key.counts == (0, 0, 0, 1, 1)
    assert feature.statuses == {"ok": 1, "missing": 1}
    assert age.nulls == 1
    assert age.moments is not None
    assert age.moments.maximum == 60
