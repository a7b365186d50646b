"""The detector: one alarm for a change, with a name and a time; the same however it is interrupted."""

import json
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pytest

from bench.drift_worlds import FIRST_WINDOW, WINDOW_US, WINDOWS_A_DAY, Change, World, counted, history_and_after, world
from skewless.drift.alarms import Alarm, Moved, Reading
from skewless.drift.calibration import WATCHED, Calibration, calibrate
from skewless.drift.contract_breaks import ContractRules, Rule
from skewless.drift.detector import CAP, Detector
from skewless.drift.localisation import joined
from skewless.drift.rule_of_thumb import RuleOfThumb
from skewless.drift.season import Grade
from skewless.drift.streams import Kind, Stream
from skewless.drift.traffic import ALL, Series
from skewless.errors import InvalidDefinition
from skewless.statistics.tally import ROWS, Tally
from skewless.statistics.variable import Part

SEED = 11
DAYS = 28
QUIET_DAYS = 4
AT = (DAYS + 1) * WINDOWS_A_DAY + 100
END_US = (FIRST_WINDOW + (DAYS + QUIET_DAYS) * WINDOWS_A_DAY) * WINDOW_US


@pytest.fixture(scope="module")
def made() -> World:
    return world(SEED, days=DAYS + QUIET_DAYS, numbers=4, words=2)


@pytest.fixture(scope="module")
def history(made: World) -> Mapping[str, Series]:
    return history_and_after(made, DAYS, SEED)[0]


@pytest.fixture(scope="module")
def calibration(history: Mapping[str, Series]) -> Calibration:
    return calibrate(history)


@pytest.fixture(scope="module")
def rules(history: Mapping[str, Series]) -> ContractRules:
    return ContractRules.of(history[ALL], WATCHED)


def changed(made: World, change: Change | None) -> dict[str, Series]:
    """The days after history, changed from AT on."""
    return counted(made, DAYS * WINDOWS_A_DAY, len(made), SEED, change, AT)


def cut(series: Mapping[str, Series], first: int, stop: int) -> dict[str, Series]:
    start = series[ALL].first
    return {name: each.between(start + first, start + stop) for name, each in series.items()}


def test_a_change_is_one_alarm_with_a_name_a_beginning_and_an_end(
    made: World, calibration: Calibration, rules: ContractRules
) -> None:
    detector = Detector(calibration, rules)
    shifted = changed(made, Change("shift", 0.5, "number_01"))
    until, back = AT - DAYS * WINDOWS_A_DAY + 100, changed(made, None)
    detector.advance(cut(shifted, 0, until))
    (alarm,) = detector.alarms
    assert alarm.closed_us is None
    assert alarm.calibrated
    assert alarm.moved[0].stream.name == "number_01"
    changed_us = (FIRST_WINDOW + AT) * WINDOW_US
    assert changed_us <= alarm.opened_us <= changed_us + 12 * WINDOW_US
    assert changed_us - 3 * WINDOW_US <= alarm.since_us <= alarm.opened_us
    readings = detector.advance(cut(back, until, len(back[ALL])))
    (closed,) = detector.alarms
    assert closed.closed_us is not None
    assert closed.peak <= CAP
    assert [each.is_open for each in readings][-1] is False
    assert closed.closed_us - (FIRST_WINDOW + DAYS * WINDOWS_A_DAY + until) * WINDOW_US < 300 * WINDOW_US


def test_a_rise_and_a_fall_are_told_apart(made: World, calibration: Calibration, rules: ContractRules) -> None:
    """Of a slow ramp the mean tells first: its stream adds up what no window shows by itself."""
    kinds = []
    for size in (0.1, -0.1):
        detector = Detector(calibration, rules)
        detector.advance(changed(made, Change("ramp", size, "number_02")))
        kinds.append(
            {each.stream.kind for alarm in detector.alarms for each in alarm.named if each.stream.name == "number_02"}
        )
    assert kinds == [{Kind.RISE}, {Kind.FALL}]


def test_a_restart_at_any_window_is_no_restart(made: World, calibration: Calibration, rules: ContractRules) -> None:
    series = changed(made, Change("nulls", 0.5, "number_01"))
    whole = Detector(calibration, rules)
    expected = whole.advance(series)
    going, found = Detector(calibration, rules), list[Reading]()
    stops = [0, 1, AT - DAYS * WINDOWS_A_DAY + 1, AT - DAYS * WINDOWS_A_DAY + 5, 700, len(series[ALL])]
    for first, stop in pairwise(stops):
        found += going.advance(cut(series, first, stop))
        saved = json.loads(json.dumps(going.to_json()))
        going = Detector(calibration, rules)
        going.restore(saved)
    assert tuple(found) == expected
    assert going.alarms == whole.alarms
    assert whole.alarms
    assert any(each.breaks for each in expected)


def test_windows_must_come_in_order_and_once(made: World, calibration: Calibration, rules: ContractRules) -> None:
    detector, series = Detector(calibration, rules), changed(made, None)
    detector.advance(cut(series, 0, 5))
    for first in (0, 4, 6):
        with pytest.raises(InvalidDefinition, match="the next window is"):
            detector.advance(cut(series, first, first + 1))


