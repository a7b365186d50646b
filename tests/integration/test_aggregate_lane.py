"""A stream's lane over a real Valkey and real Delta tables: each event has its effect once, whatever dies when."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis

from harness import killed_aggregates
from harness.aggregate_stores import Died, MortalStore, StreamWorld, held, random_batches, told
from harness.aggregate_world import Batches, PlainLane, declared, naive
from harness.servers import ValkeyServer
from skewless.adapters.aggregate_lane import AggregateLane
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.aggregates.aggregation import count, total
from skewless.aggregates.compiled import CompiledAggregates
from skewless.aggregates.declaration import StreamAggregates
from skewless.aggregates.entity_state import Verdict
from skewless.aggregates.windows import sliding
from skewless.errors import Unavailable
from skewless.timestamps import SECOND_US

DEATHS = int(os.environ.get("SKEWLESS_TEST_AGGREGATE_DEATHS", "7"))
SEED = int(os.environ.get("SKEWLESS_TEST_AGGREGATE_SEED", "4"))
BATCHES = 5 + DEATHS // 2
TIMEOUT_S = 120.0 + 6.0 * DEATHS


@pytest.fixture
def world(valkey_server: ValkeyServer, tmp_path: Path) -> StreamWorld:
    return StreamWorld(tmp_path, valkey_server.url, project=f"p{uuid4().hex}")


def _plain(world: StreamWorld, batches: Batches, until: int) -> PlainLane:
    lane = PlainLane(CompiledAggregates.of(world.declaration))
    for known, sent in batches:
        lane.take(known, sent)
    lane.take(until, [])
    return lane


def _assert_whole(world: StreamWorld, plain: PlainLane) -> None:
    """Rows offline are those of the plain lane, each once; online is the newest of each entity."""
    rows = world.offline()
    compiled = CompiledAggregates.of(world.declaration)
    expected = [(entity, row.event_time, row.created_time, row.values) for entity, row in plain.rows]
    assert held(world.declaration, rows) == told(compiled, expected)
    for entity, row in world.newest().items():
        assert world.online(entity) == world.stored(row)


def _drive(world: StreamWorld, batches: Batches, *, first: int = 1) -> None:
    """Deliver batches, numbered from `first` on, and answer timers after each."""
    lane = world.lane()
    for number, (known, sent) in enumerate(batches, start=first):
        world.now = known
        if sent:
            lane.deliver(world.batch(number, known, sent))
        while lane.tick():
            pass
    lane.close()


def test_rows_of_the_lane_are_those_of_the_definition_in_both_stores_and_quiet_entities_are_forgotten(
    world: StreamWorld,
) -> None:
    batches = random_batches(3, 18)
    _drive(world, batches)
    end = batches[-1][0] + 100 * SECOND_US
    _drive(world, [(end, [])])
    _assert_whole(world, _plain(world, batches, end))
    assert world.state_keys() == 0


def test_a_lane_that_dies_at_any_command_leaves_what_the_next_one_makes_whole(world: StreamWorld) -> None:
    world.declaration = declared(event_id="")  # by which an event that counts twice would be found out
    batches = random_batches(5, 7)
    _drive(world, batches[:1])
    deaths = rebuilds = 0
    for number, (known, sent) in enumerate(batches[1:], start=2):
        world.now = known
        left = [(exchange, share) for exchange in range(7) for share in (0.0, 0.5, 1.0)]
        is_done = False
        while not is_done:  # die at each exchange in turn, then let it be done
            store = MortalStore(world.url, *(left.pop(0) if left else (-1, 0.0)))
            lane = world.lane(lambda store=store: store)  # type: ignore[misc]  # bound now, called once
            try:
                if sent:
                    lane.deliver(world.batch(number, known, sent))
                while lane.tick():
                    pass
                is_done = True
            except Died:
                deaths += 1
            finally:
                rebuilds += lane.totals.rebuilds
                lane.close()
    assert deaths > 10 * len(batches)
    assert rebuilds == 0, "what was begun is gone on with"
    end = batches[-1][0] + 100 * SECOND_US
    _drive(world, [(end, [])])
    _assert_whole(world, _plain(world, batches, end))


def test_a_process_that_is_killed_at_any_step_leaves_what_the_next_one_makes_whole(
    world: StreamWorld, pytestconfig: pytest.Config
) -> None:
    paths = os.pathsep.join([str(pytestconfig.rootpath / "tests"), str(pytestconfig.rootpath / "platform")])
    arguments = [str(world.folder), world.project, world.url, str(SEED), str(BATCHES), str(DEATHS)]
    done = subprocess.run(
        [sys.executable, "-P", killed_aggregates.__file__, *arguments],
        env={**os.environ, "PYTHONPATH": paths},
        timeout=TIMEOUT_S,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > DEATHS // 3, f"seed {SEED}: only {done.stdout} of {DEATHS} forks were killed"
    batches = random_batches(SEED, BATCHES)
    _assert_whole(world, _plain(world, batches, batches[-1][0] + killed_aggregates.QUIET_US))


def test_an_online_store_that_was_emptied_is_made_whole_again_and_goes_on(world: StreamWorld) -> None:
    batches = random_batches(8, 14)
    _drive(world, batches[:8])
    with redis.Redis.from_url(world.url) as client:
        client.delete(*client.keys(f"*{world.project}*"))
    lane = world.lane()
    lane.tick()
    lane.close()
    for entity, row in world.newest().items():
        assert world.online(entity) == world.stored(row)
    _drive(world, batches[8:], first=9)
    end = batches[-1][0] + 100 * SECOND_US
    _drive(world, [(end, [])])
    _assert_whole(world, _plain(world, batches, end))


def test_an_online_store_that_lost_its_last_writes_is_noticed(world: StreamWorld) -> None:
    batches = random_batches(9, 14)
    _drive(world, batches[:6])
    with redis.Redis.from_url(world.url, decode_responses=False) as client:
        before = {key: client.dump(key) for key in client.keys(b"*" + world.project.encode() + b"*")}
        _drive(world, batches[6:9], first=7)
        client.delete(*client.keys(f"*{world.project}*"))
        for key, dumped in before.items():
            client.restore(key, 0, dumped)
    _drive(world, batches[9:], first=10)
    end = batches[-1][0] + 100 * SECOND_US
    _drive(world, [(end, [])])
    _assert_whole(world, _plain(world, batches, end))


def test_a_changed_declaration_is_computed_of_the_events_that_were_kept_and_told_at_a_new_moment(
    world: StreamWorld,
) -> None:
    batches = random_batches(10, 8)
    _drive(world, batches)
    before = world.newest()
    slower = sliding("30s", every="10s")
    world.declaration = StreamAggregates(
        name=world.declaration.name,
        view=world.declaration.view,
        keys=dict(world.declaration.keys),
        fields=dict(world.declaration.fields),
        event_id="id",
        aggregates=[count(slower, name="count_6s"), total("delay", slower)],
        lateness="7s",
    )
    with closing(world.lane()) as lane:
        lane.tick()
        assert lane.totals.rebuilds == 1
        lane.tick()
        assert lane.totals.rebuilds == 1
    compiled = CompiledAggregates.of(world.declaration)
    counted = _plain(StreamWorld(world.folder, world.url), batches, batches[-1][0]).sent
    for entity, row in world.newest().items():
        events = [each for each in counted if each.entity == entity and each.verdict is Verdict.COUNTED]
        assert row["event_time"] == row["created_time"] > before[entity]["created_time"]
        expected = naive(world.declaration, events, row["event_time"], row["created_time"])
        assert held(world.declaration, [row]) == told(
            compiled, [(entity, row["event_time"], row["created_time"], expected)]
        )
        assert world.online(entity) == world.stored(row)


def test_events_of_a_deleted_entity_are_not_taken(world: StreamWorld) -> None:
    class Everything:
        def kept_out(self, _view: str, keys: Any, _created: Any, _events: Any) -> Any:
            return keys["tail"].values == "a"

    batches = [(known, sent) for known, sent in random_batches(11, 8) if sent]
    lane = AggregateLane(
        world.declaration.name,
        lambda _: world,
        lambda: BlockingRedisOnlineStore(world.url),
        Everything(),
        clock=lambda: world.now,
    )
    with closing(lane):
        for number, (known, sent) in enumerate(batches, start=1):
            lane.deliver(world.batch(number, known, sent))
    assert {row["tail"] for row in world.offline()} == {each.entity for _, sent in batches for each in sent} - {"a"}
    assert world.online("a") is None
    assert lane.totals.events.total() == sum(each.entity != "a" for _, sent in batches for each in sent)


def test_what_lies_in_the_way_of_a_stream_is_waited_out_and_no_batch_is_to_blame(world: StreamWorld) -> None:
    *before, (known, sent) = [each for each in random_batches(8, 14) if each[1]]
    _drive(world, before)
    world.now = known
    with closing(world.lane()) as lane, redis.Redis.from_url(world.url) as client:
        keys = [key for key in client.scan_iter("*:state") if world.project.encode() in key]
        for key in keys:
            client.rename(key, b"aside:" + key)
            client.set(key, "no state")
        batch = world.batch(len(before) + 1, known, sent)
        for _ in range(2):
            with pytest.raises(Unavailable, match="is no state of a stream"):
                lane.deliver(batch)
        for key in keys:
            client.rename(b"aside:" + key, key)
        lane.deliver(batch)
        while lane.tick():
            pass
    _assert_whole(world, _plain(world, [*before, (known, sent)], known))
