"""The monitors as programs ask them: rows that are counts, in every form, and the guide's example."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from harness.drift_world import CHANGED_HOURS, ROWS, SLICE, START_US, DriftWorld, drift_world
from harness.replays import ENDPOINT
from skewless.errors import InvalidRequest
from skewless.monitors import DriftFeature, MonitorRows, Monitors, open_monitors
from skewless.timestamps import DAY_US, HOUR_US, from_micros

GUIDE = Path(__file__).parents[2] / "docs" / "reports.md"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> DriftWorld:
    return drift_world(tmp_path_factory.mktemp("drift"), days=3, logged_days=0)


@pytest.fixture
def monitors(world: DriftWorld) -> Iterator[Monitors]:
    with open_monitors(world.url, artifacts=str(world.made.home.artifacts)) as opened:
        yield opened


def of(rows: MonitorRows[DriftFeature], name: str) -> list[DriftFeature]:
    return [each for each in rows if each.name == name and each.part == "column"]


def test_features_are_told_in_spans_with_the_numbers_of_their_windows(monitors: Monitors, world: DriftWorld) -> None:
    temps = of(monitors.drift(ENDPOINT, since=from_micros(world.end_us - DAY_US)), "weather__temp")
    assert [each.start for each in temps] == [from_micros(world.end_us - DAY_US + hour * HOUR_US) for hour in range(24)]
    assert {each.end - each.start for each in temps} == {timedelta(hours=1)}
    assert {each.rows for each in temps} == {ROWS}
    before, after = temps[:-CHANGED_HOURS], temps[-CHANGED_HOURS:]
    assert max(each.mean or 0.0 for each in before) < min(each.mean or 0.0 for each in after)
    assert all((each.psi or 0.0) > (each.psi_floor or 0.0) for each in after)


def test_longer_spans_are_the_windows_added_up(monitors: Monitors, world: DriftWorld) -> None:
    since = from_micros(world.end_us - DAY_US)
    hours = of(monitors.drift(ENDPOINT, since=since), "aircraft__seats")
    (day,) = of(monitors.drift(ENDPOINT, since=since, every=timedelta(days=1)), "aircraft__seats")
    assert day.rows == sum(each.rows for each in hours)
    nulls = sum(each.rows * (each.null_share or 0.0) for each in hours)
    assert day.null_share == pytest.approx(nulls / day.rows)
    assert day.minimum == min(each.minimum for each in hours if each.minimum is not None)


def test_a_slice_is_told_by_its_name_and_every_slice_where_none_is_named(monitors: Monitors) -> None:
    alone = monitors.drift(ENDPOINT, slice=SLICE, every=timedelta(days=1))
    assert {each.slice for each in alone} == {SLICE}
    assert {each.slice for each in monitors.drift(ENDPOINT, slice=None, every=timedelta(days=1))} == {"", SLICE}


def test_bundle_and_role_choose(monitors: Monitors, world: DriftWorld) -> None:
    day = timedelta(days=1)
    assert len(monitors.drift(ENDPOINT, bundle=world.bundle.digest[:6], role="live", every=day))
    assert not len(monitors.drift(ENDPOINT, role="canary", every=day))
    assert not len(monitors.drift(ENDPOINT, bundle="nothing", every=day))


def test_alarms_readings_and_words_are_those_of_the_database(monitors: Monitors, world: DriftWorld) -> None:
    (alarm,) = monitors.alarms(open_only=True)
    assert (alarm.id, alarm.closed, alarm.moved) == (world.alarm_id, None, ("weather__temp ↑", "aircraft__seats"))
    assert alarm.since == from_micros(world.changed_us)
    readings = monitors.readings(ENDPOINT)
    assert len(readings) == 72
    assert [each.start for each in readings if each.is_open] == [
        from_micros(world.changed_us + hour * HOUR_US) for hour in range(CHANGED_HOURS)
    ]
    assert readings[-1].breaks == ("nulls aircraft__seats",)
    (word,) = monitors.unseen_words(ENDPOINT)
    assert (word.feature, word.word, word.rows) == ("origin", "BOS", CHANGED_HOURS)


def test_rows_are_the_same_as_dataclasses_as_arrow_and_as_pandas(monitors: Monitors) -> None:
    rows = monitors.drift(ENDPOINT, every=timedelta(days=1))
    table, frame = rows.arrow(), rows.pandas()
    assert tuple(table.column_names) == tuple(frame.columns) == rows.columns
    assert table.to_pylist() == [{name: getattr(row, name) for name in rows.columns} for row in rows]
    assert table.schema.field("start").type == pa.timestamp("us", tz="UTC")
    assert isinstance(frame["start"].dtype, pd.DatetimeTZDtype)


def test_no_rows_are_a_table_with_every_column_and_its_type(monitors: Monitors) -> None:
    kinds: list[MonitorRows[Any]] = [
        monitors.drift("other"),
        monitors.readings("other"),
        monitors.alarms("other"),
        monitors.unseen_words("other"),
        monitors.model_metrics(ENDPOINT),
        monitors.parity(ENDPOINT),
    ]
    for rows in kinds:
        table = rows.arrow()
        assert table.num_rows == 0
        assert tuple(table.column_names) == rows.columns
        assert all(not pa.types.is_null(each.type) for each in table.schema)


def test_spans_that_do_not_divide_a_day_and_times_that_are_none_are_refused(monitors: Monitors) -> None:
    for every in (timedelta(seconds=1), timedelta(days=2), timedelta(minutes=7)):
        with pytest.raises(InvalidRequest, match="no length of a span"):
            monitors.drift(ENDPOINT, every=every)
    with pytest.raises(InvalidRequest, match="no time"):
        monitors.alarms(since=datetime(2013, 5, 6))  # noqa: DTZ001  # that is what is refused
    assert len(monitors.alarms(until=from_micros(START_US).astimezone(UTC))) == 0


def test_the_example_of_the_guide_runs(world: DriftWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_HOME", str(world.made.home.root))
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    told: dict[str, Any] = {}
    for block in blocks:
        exec(block, told)  # noqa: S102  # the guide is ours
    assert told["worst"].iloc[0]["name"] == "weather__temp"
