"""The log store: Delta Lake tables in a folder or a bucket, the one importer of deltalake.

    predictions/<endpoint>/<columns>/day=2013-05-01/<round>-<writer>.parquet      (day of as_of)
    outcomes/<columns>/day=…, tallies/<columns>/day=…                              (day of receipt; day of the end)

Parquet files are written by `log_parquet`, and are in a table once a commit of its Delta log names them. Every commit
of new rows carries its writer's id and the number of its round, so that a round that is done again is found to be done.
Every commit that takes files out carries the next number of one counter: Delta refuses two of those that overtake each
other, and does not refuse to remove what is removed already (deltalake 1.6.6), which would double rows.
"""

import os
import re
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from skewless.adapters.artifact_address import BucketAddress, parse_artifacts_url
from skewless.adapters.log_files import PART, SETTING, FolderLogFiles, LogFiles
from skewless.adapters.log_parquet import DAY, WrittenFile, write_file
from skewless.adapters.log_tables import KINDS, PREDICTIONS, SCHEMA_VERSION, LogTable, joined, stored_schema
from skewless.durability import sync
from skewless.errors import Conflict, InvalidSettings, Unavailable
from skewless.limits import (
    ARTIFACT_CONNECT_TIMEOUT_S,
    ARTIFACT_RETRIES_MAX,
    ARTIFACT_RETRY_S,
    LOG_STORE_REQUEST_S,
    LOG_TABLES_KEPT,
)

