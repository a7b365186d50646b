"""`skewless parity status`: what the running monitor kept, for people, scripts and CI."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from skewless.canonical_json import Digest
from skewless.cli.main import main
from skewless.monitor_limits import PARITY_GROUPS, PARITY_SHOWN_DAYS
from skewless.parity.schedule import STEP_US, Pass, period_of
from skewless.parity.tally import Count, Level, Stratum, TallyKey
from skewless.registry.database import engine, upgrade
from skewless.registry.parity_history import ParityExample, ParityHistory
from skewless.timestamps import DAY_US, HOUR_US, parse_timestamp

NOW = parse_timestamp("2026-05-01T10:00:00Z")
BUNDLE = Digest("1" * 64)


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ParityHistory:
    """An empty one in the registry of a home, which commands find."""
    url = f"sqlite:///{tmp_path}/registry.db"
    upgrade(url)
    monkeypatch.setenv("SKEWLESS_HOME", str(tmp_path))
    monkeypatch.setenv("SKEWLESS_DATABASE_URL", url)
    return ParityHistory(engine(url))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["parity", "status", *arguments])


def fill(history: ParityHistory, endpoint: str = "flight-delay", *, hits: int = 3) -> None:
    """An hour of an endpoint in which some predictions differ, and one of the day before in which none does."""
    for period, wrong in ((period_of(NOW) - HOUR_US, hits), (period_of(NOW) - DAY_US - HOUR_US, 0)):
        rows, differing = np.zeros((2, PARITY_GROUPS), dtype=np.int64)
        rows[:100], differing[:wrong] = 1, 1
        tally = {}
        for stratum in Stratum:
            count = Count(100, wrong, rows, differing)
            tally[TallyKey(BUNDLE, stratum, Level.VIEWS, "weather")] = count
            tally[TallyKey(BUNDLE, stratum, Level.VIEWS, "(prediction)")] = Count(100, 0, rows)
            tally[TallyKey(BUNDLE, stratum, Level.VALUES)] = Count(400, wrong)
            if wrong:
                cause = TallyKey(BUNDLE, stratum, Level.CAUSES, "weather", "missing_online")
                tally[cause] = Count(100, wrong, None, differing)
        told = {"prediction_id": "p1", "column": "weather__temp", "words": "served null <b>, offline 1.5"}
        example = ParityExample(endpoint, period, Pass.THEN, BUNDLE, "weather", "missing_online", "p1", told)
        history.note_then(endpoint, {period: 100}, tally, [example] if wrong else [])
    state: dict[str, Any] = {
        "newest": NOW, "now": NOW, "wall": NOW, "backlog": 7, "waiting": 7, "oldest": NOW - 4 * STEP_US,
        "verdict_s": 42.0, "passed": {"weather": NOW - HOUR_US}, "unchecked": {"2" * 64: "its view is gone"},
        "not_comparable": {BUNDLE: ["weather__sky"]}, "quiet_us": 900_000_000, "horizon_us": DAY_US,
        "failed": "a source is half written",
    }  # fmt: skip
    history.note_state(endpoint, state)


def test_nothing_yet_says_what_to_do(history: ParityHistory) -> None:
    told = run()
    assert told.exit_code == 0
    assert "Nothing was compared yet" in told.output
    assert json.loads(run("--json").stdout) == {"endpoints": [], "failed": []}
    missing = run("flight-delay")
    assert missing.exit_code != 0


def test_a_terminal_shows_rates_causes_an_example_and_what_to_do(history: ParityHistory) -> None:
    fill(history)
    told = run("flight-delay").output
    for wanted in (
        "missing_online 3.00%",
        "p1 weather__temp served null <b>",
        "skewless features repair --view VIEW",
        "42 s",
    ):
        assert wanted in told
    assert "source of weather, which is 3,600 s behind" in told
    assert "compared no more, and the next tries again: a source is half written" in told
    assert "does not keep weather__sky" in told


def test_plain_data_has_both_samples_apart_and_each_day(history: ParityHistory) -> None:
    fill(history)
    fill(history, "search", hits=0)
    both = json.loads(run("--json").stdout)["endpoints"]
    assert [each["endpoint"] for each in both] == ["flight-delay", "search"]
    found = both[0]
    assert found["levels"]["values"] == {"stratum": "uniform", "compared": 400, "equal": 397}
    assert found["predictions"] == {"entity": 100, "uniform": 100}
    (cause,) = found["causes"]
    assert (cause["cause"], cause["stratum"], cause["kind"], cause["rate"]) == (
        "missing_online", "entity", "fault", 0.03,
    )  # fmt: skip
    assert 0 < cause["low"] < 0.03 < cause["high"] < 0.1
    assert [each["prediction_id"] for each in cause["examples"]] == ["p1"]
    assert len(found["days"]) == PARITY_SHOWN_DAYS
    assert [each["predictions"] for each in found["days"]][-2:] == [100, 100]
    assert [each["worst_rate"] for each in found["days"]][-2:] == [0.0, 0.03]
    assert found["progress"]["oldest_open_s"] == 60.0
    assert both[1]["causes"] == []


@pytest.mark.parametrize(("condition", "code"), [("fault", 4), ("missing_online=0.05", 0), ("coercion", 0), ("any", 4)])
def test_a_condition_that_is_met_is_an_exit_code(history: ParityHistory, condition: str, code: int) -> None:
    fill(history)
    assert run("--fail-on", condition).exit_code == code


def test_a_page_loads_nothing_and_escapes_what_was_served(history: ParityHistory, tmp_path: Path) -> None:
    fill(history)
    page = tmp_path / "out" / "status.html"
    assert run("--html", str(page)).exit_code == 0
    text = page.read_text()
    assert "served null &lt;b&gt;" in text
    assert "://" not in text
    assert "3.0000% of weather" in text
    fill(history, "search", hits=0)
    run("search", "--html", str(page))
    assert "Nothing differed" in page.read_text()
