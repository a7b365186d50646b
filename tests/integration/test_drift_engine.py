"""The drift monitor over logged predictions: each is counted once, in the right bins, however often it is stopped."""

import json
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine, event

from harness.drift_stream import Streamed, parts_of
from harness.drift_traffic import (
    START_US,
    Clock,
    Logged,
    answers,
    drain,
    kept,
    put_bundle,
    segment,
    ship_days,
)
from harness.killed_drift_monitor import run_until_killed
from harness.postgres import PostgresServer
from harness.replays import ENDPOINT
from skewless.adapters.log_upkeep import compact_once
from skewless.cli.main import main
from skewless.drift.season import Grade
from skewless.drift.tally_form import unpacked
from skewless.dtypes import Column, Dtype, column_of
from skewless.registry import database
from skewless.registry.drift_records import DriftKey, DriftRecords
from skewless.registry.drift_upkeep import DriftUpkeep
from skewless.registry.repository import Registry
from skewless.rollout.routes import RoutingTable
from skewless.serving.monitoring_policy import DriftPolicy
from skewless.serving.records import AnsweredBatch
from skewless.statistics.observed import Observed
from skewless.statistics.tally import Tally
from skewless.statistics.variable import BELOW, NULL, Part
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US
from skewless_monitor.drift_collector import families

HOURLY = DriftPolicy(window_us=HOUR_US, slices=("origin",))


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_registry: Path) -> str:
    file = tmp_path / "own.db"
    file.write_bytes(sqlite_registry.read_bytes())
    return f"sqlite:///{file}"


EVERYWHERE = pytest.mark.parametrize("logged", ["sqlite", "postgresql"], indirect=True)
"""On each kind of database; without it on SQLite."""


@pytest.fixture
def logged(request: pytest.FixtureRequest, tmp_path: Path) -> Logged:
    if getattr(request, "param", "sqlite") == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        return Logged.make(tmp_path, server.empty_database(), policy=HOURLY)
    return Logged.make(tmp_path, request.getfixturevalue("sqlite_url"), policy=HOURLY)


@pytest.fixture
def records(logged: Logged) -> Iterator[DriftRecords]:
    reading = DriftRecords(database.engine(logged.url))
    yield reading
    reading.close()


def hours(logged: Logged, count: int, rows: int = 30, **options: object) -> list[AnsweredBatch]:
    return [answers(logged.bundle, START_US + hour * HOUR_US + 7, rows, **options) for hour in range(count)]  # type: ignore[arg-type]  # options of answers


def key_of(logged: Logged, role: str = "live") -> DriftKey:
    return DriftKey(ENDPOINT, logged.bundle.digest, role)


def counted(logged: Logged, batches: list[AnsweredBatch]) -> Tally:
    """What the rows add up to, counted straight from the arrays that the gateway had."""
    counter = logged.bundle.baseline.counter()
    tally = counter.empty()
    for each in batches:
        ages = {view: each.as_of - times for view, times in each.frame.event_times.items()}
        observed = Observed(
            each.rows,
            {**each.given, **each.frame.columns},
            each.frame.statuses,
            ages,
            each.tensor,
            {"score": each.probabilities},
        )
        counter.add(observed, tally)
    return tally


def stored(logged: Logged, records: DriftRecords, role: str = "live", of_slice: str = "") -> Tally:
    """What the database has of all windows."""
    layout = logged.bundle.baseline.counter().layout
    whole = layout.empty()
    for each in records.tallies(key_of(logged, role), of_slice=of_slice):
        whole = whole.merged(unpacked(layout, each.counts))
    return whole


def assert_equal(found: Tally, expected: Tally) -> None:
    assert found.counts.tolist() == expected.counts.tolist()
    assert found.lows.tolist() == expected.lows.tolist()
    assert found.highs.tolist() == expected.highs.tolist()


@EVERYWHERE
def test_what_is_stored_is_what_numpy_counts_in_the_raw_rows(logged: Logged, records: DriftRecords) -> None:
    batches = hours(logged, 5)
    logged.ship(1, segment("one", batches[:3]))
    logged.ship(2, segment("two", batches[3:]))
    drain(logged)
    assert_equal(stored(logged, records), counted(logged, batches))
    layout = logged.bundle.baseline.counter().layout
    temp = next(each for each in layout.counted(stored(logged, records)) if each.name == "weather__temp")
    raw = np.concatenate([each.frame.columns["weather__temp"].values for each in batches]).astype(np.float64)
    valid = np.concatenate([each.frame.columns["weather__temp"].valid for each in batches])
    histogram = np.histogram(raw[valid], [-np.inf, *temp.edges, np.inf])[0]
    assert temp.counts[BELOW:-1] == tuple(histogram.tolist())
    assert temp.counts[NULL] == np.count_nonzero(~valid)
    assert temp.moments is not None
    assert temp.moments.mean == pytest.approx(raw[valid].mean(), abs=1e-2)
    assert (temp.moments.minimum, temp.moments.maximum) == (raw[valid].min(), raw[valid].max())


