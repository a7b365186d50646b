"""The files of an offline source as they are now: one Parquet file, a folder or glob of them, or a Delta table.

    FileSource(path="clicks.parquet")                                   one file
    FileSource(path="clicks/"), FileSource(path="clicks/*.parquet")     every file below a folder, or that a glob finds
    FileSource(path="clicks/", file_format=DeltaFormat())               what the table's newest commit names

Everything that reads sources (training, parity, repair, quality, materialization, freshness) opens them here, so that
a table means the same rows to all of them. A Delta table that nobody has written to yet is one without rows.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from skewless.adapters.duckdb_connection import OFFLINE_STORE
from skewless.errors import InvalidDefinition, Unavailable
from skewless.features.point_in_time import OfflineSource, SourceFiles, SourceForm
from skewless.ingest_limits import SOURCE_FILES_MAX

DELTA_LOG = "_delta_log"
_GLOB = frozenset("*?[")
_READABLE = frozenset({"appendOnly", "invariants", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"})
"""Features under which the files of a Delta table hold exactly its rows."""
_REASON_CHARACTERS = 300


@dataclass(frozen=True)
class DeltaSnapshot:
    """A Delta table as it was when it was opened."""

    folder: Path
    delta: DeltaTable

    @property
    def version(self) -> int:
        """Commits that it had, less one."""
        return int(self.delta.version())

    @cached_property
    def schema(self) -> Any:
        """Its Arrow schema, partition columns among its fields."""
        return pa.schema(self.delta.schema().to_arrow())

    @cached_property
    def partitions(self) -> tuple[str, ...]:
        """Columns that stand in the names of folders and not in files."""
        return tuple(self.delta.metadata().partition_columns)

    @cached_property
    def actions(self) -> list[dict[str, Any]]:
        """What its log says of each of its files, by path: `path` relative to the folder as on disk, `size_bytes`,
        `num_records`, `modification_time` (ms)."""
        with delta_failures(self.folder):
            table = pa.table(self.delta.get_add_actions(flatten=True))
        rows = table.select(["path", "size_bytes", "num_records", "modification_time"]).to_pylist()
        return sorted(({**row, "path": unquote(row["path"])} for row in rows), key=lambda row: str(row["path"]))

    def files(self) -> SourceFiles:
        """Its files by their absolute paths."""
        paths = tuple(str(self.folder / each["path"]) for each in self.actions)
        return SourceFiles(paths, self.version, bool(self.partitions))


def delta_snapshot(folder: Path) -> DeltaSnapshot | None:
    """The table in a folder as it is now; None where nobody has written to it yet.

    Raises InvalidDefinition for a folder that holds something else and for a table whose files are not its rows, and
    Unavailable.
    """
    if not (folder / DELTA_LOG).is_dir():
        if folder.is_dir() and any(folder.iterdir()):
            raise InvalidDefinition(
                f"`{folder}` is declared as a Delta table and has no `{DELTA_LOG}`",
                hint="correct the path, or leave DeltaFormat out for a folder of Parquet files",
            )
        return None
    with delta_failures(folder):
        table = DeltaTable(folder)
        protocol = table.protocol()
    unknown = set(protocol.reader_features or ()) - _READABLE
    if unknown or (protocol.min_reader_version == 2):
        raise InvalidDefinition(
            f"the Delta table `{folder}` uses {', '.join(sorted(unknown)) or 'columnMapping'}, with which its files "
            f"do not hold its rows as they are. Allowed: {', '.join(sorted(_READABLE))}",
            hint="write the table without it, for instance by copying it into a new table",
        )
    return DeltaSnapshot(folder, table)


def opened(source: OfflineSource) -> OfflineSource:
    """The source with its files as they are now; a single Parquet file stays as it is.

    Raises InvalidDefinition as `delta_snapshot`, and Unavailable for a folder or glob without any file.
    """
    path = Path(source.path)
    if "://" in source.path and source.form is SourceForm.DELTA:
        raise InvalidDefinition(
            f"the Delta table `{source.path}` of view `{source.view}` is not on a file system of this machine",
            hint="mount it, or copy it to a folder; sources in buckets are read as Parquet alone",
        )
    if "://" in source.path:
        return source
    if source.form is SourceForm.DELTA:
        snapshot = delta_snapshot(path)
        files = SourceFiles(()) if snapshot is None else snapshot.files()
    elif (path / DELTA_LOG).is_dir():
        raise InvalidDefinition(
            f"`{path}` of view `{source.view}` is a Delta table, and declared as Parquet; its files may hold rows that "
            "it has no more",
            hint="declare FileSource(path=…, file_format=DeltaFormat())",
        )
    elif path.is_dir():
        files = _found(source, path, "**/*.parquet")
    elif _GLOB.intersection(source.path):
        start = Path(*path.parts[: _first_glob(path)])
        files = _found(source, start, str(path.relative_to(start)))
    else:
        return source
    if len(files.paths) > SOURCE_FILES_MAX:
        raise InvalidDefinition(
            f"the source `{source.path}` of view `{source.view}` has {len(files.paths):,} files. "
            f"Allowed: {SOURCE_FILES_MAX:,}",
            hint="put its small files together; `skewless ingest compact` does so for a Delta table",
        )
    return replace(source, files=files)


def opened_all(sources: Mapping[str, OfflineSource]) -> dict[str, OfflineSource]:
    """Every source with its files as they are now; raises as `opened`."""
    return {name: opened(source) for name, source in sources.items()}


def arrow_dataset(source: OfflineSource) -> Any:
    """The source's rows for pyarrow, as they are now; a Delta table that nobody wrote to has no columns.

    Raises as `opened`, and ArrowInvalid or OSError for what is no Parquet.
    """
    # Without read-ahead, which holds all of a file (see drift_files).
    form = ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=False))
    if source.form is SourceForm.DELTA:
        return _delta_dataset(delta_snapshot(Path(source.path)), form)
    found = opened(source).files
    if found is None:
        return ds.dataset(source.path, format=form)
    partitioning = {"partitioning": "hive", "partition_base_dir": source.path} if found.is_partitioned else {}
    return ds.dataset(list(found.paths), format=form, **partitioning)


@contextmanager
def delta_failures(folder: Path) -> Iterator[None]:
    """What deltalake, Arrow and the disk raise about a table, as Unavailable; a commit that lost a race passes."""
    try:
        yield
    except CommitFailedError:
        raise
    except (DeltaError, pa.ArrowException, OSError) as error:
        raise Unavailable(
            OFFLINE_STORE,
            f"the Delta table `{folder}` cannot be read or written: {' '.join(str(error).split())}"[
                : _REASON_CHARACTERS + len(str(folder))
            ],
            hint="check the disk and the folder's permissions, and whether something else rewrites the table",
        ) from error


def _delta_dataset(snapshot: DeltaSnapshot | None, form: Any) -> Any:
    if snapshot is None:
        return ds.dataset(pa.schema([]).empty_table())
    paths = list(snapshot.files().paths)
    if not paths:
        return ds.dataset(snapshot.schema.empty_table())
    if not snapshot.partitions:
        return ds.dataset(paths, schema=snapshot.schema, format=form)
    fields = pa.schema([snapshot.schema.field(name) for name in snapshot.partitions])
    hive = ds.partitioning(fields, flavor="hive")
    return ds.dataset(
        paths, schema=snapshot.schema, format=form, partitioning=hive, partition_base_dir=str(snapshot.folder)
    )


def _found(source: OfflineSource, start: Path, pattern: str) -> SourceFiles:
    """Files that a glob finds, without hidden ones and those that others write beside (`_temporary/`, `.part`)."""
    paths = [
        path
        for path in sorted(start.glob(pattern))
        if not any(part.startswith((".", "_")) for part in path.relative_to(start).parts) and path.is_file()
    ]
    if not paths:
        raise Unavailable(
            OFFLINE_STORE,
            f"the source `{source.path}` of view `{source.view}` has no Parquet file",
            hint="see that the job that writes this source has finished, or correct its path",
        )
    # Columns stand in folders' names where they do so in the same way for every file.
    named = {
        tuple(part.partition("=")[0] for part in path.relative_to(start).parts[:-1] if "=" in part) for path in paths
    }
    return SourceFiles(tuple(str(path) for path in paths), None, len(named) == 1 and named != {()})


def _first_glob(path: Path) -> int:
    return next(number for number, part in enumerate(path.parts) if _GLOB.intersection(part))
