"""A scheduler over a real registry: definitions followed, due times claimed once, runs that fail, hang, are killed."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from harness.scheduled_run import command, let_go, plan, runs
from harness.scheduled_views import define
from harness.servers import wait_until
from skewless.errors import Unavailable
from skewless.features.schedule import Outcome, Run, ScheduleState
from skewless.ingest_limits import SCHEDULE_HOLD_S
from skewless.registry.database import engine
from skewless.registry.definitions import Definitions
from skewless.registry.schedules import Schedules
from skewless.timestamps import HOUR_US, MINUTE_US, SECOND_US, Micros, parse_timestamp
from skewless_scheduler.children import Children
from skewless_scheduler.scheduler import Scheduler

START = parse_timestamp("2026-03-01T10:00:00Z")
HOURLY = "15 * * * *"
DUE = parse_timestamp("2026-03-01T10:15:00Z")
HOLD_US = int(SCHEDULE_HOLD_S * SECOND_US)


class World:
    """One registry, a clock that tests move, and the schedulers that share both."""

    def __init__(self, url: str, folder: Path) -> None:
        self.now = int(START)
        self.folder = folder
        self.connections: Engine = engine(url)
        self.schedules = Schedules(self.connections, clock=self.clock)
        self.children: list[Children] = []

    def clock(self) -> Micros:
        return Micros(self.now)

    def scheduler(self, owner: str = "one", *, runs_max: int = 2, run_s_max: float = 600.0) -> Scheduler:
        children = Children(run_s_max=run_s_max, command=command(self.folder))
        self.children.append(children)
        definitions = Definitions(self.connections)
        # Every look follows definitions and says that it is alive: it is not the tests' clock that those go by.
        return Scheduler(
            self.schedules,
            definitions,
            children,
            owner=owner,
            runs_max=runs_max,
            clock=self.clock,
            follow_s=0.0,
            renew_s=0.0,
        )

    def state(self, view: str) -> ScheduleState:
        return self.schedules.states()[view]

    def look_until(self, scheduler: Scheduler, condition: Callable[[], bool], what: str) -> None:
        def looked() -> bool:
            scheduler.look()
            return condition()

        wait_until(looked, what)

    def close(self) -> None:
        for children in self.children:
            list(children.stop(0.0))
        self.connections.dispose()


@pytest.fixture
def world(sqlite_registry: Path, tmp_path: Path) -> Iterator[World]:
    file = tmp_path / "registry.db"
    file.write_bytes(sqlite_registry.read_bytes())
    found = World(f"sqlite:///{file}", tmp_path)
    yield found
    found.close()


@pytest.fixture
def shared_world(registry_url: str, tmp_path: Path) -> Iterator[World]:
    """On either database: for what several schedulers do to each other."""
    found = World(registry_url, tmp_path)
    yield found
    found.close()


def test_views_are_run_when_they_are_due_and_new_definitions_are_followed_at_once(world: World) -> None:
    define(world.connections, {"weather": HOURLY, "leg": ""})
    one = world.scheduler()
    one.look()
    assert [each.state.view for each in one.shown] == ["weather"]
    assert runs(world.folder, "weather") == 0
    world.now = int(DUE) + 3 * HOUR_US
    world.look_until(one, lambda: world.state("weather").outcome is Outcome.DONE, "it ran")
    assert runs(world.folder, "weather") == 1
    assert (world.state("weather").due, world.state("weather").missed) == (int(DUE) + 3 * HOUR_US, 3)
    define(world.connections, {"leg": "*/5 * * * *"})
    one.look()
    assert list(world.schedules.states()) == ["leg"]
    world.now += 5 * MINUTE_US
    world.look_until(one, lambda: world.state("leg").outcome is Outcome.DONE, "the new one ran")
    assert (runs(world.folder, "leg"), runs(world.folder, "weather")) == (1, 1)


def test_no_more_run_at_once_than_may_and_the_rest_follow(world: World) -> None:
    names = [f"view{number}" for number in range(5)]
    define(world.connections, dict.fromkeys(names, HOURLY))
    for name in names:
        plan(world.folder, name, "hold")
    one = world.scheduler(runs_max=2)
    one.look()
    world.now = int(DUE)
    for _ in range(3):
        one.look()
        assert one.running == 2
    assert sum(each.outcome is Outcome.RUNNING for each in world.schedules.states().values()) == 2
    for name in names:
        let_go(world.folder, name)
    world.look_until(one, lambda: all(world.state(name).outcome is Outcome.DONE for name in names), "all ran")
    assert [runs(world.folder, name) for name in names] == [1] * 5


def test_a_run_that_fails_is_told_and_tried_again_with_back_off(world: World) -> None:
    define(world.connections, {"weather": HOURLY})
    plan(world.folder, "weather", "4", "5", "0")
    one = world.scheduler()
    one.look()
    world.now = int(DUE)
    world.look_until(one, lambda: world.state("weather").outcome is Outcome.FAILED, "it failed")
    one.look()
    assert runs(world.folder, "weather") == 1, "not at once"
    assert world.state("weather").told == "error: weather does not work"
    world.now += MINUTE_US
    world.look_until(one, lambda: world.state("weather").outcome is Outcome.REFUSED, "another run was under way")
    world.now += MINUTE_US
    one.look()
    assert runs(world.folder, "weather") == 2
    world.now += 4 * MINUTE_US
    world.look_until(one, lambda: world.state("weather").outcome is Outcome.DONE, "it ran")
    assert world.state("weather").told == ""
    assert one.counts.runs == {("weather", each): 1 for each in (Outcome.FAILED, Outcome.REFUSED, Outcome.DONE)}


def test_a_child_that_is_killed_has_failed_and_one_that_hangs_is_ended(world: World) -> None:
    define(world.connections, {"weather": HOURLY, "leg": HOURLY})
    plan(world.folder, "weather", "hold")
    plan(world.folder, "leg", "hold")
    one = world.scheduler(run_s_max=1.0)
    one.look()
    world.now = int(DUE)
    one.look()
    wait_until(lambda: runs(world.folder, "weather") == 1, "it began")
    (killed,) = [each for view, each in one._children._running.items() if view == "weather"]
    os.kill(killed.process.pid, signal.SIGKILL)
    world.look_until(one, lambda: world.state("weather").outcome is Outcome.FAILED, "it was killed")
    assert "signal" in world.state("weather").told or "ended after" in world.state("weather").told
    world.look_until(one, lambda: world.state("leg").outcome is Outcome.FAILED, "it took too long")
    assert world.state("leg").told.startswith("it was ended after 1 s")


def test_of_two_schedulers_one_runs_each_due_time(shared_world: World) -> None:
    names = [f"view{number}" for number in range(6)]
    define(shared_world.connections, dict.fromkeys(names, "* * * * *"))
    both = [shared_world.scheduler("one", runs_max=3), shared_world.scheduler("two", runs_max=3)]
    for each in both:
        each.look()
    for _ in range(3):
        shared_world.now += MINUTE_US

        def all_done() -> bool:
            for each in both:
                each.look()
            return all(state.done == shared_world.now for state in shared_world.schedules.states().values())

        wait_until(all_done, "every view ran for this minute")
    assert [runs(shared_world.folder, name) for name in names] == [3] * 6
    done = [sum(each.counts.runs.values()) for each in both]
    assert sum(done) == 18
    assert all(done), "both had their part"


def test_an_overtaken_claim_starts_nothing(shared_world: World) -> None:
    define(shared_world.connections, {"weather": HOURLY})
    one = shared_world.scheduler("one")
    one.look()
    before = shared_world.state("weather")
    shared_world.now = int(DUE)
    one.look()
    assert shared_world.schedules.claim(before, Run(int(DUE), 1, 0), "two") is None
    shared_world.look_until(one, lambda: shared_world.state("weather").outcome is Outcome.DONE, "it ran")
    assert shared_world.schedules.finish(before, Outcome.FAILED, "late") is False
    assert shared_world.state("weather").outcome is Outcome.DONE


def test_what_a_dead_scheduler_was_running_is_begun_again_by_another(shared_world: World) -> None:
    define(shared_world.connections, {"weather": HOURLY})
    plan(shared_world.folder, "weather", "hold")
    one, two = shared_world.scheduler("one"), shared_world.scheduler("two")
    one.look()
    shared_world.now = int(DUE)
    one.look()
    two.look()
    assert shared_world.state("weather").owner == "one"
    shared_world.now += HOLD_US - 1
    two.look()
    assert shared_world.state("weather").owner == "one", "it may only be slow"
    shared_world.now += 2
    plan(shared_world.folder, "weather", "0", "0")
    shared_world.look_until(two, lambda: shared_world.state("weather").outcome is Outcome.DONE, "the other one ran it")
    assert (shared_world.state("weather").owner, shared_world.state("weather").attempts) == ("two", 1)
    let_go(shared_world.folder, "weather")
    shared_world.look_until(one, lambda: one.running == 0, "the first one's run ends as well")
    assert shared_world.state("weather").owner == "two", "and changes nothing"


def test_a_scheduler_that_is_stopped_leaves_its_runs_to_the_next(world: World) -> None:
    define(world.connections, {"weather": HOURLY})
    plan(world.folder, "weather", "hold")
    one = world.scheduler("one")
    one.look()
    world.now = int(DUE)
    one.look()
    wait_until(lambda: runs(world.folder, "weather") == 1, "it began")
    one.stop()
    assert world.state("weather").outcome is Outcome.INTERRUPTED
    assert world.schedules.schedulers() == ()
    two = world.scheduler("two")
    world.look_until(two, lambda: world.state("weather").outcome is Outcome.DONE, "it is run at once")
    assert world.state("weather").attempts == 1


def test_a_wrong_schedule_is_told_and_keeps_no_other_from_running(world: World) -> None:
    define(world.connections, {"weather": HOURLY, "leg": "0 0 30 2 *"})
    one = world.scheduler()
    one.look()
    world.now = int(DUE)
    world.look_until(one, lambda: world.state("weather").outcome is Outcome.DONE, "the good one ran")
    assert list(one.refused) == ["leg"]
    assert "leg" not in world.schedules.states()


def test_what_ended_while_the_database_was_away_is_noted_when_it_is_back(sqlite_registry: Path, tmp_path: Path) -> None:
    file = tmp_path / "registry.db"
    file.write_bytes(sqlite_registry.read_bytes())
    world = World(f"sqlite:///{file}", tmp_path)
    define(world.connections, {"weather": HOURLY})
    one = world.scheduler()
    one.look()
    world.now = int(DUE)
    one.look()
    away = file.rename(tmp_path / "away.db")
    world.connections.dispose()

    def fails() -> bool:
        with pytest.raises(Unavailable):
            one.look()
        return one.running == 0

    wait_until(fails, "its run ended meanwhile")
    away.rename(file)
    world.look_until(one, lambda: world.state("weather").outcome is Outcome.DONE, "it is noted")
    assert runs(tmp_path, "weather") == 1
    world.close()