def test_windows_roles_and_slices_are_counted_apart(logged: Logged, records: DriftRecords) -> None:
    live, shadow = hours(logged, 2), hours(logged, 2, role="shadow", seed=5)
    logged.ship(1, segment("one", [*live, *shadow]))
    drain(logged)
    assert_equal(stored(logged, records), counted(logged, live))
    assert_equal(stored(logged, records, "shadow"), counted(logged, shadow))
    windows = records.tallies(key_of(logged))
    assert [(each.start_us - START_US, each.rows) for each in windows] == [(0, 30), (HOUR_US, 30)]
    of_slices = records.tallies(key_of(logged), of_slice=None)
    names = {each.slice for each in of_slices} - {""}
    assert names == {"origin=JFK", "origin=LGA", "origin=EWR"}
    assert sum(each.rows for each in of_slices if each.slice) == 60
    jfk = sum(np.count_nonzero(each.given["origin"].values == "JFK") for each in live)
    assert stored(logged, records, of_slice="origin=JFK").rows == jfk


@EVERYWHERE
def test_a_segment_counts_once_also_where_it_is_stored_twice_or_put_together(
    logged: Logged, records: DriftRecords
) -> None:
    batches = hours(logged, 4)
    for number, batch in enumerate(batches, start=1):
        logged.ship(number, segment(f"segment-{number}", [batch]))
        drain(logged)
    logged.ship(9, segment("segment-2", [batches[1]]))
    expected = counted(logged, batches)
    drain(logged)
    assert_equal(stored(logged, records), expected)
    done = compact_once(logged.store, file_bytes=1 << 30, now_s=2e9, at_once=True, failed={})
    assert done is not None
    assert done.files == 5
    drain(logged)
    assert_equal(stored(logged, records), expected)


def test_rows_that_were_put_together_before_they_were_seen_are_counted(logged: Logged, records: DriftRecords) -> None:
    batches = hours(logged, 4)
    logged.ship(1, segment("one", batches[:1]))
    drain(logged)
    logged.ship(2, segment("two", batches[1:3]))
    logged.ship(3, segment("three", batches[3:]))
    assert compact_once(logged.store, file_bytes=1 << 30, now_s=2e9, at_once=True, failed={}) is not None
    drain(logged)
    assert_equal(stored(logged, records), counted(logged, batches))


def test_late_rows_go_to_their_own_window_and_are_told(logged: Logged, records: DriftRecords) -> None:
    batches = hours(logged, 6)
    logged.ship(1, segment("one", [*batches[:1], *batches[2:]]))
    drain(logged)
    logged.ship(2, segment("late", batches[1:2]))
    drain(logged)
    (progress,) = records.progress()
    assert (progress.rows, progress.late_rows) == (180, 30)
    late = [each for each in records.tallies(key_of(logged)) if each.late_rows]
    assert [(each.start_us - START_US, each.late_rows) for each in late] == [(HOUR_US, 30)]
    assert_equal(stored(logged, records), counted(logged, batches))


def test_the_clock_seals_windows_of_live_traffic_only(logged: Logged, records: DriftRecords) -> None:
    logged.ship(1, segment("one", hours(logged, 2)))
    clock = Clock(START_US + 2 * HOUR_US)
    drain(logged, clock)
    clock.now = type(clock.now)(START_US + 9 * HOUR_US)
    drain(logged, clock)
    (progress,) = records.progress()
    assert progress.sealed_us == START_US + 8 * HOUR_US
    assert [each.rows for each in records.windows(ENDPOINT)] == [30, 30, *[0] * 6]


def test_rows_of_a_bundle_whose_files_are_gone_are_told_and_hold_up_nothing(
    logged: Logged, records: DriftRecords, tmp_path: Path
) -> None:
    registry = Registry(database.engine(logged.url))
    other = put_bundle(tmp_path, logged.artifacts, registry, seed=2)
    registry.close()
    logged.artifacts.delete(other.digest)
    own, foreign = hours(logged, 2), answers(other, START_US + 9, 7)
    logged.ship(1, segment("one", [foreign, *own]))
    drain(logged)
    (progress,) = records.progress()
    assert (progress.rows, progress.uncounted_rows) == (60, 7)
    assert progress.problem is not None
    assert other.digest[:12] in progress.problem
    assert_equal(stored(logged, records), counted(logged, own))


