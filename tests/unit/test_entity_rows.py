"""Which rows of an Arrow table are an entity's, whatever its types; and that rows that are taken out leave no words."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from hypothesis import given
from hypothesis import strategies as st

from skewless.adapters.arrow_columns import kept_rows, without_unused_words
from skewless.adapters.entity_rows import EntityRows
from skewless.adapters.feast_stored_views import StoredView
from skewless.adapters.log_files import FolderLogFiles
from skewless.adapters.log_parquet import write_file
from skewless.adapters.offline_erasure import OfflineErasure
from skewless.adapters.offline_sources import opened
from skewless.cli.entity_run import writers_leases
from skewless.cli.entity_unreached import unreached_sources
from skewless.errors import InvalidDefinition, Unavailable
from skewless.features.chosen_entities import ChosenEntities
from skewless.features.contract import ViewRead
from skewless.features.point_in_time import OfflineSource, SourceForm

FOR_EVER = (1 << 63) - 1


def matching(column: Any, text: str = "42") -> list[bool]:
    rows = EntityRows(ChosenEntities({"key": text}), {"key": "k"}, FOR_EVER)
    found: list[bool] = rows.matching(pa.table({"k": column})).to_pylist()
    return found


@pytest.mark.parametrize(
    "column",
    [
        pa.array([42, 7, None], pa.int32()),
        pa.array([42, 7, None], pa.uint64()),
        pa.array([42.0, 42.5, None], pa.float64()),
        pa.array(["42", "042", None], pa.string()),
        pa.array(["42", "7", None], pa.large_string()),
        pa.array(["42", "7", None]).dictionary_encode(),
        pa.array([b"42", b"7", None], pa.binary()),
        pa.array([Decimal(42), Decimal(7), None], pa.decimal128(5, 0)),
    ],
    ids=lambda column: str(column.type),
)
def test_a_value_is_found_whatever_type_its_column_has(column: Any) -> None:
    assert matching(column) == [True, False, False]


def test_a_time_is_found_in_any_unit_and_nothing_in_lists() -> None:
    moment = datetime(2026, 5, 1, tzinfo=UTC)
    for unit in ("s", "ms", "us", "ns"):
        assert matching(pa.array([moment, None], pa.timestamp(unit, "UTC")), "2026-05-01") == [True, False]
    assert matching(pa.array([["42"], None])) == [False, False]


def test_a_text_is_no_number_and_a_column_that_is_not_there_has_nobody() -> None:
    assert matching(pa.array([42, 7], pa.int64()), "forty-two") == [False, False]
    rows = EntityRows(ChosenEntities({"key": "42"}), {"key": "other"}, FOR_EVER)
    assert rows.matching(pa.table({"k": [42]})).to_pylist() == [False]


def test_a_row_is_known_at_its_created_time_else_at_its_event_time_and_one_without_either_is_meant() -> None:
    table = pa.table(
        {
            "k": ["42"] * 5,
            "created": pa.array([5, 6, None, None, None], pa.timestamp("us")),
            "event": pa.array([9, 1, 5, 6, None], pa.timestamp("us")),
        }
    )
    rows = EntityRows(ChosenEntities({"key": "42"}), {"key": "k"}, 5, "event", "created")
    assert rows.matching(table).to_pylist() == [True, False, True, False, True]


def test_where_no_time_was_named_a_row_without_a_created_time_goes_however_far_ahead_it_is_dated() -> None:
    table = pa.table(
        {"k": ["42"] * 3, "created": pa.array([None, 5, 6], pa.timestamp("us")), "event": pa.array([9, 9, 9])}
    )
    rows = EntityRows(ChosenEntities({"key": "42"}), {"key": "k"}, 5, "", "created")
    assert rows.matching(table).to_pylist() == [True, True, False]


def test_all_join_keys_must_be_those() -> None:
    table = pa.table({"a": ["x", "x", "y"], "b": [1, 2, 1]})
    rows = EntityRows(ChosenEntities({"a": "x", "b": "1"}), {"a": "a", "b": "b"}, FOR_EVER)
    assert rows.matching(table).to_pylist() == [True, False, False]


@given(
    st.lists(st.one_of(st.none(), st.sampled_from("abcde")), max_size=30),
    st.lists(st.booleans(), min_size=30, max_size=30),
    st.integers(1, 4),
)
def test_kept_rows_are_the_same_rows_with_no_word_of_the_others(
    words: list[str | None], kept: list[bool], chunks: int
) -> None:
    encoded = pa.array(words, pa.string()).dictionary_encode()
    size = max(1, len(words) // chunks)
    parts = [encoded.slice(start, size) for start in range(0, len(words), size)]
    table = pa.table({"k": pa.chunked_array(parts, encoded.type), "n": np.arange(len(words))})
    mask = kept[: len(words)]
    found = kept_rows(table, pa.array(mask, pa.bool_()))
    expected = [word for word, is_kept in zip(words, mask, strict=True) if is_kept]
    assert found.column("k").to_pylist() == expected
    assert found.schema == table.schema
    for chunk in found.column("k").chunks:
        assert set(chunk.dictionary.to_pylist()) == set(chunk.to_pylist()) - {None}


def test_a_table_that_uses_all_its_words_is_left_as_it_is() -> None:
    table = pa.table({"k": pa.array(["a", "b", None]).dictionary_encode()})
    assert without_unused_words(table) is table


@pytest.mark.parametrize("compression", ["NONE", "ZSTD", "SNAPPY"])
def test_a_parquet_file_is_rewritten_group_by_group_with_schema_and_compression_kept(
    tmp_path: Path, compression: str
) -> None:
    file = tmp_path / "t.parquet"
    words = ["person-1", "person-2", "person-1", "person-3"]
    table = pa.table(
        {"k": pa.array(words).dictionary_encode(), "n": pa.array([1, 2, 3, 4], pa.int16())}, metadata={"made": "here"}
    )
    pq.write_table(table, file, row_group_size=2, compression=compression)
    file.chmod(0o640)
    rows = EntityRows(ChosenEntities({"key": "person-1"}), {"key": "k"}, FOR_EVER)
    erasure = OfflineErasure(OfflineSource("v", str(file), "", None), rows)
    assert (erasure.look(), erasure.erase(), erasure.look()) == (2, 2, 0)
    assert pq.read_table(file).to_pylist() == [{"k": "person-2", "n": 2}, {"k": "person-3", "n": 4}]
    assert pq.read_schema(file).metadata[b"made"] == b"here"
    assert pq.ParquetFile(file).metadata.row_group(0).column(0).compression in (compression, "UNCOMPRESSED")
    assert b"person-1" not in file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_every_file_of_a_folder_or_glob_is_looked_at(tmp_path: Path) -> None:
    for name in ("one", "two"):
        pq.write_table(pa.table({"k": ["x", name]}), tmp_path / f"{name}.parquet")
    rows = EntityRows(ChosenEntities({"key": "x"}), {"key": "k"}, FOR_EVER)
    for path in (tmp_path, tmp_path / "*.parquet"):
        assert OfflineErasure(OfflineSource("v", str(path), "", None), rows).look() == 2
    assert OfflineErasure(OfflineSource("v", str(tmp_path), "", None), rows).erase() == 2
    assert pq.read_table(tmp_path / "one.parquet").to_pylist() == [{"k": "one"}]


def erasure_of(path: Path, *, form: SourceForm = SourceForm.PARQUET, **keys: str) -> OfflineErasure:
    rows = EntityRows(ChosenEntities(keys), {name: name for name in keys}, FOR_EVER, "t")
    return OfflineErasure(OfflineSource("v", str(path), "t", None, form=form), rows)


DELIVERIES = pa.table(
    {"courier": ["c07", "c07", "c08"], "parcel": [1, 2, 1], "t": pa.array([1, 2, 3], pa.timestamp("us"))}
)


@pytest.mark.parametrize("partitions", [["courier"], ["parcel", "courier"], ["courier", "parcel"]])
def test_rows_whose_key_stands_in_the_names_of_folders_go_with_the_folders(
    tmp_path: Path, partitions: list[str]
) -> None:
    pq.write_to_dataset(DELIVERIES, str(tmp_path), partition_cols=partitions)
    (tmp_path / "courier=c07" / "parcel=left by a kill").mkdir(parents=True)
    erasure = erasure_of(tmp_path, courier="c07")
    assert (erasure.look(), erasure.erase(), erasure.look()) == (2, 2, 0)
    assert not [path for path in tmp_path.rglob("*") if "c07" in str(path.relative_to(tmp_path))]
    files = opened(OfflineSource("v", str(tmp_path), "t", None)).files
    assert files is not None
    assert ["c08" in path for path in files.paths] == [True]


def test_keys_in_folders_and_keys_in_files_are_both_those(tmp_path: Path) -> None:
    pq.write_to_dataset(DELIVERIES, str(tmp_path), partition_cols=["courier"])
    erasure = erasure_of(tmp_path, courier="c07", parcel="2")
    assert (erasure.look(), erasure.erase(), erasure.look()) == (1, 1, 0)
    assert erasure_of(tmp_path, courier="c07").look() == 1
    numbers = tmp_path / "numbers"
    pq.write_to_dataset(DELIVERIES, str(numbers), partition_cols=["parcel"])
    assert erasure_of(numbers, parcel="2").look() == 1


def test_a_source_without_the_key_is_an_error_and_never_no_rows(tmp_path: Path) -> None:
    pq.write_table(DELIVERIES.drop(["courier"]), tmp_path / "one.parquet")
    for path in (tmp_path, tmp_path / "one.parquet"):
        for ask in (erasure_of(path, courier="c07").look, erasure_of(path, courier="c07").erase):
            with pytest.raises(InvalidDefinition, match="has no column `courier`"):
                ask()
    # A file from before the column was there has nulls in it, as readers see it.
    pq.write_table(DELIVERIES, tmp_path / "two.parquet")
    assert erasure_of(tmp_path, courier="c07").look() == 2


def test_a_delta_table_that_is_partitioned_by_the_key_or_lacks_it_is_an_error(tmp_path: Path) -> None:
    assert erasure_of(tmp_path / "nobody", form=SourceForm.DELTA, courier="c07").look() == 0
    write_deltalake(tmp_path / "parted", DELIVERIES, partition_by=["courier"])
    write_deltalake(tmp_path / "without", DELIVERIES.drop(["courier"]))
    for name, words in {"parted": "partitioned by the join key", "without": "has no column `courier`"}.items():
        erasure = erasure_of(tmp_path / name, form=SourceForm.DELTA, courier="c07")
        for ask in (erasure.look, erasure.erase):
            with pytest.raises(InvalidDefinition, match=words):
                ask()


def test_the_file_that_a_link_leads_to_is_rewritten_and_the_link_stays(tmp_path: Path) -> None:
    real, link = tmp_path / "2024.parquet", tmp_path / "links" / "current.parquet"
    link.parent.mkdir()
    pq.write_table(DELIVERIES, real)
    link.symlink_to(real)
    for path in (link, link.parent):
        pq.write_table(DELIVERIES, real)
        erasure = erasure_of(path, courier="c07")
        assert (erasure.look(), erasure.erase(), erasure.look()) == (2, 2, 0)
        assert link.is_symlink()
        assert pq.read_table(real).column("courier").to_pylist() == ["c08"]
        assert b"c07" not in real.read_bytes()


def test_writers_of_a_view_with_versions_are_asked_to_wait_by_the_names_that_they_go_by() -> None:
    views = {
        stored: StoredView(
            ViewRead("clicks", (), 0, (), stored_name=stored), OfflineSource("clicks", "c", "t", None), ()
        )
        for stored in ("clicks_v1", "clicks_v2")
    }
    assert writers_leases(views, ["taps"]) == [
        "view:clicks_v1",
        "view:clicks_v2",
        "lane:rows:clicks",
        "lane:events:taps",
    ]


def test_what_cannot_be_read_and_what_lies_in_a_bucket_is_said(tmp_path: Path) -> None:
    rows = EntityRows(ChosenEntities({"key": "x"}), {"key": "k"}, FOR_EVER)
    (tmp_path / "t.parquet").write_bytes(b"no table")
    with pytest.raises(Unavailable, match="cannot be read"):
        OfflineErasure(OfflineSource("v", str(tmp_path / "t.parquet"), "", None), rows).look()
    with pytest.raises(InvalidDefinition, match="file system of this machine"):
        OfflineErasure(OfflineSource("v", "s3://bucket/t.parquet", "", None), rows)


def test_a_file_of_the_log_store_has_no_word_that_its_rows_do_not_have(tmp_path: Path) -> None:
    table = pa.table({"endpoint": pa.array(["person-1", "person-2"]).dictionary_encode()})
    written = write_file(FolderLogFiles(tmp_path), "t/day=2026-01-01/one.parquet", "2026-01-01", [table.slice(1)])
    assert written is not None
    told = (tmp_path / written.path).read_bytes()
    assert b"person-2" in told
    assert b"person-1" not in told


def test_sources_that_are_not_here_are_named() -> None:
    found = unreached_sources({"near": "data/near.parquet", "far": "s3://bucket/far/"}, {"query": "no file"})
    assert [each.place for each in found] == ["source of far", "source of query"]
