"""The comparison of a shadow with live: sums that add up, and a reading that holds whenever it is made."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.simulations import alarms_max, paths
from skewless.canonical_json import encode
from skewless.errors import InvalidDefinition
from skewless.rollout.shadow_comparison import ShadowComparison, Verdict

Scores = NDArray[np.float32]
NOTHING = ShadowComparison()
scores = st.floats(0, 1, width=32) | st.just(math.nan)
pairs = st.lists(st.tuples(scores, scores, st.booleans()), max_size=20)


def compared(rows: list[tuple[float, float, bool]], before: ShadowComparison = NOTHING) -> ShadowComparison:
    live, shadow = (np.array([row[each] for row in rows], np.float32) for each in (0, 1))
    return before.added(live, shadow, np.array([row[2] for row in rows], np.bool_))


def shifted(random: np.random.Generator, rows: int, shift: float, deviation: float) -> tuple[Scores, Scores]:
    """Scores of live, and of a shadow that differs in the mean by `shift`."""
    live = random.uniform(0.2, 0.8, rows)
    shadow = live + shift + np.clip(random.normal(0.0, deviation, rows), -0.19, 0.19)
    return live.astype(np.float32), shadow.astype(np.float32)


@settings(deadline=None)
@given(pairs)
def test_sums_are_those_of_the_rows_with_both_scores(rows: list[tuple[float, float, bool]]) -> None:
    comparison = compared(rows)
    known = [(shadow - live, flip) for live, shadow, flip in rows if not math.isnan(live + shadow)]
    assert (comparison.rows, comparison.failed) == (len(known), len(rows) - len(known))
    assert comparison.total == pytest.approx(sum(each for each, _ in known), abs=1e-9)
    assert comparison.squares == pytest.approx(sum(each**2 for each, _ in known), abs=1e-9)
    assert comparison.largest == pytest.approx(max((abs(each) for each, _ in known), default=0.0), abs=1e-9)
    assert comparison.flips == sum(flip for _, flip in known)
    assert comparison.equal == sum(each == 0.0 for each, _ in known)


@settings(deadline=None)
@given(st.lists(pairs, max_size=4))
def test_sums_of_parts_add_up_to_those_of_the_whole(parts: list[list[tuple[float, float, bool]]]) -> None:
    merged = ShadowComparison()
    for part in parts:
        merged = merged.merged(compared(part))
    whole = compared([row for part in parts for row in part])
    for name in ("rows", "equal", "flips", "failed", "largest"):
        assert getattr(merged, name) == getattr(whole, name)
    assert merged.total == pytest.approx(whole.total, abs=1e-9)
    assert merged.squares == pytest.approx(whole.squares, abs=1e-9)


@settings(deadline=None)
@given(pairs, pairs)
def test_a_comparison_reads_back_from_its_json(first: list[Any], second: list[Any]) -> None:
    comparison = compared(second, compared(first))
    assert ShadowComparison.from_json(json.loads(encode(comparison.to_json()))) == comparison


@pytest.mark.parametrize(
    "changed",
    [{"rows": -1}, {"flips": 11}, {"equal": 11}, {"total": 11.0}, {"spread": -0.1}, {"rows": "ten"}, {"a": 1}],
)
def test_sums_of_no_rows_at_all_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(InvalidDefinition):
        ShadowComparison.from_json({**ShadowComparison(rows=10, total=1.0, squares=1.0).to_json(), **changed})


def test_a_guess_is_made_before_its_rows_are_known() -> None:
    """Otherwise the bounds would be too narrow: what is known already is no surprise."""
    first = compared([(0.5, 0.75, False), (0.5, 0.75, False)])
    assert first.spread == pytest.approx(2 * 0.25**2)
    assert compared([(0.5, 0.75, False)], first).spread == pytest.approx(2 * 0.25**2)
    assert compared([(0.5, 0.5, False)], first).spread == pytest.approx(3 * 0.25**2)


def test_nothing_is_said_of_no_rows() -> None:
    reading = ShadowComparison().reading()
    assert (reading.rows, reading.low, reading.high, reading.verdict) == (0, -1.0, 1.0, Verdict.UNDECIDED)
    assert reading.words == "no rows are compared yet"


def test_few_rows_decide_nothing_however_alike_they_are() -> None:
    same = np.full(50, 0.5, np.float32)
    reading = ShadowComparison().added(same, same, np.zeros(50, np.bool_)).reading()
    assert reading.verdict is Verdict.UNDECIDED
    assert reading.words.startswith("undecided: the shadow's scores differ by -0.")
    assert (reading.equal, reading.mean, reading.deviation) == (50, 0.0, 0.0)


@pytest.mark.parametrize(
    ("shift", "verdict"), [(0.0, Verdict.ALIKE), (0.02, Verdict.DIFFERENT), (-0.02, Verdict.DIFFERENT)]
)
def test_enough_rows_decide(shift: float, verdict: Verdict) -> None:
    live, shadow = shifted(np.random.default_rng(1), 20_000, shift, 0.05)
    reading = ShadowComparison().added(live, shadow, (live > 0.5) != (shadow > 0.5)).reading()
    assert reading.verdict is verdict
    assert reading.low < shift < reading.high
    assert reading.flip_low < float(((live > 0.5) != (shadow > 0.5)).mean()) < reading.flip_high
    assert reading.words.startswith(f"{verdict}: ")
    assert ("lower" in reading.words) == (shift < 0)
    assert reading.deviation == pytest.approx(0.05, rel=0.05)


def test_a_mean_that_hides_opposite_differences_shows_in_the_labels() -> None:
    live = np.tile(np.array([0.4, 0.6], np.float32), 20_000)
    reading = ShadowComparison().added(live, 1 - live, np.ones(40_000, np.bool_)).reading()
    assert reading.verdict is Verdict.ALIKE
    assert reading.flip_low > 0.99
    assert reading.largest == pytest.approx(0.2)


def test_a_reading_is_plain_data() -> None:
    reading = compared([(0.5, 0.75, True)]).reading()
    told = json.loads(encode(reading.to_json()))
    assert told["verdict"] == "undecided"
    assert set(told) == set(replace(reading).__slots__)


def test_readings_of_equal_scores_are_wrong_no_more_often_than_alpha_says_however_often_they_are_made() -> None:
    """Read after every batch of 500 rows, of 20,000: with a tolerance of 0, any difference found is a false one."""
    random, count = np.random.default_rng(4), paths(12)
    alarms = 0
    for _ in range(count):
        comparison = ShadowComparison()
        for _ in range(40):
            live, shadow = shifted(random, 500, 0.0, 0.05)
            comparison = comparison.added(live, shadow, random.random(500) < 0.03)
            reading = comparison.reading(alpha=0.1, tolerance=0.0)
            if reading.verdict is Verdict.DIFFERENT or not reading.flip_low <= 0.03 <= reading.flip_high:
                alarms += 1
                break
    assert alarms <= alarms_max(count, 0.1)


@pytest.mark.parametrize(("shift", "rows_max"), [(0.05, 3_000), (0.01, 10_000)])
def test_a_shift_is_found_after_a_bounded_number_of_rows(shift: float, rows_max: int) -> None:
    random = np.random.default_rng(6)
    for _ in range(paths(10)):
        comparison = ShadowComparison()
        for _ in range(rows_max // 500):
            live, shadow = shifted(random, 500, shift, 0.05)
            comparison = comparison.added(live, shadow, np.zeros(500, np.bool_))
        assert comparison.reading(tolerance=0.0).verdict is Verdict.DIFFERENT
