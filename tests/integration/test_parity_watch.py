"""The running parity monitor over a real store: what was served is compared once its source has got past it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from harness.feature_repository import FEAST_WARNS
from harness.parity_watched import APART, APART_FILE, BUNDLE, ENDPOINT, WatchedWorld
from harness.parity_world import SERVICE, Row, leg, network, parity_world, weather
from harness.servers import ValkeyServer
from skewless.adapters.parity_checker import Checker
from skewless.adapters.parity_watch import Watched
from skewless.canonical_json import Digest, digest
from skewless.errors import Unavailable
from skewless.features.contract import FeatureContract, LogMark
from skewless.monitor_limits import PARITY_LOOK_S, PARITY_RUN_S_MAX
from skewless.parity.check import Checked
from skewless.parity.schedule import Pass
from skewless.parity.tally import Level, Stratum
from skewless.registry.database import engine, upgrade
from skewless.registry.parity_history import ParityHistory
from skewless.serving.log_privacy import LogMarks, LogPrivacy
from skewless.serving.monitoring_policy import ParityPolicy
from skewless.timestamps import HOUR_US, SECOND_US

pytestmark = FEAST_WARNS

EVERY_S = 600.0
"""How often the world is materialized."""
HONEST = ("north", "süd", "west")


def _entities(*stations: str) -> list[Row]:
    return [{"station": station, "line": 1} for station in stations]


@contextmanager
def _watched(folder: Path, name: str, server: ValkeyServer) -> Iterator[WatchedWorld]:
    url = f"sqlite:///{folder}/registry.db"
    upgrade(url)
    with parity_world(folder, name, server) as world:
        world.write_sources(
            weather=[weather(each, 9) for each in (*HONEST, "corrected", "behind")],
            leg=[leg(each, 1, 9) for each in (*HONEST, "corrected", "behind", "scaled", "pushed")],
            network=[network(9)],
        )
        world.define()
        world.materialize(10)
        watched = WatchedWorld(world, folder / "log", ParityHistory(engine(url)), world.contract())
        watched.history._clock = lambda: watched.now  # type: ignore[assignment,return-value]  # the same simulated time
        yield watched


@pytest.fixture
def watched(tmp_path: Path, request: pytest.FixtureRequest, valkey_server: ValkeyServer) -> Iterator[WatchedWorld]:
    name = "watch" + str(abs(hash(request.node.name)) % 10**9)
    with _watched(tmp_path, name, valkey_server) as made:
        yield made


def _units(watched: WatchedWorld, level: Level, stratum: Stratum = Stratum.ENTITY) -> tuple[int, int]:
    found = watched.results(level=level, stratum=stratum, view="", cause="")
    return sum(each.units for each in found), sum(each.mismatches for each in found)


def test_a_verdict_comes_within_a_materialization_and_a_minute_and_not_before_its_source(
    watched: WatchedWorld,
) -> None:
    """Ten minutes between materializations; the monitor is asked again as its own answer says."""
    for second in (0.0, 240.0, 570.0):
        watched.answer(_entities(*HONEST), 10 + second / 3_600)
    watched.at(10, seconds=EVERY_S)
    waiting = watched.run()
    assert waiting.compared == 0, "nothing is known of the sources after 10:00"
    watched.world.materialize(10 + EVERY_S / 3_600)
    materialized_us, compared = watched.now, 0
    while compared < 9:
        assert waiting.next_s is not None
        watched.now += int(waiting.next_s * SECOND_US)
        waiting = watched.run()
        compared += waiting.compared
        # The first answers were given a whole interval before, the last ones 30 s.
        assert watched.now - materialized_us <= 60 * SECOND_US
    assert _units(watched, Level.PREDICTIONS) == (9, 0)
    assert _units(watched, Level.VALUES) == (99, 0)
    assert _units(watched, Level.STATUSES) == (99, 0)
    assert _units(watched, Level.MODEL_INPUTS) == (9, 0)


def test_a_source_that_says_nothing_is_passed_after_a_bound(watched: WatchedWorld) -> None:
    watched.answer(_entities("north"), 10.5)
    assert watched.at(10.6).run().compared == 0
    assert watched.at(10.5, seconds=watched.policy.quiet_us / SECOND_US + 16).run().compared == 1
    assert watched.causes() == {}


def test_causes_are_named_as_a_check_names_them_and_honest_rows_raise_none(watched: WatchedWorld) -> None:
    world = watched.world
    world.push("weather", [weather("pushed", 10.2), weather("scaled", 10.3, temp=1.5 * 1.8 + 32)])
    world.write_sources(
        weather=[
            *world.rows["weather"],
            weather("corrected", 9, 10.1, temp=9.0),
            weather("scaled", 10.3),
            weather("behind", 10.5, temp=2.5),
            weather("north", 11),
        ]
    )
    world.materialize(10.4)
    watched.answer(_entities(*HONEST, "corrected", "pushed", "scaled", "behind"), 10.6)
    watched.at(11.0).run()
    assert watched.causes() == {
        "equal_timestamp_correction": {"weather", "comfort"},
        "extra_online": {"weather", "comfort"},
        "pipelines_differ": {"weather", "comfort"},
        "materialization_lag": {"weather", "comfort"},
    }
    (found,) = watched.results(level="views", view="weather", stratum="entity")
    assert (found.units, found.mismatches, found.entities) == (7, 4, 7)
    assert found.low < 4 / 7 < found.high
    examples = {(each.view, each.cause): each for each in watched.history.examples(ENDPOINT)}
    told = examples["weather", "equal_timestamp_correction"].explanation["words"]
    assert "served 1.5" in told
    assert "offline 9.0" in told
    assert {each.stratum for each in watched.results(level="causes")} == {Stratum.ENTITY, Stratum.UNIFORM}


def test_what_the_source_learns_later_is_told_by_the_final_pass(watched: WatchedWorld) -> None:
    watched.policy = replace(watched.policy, horizon_us=2 * HOUR_US)
    watched.answer(_entities("north", "süd"), 10.5)
    watched.at(10.8).run()
    assert watched.results(level="known_later") == []
    world = watched.world
    world.write_sources(weather=[*world.rows["weather"], weather("north", 10.2, 11)])
    watched.answer(_entities("west"), 10.7)  # is logged late: the steps around it were compared long ago
    watched.watch = None
    watched.at(13.1).run()
    assert set(watched.history.passes(ENDPOINT, Pass.FINALLY)) == {watched.now - watched.now % HOUR_US - 3 * HOUR_US}
    (later,) = watched.results(level="known_later", stratum="entity", view="weather", cause="late_row")
    assert (later.pass_, later.cause, later.mismatches, later.units) == (Pass.FINALLY, "late_row", 1, 3)
    assert watched.results(level="causes") == []
    assert watched.run().compared == 0, "what is final is not compared again"


def test_a_bundle_that_is_gone_is_told_and_costs_no_other(watched: WatchedWorld) -> None:
    watched.answer(_entities("north"), 10.5)
    watched.answer(_entities("süd", "west"), 10.5, bundle=digest("gone"))
    watched.at(10.8).run()
    assert _units(watched, Level.UNCHECKED) == (2, 2)
    assert _units(watched, Level.PREDICTIONS) == (1, 0)
    (state,) = watched.history.states()
    assert list(state.state["unchecked"]) == [digest("gone")]
    assert watched.run().compared == 0


def test_only_what_was_sampled_is_compared_and_each_sample_counts_for_itself(watched: WatchedWorld) -> None:
    stations = [f"station {number}" for number in range(60)]
    watched.world.write_sources(weather=[weather(each, 9) for each in stations])
    watched.world.materialize(10.2)
    watched.policy = ParityPolicy(entity_share=0.5, uniform_share=0.2)
    for minute in range(3):
        watched.answer(_entities(*stations), 10.3 + minute / 60)
    watched.at(10.8).run()
    whole, _ = _units(watched, Level.PREDICTIONS)
    single, _ = _units(watched, Level.PREDICTIONS, Stratum.UNIFORM)
    assert 0 < whole < 180
    assert whole % 3 == 0, "an entity is there with all of its predictions"
    assert 0 < single < 180 // 2
    assert single != whole


def test_a_monitor_that_dies_at_any_statement_finds_what_one_that_did_not_finds(
    watched: WatchedWorld, tmp_path: Path
) -> None:
    world = watched.world
    world.push("weather", [weather("pushed", 10.2)])
    for second in (0, 20, 40):
        watched.answer(_entities(*HONEST, "pushed"), 10.5 + second / 3_600)
    watched.policy = replace(watched.policy, horizon_us=HOUR_US)
    watched.at(10.8).run()
    watched.at(13.0).run()
    wanted = _kept(watched)
    assert wanted
    url = f"sqlite:///{tmp_path}/other.db"
    upgrade(url)
    database = engine(url)
    watched.history = ParityHistory(database, clock=lambda: watched.now)  # type: ignore[arg-type,return-value]  # a simulated clock
    deaths = _Deaths()
    event.listen(database, "before_cursor_execute", deaths)
    for moment in (10.8, 13.0):
        deaths.after = 0
        while True:
            deaths.after += 1
            deaths.begin()
            try:
                watched.watch = None
                watched.at(moment).run()
            except _Death:
                continue
            break
    assert deaths.count > 8
    assert _kept(watched) == wanted


class _Death(BaseException):
    """The end of a monitor, which nothing catches."""


class _Deaths:
    """Raises before the `after`-th statement that writes, once for each run."""

    def __init__(self) -> None:
        self.after = self.seen = self.count = 0

    def begin(self) -> None:
        self.seen = 0

    def __call__(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.split(maxsplit=1)[0] in ("INSERT", "UPDATE", "DELETE"):
            self.seen += 1
            if self.seen == self.after:
                self.count += 1
                raise _Death


def _kept(watched: WatchedWorld) -> list[Any]:
    return [
        (each.key, each.pass_, each.period_start_us, each.units, each.mismatches, each.entities, each.low, each.high)
        for pass_ in Pass
        for each in watched.history.results(ENDPOINT, pass_=pass_)
    ] + [(each.view, each.cause, each.prediction_id) for each in sorted(watched.history.examples(ENDPOINT), key=str)]


def test_two_monitors_at_once_count_nothing_twice(watched: WatchedWorld) -> None:
    watched.answer(_entities(*HONEST), 10.5)
    watched.at(10.8)
    one, two = watched.restarted(), watched.restarted()
    policy = [Watched(ENDPOINT, watched.policy)]
    one.run(policy, threading.Event())
    two.run(policy, threading.Event())
    assert _units(watched, Level.PREDICTIONS) == (3, 0)


def _truncated(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


@pytest.mark.parametrize("hurt", [None, _truncated])
def test_a_source_that_cannot_be_read_costs_no_other_endpoint_its_turn(
    watched: WatchedWorld, hurt: Callable[[bytes], bytes] | None
) -> None:
    """It is away, or half written; once it is whole, what waited is compared."""
    world = watched.world
    source = Path(world.repository.sources(SERVICE)["weather"].path)
    apart = world.folder / APART_FILE
    if hurt is not None:
        apart.write_bytes(hurt(source.read_bytes()))
    watched.answer(_entities("north"), 10.5, bundle=APART, endpoint="apart")
    watched.answer(_entities("süd", "west"), 10.5)
    both = [Watched("apart", watched.policy), Watched(ENDPOINT, watched.policy)]
    watch = watched.at(10.8).restarted()
    ran = watch.run(both, threading.Event())
    assert (ran.compared, list(ran.failed), ran.next_s) == (2, ["apart"], PARITY_LOOK_S)
    assert APART_FILE in ran.failed["apart"]
    states = {each.endpoint: each.state for each in watched.history.states()}
    assert (states["apart"]["backlog"], states["apart"]["failed"]) == (1, ran.failed["apart"])
    assert (states[ENDPOINT]["backlog"], states[ENDPOINT]["failed"]) == (0, "")
    with pytest.raises(Unavailable, match=APART_FILE):
        watch.run(both[:1], threading.Event())
    apart.write_bytes(source.read_bytes())
    ran = watch.run(both, threading.Event())
    assert (ran.compared, ran.failed) == (1, {})
    assert [each.state["backlog"] for each in watched.history.states()] == [0, 0]


class _Slow(Checker):
    """Each check takes a whole run's time."""

    passed_s = 0.0

    def check(self, digest: Digest, table: Any) -> tuple[Checked, FeatureContract]:
        _Slow.passed_s += PARITY_RUN_S_MAX
        return super().check(digest, table)


