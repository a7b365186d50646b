"""What the drift monitor counts and keeps while parts of the world fail it: no row is lost, and none counts twice."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from harness.drift_stream import Streamed, parts_of
from harness.drift_traffic import START_US, Clock, Logged, answers, drain, put_bundle, segment, ship_days
from harness.replays import ENDPOINT
from skewless.adapters.drift_engine import DriftEngine
from skewless.adapters.drift_scoring import Scored
from skewless.adapters.log_following import FilesWaiting
from skewless.adapters.log_tables import PREDICTIONS
from skewless.drift.season import Grade
from skewless.errors import Unavailable
from skewless.monitor_limits import DRIFT_FILE_TRIES, DRIFT_RETRY_S
from skewless.monitor_settings import MonitorSettings
from skewless.registry import database
from skewless.registry.drift_records import DriftRecords
from skewless.registry.drift_upkeep import DriftUpkeep
from skewless.registry.repository import Registry, system_clock
from skewless.serving.monitoring_policy import DriftPolicy, MonitoringPolicy
from skewless.settings import Settings, load_settings
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, SECOND_US, Micros
from skewless_monitor.drift_job import open_job, report_environment

HOURLY = DriftPolicy(window_us=HOUR_US, lateness_us=0)
QUARTERLY = DriftPolicy(window_us=6 * HOUR_US)
"""Four windows a day."""


@pytest.fixture
def logged(tmp_path: Path, sqlite_registry: Path) -> Logged:
    file = tmp_path / "own.db"
    file.write_bytes(sqlite_registry.read_bytes())
    return Logged.make(tmp_path, f"sqlite:///{file}", policy=HOURLY)


@pytest.fixture
def records(logged: Logged) -> Iterator[DriftRecords]:
    reading = DriftRecords(database.engine(logged.url))
    yield reading
    reading.close()


@pytest.fixture
def streamed(logged: Logged) -> Iterator[Streamed]:
    made = Streamed(logged, HOURLY)
    yield made
    made.close()


class Fails(Exception):
    """What a statement is made to raise."""


@contextmanager
def failing_once(words: str) -> Iterator[None]:
    """Inside, the first statement that has these words in it fails."""
    told: list[str] = []

    def fail(_connection: object, _cursor: object, statement: str, *_others: object) -> None:
        if words in statement and not told:
            told.append(statement)
            raise Fails

    event.listen(Engine, "before_cursor_execute", fail)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", fail)
    assert told, f"nothing asked for {words}"


def test_tables_of_one_segment_count_once_where_stream_and_store_take_turns(
    logged: Logged, records: DriftRecords, streamed: Streamed
) -> None:
    """The store settles the second of three tables between the stream's first and its last, then offers the others."""
    sizes = {"first": 10, "second": 6, "third": 20}
    batches = [
        replace(answers(logged.bundle, START_US + number, rows, seed=number), endpoint=name)
        for number, (name, rows) in enumerate(sizes.items(), start=1)
    ]
    tables = {each.endpoint: each for each in segment("one", batches)}
    parts = {name: parts_of(tables[name], "one", [rows], segment_rows=36) for name, rows in sizes.items()}
    streamed.deliver(parts["first"])
    logged.ship(1, [tables["second"]])
    streamed.settle()
    streamed.deliver([*parts["second"], *parts["third"]])
    logged.ship(2, [tables["first"], tables["third"]])
    streamed.settle()
    assert {each.endpoint: each.rows for each in records.progress()} == sizes


def test_a_failure_while_a_batch_is_put_together_loses_no_file(
    logged: Logged, records: DriftRecords, streamed: Streamed
) -> None:
    for day in range(2):
        logged.ship(day + 1, segment(f"day-{day}", [answers(logged.bundle, START_US + day * DAY_US, 30)]))
    with failing_once("FROM drift_partials"), pytest.raises(Fails):
        streamed.settle()
    streamed.settle()
    assert [each.rows for each in records.progress()] == [60]