REWRITES = "rewrites"
"""Whose transaction number counts the commits that take files out."""
_TABLE_OPTIONS = {
    "delta.checkpointInterval": "50",
    "delta.logRetentionDuration": "interval 1 days",
    "delta.deletedFileRetentionDuration": "interval 1 days",
    "skewless.schemaVersion": str(SCHEMA_VERSION),
}
_FACTS = (
    "path",
    "partition.day",
    "size_bytes",
    "num_records",
    "modification_time",
    "min.prediction_id",
    "max.prediction_id",
)
"""What of a file's entry in the Delta log is read."""
_HOUR_S = 3_600
_REASON_CHARACTERS = 300
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A live Parquet file of a table. `path` is relative to the table; ranges are None where no row has a value."""

    path: str
    day: str
    size_bytes: int
    rows: int
    modified_s: float
    prediction_ids: tuple[str, str] | None


@dataclass(frozen=True)
class StoredTable:
    """One table as it was when it was opened. `endpoint` is empty but for predictions."""

    kind: str
    endpoint: str
    columns: str
    _delta: DeltaTable = field(repr=False)
    _files: LogFiles = field(repr=False)

    @property
    def path(self) -> str:
        """Its folder in the store."""
        return table_path(self.kind, self.endpoint, self.columns)

    @property
    def version(self) -> int:
        """Commits that it had."""
        return int(self._delta.version())

    @cached_property
    def schema(self) -> Any:
        """Names and plain types of its columns, `day` among them, which files do not have."""
        return pa.schema(self._delta.schema().to_arrow())

    @cached_property
    def entries(self) -> list[StoredFile]:
        """Its files with what the Delta log says of them, in order of day and path."""
        with translated():
            actions = pa.table(self._delta.get_add_actions(flatten=True))
        columns = [
            actions.column(name).to_pylist() if name in actions.column_names else [None] * actions.num_rows
            for name in _FACTS
        ]
        found = [
            StoredFile(path, day, size, rows, modified / 1_000, None if low is None else (low, high))
            for path, day, size, rows, modified, low, high in zip(*columns, strict=True)
        ]
        return sorted(found, key=lambda each: (each.day, each.path))

    def files(
        self, day_from: str | None = None, day_to: str | None = None, *, prediction_id: str | None = None
    ) -> list[str]:
        """Addresses of its files: absolute paths, or `s3://bucket/key`.

        Days are texts such as 2013-05-01, both inclusive. With `prediction_id` only files that can hold it.
        """
        return [
            self._files.address(f"{self.path}/{each.path}")
            for each in self.entries
            if (day_from is None or day_from <= each.day)
            and (day_to is None or each.day <= day_to)
            and (prediction_id is None or _can_hold(each, prediction_id))
        ]

    def fetched(self, file: StoredFile) -> AbstractContextManager[Path]:
        """A file of it to read on this machine, as long as the block lasts."""
        return self._files.fetched(f"{self.path}/{file.path}")

    def write(self, day: str, name: str, tables: Iterable[Any]) -> WrittenFile | None:
        """A new file of it, which no commit names yet; None where the tables have no row."""
        written = write_file(self._files, f"{self.path}/day={day}/{name}.parquet", day, tables)
        return written and replace(written, path=f"day={day}/{name}.parquet")

    def done(self, writer: str) -> int | None:
        """The last round of a writer that it has; None where it has none."""
        with translated():
            version = self._delta.transaction_version(writer)
        return None if version is None else int(version)

    def add(self, added: Sequence[WrittenFile], writer: str, number: int) -> None:
        """Commit the new rows of a writer's round. Raises Unavailable."""
        with translated():
            self._commit([_add(each, changes_rows=True) for each in added], Transaction(writer, number))

    def rewrite(
        self, added: Sequence[WrittenFile], removed: Sequence[StoredFile], *, changes_rows: bool
    ) -> "StoredTable":
        """Put files in the place of others in one commit, and return the table with it.

        `changes_rows` says whether rows are fewer then. Raises Conflict where another rewriting was faster, and
        Unavailable; what was written stays behind until it is vacuumed.
        """
        moment_ms = int(time.time() * 1_000)
        actions: list[AddAction | RemoveAction] = [_add(each, changes_rows=changes_rows) for each in added]
        actions += [
            RemoveAction(each.path, changes_rows, moment_ms, each.size_bytes, {DAY: each.day}) for each in removed
        ]
        try:
            with translated():
                self._commit(actions, Transaction(REWRITES, (self.done(REWRITES) or 0) + 1))
        except CommitFailedError as error:
            raise Conflict(
                f"files of `{self.path}` were rewritten by somebody else meanwhile", hint="try again"
            ) from error
        return StoredTable(self.kind, self.endpoint, self.columns, self._delta, self._files)

    def vacuum(self, *, kept_s: float, leftovers: bool = False) -> int:
        """Remove files from the disk that were taken out longer than `kept_s` seconds ago; returns how many there were.

        With `leftovers` also those that no commit has ever named, of that age.
        """
        with translated():
            listed = self._delta.vacuum(
                retention_hours=int(kept_s // _HOUR_S),
                enforce_retention_duration=False,
                dry_run=True,
                full=leftovers,
            )
            # Paths as they were committed, and some once more as the file system has them.
            paths = sorted({f"{self.path}/{each[each.rindex(f'{DAY}=') :]}" for each in listed if f"{DAY}=" in each})
            return self._files.remove(paths)

    def _commit(self, actions: list[AddAction | RemoveAction], transaction: Transaction) -> None:
        before = self._delta.version()
        self._delta.create_write_transaction(
            actions,
            "append",
            self.schema,
            [DAY],
            commit_properties=CommitProperties(app_transactions=[transaction]),
        )
        self._delta.update_incremental()
        settle(self._files, self.path, range(before + 1, self._delta.version() + 1))


class LogStore:
    """The tables of one store. Readers may open it anywhere; one process at a time writes to it from a spool folder."""

    def __init__(self, address: Path | BucketAddress, scratch: Path) -> None:
        """`scratch` is a folder of this machine for the files of a bucket on their way; nothing is connected yet."""
        self._options = _storage_options(address) if isinstance(address, BucketAddress) else None
        self.files = _files_in(address, scratch)
        self.address = str(address)
        self._written: OrderedDict[str, DeltaTable] = OrderedDict()

    def tables(self, kind: str | None = None, endpoint: str | None = None) -> list[StoredTable]:
        """Its tables as they are now; none where nothing was stored yet. Raises Unavailable."""
        with translated():
            found = [
                self._opened(each, name, columns)
                for each in ([kind] if kind else KINDS)
                for name in self._endpoints(each, endpoint)
                for columns in self.files.folders("/".join(filter(None, (each, name))))
            ]
        return [each for each in found if each is not None]

    def append(self, writer: str, number: int, tables: Sequence[LogTable]) -> dict[str, int]:
        """Commit the rows of a writer's round to their tables, and return how many of each kind were new.

        A table that has the round already is left alone, so that a round can be done again. Raises Unavailable.
        """
        grouped: dict[tuple[str, str, str], list[Any]] = {}
        for each in tables:
            grouped.setdefault((each.kind, each.endpoint, each.columns), []).append(each.table)
        added: dict[str, int] = {}
        for (kind, endpoint, columns), parts in grouped.items():
            table = self._writable(kind, endpoint, columns, parts[0].schema)
            done = table.done(writer)
            if done is not None and done >= number:
                continue
            rows = joined(parts)
            with translated():
                written = [table.write(day, f"{number:012d}-{writer}", [of_day]) for day, of_day in _by_day(rows)]
            table.add([each for each in written if each is not None], writer, number)
            added[kind] = added.get(kind, 0) + rows.num_rows
        return added

    def _endpoints(self, kind: str, endpoint: str | None) -> list[str]:
        if kind != PREDICTIONS:
            return [""]
        return self.files.folders(kind) if endpoint is None else [endpoint]

    def _opened(self, kind: str, endpoint: str, columns: str) -> StoredTable | None:
        uri = self.files.address(table_path(kind, endpoint, columns))
        try:
            return StoredTable(kind, endpoint, columns, DeltaTable(uri, storage_options=self._options), self.files)
        except TableNotFoundError:  # its folder is there, and its first commit is not
            return None

    def _writable(self, kind: str, endpoint: str, columns: str, schema: Any) -> StoredTable:
        """A table as it is now, made where it is new; those written last are kept open."""
        path = table_path(kind, endpoint, columns)
        with translated():
            delta = self._written.pop(path, None)
            if delta is not None:
                delta.update_incremental()
            else:
                delta = DeltaTable.create(
                    self.files.address(path),
                    stored_schema(schema),
                    mode="ignore",
                    partition_by=[DAY],
                    name=endpoint or kind,
                    configuration=_TABLE_OPTIONS,
                    raise_if_key_not_exists=False,
                    storage_options=self._options,
                )
                settle(self.files, path, range(1))
        self._written[path] = delta
        while len(self._written) > LOG_TABLES_KEPT:
            self._written.popitem(last=False)
        return StoredTable(kind, endpoint, columns, delta, self.files)


def open_log_store(address: str, *, scratch: Path | None = None) -> LogStore:
    """The store at a folder, `file:///…` or `s3://…`, as SKEWLESS_LOG_STORE has it. Nothing is connected yet.

    `scratch` is where files of a bucket lie on their way; a temporary folder where not given. Raises InvalidSettings.
    """
    try:
        place = parse_artifacts_url(address)
    except InvalidSettings as error:
        raise InvalidSettings(error.message.replace("artifact store", "log store"), hint=error.hint) from error
    return LogStore(place, scratch or Path(tempfile.gettempdir()) / f"skewless-log-{os.getpid()}")


def _files_in(address: Path | BucketAddress, scratch: Path) -> LogFiles:
    if isinstance(address, Path):
        return FolderLogFiles(address)
    try:
        from skewless.adapters.bucket_log_files import BucketLogFiles
    except ImportError as error:
        raise InvalidSettings(
            f"the prediction log is kept at {address}, and the client for it is not installed",
            hint="install skewless with its extra `s3`",
        ) from error
    return BucketLogFiles(address, scratch)


def table_path(kind: str, endpoint: str, columns: str) -> str:
    """The folder of a table in the store.

    >>> table_path("predictions", "flight-delay", "0123456789ab"), table_path("outcomes", "", "0123456789ab")
    ('predictions/flight-delay/0123456789ab', 'outcomes/0123456789ab')
    """
    return "/".join(filter(None, (kind, endpoint, columns)))


def settle(files: LogFiles, path: str, versions: range) -> None:
    """Have commits of a table survive a power cut; in a bucket they do."""
    if not isinstance(files, FolderLogFiles) or not versions:
        return
    folder = Path(files.address(f"{path}/_delta_log"))
    for version in versions:
        # Another process may have cleaned up old commits meanwhile, of which there is a checkpoint then.
        with suppress(FileNotFoundError):
            sync(folder / f"{version:020d}.json")
    sync(folder)


def _by_day(rows: Any) -> list[tuple[str, Any]]:
    """Rows by their day, without that column."""
    days = rows.column(DAY).combine_chunks()
    found = sorted(pc.unique(days).to_pylist())
    kept = rows.drop_columns([DAY])
    if len(found) == 1:
        return [(found[0], kept)]
    texts = days.cast(pa.string())
    return [(day, kept.filter(pc.equal(texts, day))) for day in found]


def _can_hold(file: StoredFile, prediction_id: str) -> bool:
    return file.prediction_ids is not None and file.prediction_ids[0] <= prediction_id <= file.prediction_ids[1]


def _add(written: WrittenFile, *, changes_rows: bool) -> AddAction:
    moment_ms = int(time.time() * 1_000)
    return AddAction(written.path, written.size_bytes, {DAY: written.day}, moment_ms, changes_rows, written.statistics)


def _storage_options(address: BucketAddress) -> dict[str, str]:
    """What deltalake is told about a bucket; credentials it reads from the environment, as obstore does."""
    options = {
        "aws_virtual_hosted_style_request": str(not address.path_style).lower(),
        "allow_http": str(address.endpoint.startswith("http://")).lower(),
        "timeout": f"{LOG_STORE_REQUEST_S:g}s",
        "connect_timeout": f"{ARTIFACT_CONNECT_TIMEOUT_S:g}s",
        "max_retries": str(ARTIFACT_RETRIES_MAX),
        "retry_timeout": f"{ARTIFACT_RETRY_S:g}s",
    }
    if address.endpoint:
        options["aws_endpoint"] = address.endpoint
    if address.region:
        options["aws_region"] = address.region
    return options


@contextmanager
def translated() -> Iterator[None]:
    """What deltalake, Arrow and the disk raise, as an error of ours; a commit that lost a race passes."""
    try:
        yield
    except CommitFailedError:
        raise
    except (DeltaError, pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.strerror:
            reason, hint = error.strerror, "check the disk and the permissions of the folder"
        else:
            reason = " ".join(_COLOURS.sub("", str(error)).replace("↳", "").split())[:_REASON_CHARACTERS]
            hint = f"check {SETTING}, and that the storage runs and is reached from here"
        raise Unavailable(PART, reason, hint=hint) from error
