"""Rows that were set aside, as Parquet files with the reasons of each row: whole or not there, each row held once.

    <folder>/<view>/<batch id>.parquet    the view's columns, then `skewless_reasons` and `skewless_row`

A file is written beside its name, synced and renamed, and only then named in the database; a file that nothing names
(its writer died in between) is removed later. Rows are known by a digest of their content, so that a run that judges
the same rows again does not hold them twice.
"""

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skewless.adapters.arrow_columns import kept_rows
from skewless.canonical_json import Digest, digest
from skewless.durability import sync
from skewless.errors import BundleRefused, InvalidDefinition, NotFound
from skewless.monitor_limits import QUARANTINE_LEFTOVER_AGE_S, QUARANTINE_ROWS_MAX

REASONS, ROW = "skewless_reasons", "skewless_row"
"""Columns that a quarantine file has beside the view's own."""
_VIEW = re.compile(r"[\w.@-]{1,200}")
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class QuarantineFile:
    """A file of the quarantine: its name below the folder, its rows, and the digest of which rows those are."""

    name: str
    rows: int
    digest: Digest


class Quarantine:
    """The folder of rows that were set aside. Several processes may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def locked(self, view: str) -> Iterator[None]:
        """Nobody else sets rows of a view aside while the block runs; without it two runs could hold a row twice."""
        folder = self._of(view)
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def write(
        self, view: str, batch: str, rows: pa.Table, reasons: Sequence[Sequence[str]], held: Iterable[str]
    ) -> QuarantineFile | None:
        """Write those rows that the files `held` do not have yet; None where they have them all.

        `reasons` has the sentences of each row. Raises InvalidDefinition where more rows would wait than
        QUARANTINE_ROWS_MAX.
        """
        digests = row_digests(rows)
        known, waiting = self._known(held)
        is_new = [each not in known for each in digests]
        if not any(is_new):
            return None
        if waiting + sum(is_new) > QUARANTINE_ROWS_MAX:
            raise InvalidDefinition(
                f"{waiting:,} rows of `{view}` are in quarantine, and {sum(is_new):,} more would be;"
                f" allowed: {QUARANTINE_ROWS_MAX:,}",
                hint="`skewless quality quarantine list` shows them: replay what is mended, drop what is not wanted",
            )
        listed = pa.array([list(each) for each in reasons], pa.list_(pa.string()))
        table = rows.append_column(REASONS, listed).append_column(ROW, pa.array(digests, pa.string()))
        table = table.filter(pa.array(is_new))
        name = f"{view}/{batch}.parquet"
        _write_whole(self._folder / name, table)
        return _file_of(name, table)

    def read(self, name: str) -> pa.Table:
        """All of a file. Raises NotFound, and BundleRefused for one that was changed or cut."""
        path = self._path(name)
        try:
            return pq.read_table(path)
        except FileNotFoundError as error:
            raise NotFound("quarantine file", name, hint="quarantine is kept on the machine that judged") from error
        except (pa.ArrowInvalid, OSError) as error:
            raise BundleRefused(f"quarantine file `{name}` cannot be read: {error}") from error

    def files(self, view: str) -> list[str]:
        """Names of all files of a view, also of those that no batch names."""
        return [f"{view}/{path.name}" for path in sorted(self._of(view).glob("*.parquet"))]

    def clear_partial(self, view: str) -> None:
        """Remove what writers that died have begun. Under `locked`."""
        for path in self._of(view).glob("*.partial"):
            path.unlink(missing_ok=True)

    def copy(self, name: str, to: Path) -> None:
        """Write the rows of a file, without our own columns, where somebody can mend them. Raises as `read`."""
        pq.write_table(self.read(name).drop_columns([REASONS, ROW]), to)

    def erase(self, name: str, matching: Callable[[pa.Table], Any]) -> QuarantineFile:
        """Take those rows out of a file for which `matching` (rows,) is true, and say what it is now.

        A file that has no row left stays, empty, until it is removed. Under `locked`; raises as `read`.
        """
        table = self.read(name)
        kept = kept_rows(table, pc.invert(matching(table)))
        if kept.num_rows < table.num_rows:
            _write_whole(self._path(name), kept)
        return _file_of(name, kept)

    def remove(self, name: str) -> None:
        """Remove a file; one that is gone already is no matter."""
        self._path(name).unlink(missing_ok=True)

    def sweep(self, view: str, named: Iterable[str], *, older_than_s: float = QUARANTINE_LEFTOVER_AGE_S) -> int:
        """Remove files of a view that no batch names and that nobody is still writing; how many those were."""
        keep, before, count = set(named), time.time() - older_than_s, 0
        for path in self._of(view).glob("*.parquet*"):
            if f"{view}/{path.name}" not in keep and path.stat().st_mtime < before:
                path.unlink(missing_ok=True)
                count += 1
        return count

    def _known(self, held: Iterable[str]) -> tuple[set[str], int]:
        """Digests of the rows that some files hold, and how many rows that are."""
        known: set[str] = set()
        rows = 0
        for name in held:
            path = self._path(name)
            if path.exists():
                digests = pq.read_table(path, columns=[ROW]).column(ROW).to_pylist()
                known.update(digests)
                rows += len(digests)
        return known, rows

    def _of(self, view: str) -> Path:
        assert _VIEW.fullmatch(view), f"`{view}` is no name of a view"
        return self._folder / view

    def _path(self, name: str) -> Path:
        view, _, file = name.partition("/")
        assert "/" not in file, f"`{name}` is no name of a quarantine file"
        return self._of(view) / file


def _file_of(name: str, table: pa.Table) -> QuarantineFile:
    return QuarantineFile(name, table.num_rows, digest(sorted(table.column(ROW).to_pylist())))


def row_digests(rows: pa.Table) -> list[str]:
    """A digest of the content of each row, in order; equal rows have equal ones. Columns count by name and value."""
    names = sorted(rows.column_names)
    columns = [_texts(rows.column(name)) for name in names]
    head = "\x1f".join(names)
    return [
        hashlib.blake2b("\x1f".join((head, *values)).encode(), digest_size=_DIGEST_BYTES).hexdigest()
        for values in zip(*columns, strict=True)
    ]


def _texts(column: pa.ChunkedArray) -> list[str]:
    if pa.types.is_timestamp(column.type):
        column = pc.cast(column, pa.int64())
    return [repr(each) for each in column.to_pylist()]


def _write_whole(path: Path, table: pa.Table) -> None:
    """A file that is there with all of its rows or not at all, also after a power cut."""
    partial = path.with_name(f"{path.name}.partial")
    pq.write_table(table, partial, compression="zstd")
    sync(partial)
    partial.rename(path)
    sync(path.parent)
