"""`skewless drift report` and `status` over counts and a log: every part of a report, on real Evidently and real Great
Expectations."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from harness.bundles import content, transform
from harness.drift_world import CHANGED_HOURS, ROWS, SLICE, DriftWorld, drift_world
from harness.replays import ENDPOINT, flights
from skewless.adapters.drift_report_process import report_in_child
from skewless.adapters.drift_sample import pseudo_sample
from skewless.adapters.evidently_report import ComparedColumn, evidently_page
from skewless.adapters.great_expectations_runner import run_suite
from skewless.adapters.log_reader import open_log
from skewless.cli.drift_evidence import ServedSample, expected_table
from skewless.cli.drift_reports import keep_in_home
from skewless.cli.main import main
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import Unavailable
from skewless.monitor_limits import DRIFT_REPORTS_MAX
from skewless.monitors import open_monitors
from skewless.monitors.counted import LoggedTraffic
from skewless.monitors.expectations import training_suite
from skewless.monitors.window_report import merged
from skewless.quality.catalogue import NOT_NULL, ROW_COUNT
from skewless.registry.database import upgrade
from skewless.statistics.baseline import Baseline
from skewless.statistics.variable import Part, Variable
from skewless.timestamps import DAY_US, HOUR_US, SECOND_US, format_timestamp

FILES = {"index.html", "report.json", "evidently.html", "expectations.html", "expectations.json"}
QUICK = ("--without", "evidently", "--without", "expectations")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> DriftWorld:
    return drift_world(tmp_path_factory.mktemp("drift"), days=8, logged_days=8)


@pytest.fixture(autouse=True)
def _at_home(world: DriftWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_HOME", str(world.made.home.root))


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["drift", *arguments])
    assert result.exit_code == code, result.output
    return result


def furthest(told: dict[str, Any]) -> set[str]:
    """The two columns that a report has first."""
    return {each["name"] for each in [each for each in told["features"] if each["part"] == "column"][:2]}


@pytest.fixture(scope="module")
def report(world: DriftWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole report about the alarm."""
    folder = tmp_path_factory.mktemp("report") / "alarm"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKEWLESS_HOME", str(world.made.home.root))
        run("report", ENDPOINT, "--alarm", world.alarm_id, "--out", str(folder))
    return folder


def test_a_report_about_an_alarm_has_every_part_and_asks_nobody_for_anything(report: Path) -> None:
    assert {each.name for each in report.iterdir()} == FILES
    for page in report.glob("*.html"):
        text = page.read_text()
        assert not re.search(r"<(?:script|img|link|iframe)[^>]+(?:src|href)\s*=\s*[\"']?https?:", text)
        assert "default-src 'none'" in text
        assert len(text) < 8 * 1024 * 1024


def test_a_report_says_of_all_rows_what_the_counts_say(report: Path, world: DriftWorld) -> None:
    told = json.loads((report / "report.json").read_text())
    assert told["rows"] == ROWS * (CHANGED_HOURS + 6), "from six hours before the alarm began"
    assert told["since"] == format_timestamp(world.changed_us - 6 * HOUR_US)
    assert [each["name"] for each in told["alarms"][0]["moved"]] == ["weather__temp", "aircraft__seats"]
    assert {each["rule"] for each in told["breaks"]} == {"nulls"}
    assert furthest(told) == {"weather__temp", "aircraft__seats"}
    assert told["recent"] == "the same hours of recent weeks"
    assert list(told["slices"]) == [SLICE]
    assert [(each["feature"], each["word"]) for each in told["unseen_words"]] == [("origin", "BOS")]


def test_evidently_is_given_rows_of_the_same_hours_before_and_finds_what_moved(report: Path) -> None:
    text = (report / "evidently.html").read_text()
    assert "rows sampled of" in text
    assert "NOT ROWS" not in text
    found = dict(re.findall(r"Drift in column '(\w+)'.{0,600}?Data drift (detected|not detected)", text))
    assert found["weather__temp"] == "detected"
    assert found["party"] == "not detected"
    assert "PSI in the bins of training" in text


def test_great_expectations_names_what_training_does_not_have(report: Path) -> None:
    told = json.loads((report / "expectations.json").read_text())
    missed = {(each["kwargs"].get("column"), each["type"]) for each in told["results"] if not each["met"]}
    assert {("weather__temp", "expect_column_values_to_be_between"), ("aircraft__seats", NOT_NULL)} <= missed
    assert ("origin", "expect_column_values_to_be_in_set") in missed
    assert not [name for name, _ in missed if name in ("party", "station", "distance", "noise__level")]
    assert told["missed"] == len(missed)
    (origin,) = [each for each in told["results"] if each["examples"] == ["BOS"]]
    assert "BOS" in (report / "expectations.html").read_text()
    assert origin["error"] == ""


