"""Rules of ingestion that need no store: late rows, rows of the future, and rows that a batch holds more than once."""

import random

import numpy as np
import pytest

from skewless.errors import InvalidDefinition
from skewless.ingestion.event_times import (
    EventTimePolicy,
    FuturePolicy,
    LatePolicy,
    Treatment,
    judge,
    parse_future,
    parse_late,
)
from skewless.ingestion.restated_rows import last_of_equal
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, Micros

NOW = Micros(1_000 * DAY_US)


def test_without_tags_rows_of_any_age_are_accepted_and_five_minutes_ahead_are_tolerated() -> None:
    assert (parse_late(""), parse_late("accept")) == (LatePolicy(), LatePolicy())
    verdict = judge(EventTimePolicy(), np.array([0, NOW, NOW + 5 * MINUTE_US, NOW + 5 * MINUTE_US + 1]), NOW)
    assert not verdict.late.any()
    assert verdict.future.tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d:drop", LatePolicy(7 * DAY_US, Treatment.DROP)),
        ("90m:quarantine", LatePolicy(90 * MINUTE_US, Treatment.QUARANTINE)),
    ],
)
def test_a_row_is_late_when_it_is_older_than_its_view_says(text: str, expected: LatePolicy) -> None:
    policy = parse_late(text)
    assert policy == expected
    assert parse_late(str(policy)) == policy
    assert policy.age_us is not None
    verdict = judge(EventTimePolicy(policy), np.array([NOW - policy.age_us, NOW - policy.age_us - 1]), NOW)
    assert verdict.late.tolist() == [False, True]


def test_a_policy_reads_back_as_it_was_written() -> None:
    for policy in (FuturePolicy(), FuturePolicy(2 * HOUR_US, Treatment.QUARANTINE), FuturePolicy(1_000_000)):
        assert parse_future(str(policy)) == policy


@pytest.mark.parametrize("text", ["7d", "soon:drop", "7d:refuse", "drop", "-1d:drop", "7d:drop:drop", "0d:drop"])
def test_another_tag_for_late_rows_is_refused_and_says_what_is_allowed(text: str) -> None:
    with pytest.raises(InvalidDefinition, match=r"`late` is .*Allowed: `accept`, or `<length>:drop`"):
        parse_late(text)


@pytest.mark.parametrize("text", ["accept", "5m:drop", "5m"])
def test_another_tag_for_rows_of_the_future_is_refused(text: str) -> None:
    with pytest.raises(InvalidDefinition, match="`future` is"):
        parse_future(text)


@pytest.mark.parametrize("seed", range(5))
def test_of_equal_rows_the_last_one_stays_as_a_naive_twin_has_it(seed: int) -> None:
    chosen = random.Random(seed)
    rows = [(chosen.choice("abc"), chosen.randrange(3), chosen.randrange(2)) for _ in range(chosen.randrange(40))]
    stays = last_of_equal(
        [each[0] for each in rows],
        np.array([each[1] for each in rows], dtype=np.int64),
        np.array([each[2] for each in rows], dtype=np.int64),
    )
    assert stays.tolist() == [row not in rows[place + 1 :] for place, row in enumerate(rows)]
