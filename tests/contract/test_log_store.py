"""What a log store keeps to, in a folder and in a bucket of a real S3-compatible server."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.s3 import running_s3, use_credentials
from harness.stored_logs import an_outcome, answers, rows_of, stored_ids, stored_rows, tables_of
from skewless.adapters.bucket_log_files import BucketLogFiles
from skewless.adapters.entity_deletion import DeletedRows, Entity, delete_entity
from skewless.adapters.log_files import LogFiles
from skewless.adapters.log_parquet import ORDER
from skewless.adapters.log_store import LogStore, StoredTable, open_log_store
from skewless.adapters.log_tables import OUTCOMES, PREDICTIONS
from skewless.adapters.log_upkeep import Failures, Retention, compact_once, drop_damaged, retain
from skewless.adapters.shipper import DAMAGED
from skewless.adapters.spool import SEALED, SPOOL
from skewless.canonical_json import digest
from skewless.dtypes import Dtype, column_of
from skewless.errors import Conflict, InvalidRequest, InvalidSettings, NotFound, Unavailable
from skewless.limits import LOG_COMPACT_FILES_MIN
from skewless.serving.log_privacy import LogPrivacy
from skewless.serving.records import AnsweredBatch
from skewless.timestamps import DAY_US, Micros, parse_timestamp

MAY = parse_timestamp("2013-05-01T12:00:00Z")
WRITER = "writer"
LATER = Micros(1 << 53)


@pytest.fixture(scope="module")
def s3_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server.url("logs")


@pytest.fixture(params=["folder", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "folder":
        return str(tmp_path / "store")
    use_credentials(monkeypatch)
    url: str = request.getfixturevalue("s3_folder")
    place, _, options = url.partition("?")
    return f"{place}/{tmp_path.name}?{options}"


@pytest.fixture
def store(address: str, tmp_path: Path) -> LogStore:
    return open_log_store(address, scratch=tmp_path / "scratch")


def the_table(store: LogStore, kind: str = PREDICTIONS) -> StoredTable:
    (table,) = store.tables(kind)
    return table


def lying(store: LogStore, table: StoredTable) -> set[str]:
    """Parquet files in a table's folder, whether they are in the table or not."""
    files = store.files
    if isinstance(files, BucketLogFiles):
        keys = [each.key for each in files._objects.list(f"{table.path}/")]
    else:
        root = Path(files.address(""))
        keys = [path.relative_to(root).as_posix() for path in (root / table.path).rglob("*.parquet")]
    paths = {key.removeprefix(f"{table.path}/") for key in keys if key.endswith(".parquet")}
    return {path for path in paths if not path.startswith("_delta_log/")}


def of_entity(name: str, *, rows: int = 1, **changes: object) -> AnsweredBatch:
    made = answers(rows, **changes)
    return replace(made, given={**made.given, "origin": column_of(Dtype.STRING, [name] * rows)})


def fill(store: LogStore, batches: int, *, first_round: int = 1) -> list[str]:
    """A round, and so a file, per batch; the ids that it wrote."""
    made = [answers(3, as_of=MAY) for _ in range(batches)]
    for number, batch in enumerate(made, start=first_round):
        store.append(WRITER, number, tables_of(f"segment-{number}", [batch]))
    return sorted(each for batch in made for each in batch.prediction_ids)


def test_a_store_that_nothing_was_written_to_has_no_tables(store: LogStore) -> None:
    assert store.tables() == []
    assert store.tables(PREDICTIONS, "flight-delay") == []


def test_what_a_round_appends_is_there_once_however_often_it_is_done(store: LogStore, address: str) -> None:
    batch = answers(4)
    tables = tables_of("one", [batch, (an_outcome(batch.prediction_ids[0], received_time=MAY),)])
    assert store.append(WRITER, 1, tables) == {PREDICTIONS: 4, OUTCOMES: 1}
    assert store.append(WRITER, 1, tables) == {}
    assert open_log_store(address).append(WRITER, 1, tables) == {}, "another process finds the round as well"
    assert stored_ids(store) == sorted(batch.prediction_ids)
    assert len(stored_rows(store, OUTCOMES)) == 1
    assert {row["segment"] for row in stored_rows(store)} == {"one"}


