"""When a scheduled view is run: missed times made up once, failures put off, clocks that jump."""

import random
from dataclasses import replace

import pytest

from skewless.adapters.cron_times import CronTimes
from skewless.features.schedule import (
    Outcome,
    Run,
    ScheduleState,
    ended,
    lateness_us,
    longest_wait_us,
    retry_wait_s,
    started,
    to_run,
)
from skewless.ingest_limits import SCHEDULE_ATTEMPTS_MAX, SCHEDULE_CLOCK_AHEAD_S
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, SECOND_US, parse_timestamp

HOURLY = CronTimes("15 * * * *")
SINCE = int(parse_timestamp("2026-03-01T10:00:00Z"))
FIRST = int(parse_timestamp("2026-03-01T10:15:00Z"))
NEW = ScheduleState("weather", HOURLY.expression, since=SINCE)


def after_run(state: ScheduleState, run: Run | None, outcome: Outcome, now: int) -> ScheduleState:
    assert run is not None
    return ended(started(state, run, "me", now), outcome, "told", now)


def test_nothing_is_due_before_the_first_time_after_the_schedule_was_seen() -> None:
    assert to_run(NEW, HOURLY, SINCE) is None
    assert to_run(NEW, HOURLY, FIRST - 1) is None
    assert to_run(NEW, HOURLY, FIRST) == Run(FIRST, attempt=1, missed=0)


def test_a_due_time_is_run_once() -> None:
    running = started(NEW, Run(FIRST, 1, 0), "me", FIRST)
    assert to_run(running, HOURLY, FIRST + DAY_US) is None, "not beside itself, however long it takes"
    done = ended(running, Outcome.DONE, "", FIRST + MINUTE_US)
    assert to_run(done, HOURLY, FIRST + HOUR_US - 1) is None
    assert to_run(done, HOURLY, FIRST + HOUR_US) == Run(FIRST + HOUR_US, attempt=1, missed=0)


def test_missed_times_are_made_up_by_one_run() -> None:
    done = after_run(NEW, to_run(NEW, HOURLY, FIRST), Outcome.DONE, FIRST)
    now = FIRST + 3 * DAY_US + MINUTE_US
    run = to_run(done, HOURLY, now)
    assert run == Run(FIRST + 3 * DAY_US, attempt=1, missed=71)
    assert to_run(after_run(done, run, Outcome.DONE, now), HOURLY, now + 1) is None


def test_a_failure_is_tried_again_later_each_time_and_then_left_until_the_next_due_time() -> None:
    state, now, waits = NEW, FIRST, []
    for attempt in range(1, SCHEDULE_ATTEMPTS_MAX + 1):
        run = to_run(state, HOURLY, now)
        assert run == Run(FIRST, attempt, 0)
        state = after_run(state, run, Outcome.FAILED, now)
        if state.next_try is not None:
            waits.append((state.next_try - now) / SECOND_US)
            assert to_run(state, HOURLY, state.next_try - 1) is None
            now = state.next_try
    assert waits == [retry_wait_s(each) for each in range(1, SCHEDULE_ATTEMPTS_MAX)] == sorted(waits)
    assert state.is_given_up
    assert to_run(state, HOURLY, FIRST + HOUR_US - 1) is None
    assert to_run(state, HOURLY, FIRST + HOUR_US) == Run(FIRST + HOUR_US, attempt=1, missed=0)


def test_a_refused_run_is_not_retried_at_once() -> None:
    state = after_run(NEW, to_run(NEW, HOURLY, FIRST), Outcome.REFUSED, FIRST)
    assert to_run(state, HOURLY, FIRST + MINUTE_US) is None
    assert state.next_try is not None
    assert to_run(state, HOURLY, state.next_try) == Run(FIRST, attempt=2, missed=0)


def test_an_interrupted_run_begins_again_at_once_and_is_no_attempt() -> None:
    state = NEW
    for _ in range(3 * SCHEDULE_ATTEMPTS_MAX):
        run = to_run(state, HOURLY, FIRST)
        assert run == Run(FIRST, attempt=1, missed=0)
        state = after_run(state, run, Outcome.INTERRUPTED, FIRST)


def test_a_new_due_time_ends_the_back_off_of_the_one_before() -> None:
    state = after_run(NEW, to_run(NEW, HOURLY, FIRST), Outcome.FAILED, FIRST + HOUR_US - 1)
    assert to_run(state, HOURLY, FIRST + HOUR_US) == Run(FIRST + HOUR_US, attempt=1, missed=0)


