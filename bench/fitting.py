"""What learning a transform costs: rows in memory beside scikit-learn, ten million rows from files in bounded memory.

Forty columns: 36 numbers with nulls (12 float64, 12 float32, 12 int64), each imputed with its median and standardised,
every third cut into ten quantile buckets as well; and 4 strings, one-hot encoded (their 20 most frequent). scikit-learn
learns the same from a pandas frame of the same values: SimpleImputer and StandardScaler, KBinsDiscretizer on all rows,
OneHotEncoder. What both learn is compared before anything is timed.

The large table is Arrow files on disk. It is learned from in a process of its own, whose peak of memory beyond what
it had after its imports is told; nothing of the table is in memory beforehand.
"""

import multiprocessing
import re
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from bench.measure import Block, compare, ratio, timing_of
from bench.report import Case, Goal, Options, SuiteResult, single
from skewless.adapters.tabular import BATCH_ROWS, TrainingRows, fit
from skewless.dtypes import Dtype
from skewless.transforms import Expression, FittedTransform, Transform, column

NUMBERS = tuple((f"n{index}", (Dtype.FLOAT64, Dtype.FLOAT32, Dtype.INT64)[index % 3]) for index in range(36))
WORDS = tuple(f"w{index}" for index in range(4))
TOP_K = 20
BUCKETS = 10
LARGE_ROWS = 10_000_000
MEMORY_ROWS = 1_000_000
QUICK_SHARE = 20
"""A quick run has this many times fewer rows."""
MEMORY_MIB_MAX = 1_024
_PART_ROWS = 100_000
_SEED = 20_13


def run(options: Options) -> SuiteResult:
    """Both comparisons; the large table takes about 3 GB of disk while it is measured."""
    share = QUICK_SHARE if options.quick else 1
    beside = _beside_scikit_learn(options, MEMORY_ROWS // share)
    large, peak_mib, seconds = _large(options, LARGE_ROWS // share)
    ours = beside.timings["skewless"]
    return SuiteResult(
        suite="fitting",
        cases=(beside, large),
        goals=(
            Goal(
                "peak memory of the large fit beyond the imports", single(peak_mib), MEMORY_MIB_MAX, "MiB", at_most=True
            ),
            Goal("scikit-learn's time to ours, in memory", ratio(beside.timings["scikit-learn"], ours), 1.0),
        ),
        notes=(
            "learned values were compared with scikit-learn's before timing",
            f"the large fit took {seconds:.0f} s from files, on one core",
        ),
    )


def transform() -> Transform:
    """40 inputs to 36 + 12 + 4 outputs."""
    outputs: dict[str, Expression] = {}
    for index, (name, dtype) in enumerate(NUMBERS):
        number = column(name, dtype).impute_median()
        outputs[name] = number.standardise()
        if index % 3 == 0:
            outputs[f"{name}_bucket"] = number.quantile_bucket(BUCKETS)
    for name in WORDS:
        outputs[name] = column(name, Dtype.STRING).one_hot(top_k=TOP_K)
    return Transform(outputs)


def parts(rows: int) -> Iterator[Any]:
    """Arrow record batches of made-up rows, the same for the same count."""
    words = np.array([f"word {rank}" for rank in range(2_000)], dtype=object)
    for part, start in enumerate(range(0, rows, _PART_ROWS)):
        rng = np.random.default_rng((_SEED, part))
        count = min(_PART_ROWS, rows - start)
        arrays = [_numbers(rng, index, dtype, count) for index, (_, dtype) in enumerate(NUMBERS)]
        arrays += [pa.array(words[np.minimum(rng.zipf(1.4, count), 2_000) - 1]) for _ in WORDS]
        yield pa.RecordBatch.from_arrays(arrays, names=[*(name for name, _ in NUMBERS), *WORDS])


def _numbers(rng: np.random.Generator, index: int, dtype: Dtype, count: int) -> Any:
    null = rng.random(count) < 0.05
    if dtype is Dtype.INT64:
        return pa.array(rng.integers(0, 10 ** (1 + index % 6), count), mask=null)
    values = rng.normal(index, 1.0 + index, count) if index % 2 else rng.lognormal(1.0, 1.0, count)
    return pa.array(values.astype(np.float32) if dtype is Dtype.FLOAT32 else values, mask=null)


def _beside_scikit_learn(options: Options, rows: int) -> Case:
    table = pa.Table.from_batches(list(parts(rows)))
    frame = table.to_pandas()
    options.progress(f"{rows:,} rows in memory, beside scikit-learn")
    _check_same(fit(transform(), table), _scikit_learn(frame))
    timings = compare(
        {"skewless": lambda: fit(transform(), table), "scikit-learn": lambda: _scikit_learn(frame)},
        repetitions=3,
        min_time_s=0.0,
        warm_up=False,
    )
    return Case("in memory", {"rows": rows, "columns": len(NUMBERS) + len(WORDS)}, timings, values=rows * 40)


def _scikit_learn(frame: Any) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, StandardScaler

    buckets = KBinsDiscretizer(BUCKETS, encode="ordinal", quantile_method="inverted_cdf", subsample=None)
    numbers = [name for name, _ in NUMBERS]
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
            ("buckets", make_pipeline(SimpleImputer(strategy="median"), buckets), numbers[::3]),
            ("words", OneHotEncoder(max_categories=TOP_K + 1, handle_unknown="infrequent_if_exist"), list(WORDS)),
        ]
    ).fit(frame)