def test_an_endpoint_that_fills_a_run_is_behind_all_others_in_the_next_also_after_a_restart(
    watched: WatchedWorld,
) -> None:
    for at in (10.5, 11.2, 11.4):
        watched.answer(_entities("north"), at)
    watched.answer(_entities("süd"), 11.2, endpoint="later")
    both = [Watched(ENDPOINT, watched.policy), Watched("later", watched.policy)]
    compared: dict[str, list[int]] = {each.endpoint: [] for each in both}
    for second in range(3):
        watch = watched.at(11.8, seconds=second).restarted(_Slow, lambda: _Slow.passed_s)
        ran = watch.run(both, threading.Event())
        for name, counts in compared.items():
            found = watched.history.passes(name, Pass.THEN).values()
            counts.append(sum(each.rows for each in found))
        assert ran.more
    assert compared == {ENDPOINT: [1, 1, 3], "later": [0, 1, 1]}


def test_a_first_pass_that_is_always_behind_keeps_no_hour_from_its_final_one(watched: WatchedWorld) -> None:
    watched.policy = replace(watched.policy, horizon_us=HOUR_US)
    watched.answer(_entities("north"), 10.5)
    watched.answer(_entities("süd"), 12.5)
    watch = watched.at(12.9).restarted(_Slow, lambda: _Slow.passed_s)
    assert watch.run([Watched(ENDPOINT, watched.policy)], threading.Event()).more
    assert [each.rows for each in watched.history.passes(ENDPOINT, Pass.FINALLY).values()] == [1]
    assert watch.run([Watched(ENDPOINT, watched.policy)], threading.Event()).compared == 1


