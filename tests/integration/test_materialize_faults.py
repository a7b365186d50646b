"""Materialization while the online store dies, comes back empty, or the database is away: told, and gone on with."""

import random
import shutil
import signal
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from harness.materialize_world import MaterializeWorld, Row, drawn_rows
from harness.servers import ValkeyServer, answers, running, wait_until
from skewless.errors import Unavailable
from skewless.features.materialization import Kind
from skewless.features.redis_layout import project_of
from skewless.registry.database import engine
from skewless.registry.materializations import RunState
from skewless.stack.ports import free_ports
from skewless.stack.valkey import valkey_spec


def test_a_store_that_is_killed_in_a_run_and_comes_back_is_filled_by_the_next(
    tmp_path: Path, sqlite_registry: Path
) -> None:
    port = free_ports(1)[0]
    spec = valkey_spec(port=port, data=tmp_path / "valkey", logs=tmp_path / "logs")
    database = engine(f"sqlite:///{shutil.copy(sqlite_registry, tmp_path / 'registry.db')}")
    world = MaterializeWorld(f"redis://127.0.0.1:{port}", "killed", tmp_path / "weather.parquet", database)
    world.arrive([Row(f"s{number}", 1, 1, number) for number in range(6_000)])
    with running(spec) as valkey:

        def kill(_view: str, _done: int, _total: int) -> None:
            valkey.signal_group(signal.SIGKILL)
            wait_until(lambda: not answers(spec), "Valkey is gone")

        world.progress = kill
        with pytest.raises(Unavailable, match="online store is unavailable"):
            world.run(10, part_rows=1_500)
    (run,) = world.records.runs("weather")
    assert (run.state, "online store is unavailable" in run.error) == (RunState.RUNNING, True)
    assert world.records.watermark("weather") is None

    world.progress = lambda *_: None
    with running(spec):
        again = world.run(10, part_rows=1_500)
        assert (again.id, again.state, again.error) == (run.id, RunState.DONE, "")
        world.assert_right(10)
    shutil.rmtree(tmp_path / "valkey")
    (tmp_path / "valkey").mkdir()
    world.arrive([Row("fresh", 11, 11, 1)])
    with running(spec):
        assert world.run(20).kind is Kind.FULL, "a store without its data is not the one that was written"
        world.assert_right(20)
    database.dispose()


def test_a_database_that_goes_away_ends_a_run_which_is_gone_on_with(
    tmp_path: Path, sqlite_registry: Path, valkey_server: ValkeyServer
) -> None:
    file = Path(shutil.copy(sqlite_registry, tmp_path / "registry.db"))
    database = engine(f"sqlite:///{file}")
    world = MaterializeWorld(valkey_server.url, "databaseaway", tmp_path / "weather.parquet", database)
    world.arrive([Row(f"s{number}", 1, 1, number) for number in range(4_000)])
    away = file.with_name("away.db")

    def go_away(_view: str, _done: int, _total: int) -> None:
        if file.exists():
            file.rename(away)

    world.progress = go_away
    with pytest.raises(Unavailable, match="registry database is unavailable"):
        world.run(10, part_rows=1_000)
    away.rename(file)
    unfinished = world.records.unfinished("weather")
    assert unfinished is not None
    assert unfinished.parts_done < unfinished.parts
    world.progress = lambda *_: None
    leases = world.leases
    held = leases.holder("view:weather")
    if held is not None:  # it could not be given back while the database was away
        leases.release(held)
    assert world.run(10, part_rows=1_000).id == unfinished.id
    world.assert_right(10)
    database.dispose()


@pytest.mark.parametrize("is_cut", [True, False])
def test_a_store_that_loses_its_last_writes_in_a_run_gets_those_parts_again(
    tmp_path: Path, sqlite_registry: Path, valkey_server: ValkeyServer, is_cut: bool
) -> None:
    database = engine(f"sqlite:///{shutil.copy(sqlite_registry, tmp_path / 'registry.db')}")
    world = MaterializeWorld(valkey_server.url, f"losttail{is_cut}", tmp_path / "weather.parquet", database)
    world.arrive([Row(f"s{number}", 1, 1, number) for number in range(400)])
    with closing(Redis.from_url(world.url)) as redis:
        client: Any = redis
        marks = f"skewless:materialized:{world.project}".encode()
        saved: list[dict[bytes, dict[bytes, bytes]]] = []

        def held() -> dict[bytes, dict[bytes, bytes]]:
            keys = [key for key in client.scan_iter(count=1_000) if key == marks or project_of(key) == world.project]
            return {key: client.hgetall(key) for key in keys}

        def lose(_view: str, _done: int, _total: int) -> None:
            saved.append(held())
            if len(saved) == 7:  # as it was three parts ago
                client.delete(*held())
                for key, fields in saved[3].items():
                    client.hset(key, mapping=fields)
                if is_cut:
                    raise Unavailable("tests", "stopped on purpose")

        world.progress = lose
        with pytest.raises(Unavailable, match="on purpose" if is_cut else "holds no more the 6 parts"):
            world.run(10, part_rows=40)
    cut = world.records.unfinished("weather")
    assert cut is not None
    assert cut.parts_done == 6
    world.progress = lambda *_: None
    assert world.run(10, part_rows=40, verify_rows=0).id == cut.id
    world.assert_right(10)
    assert world.run(20).kind is Kind.INCREMENTAL
    database.dispose()


def test_a_run_that_was_cut_off_is_not_gone_on_with_in_another_store_or_for_other_rows(
    tmp_path: Path, sqlite_registry: Path, valkey_server: ValkeyServer
) -> None:
    database = engine(f"sqlite:///{shutil.copy(sqlite_registry, tmp_path / 'registry.db')}")
    world = MaterializeWorld(valkey_server.url, "cutoff", tmp_path / "weather.parquet", database)
    world.arrive(drawn_rows(random.Random(5), 500, stations=300, until=50))

    def stop(_view: str, _done: int, _total: int) -> None:
        raise Unavailable("tests", "stopped on purpose")

    for changed in ("nothing", "store", "definition"):
        world.progress = stop
        with pytest.raises(Unavailable, match="on purpose"):
            world.run(60, part_rows=100, full=True)
        cut = world.records.unfinished("weather")
        assert cut is not None
        world.progress = lambda *_: None
        if changed == "store":
            world.project = "cutoffelsewhere"
        if changed == "definition":
            world.view = replace(world.view, features=world.view.features[:2])
        run = world.run(60, part_rows=70)
        assert (run.id == cut.id) == (changed == "nothing"), changed
        states = {each.id: each.state for each in world.records.runs("weather")}
        assert states[cut.id] is (RunState.DONE if changed == "nothing" else RunState.FAILED)
        if changed != "definition":
            world.assert_right(60)
    database.dispose()
