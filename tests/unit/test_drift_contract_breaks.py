"""Contracts that break are told after two windows; what was usual in history is not."""

from collections.abc import Sequence

import numpy as np
import pytest

from skewless.drift.contract_breaks import Break, ContractRules, Rule, Runs
from skewless.drift.traffic import Series, Traffic
from skewless.dtypes import Column, Dtype, column_of
from skewless.statistics.bins import column_bins
from skewless.statistics.counter import Counter
from skewless.statistics.observed import Observed
from skewless.statistics.variable import Part
from skewless.timestamps import MINUTE_US

WINDOW_US = 5 * MINUTE_US
ROWS = 100
PARTS = frozenset({Part.COLUMN})
Window = tuple[Sequence[float | None], Sequence[str | None]]

ORDINARY: Window = (np.linspace(0.0, 1.0, ROWS).tolist(), ["a"] * 60 + ["b"] * 40)
EMPTIED: Window = ([None] * ROWS, ORDINARY[1])
HALF_NULL: Window = ([None] * 50 + [0.5, 0.25] * 25, ORDINARY[1])
STILL: Window = ([0.5] * ROWS, ORDINARY[1])
ONE_WORD: Window = (ORDINARY[0], ["a"] * ROWS)
NEWS: Window = ([7.0, 8.0] * 50, ["new", "a"] * 50)
NOTHING: Window = ([], [])


def series_of(windows: Sequence[Window]) -> Series:
    counter = Counter(
        [
            column_bins("x", column_of(Dtype.FLOAT64, list(ORDINARY[0])), served=False, known_max=9),
            column_bins("w", column_of(Dtype.STRING, list(ORDINARY[1])), served=False, known_max=9),
        ]
    )
    found = Traffic(counter, WINDOW_US)
    for place, (numbers, words) in enumerate(windows):
        columns: dict[str, Column] = {
            "x": column_of(Dtype.FLOAT64, list(numbers)),
            "w": column_of(Dtype.STRING, list(words)),
        }
        found.add(Observed(len(numbers), columns), np.full(len(numbers), place * WINDOW_US))
    return found.series(span=(0, len(windows)))


def told(history: Sequence[Window], after: Sequence[Window]) -> list[list[tuple[Rule, str]]]:
    return [[(each.rule, each.name) for each in broken] for broken in breaks(history, after)]


def breaks(history: Sequence[Window], after: Sequence[Window]) -> list[tuple[Break, ...]]:
    before, series = series_of(history), series_of(after)
    rules, runs = ContractRules.of(before, PARTS), Runs.none(2)
    usual = before.counts.sum(axis=0).astype(np.float64)
    return [rules.step(series, place, usual, float(ROWS), runs) for place in range(len(series))]


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (HALF_NULL, [(Rule.NULLS, "x")]),
        (EMPTIED, [(Rule.NULLS, "x")]),
        (STILL, [(Rule.CONSTANT, "x")]),
        (ONE_WORD, [(Rule.CONSTANT, "w")]),
        (NEWS, [(Rule.UNSEEN, "x"), (Rule.UNSEEN, "w")]),
        (NOTHING, [(Rule.NO_TRAFFIC, "")]),
    ],
)
def test_a_broken_contract_is_told_from_the_second_window_on_until_it_holds_again(
    window: Window, expected: list[tuple[Rule, str]]
) -> None:
    assert told([ORDINARY] * 5, [ORDINARY, window, window, window, ORDINARY]) == [[], [], expected, expected, []]


@pytest.mark.parametrize("window", [HALF_NULL, STILL, ONE_WORD, NEWS])
def test_what_happened_in_history_must_last_more_than_twice_as_long(window: Window) -> None:
    found = told([ORDINARY, window, window, ORDINARY], [window] * 6)
    assert [bool(each) for each in found] == [False] * 4 + [True] * 2


def test_a_break_says_since_when_and_how_much() -> None:
    last = breaks([ORDINARY] * 5, [ORDINARY, HALF_NULL, HALF_NULL])[-1][0]
    assert (last.rule, last.part, last.since, last.windows) == (Rule.NULLS, Part.COLUMN, 1, 2)
    assert (last.share, last.usual) == (0.5, 0.0)
    assert last.to_json()["part"] == "column"


def test_a_value_that_was_nearly_always_there_may_stand_for_a_while() -> None:
    rare: Window = ([0.0] * (ROWS - 1) + [5.0], ORDINARY[1])
    dry: Window = ([0.0] * ROWS, ORDINARY[1])
    series, after = series_of([rare] * 5), series_of([dry] * 40)
    rules, runs = ContractRules.of(series, PARTS), Runs.none(2)
    usual = series.counts.sum(axis=0).astype(np.float64)
    found = [bool(rules.step(after, place, usual, float(ROWS), runs)) for place in range(40)]
    assert not any(found[:10]), "a thousand dry rows are no wonder where one in a hundred is wet"
    assert found[-1], "four thousand are"


def test_few_rows_break_nothing() -> None:
    few: Window = ([None] * 5, ["new"] * 5)
    assert told([ORDINARY] * 5, [few] * 4) == [[]] * 4


def test_hours_in_which_nobody_asks_are_no_break() -> None:
    before, series = series_of([ORDINARY] * 5), series_of([NOTHING] * 4)
    rules, runs = ContractRules.of(before, PARTS), Runs.none(2)
    usual = before.counts.sum(axis=0).astype(np.float64)
    assert [rules.step(series, place, usual, 2.0, runs) for place in range(4)] == [()] * 4


def test_runs_survive_a_restart() -> None:
    runs = Runs.none(2)
    runs.nulls[1], runs.constant_rows[0], runs.empty, runs.rows_missing = 3, 77, 2, 1.5
    again = Runs.from_json(runs.to_json())
    assert again.to_json() == runs.to_json()
    assert again.nulls.tolist() == [0, 3]
