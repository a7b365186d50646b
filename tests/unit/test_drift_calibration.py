"""The detector keeps its promises: false alarms at the promised rate, changes named within the promised windows.

Here in three small worlds, and by the stored results of many large ones: `make calibration` simulates those anew.
"""

import re
from pathlib import Path

import pytest
from scipy.stats import poisson

from bench.drift_calibration import (
    MOMENTS,
    SCENARIOS,
    Scenario,
    Tried,
    delay,
    false_alarms,
    late_share,
    poisson_interval,
    quiet_days,
    stored,
    table_lines,
    tried,
)
from bench.drift_worlds import WINDOWS_A_DAY

GUIDE = Path(__file__).parents[2] / "docs" / "drift.md"
SEEDS = (101, 102, 103)
UNSLICED = [each for each in SCENARIOS if not each.only]
SLOW = {"mean +0.1", "slow ramp, 0.1 deviations a day"}
"""Named after hundreds of windows: left to the stored worlds."""


@pytest.fixture(scope="module")
def trials() -> list[Tried]:
    return [tried(seed, numbers=6, words=2) for seed in SEEDS]


def test_false_alarms_come_as_seldom_as_promised(trials: list[Tried]) -> None:
    found = [quiet_days(each) for each in trials]
    count, expected = false_alarms(found)
    assert count <= poisson.ppf(0.999, expected), f"{count} false alarms where {expected:.1f} were promised: {found}"
    assert sum(each["breaks"] for each in found) == 0


@pytest.mark.parametrize("scenario", [each for each in UNSLICED if each.title not in SLOW], ids=lambda each: each.title)
def test_a_change_is_named_within_the_promised_windows(trials: list[Tried], scenario: Scenario) -> None:
    day, at = MOMENTS[0]
    delays = [delay(each, scenario, day * WINDOWS_A_DAY + at) for each in trials]
    assert all(each is not None for each in delays), delays
    assert late_share(delays, scenario.windows_max) <= 1 / 3, delays


def test_one_bad_slice_is_not_averaged_away() -> None:
    trial = tried(SEEDS[0], numbers=2, words=1, sliced=True)
    (scenario,) = [each for each in SCENARIOS if each.only]
    day, at = MOMENTS[0]
    windows = delay(trial, scenario, day * WINDOWS_A_DAY + at)
    assert windows is not None
    assert windows <= 2 * scenario.windows_max


def test_stored_worlds_have_false_alarms_at_the_promised_rate() -> None:
    for sliced in (False, True):
        count, expected = false_alarms([each for each in stored() if each["sliced"] is sliced])
        low, high = poisson_interval(count, expected)
        assert low <= 1.0 <= high, f"{count} false alarms where {expected:.1f} were promised"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.title)
def test_nine_of_ten_changes_in_stored_worlds_are_named_as_promised(scenario: Scenario) -> None:
    delays = [windows for each in stored() for windows in each["delays"].get(scenario.key, ())]
    assert len(delays) >= 12
    assert late_share(delays, scenario.windows_max) <= 0.1


def test_stored_worlds_are_those_of_their_seeds() -> None:
    """So that nobody edits a result, and none outlives a change of the detector."""
    first = next(each for each in stored() if not each["sliced"])
    trial = tried(first["seed"])
    again = quiet_days(trial)
    assert again == {name: first[name] for name in again}
    scenario = UNSLICED[0]
    day, at = MOMENTS[0]
    assert delay(trial, scenario, day * WINDOWS_A_DAY + at) == first["delays"][scenario.key][0]


def test_the_guide_shows_the_tables_that_the_command_prints() -> None:
    tables = re.sub(r"^ *\n", "", "\n".join(table_lines(stored())), flags=re.MULTILINE)
    shown = re.sub(r"^ *\n", "", GUIDE.read_text(), flags=re.MULTILINE)
    assert tables in shown, "paste what `python -m bench.drift_calibration table` prints into docs/drift.md"
