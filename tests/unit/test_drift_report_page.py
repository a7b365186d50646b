"""The report's page: says what counts say, needs nothing from elsewhere, and takes no name for markup."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from harness.bundles import content, transform
from harness.replays import NOW, flights
from skewless.canonical_json import digest
from skewless.cli import drift_advice
from skewless.cli.drift_advice import next_steps
from skewless.cli.drift_report_page import report_page
from skewless.cli.main import main
from skewless.drift.alarms import Alarm, Moved
from skewless.drift.check import Severity
from skewless.drift.season import Grade
from skewless.drift.streams import Kind, Stream
from skewless.dtypes import Column, Dtype, column_of
from skewless.monitors.window_report import (
    Calibration,
    Finding,
    Scope,
    Window,
    WindowReport,
    findings_of,
    recent_spans,
)
from skewless.registry.drift_records import DriftKey, DriftWindow, UnseenWord
from skewless.statistics.baseline import Baseline
from skewless.statistics.observed import Observed
from skewless.statistics.variable import Part
from skewless.timestamps import DAY_US, HOUR_US

ROWS = 400
SCOPE = Scope("flight-delay", digest("bundle"), "live", NOW, NOW + DAY_US)
KEY = DriftKey("flight-delay", digest("bundle"), "live")
EVIL = "<script>alert('1')</script>"
_VOID = {"meta", "rect", "line", "polyline", "polygon", "br"}


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return content(fitted=transform(), columns=flights(ROWS, seed=1)).baseline


def windows(baseline: Baseline, columns: dict[str, Column], start_us: int = NOW) -> list[Window]:
    counter = baseline.counter()
    tally = counter.empty()
    counter.add(Observed(ROWS, columns), tally)
    return [Window(start_us, HOUR_US, tally)]


def warmer() -> dict[str, Column]:
    columns = flights(ROWS, seed=2)
    temp = columns["weather__temp"]
    columns["weather__temp"] = Column(Dtype.FLOAT32, temp.values.astype(np.float32) * np.float32(3), temp.valid)
    return columns


def report(
    baseline: Baseline, columns: dict[str, Column], recent: dict[str, Column] | None = None, **changes: Any
) -> WindowReport:
    layout = baseline.counter().layout
    before = {} if recent is None else {"": windows(baseline, recent)}
    findings = findings_of(
        baseline,
        layout,
        {"": windows(baseline, columns)},
        before,
        (NOW, NOW + DAY_US),
        frozenset(changes.get("hidden", ())),
    )
    made = WindowReport(
        scope=SCOPE,
        rows=ROWS,
        late_rows=0,
        findings=findings,
        levels=(),
        alarms=(),
        calibration=None,
        recent="" if recent is None else "the same hours of recent weeks",
        words=(),
        hidden={},
    )
    return replace(made, **changes)


def the(made: WindowReport, name: str) -> Finding:
    return next(each for each in made.of() if each.current.name == name and each.current.part is Part.COLUMN)


class Balanced(HTMLParser):
    """Notes whether every element ends where it should."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002  # the parser's signature
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag


def checked(text: str) -> str:
    """A page that is whole and asks for nothing."""
    parser = Balanced()
    parser.feed(text)
    assert not parser.open
    assert not re.findall(r"https?:|<script|<link|<img|@import|url\(", text)
    assert "default-src 'none'" in text
    return text


def test_the_same_season_is_quiet_beside_both_and_its_page_says_so(baseline: Baseline) -> None:
    made = report(baseline, flights(ROWS, seed=3), flights(ROWS, seed=4))
    assert made.worst is Severity.QUIET
    assert "Quiet: no alarm, and nothing differs." in checked(report_page(made, {}, []))
    assert "Nothing to do" in next_steps(made)[0].text


def test_a_season_moves_what_is_beside_training_and_not_what_is_beside_recent_weeks(baseline: Baseline) -> None:
    made = report(baseline, warmer(), warmer())
    temp = the(made, "weather__temp")
    assert temp.training.severity.rank >= Severity.LARGE.rank
    assert temp.recent is not None
    assert temp.recent.severity is Severity.QUIET
    assert made.of()[0].current.name == "weather__temp", "the furthest is first"
    assert "No alarm in this window; 1 of" in checked(report_page(made, {}, []))


def test_a_slice_is_held_against_itself_and_not_against_training_of_all_rows(baseline: Baseline) -> None:
    columns = flights(ROWS, seed=2)
    columns["origin"] = column_of(Dtype.STRING, ["JFK"] * ROWS)
    layout, name, span = baseline.counter().layout, "origin=JFK", (NOW, NOW + DAY_US)
    of_slice = {name: windows(baseline, columns)}
    for recent in ({}, {name: windows(baseline, columns)}):
        found = findings_of(baseline, layout, of_slice, recent, span, frozenset())
        assert {each.severity for each in found} == {Severity.QUIET}


