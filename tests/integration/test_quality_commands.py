"""`skewless quality …` as a command: without Great Expectations where nothing is judged, and with exit codes."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.naive_suites import NaiveRunner
from harness.quality_views import AS_OF, SCHEMA, SUITE, sensor_rows, with_values
from skewless.adapters.quality_gate import Batch, QualityGate
from skewless.adapters.quarantine import Quarantine
from skewless.cli.main import main
from skewless.registry import database
from skewless.registry.quality_results import QualityResults


@pytest.fixture
def home(tmp_path: Path, sqlite_registry: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of which one batch was judged, with two rows set aside."""
    monkeypatch.setenv("SKEWLESS_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "registry.db").write_bytes(sqlite_registry.read_bytes())
    results = QualityResults(database.engine(f"sqlite:///{tmp_path / 'registry.db'}"))
    quarantine = Quarantine(tmp_path / "quality" / "quarantine")
    gate = QualityGate({"sensors": SUITE}, NaiveRunner(), results, quarantine)
    gate.gate_batch(SCHEMA, with_values(sensor_rows(), "temp", {3: 451.0, 5: -90.0}), Batch(AS_OF, "tests", "rows"))
    results.close()
    return tmp_path


def asked(*words: str) -> Result:
    return CliRunner().invoke(main, ["quality", *words])


def test_what_is_not_met_is_reported_with_what_to_do(home: Path) -> None:
    told = asked("report", "--view", "sensors", "--html", str(home / "report.html"))
    assert told.exit_code == 0
    assert "not so: 2 of 40 rows (5.00%), such as" not in told.stdout, "the naive runner gives no examples"
    assert "quarantine: `temp` is expected to be between (min_value -50, max_value 60); not so: 2 of 40" in told.stdout
    assert "Quarantine" in (home / "report.html").read_text()
    (run,) = json.loads(asked("report", "--json").stdout)
    assert (run["decision"], run["set_aside"]) == ("quarantine", 2)
    assert asked("report", run["id"][:20], "--json").stdout == asked("report", "--json").stdout
    assert "sensors  quarantine  40" in asked("report", "--history").stdout


def test_set_aside_rows_are_listed_shown_copied_and_dropped(home: Path) -> None:
    (batch,) = json.loads(asked("quarantine", "list", "--json").stdout)
    shown = asked("quarantine", "show", batch["id"][-8:], "--out", str(home / "rows.parquet"))
    assert "`temp` is expected to be between (min_value -50, max_value 60)" in shown.stdout
    assert "temp=451.0" in shown.stdout
    assert (home / "rows.parquet").exists()
    assert asked("quarantine", "drop", batch["id"]).exit_code == 2, "without a reason"
    assert asked("quarantine", "drop", batch["id"], "--reason", "mended").exit_code == 0
    assert json.loads(asked("quarantine", "list", "--json").stdout) == []
    assert "dropped" in asked("quarantine", "list", "--all").stdout
    assert asked("quarantine", "drop", batch["id"], "--reason", "again").exit_code == 5
    assert asked("quarantine", "show", "nothing").exit_code == 2


def test_a_file_is_judged_as_one_thing(home: Path) -> None:
    both = asked("check", str(home / "rows.parquet"), "--view", "sensors", "--training")
    assert both.exit_code == 2
    assert "give either --view" in both.stderr
    assert asked("check", str(home / "rows.parquet")).exit_code == 2
