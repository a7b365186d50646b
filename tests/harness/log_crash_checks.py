"""Holds what a log has against what callers know of it. Each check raises AssertionError, naming the first offender."""

from collections import Counter
from collections.abc import Sequence

from harness.log_crash_model import AskedPredictions, CrashModel, Said
from harness.log_crash_truth import Row, tailnum_of
from skewless.timestamps import to_micros

WARM_UP = "N1"
"""The tail number of predictions that were asked for before the callers began."""


def check_predictions(model: CrashModel, rows: Sequence[Row]) -> Counter[str]:
    """Every answered prediction once, each as it was asked and answered, and nothing that was never asked.

    Returns how many of what: answered, lost within a flush time, kept without an answer.
    """
    twice = [id_ for id_, count in Counter(row["prediction_id"] for row in rows).items() if count > 1]
    assert not twice, f"{len(twice)} predictions are in the log more than once: {twice[:3]}"
    found: Counter[str] = Counter()
    places: set[tuple[str, int]] = set()
    for row in rows:
        if row["key.tailnum"] == WARM_UP:
            continue
        place = (row["request_id"], row["row"])
        assert place not in places, f"row {place} is in the log under two ids"
        places.add(place)
        asked = model.asked.get(row["request_id"])
        assert asked is not None, f"nobody asked for {dict(row)}"
        _check_row(asked, row)
        found["kept without an answer"] += not asked.is_answered
    for asked in model.asked.values():
        lost = [place for place in range(len(asked.ids)) if (asked.request_id, place) not in places]
        found["answered"] += len(asked.ids)
        found["lost within a flush time"] += len(lost)
        assert not lost or model.may_be_lost(asked.gateway, asked.answered_s), (
            f"answered at {asked.answered_s:.3f} s, and not in the log: {asked}; outages were {model.outages}"
        )
    return found


def _check_row(asked: AskedPredictions, row: Row) -> None:
    place = row["row"]
    assert place < len(asked.tailnums), f"{asked} has no row {place}"
    assert row["key.tailnum"] == asked.tailnums[place], (asked, row)
    assert to_micros(row["as_of"]) == asked.as_of, (asked, row)
    if asked.is_answered:
        assert row["prediction_id"] == asked.ids[place], (asked, row)
        assert row["probability"] == asked.probabilities[place], (asked, row)


def check_outcomes(model: CrashModel, rows: Sequence[Row]) -> Counter[str]:
    """Every accepted outcome as often as it was accepted, and nothing that was never told.

    Returns how many of what: accepted, lost within a flush time, kept without an answer.
    """
    ids = Counter(row["outcome_id"] for row in rows)
    assert not ids or ids.most_common(1)[0][1] == 1, f"an outcome is in the log twice: {ids.most_common(1)}"
    kept = Counter(_said(row) for row in rows)
    told = Counter(each.said for each in model.told)
    accepted = Counter(each.said for each in model.told if each.is_accepted)
    sure = Counter(
        each.said for each in model.told if each.is_accepted and not model.may_be_lost(each.gateway, each.accepted_s)
    )
    assert kept <= told, f"nobody told: {list((kept - told).items())[:3]}"
    assert sure <= kept, f"accepted, and not in the log: {list((sure - kept).items())[:3]}"
    return Counter(
        {
            "accepted": accepted.total(),
            "lost within a flush time": (accepted - kept).total(),
            "kept without an answer": (kept - accepted).total(),
        }
    )


def check_order(model: CrashModel, rows: Sequence[Row]) -> int:
    """Of each prediction, what was told last was received last. Returns of how many that is known.

    It is where all that was told of it by id was accepted, by gateways that flush before they answer.
    """
    received: dict[str, list[tuple[object, str, Said]]] = {}
    for row in rows:
        if row["prediction_id"] is not None:
            told = (row["received_time"], row["outcome_id"], _said(row))
            received.setdefault(row["prediction_id"], []).append(told)
    last: dict[str, Said] = {}
    unsure: set[str] = set()
    for each in model.told:
        last[each.prediction_id] = each.said
        if not each.is_accepted or model.flush_s[each.gateway]:
            unsure.add(each.prediction_id)
    checked = [id_ for id_ in last if id_ and id_ not in unsure]
    for id_ in checked:
        assert max(received[id_])[2] == last[id_], f"of {id_} was told last {last[id_]}, received: {received[id_]}"
    return len(checked)


def _said(row: Row) -> Said:
    by_entity = row["prediction_id"] is None
    return Said(
        "" if by_entity else row["prediction_id"],
        tailnum_of(row) if by_entity else "",
        row["label"],
        to_micros(row["outcome_time"]),
    )
