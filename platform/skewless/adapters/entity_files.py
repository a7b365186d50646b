"""Files of entities, a row each: join keys as NDJSON or Parquet, read in parts and checked against the keys' dtypes."""

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.adapters.arrow_columns import ARROW_TYPES, column_from_arrow
from skewless.dtypes import Dtype, to_python
from skewless.errors import InvalidRequest
from skewless.monitor_limits import REPAIR_CHUNK_ROWS
from skewless.timestamps import parse_timestamp

_PARQUET = ".parquet"
_NDJSON = (".ndjson", ".jsonl")
_OPTION = "--entities"
_ALLOWED = f"a file that ends in {', '.join((*_NDJSON, _PARQUET))}, an entity per row by its join keys' names"

Entity = dict[str, object]


def entity_parts(path: Path, dtypes: Mapping[str, Dtype]) -> Iterator[list[Entity]]:
    """The entities of a file in parts of at most REPAIR_CHUNK_ROWS, each with those join keys that the file has.

    `dtypes` are the join keys that are known, by name; other columns are passed over. Raises InvalidRequest for a file
    that cannot be read, and for a key that is null or of another type.
    """
    suffix = path.suffix.lower()
    if suffix not in (*_NDJSON, _PARQUET):
        raise InvalidRequest(f"`{path.name}` ends in `{suffix}`", path=_OPTION, allowed=_ALLOWED)
    read = _parquet_parts if suffix == _PARQUET else _ndjson_parts
    try:
        yield from read(path, dtypes)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InvalidRequest(f"`{path.name}` cannot be read: {error}"[:500], path=_OPTION, allowed=_ALLOWED) from error


def _parquet_parts(path: Path, dtypes: Mapping[str, Dtype]) -> Iterator[list[Entity]]:
    with pq.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if name in dtypes]
        for batch in file.iter_batches(REPAIR_CHUNK_ROWS, columns=names):
            columns = []
            for name in names:
                values = batch.column(name)
                if values.null_count:
                    raise ValueError(f"column `{name}` has nulls, and no entity has a null key")
                columns.append(to_python(column_from_arrow(values.cast(ARROW_TYPES[dtypes[name]]), dtypes[name])))
            yield [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _ndjson_parts(path: Path, dtypes: Mapping[str, Dtype]) -> Iterator[list[Entity]]:
    with path.open("rb") as file:
        lines = (line for line in enumerate(file, start=1) if line[1].strip())
        while part := list(islice(lines, REPAIR_CHUNK_ROWS)):
            yield [_entity(number, line, dtypes) for number, line in part]


def _entity(number: int, line: bytes, dtypes: Mapping[str, Dtype]) -> Entity:
    try:
        given = json.loads(line)
        return {name: _READ[dtypes[name]](value) for name, value in given.items() if name in dtypes}
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"line {number} is no entity: {error}") from error


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"{value!r} is no text")


def _integer(bits: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if type(value) is not int or not -(1 << bits - 1) <= value < 1 << bits - 1:
            raise ValueError(f"{value!r} is no integer of {bits} bits")
        return value

    return read


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(_text(value), validate=True)
    except binascii.Error as error:
        raise ValueError(f"{value!r} is no base64") from error


_READ: dict[Dtype, Callable[[Any], object]] = {
    Dtype.STRING: _text,
    Dtype.BYTES: _bytes,
    Dtype.INT32: _integer(32),
    Dtype.INT64: _integer(64),
    Dtype.TIMESTAMP: lambda value: parse_timestamp(_text(value)),
}
"""Dtypes that Feast has keys of."""