def test_a_round_that_only_some_tables_have_is_completed(store: LogStore) -> None:
    first, second = answers(2), answers(2, endpoint="other")
    store.append(WRITER, 1, tables_of("one", [first]))
    assert store.append(WRITER, 1, tables_of("one", [first, second])) == {PREDICTIONS: 2}
    assert stored_ids(store) == sorted([*first.prediction_ids, *second.prediction_ids])


def test_writers_count_their_rounds_apart(store: LogStore) -> None:
    first, second = answers(1), answers(1)
    store.append("one", 7, tables_of("a", [first]))
    assert store.append("two", 7, tables_of("b", [second])) == {PREDICTIONS: 1}
    assert stored_ids(store) == sorted([*first.prediction_ids, *second.prediction_ids])


def test_rows_lie_under_the_day_of_their_moment(store: LogStore) -> None:
    batches = [answers(1, as_of=MAY + day * DAY_US) for day in (0, 0, 1, 3)]
    store.append(WRITER, 1, tables_of("one", batches))
    table = the_table(store)
    assert [(file.day, file.rows) for file in table.entries] == [
        ("2013-05-01", 2),
        ("2013-05-02", 1),
        ("2013-05-04", 1),
    ]
    assert len(table.files("2013-05-01", "2013-05-02")) == 2
    assert len(table.files(day_from="2013-05-02")) == 2
    assert len(table.files(day_to="2013-05-01")) == 1
    assert {row["day"] for row in rows_of(table)} == {"2013-05-01", "2013-05-02", "2013-05-04"}


def test_a_file_that_cannot_hold_an_id_is_not_named(store: LogStore) -> None:
    ids = fill(store, 3)
    table = the_table(store)
    assert [len(table.files(prediction_id=each)) for each in (ids[0], ids[4], ids[-1])] == [1, 1, 1]
    assert table.files(prediction_id="00000000-0000-7000-8000-000000000000") == []


def test_bundles_with_the_same_columns_share_a_table_and_others_have_their_own(store: LogStore) -> None:
    same = [answers(1), answers(1, bundle=digest("two"))]
    made = answers(1)
    other = replace(made, given={**made.given, "more": column_of(Dtype.INT64, [1])})
    store.append(WRITER, 1, tables_of("one", [*same, other]))
    tables = store.tables(PREDICTIONS, "flight-delay")
    assert sorted(sum(file.rows for file in each.entries) for each in tables) == [1, 2]
    assert len({each.columns for each in tables}) == 2


def test_compaction_keeps_every_row_and_puts_them_in_order(store: LogStore) -> None:
    ids = fill(store, LOG_COMPACT_FILES_MIN)
    before = sorted(map(repr, stored_rows(store)))
    done = compact_once(store, file_bytes=1 << 20, now_s=time.time())
    assert done is not None
    assert (done.files, done.rows) == (LOG_COMPACT_FILES_MIN, len(ids))
    assert len(the_table(store).entries) == 1
    after = rows_of(the_table(store))
    assert [row["prediction_id"] for row in after] == ids
    assert sorted(map(repr, after)) == before
    assert compact_once(store, file_bytes=1 << 20, now_s=time.time()) is None


def test_a_day_that_goes_on_waits_for_more_files_and_a_settled_one_does_not(store: LogStore) -> None:
    fill(store, 2)
    assert compact_once(store, file_bytes=1 << 20, now_s=time.time()) is None
    done = compact_once(store, file_bytes=1 << 20, now_s=time.time() + 7_200)
    assert done is not None
    assert done.files == 2


def test_files_are_put_together_up_to_the_size_and_no_further(store: LogStore) -> None:
    ids = fill(store, 6)
    size = max(file.size_bytes for file in the_table(store).entries)
    done = compact_once(store, file_bytes=2 * size + 2, now_s=0.0, at_once=True)
    assert done is not None
    assert done.files == 2, "a third would not fit"
    assert stored_ids(store) == ids
    assert compact_once(store, file_bytes=2 * (size - 200), now_s=0.0, at_once=True) is None, "none is small"
    assert stored_ids(store) == ids


