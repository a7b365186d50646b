"""What is done to the log store besides adding to it: small files put together, old days dropped, entities deleted.

All of it rewrites or removes whole files in one commit per table. Two rewritings of one table at once end in one of
them: the other raises Conflict, or is made again on what the first left.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from skewless.adapters.arrow_columns import kept_rows
from skewless.adapters.log_files import PART
from skewless.adapters.log_parquet import ORDER, WrittenFile, merged, read_columns, read_groups
from skewless.adapters.log_store import LogStore, StoredFile, StoredTable, translated
from skewless.adapters.log_tables import PREDICTIONS, day_of
from skewless.adapters.shipper import DAMAGED
from skewless.adapters.spool import SEALED, SPOOL, begun_us
from skewless.errors import Conflict, Unavailable
from skewless.limits import (
    LOG_COMPACT_FILES_MAX,
    LOG_COMPACT_FILES_MIN,
    LOG_REWRITE_TRIES,
    LOG_SETTLED_S,
)
from skewless.timestamps import DAY_US, Micros

Matching = Callable[[Any], Any]
"""Which rows of a table (bool, no nulls)."""
Failures = dict[tuple[str, str], Conflict | Unavailable]
"""Why files could not be put together, by path of the table and day."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Days that records are kept, by the day that they are stored under; None: for ever."""

    days: int | None = None
    by_endpoint: Mapping[str, int] = field(default_factory=dict)
    """For predictions of single endpoints. Outcomes and tallies are kept as long as the longest of all."""

    def of(self, table: StoredTable) -> int | None:
        """How many days a table's records are kept."""
        if table.kind == PREDICTIONS:
            return self.by_endpoint.get(table.endpoint, self.days)
        return self.longest

    @property
    def longest(self) -> int | None:
        """How many days anything is kept."""
        return None if self.days is None else max(self.days, *self.by_endpoint.values(), 0)

    @property
    def drops(self) -> bool:
        """Whether anything is ever dropped."""
        return self.days is not None or bool(self.by_endpoint)


@dataclass(frozen=True, slots=True)
class Compacted:
    """One compaction: files of one day of one table that are one now."""

    table: str
    day: str
    files: int
    rows: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """What retention dropped of one table."""

    table: str
    days: tuple[str, ...]
    rows: int


def compact_once(
    store: LogStore, *, file_bytes: int, now_s: float, at_once: bool = False, failed: Failures | None = None
) -> Compacted | None:
    """Put some small files of one day together, where there are enough of them; None where nothing is to be done.

    Rows are in order of their id then. `at_once` does not wait for a day to settle. Raises Conflict and Unavailable.
    Days in `failed` are left out, and one that fails is added to it, so that the next call goes on behind it.
    """
    failed = {} if failed is None else failed
    for table in store.tables():
        for day, files in _by_day(table.entries).items():
            chosen = _worth_it(files, file_bytes=file_bytes, now_s=now_s, at_once=at_once)
            if not chosen or (table.path, day) in failed:
                continue
            try:
                return _compact(table, day, chosen)
            except Conflict as error:
                failed[table.path, day] = error
                raise
            except Unavailable as error:
                told = f"{day} of {table.path} stays in {len(chosen)} files: {error.message}"
                failed[table.path, day] = Unavailable(PART, told, hint=error.hint)
                raise failed[table.path, day] from error
    return None


def retain(store: LogStore, retention: Retention, *, now: Micros) -> list[Dropped]:
    """Drop the days that are over, and their files from the disk. Raises Conflict and Unavailable."""
    found: list[Dropped] = []
    for table in store.tables() if retention.drops else ():
        days = retention.of(table)
        if days is None:
            continue
        first_kept = day_of(now - days * DAY_US)
        old = [each for each in table.entries if each.day < first_kept]
        if old:
            table.rewrite([], old, changes_rows=True).vacuum(kept_s=0.0)
            found.append(Dropped(table.path, tuple(sorted({each.day for each in old})), sum(each.rows for each in old)))
    return found


