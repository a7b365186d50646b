"""Training rows out of the tables of other libraries: the same fitted transform from each, bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from skewless.adapters.tabular import BATCH_ROWS, TrainingRows, columns_of, fit
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidDefinition
from skewless.transforms import FittedTransform, Transform, column

ROWS = 2_000
TRANSFORM = Transform(
    {
        "amount": column("amount", Dtype.FLOAT64).impute_median().standardise(),
        "count": column("count", Dtype.INT64).impute_mean().quantile_bucket(4),
        "small": column("small", Dtype.INT32).impute(0).min_max(),
        "single": column("single", Dtype.FLOAT32).impute_mean(),
        "flag": column("flag", Dtype.BOOL).impute(0),
        "word": column("word", Dtype.STRING).one_hot(top_k=4),
        "hour": column("moment", Dtype.TIMESTAMP).hour("UTC").impute(-1),
    }
)


def arrow_table(rows: int = ROWS) -> pa.Table:
    rng = np.random.default_rng(5)
    null = rng.random((7, rows)) < 0.1
    words = np.array(["a", "b", "ç", "", "a much longer word"], dtype=object)[rng.integers(0, 5, rows)]
    moments = rng.integers(1_300_000_000_000_000, 1_400_000_000_000_000, rows)
    return pa.table(
        {
            "amount": pa.array(rng.lognormal(size=rows), mask=null[0]),
            "count": pa.array(rng.integers(0, 50, rows), mask=null[1]),
            "small": pa.array(rng.integers(0, 50, rows).astype(np.int32), mask=null[2]),
            "single": pa.array(rng.normal(size=rows).astype(np.float32), mask=null[3]),
            "flag": pa.array(rng.random(rows) < 0.5, mask=null[4]),
            "word": pa.array(words, mask=null[5]),
            "moment": pa.array(moments, mask=null[6]).cast(pa.timestamp("us", tz="UTC")),
            "unused": pa.array(np.arange(rows)),
        }
    )


def naive_columns(table: pa.Table) -> dict[str, Column]:
    """The same columns by way of Python values."""
    columns = {}
    for name, dtype in TRANSFORM.inputs:
        array = table[name].cast(pa.int64()) if dtype is Dtype.TIMESTAMP else table[name]
        columns[name] = column_of(dtype, array.to_pylist())
    return columns


def expected() -> FittedTransform:
    return TRANSFORM.fit(naive_columns(arrow_table()), ROWS)


class OnlyStream:
    """A frame of some other library: it offers an Arrow stream, and nothing else."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


def written(table: pa.Table, folder: Path) -> Path:
    folder.mkdir()
    pq.write_table(table.slice(0, 700), folder / "a.parquet", row_group_size=100)
    pq.write_table(table.slice(700), folder / "b.parquet")
    return folder


SOURCES: dict[str, Callable[[pa.Table, Path], Any]] = {
    "arrow table": lambda table, _: table,
    "arrow table of chunks": lambda table, _: pa.Table.from_batches(table.to_batches(max_chunksize=33)),
    "record batch": lambda table, _: table.combine_chunks().to_batches()[0],
    "reader": lambda table, _: pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=100)),
    "data set": lambda table, path: ds.dataset(str(written(table, path / "set"))),
    "parquet folder": lambda table, path: written(table, path / "folder"),
    "parquet file": lambda table, path: str(written(table, path / "file") / "a.parquet"),
    "pandas": lambda table, _: table.to_pandas(),
    "pandas with its own dtypes": lambda table, _: table.to_pandas().convert_dtypes(),
    "polars": lambda table, _: pl.DataFrame(table),
    "polars of chunks": lambda table, _: pl.concat(
        [pl.DataFrame(table.slice(0, 700)), pl.DataFrame(table.slice(700))], rechunk=False
    ),
    "duckdb": lambda table, _: duckdb.connect().from_arrow(table),
    "any stream": lambda table, _: OnlyStream(table),
    "shuffled": lambda table, _: table.take(np.random.default_rng(1).permutation(table.num_rows)),
    "wider types": lambda table, _: table.set_column(2, "small", table["small"].cast(pa.int64())).set_column(
        5, "word", table["word"].cast(pa.large_string())
    ),
    "dictionary": lambda table, _: table.set_column(5, "word", table["word"].dictionary_encode()),
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_teaches_the_same_transform(source: str, tmp_path: Path) -> None:
    table = arrow_table()
    fitted = fit(TRANSFORM, SOURCES[source](table, tmp_path))
    if source == "parquet file":
        assert fitted == TRANSFORM.fit(naive_columns(table.slice(0, 700)), 700)
    else:
        assert fitted.to_json() == expected().to_json()


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_same_columns(source: str, tmp_path: Path) -> None:
    if source in ("shuffled", "parquet file"):
        return
    columns, rows = columns_of(SOURCES[source](arrow_table(), tmp_path), TRANSFORM.inputs)
    assert rows == ROWS
    for name, naive in naive_columns(arrow_table()).items():
        assert columns[name].values.tolist() == naive.values.tolist(), name
        assert columns[name].valid.tolist() == naive.valid.tolist(), name
        assert columns[name].values.dtype == naive.values.dtype


