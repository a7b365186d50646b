"""Training sets at rest: Parquet with a row per example."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.adapters.arrow_columns import column_to_arrow
from skewless.features.frame import FeatureFrame
from skewless.training.examples import Examples


class TrainingSetWriter:
    """Writes examples with their features, part by part: keys, request fields, `view__feature`, `as_of`, `label`.

    A context manager. The file is there once it is whole; an error leaves none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._incoming = path.with_name(f".{path.name}.incoming")
        self._writer: Any = None
        self.rows = 0

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
        if kind is None and self._writer is not None:
            self._incoming.replace(self._path)
        else:
            self._incoming.unlink(missing_ok=True)

    def write(self, examples: Examples, frame: FeatureFrame) -> None:
        """Add some examples; every part has the same columns."""
        columns = {name: column_to_arrow(column) for name, column in {**examples.keys, **frame.columns}.items()}
        columns["as_of"] = pa.array(examples.as_of).cast(pa.timestamp("us", tz="UTC"))
        columns["label"] = pa.array(examples.labels, mask=~examples.labelled)
        table = pa.table(columns)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._incoming, table.schema)
        self._writer.write_table(table)
        self.rows += examples.rows
