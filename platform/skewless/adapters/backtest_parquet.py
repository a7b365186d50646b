"""The rows of a back-test as a Parquet file, written chunk by chunk.

prediction_id, bundle_digest, role, rung, label, other_label string; as_of timestamp;
probability, other_probability, difference float (other minus recorded; null where the other bundle has no score);
outcome string (null: none, or neither class); left_out string (why there is no score; null where there is one)
"""

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from skewless.durability import sync
from skewless.errors import InvalidRequest
from skewless.replays.back_test import NEGATIVE, POSITIVE, ScoredRows
from skewless.training.definition import BinaryLabels

_SCHEMA = pa.schema(
    [
        ("prediction_id", pa.string()),
        ("as_of", pa.timestamp("us", tz="UTC")),
        ("bundle_digest", pa.string()),
        ("role", pa.string()),
        ("rung", pa.string()),
        ("label", pa.string()),
        ("probability", pa.float32()),
        ("other_label", pa.string()),
        ("other_probability", pa.float32()),
        ("difference", pa.float32()),
        ("outcome", pa.string()),
        ("left_out", pa.string()),
    ]
)


class BackTestFile:
    """Takes rows, and puts the file in its place when all of them are in it; a context manager.

    Raises InvalidRequest for a path that cannot be written. Where the block fails nothing is left.
    """

    def __init__(self, path: Path, labels: BinaryLabels) -> None:
        self._path = path
        self._labels = labels
        self._incoming = path.with_name(f".{path.name}.incoming")

    def __enter__(self) -> Self:
        try:
            self._writer = pq.ParquetWriter(self._incoming, _SCHEMA, compression="zstd")
        except OSError as error:
            raise InvalidRequest(
                f"`{self._path}` cannot be written: {error.strerror or error}",
                path="--output",
                allowed="a file in a folder that exists",
            ) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._writer.close()
        if kind is not None:
            self._incoming.unlink(missing_ok=True)
            return
        sync(self._incoming)
        self._incoming.replace(self._path)
        sync(self._path.parent)

    def write(self, rows: ScoredRows) -> None:
        """Add rows."""
        scored = ~np.isnan(rows.other)
        columns = {
            "prediction_id": list(rows.prediction_ids),
            "as_of": pa.array(rows.as_of).cast(pa.timestamp("us", tz="UTC")),
            "bundle_digest": list(rows.bundles),
            "role": list(rows.roles),
            "rung": list(rows.rungs),
            "label": self._named(rows.recorded_positive, np.ones(rows.rows, dtype=np.bool_)),
            "probability": rows.recorded,
            "other_label": self._named(rows.other_positive, scored),
            "other_probability": pa.array(rows.other, mask=~scored),
            "difference": pa.array(rows.other - rows.recorded, mask=~scored),
            "outcome": self._named(rows.outcomes == POSITIVE, np.isin(rows.outcomes, (NEGATIVE, POSITIVE))),
            "left_out": [reason or None for reason in rows.left_out],
        }
        self._writer.write_table(pa.table(columns, schema=_SCHEMA))

    def _named(self, positive: NDArray[np.bool_], known: NDArray[np.bool_]) -> list[str | None]:
        names = (self._labels.negative, self._labels.positive)
        return [names[each] if told else None for each, told in zip(positive.tolist(), known.tolist(), strict=True)]