def test_a_time_without_alarm_is_told_as_such_and_kept_in_the_home(world: DriftWorld) -> None:
    until = format_timestamp(world.changed_us)
    found = run("report", ENDPOINT, "--until", until, *QUICK, "--json")
    told = json.loads(found.stdout)
    folder = Path(told["folder"])
    assert folder.parent == world.made.home.root / "drift" / ENDPOINT
    assert {each.name for each in folder.iterdir()} == {"index.html", "report.json"}
    assert told["report"]["alarms"] == []
    assert told["report"]["until"] == until


def test_what_cannot_be_reported_is_refused_in_words(world: DriftWorld, tmp_path: Path) -> None:
    assert (
        "allowed: more than none, and up to 31 days" in run("report", ENDPOINT, "--since", "2012-01-01", code=2).output
    )
    assert "no prediction of it" in run("report", "another", code=2).output
    assert "by bundle ffff" in run("report", ENDPOINT, "--bundle", "ffff", code=2).output
    assert "in the role shadow" in run("report", ENDPOINT, "--role", "shadow", code=2).output
    assert "leave --since" in run("report", ENDPOINT, "--alarm", world.alarm_id, "--since", "2013-05-06", code=2).output
    assert "alarm `nothing` does not exist" in run("report", ENDPOINT, "--alarm", "nothing", code=2).output
    early = ("--since", "2013-01-01", "--until", "2013-01-02")
    assert "drift status" in run("report", ENDPOINT, *early, *QUICK, code=2).output
    (tmp_path / "kept").write_text("mine")
    assert "not empty" in run("report", ENDPOINT, *QUICK, "--out", str(tmp_path), code=2).output
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]


