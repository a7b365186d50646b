"""What applying a transform costs: ours beside scikit-learn and ONNX Runtime, for one row, 64 and 100,000.

Forty columns become 115 outputs. 34 are numbers with nulls: imputed with the median, standardised and told to be null
(12 float32), imputed with the mean and scaled to their range (6 float64), imputed and standardised (8 int64), log1p
(4 float32), sine and cosine (2 float64), and flags (2 bool). 5 are strings, four of them one-hot encoded (16, 16, 16
and 12 categories) and one by its place in a vocabulary of 300; one is a timestamp, of which four local parts and two
cyclical ones are taken. scikit-learn does the same with a ColumnTransformer on a pandas frame, ONNX Runtime with our
export, on one thread. All of them give the same tensor, which is compared before anything is timed, and all are
handed rows in the form that they read fastest, so that no conversion is timed.
"""

import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler

from bench.measure import Ratio, Timing, compare, ratio
from bench.report import Case, Goal, Options, SuiteResult, single
from skewless.adapters.onnx_transform import OnnxTransform
from skewless.column_table import ColumnTable
from skewless.dtypes import Column, Dtype
from skewless.transforms import Expression, FittedTransform, PreparedTransform, Transform, column

SCALED = tuple(f"scaled{index}" for index in range(12))
RANGED = tuple(f"ranged{index}" for index in range(6))
COUNTS = tuple(f"count{index}" for index in range(8))
LOGGED = tuple(f"logged{index}" for index in range(4))
ANGLES = ("angle0", "angle1")
FLAGS = ("flag0", "flag1")
WORDS = {"word0": 16, "word1": 16, "word2": 16, "word3": 12}
"""Columns that are one-hot encoded, with the count of their categories."""
LONG_WORD, LONG_VOCABULARY = "word4", 300
MOMENT, ZONE = "moment", "America/New_York"

TRAINING_ROWS = 20_000
SIZES = (1, 64, 100_000)
LARGE_ROWS = SIZES[-1]
ONE_ROW_US_MAX = 30.0
ROW_OF_64_US_MAX = 3.0
ROWS_PER_S_MIN = 1_000_000.0
PEAK_MAX = 3.0
_NULL_SHARE, _UNSEEN = 0.05, 2
_START_US, _SPAN_US = 1_356_998_400_000_000, 31_536_000_000_000
_SEED = 20_13

OURS, COLUMNS, SKLEARN, ONNX = "skewless", "skewless, from columns", "scikit-learn", "ONNX Runtime"


def run(options: Options) -> SuiteResult:
    """The comparison at each count of rows, and the memory that the largest takes."""
    training = _columns(TRAINING_ROWS, seed=_SEED)
    fitted = _transform().fit(training, TRAINING_ROWS)
    options.progress("fitting scikit-learn")
    sklearn: Any = _scikit_learn(fitted)
    sklearn.fit(_frame(training))
    onnx = OnnxTransform(fitted)
    cases = []
    for rows in SIZES:
        options.progress(f"{rows:,} rows")
        cases.append(_case(options, rows, fitted, sklearn, onnx))
    peak = _peak_share(fitted.prepare())
    one, batch, large = (case.timings for case in cases)
    return SuiteResult(
        suite="transforms",
        cases=tuple(cases),
        goals=(
            Goal("1 row", _per_row(one[OURS], 1), ONE_ROW_US_MAX, "µs", at_most=True),
            Goal("a row of 64", _per_row(batch[OURS], 64), ROW_OF_64_US_MAX, "µs", at_most=True),
            Goal("rows a second of one core's time", _rows_per_s(large[OURS], LARGE_ROWS), ROWS_PER_S_MIN, "/s"),
            Goal("peak memory of 100,000 rows, to the tensor's", single(peak), PEAK_MAX, at_most=True),
            Goal("scikit-learn's time to ours, 1 row", ratio(one[SKLEARN], one[OURS]), 10.0),
            Goal("ONNX Runtime's time to ours, 1 row", ratio(one[ONNX], one[OURS]), 1.0),
        ),
        floor=OURS,
        notes=(
            f"{len(fitted.inputs)} columns, {len(fitted.output_names)} outputs; tensors were compared before timing",
            "each is handed rows as it reads them fastest: a table of blocks, a pandas frame, arrays by input name",
        ),
    )


