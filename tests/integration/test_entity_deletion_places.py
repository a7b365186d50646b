"""Deletion of entities from the stores: what goes, what stays, and what a kill leaves to be done."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from click.testing import CliRunner
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from harness.feature_repository import FEAST_WARNS
from harness.killed_forks import forked
from harness.parity_world import KEYS, ParityWorld, hour, leg, network, parity_world, weather
from harness.servers import ValkeyServer
from harness.shipped_logs import ship
from harness.stored_logs import an_outcome, answers, write_segment
from skewless.adapters.entity_erasure import Place, Surroundings, erase
from skewless.adapters.entity_places import OnlinePlace, QuarantinePlace, SourcePlace, sources_named
from skewless.adapters.entity_rows import EntityRows
from skewless.adapters.offline_erasure import OfflineErasure
from skewless.adapters.online_erasure import OTHER_FIELDS, ErasedViews, OnlineErasure
from skewless.adapters.online_scan import OnlineScan
from skewless.adapters.quarantine import Quarantine
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.redis_maintenance import OnlineStoreMaintenance
from skewless.adapters.redis_replies import packed
from skewless.cli.entity_commands import entity
from skewless.dtypes import Dtype, column_of
from skewless.features.chosen_entities import ChosenEntities
from skewless.quality.verdict import Decision
from skewless.registry import database
from skewless.registry.drift_tables import DriftWordRow
from skewless.registry.entity_deletions import DeletionRecord, DeletionRequest, Deletions, DeletionState
from skewless.registry.parity_tables import ParityExampleRow
from skewless.registry.quality_results import (
    QualityResults,
    QuarantineRecord,
    QuarantineState,
    RunRecord,
)
from skewless.registry.quality_tables import QualityResultRow, QualityRunRow
from skewless.registry.transactions import system_clock
from skewless.settings import Home
from skewless.timestamps import Micros, format_timestamp

pytestmark = FEAST_WARNS
A, B = "station-A17", "station-B42"
OF_A = ChosenEntities({"station": A})
ROWS: dict[str, list[dict[str, Any]]] = {
    "weather": [weather(A, 0), weather(A, 1, 2), weather(B, 0), weather(B, 1)],
    "leg": [leg(A, 7, 0), leg(A, 8, 1), leg(B, 7, 1)],
    "network": [network(0)],
}


@pytest.fixture(scope="module")
def module_world(tmp_path_factory: pytest.TempPathFactory, valkey_server: ValkeyServer) -> Iterator[ParityWorld]:
    with parity_world(tmp_path_factory.mktemp("entities"), "entitydeletion", valkey_server) as world:
        world.define()
        yield world


@pytest.fixture
def world(module_world: ParityWorld) -> ParityWorld:
    module_world.write_sources(**ROWS)
    with closing(OnlineStoreMaintenance(module_world.url, module_world.repository.project)) as store:
        store.clear()
    module_world.materialize(3)
    return module_world


@pytest.fixture
def engine(sqlite_registry: Path, tmp_path: Path) -> Iterator[Engine]:
    made = database.engine(f"sqlite:///{shutil.copy(sqlite_registry, tmp_path / 'registry.db')}")
    yield made
    made.dispose()


class Deleting:
    """A deletion over a world."""

    def __init__(
        self, world: ParityWorld, engine: Engine, store: BlockingRedisOnlineStore, entities: ChosenEntities, *views: str
    ) -> None:
        self.world = world
        self.entities = entities
        self.stored = world.repository.stored()
        self.views = {
            name: view
            for name, view in self.stored.views.items()
            if entities.are_told_by(key.name for key in view.read.join_keys) and (not views or name in views)
        }
        self.whole = not views
        self.deletions = Deletions(engine)
        self.store = store

    def rows(self, name: str, before: int) -> EntityRows:
        source = self.views[name].source
        keys = {each: each for each in self.entities.names}
        return EntityRows(self.entities, keys, before, source.event_time, source.created_time or "")

    def online(self, before: int) -> OnlinePlace:
        project = self.stored.project
        meant = ErasedViews(
            {name: each.read for name, each in self.stored.views.items()}, frozenset(self.views), self.whole, before
        )
        scan = OnlineScan(self.store, self.world.url, project)
        return OnlinePlace(OnlineErasure(self.store, project, self.entities, meant, lambda: scan))

    def places(self, before: int) -> list[Place]:
        sources: list[Place] = [
            SourcePlace(sources_named([name]), OfflineErasure(view.source, self.rows(name, before)))
            for name, view in self.views.items()
        ]
        return [*sources, self.online(before)]

    def run(self, *more: Place, before: int | None = None) -> Any:
        request = DeletionRequest(self.entities, before=None if before is None else Micros(before))
        record = erase(self.deletions, request, lambda until: Surroundings([*self.places(until), *more]))
        assert record.receipt is not None
        return record


Delete = Callable[..., Deleting]
"""A deletion of entities, of some views or all."""


@pytest.fixture
def delete(world: ParityWorld, engine: Engine) -> Iterator[Delete]:
    with closing(BlockingRedisOnlineStore(world.url)) as store:
        yield partial(Deleting, world, engine, store)


def stations(world: ParityWorld, view: str) -> list[str]:
    return [row["station"] for row in pq.read_table(world.folder / f"{view}.parquet").to_pylist()]


def served(world: ParityWorld, station: str, line: int = 7) -> dict[str, str]:
    frame = world.serve([{"station": station, "line": line}], 3).frame
    return {view: "there" if frame.event_times[view][0] >= 0 else "gone" for view in KEYS}


def put(world: ParityWorld, fields: Mapping[bytes, Mapping[bytes, bytes]]) -> None:
    with closing(redis.Redis.from_url(world.url)) as client:
        for key, held in fields.items():
            client.hset(key, mapping=dict(held))  # type: ignore[arg-type]  # keys are bytes as well


def hashes(world: ParityWorld) -> int:
    with closing(OnlineStoreMaintenance(world.url, world.repository.project)) as store:
        return store.entities()


def test_every_row_of_an_entity_goes_online_and_offline_and_no_other(world: ParityWorld, delete: Delete) -> None:
    record = delete(OF_A).run()
    assert record.state is DeletionState.DONE
    assert {each["place"]: (each["found"], each["left"]) for each in record.receipt["places"]} == {
        "source of leg": (2, 0),
        "source of weather": (2, 0),
        "online store": (3, 0),
    }
    assert stations(world, "weather") == [B, B]
    assert stations(world, "leg") == [B]
    assert served(world, A) == {"weather": "gone", "leg": "gone", "network": "there"}
    assert served(world, B) == {"weather": "there", "leg": "there", "network": "there"}
    assert A.encode() not in b"".join(path.read_bytes() for path in world.folder.glob("*.parquet*"))
    assert A not in str(record.receipt)


def test_what_is_deleted_does_not_come_back_by_materializing_again(world: ParityWorld, delete: Delete) -> None:
    delete(OF_A).run()
    before = hashes(world)
    world.materialize(4)
    assert hashes(world) == before
    assert served(world, A) == {"weather": "gone", "leg": "gone", "network": "there"}


def test_all_join_keys_of_an_entity_take_only_that_one(world: ParityWorld, delete: Delete) -> None:
    record = delete(ChosenEntities({"station": A, "line": "7"})).run()
    assert sum(each["found"] for each in record.receipt["places"]) == 2
    assert [(row["station"], row["line"]) for row in pq.read_table(world.folder / "leg.parquet").to_pylist()] == [
        (A, 8),
        (B, 7),
    ]
    assert served(world, A, 7)["leg"] == "gone"
    assert served(world, A, 8)["leg"] == "there"
    assert served(world, A)["weather"] == "there"


def test_rows_that_became_known_later_stay_everywhere(world: ParityWorld, delete: Delete) -> None:
    record = delete(OF_A).run(before=hour(0.5))
    assert record.state is DeletionState.DONE
    assert stations(world, "weather") == [A, B, B]
    # Stored by Feast, without a created time: what counts online is that it happened after the moment.
    assert served(world, A) == {"weather": "there", "leg": "gone", "network": "there"}
    assert served(world, A, 8)["leg"] == "there"


def test_where_no_time_was_named_rows_dated_ahead_go_online_too_that_have_no_created_time(
    world: ParityWorld, delete: Delete
) -> None:
    deleting = delete(OF_A)
    views = {name: each.read for name, each in deleting.stored.views.items()}
    project = deleting.stored.project
    found = {}
    for undated_go in (False, True):
        meant = ErasedViews(views, frozenset(deleting.views), whole=False, before=hour(0.5), undated_go=undated_go)
        scan = OnlineScan(deleting.store, world.url, project)
        found[undated_go] = OnlineErasure(deleting.store, project, OF_A, meant, lambda scan=scan: scan).look()  # type: ignore[misc]  # of the loop
    assert found == {False: {"leg": 1}, True: {"weather": 1, "leg": 2}}


def test_views_that_are_not_named_keep_their_rows(world: ParityWorld, delete: Delete) -> None:
    delete(OF_A, "weather").run()
    assert served(world, A) == {"weather": "gone", "leg": "there", "network": "there"}
    assert stations(world, "leg") == [A, A, B]


def test_what_nobody_reads_any_more_goes_as_well(world: ParityWorld, delete: Delete) -> None:
    deleting = delete(OF_A)
    (key,) = [each for each in deleting.online(hour(9)).erasure._built_keys() if len(each)][:1]
    put(world, {key: {b"_ts:dropped": b"x", b"abcd": b"y"}})
    assert deleting.online(hour(9)).look()[OTHER_FIELDS] == 1
    record = deleting.run()
    assert record.state is DeletionState.DONE
    assert deleting.store.read((key,), (packed("HGETALL", key),), timeout_s=5) == [[]]


def test_the_same_number_under_another_type_of_key_is_found(world: ParityWorld, delete: Delete) -> None:
    deleting = delete(ChosenEntities({"station": "77"}))
    keys = deleting.online(hour(9)).erasure._built_keys()
    assert len(keys) == 3  # as a text and as an integer of either size
    put(world, {key: {b"_ts:dropped": b"x"} for key in keys})
    assert deleting.online(hour(9)).look() == {OTHER_FIELDS: 3}
    deleting.run()
    assert deleting.store.read(keys, [packed("HGETALL", key) for key in keys], timeout_s=5) == [[]] * 3


class Killed(BaseException):
    """Stands for the end of the process: nothing below catches it."""


class KilledPlace:
    """Ends everything when it is about to be looked at, or once it is erased."""

    def __init__(self, place: Place, *, when: str) -> None:
        self._place = place
        self._when = when
        self.name = place.name

    def look(self) -> Any:
        if self._when == "looked at":
            raise Killed
        return self._place.look()

    def erase(self) -> None:
        self._place.erase()
        if self._when == "erased":
            raise Killed


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("when", ["looked at", "erased"])
def test_a_deletion_that_is_killed_anywhere_is_finished_by_asking_again(
    world: ParityWorld, delete: Delete, number: int, when: str
) -> None:
    first = delete(OF_A)
    request = DeletionRequest(OF_A)

    def killed_at(until: Micros) -> Surroundings:
        places = first.places(until)
        return Surroundings([*places[:number], KilledPlace(places[number], when=when), *places[number + 1 :]])

    with pytest.raises(Killed):
        erase(first.deletions, request, killed_at)
    (begun,) = first.deletions.deletions()
    assert (begun.state, begun.receipt) == (DeletionState.BEGUN, None)
    record = delete(OF_A).run()
    assert (record.id, record.state) == (begun.id, DeletionState.DONE)
    assert [each["found"] for each in record.receipt["places"]] == [2, 2, 3]
    assert stations(world, "weather") == [B, B]
    assert served(world, A)["leg"] == "gone"


def test_a_parquet_file_is_the_old_one_or_the_new_one_and_leftovers_of_a_kill_are_no_matter(
    world: ParityWorld, delete: Delete
) -> None:
    (world.folder / ".weather.parquet.erasing").write_bytes(b"half of it")
    delete(OF_A).run()
    assert not list(world.folder.glob(".*.erasing"))
    assert stations(world, "weather") == [B, B]


def test_a_place_that_is_away_leaves_the_rest_done_and_says_so(world: ParityWorld, delete: Delete) -> None:
    (world.folder / "leg.parquet").write_bytes(b"no table")
    record = delete(OF_A).run()
    assert record.state is DeletionState.PARTLY
    problems = {each["place"]: each["problem"] for each in record.receipt["places"]}
    assert "cannot be read" in problems["source of leg"]
    assert problems["source of weather"] is None
    assert served(world, A)["weather"] == "gone"
    world.write_sources(**ROWS)
    again = delete(OF_A).run()
    assert again.id != record.id
    assert again.state is DeletionState.DONE
    assert stations(world, "leg") == [B]


def test_quarantined_rows_go_and_their_batch_knows(
    world: ParityWorld, engine: Engine, delete: Delete, tmp_path: Path
) -> None:
    quarantine, results = Quarantine(tmp_path / "quarantine"), QualityResults(engine)
    rows = pq.read_table(world.folder / "weather.parquet")
    batches = {"both": rows, "alone": rows.slice(0, 2), "nobody": rows.slice(2)}
    for name, table in batches.items():
        with quarantine.locked("weather"):
            file = quarantine.write("weather", name, table, [["why"]] * table.num_rows, [])
        assert file is not None
        run = RunRecord(name, "weather", "s", "d", "test", "b", 0, 0, 0, 4, 4, Decision.QUARANTINE)
        results.add(run, QuarantineRecord(name, name, "weather", file.name, file.digest, file.rows, 0, 0))
    deleting = delete(OF_A)
    place = QuarantinePlace(quarantine, results, {"weather": deleting.rows("weather", hour(9))})
    assert place.look() == {"weather": 4}
    record = deleting.run(place)
    assert record.state is DeletionState.DONE
    held = {each.id: (each.rows, each.state) for each in results.quarantined("weather", state=None)}
    assert held == {
        "both": (2, QuarantineState.HELD),
        "alone": (2, QuarantineState.DROPPED),
        "nobody": (2, QuarantineState.HELD),
    }
    assert sorted(quarantine.files("weather")) == ["weather/both.parquet", "weather/nobody.parquet"]
    kept = pa.concat_tables([quarantine.read(each) for each in quarantine.files("weather")])
    assert set(kept.column("station").to_pylist()) == {B}


KILLS = int(os.environ.get("SKEWLESS_TEST_DELETION_KILLS", "6"))
STEPS = 42
"""Openings, renames and removals of a whole deletion, about; a kill beyond them is none."""


def test_a_process_that_is_killed_at_any_step_is_finished_by_asking_again(
    world: ParityWorld, engine: Engine, tmp_path: Path
) -> None:
    url, quarantine = str(engine.url), Quarantine(tmp_path / "quarantine")
    engine.dispose()

    def work(opened: Engine) -> DeletionRecord:
        with closing(BlockingRedisOnlineStore(world.url)) as store:
            deleting = Deleting(world, opened, store, OF_A)
            place = QuarantinePlace(quarantine, QualityResults(opened), {"weather": deleting.rows("weather", hour(9))})
            return deleting.run(place)  # type: ignore[no-any-return]  # a record

    def killed() -> None:
        work(database.engine(url))

    for kill_at in range(0, STEPS, max(1, STEPS // KILLS)):
        world.write_sources(**ROWS)
        world.materialize(3)
        with quarantine.locked("weather"):
            quarantine.write(
                "weather", f"b{kill_at}", pq.read_table(world.folder / "weather.parquet"), [["why"]] * 4, []
            )
        is_whole = forked(killed, root=tmp_path.parent, kill_at=kill_at)
        opened = database.engine(url)
        record = work(opened)
        opened.dispose()
        assert record.state is DeletionState.DONE, f"killed at {kill_at}: {record.receipt}"
        assert stations(world, "weather") == [B, B], f"killed at {kill_at}"
        assert served(world, A) == {"weather": "gone", "leg": "gone", "network": "there"}, f"killed at {kill_at}"
        kept = pa.concat_tables([quarantine.read(each) for each in quarantine.files("weather")])
        assert set(kept.column("station").to_pylist()) == {B}, f"killed at {kill_at}"
        assert not [path for path in world.folder.iterdir() if path.name.endswith((".erasing", ".partial"))]
        assert kill_at or not is_whole, "the first step is never its last"


def test_the_store_writes_its_files_anew_without_what_was_deleted(world: ParityWorld, delete: Delete) -> None:
    delete(OF_A).run()
    with closing(redis.Redis.from_url(world.url)) as client:
        client.config_set("rdbcompression", "no")
        with closing(OnlineStoreMaintenance(world.url, world.repository.project)) as store:
            assert store.rewrite_files() == ""
        client.config_set("rdbcompression", "yes")
        folder = Path(client.config_get("dir")["dir"])  # type: ignore[index]  # sync client: never awaitable
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert B.encode() in b"".join(path.read_bytes() for path in files)
    assert not [path.name for path in files if A.encode() in path.read_bytes()]


@pytest.fixture
def home(world: ParityWorld, sqlite_registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home over the world with a registry, a prediction log of both stations, and copies of what is in it."""
    home = Home(tmp_path / "home")
    home.root.mkdir()
    shutil.copy(sqlite_registry, home.database)
    for name, value in {
        "HOME": home.root,
        "REPO": world.folder / "repository",
        "ONLINE_STORE": world.url.removeprefix("redis://"),
        "FEAST_REGISTRY": f"sqlite:///{world.folder}/feast.db",
        "DATA": world.folder,
    }.items():
        monkeypatch.setenv(f"SKEWLESS_{name}", str(value))
    given = {"station": column_of(Dtype.STRING, [A, B, A]), "distance": column_of(Dtype.FLOAT64, [0.1] * 3)}
    batch = answers(3, key_names=("station",), given=given)
    write_segment(home.predictions, [batch])
    ship(home.predictions)
    later = answers(3, key_names=("station",), given=given)
    outcomes = tuple(an_outcome(later.prediction_ids[row], received_time=int(system_clock())) for row in (0, 1))
    write_segment(home.predictions, [later, outcomes])
    copy(home, batch.prediction_ids)
    return home


