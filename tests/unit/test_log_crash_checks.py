"""What the crash test of the prediction log would see: each kind of offence, and nothing where all is well."""

from dataclasses import replace

import pytest

from harness.log_crash_checks import WARM_UP, check_order, check_outcomes, check_predictions
from harness.log_crash_model import AskedPredictions, CrashModel, Outage, ToldOutcome
from harness.log_crash_truth import Joined, Row, naive_join
from skewless.timestamps import HOUR_US, SECOND_US, Micros, from_micros

NOW = Micros(1_700_000_000_000_000)
SAFE, RISKY = "gateway", "gateway2"
ASKED = AskedPredictions("c1-1", SAFE, NOW, ("T1", "T2"), ("p1", "p2"), (0.25, 0.5), answered_s=100.0)


def a_model(*asked: AskedPredictions, told: tuple[ToldOutcome, ...] = (), killed_s: float | None = None) -> CrashModel:
    model = CrashModel({SAFE: 0.0, RISKY: 0.2})
    for each in asked:
        model.ask(each)
    model.tell(told)
    if killed_s is not None:
        model.broke(Outage(RISKY, killed_s, killed_s, killed=True))
    return model


def logged(asked: AskedPredictions, place: int, **changes: object) -> Row:
    """The row of the log that an answered row of a request must have, with changes."""
    return {
        "prediction_id": asked.ids[place] if asked.ids else f"unanswered-{place}",
        "request_id": asked.request_id,
        "row": place,
        "key.tailnum": asked.tailnums[place],
        "as_of": from_micros(asked.as_of),
        "probability": asked.probabilities[place] if asked.ids else 0.125,
        **changes,
    }


def received(told: ToldOutcome, number: int, **changes: object) -> dict[str, object]:
    entity = f'{{"origin":"JFK","station":7,"tailnum":"{told.tailnum}"}}'
    return {
        "outcome_id": f"o{number}",
        "prediction_id": told.prediction_id or None,
        "entity": entity if told.tailnum else None,
        "at": None if told.at is None else from_micros(told.at),
        "label": told.label,
        "outcome_time": from_micros(told.outcome_time),
        "received_time": from_micros(NOW + number * SECOND_US),
        **changes,
    }


def by_id(label: str, time: int, **changes: object) -> ToldOutcome:
    told = ToldOutcome(SAFE, label, Micros(NOW + time), prediction_id="p1", accepted_s=100.0)
    return replace(told, **changes)  # type: ignore[arg-type]  # fields by name


def test_what_was_answered_is_there_once() -> None:
    warm_up = {"key.tailnum": WARM_UP, "prediction_id": "before"}
    found = check_predictions(a_model(ASKED), [logged(ASKED, 0), logged(ASKED, 1), warm_up])
    assert (found["answered"], found.total()) == (2, 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([logged(ASKED, 0)], "not in the log"),
        ([logged(ASKED, 0), logged(ASKED, 1), logged(ASKED, 1)], "more than once"),
        ([logged(ASKED, 0), logged(ASKED, 1), logged(ASKED, 1, prediction_id="p3")], "under two ids"),
        ([logged(ASKED, 0), logged(ASKED, 1), logged(ASKED, 1, request_id="another", prediction_id="p3")], "nobody"),
        ([logged(ASKED, 0), logged(ASKED, 1, **{"key.tailnum": "T1"})], "T2"),
        ([logged(ASKED, 0), logged(ASKED, 1, probability=0.25)], "probability"),
        ([logged(ASKED, 0), logged(ASKED, 1, prediction_id="p3")], "p3"),
        ([logged(ASKED, 0), logged(ASKED, 1, as_of=from_micros(NOW + 1))], "as_of"),
    ],
)
def test_each_offence_of_predictions_is_found(rows: list[Row], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_predictions(a_model(ASKED), rows)


def test_what_was_not_answered_may_be_there_once() -> None:
    unanswered = replace(ASKED, ids=(), probabilities=(), answered_s=0.0)
    assert check_predictions(a_model(unanswered), []).total() == 0
    assert check_predictions(a_model(unanswered), [logged(unanswered, 1)])["kept without an answer"] == 1


@pytest.mark.parametrize(("gateway", "killed_s", "excused"), [(RISKY, 100.1, True), (RISKY, 103.0, False)])
def test_only_a_kill_within_the_flush_time_excuses_a_loss(gateway: str, killed_s: float, *, excused: bool) -> None:
    asked = replace(ASKED, gateway=gateway)
    model = a_model(asked, killed_s=killed_s)
    if excused:
        assert check_predictions(model, [])["lost within a flush time"] == 2
    else:
        with pytest.raises(AssertionError, match="not in the log"):
            check_predictions(model, [])


def test_no_kill_excuses_who_flushes_before_answering_and_a_pause_does_not_count_as_time_to_flush() -> None:
    model = a_model(ASKED, killed_s=103.0)
    model.broke(Outage(SAFE, 100.0, 100.0, killed=True))
    assert not model.may_be_lost(SAFE, 100.0)
    assert not model.may_be_lost(RISKY, 100.0)
    model.broke(Outage(RISKY, 100.1, 102.9, killed=False))
    assert model.may_be_lost(RISKY, 100.0)


def test_outcomes_are_counted_as_often_as_they_were_accepted() -> None:
    first, again = by_id("late", 1), by_id("late", 1)
    unanswered = by_id("on_time", 2, accepted_s=0.0)
    model = a_model(ASKED, told=(first, again, unanswered))
    both = [received(first, 1), received(again, 2)]
    assert check_outcomes(model, both)["accepted"] == 2
    assert check_outcomes(model, [*both, received(unanswered, 3)])["kept without an answer"] == 1
    with pytest.raises(AssertionError, match="accepted, and not"):
        check_outcomes(model, both[:1])
    with pytest.raises(AssertionError, match="nobody told"):
        check_outcomes(model, [*both, received(first, 4)])
    with pytest.raises(AssertionError, match="twice"):
        check_outcomes(model, [both[0], both[0]])


def test_what_was_told_last_must_have_been_received_last() -> None:
    first, last = by_id("late", 1), by_id("on_time", 2)
    model = a_model(ASKED, told=(first, last))
    assert check_order(model, [received(first, 1), received(last, 2)]) == 1
    with pytest.raises(AssertionError, match="told last"):
        check_order(model, [received(first, 2), received(last, 1)])
    assert check_order(a_model(ASKED, told=(first, replace(last, accepted_s=0.0))), []) == 0


def test_the_naive_join_takes_the_last_received_of_the_latest_prediction_within_the_window() -> None:
    early = replace(ASKED, tailnums=("T1", "T1"))
    later = replace(early, as_of=Micros(NOW + HOUR_US), ids=("p3",), tailnums=("T1",), request_id="c1-2")
    predictions = [logged(early, 0), logged(later, 0)]
    of_early = ToldOutcome(SAFE, "late", Micros(NOW), tailnum="T1", at=Micros(NOW + HOUR_US - 1))
    of_later = ToldOutcome(SAFE, "late", Micros(NOW), tailnum="T1", at=Micros(NOW + HOUR_US))
    too_late = ToldOutcome(SAFE, "late", Micros(NOW), tailnum="T1", at=Micros(NOW + 5 * HOUR_US))
    corrected = by_id("on_time", 2)
    outcomes = [received(each, number) for number, each in enumerate((of_early, of_later, too_late, corrected))]
    joined = naive_join(predictions, outcomes, window_us=2 * HOUR_US)
    assert joined == {"p1": Joined("on_time", 2), "p3": Joined("late", 1)}
