"""Cron expressions: which are taken, when they come, and that no text breaks their reader."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skewless.adapters.cron_times import CronTimes, schedule_problem
from skewless.errors import InvalidDefinition
from skewless.timestamps import SECOND_US, from_micros, parse_timestamp, to_micros


def due(expression: str, start: str, count: int) -> list[str]:
    times, moment, found = CronTimes(expression), int(parse_timestamp(start)), []
    for _ in range(count):
        moment = int(times.next_after(moment) or 0)
        found.append(from_micros(moment).strftime("%Y-%m-%d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("expression", "start", "expected"),
    [
        ("*/20 * * * *", "2026-01-01T00:00:00Z", ["2026-01-01 00:20", "2026-01-01 00:40", "2026-01-01 01:00"]),
        ("0 5 * * MON-FRI", "2026-01-02T06:00:00Z", ["2026-01-05 05:00", "2026-01-06 05:00"]),
        ("30 0 29 2 *", "2026-01-01", ["2028-02-29 00:30", "2032-02-29 00:30"]),
        ("0 0 L * *", "2026-01-31T00:00:01Z", ["2026-02-28 00:00", "2026-03-31 00:00"]),
        # Night of a change of clocks in most of Europe: in UTC every hour comes once.
        ("30 * * * *", "2026-03-29T00:00:00Z", ["2026-03-29 00:30", "2026-03-29 01:30", "2026-03-29 02:30"]),
        ("30 1 * * *", "2026-10-24T12:00:00Z", ["2026-10-25 01:30", "2026-10-26 01:30"]),
    ],
)
def test_due_times_are_those_of_the_expression_in_utc(expression: str, start: str, expected: list[str]) -> None:
    assert due(expression, start, len(expected)) == expected


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("", "has 0 fields, not 5"),
        ("* * * *", "has 4 fields"),
        ("0 0 5 * * *", "has 6 fields"),
        ("0 24 * * *", "Bad hour"),
        ("60 * * * *", "Bad minute"),
        ("*/0 * * * *", "Bad minute"),
        ("0 5 * * MONDAY", "Bad day-of-week"),
        ("@daily", "has 1 fields"),
        ("0 0 30 2 *", "Bad day"),
        ("0 0 31 4,6 *", "Bad day"),
        ("0 0 * * 8", "Bad day-of-week"),
        ("5-1 * * * *", "Bad minute"),
        ("* " * 90, "longer than"),
    ],
)
def test_an_expression_that_is_wrong_or_never_comes_is_refused_in_words(expression: str, told: str) -> None:
    with pytest.raises(InvalidDefinition, match=told) as error:
        CronTimes(expression)
    assert "five fields" in error.value.hint


_FIELD = st.text(alphabet="*0123456789,-/L#WMONJA", min_size=1, max_size=6)


@settings(max_examples=300)
@given(st.lists(_FIELD, min_size=5, max_size=5), st.integers(0, 4 * 10**15))
def test_any_text_is_a_schedule_or_a_refusal_and_both_directions_agree(fields: list[str], moment: int) -> None:
    expression = " ".join(fields)
    if schedule_problem(expression) is not None:
        return
    times = CronTimes(expression)
    coming = times.next_after(moment)
    if coming is not None:
        assert coming > moment
        assert coming % (60 * SECOND_US) == 0
        assert times.last_until(coming) == coming, "a due time has come at that very moment"
        before = times.last_until(coming - 1)
        assert before is None or before < coming
        assert before is None or before <= moment, "nothing lies between"


def test_due_times_of_all_fields_are_those_of_a_naive_twin() -> None:
    """Minute by minute through six weeks, with days restricted both ways."""
    times = CronTimes("5,35 */7 1-10 * TUE")
    start = datetime(2026, 2, 20, tzinfo=UTC)
    naive = [
        moment
        for moment in (start + timedelta(minutes=each) for each in range(6 * 7 * 24 * 60))
        if moment.minute in (5, 35) and moment.hour % 7 == 0 and (moment.day <= 10 or moment.weekday() == 1)
    ]
    found, moment = [], to_micros(start) - 1
    while (coming := times.next_after(moment)) is not None and coming <= to_micros(naive[-1]):
        found.append(from_micros(coming))
        moment = coming
    assert found == naive