def copy(home: Home, prediction_ids: Sequence[str]) -> None:
    engine = database.engine(f"sqlite:///{home.database}")
    with Session(engine) as session:
        told = {"period_start_us": 0, "pass_name": "then", "bundle_digest": "1" * 64, "view": "weather", "cause": "c"}
        for each in prediction_ids:
            session.add(ParityExampleRow(endpoint="e", prediction_id=each, explanation={"served": each}, **told))
        for word in (A, B):
            session.add(
                DriftWordRow(
                    endpoint_name="e",
                    bundle_digest="1" * 64,
                    feature="f",
                    word=word,
                    rows=1,
                    over=0,
                    first_us=0,
                    last_us=0,
                )
            )
        run = {"suite": "s", "suite_digest": "d", "origin": "o", "batch": "b", "as_of": 0, "time": 0, "duration_us": 0}
        session.add(QualityRunRow(id="1", view="weather", rows=1, set_aside=0, decision="warn", **run))
        session.flush()
        result = {"type": "t", "kwargs": {}, "severity": "warning", "follows": "warn", "success": False, "hint": ""}
        session.add(
            QualityResultRow(
                run_id="1", position=0, told=f"not so, such as `{A}`, `{B}`", observed={"value": [A, B]}, **result
            )
        )
        session.commit()
    engine.dispose()
    for name, words in {"one": f'{{"entity": "{A}"}}', "two": f'{{"id": "{prediction_ids[0]}"}}', "three": B}.items():
        (home.root / "repairs").mkdir(exist_ok=True)
        (home.root / "repairs" / f"{name}.json").write_text(words)