def _case(options: Options, rows: int, fitted: FittedTransform, sklearn: Any, onnx: OnnxTransform) -> Case:
    columns = _columns(rows, seed=rows)
    table, frame, prepared = ColumnTable.from_columns(columns, rows), _frame(columns), fitted.prepare()
    inputs = onnx.feed(columns, rows)
    candidates: dict[str, Callable[[], object]] = {
        OURS: lambda: prepared.apply(table, rows),
        COLUMNS: lambda: prepared.apply(columns, rows),
        SKLEARN: lambda: sklearn.transform(frame),
        ONNX: lambda: onnx.run(inputs),
    }
    _check(fitted, {name: np.asarray(candidate()) for name, candidate in candidates.items()})
    timings = compare(candidates, repetitions=options.repetitions, min_time_s=options.min_time_s)
    return Case(f"{rows:,} rows", {"rows": rows}, timings, values=rows * len(fitted.output_names))


def _check(fitted: FittedTransform, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Raise AssertionError unless all tensors are the same, but for the last digits of float32."""
    expected = tensors[OURS]
    assert (tensors[COLUMNS] == expected).all(), "a table of blocks and columns give the same bits"
    for name, tensor in tensors.items():
        far = np.abs(tensor.astype(np.float64) - expected) > 1e-5 * np.maximum(1.0, np.abs(expected))
        differing = [fitted.output_names[place] for place in np.flatnonzero(far.any(axis=0))]
        assert not differing, f"{name} gives other values for {differing}"


def _per_row(timing: Timing, rows: int) -> Ratio:
    return Ratio(timing.p50_us / rows, timing.p50_low_us / rows, timing.p50_high_us / rows)


def _rows_per_s(timing: Timing, rows: int) -> Ratio:
    return Ratio(*(rows / us * 1e6 for us in (timing.cpu_us, max(timing.cpus_us), min(timing.cpus_us))))


def _peak_share(prepared: PreparedTransform) -> float:
    """The most memory that a large call holds at once, tensor included, in sizes of the tensor."""
    columns = _columns(LARGE_ROWS, seed=1)
    tracemalloc.start()
    try:
        tensor = prepared.apply(columns, LARGE_ROWS)
        return tracemalloc.get_traced_memory()[1] / tensor.nbytes
    finally:
        tracemalloc.stop()


def _transform() -> Transform:
    def single_precision(name: str) -> Expression:
        return column(name, Dtype.FLOAT32)

    moment = column(MOMENT, Dtype.TIMESTAMP, nullable=False)
    outputs: dict[str, Expression] = {}
    outputs |= {name: single_precision(name).impute_median().standardise() for name in SCALED}
    outputs |= {f"{name} unknown": single_precision(name).is_null() for name in SCALED}
    outputs |= {name: column(name, Dtype.FLOAT64).impute_mean().min_max() for name in RANGED}
    outputs |= {name: column(name, Dtype.INT64).impute(0).standardise() for name in COUNTS}
    outputs |= {name: single_precision(name).impute(0.0).log1p() for name in LOGGED}
    outputs |= {name: column(name, Dtype.FLOAT64).impute(0.0).cyclical(360.0) for name in ANGLES}
    outputs |= {name: column(name, Dtype.BOOL).impute(0.0) for name in FLAGS}
    outputs |= {
        name: column(name, Dtype.STRING).one_hot(categories=_categories(count), oov=False)
        for name, count in WORDS.items()
    }
    outputs[LONG_WORD] = column(LONG_WORD, Dtype.STRING).impute("w0").index(top_k=LONG_VOCABULARY)
    outputs["hour"] = moment.hour(ZONE)
    outputs["minute"] = moment.minute_of_day(ZONE)
    outputs["weekday"] = moment.day_of_week(ZONE)
    outputs["month"] = moment.month(ZONE)
    outputs["cycle"] = moment.hour(ZONE).cyclical(24.0)
    return Transform(outputs)


def _scikit_learn(fitted: FittedTransform) -> Any:
    """The same, with scikit-learn; what only its own statistics could say otherwise, an order of words, is given."""
    vocabulary = fitted.learned[dict(fitted.graph.outputs)[LONG_WORD]]["vocabulary"]
    words = [np.array(_categories(count), dtype=object) for count in WORDS.values()]
    return ColumnTransformer(
        [
            ("scaled", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), list(SCALED)),
            ("unknown", FunctionTransformer(lambda frame: frame.isna().to_numpy(np.float64)), list(SCALED)),
            ("ranged", make_pipeline(SimpleImputer(strategy="mean"), MinMaxScaler()), list(RANGED)),
            ("counts", make_pipeline(_zeros(), StandardScaler()), list(COUNTS)),
            ("logged", make_pipeline(_zeros(), FunctionTransformer(np.log1p)), list(LOGGED)),
            ("angles", make_pipeline(_zeros(), FunctionTransformer(_circle)), list(ANGLES)),
            ("flags", _zeros(), list(FLAGS)),
            ("words", OneHotEncoder(categories=words, handle_unknown="ignore", sparse_output=False), list(WORDS)),
            (
                "long",
                make_pipeline(
                    SimpleImputer(missing_values=None, strategy="constant", fill_value="w0"),
                    OrdinalEncoder(
                        categories=[np.array(vocabulary, dtype=object)],
                        handle_unknown="use_encoded_value",
                        unknown_value=-1,
                    ),
                ),
                [LONG_WORD],
            ),
            ("moment", FunctionTransformer(_parts), [MOMENT]),
        ]
    )


def _zeros() -> SimpleImputer:
    return SimpleImputer(strategy="constant", fill_value=0.0)


def _circle(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sine and cosine of each column, side by side."""
    turns = np.asarray(degrees) / 360.0
    angle = (turns - np.floor(turns)) * (2 * np.pi)
    return np.stack((np.sin(angle), np.cos(angle)), axis=2).reshape(len(angle), -1)


def _parts(frame: pd.DataFrame) -> NDArray[np.float64]:
    local = frame[MOMENT].dt.tz_convert(ZONE).dt
    hour = local.hour.to_numpy(np.float64)
    angle = hour / 24.0 * (2 * np.pi)
    minute = hour * 60 + local.minute
    return np.column_stack((hour, minute, local.dayofweek, local.month, np.sin(angle), np.cos(angle)))


def _categories(count: int) -> list[str]:
    return [f"w{index}" for index in range(count)]


def _columns(rows: int, *, seed: int) -> dict[str, Column]:
    rng = np.random.default_rng(seed)

    def made(dtype: Dtype, values: NDArray[Any]) -> Column:
        valid = rng.random(rows) >= _NULL_SHARE
        values[~valid] = "" if dtype is Dtype.STRING else 0
        return Column(dtype, values, valid)

    columns = {name: made(Dtype.FLOAT32, rng.normal(size=rows).astype(np.float32)) for name in SCALED}
    columns |= {name: made(Dtype.FLOAT64, rng.normal(size=rows)) for name in RANGED}
    columns |= {name: made(Dtype.INT64, rng.integers(0, 100, rows)) for name in COUNTS}
    columns |= {name: made(Dtype.FLOAT32, rng.exponential(9.0, rows).astype(np.float32)) for name in LOGGED}
    columns |= {name: made(Dtype.FLOAT64, rng.uniform(0.0, 360.0, rows)) for name in ANGLES}
    columns |= {name: made(Dtype.BOOL, rng.random(rows) < 0.5) for name in FLAGS}
    for name, count in {**WORDS, LONG_WORD: LONG_VOCABULARY}.items():
        words = np.array(_categories(count + _UNSEEN), dtype=object)
        columns[name] = made(Dtype.STRING, words[rng.integers(0, len(words), rows)])
    moments = rng.integers(_START_US, _START_US + _SPAN_US, rows)
    return columns | {MOMENT: Column(Dtype.TIMESTAMP, moments, np.ones(rows, dtype=np.bool_))}


def _frame(columns: Mapping[str, Column]) -> pd.DataFrame:
    """The same rows for scikit-learn: NaN for a null number, None for a null string."""
    series: dict[str, Any] = {}
    for name, each in columns.items():
        if each.dtype is Dtype.STRING:
            series[name] = np.array([word if known else None for word, known in _words(each)], dtype=object)
        elif each.dtype is Dtype.TIMESTAMP:
            series[name] = pd.to_datetime(each.values.astype("datetime64[us]"), utc=True)
        else:
            series[name] = np.where(each.valid, each.values.astype(np.float64), np.nan)
    return pd.DataFrame(series)


def _words(column: Column) -> Iterator[tuple[str, bool]]:
    return zip(column.values.tolist(), column.valid.tolist(), strict=True)