def delete_rows(
    store: LogStore, kind: str, endpoint: str | None, matching: Matching, *, columns: Sequence[str], dry_run: bool
) -> list[Any]:
    """Delete the rows that match, from tables and from the disk, and return the ids of those rows, a list per file.

    `matching` is given the `columns` of some rows, those that a table has; the first of them is the id. With `dry_run`
    nothing is changed. Raises Unavailable, and Conflict where others rewrite all the time.
    """
    found: dict[str, list[Any]] = {}
    for attempt in range(LOG_REWRITE_TRIES):
        try:
            for table in store.tables(kind, endpoint):
                if table.path not in found:
                    with translated():
                        found[table.path] = _delete_from(table, matching, columns=columns, dry_run=dry_run)
        except Conflict:
            if attempt == LOG_REWRITE_TRIES - 1:
                raise
        else:
            return [ids for listed in found.values() for ids in listed]
    raise AssertionError("unreachable")


def drop_damaged(folder: Path, retention: Retention, *, now: Micros) -> int:
    """Remove segments that were set aside, once nothing of their age is kept; returns how many. Raises OSError."""
    if retention.longest is None:
        return 0
    first_kept = now - retention.longest * DAY_US
    old = [path for path in (folder / SPOOL / DAMAGED).glob(f"*{SEALED}") if begun_us(path) < first_kept]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


def _by_day(files: Iterable[StoredFile]) -> dict[str, list[StoredFile]]:
    found: dict[str, list[StoredFile]] = {}
    for file in files:
        found.setdefault(file.day, []).append(file)
    return found


def _worth_it(files: Sequence[StoredFile], *, file_bytes: int, now_s: float, at_once: bool) -> list[StoredFile]:
    """Which files of a day to put together now; none where it is not worth it, or not yet."""
    small = [each for each in files if each.size_bytes < file_bytes / 2]
    has_settled = at_once or all(each.modified_s < now_s - LOG_SETTLED_S for each in files)
    if len(small) < (2 if has_settled else LOG_COMPACT_FILES_MIN):
        return []
    # Neighbours in time are put together, so that each file's ids are a range that others hardly overlap.
    small.sort(key=lambda each: (each.prediction_ids or ("", ""), each.path))
    chosen: list[StoredFile] = []
    for each in small[:LOG_COMPACT_FILES_MAX]:
        if sum(file.size_bytes for file in chosen) + each.size_bytes > file_bytes:
            break
        chosen.append(each)
    return chosen


def _compact(table: StoredTable, day: str, files: Sequence[StoredFile]) -> Compacted:
    rows = sum(each.rows for each in files)
    with translated(), ExitStack() as stack:
        paths = [stack.enter_context(table.fetched(each)) for each in files]
        written = table.write(day, f"merged-{uuid.uuid4().hex}", merged(paths, ORDER[table.kind]))
    if written is None or written.rows != rows:
        raise Unavailable(
            PART,
            f"files of `{table.path}`, day {day}, have {0 if written is None else written.rows} rows, not {rows}",
            hint="they are left as they are; restore them",
        )
    table.rewrite([written], files, changes_rows=False)
    return Compacted(table.path, day, len(files), rows)


def _delete_from(table: StoredTable, matching: Matching, *, columns: Sequence[str], dry_run: bool) -> list[Any]:
    known = [name for name in columns if name in table.schema.names]
    written: list[WrittenFile] = []
    hit: list[StoredFile] = []
    found: list[Any] = []
    for file in table.entries:
        with table.fetched(file) as path:
            rows = read_columns(path, known)
            mask = matching(rows)
            if not pc.any(mask).as_py():
                continue
            hit.append(file)
            found.append(rows.column(columns[0]).filter(mask))
            if not dry_run:
                kept = (kept_rows(group, pc.invert(matching(group))) for group in read_groups(path))
                rest = table.write(file.day, f"kept-{uuid.uuid4().hex}", kept)
                written += [rest] if rest is not None else []
    if not dry_run:
        rewritten = table.rewrite(written, hit, changes_rows=True) if hit else table
        # Also where nothing is hit: an earlier try may have been stopped before the old files were gone.
        rewritten.vacuum(kept_s=0.0)
    return found
