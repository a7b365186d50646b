"""Delta tables take rows once and keep them, and every kind of source answers alike."""

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from skewless.adapters.duckdb_point_in_time import OfflineSession, features_at
from skewless.adapters.known_rows import KnownRows
from skewless.adapters.offline_sources import arrow_dataset, opened
from skewless.adapters.offline_tables import OfflineTable
from skewless.canonical_json import digest
from skewless.dtypes import Dtype, column_of
from skewless.errors import Conflict, InvalidDefinition, Unavailable
from skewless.features.contract import FeatureContract, FeatureField, JoinKey, ViewRead
from skewless.features.point_in_time import OfflineSource, SourceForm
from skewless.parity.evidence import Watermark

VIEW = ViewRead("v", (JoinKey("key", Dtype.STRING),), 0, (FeatureField("x", Dtype.FLOAT64),))
CONTRACT = FeatureContract("p", (VIEW,), (), digest("any"))
TIME = pa.timestamp("us", "UTC")


def rows(*items: tuple[str, int, int, float | None]) -> pa.Table:
    """Rows of (key, event time, created time, x), times in seconds."""
    keys, events, created, values = zip(*items, strict=True) if items else ((), (), (), ())
    return pa.table(
        {
            "key": pa.array(keys, pa.string()),
            "at": pa.array([datetime.fromtimestamp(each, UTC) for each in events], TIME),
            "known": pa.array([datetime.fromtimestamp(each, UTC) for each in created], TIME),
            "x": pa.array(values, pa.float64()),
        }
    )


def source(path: Path | str, form: SourceForm = SourceForm.DELTA) -> OfflineSource:
    return OfflineSource("v", str(path), "at", "known", form=form)


def stored(folder: Path) -> list[float | None]:
    """The values of x in the table, sorted."""
    values = arrow_dataset(source(folder)).to_table().column("x").to_pylist()
    return sorted(values, key=lambda each: (each is None, each))


def test_a_writers_number_adds_its_rows_once_and_never_an_earlier_one(tmp_path: Path) -> None:
    table = OfflineTable(tmp_path / "t")
    assert table.append(rows(("a", 1, 1, 1.0)), writer="w", number=3) == 1
    assert table.append(rows(("a", 1, 1, 2.0)), writer="w", number=3) == 0
    assert OfflineTable(tmp_path / "t").append(rows(("a", 1, 1, 3.0)), writer="w", number=2) == 0
    assert table.append(rows(("a", 1, 1, 4.0)), writer="other", number=1) == 1
    assert table.append(rows(), writer="w", number=9) == 0
    assert (table.done("w"), table.done("other"), table.done("nobody")) == (3, 1, None)
    assert stored(tmp_path / "t") == [1.0, 4.0]


def test_what_two_processes_append_at_once_under_one_number_is_there_once(tmp_path: Path) -> None:
    OfflineTable(tmp_path / "t").ensure(rows().schema)
    tables = [OfflineTable(tmp_path / "t") for _ in range(2)]
    for each in tables:
        assert each.files() == []  # both have seen the table before either adds
    added, refused = [], []
    barrier = threading.Barrier(2)

    def append(table: OfflineTable) -> None:
        barrier.wait(30)
        try:
            added.append(table.append(rows(("a", 1, 1, 1.0)), writer="w", number=1))
        except Conflict as error:
            refused.append(error)

    threads = [threading.Thread(target=append, args=(each,)) for each in tables]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(added) == 1
    assert len(added) + len(refused) == 2
    assert stored(tmp_path / "t") == [1.0]


def test_a_column_that_is_new_is_added_and_one_that_is_gone_is_null(tmp_path: Path) -> None:
    table = OfflineTable(tmp_path / "t")
    table.append(rows(("a", 1, 1, 1.0)), writer="w", number=1)
    table.append(rows(("a", 2, 2, 2.0)).append_column("y", pa.array([7])), writer="w", number=2)
    table.append(rows(("a", 3, 3, 3.0)).drop_columns(["x"]), writer="w", number=3)
    found = arrow_dataset(source(tmp_path / "t")).to_table().sort_by("at")
    assert found.column("y").to_pylist() == [None, 7, None]
    assert found.column("x").to_pylist() == [1.0, 2.0, None]


