"""Parquet files as traffic: bins chosen from a reference, and rows counted in them, batch by batch."""

from collections import Counter as Words
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from skewless.adapters.tabular import TrainingRows
from skewless.drift.check import Columns
from skewless.drift.traffic import Traffic
from skewless.dtypes import NUMERIC, TABLE, Column, Dtype
from skewless.errors import InvalidDefinition, NotFound
from skewless.monitor_limits import (
    DRIFT_BIN_OBJECTS_MAX,
    DRIFT_BIN_ROWS_MAX,
    DRIFT_CELLS_MAX,
    DRIFT_SLICES_MAX,
    DRIFT_WORDS_MAX,
)
from skewless.statistics.bins import column_bins, words_known_max
from skewless.statistics.counter import Counter
from skewless.statistics.observed import Observed
from skewless.statistics.variable import LISTED, Measure, Part, Variable, measure_of
from skewless.statistics.words import vocabulary_of
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US

WINDOWS_US = (5 * MINUTE_US, 15 * MINUTE_US, HOUR_US, 6 * HOUR_US, DAY_US)
"""Lengths that are chosen from where none is given."""
WINDOW_ROWS_MIN = 200
"""Rows that a window should have on average, in every slice."""
OTHER_SLICE, NULL_SLICE = "(other)", "(null)"
_SLICE_DTYPES = frozenset({Dtype.STRING, Dtype.BOOL, Dtype.INT32, Dtype.INT64})

Inputs = Sequence[tuple[str, Dtype]]


@dataclass(frozen=True, slots=True)
class TableFile:
    """A Parquet file, or a folder of them. `left_out` are columns of types that are not compared, by name."""

    path: Path
    rows: int
    columns: Mapping[str, Dtype]
    left_out: Mapping[str, str]

    def batches(self, inputs: Inputs) -> Iterator[tuple[Mapping[str, Column], int]]:
        """Some columns, each read as a dtype, batch by batch with the count of rows. Raises InvalidDefinition."""
        with TrainingRows(_dataset(self.path), inputs) as parts:
            for part in parts:
                yield part.columns, part.rows


class Split(NamedTuple):
    """How rows are told apart: by a column of times, and by a column whose values are the slices; None for neither.

    `slices` maps the text of a value to the name of its slice; others are OTHER_SLICE. The column of times is not
    among those that are compared, that of slices is.
    """

    time: str | None = None
    by: str | None = None
    slices: Mapping[str, str] | None = None


def open_table(path: Path) -> TableFile:
    """What a file holds, by its footer alone. Raises NotFound, and InvalidDefinition for what is no Parquet."""
    if not path.exists():
        raise NotFound("file", str(path), hint="give a Parquet file, or a folder of Parquet files")
    try:
        dataset = _dataset(path)
        rows = dataset.count_rows()
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidDefinition(f"`{path}` cannot be read as Parquet: {error}"[:500]) from error
    names = dataset.schema.names
    if twice := [name for name in names if names.count(name) > 1]:
        raise InvalidDefinition(f"`{path}` has {names.count(twice[0])} columns `{twice[0]}`; allowed: one")
    dtypes = {field.name: dtype_of(field.type) for field in dataset.schema}
    return TableFile(
        path,
        rows,
        {name: dtype for name, dtype in dtypes.items() if dtype is not None},
        {field.name: str(field.type) for field in dataset.schema if dtypes[field.name] is None},
    )


def _dataset(path: Path) -> Any:
    """Without Arrow's read-ahead, which holds all of a file: of 3 million rows 263 MiB instead of 62."""
    options = ds.ParquetFragmentScanOptions(pre_buffer=False)
    return ds.dataset(str(path), format=ds.ParquetFileFormat(default_fragment_scan_options=options))


def dtype_of(arrow: Any) -> Dtype | None:
    """The dtype that values of an Arrow type are compared as; None for types that are not compared."""
    types = pa.types
    if types.is_dictionary(arrow):
        return dtype_of(arrow.value_type)
    if types.is_list(arrow) or types.is_large_list(arrow):
        element = dtype_of(arrow.value_type)
        return None if element is None else _LISTS.get(element)
    for fits, dtype in (
        (types.is_boolean, Dtype.BOOL),
        (types.is_integer, Dtype.INT64),
        (types.is_float32, Dtype.FLOAT32),
        (types.is_floating, Dtype.FLOAT64),
        (types.is_decimal, Dtype.FLOAT64),
        (types.is_null, Dtype.FLOAT64),
        (types.is_string, Dtype.STRING),
        (types.is_large_string, Dtype.STRING),
        (types.is_timestamp, Dtype.TIMESTAMP),
        (types.is_date, Dtype.TIMESTAMP),
        (types.is_binary, Dtype.BYTES),
        (types.is_large_binary, Dtype.BYTES),
    ):
        if fits(arrow):
            return dtype
    return None