def test_rows_of_a_time_to_come_are_told_and_end_nothing(logged: Logged, records: DriftRecords) -> None:
    clock = Clock(START_US + 2 * HOUR_US)
    ahead = answers(logged.bundle, START_US + 700 * DAY_US, 7)
    logged.ship(1, segment("one", [answers(logged.bundle, START_US, 30), ahead]))
    drain(logged, clock)
    clock.now = Micros(START_US + 4 * HOUR_US)
    logged.ship(2, segment("two", [answers(logged.bundle, START_US + 3 * HOUR_US, 30)]))
    drain(logged, clock)
    (progress,) = records.progress()
    assert (progress.rows, progress.late_rows, progress.uncounted_rows) == (60, 0, 7)
    assert (progress.newest_us, progress.sealed_us) == (START_US + 3 * HOUR_US, START_US + 4 * HOUR_US)
    assert progress.problem is not None
    assert "a moment to come" in progress.problem
    assert [each.rows for each in records.windows(ENDPOINT)] == [30, 0, 0, 30]


def test_a_clock_that_is_a_minute_ahead_makes_no_row_of_others_late(logged: Logged, records: DriftRecords) -> None:
    clock = Clock(START_US + HOUR_US - MINUTE_US // 2)
    logged.ship(1, segment("ahead", [answers(logged.bundle, START_US + HOUR_US, 7)]))
    drain(logged, clock)
    logged.ship(2, segment("right", [answers(logged.bundle, clock.now, 30)]))
    drain(logged, clock)
    (progress,) = records.progress()
    assert (progress.rows, progress.late_rows, progress.uncounted_rows) == (37, 0, 0)


def turned(logged: Logged, folder: Path, day: str) -> Path:
    """The file of a day in the log store, every bit of it turned: it cannot be read until that is done again."""
    files = [file for table in logged.store.tables(PREDICTIONS) for file in table.entries if file.day == day]
    (path,) = (folder / "store").rglob(Path(files[0].path).name)
    path.write_bytes(bytes(each ^ 255 for each in path.read_bytes()))
    return path


def ship_a_day(logged: Logged, day: int) -> None:
    logged.ship(day + 1, segment(f"day-{day}", [answers(logged.bundle, START_US + day * DAY_US, 30)]))


def test_a_file_that_cannot_be_read_is_set_aside_and_told_and_counted_once_it_can(
    logged: Logged, records: DriftRecords, streamed: Streamed, tmp_path: Path
) -> None:
    for day in range(2):
        ship_a_day(logged, day)
    path = turned(logged, tmp_path, "2013-05-06")
    for _ in range(DRIFT_FILE_TRIES):
        with pytest.raises(Unavailable):
            streamed.settle()
    streamed.settle()
    assert [each.rows for each in records.progress()] == [30], "the other day's"
    waiting = streamed.follower.waiting
    assert waiting.count == 1
    assert waiting.since_s == pytest.approx(path.stat().st_mtime, abs=60)
    turned(logged, tmp_path, "2013-05-06")
    streamed.settle()
    assert [each.rows for each in records.progress()] == [30], "it is left alone for a while"
    streamed.clock.now = Micros(streamed.clock.now + int(DRIFT_RETRY_S * SECOND_US))
    streamed.settle()
    assert [each.rows for each in records.progress()] == [60]
    assert streamed.follower.waiting == FilesWaiting(0, None)


def test_an_old_day_that_cannot_be_recounted_is_told_and_holds_up_nothing_else(
    logged: Logged, records: DriftRecords, tmp_path: Path
) -> None:
    ship_a_day(logged, 0)
    drain(logged)
    registry = Registry(database.engine(logged.url))
    other = put_bundle(tmp_path, logged.artifacts, registry, seed=2)
    registry.set_live(ENDPOINT, other.digest, actor="test", reason="better")
    registry.close()
    logged.ship(2, segment("other", [answers(other, START_US + DAY_US, 20)]))
    turned(logged, tmp_path, "2013-05-06")
    problems: list[str] = []
    engine = DriftEngine(logged.url, logged.artifacts, logged.store, clock=Clock(), on_problem=problems.append)
    try:
        while engine.run_once(threading.Event()):
            pass
        (shown,) = engine.shown.endpoints
    finally:
        engine.close()
    assert len(problems) == 1
    assert "cannot be counted now" in problems[0]
    assert shown.progress.rows == 50
    assert [each.is_done for each in records.recounts(ENDPOINT) if each.key.bundle == other.digest] == [False]


def test_a_monitor_that_is_to_stop_ends_after_the_portion_that_it_scores(logged: Logged, records: DriftRecords) -> None:
    roles = ("live", "canary", "shadow")
    for day in range(2):
        batches = [answers(logged.bundle, START_US + day * DAY_US, 30, role=role) for role in roles]
        logged.ship(day + 1, segment(f"day-{day}", batches))
    stop, portions = threading.Event(), 0

    def count(_scored: Scored) -> None:
        nonlocal portions
        portions += 1
        stop.set()

    engine = DriftEngine(logged.url, logged.artifacts, logged.store, clock=Clock(), on_scored=count)
    try:
        for expected in range(1, 4):
            stop.clear()
            while not stop.is_set():
                engine.run_once(stop)
            assert portions == expected, "a day is sealed of all three at once"
    finally:
        engine.close()
    drain(logged)
    assert {(each.key.role, each.rows) for each in records.windows(ENDPOINT) if each.rows} == {
        (role, 30) for role in roles
    }


def test_a_bundle_that_comes_back_once_its_calibration_is_forgotten_begins_anew(
    logged: Logged, records: DriftRecords
) -> None:
    registry = Registry(database.engine(logged.url))
    registry.set_monitoring(ENDPOINT, MonitoringPolicy(drift=QUARTERLY), actor="test", reason="test")
    registry.close()
    ship_days(logged, logged.bundle, range(9), every_us=6 * HOUR_US, rows=25)
    drain(logged)
    assert [each.grade for each in records.standings()] == [Grade.HOUR_OF_DAY]
    upkeep = DriftUpkeep(database.engine(logged.url), clock=lambda: Micros(system_clock() + 99 * DAY_US))
    upkeep.forget(frozenset())
    upkeep.close()
    ship_days(logged, logged.bundle, range(9, 10), every_us=6 * HOUR_US, rows=25)
    drain(logged)
    assert [each.rows for each in records.windows(ENDPOINT)] == [25] * 39
    assert [each.grade for each in records.standings()] == [Grade.HOUR_OF_DAY], "calibrated on what is counted still"


def test_lag_is_the_age_of_the_oldest_file_that_is_not_counted(
    tmp_path: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skewless.adapters.drift_engine.DRIFT_SHOWN_EVERY_S", 0.0)
    settings = MonitorSettings(
        home=tmp_path / "home",
        database_url=logged.url,
        artifacts=str(tmp_path / "artifacts"),
        log_store=str(tmp_path / "store"),
    )
    job = open_job(settings)
    stop = threading.Event()
    try:
        ship_a_day(logged, 0)
        while job.run_once(stop):
            pass
        assert job.lag_s == 0.0, "traffic of years ago, all of which is counted"
        ship_a_day(logged, 1)
        path = turned(logged, tmp_path, "2013-05-07")
        for _ in range(DRIFT_FILE_TRIES):
            with pytest.raises(Unavailable):
                job.run_once(stop)
        job.run_once(stop)
        age_s = system_clock() / SECOND_US - path.stat().st_mtime
        assert job.lag_s is not None
        assert 0.0 < job.lag_s <= age_s + 60
    finally:
        job.close()


def test_reports_may_call_the_packages_that_the_monitor_may(
    tmp_path: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that makes a report has the monitor's settings under the names of the library's."""
    given = MonitorSettings(
        home=tmp_path, database_url=logged.url, artifacts="a", log_store="s", step_packages="geo-tools, calendars"
    )
    for name, value in report_environment(given).items():
        monkeypatch.setenv(name, value)
    settings = load_settings(Settings)
    assert settings.allowed_step_packages == {"geo-tools", "calendars"}
    assert (settings.database_url, settings.home) == (logged.url, tmp_path)
