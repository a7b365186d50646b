"""What the drift monitor opens, forgets and looks through, where bundles of a year have left their counts behind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, text
from sqlalchemy.orm import Session

from harness.monitor_rows import fill_monitors
from harness.replays import ENDPOINT
from skewless.adapters.drift_scoring import DriftScoring
from skewless.canonical_json import digest
from skewless.registry import database
from skewless.registry.database import WRITES
from skewless.registry.drift_records import DriftKey
from skewless.registry.drift_scores import DriftScores
from skewless.registry.drift_tables import DriftEndpointRow, DriftRecountRow, DriftStateRow, DriftTallyRow
from skewless.registry.drift_upkeep import DriftUpkeep
from skewless.serving.monitoring_policy import DriftPolicy
from skewless.timestamps import DAY_US, HOUR_US, Micros

NOW = Micros(20_000 * DAY_US)
NEWEST = NOW - HOUR_US
POLICY = DriftPolicy(window_us=HOUR_US)


@pytest.fixture
def engine(registry_url: str) -> Iterator[Engine]:
    opened = database.engine(registry_url)
    yield opened
    opened.dispose()


def key_of(name: str) -> DriftKey:
    return DriftKey(ENDPOINT, digest(name), "live")


def fill(engine: Engine, *, last: dict[str, int], scored: dict[str, int]) -> None:
    """An endpoint with one hour of counts, `last`, of each bundle, whose detector was asked at `scored`, calibrated."""
    rows: list[Any] = [
        DriftEndpointRow(
            endpoint_name=ENDPOINT,
            newest_us=NEWEST,
            sealed_us=NEWEST // HOUR_US * HOUR_US,
            is_live=True,
            rows=1,
            late_rows=0,
            uncounted_rows=0,
            problem=None,
            changed_time=NOW,
        )
    ]
    for name, start_us in last.items():
        key = key_of(name)
        place = {"endpoint_name": key.endpoint, "bundle_digest": key.bundle, "role": key.role}
        rows.append(
            DriftTallyRow(
                **place,
                slice="",
                window_start_us=start_us,
                window_us=HOUR_US,
                layout=digest("layout"),
                rows=1,
                late_rows=0,
                recounted=False,
                shapes=None,
                counts=b"x",
            )
        )
        rows.append(
            DriftStateRow(
                **place,
                window_us=HOUR_US,
                slices=[],
                next_start_us=start_us + HOUR_US,
                grade="hour of week",
                height=1.0,
                promise_days=30.0,
                streams=1,
                achieved=1.0,
                history_start_us=0,
                history_end_us=1,
                levels={},
                problem=None,
                computed_time=scored[name],
                version=1,
                state={},
                calibration=b"large",
            )
        )
        rows.append(DriftRecountRow(**place, since_us=0, until_us=1, next_us=0, rows=0, changed_time=1))
    with Session(engine.execution_options(**{WRITES: True})) as session, session.begin():
        session.add_all(rows)


def test_bundles_of_which_nothing_is_to_be_scored_are_not_opened(engine: Engine) -> None:
    """Bundles of the past end with their last rows; of the one in service an hour is sealed that was not scored."""
    last = {"past": NOW - 100 * DAY_US, "over": NOW - 50 * DAY_US, "current": NEWEST // HOUR_US * HOUR_US - 2 * HOUR_US}
    fill(engine, last=last, scored=dict.fromkeys(last, NOW))
    asked: list[str] = []
    scoring = DriftScoring(DriftScores(engine), asked.append, lambda _: POLICY, lambda *_: ())
    for _ in range(2):
        assert not list(scoring.score_due({key_of(name) for name in last}, active=frozenset([key_of("current")])))
    assert asked == [key_of("current").bundle] * 2, "it is gone, and looked for again"


def test_a_bundle_is_opened_once_its_policy_cuts_other_windows(engine: Engine) -> None:
    fill(engine, last={"past": NOW - DAY_US}, scored={"past": NOW})
    asked: list[str] = []
    scoring = DriftScoring(DriftScores(engine), asked.append, lambda _: DriftPolicy(window_us=DAY_US), lambda *_: ())
    assert not list(scoring.score_due({key_of("past")}, active=frozenset()))
    assert asked == [key_of("past").bundle]


def test_what_detectors_remember_goes_with_their_counts_and_large_calibrations_before(engine: Engine) -> None:
    last = {"gone": NEWEST - 401 * DAY_US, "old": NOW - 60 * DAY_US, "routed": NOW - 60 * DAY_US, "new": NOW - DAY_US}
    scored = {"gone": NOW - 400 * DAY_US, "old": NOW - 60 * DAY_US, "routed": NOW - 60 * DAY_US, "new": NOW - DAY_US}
    fill(engine, last=last, scored=scored)
    DriftUpkeep(engine, clock=lambda: NOW).forget(frozenset([key_of("routed")]))
    names = {str(key_of(name).bundle): name for name in last}
    with Session(engine) as session:
        kept = {
            names[digest_]: calibration is not None
            for digest_, calibration in session.execute(select(DriftStateRow.bundle_digest, DriftStateRow.calibration))
        }
        recounts = {names[each] for each in session.scalars(select(DriftRecountRow.bundle_digest))}
    assert kept == {"old": False, "routed": True, "new": True}
    assert recounts == {"old", "routed", "new"}


def test_old_windows_are_found_by_the_index_of_fine_ones(tmp_path: Path, sqlite_registry: Path) -> None:
    file = tmp_path / "own.db"
    file.write_bytes(sqlite_registry.read_bytes())
    opened = database.engine(f"sqlite:///{file}")
    fill_monitors(opened)
    asked: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_others: object) -> None:
        if "drift_tallies" in statement and statement.startswith("SELECT"):
            asked.append((statement, parameters))

    event.listen(opened, "before_cursor_execute", note)
    try:
        assert not DriftUpkeep(opened).merge_next(), "its only window is the newest"
    finally:
        event.remove(opened, "before_cursor_execute", note)
    (found,) = asked
    with opened.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {found[0]}", found[1]).all()
    assert "ix_drift_tallies_fine (endpoint_name=? AND window_start_us<?)" in str(plan)
    assert "TEMP B-TREE" not in str(plan)
    opened.dispose()


def test_the_index_of_fine_windows_is_partial_everywhere(engine: Engine) -> None:
    where = {
        "sqlite": "SELECT sql FROM sqlite_master WHERE name = 'ix_drift_tallies_fine'",
        "postgresql": "SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_drift_tallies_fine'",
    }
    with engine.connect() as connection:
        found = connection.execute(text(where[engine.dialect.name])).scalar_one()
    assert "3600000000" in found
