"""Deletion of what is on its way in, of Delta tables and of streams; and that nothing of it comes back."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness import ingest_world
from harness.aggregate_stores import StreamWorld, random_batches
from harness.ingest_world import CREATED_TIME, EVENT_TIME, START_US, VIEW, IngestWorld, assert_stores_agree, made_rows
from harness.servers import ValkeyServer
from skewless.adapters.aggregate_lane import AggregateLane
from skewless.adapters.aggregate_state import AggregateStates
from skewless.adapters.entity_erasure import Place, Surroundings, erase
from skewless.adapters.entity_places import OnlinePlace, OutboxPlace, SourcePlace, StatePlace
from skewless.adapters.entity_rows import EntityRows
from skewless.adapters.erasure_leases import writers_waiting
from skewless.adapters.offline_erasure import OfflineErasure
from skewless.adapters.online_erasure import ErasedViews, OnlineErasure
from skewless.adapters.online_scan import OnlineScan
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.redis_maintenance import OnlineStoreMaintenance
from skewless.aggregates.declaration import CREATED_TIME as EVENTS_CREATED
from skewless.aggregates.declaration import events_path
from skewless.features.chosen_entities import ChosenEntities
from skewless.features.contract import ViewRead
from skewless.features.point_in_time import OfflineSource, SourceForm
from skewless.registry import database
from skewless.registry.entity_deletions import DeletionRecord, DeletionRequest, Deletions, DeletionState
from skewless.timestamps import HOUR_US, SECOND_US, Micros

NEVER = threading.Event()
USER = ChosenEntities({"user": "user-3"})
RECEIVED = START_US + HOUR_US


@pytest.fixture
def world(tmp_path: Path, valkey_server: ValkeyServer) -> Iterator[IngestWorld]:
    with closing(OnlineStoreMaintenance(valkey_server.url, ingest_world.PROJECT)) as maintenance:
        maintenance.clear()
    with closing(IngestWorld.made(tmp_path, valkey_server.url)) as made:
        yield made


@pytest.fixture
def store(valkey_server: ValkeyServer) -> Iterator[BlockingRedisOnlineStore]:
    with closing(BlockingRedisOnlineStore(valkey_server.url)) as opened:
        yield opened


def delivered(world: IngestWorld) -> None:
    lease = world.take_lease()
    lane = world.lane(world.handler())
    while lane.step(lease, NEVER):
        pass
    world.leases.release(lease)


def online_place(
    store: BlockingRedisOnlineStore, url: str, project: str, entities: ChosenEntities, view: ViewRead, before: int
) -> OnlinePlace:
    meant = ErasedViews({view.view: view}, frozenset({view.view}), whole=True, before=before)
    return OnlinePlace(OnlineErasure(store, project, entities, meant, lambda: OnlineScan(store, url, project)))


def places(world: IngestWorld, store: BlockingRedisOnlineStore, before: int) -> list[Place]:
    rows = EntityRows(USER, {"user": "user"}, before, EVENT_TIME, CREATED_TIME)
    return [
        OutboxPlace(world.outbox, {VIEW: rows}),
        SourcePlace("source", OfflineErasure(world.view.source, rows)),
        online_place(store, world.store_url, ingest_world.PROJECT, USER, world.view.read, before),
    ]


def delete(world: IngestWorld, store: BlockingRedisOnlineStore, before: int) -> DeletionRecord:
    request = DeletionRequest(USER, before=Micros(before))
    return erase(world.deletions, request, lambda until: Surroundings(places(world, store, until)))


def users_offline(folder: Path) -> set[str]:
    """Of every file on the disk, whether the table names it or not."""
    found: set[str] = set()
    for path in folder.rglob("*.parquet"):
        if "user" in pq.read_schema(path).names:
            found.update(pq.read_table(path, columns=["user"]).column("user").to_pylist())
    return found


def test_rows_go_from_the_outbox_the_table_and_the_store_and_old_ones_do_not_come_back(
    world: IngestWorld, store: BlockingRedisOnlineStore
) -> None:
    batches = list(made_rows(11, 8))
    entities = sorted({(row["shop"], row["user"]) for batch in batches for row in batch})
    theirs = [each for each in entities if each[1] == "user-3"]
    assert len(theirs) > 1, "one user of several shops"
    for batch in batches[:6]:
        world.accept(batch)
    delivered(world)
    for batch in batches[6:]:
        world.accept(batch)
    before = RECEIVED + 10**15  # accepted times are the clock's
    record = delete(world, store, before)
    assert (record.state, list(record.found.values()).count(0)) == (DeletionState.DONE, 0)
    assert "user-3" not in users_offline(world.folder / "clicks")
    delivered(world)
    world.accept(batches[0], key="again")
    delivered(world)
    assert world.online(theirs) == [None] * len(theirs)
    assert "user-3" not in users_offline(world.folder / "clicks")
    assert_stores_agree(world)
    others = {(row["shop"], row["user"]) for row in world.offline()}
    assert others == set(entities) - set(theirs)


def test_a_row_that_becomes_known_later_is_let_in(world: IngestWorld, store: BlockingRedisOnlineStore) -> None:
    old = {"user": "user-3", "shop": 1, "price": 1.0, "count": 1, "label": "old", EVENT_TIME: START_US}
    world.accept([{**old, CREATED_TIME: START_US}])
    delivered(world)
    delete(world, store, RECEIVED)
    world.accept([{**old, CREATED_TIME: START_US, "count": 2}, {**old, CREATED_TIME: RECEIVED + 1, "label": "new"}])
    delivered(world)
    assert [row["label"] for row in world.offline()] == ["new"]
    ((_, values),) = [each for each in world.online([(1, "user-3")]) if each is not None]
    assert values["label"] == "new"


def test_another_writer_of_the_table_costs_no_row(world: IngestWorld, store: BlockingRedisOnlineStore) -> None:
    for batch in made_rows(12, 5):
        world.accept(batch)
        delivered(world)
    expected = [row for row in world.offline() if row["user"] != "user-3"]
    added = ingest_world.table_of(
        [{"user": "user-1", "shop": 2, EVENT_TIME: START_US, "price": 0.5, "count": 9, "label": "meanwhile"}],
        Micros(RECEIVED),
    )
    rows = EntityRows(USER, {"user": "user"}, RECEIVED + 10**15, EVENT_TIME, CREATED_TIME)
    erasure = InterruptedErasure(world.view.source, rows, added)
    assert erasure.erase() > 0
    assert erasure.interrupted
    kept = [row for row in world.offline() if row["label"] != "meanwhile"]
    assert sorted(map(str, kept)) == sorted(map(str, expected))
    assert len(world.offline()) == len(expected) + 1


class InterruptedErasure(OfflineErasure):
    """Somebody else adds rows and puts files together while it works."""

    def __init__(self, source: OfflineSource, rows: EntityRows, added: pa.Table) -> None:
        super().__init__(source, rows)
        self._added = added
        self.interrupted = False

    def _erase_from_part(self, table, file):  # type: ignore[no-untyped-def]  # that of the base
        if not self.interrupted:
            self.interrupted = True
            other = type(table).of(self._source)
            other.append(self._added, writer="other", number=1)
            other.compact(files_min=2)
        return super()._erase_from_part(table, file)


def test_writers_give_way_one_by_one_and_who_does_not_is_named(world: IngestWorld) -> None:
    held = world.leases.take("lane:rows:clicks", "a lane", lease_s=600)
    with writers_waiting(world.leases, ["view:clicks", "lane:rows:clicks"], wait_s=0.0) as missed:
        assert len(missed) == 1
        assert "lane:rows:clicks" in missed[0]
        assert world.leases.holder("view:clicks") is not None
    assert world.leases.holder("view:clicks") is None
    threading.Timer(0.3, world.leases.release, (held,)).start()
    with writers_waiting(world.leases, ["view:clicks", "lane:rows:clicks"], wait_s=60.0) as missed:
        assert missed == ()


@pytest.fixture
def stream(tmp_path: Path, valkey_server: ValkeyServer) -> StreamWorld:
    return StreamWorld(tmp_path, valkey_server.url, project=f"p{uuid4().hex}")


def drive(stream: StreamWorld, batches: Sequence[tuple[int, list]], *, first: int = 1) -> None:  # type: ignore[type-arg]  # as `random_batches` has them
    lane = stream.lane()
    for number, (known, sent) in enumerate(batches, start=first):
        stream.now = known
        if sent:
            lane.deliver(stream.batch(number, known, sent))
        while lane.tick():
            pass
    lane.close()


def test_a_stream_forgets_an_entity_with_its_events_and_goes_on_with_others(
    stream: StreamWorld, store: BlockingRedisOnlineStore, sqlite_registry: Path
) -> None:
    batches = random_batches(3, 14)
    drive(stream, batches)
    whom = ChosenEntities({"tail": "ü"})
    before = batches[-1][0]
    events = OfflineSource(
        "events", events_path(stream.source.path), stream.declaration.event_time, EVENTS_CREATED, form=SourceForm.DELTA
    )
    states = StatePlace({"one": AggregateStates(store, stream.project, stream.declaration)}, whom)
    found: list[Place] = [
        SourcePlace(
            name, OfflineErasure(source, EntityRows(whom, {"tail": "tail"}, before, source.event_time, EVENTS_CREATED))
        )
        for name, source in {"events": events, "rows": stream.source}.items()
    ]
    found += [states, online_place(store, stream.url, stream.project, whom, stream.read, before)]
    others = [row for row in stream.offline() if row["tail"] != "ü"]
    assert len(others) < len(stream.offline())
    url = f"sqlite:///{stream.folder / 'registry.db'}"
    (stream.folder / "registry.db").write_bytes(sqlite_registry.read_bytes())
    with closing(Deletions(database.engine(url))) as deletions:
        record = erase(deletions, DeletionRequest(whom, before=Micros(before)), lambda _: Surroundings(found))
    assert record.state is DeletionState.DONE
    assert all(count > 0 for count in record.found.values()), record.found
    assert stream.online("ü") is None
    drive(stream, [(before + 100 * SECOND_US, [])], first=len(batches) + 1)
    assert "ü" not in {row["tail"] for row in stream.offline()}
    assert [row for row in stream.offline() if row["created_time"] <= before] == others
    assert stream.online("ü") is None


class VersionedStream(StreamWorld):
    """Its view is kept by version online."""

    @property
    def read(self) -> ViewRead:
        """The view as the store calls it."""
        return replace(super().read, stored_name=STORED)


STORED = "activity_v2"


def test_events_are_kept_out_by_the_name_that_the_store_calls_their_view(
    tmp_path: Path, valkey_server: ValkeyServer, sqlite_registry: Path
) -> None:
    stream = VersionedStream(tmp_path, valkey_server.url, project=f"p{uuid4().hex}")
    known, sent = next(
        (known, sent) for known, sent in random_batches(3, 14) if any(each.entity == "ü" for each in sent)
    )
    (tmp_path / "registry.db").write_bytes(sqlite_registry.read_bytes())
    with closing(Deletions(database.engine(f"sqlite:///{tmp_path / 'registry.db'}"))) as deletions:
        deletions.begin(DeletionRequest(ChosenEntities({"tail": "ü"}), views=(STORED,), before=Micros(known)))
        lane = AggregateLane(
            stream.declaration.name,
            lambda _: stream,
            lambda: BlockingRedisOnlineStore(stream.url),
            deletions,
            clock=lambda: known,
        )
        lane.deliver(stream.batch(1, known, sent))
        lane.close()
    events = users_of(Path(events_path(stream.source.path)))
    assert events == {each.entity for each in sent} - {"ü"}


def users_of(folder: Path) -> set[str]:
    return {tail for path in folder.glob("*.parquet") for tail in pq.read_table(path).column("tail").to_pylist()}
