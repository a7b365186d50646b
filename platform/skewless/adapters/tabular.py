"""Tables of other libraries as training rows: Arrow tables and data sets, pandas, polars, DuckDB relations, Parquet.

Everything comes in by way of Arrow, column by column, cast to the dtype that the transform declares. What is in memory
or in files is gone through in place, pass by pass. Anything else that hands out an Arrow stream (`__arrow_c_stream__`:
polars frames, DuckDB relations, a RecordBatchReader) is read once, because a query may answer otherwise the second
time; what exceeds 256 MiB goes into a temporary file with only the columns needed, and passes read that.

NaN is a value and null is none, as everywhere, with one exception: pandas has no other mark than NaN for a missing
number in its NumPy-backed columns, so that from pandas NaN comes in as null.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from skewless.adapters.arrow_columns import ARROW_TYPES, column_from_arrow
from skewless.dtypes import TABLE, Column, Dtype
from skewless.errors import InvalidDefinition
from skewless.transforms import FittedTransform, Transform
from skewless.transforms.fitting import Batch

BATCH_ROWS = 1 << 16
MEMORY_BYTES = 256 << 20
"""Of a stream, kept in memory; more goes into a file."""
_READ_AHEAD = {"batch_readahead": 1, "fragment_readahead": 1, "use_threads": False}
"""How a data set is read: with threads, Arrow holds several times as much ahead of a reader that computes (335 MiB
instead of 109 for 40 columns, measured), and reading is not what a fit waits for."""

Inputs = Sequence[tuple[str, Dtype]]


@runtime_checkable
class ArrowStream(Protocol):
    """Anything that exports its rows by Arrow's PyCapsule interface."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object: ...


def fit(transform: Transform, data: object, *, target: str | None = None) -> FittedTransform:
    """The transform, fitted on a table; `target` names the column that target encodings learn from.

    `data` is anything that `TrainingRows` takes. Raises InvalidDefinition.
    """
    with TrainingRows(data, transform.inputs, target=target) as rows:
        return transform.fit_batches(rows)


def columns_of(data: object, inputs: Inputs) -> tuple[dict[str, Column], int]:
    """A whole table's columns in memory, and its count of rows: what `PreparedTransform.apply` takes."""
    with TrainingRows(data, inputs) as batches:
        parts = list(batches)
    rows = sum(part.rows for part in parts)
    return {name: _joined(dtype, [part.columns[name] for part in parts]) for name, dtype in inputs}, rows