HASHED = LogMarks(frozenset({"weather__sky"}), frozenset(), keeps_tensor=True)
OMITTED = LogMarks(frozenset(), frozenset({"weather__sky"}), keeps_tensor=True)


def _marked(watched: WatchedWorld, mark: LogMark) -> None:
    """The bundle's contract with a mark on the column `sky`."""
    views = tuple(
        replace(view, features=tuple(replace(each, log=mark) if each.name == "sky" else each for each in view.features))
        for view in watched.contract.views
    )
    watched.contract = replace(watched.contract, views=views)


def test_hashed_columns_are_compared_by_their_hashes(watched: WatchedWorld) -> None:
    watched.privacy = LogPrivacy(b"a key of the gateways")
    world = watched.world
    world.push("weather", [weather("scaled", 10.3, sky="rain")])
    world.write_sources(weather=[*world.rows["weather"], weather("scaled", 10.3, sky="clear")])
    _marked(watched, LogMark.HASH)
    watched.answer(_entities(*HONEST, "scaled"), 10.5, marks=HASHED)
    watched.at(10.8).run()
    assert watched.causes() == {"pipelines_differ": {"weather"}}
    assert _units(watched, Level.VALUES) == (44, 1)
    assert _units(watched, Level.MODEL_INPUTS) == (4, 0)
    (example,) = watched.history.examples(ENDPOINT)
    assert "rain" not in str(example.explanation)
    assert "clear" not in str(example.explanation)


@pytest.mark.parametrize("mark", [LogMark.HASH, LogMark.OMIT])
def test_what_the_log_does_not_have_is_told_and_all_else_is_compared(watched: WatchedWorld, mark: LogMark) -> None:
    """Hashes cannot be made again where the key is away."""
    privacy = LogPrivacy(b"a key of the gateways")
    _marked(watched, mark)
    watched.privacy = privacy
    watched.answer(_entities(*HONEST), 10.5, marks=HASHED if mark is LogMark.HASH else OMITTED)
    watched.privacy = LogPrivacy()
    watched.at(10.8).run()
    assert watched.causes() == {}
    assert _units(watched, Level.VALUES) == (30, 0)
    assert _units(watched, Level.NOT_COMPARABLE) == (3, 3)
    assert _units(watched, Level.PREDICTIONS) == (3, 0)
    (state,) = watched.history.states()
    assert state.state["not_comparable"] == {BUNDLE: ["weather__sky"]}
