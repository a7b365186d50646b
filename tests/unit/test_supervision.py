"""The state machine of supervision, without processes."""

from dataclasses import replace

import pytest

from skewless.stack.supervision import (
    Bounds,
    Health,
    Phase,
    Watched,
    exited,
    may_start,
    phase_of,
    probe_missed,
    probe_passed,
    restart_delay_s,
    started,
)

BOUNDS = Bounds(
    start_timeout_s=10,
    probe_failures_max=3,
    restart_delay_s=1,
    restart_delay_max_s=8,
    failures_max=4,
    first_failures_max=1,
    stable_s=30,
)


def healthy(name: str = "triton", *, since_s: float = 0.0) -> Watched:
    """A process that came up at `since_s`."""
    return probe_passed(started(Watched(name), now_s=since_s), now_s=since_s, bounds=BOUNDS)


def test_a_process_waits_until_everything_it_depends_on_is_healthy() -> None:
    gateway = Watched("gateway", ("valkey", "triton"))
    valkey, triton = healthy("valkey"), started(Watched("triton"), now_s=0)
    assert not may_start(gateway, [valkey, triton, gateway], now_s=1, bounds=BOUNDS)
    assert may_start(gateway, [valkey, healthy("triton"), gateway], now_s=1, bounds=BOUNDS)


def test_a_restart_does_not_wait_for_dependencies() -> None:
    gateway = replace(healthy("gateway"), depends_on=("valkey",))
    valkey = exited(healthy("valkey"), "signal 9", now_s=1, bounds=BOUNDS)
    gateway = exited(gateway, "exit status 1", now_s=1, bounds=BOUNDS)
    assert may_start(gateway, [valkey, gateway], now_s=2, bounds=BOUNDS)


def test_delays_double_up_to_their_bound_whatever_the_count() -> None:
    assert [restart_delay_s(failures, BOUNDS) for failures in (1, 2, 3, 4, 5, 10_000)] == [1, 2, 4, 8, 8, 8]


def test_a_process_is_restarted_exactly_when_its_delay_is_over() -> None:
    ended = exited(healthy(), "signal 9 (SIGKILL)", now_s=5, bounds=BOUNDS)
    assert ended.health is Health.BACKING_OFF
    assert not may_start(ended, [ended], now_s=5.9, bounds=BOUNDS)
    assert may_start(ended, [ended], now_s=6, bounds=BOUNDS)
    assert started(ended, now_s=6).restarts == 1


def test_a_process_that_never_came_up_is_given_up_after_its_second_failure() -> None:
    watched = Watched("gateway")
    seen = []
    for moment in range(2):
        watched = exited(started(watched, now_s=moment), "exit status 2", now_s=moment, bounds=BOUNDS)
        seen.append(watched.health)
    assert seen == [Health.BACKING_OFF, Health.GIVEN_UP]
    assert phase_of([healthy("valkey"), watched]) is Phase.FAILED


def test_a_process_that_keeps_dying_is_given_up_and_never_started_again() -> None:
    watched, now_s, starts = healthy(), 0.0, 0
    while watched.health is not Health.GIVEN_UP:
        watched = exited(watched, "exit status 1", now_s=now_s, bounds=BOUNDS)
        if watched.health is Health.BACKING_OFF:
            now_s += restart_delay_s(watched.failures, BOUNDS)
            watched = probe_passed(started(watched, now_s=now_s), now_s=now_s, bounds=BOUNDS)
            starts += 1
    assert starts == BOUNDS.failures_max
    assert watched.last_failure == "exit status 1"
    assert not may_start(watched, [watched], now_s=now_s + 1e6, bounds=BOUNDS)


def test_failures_are_forgotten_after_a_stable_time_and_not_before() -> None:
    watched = replace(healthy(since_s=0), failures=3)
    assert probe_passed(watched, now_s=29, bounds=BOUNDS).failures == 3
    assert probe_passed(watched, now_s=30, bounds=BOUNDS).failures == 0
    assert exited(watched, "signal 9", now_s=29, bounds=BOUNDS).failures == 4
    assert exited(watched, "signal 9", now_s=30, bounds=BOUNDS).failures == 1


def test_a_hung_process_is_condemned_and_the_reason_outlives_the_kill() -> None:
    watched = healthy()
    for moment in range(BOUNDS.probe_failures_max):
        assert not watched.condemned
        watched = probe_missed(watched, "no answer", now_s=moment, bounds=BOUNDS)
    assert "missed 3 health checks in a row: no answer" in watched.condemned
    ended = exited(watched, "signal 9 (SIGKILL)", now_s=4, bounds=BOUNDS)
    assert ended.last_failure == "hung, it missed 3 health checks in a row: no answer (signal 9 (SIGKILL))"
    assert not started(ended, now_s=5).condemned


def test_one_answer_clears_missed_health_checks() -> None:
    watched = healthy()
    for moment in range(20):
        watched = probe_missed(watched, "no answer", now_s=moment, bounds=BOUNDS)
        assert watched.health is Health.FAILING
        watched = probe_passed(watched, now_s=moment + 0.5, bounds=BOUNDS)
        assert watched.health is Health.HEALTHY


def test_a_start_takes_as_long_as_its_timeout_and_no_longer() -> None:
    watched = started(Watched("gateway"), now_s=100)
    for tenths in range(99):
        watched = probe_missed(watched, "refused", now_s=100 + tenths / 10, bounds=BOUNDS)
    assert not watched.condemned
    assert probe_missed(watched, "refused", now_s=110, bounds=BOUNDS).condemned


@pytest.mark.parametrize(
    ("health", "phase"),
    [
        (Health.HEALTHY, Phase.UP),
        (Health.FAILING, Phase.DEGRADED),
        (Health.BACKING_OFF, Phase.DEGRADED),
        (Health.GIVEN_UP, Phase.DEGRADED),
    ],
)
def test_a_stack_that_was_up_is_degraded_while_any_process_is_not_healthy(health: Health, phase: Phase) -> None:
    assert phase_of([healthy("valkey"), replace(healthy(), health=health)]) is phase


def test_a_stack_is_starting_until_everything_was_healthy_once() -> None:
    assert phase_of([healthy("valkey"), Watched("gateway", ("valkey",))]) is Phase.STARTING
