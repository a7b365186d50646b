"""Label maturity: shares by age that growing traffic does not bend, delays that youth does not, and whole days."""

from pathlib import Path

import numpy as np
import pytest

from harness.logged_rows import ENDPOINT, a_batch, new_id, spool, told
from skewless.adapters.log_reader import open_log
from skewless.adapters.outcome_maturity import label_maturity
from skewless.errors import InvalidDefinition
from skewless.serving.label_maturity import LabelMaturity
from skewless.serving.outcome_terms import OutcomeTerms
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, format_timestamp, parse_timestamp

NOW = parse_timestamp("2026-11-10T00:00:00Z")
NO_HORIZON = OutcomeTerms()


def measured(folder: Path, terms: OutcomeTerms = NO_HORIZON) -> LabelMaturity:
    with open_log(folder) as log:
        return label_maturity(log, ENDPOINT, now=NOW, terms=terms)


def test_shares_by_age_are_those_of_the_predictions_that_old(tmp_path: Path) -> None:
    random = np.random.default_rng(11)
    ages = random.integers(0, 5 * DAY_US, size=400) // 1_000 * 1_000
    delays = random.integers(1, 3 * DAY_US, size=400)
    delays[random.random(400) < 0.3] = 100 * DAY_US  # never, so far
    ids = [new_id(NOW - int(age)) for age in ages]
    came = [told(each, after_us=int(delay)) for each, delay, age in zip(ids, delays, ages, strict=True) if delay <= age]
    spool(
        tmp_path,
        a_batch(["EWR"] * 400, ids=ids),
        came,
        [told(each.prediction_id or "", after_us=9 * DAY_US) for each in came],
    )
    found = measured(tmp_path)
    for each in found.ages:
        old = ages >= each.age_us
        assert (each.predictions, each.with_outcome) == (old.sum(), (old & (delays <= each.age_us)).sum())
    assert [each.age_us for each in found.ages][-1] == 2 * DAY_US
    assert sum(day.predictions for day in found.days) == 400
    assert sum(day.with_outcome for day in found.days) == len(came)


def test_delays_of_predictions_too_young_for_slow_outcomes_are_left_out(tmp_path: Path) -> None:
    old = [new_id(NOW - 10 * DAY_US) for _ in range(100)]
    young = [new_id(NOW - HOUR_US) for _ in range(100)]
    outcomes = [told(each, after_us=DAY_US) for each in old]
    outcomes += [told(each, after_us=MINUTE_US) for each in young[:90]]
    spool(tmp_path, a_batch(["EWR"] * 200, ids=[*old, *young]), outcomes)
    assert measured(tmp_path).delays_us == {0.5: DAY_US, 0.9: DAY_US, 0.99: DAY_US, 1.0: DAY_US}


def test_a_day_is_mature_once_its_last_prediction_is_older_than_the_horizon(tmp_path: Path) -> None:
    ids = [new_id(NOW - days * DAY_US) for days in (1, 2, 3)]
    spool(tmp_path, a_batch(["EWR"] * 3, ids=ids), [told(ids[2], after_us=MINUTE_US)])
    for horizon_us, mature in ((DAY_US, 2), (DAY_US + 1, 1), (3 * DAY_US, 0)):
        found = measured(tmp_path, OutcomeTerms(label_horizon_us=horizon_us))
        assert [found.is_mature(day) for day in found.days] == [place < mature for place in range(3)]
        assert [day.day for day in found.days] == [format_timestamp(NOW - days * DAY_US)[:10] for days in (3, 2, 1)]


def test_a_log_without_outcomes_has_no_horizon_and_no_mature_day(tmp_path: Path) -> None:
    spool(tmp_path, a_batch(ids=[new_id(NOW - 50 * DAY_US)]))
    found = measured(tmp_path)
    assert (found.delays_us, found.horizon_us) == ({}, None)
    assert [found.is_mature(day) for day in found.days] == [False]
    assert found.to_json()["ages"][0]["share"] == 0.0


def test_shadows_and_ids_without_a_time_are_left_out(tmp_path: Path) -> None:
    live = a_batch(ids=[new_id(NOW - DAY_US)])
    spool(tmp_path, live, a_batch(role="shadow", twins=live.prediction_ids), a_batch(ids=["no-uuid"]))
    assert [day.predictions for day in measured(tmp_path).days] == [1]


@pytest.mark.parametrize("terms", [{"label_horizon_us": 0}, {"outcome_window_us": -1}, {"outcome_window_us": 1 << 60}])
def test_terms_are_times_above_zero(terms: dict[str, int]) -> None:
    with pytest.raises(InvalidDefinition, match=r"the (label horizon|outcome window) is"):
        OutcomeTerms(**terms)