def test_the_state_of_another_calibration_is_refused(calibration: Calibration, rules: ContractRules) -> None:
    saved = Detector(calibration, rules).to_json()
    with pytest.raises(InvalidDefinition, match="streams"):
        Detector(calibration, rules).restore({**saved, "sums": [0.0]})


def test_windows_without_rows_neither_raise_nor_calm_an_alarm(
    made: World, calibration: Calibration, rules: ContractRules
) -> None:
    series = changed(made, None)[ALL]
    counts = series.counts.copy()
    counts[100:103] = 0
    emptied = Series(series.layout, series.window_us, series.first, counts, series.lows, series.highs)
    readings = Detector(calibration, rules).advance({ALL: emptied})
    assert [each.level for each in readings[100:103]] == [readings[99].level] * 3
    assert [[broken.rule for broken in each.breaks] for each in readings[100:103]] == [
        [],
        [Rule.NO_TRAFFIC],
        [Rule.NO_TRAFFIC],
    ]
    assert not readings[103].breaks


def test_more_traffic_is_no_drift(made: World, calibration: Calibration, rules: ContractRules) -> None:
    quiet = Detector(calibration, rules)
    quiet.advance(changed(made, None))
    grown = World(made.layout, made.rows * 4, made.means, made.logits, made.slice_shares)
    detector = Detector(calibration, rules)
    detector.advance(changed(grown, None))
    assert len(detector.alarms) <= len(quiet.alarms) + 1


def test_a_week_of_history_is_compared_by_hours_of_the_day_and_says_so(made: World) -> None:
    whole = counted(made, 0, 10 * WINDOWS_A_DAY, SEED)
    found = calibrate(whole)
    assert found.grade is Grade.HOUR_OF_DAY
    detector = Detector(found, ContractRules.of(whole[ALL], WATCHED))
    assert not detector.calibrated
    with pytest.raises(InvalidDefinition, match="too few to calibrate"):
        calibrate(counted(made, 0, 6 * WINDOWS_A_DAY, SEED))


def test_the_profile_is_the_plain_sum_of_the_same_hours(
    history: Mapping[str, Series], calibration: Calibration
) -> None:
    series, reference = history[ALL], calibration.slices[ALL]
    hours = series.windows * WINDOW_US // 3_600_000_000 % 168
    for hour in (0, 77, 167):
        chosen = np.isin(hours, [(hour - 1) % 168, hour, (hour + 1) % 168])
        np.testing.assert_array_equal(reference.profile[hour], series.counts[chosen].sum(axis=0))
        assert reference.windows[hour] == chosen.sum() == 4 * 3 * 12


def test_without_history_training_and_a_rule_of_thumb_raise_uncalibrated_alarms(
    made: World, rules: ContractRules
) -> None:
    shifted = changed(made, Change("shift", 1.5, "number_01"))
    start = AT - DAYS * WINDOWS_A_DAY
    # Of the same hours: seen from another time of day, the daily cycle alone would be an alarm.
    before = cut(shifted, start - 60, start - 20)[ALL]
    lows, highs = before.lows.min(axis=0), before.highs.max(axis=0)
    training = Tally(before.layout.digest, before.counts.sum(axis=0), lows, highs)
    thumb = RuleOfThumb({ALL: training}, rules, WATCHED)
    quiet = thumb.advance(cut(shifted, start - 20, start))
    assert not thumb.alarms
    assert not any(each.is_open for each in quiet)
    thumb.advance(cut(shifted, start, start + 10))
    (alarm,) = thumb.alarms
    assert not alarm.calibrated
    assert alarm.moved[0].stream.name == "number_01"
    assert alarm.moved[0].share is None
    assert Alarm.from_json(json.loads(json.dumps(alarm.to_json()))) == alarm


def moved(name: str, level: float, *, reached_us: int | None, named: bool = True) -> Moved:
    return Moved(Stream("", Part.COLUMN, name, Kind.RISE), level, 0, 0.01, named, reached_us)


def test_what_moves_later_joins_the_alarm_in_order_of_time() -> None:
    first = (
        moved("a", 1.0, reached_us=1),
        moved("b", 0.9, reached_us=None),
        moved("c", 0.4, reached_us=None, named=False),
    )
    second = joined(
        first, (moved("d", 1.2, reached_us=2), moved("a", 1.1, reached_us=2), moved("e", 0.9, reached_us=None))
    )
    assert [(each.stream.name, each.reached_us) for each in second] == [("a", 1), ("b", None), ("c", None), ("d", 2)]
    third = joined(second, (moved("c", 1.3, reached_us=3, named=False), moved("b", 1.0, reached_us=3)))
    assert [(each.stream.name, each.reached_us) for each in third if each.named] == [
        ("a", 1),
        ("b", 3),
        ("d", 2),
        ("c", 3),
    ]


def test_readings_have_the_rows_and_the_beginning_of_their_window(
    made: World, calibration: Calibration, rules: ContractRules
) -> None:
    series = changed(made, None)
    readings = Detector(calibration, rules).advance(series)
    assert [each.rows for each in readings] == series[ALL].counts[:, ROWS].tolist()
    assert readings[-1].start_us == END_US - WINDOW_US
