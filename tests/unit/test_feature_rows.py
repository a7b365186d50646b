"""Rows out of Arrow tables are what the offline side says is stored, and what does not fit is named."""

import math
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.adapters.arrow_columns import ARROW_TYPES
from skewless.adapters.duckdb_connection import connected
from skewless.adapters.feature_rows_arrow import feature_rows, stored_rows
from skewless.dtypes import ELEMENTS, Dtype, to_python
from skewless.errors import InvalidRequest
from skewless.features.contract import FeatureField, JoinKey, ViewRead
from skewless.features.point_in_time import OfflineSource, rows_sql
from skewless.features.row_order import NO_CREATED_TIME

VIEW = ViewRead(
    "all",
    (JoinKey("id", Dtype.INT64),),
    0,
    tuple(FeatureField(each.value, each) for each in Dtype),
)
SOURCE = OfflineSource("all", "", "happened", "known", (("float32", "narrow"),))
_MICROS = pa.timestamp("us", tz="UTC")
_VALUES: dict[Dtype, list[Any]] = {
    Dtype.BOOL: [True, False],
    Dtype.INT32: [0, -(2**31), 2**31 - 1],
    Dtype.INT64: [0, -(2**63), 2**63 - 1],
    Dtype.FLOAT32: [1.5, math.nan, math.inf],
    Dtype.FLOAT64: [0.1, math.nan, -math.inf],
    Dtype.STRING: ["", "ü"],
    Dtype.BYTES: [b"", b"\x00"],
    Dtype.TIMESTAMP: [datetime(2024, 1, 1, 0, 0, 0, 999_999, UTC), datetime(1969, 1, 1, 0, 0, 0, 1, UTC)],
}


def _table(rng: random.Random, rows: int) -> pa.Table:
    columns: dict[str, Any] = {"id": pa.array(range(rows), pa.int64())}
    for dtype in Dtype:
        if dtype in ELEMENTS:
            element = [*_VALUES[ELEMENTS[dtype]], None]
            items: list[Any] = [rng.choices(element, k=rng.randrange(3)) for _ in range(rows)]
        else:
            items = rng.choices(_VALUES[dtype], k=rows)
        kept = [None if rng.random() < 0.2 else item for item in items]
        name = "narrow" if dtype is Dtype.FLOAT32 else dtype.value
        columns[name] = pa.array(kept, ARROW_TYPES[dtype], from_pandas=False)
    times = [1_700_000_000_000_000 + rng.randrange(10**9) for _ in range(rows)]
    columns["happened"] = pa.array(times, pa.int64()).cast(_MICROS)
    known = [None if rng.random() < 0.3 else each + 5 for each in times]
    columns["known"] = pa.array(known, pa.int64()).cast(_MICROS)
    return pa.table(columns)


@pytest.mark.parametrize("seed", range(3))
def test_rows_of_a_table_are_those_that_the_offline_query_says_are_stored(tmp_path: Path, seed: int) -> None:
    table = _table(random.Random(seed), 60)
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path)
    source = OfflineSource("all", str(path), "happened", "known", SOURCE.columns)
    with connected() as connection:
        asked = connection.sql(f"SELECT * FROM ({rows_sql(VIEW, source)}) ORDER BY id").to_arrow_table()
    offline, given = stored_rows(asked, VIEW, has_created_time=True), feature_rows(table, VIEW, source)
    assert given.event_times.tolist() == offline.event_times.tolist()
    assert given.created_times.tolist() == offline.created_times.tolist()
    for name, column in offline.values.items():
        assert repr(to_python(given.values[name])) == repr(to_python(column)), name
    assert to_python(given.keys["id"]) == list(range(60))
    some = given.take(np.array([3, 1]))
    assert (some.rows, to_python(some.keys["id"])) == (2, [3, 1])


def test_what_does_not_fit_is_refused_with_its_column() -> None:
    view = ViewRead("one", (JoinKey("id", Dtype.INT64),), 0, (FeatureField("x", Dtype.INT32),))
    source = OfflineSource("one", "", "happened", None)
    good = {"id": [1], "x": pa.array([1], pa.int64()), "happened": pa.array([5], _MICROS)}
    rows = feature_rows(pa.table(good), view, source)
    assert (rows.created_times.tolist(), rows.event_times.tolist()) == ([NO_CREATED_TIME], [5])
    for change, path, told in (
        ({"x": pa.array([2**40], pa.int64())}, "x", "column `x` is int64, and cannot be `int32`"),
        ({"x": pa.array(["a"])}, "x", "cannot be `int32`"),
        ({"x": pa.array([1.5])}, "x", "cannot be `int32`"),
        ({"happened": pa.array([None], _MICROS)}, "happened", "column `happened` is null in row 0"),
        ({"happened": pa.array(["noon"])}, "happened", "column `happened` is string, and no time"),
    ):
        with pytest.raises(InvalidRequest, match=told) as caught:
            feature_rows(pa.table({**good, **change}), view, source)
        assert caught.value.path == path
    with pytest.raises(InvalidRequest, match="column `x` is missing"):
        feature_rows(pa.table(good).drop_columns(["x"]), view, source)
