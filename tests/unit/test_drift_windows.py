"""Rows by window and slice: every row is counted once, in its window, however it came."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from skewless import monitor_limits
from skewless.column_table import ColumnTable
from skewless.drift import traffic as traffic_module
from skewless.drift.rows import taken
from skewless.drift.season import Grade, Season, grade_of
from skewless.drift.traffic import ALL, Series, Traffic
from skewless.drift.window_length import check_window
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidDefinition
from skewless.features.frame import Lines
from skewless.statistics.ages import NO_AGE
from skewless.statistics.bins import age_bins, column_bins
from skewless.statistics.counter import Counter
from skewless.statistics.observed import Observed
from skewless.statistics.tally import ROWS, Tally
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US

WINDOW_US = 5 * MINUTE_US
Rows = list[tuple[int, float | None, str]]
rows_drawn = st.lists(
    st.tuples(
        st.integers(0, 3 * WINDOW_US - 1),
        st.one_of(st.none(), st.sampled_from([0.0, 1.0, -2.5, 1e9, float("nan"), float("inf")])),
        st.sampled_from(["a", "b", "never seen"]),
    ),
    max_size=40,
)


def counter() -> Counter:
    numbers = Column(Dtype.FLOAT64, np.linspace(-3.0, 3.0, 200), np.ones(200, dtype=np.bool_))
    words = column_of(Dtype.STRING, ("a", "b") * 100)
    return Counter(
        [
            column_bins("x", numbers, served=False, known_max=512),
            column_bins("w", words, served=False, known_max=512),
        ]
    )


def observed(rows: Rows) -> tuple[Observed, NDArray[np.int64]]:
    columns = {
        "x": column_of(Dtype.FLOAT64, [value for _, value, _ in rows]),
        "w": column_of(Dtype.STRING, [word for _, _, word in rows]),
    }
    return Observed(len(rows), columns), np.array([time for time, _, _ in rows], dtype=np.int64)


def traffic_of(rows: Rows, by: Sequence[str] | None = None) -> Traffic:
    found = Traffic(counter(), WINDOW_US)
    found.add(*observed(rows), by)
    return found


def assert_equal(first: Series, second: Series) -> None:
    assert first.first == second.first
    for ours, theirs in ((first.counts, second.counts), (first.lows, second.lows), (first.highs, second.highs)):
        np.testing.assert_array_equal(ours, theirs)


@settings(deadline=None)
@given(rows_drawn, st.integers(0, 40))
def test_two_halves_merged_are_the_whole(rows: Rows, cut: int) -> None:
    whole = traffic_of(rows)
    merged = traffic_of(rows[:cut]).merged(traffic_of(rows[cut:]))
    assert merged.span == whole.span
    assert_equal(merged.series(), whole.series())


@settings(deadline=None)
@given(rows_drawn, st.randoms(use_true_random=False))
def test_rows_may_come_in_any_order_and_slices_add_up_to_the_whole(rows: Rows, random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis types its Random as an object
    sliced = traffic_of(shuffled, [word for _, _, word in shuffled])
    assert_equal(traffic_of(rows).series(), sliced.series())
    for name in sliced.slices:
        alone = traffic_of([row for row in rows if row[2] == name])
        np.testing.assert_array_equal(sliced.total(name).counts, alone.total().counts)


@settings(deadline=None)
@given(rows_drawn)
def test_every_window_has_the_tally_of_its_own_rows(rows: Rows) -> None:
    series = traffic_of(rows).series()
    for place in range(len(series)):
        chosen = [row for row in rows if row[0] // WINDOW_US == series.first + place]
        expected = counter().empty()
        counter().add(observed(chosen)[0], expected)
        np.testing.assert_array_equal(series.counts[place], expected.counts)
        np.testing.assert_array_equal(series.lows[place], expected.lows)


def test_windows_without_rows_are_there() -> None:
    series = traffic_of([(0, 1.0, "a"), (2 * WINDOW_US, 1.0, "a")]).series()
    assert series.rows.tolist() == [1, 0, 1]
    assert series.between(1, 3).rows.tolist() == [0, 1]
    wider = traffic_of([(0, 1.0, "a")]).series(ALL, (-1, 3))
    assert wider.rows.tolist() == [0, 1, 0, 0]
    assert wider.windows.tolist() == [-1, 0, 1, 2]


def test_late_rows_are_counted_in_their_window_and_told() -> None:
    found = traffic_of([(0, 1.0, "a"), (WINDOW_US, 1.0, "a")])
    found.seal(WINDOW_US)
    found.add(*observed([(WINDOW_US - 1, 2.0, "b"), (WINDOW_US, 2.0, "b")]))
    assert found.late_rows == 1
    assert found.series().rows.tolist() == [2, 2]
    assert found.merged(traffic_of([])).late_rows == 1
    assert found.merged(traffic_of([])).sealed == 1


def test_moments_before_1970_have_windows_too() -> None:
    assert traffic_of([(-1, 1.0, "a")]).span == (-1, 0)


def test_traffic_of_other_windows_or_bins_is_not_added() -> None:
    hourly = Traffic(counter(), HOUR_US)
    with pytest.raises(InvalidDefinition, match="cannot be merged"):
        traffic_of([]).merged(hourly)
    other = Traffic(Counter(counter().layout.variables[:1]), WINDOW_US)
    other.add(Observed(1, {"x": column_of(Dtype.FLOAT64, [1.0])}), np.zeros(1, dtype=np.int64))
    with pytest.raises(InvalidDefinition, match="cannot be added"):
        traffic_of([(0, 1.0, "a")]).merged(other)


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"slice {number}" for number in range(monitor_limits.DRIFT_SLICES_MAX + 1)]
    with pytest.raises(InvalidDefinition, match="one too many"):
        traffic_of([(0, 1.0, "a")] * len(names), names)
    monkeypatch.setattr(traffic_module, "DRIFT_CELLS_MAX", 2 * counter().layout.size)
    with pytest.raises(InvalidDefinition, match="longer windows"):
        traffic_of([(window * WINDOW_US, 1.0, "a") for window in range(3)])


def test_rows_are_taken_out_of_every_part() -> None:
    columns = {"x": column_of(Dtype.FLOAT64, [1.0, None, 3.0]), "y": column_of(Dtype.FLOAT64, [4.0, 5.0, 6.0])}
    whole = Observed(
        3,
        ColumnTable.from_columns(columns, 3),
        Lines({"x": 0}, np.array([[0, 2, 0]], dtype=np.uint8)),
        {"view": np.array([7, NO_AGE, 9])},
        np.arange(6, dtype=np.float32).reshape(3, 2),
        {"score": np.array([0.1, 0.2, 0.3], dtype=np.float32)},
    )
    found = taken(whole, np.array([2, 1]))
    found.check_lengths()
    assert found.rows == 2
    assert found.columns["x"].values.tolist() == [3.0, 0.0]
    assert found.columns["x"].valid.tolist() == [True, False]
    assert found.statuses["x"].tolist() == [0, 2]
    assert found.ages_us["view"].tolist() == [9, NO_AGE]
    assert found.tensor is not None
    assert found.tensor.tolist() == [[4.0, 5.0], [2.0, 3.0]]
    assert found.scores["score"].tolist() == pytest.approx([0.3, 0.2])


def test_ages_and_columns_are_counted_together() -> None:
    numbers = column_of(Dtype.FLOAT64, [1.0, 2.0])
    both = Counter(
        [column_bins("x", numbers, served=True, known_max=512), age_bins("view", np.array([1, 2], dtype=np.int64))]
    )
    found = Traffic(both, WINDOW_US)
    rows = Observed(2, {"x": numbers}, {"x": np.array([0, 2], np.uint8)}, {"view": np.array([5, NO_AGE])})
    found.add(rows, np.array([0, WINDOW_US]))
    tally: Tally = found.total()
    assert tally.counts[ROWS] == 2
    assert [each.nulls for each in both.layout.counted(tally)] == [0, 1]
    assert both.layout.counted(tally)[0].statuses == {"ok": 1, "missing": 1}


@pytest.mark.parametrize("window_us", [MINUTE_US, WINDOW_US, 30 * MINUTE_US, HOUR_US, 6 * HOUR_US, DAY_US])
def test_windows_fit_into_hours_and_days(window_us: int) -> None:
    assert check_window(window_us) == window_us


@pytest.mark.parametrize("window_us", [MINUTE_US // 2, 7 * MINUTE_US, 90 * MINUTE_US, 5 * HOUR_US, 2 * DAY_US])
def test_other_windows_are_refused(window_us: int) -> None:
    with pytest.raises(InvalidDefinition, match="whole parts of an hour"):
        check_window(window_us)


def test_the_same_hour_of_the_week_is_one_slot() -> None:
    season = Season.of(Grade.HOUR_OF_WEEK, WINDOW_US)
    assert season.slots == 168
    windows = np.arange(0, 3 * 7 * DAY_US // WINDOW_US)
    slots = season.slots_of(windows)
    assert slots[:13].tolist() == [0] * 12 + [1]
    np.testing.assert_array_equal(slots[:2016], slots[2016:4032])
    assert Season.of(Grade.HOUR_OF_DAY, WINDOW_US).slots == 24
    assert Season.of(Grade.HOUR_OF_WEEK, DAY_US).slots == 7
    assert Season.of(Grade.TRAINING, WINDOW_US).slots_of(windows).max() == 0


def test_an_hour_is_smoothed_with_its_neighbours_and_a_day_is_not() -> None:
    sums = np.zeros((168, 1))
    sums[0] = 3.0
    smoothed = Season.of(Grade.HOUR_OF_WEEK, WINDOW_US).smoothed(sums)[:, 0]
    assert np.flatnonzero(smoothed).tolist() == [0, 1, 167]
    assert Season.of(Grade.HOUR_OF_WEEK, DAY_US).smoothed(sums[:7])[1, 0] == 0.0


def test_the_length_of_history_says_what_an_alarm_is_worth() -> None:
    assert grade_of(28 * DAY_US) is Grade.HOUR_OF_WEEK
    assert grade_of(28 * DAY_US - 1) is Grade.HOUR_OF_DAY
    assert grade_of(7 * DAY_US - 1) is Grade.TRAINING
    assert [each for each in Grade if each.calibrated] == [Grade.HOUR_OF_WEEK]
