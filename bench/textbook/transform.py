"""The transform as a scikit-learn pipeline over the data frame that Feast's SDK gives. Knows nothing of Skewless."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

CATEGORIES = tuple(f"category {number}" for number in range(16))
"""Of 500 that occur; the others are encoded as none of these."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Columns by what the transform does with them, each in the contract's order; outputs come in this order too."""

    numbers: tuple[str, ...]
    """Imputed with the median and standardised."""
    counts: tuple[str, ...]
    """Imputed with 0 and standardised."""
    flags: tuple[str, ...]
    words: tuple[str, ...]
    moments: tuple[str, ...]
    """Only the hour of the day is taken; -1 where unknown."""


def make_transform(groups: Groups) -> Any:
    """An unfitted ColumnTransformer with one step for each group of columns."""
    words = [np.array(CATEGORIES, dtype=object) for _ in groups.words]
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), list(groups.numbers)),
            ("counts", make_pipeline(_constant(0.0), StandardScaler()), list(groups.counts)),
            ("flags", _constant(0.0), list(groups.flags)),
            (
                "words",
                OneHotEncoder(categories=words, handle_unknown="ignore", sparse_output=False),
                list(groups.words),
            ),
            ("moments", FunctionTransformer(hour_of_day), list(groups.moments)),
        ]
    )


def typed(frame: pd.DataFrame, groups: Groups) -> pd.DataFrame:
    """The frame with numbers as float64 and NaN for null, whatever objects Feast made of nulls."""
    return frame.astype(dict.fromkeys((*groups.numbers, *groups.counts, *groups.flags), "float64"))


def hour_of_day(frame: pd.DataFrame) -> NDArray[np.float64]:
    """The hour of each moment, -1 where it is unknown."""
    hours = [pd.to_datetime(frame[name], utc=True).dt.hour for name in frame]
    return np.column_stack([each.fillna(-1.0).to_numpy(np.float64) for each in hours])


def _constant(value: float) -> SimpleImputer:
    return SimpleImputer(strategy="constant", fill_value=value)
