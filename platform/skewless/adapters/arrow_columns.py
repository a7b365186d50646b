"""Arrow arrays as Skewless columns, and back."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.dtypes import TABLE, Column, Dtype, column_of
from skewless.features.frame import FeatureFrame
from skewless.training.examples import Examples


def column_from_arrow(array: Any, dtype: Dtype) -> Column:
    """A column of the declared dtype from an Arrow array or chunked array; Arrow nulls become invalid rows.

    Timestamps become microseconds whatever their Arrow unit. The result owns its memory.
    """
    if dtype in (Dtype.STRING, Dtype.BYTES):
        return column_of(dtype, array.to_pylist())
    if dtype is Dtype.TIMESTAMP:
        array = array.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    row = TABLE[dtype]
    valid = np.array(array.is_valid().to_numpy(zero_copy_only=False) if _single(array) else array.is_valid().to_numpy())
    filled = array.fill_null(row.zero)
    values = filled.to_numpy(zero_copy_only=False) if _single(array) else filled.to_numpy()
    return Column(dtype, np.ascontiguousarray(values, dtype=row.numpy), valid)


def _single(array: Any) -> bool:
    return not isinstance(array, pa.ChunkedArray)


def column_to_arrow(column: Column) -> Any:
    """The Arrow array of a column, null where it is not valid; the inverse of `column_from_arrow`."""
    array = pa.array(column.values, mask=~column.valid)
    return array.cast(pa.timestamp("us", tz="UTC")) if column.dtype is Dtype.TIMESTAMP else array


def write_training_set(examples: Examples, frame: FeatureFrame, path: Path) -> None:
    """Write examples with their features as Parquet: keys, request fields, `view__feature`, `as_of`, `label`."""
    columns = {name: column_to_arrow(column) for name, column in {**examples.keys, **frame.columns}.items()}
    columns["as_of"] = pa.array(examples.as_of).cast(pa.timestamp("us", tz="UTC"))
    columns["label"] = pa.array(examples.labels, mask=~examples.labelled)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
