"""Rows as the data frame that Feast's SDK would give of them, to fit the textbook's transform on."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from skewless.dtypes import Column, Dtype, to_python


def frame_of(columns: Mapping[str, Column]) -> pd.DataFrame:
    """Columns as the data frame that Feast's SDK would make of them: objects, with None for null."""
    series: dict[str, Any] = {name: pd.Series(to_python(column), dtype=object) for name, column in columns.items()}
    for name, column in columns.items():
        if column.dtype is Dtype.TIMESTAMP:
            series[name] = pd.to_datetime(series[name], unit="us", utc=True)
    return pd.DataFrame(series)
