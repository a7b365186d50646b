"""Takes rows out of an offline source so that their bytes are gone: Delta tables and Parquet files are rewritten.

A Delta table gets one commit per file that has such rows, and is vacuumed then. A Parquet file is rewritten beside
itself, row group by row group, synced and renamed, so that it is the old one or the new one at any moment; whoever has
the old one open reads on. A link is followed: the file that it leads to is rewritten, and the link stays. Doing it
again finishes what a killed process left.

A join key may stand in the names of folders alone (`courier=c07/…`). Such a file is about one value of it; where no row
is left, file and folders go too, since their names are the value. A source in which a join key stands nowhere cannot be
asked whose its rows are, which is an error and never no rows.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skewless.adapters.arrow_columns import kept_rows
from skewless.adapters.duckdb_connection import OFFLINE_STORE
from skewless.adapters.entity_rows import EntityRows
from skewless.adapters.offline_sources import delta_snapshot, opened
from skewless.adapters.offline_tables import OfflineTable, TableFile
from skewless.durability import sync
from skewless.errors import Conflict, InvalidDefinition, Unavailable
from skewless.features.point_in_time import OfflineSource, SourceFiles, SourceForm
from skewless.ingest_limits import ERASURE_TRIES

_BESIDE = ".{name}.erasing"
_GLOB = frozenset("*?[")


class OfflineErasure:
    """Counts and takes out the chosen rows of one source.

    Raises Unavailable for what cannot be read or written, and InvalidDefinition where a join key is not in the source,
    or in the folders of a Delta table, whose files cannot be rewritten.
    """

    def __init__(self, source: OfflineSource, rows: EntityRows) -> None:
        """Raises InvalidDefinition for a source that is not on a file system of this machine."""
        if "://" in source.path:
            raise InvalidDefinition(
                f"the source `{source.path}` is not on a file system of this machine",
                hint="delete the rows there by its own means",
            )
        self._source = source
        self._rows = rows

    def look(self) -> int:
        """How many rows there are."""
        if self._source.form is SourceForm.DELTA:
            self._check_columns()
            table = OfflineTable.of(self._source)
            return sum(_count(self._rows, table.read(each, self._rows.read)) for each in table.files())
        return sum(self._held(path, rows) for path, rows in self._files())

    def erase(self) -> int:
        """Take them out, and return how many there were."""
        if self._source.form is SourceForm.DELTA:
            self._check_columns()
            return self._erase_from_table()
        count = sum(self._erase_from_file(path, rows) for path, rows in self._files())
        self._remove_empty_folders()
        return count

    def _erase_from_table(self) -> int:
        table, done = OfflineTable.of(self._source), 0
        for attempt in range(ERASURE_TRIES):
            try:
                for file in table.files():
                    done += self._erase_from_part(table, file)
            except Conflict:
                if attempt == ERASURE_TRIES - 1:
                    raise
            else:
                break
        # Also where nothing was found: an earlier try may have been stopped before the old files were gone.
        table.vacuum(kept_s=0.0)
        return done

    def _erase_from_part(self, table: OfflineTable, file: TableFile) -> int:
        if not _count(self._rows, table.read(file, self._rows.read)):
            return 0
        whole = table.read(file)
        kept = kept_rows(whole, pc.invert(self._rows.matching(whole)))
        table.rewrite([file], [kept], changes_rows=True)
        return int(whole.num_rows - kept.num_rows)

    def _check_columns(self) -> None:
        """That a Delta table has the join keys as columns of its files; one that nobody has written to has no rows."""
        snapshot = delta_snapshot(Path(self._source.path))
        if snapshot is None:
            return
        for column in self._rows.columns.values():
            if column in snapshot.partitions:
                raise InvalidDefinition(
                    f"the Delta table `{self._source.path}` is partitioned by the join key `{column}`, and rows are "
                    "deleted from unpartitioned ones alone",
                    hint="delete the rows there by its own means, or copy it into a table without partitions",
                )
            if column not in snapshot.schema.names:
                raise self._no_column(column)

    def _files(self) -> Iterator[tuple[Path, EntityRows]]:
        """Files that may have such rows, each with what is meant in it, the join keys of its folders met already."""
        files = opened(self._source).files or SourceFiles((self._source.path,))
        paths = {each: _columns(Path(each)) for each in files.paths}
        for column in self._rows.columns.values():
            # Where files differ a missing column is null, as readers have it.
            named = files.is_partitioned and all(column in _named(Path(each)) for each in paths)
            if not named and all(column not in columns for columns in paths.values()):
                raise self._no_column(column)
        for each, columns in paths.items():
            folders = _named(Path(each)) if files.is_partitioned else {}
            inside = {name: column for name, column in self._rows.columns.items() if column in columns}
            named_by = {
                name: folders[column]
                for name, column in self._rows.columns.items()
                if column in folders and name not in inside
            }
            if all(self._rows.is_named(name, text) for name, text in named_by.items()) and (
                len(inside) + len(named_by) == len(self._rows.columns)
            ):
                yield Path(each), replace(self._rows, columns=inside)

    def _held(self, path: Path, rows: EntityRows) -> int:
        with _reading(path) as file:
            return sum(_count(rows, group) for group in _groups(file, rows))

    def _erase_from_file(self, path: Path, rows: EntityRows) -> int:
        told_by_folders = rows.columns != self._rows.columns
        link, path = path, path.resolve()
        beside = path.with_name(_BESIDE.format(name=path.name))
        beside.unlink(missing_ok=True)
        for _ in range(ERASURE_TRIES):
            before = _state(path)
            count = self._held(path, rows)
            if not count:
                return 0
            is_gone = told_by_folders and count == _rows_of(path)
            if not is_gone:
                count = self._rewrite(path, beside, rows)
            if _state(path) != before:
                beside.unlink(missing_ok=True)  # its writer was faster, and what it wrote is looked at anew
            elif is_gone:
                path.unlink()
                link.unlink(missing_ok=True)
                sync(link.parent)
                return count
            else:
                beside.replace(path)
                sync(path.parent)
                return count
        raise Unavailable(OFFLINE_STORE, f"`{path}` is written again and again", hint="stop its writer meanwhile")

    def _remove_empty_folders(self) -> None:
        """Remove folders that are named after one of the values, and those in them, where nothing is left in them."""
        start = Path(self._source.path)
        while _GLOB.intersection(str(start)):
            start = start.parent
        names = {column: name for name, column in self._rows.columns.items()}
        for folder in sorted(start.rglob("*=*/"), reverse=True):  # what lies in a folder comes before it
            told = _named(folder.relative_to(start) / "-")
            if any(column in names and self._rows.is_named(names[column], text) for column, text in told.items()):
                with suppress(OSError):  # something lies in it
                    folder.rmdir()
                    sync(folder.parent)

    def _no_column(self, column: str) -> InvalidDefinition:
        return InvalidDefinition(
            f"the source `{self._source.path}` has no column `{column}`, so nobody can say whose its rows are",
            hint="delete the rows there by its own means, or correct the names of its columns",
        )

    def _rewrite(self, path: Path, beside: Path, rows: EntityRows) -> int:
        """Write all other rows of a file beside it; returns how many were left out."""
        count = 0
        with _reading(path) as file:
            codec = file.metadata.row_group(0).column(0).compression if file.metadata.num_columns else "SNAPPY"
            compression = "NONE" if codec == "UNCOMPRESSED" else codec
            with pq.ParquetWriter(beside, file.schema_arrow, compression=compression) as writer:
                for group in _groups(file, None):
                    found = rows.matching(group)
                    count += pc.sum(found).as_py() or 0
                    writer.write_table(kept_rows(group, pc.invert(found)))
        shutil.copymode(path, beside)
        sync(beside)
        return count


def _count(rows: EntityRows, table: pa.Table) -> int:
    return pc.sum(rows.matching(table)).as_py() or 0


def _groups(file: pq.ParquetFile, rows: EntityRows | None) -> Iterator[pa.Table]:
    """A file's rows, one row group at a time; all columns, or those that it has of the ones that decide."""
    names = file.schema_arrow.names
    wanted = None if rows is None else [each for each in rows.read if each in names]
    for number in range(file.num_row_groups):
        yield file.read_row_group(number, columns=wanted)


def _columns(path: Path) -> frozenset[str]:
    with _reading(path) as file:
        return frozenset(file.schema_arrow.names)


def _rows_of(path: Path) -> int:
    with _reading(path) as file:
        return int(file.metadata.num_rows)


def _named(path: Path) -> dict[str, str]:
    """Columns that stand in the names of a file's folders (`day=2013-05-01/`), with their texts."""
    parts = (part.partition("=") for part in path.parts[:-1] if "=" in part)
    return {name: unquote(text) for name, _, text in parts}


def _state(path: Path) -> tuple[int, int, int]:
    told = path.stat()
    return told.st_ino, told.st_mtime_ns, told.st_size


@contextmanager
def _reading(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise Unavailable(
            OFFLINE_STORE,
            f"`{path}` cannot be read or rewritten: {' '.join(str(error).split())[:300]}",
            hint="see that the job that writes it has finished, and that its folder can be written to",
        ) from error