def told(*arguments: str, exit_code: int = 0) -> Any:
    result = CliRunner().invoke(entity, [*arguments, "--json"])
    assert result.exit_code == exit_code, result.output + repr(result.exception)
    return json.loads(result.stdout)


def test_the_command_shows_deletes_everywhere_and_gives_a_receipt_without_the_value(
    world: ParityWorld, home: Home
) -> None:
    looked = told("delete", f"station={A}", "--dry-run")
    assert looked["problems"] == {}
    assert looked["places"] == {
        "batches on their way in": {},
        "source of leg": {"source of leg": 2},
        "source of weather": {"source of weather": 2},
        "quarantine": {},
        "online store": {"weather": 1, "leg": 2},
        "copies in the registry database": {"parity examples": 2, "unseen words": 1, "values in quality results": 1},
        "reports": {"repairs": 2},
        "prediction log": {"flight-delay": 5},
    }
    assert told("receipts") == []
    assert served(world, A)["weather"] == "there"
    receipt = told("delete", f"station={A}", "--yes", "--reason", "request 318")
    assert receipt["state"] == "done"
    assert receipt["rows"] == 4 + 3 + 4 + 2 + 5
    assert [each["left"] for each in receipt["places"]] == [0] * 8
    assert A not in json.dumps(receipt)
    assert (
        receipt
        == told("show", receipt["id"])
        == json.loads((home.root / "deletions" / f"{receipt['id']}.json").read_text())
    )
    assert [each["id"] for each in told("receipts", f"station={A}")] == [receipt["id"]]
    assert told("receipts", f"station={B}") == []
    assert served(world, A) == {"weather": "gone", "leg": "gone", "network": "there"}
    assert sorted(path.name for path in (home.root / "repairs").iterdir()) == ["three.json"]
    holding = [path for path in home.root.rglob("*") if path.is_file() and A.encode() in path.read_bytes()]
    assert holding == []
    again = told("delete", f"station={A}", "--dry-run")
    assert again["rows"] == 0