def test_a_stream_larger_than_memory_is_kept_in_a_file_for_as_long_as_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    table = arrow_table()
    reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=100))
    with TrainingRows(reader, TRANSFORM.inputs, memory_bytes=10_000) as rows:
        assert [path.name for path in tmp_path.rglob("*.arrow")] == ["rows.arrow"]
        assert TRANSFORM.fit_batches(rows) == expected()
    assert not list(tmp_path.iterdir())


def test_a_batch_has_a_bounded_number_of_rows_wherever_it_comes_from(tmp_path: Path) -> None:
    table = pa.table({"x": np.arange(3 * BATCH_ROWS + 5, dtype=np.float64)})
    pq.write_table(table, tmp_path / "x.parquet")
    for source in (table, table.to_pandas(), tmp_path / "x.parquet"):
        with TrainingRows(source, [("x", Dtype.FLOAT64)]) as rows:
            sizes = [batch.rows for batch in rows]
        assert sum(sizes) == table.num_rows
        assert max(sizes) <= BATCH_ROWS


def test_nan_is_a_value_in_arrow_and_missing_in_pandas() -> None:
    inputs = [("x", Dtype.FLOAT64)]
    arrow, _ = columns_of(pa.table({"x": [1.0, float("nan"), None]}), inputs)
    assert arrow["x"].valid.tolist() == [True, True, False]
    pandas, _ = columns_of(pd.DataFrame({"x": [1.0, float("nan"), None]}), inputs)
    assert pandas["x"].valid.tolist() == [True, False, False]


def test_no_rows_are_a_table_too() -> None:
    columns, rows = columns_of(arrow_table().slice(0, 0), TRANSFORM.inputs)
    assert rows == 0
    assert {len(each) for each in columns.values()} == {0}
    with pytest.raises(InvalidDefinition, match="0 rows"):
        fit(TRANSFORM, arrow_table().slice(0, 0))


def test_the_target_comes_out_of_the_same_table() -> None:
    transform = Transform({"word": column("word", Dtype.STRING).target_encode(smoothing=2.0)})
    table = pa.table({"word": ["a", "b", "a"], "late": [True, False, False]})
    columns = {"word": column_of(Dtype.STRING, ["a", "b", "a"])}
    assert fit(transform, table, target="late") == transform.fit(
        columns, 3, target=column_of(Dtype.FLOAT64, [1.0, 0.0, 0.0])
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (pa.table({"y": [1.0]}), r"column `x` is missing from the table; columns: `y`"),
        (pa.Table.from_arrays([pa.array([1.0])] * 2, ["x", "x"]), "column `x` is 2 times in the table"),
        (pa.table({"x": ["one"]}), "column `x` is string in the table and cannot be read as int64"),
        (pa.table({"x": [1.5]}), "column `x` is double in the table and cannot be read as int64"),
        (pa.table({"x": [[1]]}), "column `x` is list<item: int64>|column `x` is list<element: int64>"),
        (pd.DataFrame({"x": [1, "one"]}), "column of mixed types"),
        (pd.DataFrame({"y": [1]}), "column `x` is missing"),
        ([1, 2], r"cannot take training rows from a builtins\.list"),
        ("no/such/file.parquet", "does not exist"),
        (Path(__file__), "cannot be read as Parquet"),
    ],
)
def test_tables_that_do_not_fit_are_refused_with_the_column(data: object, said: str) -> None:
    transform = Transform({"x": column("x", Dtype.INT64).impute(0)})
    with pytest.raises(InvalidDefinition, match=said):
        fit(transform, data)