def test_what_the_monitor_did_not_count_is_counted_from_the_log_with_the_same_result(
    world: DriftWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    span = (world.end_us - DAY_US, world.end_us)
    with open_monitors() as monitors, open_log(world.made.home.predictions) as log:
        counted = monitors.counted(world.key)
        logged = LoggedTraffic(log, world.key, monitors.bundle(world.key.bundle))
        first, second = (merged(each.layout, each.own(*span)[""]) for each in (counted, logged))
    assert first.rows == second.rows == 24 * ROWS
    assert np.array_equal(first.counts, second.counts)
    assert np.array_equal(first.highs, second.highs)
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    upgrade(empty)
    monkeypatch.setenv("SKEWLESS_DATABASE_URL", empty)
    told = json.loads(run("report", ENDPOINT, *QUICK, "--out", str(tmp_path / "report"), "--json").stdout)
    assert told["report"]["rows"] == 24 * ROWS
    assert "keeps no counts of this time" in told["notes"][0]
    assert furthest(told["report"]) == {"weather__temp", "aircraft__seats"}


def test_old_reports_make_room_for_new_ones(tmp_path: Path) -> None:
    made = [
        keep_in_home({"index.html": str(each)}, tmp_path, ENDPOINT, each * SECOND_US)
        for each in range(DRIFT_REPORTS_MAX + 3)
    ]
    assert sorted((tmp_path / "drift" / ENDPOINT).iterdir()) == made[3:]


def test_status_says_what_is_open_and_answers_by_exit_code(world: DriftWorld) -> None:
    text = run("status", ENDPOINT).output
    assert f"skewless drift report {ENDPOINT} --alarm {world.alarm_id}" in text
    assert "contract broken: nulls of `aircraft__seats`" in text
    assert "words that training never saw: BOS" in text
    (told,) = json.loads(run("status", "--json").stdout)["standings"]
    assert (told["rows_last_hour"], told["rows_last_day"]) == (ROWS, 24 * ROWS)
    assert told["furthest_from_training"][0]["name"] == "weather__temp"
    assert told["calibration"]["calibrated"] is True
    assert told["level"] == 2.4
    for fail_on, code in (("never", 0), ("alarm", 4), ("broken", 4)):
        run("status", "--fail-on", fail_on, code=code)
    assert "nothing of it" in run("status", "another", code=2).output


def test_status_of_a_home_that_nobody_used_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_HOME", str(tmp_path / "home"))
    text = run("status").output
    assert "Nothing is counted yet" in text
    assert "skewless up" in text
    assert json.loads(run("status", "--json").stdout) == {"standings": []}


def test_a_report_in_a_process_of_its_own_is_bounded_in_time_and_memory(world: DriftWorld) -> None:
    environment = {"SKEWLESS_HOME": str(world.made.home.root)}
    without = ("evidently", "expectations")
    folder = report_in_child(ENDPOINT, world.alarm_id, environment, without=without)
    assert (folder / "index.html").is_file()
    with pytest.raises(Unavailable, match="more than"):
        report_in_child(ENDPOINT, world.alarm_id, environment, without=without, timeout_s=0.001)
    with pytest.raises(Unavailable, match="ended with"):
        report_in_child(ENDPOINT, world.alarm_id, environment, without=without, memory_bytes=1 << 20)


# What Evidently makes of columns that break it, and Great Expectations of tables that should fail.


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return content(fitted=transform(), columns=flights(600, seed=1)).baseline


def bins_of(baseline: Baseline, name: str) -> Variable:
    return next(each for each in baseline.variables if each.name == name and each.part is Part.COLUMN)


def test_columns_that_break_evidently_are_told_of_and_do_not_hide_what_moved(baseline: Baseline) -> None:
    before, now = flights(600, seed=2), flights(600, seed=3)
    temp = now["weather__temp"]
    moved = temp.values.astype(np.float32) + np.float32(9)
    moved[:3] = [1e9, np.inf, np.nan]
    now["weather__temp"] = Column(Dtype.FLOAT32, moved, np.ones(600, dtype=np.bool_))
    now["noise__level"] = column_of(Dtype.FLOAT32, [None] * 600)
    now["tailnum"] = column_of(Dtype.STRING, [f"X{each}" for each in range(600)])
    names = ("weather__temp", "noise__level", "tailnum", "party", "scheduled_departure", "is_holiday")
    columns = [ComparedColumn(bins_of(baseline, name), before[name], now[name]) for name in names]
    page = evidently_page(columns, title="test")
    assert page.scores["weather__temp"] > 0.25, "one value of a billion hides nothing"
    assert page.scores["tailnum"] > 1
    assert page.scores["party"] < 0.1
    assert "noise__level" not in page.scores
    assert "X17" not in page.html, "words without a bin of their own have no name"
    told = "\n".join(page.notes)
    assert "`noise__level`: every value of the current rows is missing; not compared" in told
    assert "`weather__temp`: 2 values of the current rows are infinite or NaN" in told
    assert "`weather__temp`: 1 values beyond" in told


def test_rows_made_of_counts_are_no_change(baseline: Baseline) -> None:
    names = ("weather__temp", "origin", "party", "is_holiday", "distance")
    now = flights(2_000, seed=4)
    columns = [
        ComparedColumn(bins_of(baseline, name), pseudo_sample(bins_of(baseline, name), 2_000), now[name])
        for name in names
    ]
    assert max(evidently_page(columns, title="test").scores.values()) < 0.1


def served(columns: dict[str, Column], rows: int, *, age_s: float = 3_600.0, score: float = 0.3) -> pa.Table:
    ages = {view: column_of(Dtype.FLOAT64, [age_s] * rows) for view in ("weather", "aircraft", "noise")}
    scores = np.linspace(score - 0.01, score + 0.01, rows).astype(np.float32)
    return expected_table(
        ServedSample(rows, rows, columns, ages, {"score": Column(Dtype.FLOAT32, scores, np.ones(rows, dtype=np.bool_))})
    )


def judged(baseline: Baseline, table: pa.Table) -> dict[tuple[str, ...], bool]:
    suite = training_suite(ENDPOINT, baseline)
    results = run_suite(suite, table)
    assert not [each.error for each in results if each.error]
    keys = [(suite.expectations[each.position].type, *suite.expectations[each.position].columns) for each in results]
    return dict(zip(keys, [each.success for each in results], strict=True))


def test_rows_like_training_meet_every_expectation_and_each_can_be_missed(baseline: Baseline) -> None:
    rows = 400
    assert all(judged(baseline, served(flights(rows, seed=5), rows)).values())
    emptied = {name: column_of(each.dtype, [None] * rows) for name, each in flights(rows).items()}
    nothing = judged(baseline, served(emptied, rows))
    missed = {key[1] for key, met in nothing.items() if not met and key[0] == NOT_NULL}
    assert missed == set(emptied), "a column without values is missed, whatever else passes on it"
    few = judged(baseline, served(flights(5), 5))
    assert not few[(ROW_COUNT,)]
    shifted = judged(baseline, served(_foreign(rows), rows, age_s=10 * DAY_US / SECOND_US, score=5.0))
    unmissed = {key for key, met in shifted.items() if met and key[0] != NOT_NULL and key != (ROW_COUNT,)}
    assert not unmissed


def _foreign(rows: int) -> dict[str, Column]:
    """Values that training had none of."""
    columns = flights(rows)
    for name, column in columns.items():
        if column.dtype is Dtype.STRING:
            columns[name] = column_of(Dtype.STRING, ["elsewhere"] * rows)
        elif column.dtype in (Dtype.FLOAT32, Dtype.INT32, Dtype.INT64):
            values: Any = np.full(rows, 50_000, dtype=column.values.dtype)
            columns[name] = replace(column, values=values, valid=np.ones(rows, dtype=np.bool_))
    return columns