def test_tensors_of_another_width_break_the_contract_at_once(logged: Logged, records: DriftRecords) -> None:
    batches = hours(logged, 4)
    narrow = replace(batches[1], tensor=np.ascontiguousarray(batches[1].tensor[:, :-1]))
    logged.ship(1, segment("one", [batches[0], narrow, *batches[2:]]))
    drain(logged)
    broken = {each.start_us: each.breaks for each in records.windows(ENDPOINT) if each.breaks}
    assert list(broken) == [START_US + HOUR_US]
    assert broken[START_US + HOUR_US][0]["rule"] == "shape"
    assert broken[START_US + HOUR_US][0]["name"] == "tensor"


def test_names_of_unseen_words_are_kept_with_the_times_they_came(logged: Logged, records: DriftRecords) -> None:
    batches = hours(logged, 3)
    for batch in batches[1:]:
        batch.given = {**batch.given, "origin": column_of(Dtype.STRING, ["BOS", "a\0b", *["JFK"] * 28])}
    logged.ship(1, segment("one", batches))
    drain(logged)
    words = {each.word: each for each in records.words(ENDPOINT) if each.feature == "origin"}
    assert set(words) == {"BOS", "a\\x00b"}
    assert (words["BOS"].rows, words["BOS"].over) == (2, 0)
    assert (words["BOS"].first_us, words["BOS"].last_us) == (batches[1].as_of, batches[2].as_of)


class Fails(Exception):
    """What a statement is made to raise."""


@contextmanager
def failing(after: int) -> Iterator[None]:
    """Inside, the statement after so many others fails once it was carried out, in whatever part of the monitor."""
    seen = 0

    def count(*_given: object) -> None:
        nonlocal seen
        seen += 1
        if seen > after:
            raise Fails

    event.listen(Engine, "after_cursor_execute", count)
    try:
        yield
    finally:
        event.remove(Engine, "after_cursor_execute", count)


def test_an_error_after_any_statement_leaves_nothing_half_done(tmp_path: Path, sqlite_registry: Path) -> None:
    worlds = []
    for name in ("calm", "disturbed"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "own.db").write_bytes(sqlite_registry.read_bytes())
        made = Logged.make(folder, f"sqlite:///{folder / 'own.db'}", policy=HOURLY)
        for number in range(2):
            batches = [answers(made.bundle, START_US + (5 * number + hour) * HOUR_US, 25) for hour in range(5)]
            made.ship(number + 1, segment(f"segment-{number}", batches))
        worlds.append(made)
    calm, disturbed = worlds
    drain(calm)
    stop, failures = threading.Event(), 0
    for after in range(10_000):
        engine = disturbed.engine()
        try:
            with failing(after):
                while engine.run_once(stop):
                    pass
            break
        except Fails:
            failures += 1
        finally:
            engine.close()
    assert failures > 25
    assert kept(disturbed.url) == kept(calm.url)


def test_a_monitor_that_is_killed_goes_on_as_if_it_had_not_been(tmp_path: Path, sqlite_registry: Path) -> None:
    """Deaths before a commit and after a statement, at places drawn by a seed."""
    seed = 20261122
    drawn, worlds = random.Random(seed), []
    for name in ("calm", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "own.db").write_bytes(sqlite_registry.read_bytes())
        made = Logged.make(folder, f"sqlite:///{folder / 'own.db'}", policy=HOURLY)
        for number in range(6):
            batches = [answers(made.bundle, START_US + (2 * number + hour) * HOUR_US, 25) for hour in range(2)]
            made.ship(number + 1, segment(f"segment-{number}", batches))
        worlds.append(made)
    calm, killed = worlds
    drain(calm)
    for when, after in (("commit", drawn.randrange(4)), ("after_cursor_execute", drawn.randrange(20, 60))):
        ended = run_until_killed(tmp_path / "killed", killed.url, when=when, after=after)
        assert ended.returncode == -signal.SIGKILL, f"seed {seed}: {ended.stderr}"
    drain(killed)
    assert kept(killed.url) == kept(calm.url), f"seed {seed}"