def test_what_is_hidden_is_in_no_finding_and_named_with_its_reason(baseline: Baseline) -> None:
    made = report(baseline, warmer(), hidden={"origin": "it is hashed in the log"})
    assert all(each.current.name != "origin" for each in made.of())
    text = checked(report_page(made, {}, []))
    assert "is not told: it is hashed in the log" in text
    assert "JFK" not in text


def test_an_alarm_says_since_when_what_moved_and_what_to_do(baseline: Baseline) -> None:
    stream = Stream("origin=JFK", Part.COLUMN, "weather__temp", Kind.RISE)
    moved = Moved(stream, 2.0, NOW, 0.001, named=True, reached_us=NOW + HOUR_US)
    alarm = Alarm(NOW + HOUR_US, NOW, None, 2.5, True, (moved,))
    calibration = Calibration(Grade.HOUR_OF_WEEK, 30.0, 40.0, 0.8, 35.0, 0.0)
    broken = {"rule": "nulls", "part": "column", "name": "aircraft__seats", "share": 0.9, "usual": 0.1}
    level = DriftWindow(KEY, NOW, HOUR_US, ROWS, 2.5, "weather__temp", True, Grade.HOUR_OF_WEEK, (broken,))
    made = report(baseline, warmer(), alarms=(alarm,), calibration=calibration, levels=(level, level))
    text = checked(report_page(made, {"evidently.html": "rows"}, ["a note"]))
    for told in (
        "since about 2013-05-01 12:30",
        "<b>weather__temp</b> ↑ in origin=JFK",
        "one false alarm in 30 days is promised; on history it raised 0.8 times as many",
        "<code>skewless parity check --endpoint flight-delay</code>",
        "<code>aircraft__seats</code></td><td>90.0%</td><td>10.0%",
        "<a href='evidently.html'>",
        "a note",
        "<polyline class='level'",
    ):
        assert told in text, told
    assert len({each.command for each in next_steps(made)}) == len(next_steps(made)), "one step for each command"


def test_every_step_names_a_command_that_there_is() -> None:
    told = Path(drift_advice.__file__).read_text()
    asked = {tuple(each.split()) for each in re.findall(r'"skewless ([a-z -]+?)(?= -| \{|")', told)}
    assert len(asked) >= 5
    for words in asked:
        command: click.Command | None = main
        for word in words:
            assert isinstance(command, click.Group), words
            command = command.get_command(click.Context(command), word)
        assert command is not None, words


def test_an_uncalibrated_endpoint_is_told_how_many_days_are_missing(baseline: Baseline) -> None:
    calibration = Calibration(Grade.HOUR_OF_DAY, 30.0, None, None, 9.0, 19.0)
    made = report(baseline, warmer(), calibration=calibration)
    text = checked(report_page(made, {}, []))
    assert "UNCALIBRATED: 9.0 days of history are too few, 19.0 more are needed" in text
    assert "skewless drift backfill flight-delay" in text


def test_no_name_word_or_note_becomes_markup(baseline: Baseline) -> None:
    word = UnseenWord(EVIL, EVIL, 3, 1, NOW, NOW)
    variables = tuple(replace(each, name=EVIL) if each.name == "party" else each for each in baseline.variables)
    named = replace(baseline, variables=variables)
    columns = flights(ROWS, seed=2)
    columns[EVIL] = column_of(Dtype.INT32, [9] * ROWS)
    del columns["party"]
    level = DriftWindow(
        KEY,
        NOW,
        HOUR_US,
        ROWS,
        0.5,
        "",
        False,
        None,
        ({"rule": "nulls", "part": None, "name": EVIL, "share": 1, "usual": 0},),
    )
    made = report(
        named, columns, words=(word,), scope=replace(SCOPE, endpoint=EVIL), levels=(level,), hidden={EVIL: EVIL}
    )
    shown = report(named, columns)
    for each in (made, shown):
        text = checked(report_page(each, {EVIL: EVIL}, [EVIL]))
        assert EVIL not in text
        assert "&lt;script&gt;" in text


def test_the_same_hours_before_a_window_never_overlap_it() -> None:
    for grade in (Grade.HOUR_OF_WEEK, Grade.HOUR_OF_DAY):
        for length in (HOUR_US, DAY_US, 9 * DAY_US, 31 * DAY_US):
            spans = recent_spans(100 * DAY_US, 100 * DAY_US + length, grade)
            ends = [100 * DAY_US, *(start for start, _ in spans)]
            assert all(end <= after for (_, end), after in zip(spans, ends, strict=False))
            period = (7 if grade is Grade.HOUR_OF_WEEK else 1) * DAY_US
            assert all((100 * DAY_US - start) % period == 0 for start, _ in spans)