_LISTS = {
    Dtype.BOOL: Dtype.BOOL_LIST,
    Dtype.INT64: Dtype.INT64_LIST,
    Dtype.FLOAT32: Dtype.FLOAT32_LIST,
    Dtype.FLOAT64: Dtype.FLOAT64_LIST,
    Dtype.STRING: Dtype.STRING_LIST,
    Dtype.BYTES: Dtype.BYTES_LIST,
}


def agreed(reference: TableFile, current: TableFile, apart: frozenset[str]) -> tuple[Inputs, Columns]:
    """The columns that both have, each with the dtype that holds both sides' values, but for those `apart`.

    Numbers of two types are compared as float64: a column of whole numbers that has a null is one of floats in pandas.
    """
    inputs: list[tuple[str, Dtype]] = []
    retyped: list[tuple[str, str, str]] = []
    for name, first in reference.columns.items():
        second = current.columns.get(name)
        if second is None or name in apart:
            continue
        if first is second:
            inputs.append((name, first))
        elif {first, second} <= NUMERIC:
            inputs.append((name, Dtype.FLOAT64))
        else:
            retyped.append((name, first.value, second.value))
    known = [{*each.columns, *each.left_out} for each in (reference, current)]
    return inputs, Columns(
        tuple(name for name in reference.columns if name not in known[1]),
        tuple(name for name in current.columns if name not in known[0]),
        tuple(retyped),
        tuple(sorted({**reference.left_out, **current.left_out}.items())),
    )


def counter_of(table: TableFile, inputs: Inputs) -> Counter:
    """A counter in bins that a table's rows choose as training's do, one column at a time.

    Of more than DRIFT_BIN_ROWS_MAX values every so many-th is looked at, and both extremes.
    """
    known_max = words_known_max(inputs)
    return Counter([_bins(table, name, dtype, known_max) for name, dtype in inputs])


def _bins(table: TableFile, name: str, dtype: Dtype, known_max: int) -> Variable:
    if measure_of(dtype) is Measure.WORD:
        vocabulary = vocabulary_of(_words(table, name, dtype), known_max=known_max)
        return Variable(Part.COLUMN, name, dtype, (0,) * (LISTED + len(vocabulary.listed)), vocabulary=vocabulary)
    objects = TABLE[dtype].numpy == np.dtype(object)
    values, valid = _sample(table, name, dtype, DRIFT_BIN_OBJECTS_MAX if objects else DRIFT_BIN_ROWS_MAX)
    return column_bins(name, Column(dtype, values, valid), served=False, known_max=known_max)


