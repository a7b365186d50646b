"""What identifies the rows that a model was taught and judged by."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.canonical_json import Digest, digest, digest_bytes
from skewless.dtypes import Column, to_python
from skewless.training.definition import Period


@dataclass(frozen=True, slots=True)
class Dataset:
    """A training set or a hold-out: `rows` questions of `period`, out of the example table at `source`."""

    digest: Digest
    name: str
    source: str
    period: Period
    rows: int


def training_digest(columns: Mapping[str, Column], as_of: NDArray[np.int64], labels: NDArray[np.bool_]) -> Digest:
    """SHA-256 over every input value, moment and label of a training set, column by column."""
    parts = {name: _column_digest(column) for name, column in columns.items()}
    return digest({**parts, "as_of": digest(as_of.tolist()), "label": digest(labels.tolist())})


def holdout_digest(as_of: NDArray[np.int64], labels: NDArray[np.bool_]) -> Digest:
    """SHA-256 over the moments and labels of a hold-out, in order.

    Features are left out, so that models that read different ones can be compared on the same questions.
    """
    return digest({"as_of": digest(as_of.tolist()), "label": digest(labels.tolist())})


def _column_digest(column: Column) -> Digest:
    if column.values.dtype == np.dtype(object):
        return digest([item.hex() if isinstance(item, bytes) else item for item in to_python(column)])
    little_endian = column.values.astype(column.values.dtype.newbyteorder("<"))
    return digest_bytes(little_endian.tobytes() + column.valid.tobytes())