def test_a_value_that_does_not_fit_the_tables_type_is_refused_and_nothing_is_added(tmp_path: Path) -> None:
    table = OfflineTable(tmp_path / "t")
    table.append(rows(("a", 1, 1, 1.0)), writer="w", number=1)
    wrong = rows(("a", 1, 1, 1.0)).set_column(3, "x", pa.array(["one"]))
    with pytest.raises(InvalidDefinition, match=r"column `x` of .* is double"):
        table.append(wrong, writer="w", number=2)
    assert (stored(tmp_path / "t"), table.done("w")) == ([1.0], 1)


def test_compacting_keeps_every_row_and_vacuum_removes_what_was_put_together(tmp_path: Path) -> None:
    table = OfflineTable(tmp_path / "t")
    for number in range(6):
        table.append(rows(("a", number, number, float(number))), writer="w", number=number + 1)
    assert table.compact(files_min=7) is None
    done = table.compact(files_min=6)
    assert done is not None
    assert (done.files, done.rows, len(table.files())) == (6, 6, 1)
    assert table.done("w") == 6
    assert stored(tmp_path / "t") == [float(number) for number in range(6)]
    assert len(list((tmp_path / "t").glob("*.parquet"))) == 7
    assert table.vacuum(leftovers=True) == 0  # readers may have begun with them
    assert len(list((tmp_path / "t").glob("*.parquet"))) == 7
    table.vacuum(kept_s=0.0)
    assert len(list((tmp_path / "t").glob("*.parquet"))) == 1
    assert stored(tmp_path / "t") == [float(number) for number in range(6)]


def test_of_two_rewritings_at_once_one_is_refused_so_that_no_row_doubles(tmp_path: Path) -> None:
    table = OfflineTable(tmp_path / "t")
    for number in range(3):
        table.append(rows(("a", number, number, float(number))), writer="w", number=number + 1)
    slow = OfflineTable(tmp_path / "t")
    chosen = slow.files()
    assert table.compact(files_min=2) is not None
    with pytest.raises(Conflict):
        slow.rewrite(chosen, [rows(("a", 9, 9, 9.0))], changes_rows=True)
    assert stored(tmp_path / "t") == [0.0, 1.0, 2.0]


def test_rows_appended_while_a_table_is_compacted_stay(tmp_path: Path) -> None:
    first, second = OfflineTable(tmp_path / "t"), OfflineTable(tmp_path / "t")
    for number in range(3):
        first.append(rows(("a", number, number, float(number))), writer="w", number=number + 1)
    files = first.files()
    second.append(rows(("a", 9, 9, 9.0)), writer="x", number=1)
    first.rewrite(files, [first.read(each) for each in files[:1]] + [first.read(files[1])], changes_rows=True)
    assert sorted(stored(tmp_path / "t"), key=str) == sorted([0.0, 1.0, 9.0], key=str)


def test_no_value_of_a_row_stands_in_the_tables_log(tmp_path: Path) -> None:
    OfflineTable(tmp_path / "t").append(rows(("secret-person", 1, 1, 1.0)), writer="w", number=1)
    log = "".join(path.read_text() for path in (tmp_path / "t" / "_delta_log").glob("*.json"))
    assert "secret-person" not in log
    assert json.dumps({"numRecords": 1}).replace('"', '\\"') in log


def answers(found: OfflineSource) -> list[object]:
    """What the source's rows answer at some moments, to every way of asking."""
    keys = {"key": column_of(Dtype.STRING, ["a", "a", "b", "c"])}
    moments = np.array([2, 9, 9, 9], dtype=np.int64) * 1_000_000
    frame = features_at(CONTRACT, {"v": found}, keys, moments)
    with OfflineSession(CONTRACT, {"v": found}) as session:
        again = session.features_at(keys, moments)
        watermark = session.watermarks()["v"]
        with session.newest(VIEW, 9_000_000) as newest:
            count = newest.count
    column, other = frame.columns["v__x"], again.columns["v__x"]
    known = KnownRows(found, 9_000_000).count
    return [column.values.tolist(), column.valid.tolist(), other.valid.tolist(), frame.statuses["v__x"].tolist(),
            frame.event_times["v"].tolist(), watermark, count, known]  # fmt: skip