@EVERYWHERE
@pytest.mark.parametrize(
    "steps",
    [
        ["a0", "b0", "a2", "store", "b1", "a1"],
        ["a1", "store", "a0", "a2", "store"],
        ["b1", "b0", "a0", "store"],
    ],
)
def test_stream_and_store_together_count_each_row_once(logged: Logged, records: DriftRecords, steps: list[str]) -> None:
    """Parts of one segment, cut in two ways (a and b), before and after it is settled from the log store."""
    batches = hours(logged, 3)
    logged.ship(1, segment("one", batches))
    (table,) = segment("one", batches)
    cuts = {"a": parts_of(table, "one", [20, 40, 30]), "b": parts_of(table, "one", [50, 40])}
    streamed = Streamed(logged, HOURLY)
    for step in steps:
        if step == "store":
            streamed.settle()
        else:
            streamed.deliver([cuts[step[0]][int(step[1])]])
    assert_equal(stored(logged, records), counted(logged, batches))
    streamed.ledger.close()


@EVERYWHERE
def test_a_new_bundle_gets_a_history_of_what_others_answered(
    logged: Logged, records: DriftRecords, tmp_path: Path
) -> None:
    ship_days(logged, logged.bundle, range(3), every_us=6 * HOUR_US, rows=25)
    drain(logged)
    registry = Registry(database.engine(logged.url))
    other = put_bundle(tmp_path, logged.artifacts, registry, seed=2)
    registry.set_live(ENDPOINT, other.digest, actor="test", reason="better")
    registry.close()
    ship_days(logged, other, range(3, 4), every_us=6 * HOUR_US, rows=25)
    drain(logged)
    (recount,) = [each for each in records.recounts(ENDPOINT) if each.key.bundle == other.digest]
    assert recount.is_done
    assert recount.rows == 3 * 4 * 25
    tallies = records.tallies(DriftKey(ENDPOINT, other.digest, "live"))
    assert [each.recounted for each in tallies] == [True] * 12 + [False] * 4
    earlier = [
        answers(logged.bundle, each.start_us + 3 * HOUR_US - each.start_us % (6 * HOUR_US), 25) for each in tallies[:12]
    ]
    layout = other.baseline.counter().layout
    whole = layout.empty()
    for each in tallies[:12]:
        whole = whole.merged(unpacked(layout, each.counts))
    expected = counted(replace(logged, bundle=other), earlier)
    found = {each.key: each.counts for each in layout.counted(whole)}
    for variable in layout.counted(expected):
        is_own = variable.part in (Part.SCORE, Part.OUTPUT)
        assert found[variable.key] == ((0,) * variable.size if is_own else variable.counts), variable.key


def test_old_windows_become_hours_with_the_same_counts(tmp_path: Path, registry_url: str) -> None:
    logged = Logged.make(tmp_path, registry_url, policy=DriftPolicy(window_us=15 * MINUTE_US))
    old = [answers(logged.bundle, START_US + quarter * 15 * MINUTE_US, 25) for quarter in range(6)]
    logged.ship(1, segment("old", old))
    drain(logged)
    logged.ship(2, segment("new", [answers(logged.bundle, START_US + 40 * DAY_US, 25)]))
    drain(logged)
    reading = DriftRecords(database.engine(registry_url))
    fine = reading.tallies(key_of(logged), end=START_US + DAY_US)
    assert [(each.start_us - START_US, each.window_us, each.rows) for each in fine] == [
        (0, HOUR_US, 100),
        (HOUR_US, HOUR_US, 50),
    ]
    layout = logged.bundle.baseline.counter().layout
    whole = unpacked(layout, fine[0].counts).merged(unpacked(layout, fine[1].counts))
    assert_equal(whole, counted(logged, old))
    windows = reading.windows(ENDPOINT, end=START_US + DAY_US)
    assert {each.window_us for each in windows} == {HOUR_US}
    reading.close()
    upkeep = DriftUpkeep(database.engine(registry_url))
    assert not upkeep.merge_next()
    upkeep.close()


def warmer(columns: dict[str, Column], at: int) -> dict[str, Column]:
    """The weather is warmer by two thirds of a deviation from day 32 on."""
    if at >= START_US + 32 * DAY_US:
        temp = columns["weather__temp"]
        values = np.where(temp.valid, temp.values.astype(np.float32) + np.float32(6), np.float32(0))
        columns["weather__temp"] = Column(Dtype.FLOAT32, values.astype(np.float32), temp.valid)
    return columns