def test_tables_that_no_view_reads_are_named_and_deleted_from_where_they_are_given(
    world: ParityWorld, home: Home
) -> None:
    labels = world.folder / "labels.parquet"
    pq.write_table(pa.table({"station": [A, B, A], "late": [1, 0, 1]}), labels)
    named = {each["place"]: each for each in told("delete", f"station={A}", "--dry-run")["not_reached"]}
    assert any("streams that ingestion reads" in place for place in named), "they hold rows as they were sent"
    tables = named["tables in the data folder that no view reads"]
    assert (tables["found"], "labels.parquet" in tables["hint"]) == (2, True)
    receipt = told("delete", f"station={A}", "--yes", "--also", str(labels))
    assert {each["place"]: each["found"] for each in receipt["places"]}["file labels.parquet"] == 2
    assert pq.read_table(labels).column("station").to_pylist() == [B]
    labels.unlink()


def test_rows_dated_ahead_without_a_created_time_go_unless_a_time_was_named(world: ParityWorld, home: Home) -> None:
    world.write_sources(**{**ROWS, "leg": [*ROWS["leg"], {**leg(A, 9, 10**6), "known": None}]})
    now = format_timestamp(Micros(system_clock()))
    assert told("delete", f"station={A}", "--dry-run")["places"]["source of leg"] == {"source of leg": 3}
    named = told("delete", f"station={A}", "--dry-run", "--before", now)
    assert named["places"]["source of leg"] == {"source of leg": 2}
    receipt = told("delete", f"station={A}", "--yes")
    assert receipt["state"] == "done"
    assert stations(world, "leg") == [B]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["colour=red"], "no view has the join keys colour"),
        (["station"], "names no value"),
        ([f"station={A}", "line=seven"], "no value of join key `line`"),
        ([f"station={A}", "line=7", "--views", "weather"], "has not all of these join keys"),
    ],
)
def test_what_names_no_entity_is_refused_before_anything_is_written_down(
    home: Home, arguments: list[str], words: str
) -> None:
    result = CliRunner().invoke(entity, ["delete", *arguments, "--yes"])
    assert words in str(result.exception)
    assert told("receipts") == []