def test_another_expression_is_followed_from_when_it_was_seen() -> None:
    done = after_run(NEW, to_run(NEW, HOURLY, FIRST), Outcome.DONE, FIRST)
    changed = replace(done, expression="0 * * * *", since=FIRST + 50 * MINUTE_US)
    every_hour = CronTimes("0 * * * *")
    assert to_run(changed, every_hour, FIRST + 50 * MINUTE_US) is None, "11:00 came before anybody asked for it"
    assert to_run(changed, every_hour, FIRST + 105 * MINUTE_US) == Run(FIRST + 105 * MINUTE_US, 1, 0)


def test_a_clock_that_is_put_back_a_little_runs_nothing_twice() -> None:
    done = after_run(NEW, to_run(NEW, HOURLY, FIRST), Outcome.DONE, FIRST)
    for back_us in (1, MINUTE_US, int(SCHEDULE_CLOCK_AHEAD_S * SECOND_US)):
        assert to_run(done, HOURLY, FIRST - back_us) is None


def test_a_clock_that_was_far_ahead_stops_no_schedule_for_long() -> None:
    ahead = FIRST + 400 * DAY_US
    done = after_run(NEW, to_run(NEW, HOURLY, ahead), Outcome.DONE, ahead)
    assert to_run(done, HOURLY, FIRST) == Run(FIRST, attempt=1, missed=0)
    failed = after_run(NEW, to_run(NEW, HOURLY, FIRST), Outcome.FAILED, ahead)
    assert to_run(failed, HOURLY, FIRST + MINUTE_US) == Run(FIRST, attempt=2, missed=0)
    assert lateness_us(done, HOURLY, FIRST + MINUTE_US) == MINUTE_US


def test_lateness_counts_from_the_oldest_due_time_that_no_run_did() -> None:
    assert lateness_us(NEW, HOURLY, FIRST - 1) == 0
    assert lateness_us(NEW, HOURLY, FIRST + 5) == 5
    running = started(NEW, Run(FIRST, 1, 0), "me", FIRST)
    assert lateness_us(running, HOURLY, FIRST + 7) == 7
    done = ended(running, Outcome.DONE, "", FIRST + 2 * HOUR_US)
    assert lateness_us(done, HOURLY, FIRST + HOUR_US + 9) == 9, "the run began before this time was due"
    given_up = done
    for _ in range(SCHEDULE_ATTEMPTS_MAX):
        given_up = after_run(given_up, Run(FIRST + HOUR_US, given_up.attempts + 1, 0), Outcome.FAILED, FIRST + HOUR_US)
    assert lateness_us(given_up, HOURLY, FIRST + 2 * HOUR_US) == HOUR_US


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_each_due_time_is_done_or_covered_by_a_later_one(seed: int) -> None:
    """A simulated week of runs that fail, are refused, cut off or take long, and a scheduler that is away at times."""
    chance = random.Random(seed)
    state, now, done = NEW, SINCE, [SINCE]
    while now < SINCE + 7 * DAY_US:
        run = to_run(state, HOURLY, now)
        if run is not None:
            assert run.due <= now
            assert run.attempt <= SCHEDULE_ATTEMPTS_MAX
            running = started(state, run, "me", now)
            now += chance.randrange(1, 40 * MINUTE_US)
            outcome = chance.choice([Outcome.DONE, Outcome.DONE, *Outcome][:5])
            outcome = Outcome.DONE if outcome is Outcome.RUNNING else outcome
            state = ended(running, outcome, "told", now)
            if outcome is Outcome.DONE:
                assert run.due > done[-1]
                done.append(run.due)
        now += chance.choice([SECOND_US, MINUTE_US, MINUTE_US, 5 * HOUR_US if chance.random() < 0.02 else MINUTE_US])
    assert len(done) > 24
    # Left alone, it comes to an end: the newest due time is done within its attempts.
    while (run := to_run(state, HOURLY, now)) is not None:
        state = after_run(state, run, Outcome.DONE, now)
    assert state.outcome is not Outcome.DONE or lateness_us(state, HOURLY, now) == 0


def test_waits_are_bounded() -> None:
    assert longest_wait_us() < HOUR_US
