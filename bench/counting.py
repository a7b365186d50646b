"""What counting traffic costs: rows of 40 features in the bins of a baseline, with and without 120 outputs.

34 features are numbers with nulls (float32, float64, int64 and bool), 5 are strings and one is a timestamp; all have
statuses, and rows come from 6 views whose ages are counted as well. Of the outputs half are one-hot. The floor does for
each variable of numbers what a page of NumPy would: `searchsorted`, `bincount`, sums and extremes. Both give the same
counts, which are compared before anything is timed. A gateway hands over the rows of many requests at once; the case of
one row is what it would cost not to.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.measure import Ratio, Timing, compare, ratio
from bench.report import Case, Goal, Options, SuiteResult
from skewless.column_table import ColumnTable
from skewless.dtypes import Column, Dtype
from skewless.features.frame import Lines
from skewless.features.visibility import STATUS_CODES
from skewless.statistics.bins import age_bins, column_bins, number_bins
from skewless.statistics.counter import Counter
from skewless.statistics.moments import STEPS_MAX
from skewless.statistics.observed import Observed
from skewless.statistics.tally import Tally
from skewless.statistics.variable import BELOW, Part, Variable
from skewless.timestamps import HOUR_US

SIZES = (1, 64, 1_024)
VIEWS = 6
OUTPUTS = 120
ROW_US_MAX = 5.0
_TRAINING_ROWS = 20_000
_NULL_SHARE, _WORDS, _UNSEEN = 0.05, 40, 2
_DTYPES = {Dtype.FLOAT32: 16, Dtype.FLOAT64: 8, Dtype.INT64: 8, Dtype.BOOL: 2, Dtype.STRING: 5, Dtype.TIMESTAMP: 1}
_START_US, _SPAN_US = 1_356_998_400_000_000, 31_536_000_000_000
_SEED = 20_13

FEATURES, EVERYTHING, LOOP = "40 features", "40 features and 120 outputs", "numbers, one by one"


def run(options: Options) -> SuiteResult:
    """The comparison at each count of rows."""
    counter = Counter(_bins(_observed(_TRAINING_ROWS, seed=_SEED)))
    cases = []
    for rows in SIZES:
        options.progress(f"{rows:,} rows")
        cases.append(_case(options, counter, rows))
    batch = cases[1]
    return SuiteResult(
        suite="counting",
        cases=tuple(cases),
        goals=(
            Goal(
                "40 features of a row, 64 at once",
                _per_row(batch.timings[FEATURES], 64),
                ROW_US_MAX,
                "µs",
                at_most=True,
            ),
            Goal("one by one to all at once, 64 rows", ratio(batch.timings[LOOP], batch.timings[EVERYTHING]), 1.0),
        ),
        floor=LOOP,
        notes=(
            f"{counter.layout.size:,} counts of {len(counter.layout.variables)} variables; compared before timing",
            f"`{LOOP}` counts the numbers of everything, but neither strings nor statuses",
        ),
    )


def _case(options: Options, counter: Counter, rows: int) -> Case:
    everything = _observed(rows, seed=rows)
    features = Observed(rows, everything.columns, everything.statuses, everything.ages_us)
    loop = _Loop(counter)
    _check(counter, loop, everything)
    tally = counter.empty()
    candidates: dict[str, Callable[[], object]] = {
        FEATURES: lambda: counter.add(features, tally),
        EVERYTHING: lambda: counter.add(everything, tally),
        LOOP: lambda: loop.add(everything, tally),
    }
    timings = compare(candidates, repetitions=options.repetitions, min_time_s=options.min_time_s)
    return Case(f"{rows:,} rows", {"rows": rows}, timings, values=rows * len(counter.layout.variables))


def _check(counter: Counter, loop: "_Loop", observed: Observed) -> None:
    """Raise AssertionError unless both count the same numbers."""
    ours, theirs = counter.empty(), counter.empty()
    counter.add(observed, ours)
    loop.add(observed, theirs)
    for left, right in zip(counter.layout.counted(ours), counter.layout.counted(theirs), strict=True):
        assert left.vocabulary or (left.counts, left.moments) == (right.counts, right.moments), left.key


class _Loop:
    """Counts the numbers of every variable by itself."""

    def __init__(self, counter: Counter) -> None:
        layout = counter.layout
        lines = zip(layout.variables, layout.starts, layout.number_lines, strict=True)
        self._layout = layout
        self._numbers = [(variable, start, line) for variable, start, line in lines if line is not None]
        self._edges = [np.array(variable.edges) for variable, _, _ in self._numbers]
        self._grids = [variable.grid for variable, _, _ in self._numbers]

    def add(self, observed: Observed, tally: Tally) -> None:
        """Add every value that is neither null nor NaN nor infinite, and count the nulls."""
        sums = tally.counts[self._layout.sums_start :]
        for (variable, start, line), edges, grid in zip(self._numbers, self._edges, self._grids, strict=True):
            values, known = _numbers(variable, observed)
            values = values[known]
            tally.counts[start] += len(known) - len(values)
            bins = np.bincount(edges.searchsorted(values, "right"), minlength=len(edges) + 1)
            tally.counts[start + BELOW : start + BELOW + len(bins)] += bins
            if len(values):
                steps = np.rint(np.clip((values - grid.centre) / grid.unit, -STEPS_MAX, STEPS_MAX)).astype(np.int64)
                sums[line] += steps.sum()
                sums[line + self._layout.numbers] += steps @ steps
                tally.lows[line] = min(tally.lows[line], values.min())
                tally.highs[line] = max(tally.highs[line], values.max())


def _numbers(variable: Variable, observed: Observed) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    if variable.part is Part.COLUMN:
        column = observed.columns[variable.name]
        hours = column.dtype is Dtype.TIMESTAMP
        return (column.values.astype(np.int64) // HOUR_US % 24 if hours else column.values), column.valid
    if variable.part is Part.AGE:
        return observed.ages_us[variable.name], np.ones(observed.rows, dtype=np.bool_)
    assert observed.tensor is not None
    return observed.tensor[:, int(variable.name)], np.ones(observed.rows, dtype=np.bool_)


def _bins(training: Observed) -> list[Variable]:
    assert training.tensor is not None
    bins = [column_bins(name, each, served=True, known_max=512) for name, each in training.columns.items()]
    bins += [number_bins(Part.OUTPUT, f"{line}", training.tensor[:, line]) for line in range(OUTPUTS)]
    return bins + [age_bins(view, ages) for view, ages in training.ages_us.items()]


def _observed(rows: int, *, seed: int) -> Observed:
    rng = np.random.default_rng(seed)
    columns = {
        f"{dtype}{place}": _column(dtype, rows, rng) for dtype, count in _DTYPES.items() for place in range(count)
    }
    tensor = rng.normal(size=(rows, OUTPUTS)).astype(np.float32)
    tensor[:, : OUTPUTS // 2] = rng.integers(0, OUTPUTS // 2, rows)[:, np.newaxis] == np.arange(OUTPUTS // 2)
    codes = np.zeros((len(columns), rows), dtype=np.uint8)
    codes[rng.random(codes.shape) < _NULL_SHARE] = len(STATUS_CODES) - 1
    ages: Mapping[str, NDArray[np.int64]] = {
        f"view{place}": rng.integers(0, 86_400_000_000, rows) for place in range(VIEWS)
    }
    table = ColumnTable.from_columns(columns, rows)
    return Observed(rows, table, Lines({name: line for line, name in enumerate(columns)}, codes), ages, tensor)


def _column(dtype: Dtype, rows: int, rng: np.random.Generator) -> Column:
    valid = rng.random(rows) >= _NULL_SHARE
    words = np.array([f"w{place}" for place in range(_WORDS + _UNSEEN)], dtype=object)
    made: dict[Dtype, Callable[[], NDArray[Any]]] = {
        Dtype.FLOAT32: lambda: rng.normal(size=rows).astype(np.float32),
        Dtype.FLOAT64: lambda: rng.exponential(9.0, rows),
        Dtype.INT64: lambda: rng.integers(0, 100, rows),
        Dtype.BOOL: lambda: rng.random(rows) < 0.5,
        Dtype.STRING: lambda: words[rng.integers(0, len(words), rows)],
        Dtype.TIMESTAMP: lambda: rng.integers(_START_US, _START_US + _SPAN_US, rows),
    }
    values = made[dtype]()
    values[~valid] = "" if dtype is Dtype.STRING else 0
    return Column(dtype, values, valid)


def _per_row(timing: Timing, rows: int) -> Ratio:
    return Ratio(timing.p50_us / rows, timing.p50_low_us / rows, timing.p50_high_us / rows)