class TrainingRows(AbstractContextManager["TrainingRows"]):
    """The rows of a table as batches that can be gone through again and again; a context, since it may hold a file.

    Takes an Arrow table, record batch or data set, a pandas frame, the path of a Parquet file or of a folder of them,
    and anything with `__arrow_c_stream__`. Raises InvalidDefinition for anything else, for a column that is missing or
    there twice, and for values that do not fit the declared dtype.
    """

    def __init__(
        self, data: object, inputs: Inputs, *, target: str | None = None, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self._inputs = tuple(inputs)
        self._target = target
        self._resources = ExitStack()
        names = list(dict.fromkeys([name for name, _ in inputs] + ([] if target is None else [target])))
        self._source = _source(data, names, _Spool(self._resources, memory_bytes))

    def __iter__(self) -> Iterator[Batch]:
        for part in self._source:
            columns = {name: _column(part, name, dtype) for name, dtype in self._inputs}
            target = None if self._target is None else _column(part, self._target, Dtype.FLOAT64)
            yield Batch(columns, part.num_rows, target)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def __enter__(self) -> Self:
        return self


class _Table:
    """An Arrow table, in place."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __iter__(self) -> Iterator[Any]:
        return iter(self._table.to_batches(max_chunksize=BATCH_ROWS))


class _Dataset:
    """Files, read anew for each pass."""

    def __init__(self, dataset: Any, names: list[str]) -> None:
        self._dataset = dataset
        self._names = names

    def __iter__(self) -> Iterator[Any]:
        batches: Iterator[Any] = self._dataset.to_batches(columns=self._names, batch_size=BATCH_ROWS, **_READ_AHEAD)
        return batches


class _Pandas:
    """A pandas frame, a slice of it at a time as Arrow."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self._frame), BATCH_ROWS):
            part = self._frame.iloc[start : start + BATCH_ROWS]
            try:
                yield pa.RecordBatch.from_pandas(part, preserve_index=False)
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise InvalidDefinition(
                    f"rows {start:,} to {start + len(part) - 1:,} of the pandas frame hold a column of mixed types:"
                    f" {error}",
                    hint="give the column one type before fitting, for example with astype()",
                ) from error


class _IpcFile:
    """A temporary file of Arrow batches, mapped into memory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Any]:
        with pa.memory_map(str(self._path)) as mapped:
            reader = pa.ipc.open_file(mapped)
            for index in range(reader.num_record_batches):
                yield reader.get_batch(index)


class _Spool(NamedTuple):
    """Where a stream goes: into memory up to so many bytes, then into a file that lives as long as the resources."""

    resources: ExitStack
    memory_bytes: int


def _source(data: object, names: list[str], spool: _Spool) -> Any:
    """Arrow record batches, with the columns named and perhaps more, that can be iterated again and again."""
    if isinstance(data, str | Path):
        return _source(_files(Path(data)), names, spool)
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    if isinstance(data, pa.Table):
        _require(data.schema.names, names)
        return _Table(data.select(names))
    if isinstance(data, ds.Dataset):
        _require(data.schema.names, names)
        return _Dataset(data, names)
    if _is_pandas(data):
        return _pandas(data, names)
    if isinstance(data, ArrowStream):
        return _read_once(pa.RecordBatchReader.from_stream(data), names, spool)
    raise InvalidDefinition(
        f"cannot take training rows from a {type(data).__module__}.{type(data).__name__}; allowed: an Arrow table,"
        " batch, data set or stream, a pandas or polars frame, a DuckDB relation, the path of Parquet files"
    )


def _pandas(frame: Any, names: list[str]) -> _Pandas:
    _require([str(name) for name in frame.columns], names)
    return _Pandas(frame[names])


def _is_pandas(data: object) -> bool:
    # By name, so that pandas is not imported for those who do not use it.
    return type(data).__name__ == "DataFrame" and type(data).__module__.partition(".")[0] == "pandas"


def _files(path: Path) -> Any:
    if not path.exists():
        raise InvalidDefinition(f"`{path}` does not exist; give a Parquet file, or a folder of Parquet files")
    try:
        return ds.dataset(str(path), format="parquet")
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidDefinition(f"`{path}` cannot be read as Parquet: {error}") from error


def _require(present: Sequence[str], names: Sequence[str]) -> None:
    for name in names:
        found = list(present).count(name)
        if found != 1:
            raise InvalidDefinition(
                f"column `{name}` is {'missing from' if not found else f'{found} times in'} the table;"
                f" columns: {', '.join(f'`{each}`' for each in sorted(set(present)))}",
                hint="select or rename the table's columns to those that the transform reads",
            )


def _read_once(reader: Any, names: list[str], spool: _Spool) -> Any:
    """The stream's batches: a table where they are few, else a file that is deleted with the resources."""
    _require(reader.schema.names, names)
    schema = pa.schema([reader.schema.field(name) for name in names])
    kept: list[Any] = []
    kept_bytes = 0
    for batch in reader:
        kept.append(batch.select(names))
        kept_bytes += kept[-1].nbytes
        if kept_bytes > spool.memory_bytes:
            return _spooled(schema, kept, reader, spool.resources)
    return _Table(pa.Table.from_batches(kept, schema=schema))


def _spooled(schema: Any, kept: list[Any], reader: Any, resources: ExitStack) -> _IpcFile:
    folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="skewless-fit-")))
    path = folder / "rows.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        while kept:
            writer.write_batch(kept.pop(0))
        for batch in reader:
            writer.write_batch(batch.select(schema.names))
    return _IpcFile(path)


def _column(batch: Any, name: str, dtype: Dtype) -> Column:
    array = batch.column(name)
    try:
        if dtype is Dtype.STRING:
            return _strings(array)
        if dtype is not Dtype.TIMESTAMP and not array.type.equals(ARROW_TYPES[dtype]):
            array = array.cast(ARROW_TYPES[dtype])
        return column_from_arrow(array, dtype)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise InvalidDefinition(
            f"column `{name}` is {array.type} in the table and cannot be read as {dtype}: {error}",
            hint="cast the column in the table, or declare it in the transform as what it is",
        ) from error


def _strings(array: Any) -> Column:
    """Strings by way of a dictionary: a word that occurs often is made once, and its rows share it."""
    if not pa.types.is_dictionary(array.type):
        array = array.cast(pa.string()).dictionary_encode()
    words = np.array([*array.dictionary.cast(pa.string()).to_pylist(), TABLE[Dtype.STRING].zero], dtype=object)
    places = array.indices.fill_null(len(words) - 1).to_numpy(zero_copy_only=False)
    values = words[places]
    valid = np.array(array.is_valid().to_numpy(zero_copy_only=False))
    return Column(Dtype.STRING, values, valid)


def _joined(dtype: Dtype, parts: list[Column]) -> Column:
    empty = Column(dtype, np.empty(0, dtype=TABLE[dtype].numpy), np.empty(0, dtype=np.bool_))
    columns = [empty, *parts]
    return Column(
        dtype, np.concatenate([each.values for each in columns]), np.concatenate([each.valid for each in columns])
    )