def test_a_file_a_folder_a_glob_and_a_delta_table_with_the_same_rows_answer_alike(tmp_path: Path) -> None:
    parts = [
        rows(("a", 1, 1, 1.0), ("b", 2, 2, 2.0)),
        rows(("a", 1, 3, 1.5), ("a", 8, 8, None)),
        rows(("b", 1, 9, 0.5), ("c", 5, 20, 5.0)),
    ]
    pq.write_table(pa.concat_tables(parts), tmp_path / "one.parquet")
    (tmp_path / "folder" / "more").mkdir(parents=True)
    (tmp_path / "folder" / "_temporary").mkdir()
    for number, part in enumerate(parts):
        pq.write_table(part, tmp_path / "folder" / ("more" if number else "") / f"{number}.parquet")
    (tmp_path / "folder" / "_temporary" / "half.parquet").write_bytes(b"PAR1")
    table = OfflineTable(tmp_path / "delta")
    for number, part in enumerate(parts):
        table.append(part, writer="w", number=number + 1)
    expected = answers(source(tmp_path / "one.parquet", SourceForm.PARQUET))
    assert expected[5] == Watermark(8_000_000, 20_000_000)
    assert answers(source(tmp_path / "folder", SourceForm.PARQUET)) == expected
    assert answers(source(tmp_path / "folder" / "**" / "[0-9].parquet", SourceForm.PARQUET)) == expected
    assert answers(source(tmp_path / "delta")) == expected
    table.compact(files_min=2)
    assert answers(source(tmp_path / "delta")) == expected
    pq.write_to_dataset(pa.concat_tables(parts), tmp_path / "hive", partition_cols=["key"])
    assert answers(source(tmp_path / "hive", SourceForm.PARQUET)) == expected
    write_deltalake(tmp_path / "by_key", pa.concat_tables(parts), partition_by=["key"])
    assert answers(source(tmp_path / "by_key")) == expected


def test_a_delta_table_that_nobody_wrote_to_has_no_rows(tmp_path: Path) -> None:
    nothing = answers(source(tmp_path / "nowhere"))
    made = OfflineTable(tmp_path / "made")
    made.ensure(rows().schema)
    assert nothing[3] == answers(source(tmp_path / "made"))[3]
    assert nothing[6:] == [0, 0]


def test_what_is_no_table_or_cannot_be_read_as_it_is_is_refused(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    pq.write_table(rows(("a", 1, 1, 1.0)), tmp_path / "files" / "one.parquet")
    with pytest.raises(InvalidDefinition, match="has no `_delta_log`"):
        opened(source(tmp_path / "files"))
    with pytest.raises(InvalidDefinition, match="is Parquet, which rows cannot be added to"):
        OfflineTable.of(source(tmp_path / "files", SourceForm.PARQUET))
    with pytest.raises(InvalidDefinition, match="not on a file system"):
        opened(source("s3://bucket/table"))
    OfflineTable(tmp_path / "delta").ensure(rows().schema)
    with pytest.raises(InvalidDefinition, match="is a Delta table, and declared as Parquet"):
        opened(source(tmp_path / "delta", SourceForm.PARQUET))
    (tmp_path / "empty").mkdir()
    with pytest.raises(Unavailable, match="no Parquet file"):
        opened(source(tmp_path / "empty", SourceForm.PARQUET))
    mapped = {"delta.columnMapping.mode": "name", "delta.minReaderVersion": "2", "delta.minWriterVersion": "5"}
    DeltaTable.create(tmp_path / "mapped", rows().schema, configuration=mapped)
    with pytest.raises(InvalidDefinition, match="columnMapping"):
        opened(source(tmp_path / "mapped"))
    write_deltalake(tmp_path / "parts", rows(("a", 1, 1, 1.0)), partition_by=["key"])
    with pytest.raises(InvalidDefinition, match="is partitioned by key"):
        OfflineTable(tmp_path / "parts").append(rows(("a", 1, 1, 1.0)), writer="w", number=1)


def test_a_session_keeps_to_the_version_that_it_began_with(tmp_path: Path) -> None:
    table = OfflineTable(tmp_path / "t")
    table.append(rows(("a", 1, 1, 1.0)), writer="w", number=1)
    keys, moments = {"key": column_of(Dtype.STRING, ["a"])}, np.array([9_000_000], dtype=np.int64)
    with OfflineSession(CONTRACT, {"v": source(tmp_path / "t")}) as session:
        before = session.features_at(keys, moments).columns["v__x"].values.tolist()
        table.append(rows(("a", 2, 2, 2.0)), writer="w", number=2)
        assert session.features_at(keys, moments).columns["v__x"].values.tolist() == before == [1.0]
    kept = opened(replace(source(tmp_path / "t"), files=None)).files
    assert kept is not None
    assert kept.version == 2