def test_outcomes_told_by_entity_have_no_prediction_and_are_compacted_too(store: LogStore) -> None:
    told = [
        an_outcome(None, received_time=MAY, endpoint="flight-delay", entity='{"origin":"N1"}', at=MAY),
        an_outcome(answers(1).prediction_ids[0], received_time=MAY + 1),
    ]
    for number, each in enumerate(told, start=1):
        store.append(WRITER, number, tables_of(f"s{number}", [(each,)]))
    assert compact_once(store, file_bytes=1 << 20, now_s=0.0, at_once=True) is not None
    assert [row[ORDER[OUTCOMES]] for row in rows_of(the_table(store, OUTCOMES))] == [each.outcome_id for each in told]


def test_files_that_were_replaced_stay_for_readers_until_they_are_vacuumed(store: LogStore) -> None:
    fill(store, 2)
    held = the_table(store)
    compact_once(store, file_bytes=1 << 20, now_s=0.0, at_once=True)
    assert the_table(store).vacuum(kept_s=3_600.0) == 0
    assert len(rows_of(held)) == 6, "a reader with the list of before"
    assert the_table(store).vacuum(kept_s=0.0) == 2
    assert lying(store, the_table(store)) == {file.path for file in the_table(store).entries}
    assert len(rows_of(the_table(store))) == 6


def test_two_rewritings_of_one_table_end_in_one_of_them(store: LogStore) -> None:
    ids = fill(store, 2)
    first, second = the_table(store), the_table(store)
    first.rewrite([], first.entries[:1], changes_rows=True)
    with pytest.raises(Conflict, match="meanwhile"):
        second.rewrite([], second.entries[:1], changes_rows=True)
    assert stored_ids(store) == ids[3:]


def test_rows_that_come_while_files_are_put_together_stay(store: LogStore) -> None:
    ids = fill(store, 2)
    held = the_table(store)
    ids += fill(store, 1, first_round=3)
    held.rewrite([], held.entries[:1], changes_rows=True)
    assert stored_ids(store) == sorted(ids)[3:]


def test_retention_drops_whole_days_by_endpoint(store: LogStore, address: str) -> None:
    batches = [answers(1, as_of=MAY + day * DAY_US, endpoint=name) for day in (0, 5, 9) for name in ("long", "short")]
    told = [(an_outcome(batch.prediction_ids[0], received_time=batch.as_of),) for batch in batches]
    store.append(WRITER, 1, tables_of("one", [*batches, *told]))
    now = Micros(MAY + 10 * DAY_US)
    assert retain(store, Retention(), now=now) == []
    dropped = retain(store, Retention(6, {"short": 2}), now=now)
    assert sum(each.rows for each in dropped) == 1 + 2 + 2
    assert {row["day"] for row in stored_rows(store, PREDICTIONS, "long")} == {"2013-05-06", "2013-05-10"}
    assert {row["day"] for row in stored_rows(store, PREDICTIONS, "short")} == {"2013-05-10"}
    assert {row["day"] for row in stored_rows(store, OUTCOMES)} == {"2013-05-06", "2013-05-10"}
    assert retain(store, Retention(6, {"short": 2}), now=now) == []
    again = open_log_store(address)
    assert len(stored_rows(again)) == 3, "another process sees the same"


