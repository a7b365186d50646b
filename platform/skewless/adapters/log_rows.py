"""Rows of the prediction log on their way out: as Arrow, pandas or polars, or written to a file batch by batch."""

import base64
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from skewless.errors import InvalidRequest
from skewless.timestamps import format_timestamp, to_micros


class LogRows:
    """Rows that are read once, in one way. What is read batch by batch is never held whole."""

    def __init__(self, reader: Any) -> None:
        """`reader` is an Arrow table or RecordBatchReader."""
        self._reader = reader.to_reader() if isinstance(reader, pa.Table) else reader

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(self._reader.schema.names)

    def __iter__(self) -> Iterator[Any]:
        """Arrow record batches."""
        return iter(self._reader)

    def arrow(self) -> Any:
        """All rows as a `pyarrow.Table`."""
        return self._reader.read_all()

    def pandas(self) -> Any:
        """All rows as a `pandas.DataFrame`; needs pandas."""
        return self._reader.read_pandas()

    def polars(self) -> Any:
        """All rows as a `polars.DataFrame`; needs polars."""
        import polars

        return polars.from_arrow(self.arrow())

    def plain(self) -> Iterator[dict[str, Any]]:
        """Rows as JSON has them: times as RFC 3339 text, bytes as base64, NaN and infinities as null."""
        for batch in self._reader:
            for row in batch.to_pylist():
                yield {name: _plain(value) for name, value in row.items()}

    def write_parquet(self, path: Path) -> int:
        """Write a Parquet file, whole or not at all; returns the number of rows. Raises InvalidRequest."""
        return self._written(path, lambda place: pq.ParquetWriter(place, self._reader.schema, compression="zstd"))

    def write_csv(self, path: Path) -> int:
        """Write a CSV file with a header, or standard output for `-`; returns the number of rows.

        Raises InvalidRequest where a column has a type that CSV has no form for.
        """
        nested = [
            each.name for each in self._reader.schema if pa.types.is_nested(each.type) or pa.types.is_binary(each.type)
        ]
        if nested:
            raise InvalidRequest(
                f"CSV has no form for the column `{nested[0]}`",
                path="--csv",
                allowed="columns of numbers, text and times",
                hint="name the columns that are wanted in the SELECT, or write Parquet",
            )
        if str(path) == "-":
            return self._pumped(pc.CSVWriter(pa.PythonFile(sys.stdout.buffer, mode="w"), self._reader.schema))
        return self._written(path, lambda place: pc.CSVWriter(place, self._reader.schema))

    def _written(self, path: Path, opened: Callable[[Path], Any]) -> int:
        with _replacing(path) as draft:
            return self._pumped(opened(draft))

    def _pumped(self, writer: Any) -> int:
        rows = 0
        with writer:
            for batch in self._reader:
                writer.write_batch(batch)
                rows += batch.num_rows
        return rows


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file to write to, which takes the place of `path` once it is whole. Raises InvalidRequest."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield draft
        draft.replace(path)
    except OSError as error:
        raise InvalidRequest(
            f"`{path}` cannot be written: {error.strerror or error}",
            path=str(path),
            allowed="a file in a folder that exists",
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return format_timestamp(to_micros(value)) if value.tzinfo else value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    return value if isinstance(value, str | int | bool | None) else str(value)
