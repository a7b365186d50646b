"""What the parity monitor keeps, on SQLite and PostgreSQL alike."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import Engine

from skewless.canonical_json import Digest
from skewless.errors import Conflict
from skewless.monitor_limits import PARITY_EXAMPLES_KEPT, PARITY_GROUPS
from skewless.parity.schedule import PERIOD_US, STEP_US, Pass
from skewless.parity.tally import Count, Level, Stratum, TallyKey
from skewless.registry import database
from skewless.registry.parity_history import ParityExample, ParityHistory, added_up
from skewless.timestamps import Micros, parse_timestamp

HOUR = parse_timestamp("2026-05-01T10:00:00Z")
ONE, TWO = Digest("1" * 64), Digest("2" * 64)
VIEW = TallyKey(ONE, Stratum.ENTITY, Level.VIEWS, "weather")
CAUSE = TallyKey(ONE, Stratum.ENTITY, Level.CAUSES, "weather", "coercion")
NOBODY: list[ParityExample] = []


@pytest.fixture
def engine(registry_url: str) -> Iterator[Engine]:
    made = database.engine(registry_url)
    yield made
    made.dispose()


@pytest.fixture
def history(engine: Engine) -> ParityHistory:
    return ParityHistory(engine, clock=lambda: Micros(HOUR))


def groups(**at: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    found = np.zeros(PARITY_GROUPS, dtype=np.int64)
    for number, rows in at.items():
        found[int(number.removeprefix("g"))] = rows
    return found


def a_tally(hits: int = 1, **units: int) -> dict[TallyKey, Count]:
    whole = groups(**units)
    wrong = np.minimum(whole, hits)
    rows, differing = int(whole.sum()), int(wrong.sum())
    return {VIEW: Count(rows, differing, whole, wrong), CAUSE: Count(rows, differing, None, wrong)}


def an_example(number: int, *, view: str = "weather") -> ParityExample:
    told = {"prediction_id": f"p{number}", "words": "é"}
    return ParityExample("search", HOUR, Pass.THEN, ONE, view, "coercion", f"p{number}", told)


def test_portions_of_an_hour_add_up_and_are_noted_with_what_was_found(history: ParityHistory) -> None:
    history.note_then("search", {HOUR: 3, HOUR + STEP_US: 2}, a_tally(g1=3, g2=2), [an_example(1)])
    history.note_then("search", {HOUR + 2 * STEP_US: 4}, a_tally(hits=0, g1=4), NOBODY)
    history.note_then("search", {HOUR + PERIOD_US: 1}, a_tally(g5=1), NOBODY)
    noted = history.passes("search", Pass.THEN)
    assert noted[HOUR].steps == {HOUR: 3, HOUR + STEP_US: 2, HOUR + 2 * STEP_US: 4}
    assert (noted[HOUR].rows, noted[HOUR].checked_time) == (9, HOUR)
    assert set(history.passes("search", Pass.THEN, HOUR + PERIOD_US + 7)) == {HOUR + PERIOD_US}
    assert history.passes("search", Pass.FINALLY) == history.passes("other", Pass.THEN) == {}
    first = {each.key: each for each in history.results("search", until=HOUR + 1)}
    assert (first[VIEW].units, first[VIEW].mismatches, first[VIEW].entities) == (9, 2, 2)
    assert (first[CAUSE].units, first[CAUSE].mismatches) == (9, 2), "units of a cause are those of its view"
    assert first[CAUSE].low < first[CAUSE].rate == 2 / 9 < first[CAUSE].high
    (example,) = history.examples("search")
    assert example.explanation == {"prediction_id": "p1", "words": "é"}


def test_what_is_noted_is_not_counted_again(history: ParityHistory) -> None:
    history.note_then("search", {HOUR: 3}, a_tally(g1=3), NOBODY)
    before = history.results("search")
    with pytest.raises(Conflict, match="another monitor"):
        history.note_then("search", {HOUR: 3, HOUR + STEP_US: 1}, a_tally(g1=4), [an_example(1)])
    assert [each.units for each in history.results("search")] == [each.units for each in before]
    assert history.passes("search", Pass.THEN)[HOUR].rows == 3
    assert history.examples("search") == ()


def test_of_monitors_that_compare_the_same_step_at_once_one_wins(history: ParityHistory, engine: Engine) -> None:
    others = [ParityHistory(engine, clock=lambda: Micros(HOUR)) for _ in range(4)]
    barrier, won = threading.Barrier(len(others)), []

    def compete(mine: ParityHistory) -> None:
        barrier.wait(30)
        try:
            mine.note_then("search", {HOUR: 3}, a_tally(g1=3), NOBODY)
        except Conflict:
            return
        won.append(mine)

    threads = [threading.Thread(target=compete, args=(each,)) for each in others]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert len(won) == 1
    assert {each.units for each in history.results("search")} == {3}


def test_the_final_pass_replaces_itself_and_goes_before_the_first_one(history: ParityHistory) -> None:
    history.note_then("search", {HOUR: 3}, a_tally(g1=3), NOBODY)
    history.note_then("search", {HOUR + PERIOD_US: 7}, a_tally(g1=7), NOBODY)
    history.note_finally("search", HOUR, {HOUR: 3, HOUR + STEP_US: 2}, a_tally(g1=5), NOBODY)
    history.note_finally("search", HOUR, {HOUR: 3, HOUR + STEP_US: 3}, a_tally(hits=0, g1=6), NOBODY)
    assert history.passes("search", Pass.FINALLY)[HOUR].rows == 6
    best = [each for each in history.results("search") if each.key == VIEW]
    assert [(each.pass_, each.units, each.mismatches) for each in best] == [(Pass.FINALLY, 6, 0), (Pass.THEN, 7, 1)]
    first = [each.units for each in history.results("search", pass_=Pass.THEN) if each.key == VIEW]
    assert first == [3, 7]


def test_hours_and_bundles_add_up_with_bounds_over_all_of_them(history: ParityHistory) -> None:
    history.note_then("search", {HOUR: 4}, a_tally(g1=2, g2=2), NOBODY)
    later = {replace(key, bundle=TWO): count for key, count in a_tally(hits=0, g1=6).items()}
    history.note_then("search", {HOUR + PERIOD_US: 6}, later, NOBODY)
    sums = added_up(history.results("search"))
    found = sums["search", Stratum.ENTITY, Level.VIEWS, "weather", ""]
    assert (found.units, found.mismatches, found.entities) == (10, 2, 2)
    cause = sums["search", Stratum.ENTITY, Level.CAUSES, "weather", "coercion"]
    assert (cause.units, cause.mismatches, cause.low, cause.high) == (10, 2, found.low, found.high)


def test_of_each_view_and_cause_the_newest_examples_are_kept_each_once(history: ParityHistory) -> None:
    for number in range(PARITY_EXAMPLES_KEPT + 2):
        history.note_then("search", {HOUR + number * STEP_US: 1}, {}, [an_example(number), an_example(0, view="leg")])
    kept = history.examples("search")
    mine = [each.prediction_id for each in kept if each.view == "weather"]
    assert mine == [f"p{number}" for number in range(PARITY_EXAMPLES_KEPT + 1, 1, -1)]
    assert [each.prediction_id for each in kept if each.view == "leg"] == ["p0"]
    assert len(history.examples("search", limit=1)) == 2


def test_states_are_replaced_and_old_hours_forgotten(history: ParityHistory) -> None:
    history.note_state("search", {"newest": 1})
    history.note_state("search", {"newest": 2, "passed": {"é": None}})
    (state,) = history.states()
    assert (state.endpoint, state.state, state.changed_time) == ("search", {"newest": 2, "passed": {"é": None}}, HOUR)
    history.note_then("search", {HOUR: 3}, a_tally(g1=3), [an_example(1)])
    history.note_then("search", {HOUR + PERIOD_US: 3}, a_tally(g1=3), NOBODY)
    history.forget("search", HOUR + PERIOD_US, keep_s=1.0)
    assert {each.period_start_us for each in history.results("search")} == {HOUR + PERIOD_US}
    assert set(history.passes("search", Pass.THEN)) == {HOUR + PERIOD_US}
    assert history.examples("search") == ()
