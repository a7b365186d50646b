"""Delta tables as offline sources that can be written to: rows added once, small files put together.

    <folder>/_delta_log/…json                 commits
    <folder>/<uuid>.parquet                   rows

A file is written, synced and then named by a commit, which is synced before `append` returns; so what was appended
survives a power cut, and a file that no commit names (its writer died) is removed by a later vacuum. A commit of new
rows carries who wrote them and that writer's number, so that a repeat is found to be done. A commit that takes files
out carries the next number of one counter: Delta refuses two of those that overtake each other, and does not refuse to
remove what is removed already (deltalake 1.6.6), which would double rows. The log says how many rows a file has and
nothing else of them, so that no value of a person stays in it when rows are deleted.
"""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
import uuid_utils
from deltalake import CommitProperties, DeltaTable, Field, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from skewless.adapters.offline_sources import DELTA_LOG, DeltaSnapshot, delta_failures, delta_snapshot
from skewless.durability import sync
from skewless.errors import Conflict, InvalidDefinition
from skewless.features.point_in_time import OfflineSource, SourceForm
from skewless.ingest_limits import (
    OFFLINE_COMPACT_BYTES_MAX,
    OFFLINE_COMPACT_FILES_MAX,
    OFFLINE_COMPACT_FILES_MIN,
    OFFLINE_COMPACT_ROWS_MAX,
    OFFLINE_ROW_GROUP_ROWS,
)

REWRITES = "skewless-rewrites"
"""Whose transaction number counts the commits that take files out."""
_CONFIGURATION = {
    "delta.checkpointInterval": "100",
    "delta.logRetentionDuration": "interval 1 days",
    "delta.deletedFileRetentionDuration": "interval 1 days",
}
_HOUR_S = 3_600


@dataclass(frozen=True, slots=True)
class TableFile:
    """A live Parquet file of a table; `path` is relative to the table's folder."""

    path: str
    size_bytes: int
    rows: int


@dataclass(frozen=True, slots=True)
class CompactedFiles:
    """What one compaction did: so many files are one now."""

    files: int
    rows: int
    size_bytes: int