def _words(table: TableFile, name: str, dtype: Dtype) -> Words[str]:
    counts: Words[str] = Words()
    for columns, _ in table.batches([(name, dtype)]):
        column = columns[name]
        counts.update(column.values[column.valid].tolist())
        if len(counts) > DRIFT_WORDS_MAX:
            # Far beyond what makes a vocabulary closed; words of one row in a thousand are never among the rarer half.
            counts = Words(dict(counts.most_common(DRIFT_WORDS_MAX // 2)))
    return counts


def _sample(
    table: TableFile, name: str, dtype: Dtype, values_max: int
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Values and which are not null (sampled rows,)."""
    every = max(-(-table.rows // values_max), 1)
    values: list[NDArray[Any]] = [np.empty(0, dtype=TABLE[dtype].numpy)]
    valid: list[NDArray[np.bool_]] = [np.empty(0, dtype=np.bool_)]
    ahead = 0
    for columns, rows in table.batches([(name, dtype)]):
        column = columns[name]
        values.append(column.values[ahead::every])
        valid.append(column.valid[ahead::every])
        ahead = (ahead - rows) % every
        if every > 1 and dtype in NUMERIC:
            extremes = _extremes(column)
            values.append(extremes)
            valid.append(np.ones(len(extremes), dtype=np.bool_))
    return np.concatenate(values), np.concatenate(valid)


def _extremes(column: Column) -> NDArray[Any]:
    """The smallest and the largest finite number, or none."""
    numbers = column.values[column.valid]
    finite = numbers[np.isfinite(numbers.astype(np.float64))]
    if not len(finite):
        return finite
    found: NDArray[Any] = np.array([finite.min(), finite.max()], dtype=finite.dtype)
    return found


def counted(table: TableFile, inputs: Inputs, counter: Counter, split: Split, window_us: int) -> tuple[Traffic, int]:
    """A table's rows, and how many were left out because they have no time. Raises InvalidDefinition.

    Without a column of times all rows are in one window.
    """
    traffic, timeless = Traffic(counter, window_us), 0
    extra = [] if split.time is None else [(split.time, Dtype.TIMESTAMP)]
    for columns, rows in table.batches([*inputs, *extra]):
        times, timed = _times(columns, rows, split.time)
        labels = None if split.by is None else _labels(columns[split.by], split.slices or {})
        wanted = {name: columns[name] for name, _ in inputs}
        if not timed.all():
            timeless += int(np.count_nonzero(~timed))
            wanted = {name: Column(each.dtype, each.values[timed], each.valid[timed]) for name, each in wanted.items()}
            times = times[timed]
            labels = None if labels is None else [label for label, kept in zip(labels, timed, strict=True) if kept]
        traffic.add(Observed(len(times), wanted), times, labels)
    return traffic, timeless


def _times(columns: Mapping[str, Column], rows: int, time: str | None) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    if time is None:
        return np.zeros(rows, dtype=np.int64), np.ones(rows, dtype=np.bool_)
    return columns[time].values.astype(np.int64), columns[time].valid


def _labels(column: Column, slices: Mapping[str, str]) -> list[str]:
    texts = (str(each) for each in column.values.tolist())
    named = [slices.get(text, OTHER_SLICE) for text in texts]
    return [name if ok else NULL_SLICE for name, ok in zip(named, column.valid.tolist(), strict=True)]


def slices_of(table: TableFile, name: str, inputs: Inputs) -> Split:
    """The most frequent values of a column as slices, all others as one. Raises NotFound and InvalidDefinition."""
    dtype = dict(inputs).get(name)
    if dtype is None:
        raise NotFound("column", name, known=tuple(dict(inputs)), hint="choose a column that both files have")
    if dtype not in _SLICE_DTYPES:
        raise InvalidDefinition(
            f"column `{name}` is `{dtype}`, which has no slices; allowed: {', '.join(sorted(_SLICE_DTYPES))}",
            hint="write a column of words first, such as a bucket",
        )
    counts: Words[str] = Words()
    for columns, _ in table.batches([(name, dtype)]):
        counts.update(str(each) for each in columns[name].values[columns[name].valid].tolist())
        if len(counts) > DRIFT_WORDS_MAX:
            counts = Words(dict(counts.most_common(DRIFT_WORDS_MAX // 2)))
    frequent = [word for word, _ in counts.most_common(DRIFT_SLICES_MAX - 2)]
    return Split(None, name, {word: word for word in frequent})


def time_span(table: TableFile, time: str) -> tuple[int, int]:
    """The first and the last moment (µs) of a column of times. Raises NotFound and InvalidDefinition."""
    dtype = table.columns.get(time)
    if dtype is None:
        raise NotFound("column", time, known=tuple(table.columns), hint=f"choose a column of `{table.path}`")
    if dtype is not Dtype.TIMESTAMP:
        raise InvalidDefinition(f"column `{time}` of `{table.path}` is `{dtype}`; allowed: timestamps or dates")
    ends: list[int] = []
    for columns, _ in table.batches([(time, Dtype.TIMESTAMP)]):
        moments = columns[time].values[columns[time].valid]
        ends += [int(moments.min()), int(moments.max())] if len(moments) else []
    if not ends:
        raise InvalidDefinition(f"column `{time}` of `{table.path}` has no time at all")
    return min(ends), max(ends)


def window_for(table: TableFile, span: tuple[int, int], slices: int, cells: int) -> int:
    """The shortest of WINDOWS_US whose windows have enough rows in every slice on average, and are not too many.

    `cells` is how many counts a window has.
    """
    length_us = span[1] - span[0] + 1
    for window_us in WINDOWS_US[:-1]:
        windows = length_us / window_us
        if table.rows / windows >= WINDOW_ROWS_MIN * slices and windows * slices * cells <= DRIFT_CELLS_MAX // 2:
            return window_us
    return WINDOWS_US[-1]