def _check_same(ours: FittedTransform, theirs: Any) -> None:
    """Medians, means and deviations as scikit-learn's, to rounding."""
    learned: dict[str, list[float]] = {"impute_median": [], "offset": [], "scale": []}
    for index, node in enumerate(ours.graph.nodes):
        if node.operation.name == "impute_median":
            learned["impute_median"].append(ours.learned[index]["value"])
        elif node.operation.name == "standardise":
            learned["offset"].append(ours.learned[index]["offset"])
            learned["scale"].append(ours.learned[index]["scale"])
    imputer, scaler = theirs.named_transformers_["numbers"]
    np.testing.assert_allclose(learned["impute_median"], imputer.statistics_, rtol=1e-12)
    np.testing.assert_allclose(learned["offset"], scaler.mean_, rtol=1e-9)
    np.testing.assert_allclose(learned["scale"], scaler.scale_, rtol=1e-9)


def _large(options: Options, rows: int) -> tuple[Case, float, float]:
    options.progress(f"writing {rows:,} rows")
    folder = options.scratch / "large"
    ds.write_dataset(parts(rows), str(folder), schema=next(parts(1)).schema, format="ipc")
    options.progress(f"learning from {rows:,} rows in files")
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        block, peak_mib, reading_s = pool.submit(fit_files, folder).result()
    seconds = block.wall_ns[0] / 1e9
    facts = {"peak_mib": peak_mib, "rows_per_s": rows / seconds, "one_pass_of_reading_s": reading_s}
    parameters = {"rows": rows, "columns": len(NUMBERS) + len(WORDS)}
    case = Case("from files", parameters, {"skewless": timing_of([block])}, values=rows * 40, facts=facts)
    return case, peak_mib, seconds


def fit_files(folder: Path) -> tuple[Block, float, float]:
    """One fit on the Arrow files, its peak of memory in MiB, and the seconds that reading the files once takes.

    Meant for a fresh process: the peak is the process's own since its start.
    """
    dataset = ds.dataset(str(folder), format="ipc")
    before = _memory_mib("VmRSS")
    begun, cpu = time.perf_counter_ns(), time.process_time_ns()
    fit(transform(), dataset)
    block = Block((time.perf_counter_ns() - begun,), time.process_time_ns() - cpu)
    peak_mib = _memory_mib("VmHWM") - before
    begun = time.perf_counter_ns()
    with TrainingRows(dataset, transform().inputs) as batches:
        assert all(batch.rows <= BATCH_ROWS for batch in batches)
    return block, peak_mib, (time.perf_counter_ns() - begun) / 1e9


def _memory_mib(field: str) -> float:
    """`VmRSS`, resident now, or `VmHWM`, its peak. (getrusage's peak also counts the process that forked this one.)"""
    line = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert line is not None, f"the kernel tells {field}"
    return int(line.group(1)) / 1_024
