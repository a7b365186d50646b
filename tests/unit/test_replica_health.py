"""Who does so much worse than the others that it is left alone, and who merely has bad luck."""

import random

import pytest

from skewless.serving.replica_health import CALLS_KEPT, CALLS_MIN, ReplicaHealth, worst


def health(*, took_s: float = 0.002, failing: float = 0.0, calls: int = CALLS_KEPT, seed: int = 1) -> ReplicaHealth:
    chance = random.Random(seed)
    made = ReplicaHealth()
    for _ in range(calls):
        if chance.random() < failing:
            made.failed()
        else:
            made.answered(took_s * chance.uniform(0.5, 2.0))
    return made


def test_a_replica_that_fails_more_often_than_the_others_is_named() -> None:
    found = worst([health(), health(failing=0.4), health()])
    assert found is not None
    assert found[0] == 1
    assert "of its last calls failed" in found[1]


def test_a_replica_that_answers_much_later_than_the_quickest_is_named() -> None:
    found = worst([health(took_s=0.05), health(took_s=0.002)])
    assert found is not None
    assert found[0] == 0
    assert "where another takes" in found[1]


@pytest.mark.parametrize(
    "replicas",
    [
        [health()],
        [health(), health(took_s=0.004)],
        [health(took_s=0.0002), health(took_s=0.002)],
        [health(failing=0.5), health(failing=0.5, seed=2)],
        [health(), health(failing=0.05)],
        [health(), health(took_s=1.0, failing=1.0, calls=CALLS_MIN - 1)],
        [],
    ],
    ids=[
        "alone",
        "twice as late",
        "late by nothing worth a move",
        "all alike",
        "one in twenty",
        "hardly asked",
        "none",
    ],
)
def test_nobody_is_named_where_it_would_not_help(replicas: list[ReplicaHealth]) -> None:
    assert worst(replicas) is None


def test_equal_replicas_are_hardly_ever_told_apart_by_chance() -> None:
    """Three replicas that are alike and fail one call in ten: of 1,000 windows at most one in fifty blames one."""
    blamed = sum(
        worst([health(failing=0.1, seed=3 * trial + each) for each in range(3)]) is not None for trial in range(1_000)
    )
    assert blamed <= 20


def test_after_a_pause_it_begins_anew() -> None:
    slow = health(took_s=1.0)
    slow.forget()
    assert (slow.usual_s, slow.error_share) == (None, None)
    assert worst([health(), slow]) is None