def test_deletion_takes_predictions_of_every_role_and_their_outcomes_from_the_files(store: LogStore) -> None:
    live, shadow, other = of_entity("N1", rows=2), of_entity("N1", role="shadow"), of_entity("N2", rows=2)
    shadow = replace(shadow, twins=[live.prediction_ids[0]])
    told = (
        an_outcome(live.prediction_ids[1], received_time=MAY),
        an_outcome(other.prediction_ids[0], received_time=MAY),
        an_outcome(None, received_time=MAY, endpoint="flight-delay", entity='{"carrier":"AA","origin":"N1"}', at=MAY),
        an_outcome(None, received_time=MAY, endpoint="flight-delay", entity='{"carrier":"AA","origin":"N2"}', at=MAY),
        an_outcome(None, received_time=MAY, endpoint="another", entity='{"origin":"N1"}', at=MAY),
    )
    store.append(WRITER, 1, tables_of("one", [live, shadow, other, told]))
    entity = Entity("flight-delay", {"origin": "N1"}, LATER)
    assert delete_entity(store, entity, dry_run=True) == DeletedRows(3, 2)
    assert len(stored_rows(store)) == 5
    assert delete_entity(store, entity) == DeletedRows(3, 2)
    assert stored_ids(store) == sorted(other.prediction_ids)
    assert len(stored_rows(store, OUTCOMES)) == 3
    assert delete_entity(store, entity) == DeletedRows(0, 0)
    for table in store.tables():
        assert lying(store, table) == {file.path for file in table.entries}, "nothing of the rows lies anywhere"


def test_deletion_finds_a_key_under_its_hash(store: LogStore) -> None:
    privacy = LogPrivacy(b"k" * 32)
    store.append(WRITER, 1, tables_of("one", [of_entity(privacy.hashed(Dtype.STRING, "N1")), of_entity("N2")]))
    without_key = Entity("flight-delay", {"origin": "N1"}, LATER)
    with pytest.raises(InvalidRequest, match="hashes") as caught:
        delete_entity(store, without_key)
    assert "SKEWLESS_SHIPPER_LOG_HASH_KEY" in caught.value.hint
    assert delete_entity(store, replace(without_key, privacy=privacy)) == DeletedRows(1, 0)
    as_it_stands = replace(without_key, keys={"origin": privacy.hashed(Dtype.STRING, "N1")})
    assert delete_entity(store, as_it_stands) == DeletedRows(0, 0), "the value itself needs no key"


def test_deletion_compares_values_and_not_how_they_are_written(store: LogStore) -> None:
    made = answers(2)
    numbered = replace(
        made,
        key_names=("weight",),
        given={"weight": column_of(Dtype.FLOAT64, [1.5, 2.0])},
    )
    told = tuple(
        an_outcome(None, received_time=MAY, endpoint="flight-delay", entity=f'{{"weight":{each}}}', at=MAY)
        for each in ("1.5", "2", "true")
    )
    store.append(WRITER, 1, tables_of("one", [numbered, told]))
    assert delete_entity(store, Entity("flight-delay", {"weight": "1.50"}, LATER)) == DeletedRows(1, 1)
    with pytest.raises(InvalidRequest, match="`heavy` is no value of join key `weight`"):
        delete_entity(store, Entity("flight-delay", {"weight": "heavy"}, LATER))
    assert delete_entity(store, Entity("flight-delay", {"weight": "1.0"}, LATER)) == DeletedRows(0, 0), "true is no 1"
    assert delete_entity(store, Entity("flight-delay", {"weight": "2e0"}, LATER)) == DeletedRows(1, 1)


class FailingFiles:
    """Files whose storage goes away at one of the calls that change it, and comes back."""

    def __init__(self, files: LogFiles, fails_at: int) -> None:
        self._files = files
        self._left = fails_at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def keep(self, draft: Path, path: str) -> None:
        self._count()
        self._files.keep(draft, path)

    def remove(self, paths: Sequence[str]) -> int:
        self._count()
        return self._files.remove(paths)

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Unavailable("the log store", "it went away")


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
def test_a_deletion_that_was_stopped_half_way_is_done_by_doing_it_again(address: str, fails_at: int) -> None:
    store = open_log_store(address)
    gone, other = of_entity("N1", rows=2), of_entity("N2", rows=2)
    told = tuple(an_outcome(each.prediction_ids[0], received_time=MAY) for each in (gone, other))
    store.append(WRITER, 1, tables_of("one", [gone, other, told]))
    entity = Entity("flight-delay", {"origin": "N1"}, LATER)
    sound = store.files
    store.files = FailingFiles(sound, fails_at)
    with pytest.raises(Unavailable, match="went away"):
        delete_entity(store, entity)
    store.files = sound
    delete_entity(store, entity)
    assert stored_ids(store) == sorted(other.prediction_ids)
    assert [row["prediction_id"] for row in stored_rows(store, OUTCOMES)] == [other.prediction_ids[0]]
    named = {(table.path, file.path) for table in store.tables() for file in table.entries}
    lying_still = {(table.path, path) for table in store.tables() for path in lying(store, table)}
    # What the failing call had written and no commit named goes with the next search for such files.
    assert all("kept-" in path for _, path in lying_still - named)


