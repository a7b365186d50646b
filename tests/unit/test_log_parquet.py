"""Files of the log merged in order, whatever ranges they have, and in little memory."""

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.adapters.log_files import FolderLogFiles
from skewless.adapters.log_parquet import ORDER, merged, read_columns, write_file
from skewless.adapters.log_tables import PREDICTIONS
from skewless.limits import LOG_ROW_GROUP_ROWS

ORDER_COLUMN = ORDER[PREDICTIONS]


def a_table(ids: list[str | None]) -> Any:
    labels = pa.array([f"label {number % 3}" for number in range(len(ids))]).dictionary_encode()
    return pa.table({ORDER_COLUMN: pa.array(ids, pa.string()), "label": labels, "value": list(range(len(ids)))})


def written(folder: Path, name: str, ids: list[str | None]) -> Path:
    files = FolderLogFiles(folder)
    file = write_file(files, f"{name}.parquet", "2013-05-01", [a_table(ids)])
    assert file is not None
    return Path(files.address(file.path))


def ids_of(tables: list[Any]) -> list[str | None]:
    return [each for table in tables for each in table.column(ORDER_COLUMN).to_pylist()]


@pytest.mark.parametrize("seed", range(5))
def test_merged_rows_are_all_rows_in_order(tmp_path: Path, seed: int) -> None:
    random_ = random.Random(seed)
    numbers = random_.sample(range(1_000_000), 60_000)
    if seed % 2:
        numbers.sort()  # as ids of one writer come; unsorted ones overlap everywhere
    ids = [f"{number:07d}" for number in numbers]
    cuts = sorted(random_.sample(range(len(ids)), 7))
    parts = [ids[start:end] for start, end in zip([0, *cuts], [*cuts, len(ids)], strict=True)]
    paths = [written(tmp_path, str(number), list(part)) for number, part in enumerate(parts)]
    tables = list(merged(paths, ORDER_COLUMN))
    assert ids_of(tables) == sorted(ids)
    assert [table.num_rows for table in tables[:-1]] == [LOG_ROW_GROUP_ROWS] * (len(tables) - 1)
    values = {each: value for part in parts for value, each in enumerate(part)}
    first = tables[0]
    assert first.column("value").to_pylist() == [values[each] for each in ids_of([first]) if each is not None]


def test_rows_without_an_id_come_first_and_stay(tmp_path: Path) -> None:
    paths = [written(tmp_path, "a", ["b", None]), written(tmp_path, "b", [None, None]), written(tmp_path, "c", ["a"])]
    assert ids_of(list(merged(paths, ORDER_COLUMN))) == [None, None, None, "a", "b"]


def test_rows_that_are_not_kept_are_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, "a", ["a", "b", "c"])
    kept = merged([path], ORDER_COLUMN, lambda table: table.slice(1))
    assert ids_of(list(kept)) == ["b", "c"]


def test_merging_holds_only_groups_whose_ranges_overlap(tmp_path: Path) -> None:
    paths = []
    for number in range(12):
        ids = [f"{number:03d}{row:09d}" for row in range(LOG_ROW_GROUP_ROWS)]
        paths.append(written(tmp_path, str(number), list(ids)))
    one = read_columns(paths[0], [ORDER_COLUMN, "label", "value"]).nbytes
    before = pa.total_allocated_bytes()
    peak = 0
    rows = 0
    for table in merged(list(reversed(paths)), ORDER_COLUMN):
        rows += table.num_rows
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert rows == 12 * LOG_ROW_GROUP_ROWS
    assert peak < 8 * one, f"{peak} bytes for groups of {one}"


def test_a_file_without_rows_is_none(tmp_path: Path) -> None:
    assert write_file(FolderLogFiles(tmp_path), "a.parquet", "2013-05-01", [a_table([])]) is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    def tables() -> Any:
        yield a_table(["a"])
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_file(FolderLogFiles(tmp_path), "day=2013-05-01/a.parquet", "2013-05-01", tables())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_row_group_is_small_enough_to_look_one_id_up(tmp_path: Path) -> None:
    path = written(tmp_path, "a", [f"{number:07d}" for number in range(40_000)])
    with pq.ParquetFile(path) as file:
        assert file.num_row_groups == 3
        ranges = [file.metadata.row_group(group).column(0).statistics for group in range(3)]
    assert [each.min for each in ranges] == sorted(each.min for each in ranges)
    assert all(each.has_min_max for each in ranges)