def test_a_change_after_five_weeks_is_an_alarm_with_its_name_and_time_and_calm_is_none(
    tmp_path: Path, sqlite_url: str
) -> None:
    logged = Logged.make(tmp_path, sqlite_url, policy=DriftPolicy(window_us=6 * HOUR_US))
    ship_days(logged, logged.bundle, range(32), every_us=6 * HOUR_US, rows=50)
    drain(logged)
    records = DriftRecords(database.engine(sqlite_url))
    (standing,) = records.standings(ENDPOINT)
    assert standing.grade is Grade.HOUR_OF_WEEK
    assert standing.height is not None
    assert standing.achieved is not None
    assert not [each for each in records.alarms() if each.alarm.calibrated]
    ship_days(logged, logged.bundle, range(32, 35), every_us=6 * HOUR_US, rows=50, change=warmer)
    drain(logged)
    alarms = [each for each in records.alarms() if each.alarm.calibrated]
    assert len(alarms) == 1
    alarm = alarms[0].alarm
    changed_us = START_US + 32 * DAY_US
    assert alarm.moved[0].stream.name == "weather__temp"
    assert changed_us - 12 * HOUR_US <= alarm.since_us <= changed_us + 12 * HOUR_US
    assert changed_us < alarm.opened_us <= changed_us + 2 * DAY_US
    records.close()


def test_days_that_are_left_out_are_neither_scored_nor_learnt_from(tmp_path: Path, sqlite_url: str) -> None:
    policy = DriftPolicy(window_us=6 * HOUR_US, excluded_days=("2013-05-14",))
    logged = Logged.make(tmp_path, sqlite_url, policy=policy)
    ship_days(logged, logged.bundle, range(10), every_us=6 * HOUR_US, rows=40, change=odd_day)
    drain(logged)
    records = DriftRecords(database.engine(sqlite_url))
    graded = {each.start_us // DAY_US - START_US // DAY_US: each.grade for each in records.windows(ENDPOINT)}
    assert graded[7] is Grade.HOUR_OF_DAY
    assert graded[8] is None
    assert graded[9] is Grade.HOUR_OF_DAY
    assert not records.alarms(), "nulls everywhere on the day that is left out"
    assert not [each for each in records.windows(ENDPOINT) if each.breaks]
    records.close()


def odd_day(columns: dict[str, Column], at: int) -> dict[str, Column]:
    """On day 8 there is no weather."""
    if (at - START_US) // DAY_US == 8:
        rows = len(columns["weather__temp"])
        columns["weather__temp"] = column_of(Dtype.FLOAT32, [None] * rows)
    return columns


def test_variables_of_every_part_are_in_what_is_shown(logged: Logged) -> None:
    logged.ship(1, segment("one", hours(logged, 4)))
    engine = logged.engine()
    try:
        while engine.run_once(threading.Event()):
            pass
        (shown,) = engine.shown.keys
        names = {each.name for each in shown.features}
        assert names == {
            each.name for each in logged.bundle.baseline.variables if each.part in (Part.COLUMN, Part.SCORE)
        }
        temp = next(each for each in shown.features if each.name == "weather__temp")
        assert temp.rows == 30
        assert temp.distances["day"].psi is not None
        assert {each.name: each.median_s for each in shown.views} == {
            "weather": 3072.0,
            "aircraft": 3072.0,
            "noise": 3072.0,
        }
        per_feature: Counter[str] = Counter()
        for family in families(engine.shown):
            for sample in family.samples:
                assert sample.name.startswith("skewless_drift_")
                assert sample.labels.keys() <= {"endpoint", "bundle", "role", "feature", "view", "span", "rule"}
                assert np.isfinite(sample.value)
                per_feature[sample.labels.get("feature", "")] += "role" in sample.labels
        assert max(count for name, count in per_feature.items() if name) <= 12
    finally:
        engine.close()


def test_a_policy_is_set_by_a_file_shown_and_read_by_gateways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    monkeypatch.setenv("SKEWLESS_DATABASE_URL", logged.url)
    monkeypatch.setenv("SKEWLESS_HOME", str(tmp_path / "home"))
    file = tmp_path / "policy.yaml"
    file.write_text("drift: {window: 15m, slices: [origin]}\nparity: {entity_share: 0.25}\n")

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, ["endpoint", *words], catch_exceptions=False)

    done = run("set", ENDPOINT, "--monitoring", str(file), "--reason", "agreed", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["monitoring"]["drift"]["window"] == "15m"
    assert "entity_share 0.25" in run("show", ENDPOINT).output
    registry = Registry(database.engine(logged.url))
    table = RoutingTable.from_json(registry.routes().to_json())
    assert table.route(ENDPOINT).monitoring.parity.entity_share == 0.25
    last = registry.audit(ENDPOINT)[-1]
    assert (last.action, last.reason) == ("set_monitoring", "agreed")
    version = table.route(ENDPOINT).version
    run("set", ENDPOINT, "--monitoring", str(file))
    assert registry.routes().route(ENDPOINT).version == version, "what changes nothing is no change"
    registry.close()
    file.write_text("drift: {windwo: 15m}")
    refused = run("set", ENDPOINT, "--monitoring", str(file))
    assert refused.exit_code != 0