class OfflineTable:
    """One Delta table of this machine's file system. Not safe for threads; several processes may write to one table."""

    def __init__(self, folder: Path) -> None:
        """Nothing is opened yet."""
        self._folder = folder
        self._kept: DeltaTable | None = None

    @classmethod
    def of(cls, source: OfflineSource) -> Self:
        """The table that a view's rows lie in. Raises InvalidDefinition for a source that cannot be added to."""
        if source.form is not SourceForm.DELTA:
            raise InvalidDefinition(
                f"the source `{source.path}` of view `{source.view}` is Parquet, which rows cannot be added to safely",
                hint="make it a Delta table: FileSource(path=…, file_format=DeltaFormat()); "
                "`deltalake.write_deltalake` copies what there is",
            )
        return cls(Path(source.path))

    def append(self, rows: pa.Table, *, writer: str, number: int) -> int:
        """Add rows, and return how many were added: none where the writer's `number`, or a later one, is in the table.

        Columns are matched by name and take the table's types; a column that the table does not have is added to it.
        The first append makes the table. Raises InvalidDefinition for values that do not fit, Conflict where another
        process added for the same writer meanwhile, and Unavailable; then nothing was added.
        """
        if not rows.num_rows:
            return 0
        snapshot = self._writable(rows.schema)
        if _is_done(snapshot, writer, number):
            return 0
        count: int = rows.num_rows
        written = self._write(_fitted(rows, snapshot.schema, self._folder))
        self._commit(snapshot, [_added(written, changes_rows=True)], Transaction(writer, number))
        return count

    def done(self, writer: str) -> int | None:
        """The last number of a writer that the table has; None where it has none."""
        snapshot = self._snapshot()
        if snapshot is None:
            return None
        with delta_failures(self._folder):
            version = snapshot.delta.transaction_version(writer)
        return None if version is None else int(version)

    def ensure(self, schema: Any) -> None:
        """Make the table, without rows, of an Arrow schema where there is none yet."""
        if self._snapshot() is None:
            self._made(schema)

    def files(self) -> list[TableFile]:
        """Its files as they are now; none where nobody has written to it."""
        snapshot = self._snapshot()
        listed = snapshot.actions if snapshot is not None else []
        return [TableFile(each["path"], each["size_bytes"], each["num_records"] or 0) for each in listed]

    def read(self, file: TableFile, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a file, of some columns or all; columns that the file lacks are left out. Raises Unavailable."""
        with delta_failures(self._folder), pq.ParquetFile(self._folder / file.path) as opened:
            wanted = None if columns is None else [each for each in columns if each in opened.schema_arrow.names]
            return opened.read(wanted)

    def rewrite(self, removed: Sequence[TableFile], tables: Sequence[pa.Table], *, changes_rows: bool) -> None:
        """Put a new file for each table that has rows in the place of others, in one commit.

        `changes_rows` says whether rows are fewer then. Raises InvalidDefinition for a partitioned table, Conflict
        where another rewriting was faster, and Unavailable; what was written then stays until it is vacuumed.
        """
        snapshot = self._snapshot()
        assert snapshot is not None, "what files are removed from is there"
        _refuse_partitions(snapshot)
        live = {each["path"] for each in snapshot.actions}
        if not live.issuperset(each.path for each in removed):
            raise self._overtaken()
        moment_ms = int(time.time() * 1_000)
        actions: list[AddAction | RemoveAction] = [
            _added(self._write(table), changes_rows=changes_rows) for table in tables if table.num_rows
        ]
        actions += [RemoveAction(each.path, changes_rows, moment_ms, each.size_bytes, {}) for each in removed]
        with delta_failures(self._folder):
            number = (snapshot.delta.transaction_version(REWRITES) or 0) + 1
        self._commit(snapshot, actions, Transaction(REWRITES, number))

    def compact(self, *, files_min: int = OFFLINE_COMPACT_FILES_MIN) -> CompactedFiles | None:
        """Put small files together, as many as fit into one; None where fewer than `files_min` are small.

        Memory is bounded by OFFLINE_COMPACT_ROWS_MAX rows. Raises Conflict and Unavailable.
        """
        chosen = _worth_it(self.files(), files_min)
        if not chosen:
            return None
        # Columns that were added later are missing in old files, and null there.
        table = pa.concat_tables([self.read(each) for each in chosen], promote_options="default")
        self.rewrite(chosen, [table], changes_rows=False)
        return CompactedFiles(len(chosen), table.num_rows, sum(each.size_bytes for each in chosen))

    def vacuum(self, *, kept_s: float | None = None, leftovers: bool = False) -> int:
        """Remove files that were taken out of the table longer than `kept_s` seconds ago; returns how many there were.

        None: as long as the table itself says. With `leftovers` also files that no commit names, of that age: give it
        hours, or what is being written goes. Raises Conflict and Unavailable.
        """
        snapshot = self._snapshot()
        if snapshot is None:
            return 0
        with delta_failures(self._folder):
            try:
                gone = snapshot.delta.vacuum(
                    retention_hours=None if kept_s is None else int(kept_s // _HOUR_S),
                    dry_run=False,
                    enforce_retention_duration=False,
                    full=leftovers,
                )
            except CommitFailedError as error:
                raise self._overtaken() from error
        return len(gone)

    def _snapshot(self) -> DeltaSnapshot | None:
        """The table as it is now; the Delta log is read from where it was read last."""
        if self._kept is None:
            found = delta_snapshot(self._folder)
            self._kept = None if found is None else found.delta
            return found
        with delta_failures(self._folder):
            self._kept.update_incremental()
        return DeltaSnapshot(self._folder, self._kept)

    def _writable(self, schema: Any) -> DeltaSnapshot:
        snapshot = self._snapshot() or self._made(schema)
        _refuse_partitions(snapshot)
        added = [field for field in schema if field.name not in snapshot.schema.names]
        if not added:
            return snapshot
        before = snapshot.version
        with delta_failures(self._folder):
            try:
                snapshot.delta.alter.add_columns([Field.from_arrow(each.with_nullable(True)) for each in added])
            except CommitFailedError as error:
                raise self._overtaken() from error
        self._settle(before, snapshot.delta)
        return DeltaSnapshot(self._folder, snapshot.delta)

    def _made(self, schema: Any) -> DeltaSnapshot:
        nullable = pa.schema([field.with_nullable(True).remove_metadata() for field in schema])
        with delta_failures(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._kept = DeltaTable.create(self._folder, nullable, mode="ignore", configuration=_CONFIGURATION)
        self._settle(-1, self._kept)
        sync(self._folder.parent)
        return DeltaSnapshot(self._folder, self._kept)

    def _write(self, rows: pa.Table) -> TableFile:
        """A new file, whole on the disk, that no commit names yet."""
        path = self._folder / f"{uuid_utils.uuid7()}.parquet"
        with delta_failures(self._folder):
            try:
                pq.write_table(rows, path, compression="zstd", row_group_size=OFFLINE_ROW_GROUP_ROWS)
                sync(path)
                sync(self._folder)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            return TableFile(path.name, path.stat().st_size, rows.num_rows)

    def _commit(
        self, snapshot: DeltaSnapshot, actions: Sequence[AddAction | RemoveAction], transaction: Transaction
    ) -> None:
        before = snapshot.version
        with delta_failures(self._folder):
            try:
                snapshot.delta.create_write_transaction(
                    list(actions),
                    "append",
                    snapshot.schema,
                    commit_properties=CommitProperties(app_transactions=[transaction]),
                )
            except CommitFailedError as error:
                raise self._overtaken() from error
            snapshot.delta.update_incremental()
        self._settle(before, snapshot.delta)

    def _settle(self, before: int, delta: DeltaTable) -> None:
        """Have the commits after one survive a power cut."""
        log = self._folder / DELTA_LOG
        for version in range(before + 1, int(delta.version()) + 1):
            # Another process may have cleaned up old commits meanwhile, of which there is a checkpoint then.
            with suppress(FileNotFoundError):
                sync(log / f"{version:020d}.json")
        sync(log)

    def _overtaken(self) -> Conflict:
        self._kept = None
        return Conflict(f"another process changed `{self._folder}` at the same moment", hint="try again")


def _is_done(snapshot: DeltaSnapshot, writer: str, number: int) -> bool:
    with delta_failures(snapshot.folder):
        done = snapshot.delta.transaction_version(writer)
    return done is not None and done >= number


def _refuse_partitions(snapshot: DeltaSnapshot) -> None:
    if snapshot.partitions:
        raise InvalidDefinition(
            f"the Delta table `{snapshot.folder}` is partitioned by {', '.join(snapshot.partitions)}, and only "
            "unpartitioned ones are written to",
            hint="copy it into a table without partitions; it can be read as it is",
        )


def _fitted(rows: pa.Table, schema: Any, folder: Path) -> pa.Table:
    """The rows with the table's types; columns that they do not have are null in the table."""
    columns = {}
    for name in rows.column_names:
        wanted = schema.field(name).type
        try:
            columns[name] = rows.column(name).cast(wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InvalidDefinition(
                f"column `{name}` of `{folder}` is {wanted}, and a value of type {rows.schema.field(name).type} does "
                f"not fit: {str(error).splitlines()[0]}",
                hint="declare the field with the table's type, or write a new table",
            ) from error
    return pa.table(columns)


def _added(file: TableFile, *, changes_rows: bool) -> AddAction:
    moment_ms = int(time.time() * 1_000)
    return AddAction(file.path, file.size_bytes, {}, moment_ms, changes_rows, json.dumps({"numRecords": file.rows}))


def _worth_it(files: Sequence[TableFile], files_min: int) -> list[TableFile]:
    """The smallest files that fit together into one of OFFLINE_COMPACT_BYTES_MAX; none where they are too few."""
    chosen: list[TableFile] = []
    size_bytes = rows = 0
    for each in sorted(files, key=lambda file: (file.size_bytes, file.path))[:OFFLINE_COMPACT_FILES_MAX]:
        # One that is larger than all before it together waits for its like, so that a row is rewritten few times.
        if len(chosen) >= files_min and each.size_bytes > size_bytes:
            break
        size_bytes, rows = size_bytes + each.size_bytes, rows + each.rows
        if size_bytes > OFFLINE_COMPACT_BYTES_MAX or rows > OFFLINE_COMPACT_ROWS_MAX:
            break
        chosen.append(each)
    return chosen if len(chosen) >= files_min else []