def test_a_day_that_cannot_be_put_together_does_not_keep_the_next_from_it(tmp_path: Path) -> None:
    store = open_log_store(str(tmp_path / "store"))
    batches = [answers(1, as_of=MAY + day * DAY_US) for day in (0, 0, 1, 1)]
    for number, batch in enumerate(batches, start=1):
        store.append(WRITER, number, tables_of(f"s{number}", [batch]))
    Path(the_table(store).files(day_to="2013-05-01")[0]).write_bytes(b"no Parquet at all")
    failed: Failures = {}
    with pytest.raises(Unavailable, match="2013-05-01"):
        compact_once(store, file_bytes=1 << 20, now_s=0.0, at_once=True, failed=failed)
    done = compact_once(store, file_bytes=1 << 20, now_s=0.0, at_once=True, failed=failed)
    assert done is not None
    assert done.day == "2013-05-02"
    assert compact_once(store, file_bytes=1 << 20, now_s=0.0, at_once=True, failed=failed) is None


def test_damaged_segments_are_dropped_with_the_last_records_of_their_age(tmp_path: Path) -> None:
    damaged = tmp_path / SPOOL / DAMAGED
    damaged.mkdir(parents=True)
    for day in (0, 5):
        (damaged / f"{MAY + day * DAY_US:014x}0123456789{SEALED}").write_bytes(b"rows")
    now = Micros(MAY + 10 * DAY_US)
    assert drop_damaged(tmp_path, Retention(by_endpoint={"short": 1}), now=now) == 0, "others are kept for ever"
    assert drop_damaged(tmp_path, Retention(2, {"long": 7}), now=now) == 1
    assert len(list(damaged.iterdir())) == 1


def test_deletion_leaves_what_was_predicted_after_it_was_asked_for(store: LogStore) -> None:
    early, asked = of_entity("N1"), Micros(time.time_ns() // 1_000)
    late = replace(of_entity("N1"), prediction_ids=["ffffffff-0000-7000-8000-000000000000"])
    store.append(WRITER, 1, tables_of("one", [early, late]))
    assert delete_entity(store, Entity("flight-delay", {"origin": "N1"}, asked)) == DeletedRows(1, 0)
    assert stored_ids(store) == list(late.prediction_ids)


def test_deletion_refuses_what_the_log_does_not_know(store: LogStore) -> None:
    store.append(WRITER, 1, tables_of("one", [of_entity("N1")]))
    with pytest.raises(NotFound, match="flight-delay"):
        delete_entity(store, Entity("none", {"origin": "N1"}, LATER))
    with pytest.raises(InvalidRequest, match="no join key `colour`") as caught:
        delete_entity(store, Entity("flight-delay", {"colour": "red"}, LATER))
    assert "origin" in caught.value.allowed


def test_a_store_says_whether_it_stops_a_second_writer(store: LogStore) -> None:
    # rclone ignores If-None-Match; a server that heeds it is told from it by the same question.
    assert store.files.stops_second_writers() is not isinstance(store.files, BucketLogFiles)


@pytest.mark.parametrize("wrong", ["", "ftp://somewhere", "s3://x@y"])
def test_an_address_that_is_none_is_refused_by_the_name_of_the_store(wrong: str) -> None:
    with pytest.raises(InvalidSettings, match="log store"):
        open_log_store(wrong)
