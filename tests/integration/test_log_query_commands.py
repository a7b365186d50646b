"""`skewless log query|outcomes|maturity` and `skewless endpoint set`, over a home with a log and a registry."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from harness.bundles import build_bundle
from harness.logged_rows import ENDPOINT, NOW, a_batch, spool, told
from harness.shipped_logs import ship
from skewless.cli.log_query_commands import ROWS_SHOWN
from skewless.cli.main import main
from skewless.registry.database import engine, upgrade
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry
from skewless.timestamps import DAY_US, HOUR_US, Micros


def run(*words: str) -> Result:
    return CliRunner().invoke(main, words, catch_exceptions=False)


def answer(*words: str) -> Any:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose log has four predictions, two of them shipped, and three outcomes."""
    monkeypatch.setenv("SKEWLESS_HOME", str(tmp_path))
    folder = tmp_path / "predictions"
    batches = [a_batch(("EWR", "JFK"), as_of=NOW + day * DAY_US) for day in range(2)]
    first, second = batches[0].prediction_ids
    spool(folder, batches[0], [told(first), told(first, "on_time", after_us=3 * HOUR_US)], seal=True)
    ship(folder)
    spool(folder, batches[1], [told(second, after_us=2 * HOUR_US)])
    return tmp_path


@pytest.fixture
def registry(home: Path) -> Registry:
    """A registry in the home's own database that knows the endpoint."""
    (home / "artifacts").mkdir()
    built = build_bundle(home / "artifacts")
    url = f"sqlite:///{home / 'registry.db'}"
    upgrade(url)
    registry = Registry(engine(url))
    registry.register_bundle(BundleRecord.of(built.bundle, artifact=built.digest, created_time=Micros(1)))
    registry.create_endpoint(ENDPOINT, description="", bundle=built.digest, actor="ann", reason="test")
    return registry


def test_a_query_is_answered_as_table_json_csv_and_parquet(home: Path) -> None:
    query = "SELECT role, count(*) AS predictions FROM predictions GROUP BY role"
    assert answer("log", "query", query) == [{"role": "live", "predictions": 4}]
    assert answer("log", "query", query, "--since", "2013-05-02") == [{"role": "live", "predictions": 2}]
    assert answer("log", "query", query, "--endpoint", "another") == []
    assert "predictions" in run("log", "query", query).stdout
    assert run("log", "query", query, "--csv").stdout.splitlines() == ['"role","predictions"', '"live",4']
    file = home / "rows.parquet"
    assert run("log", "query", query, "--parquet", str(file)).exit_code == 0
    assert pq.read_table(file).to_pylist() == [{"role": "live", "predictions": 4}]


def test_a_terminal_is_shown_the_first_rows_and_told_how_to_get_the_others() -> None:
    result = run("log", "query", f"SELECT range FROM range({ROWS_SHOWN + 1})")
    assert "--parquet FILE give all of them" in result.stderr
    assert str(ROWS_SHOWN - 1) in result.stdout
    assert str(ROWS_SHOWN) not in result.stdout


@pytest.mark.parametrize(
    "words",
    [("DELETE FROM predictions",), ("SELECT nope",), ("SELECT 1", "--json", "--csv"), ("SELECT 1", "--since", "soon")],
)
def test_what_is_no_query_of_the_log_has_the_exit_code_of_wrong_usage(words: tuple[str, ...]) -> None:
    assert run("log", "query", *words).exit_code == 2


def test_outcomes_are_counted_by_what_they_did_and_late_by_what_the_endpoint_declares(registry: Registry) -> None:
    counted = {"endpoint": ENDPOINT, "first": 2, "duplicate": 0, "corrected": 1, "unknown": 0}
    assert answer("log", "outcomes") == [{**counted, "late": 0}]
    set_terms = answer(
        "endpoint", "set", ENDPOINT, "--label-horizon", "150m", "--outcome-window", "2d", "--reason", "agreed"
    )
    assert set_terms["outcome_terms"] == {"label_horizon_s": 9_000.0, "outcome_window_s": 172_800.0}
    assert answer("log", "outcomes", ENDPOINT) == [{**counted, "late": 1}]
    event = registry.audit(ENDPOINT)[-1]
    assert (event.action, event.reason) == ("set_outcome_terms", "agreed")
    assert event.detail["terms_before"] == {"label_horizon_s": None, "outcome_window_s": 2_592_000.0}
    assert "150m" in run("endpoint", "show", ENDPOINT).stdout
    assert answer("endpoint", "set", ENDPOINT, "--label-horizon", "none")["outcome_terms"]["label_horizon_s"] is None
    assert registry.endpoint(ENDPOINT).route.version == 1


def test_terms_that_say_nothing_or_are_no_time_are_refused(registry: Registry) -> None:
    events = len(registry.audit(ENDPOINT))
    for words in ((), ("--label-horizon", "soon"), ("--outcome-window", "0s"), ("--outcome-window", "9999d")):
        assert run("endpoint", "set", ENDPOINT, *words).exit_code == 2
    assert run("endpoint", "set", "nope", "--label-horizon", "1d").exit_code == 2
    answer("endpoint", "set", ENDPOINT, "--outcome-window", "30d")  # as it is already
    assert len(registry.audit(ENDPOINT)) == events


def test_maturity_is_told_by_age_delay_and_day(registry: Registry) -> None:
    found = answer("log", "maturity", ENDPOINT)
    assert found["declared_horizon_s"] is None
    assert [(day["predictions"], day["with_outcome"]) for day in found["days"]] == [(4, 2)]
    answer("endpoint", "set", ENDPOINT, "--label-horizon", "1d")
    result = run("log", "maturity", ENDPOINT)
    assert result.exit_code == 0
    assert "label horizon: 1d (declared)" in result.stderr
