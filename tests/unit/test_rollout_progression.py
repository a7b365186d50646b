"""A canary by steps: when it goes on, when it waits, and what it is rolled back for."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.simulations import alarms_max, paths
from skewless.canonical_json import digest, encode
from skewless.errors import Conflict, InvalidDefinition
from skewless.rollout.harm import Tolerances, harms
from skewless.rollout.progression import Decision, DecisionKind, Progress, ProgressionPlan, Step, decide
from skewless.rollout.role_counts import LATENCY_BINS, LATENCY_EDGES_MS, RoleCounts, latency_bin
from skewless.rollout.routes import Canary, Route
from skewless.timestamps import SECOND_US

A, B, C = (digest(name) for name in "abc")
PLAN = ProgressionPlan((Step(0.05, 60.0), Step(0.5, 60.0)), requests_min=100)
NOW = 1_000 * SECOND_US


def route(share: float) -> Route:
    return Route("flights", "", A, canary=Canary(B, share))


def counts(
    requests: int = 0, errors: int = 0, *, latency_ms: float = 4.0, outcomes: int = 0, good: int = 0
) -> RoleCounts:
    """Counts of answers that all took as long."""
    latency = [0] * LATENCY_BINS
    latency[latency_bin(latency_ms)] = requests - errors
    return RoleCounts(requests, errors, tuple(latency), outcomes, good)


def after(progress: Progress, *, canary: RoleCounts, live: RoleCounts, seconds: float) -> Decision:
    counted = progress.counted(canary=canary, live=live)
    return decide(counted, route(progress.share), progress.since + int(seconds * SECOND_US))


@pytest.fixture
def first_step() -> Progress:
    return Progress.started(PLAN, route(0.05), NOW)


def test_a_canary_advances_when_its_time_is_over_and_enough_was_seen(first_step: Progress) -> None:
    decision = after(first_step, canary=counts(100), live=counts(1_900), seconds=60)
    assert (decision.kind, decision.share) == (DecisionKind.ADVANCE, 0.5)
    assert decision.reasons == (
        "step 1 of 2 at 0.05 passed: 0 errors in 100 requests, 0 in 1900 on live; 0 of 0 outcomes good, 0 of 0 on live",
    )
    kept = decision.progress
    assert (kept.step, kept.since, kept.live, kept.canary) == (1, NOW + 60 * SECOND_US, RoleCounts(), RoleCounts())


def test_after_the_last_step_a_canary_is_promoted(first_step: Progress) -> None:
    last = replace(first_step, step=1)
    decision = after(last, canary=counts(100), live=counts(100), seconds=60)
    assert (decision.kind, decision.share) == (DecisionKind.PROMOTE, 1.0)
    assert decision.to_json() == {"decision": "promote", "share": 1.0, "reasons": list(decision.reasons)}


def test_a_canary_waits_for_time_requests_and_outcomes(first_step: Progress) -> None:
    plan = replace(PLAN, outcomes_min=10)
    waiting = after(replace(first_step, plan=plan), canary=counts(99, outcomes=9), live=counts(1_900), seconds=59)
    assert (waiting.kind, waiting.share) == (DecisionKind.HOLD, 0.05)
    assert waiting.reasons == (
        "held for 59 of 60 s",
        "the canary answered 99 of 100 requests",
        "the canary saw 9 of 10 outcomes",
    )


@pytest.mark.parametrize(
    ("canary", "live", "said"),
    [
        (counts(200, 40), counts(3_800, 4), "errors: 40 of 200 requests failed, 4 of 3800 on live; a rate of"),
        (counts(300, latency_ms=9.0), counts(5_700), "latency: the 0.95 quantile is above 8.72 ms, at most 4 ms on"),
        (
            counts(400, outcomes=400, good=200),
            counts(7_600, outcomes=7_600, good=6_800),
            "outcomes: 200 of 400 are good, 6800 of 7600 on live; a rate of",
        ),
    ],
)
def test_proven_harm_is_rolled_back_before_anything_else(
    canary: RoleCounts, live: RoleCounts, said: str, first_step: Progress
) -> None:
    for seconds in (1, 600):
        decision = after(first_step, canary=canary, live=live, seconds=seconds)
        assert (decision.kind, decision.share) == (DecisionKind.ROLL_BACK, 0.0)
        assert len(decision.reasons) == 1
        assert decision.reasons[0].startswith(said)


@pytest.mark.parametrize(
    ("canary", "live"),
    [
        (counts(2_000, 40), counts(2_000, 40)),
        (counts(20_000, 80), counts(20_000)),
        (counts(2_000, latency_ms=4.5), counts(2_000)),
        (counts(9, outcomes=20_000, good=17_400), counts(9, outcomes=20_000, good=18_000)),
        (counts(2_000, 2_000), counts(2_000, 2_000)),
        (counts(20, 10), counts()),
    ],
    ids=["as live", "tolerated errors", "tolerated latency", "tolerated outcomes", "an outage of both", "no live"],
)
def test_what_is_tolerated_or_happens_to_live_too_is_no_harm(canary: RoleCounts, live: RoleCounts) -> None:
    assert harms(canary, live, Tolerances(), alpha=0.01) == ()


def test_without_any_tolerance_the_same_is_harm() -> None:
    canary = counts(20_000, 80, latency_ms=4.5, outcomes=20_000, good=17_400)
    none = Tolerances(error_rate_rise=0.0, latency_ratio=1.0, outcome_drop=0.0)
    assert len(harms(canary, counts(20_000, outcomes=20_000, good=18_000), none, alpha=0.01)) == 3


def test_everything_that_is_proven_is_told() -> None:
    canary = counts(2_000, 1_000, latency_ms=40.0, outcomes=1_000, good=100)
    told = harms(canary, counts(2_000, outcomes=1_000, good=900), Tolerances(), alpha=0.01)
    assert [sentence.split(":")[0] for sentence in told] == ["errors", "latency", "outcomes"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (Route("flights", "", A), "no longer has this canary"),
        (Route("flights", "", A, canary=Canary(C, 0.05)), "no longer has this canary"),
        (Route("flights", "", C, canary=Canary(B, 0.05)), "the live bundle was changed to"),
        (route(0.2), "the canary's share was set to 0.2, the step's is 0.05"),
    ],
)
def test_a_route_changed_by_hand_is_left_alone(changed: Route, said: str, first_step: Progress) -> None:
    harmed = first_step.counted(canary=counts(500, 500), live=counts(500))
    decision = decide(harmed, changed, NOW + 3_600 * SECOND_US)
    assert decision.kind is DecisionKind.HOLD
    assert said in decision.reasons[0]
    assert decision.share == (changed.canary.share if changed.canary else 0.0)


def test_a_progression_begins_with_the_canary_s_first_share() -> None:
    for wrong in (Route("flights", "", A), route(0.1)):
        with pytest.raises(Conflict, match=r"the plan begins with a share of 0\.05"):
            Progress.started(PLAN, wrong, NOW)


def test_progress_reads_back_from_its_json(first_step: Progress) -> None:
    progress = first_step.counted(canary=counts(7, 1, outcomes=3, good=2), live=counts(9))
    assert Progress.from_json(json.loads(encode(progress.to_json()))) == progress
    assert ProgressionPlan.from_json({}) == ProgressionPlan()
    steps = {"steps": [{"share": 0.1}], "tolerances": {"outcome_drop": 0.1}}
    assert ProgressionPlan.from_json(steps).tolerances == Tolerances(outcome_drop=0.1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Step(1.0), "leave a step of 1 out"),
        (lambda: Step(0.0), "above 0 and below 1"),
        (lambda: Step(0.1, -1.0), "0 or more"),
        (lambda: ProgressionPlan(()), "1 to 20, each above the last"),
        (lambda: ProgressionPlan((Step(0.1), Step(0.1))), "each above the last"),
        (lambda: ProgressionPlan(requests_min=-1), "0 or more"),
        (lambda: ProgressionPlan(alpha=0.0), "between 0 and 1"),
        (lambda: Tolerances(error_rate_rise=1.0), "`error_rate_rise` is 1.0"),
        (lambda: Tolerances(latency_quantile=1.0), "`latency_quantile` is 1.0"),
        (lambda: Tolerances(latency_ratio=0.9), "`latency_ratio` is 0.9"),
        (lambda: RoleCounts(1, 2), "2 errors of 1 requests"),
        (lambda: RoleCounts(latency=(1,)), f"allowed: {LATENCY_BINS} counts"),
        (lambda: ProgressionPlan.from_json({"steps": [{"share": "x"}]}), r"$.steps[0].share is 'x'"),
        (lambda: RoleCounts.from_json({**counts().to_json(), "latency": [0.5]}), "allowed: integers"),
    ],
)
def test_a_plan_or_counts_that_make_no_sense_are_refused(wrong: Callable[[], object], said: str) -> None:
    with pytest.raises(InvalidDefinition) as refused:
        wrong()
    assert said in str(refused.value)


def test_a_step_that_the_plan_lacks_is_refused(first_step: Progress) -> None:
    with pytest.raises(InvalidDefinition, match="the plan has 2 steps"):
        Progress.from_json({**first_step.to_json(), "step": 2})


def test_a_latency_lies_in_the_bin_whose_edge_it_does_not_exceed() -> None:
    for edge, latency_ms in enumerate(LATENCY_EDGES_MS):
        assert latency_bin(latency_ms) == edge
        assert latency_bin(latency_ms * 1.001) == edge + 1
    assert latency_bin(0.0) == 0


def test_counts_add_up() -> None:
    both = counts(10, 1, latency_ms=2.0, outcomes=4, good=3) + counts(20, 2, latency_ms=8.0, outcomes=5, good=1)
    assert (both.requests, both.errors, both.answers, both.outcomes, both.good_outcomes) == (30, 3, 27, 9, 4)
    assert both.slower_than(latency_bin(2.0)) == 18
    assert both.slower_than(latency_bin(8.0)) == 0
    assert RoleCounts.from_json(json.loads(encode(both.to_json()))) == both


def seen(random: np.random.Generator, requests: int, *, errors: float, slow: float, good: float) -> RoleCounts:
    """What a role of such an error rate, median latency (ms) and rate of good outcomes counts."""
    failed = int(random.binomial(requests, errors))
    bins = np.searchsorted(LATENCY_EDGES_MS, random.lognormal(np.log(slow), 0.35, requests - failed))
    latency = np.bincount(bins, minlength=LATENCY_BINS).tolist()
    return RoleCounts(requests, failed, tuple(latency), requests, int(random.binomial(requests, good)))


def simulated(random: np.random.Generator, plan: ProgressionPlan, **harm: float) -> Decision:
    """How a canary ends, at 50 requests a second and a look a minute, with an outage of everything now and then."""
    usual = {"errors": 0.002, "slow": 4.0, "good": 0.8}
    progress = Progress.started(plan, route(plan.steps[0].share), 0)
    for minute in range(1, 600):
        outage: dict[str, Any] = {"errors": 0.5} if random.random() < 0.03 else {}
        canary = int(random.binomial(3_000, progress.share))
        progress = progress.counted(
            canary=seen(random, canary, **{**usual, **harm, **outage}),
            live=seen(random, 3_000 - canary, **{**usual, **outage}),
        )
        decision = decide(progress, route(progress.share), minute * 60 * SECOND_US)
        if decision.kind in (DecisionKind.PROMOTE, DecisionKind.ROLL_BACK):
            return decision
        progress = decision.progress
    raise AssertionError("neither promoted nor rolled back after ten hours")


def test_a_harmless_canary_is_rolled_back_no_more_often_than_alpha_says() -> None:
    random, count = np.random.default_rng(1), paths(6)
    quick = ProgressionPlan(tuple(Step(share, 240.0) for share in (0.01, 0.05, 0.25, 0.5)), alpha=0.05)
    ends = [simulated(random, quick).kind for _ in range(count)]
    assert ends.count(DecisionKind.ROLL_BACK) <= alarms_max(count, 0.05)


@pytest.mark.parametrize(
    ("harm", "steps_max"),
    [({"errors": 1.0}, 1), ({"errors": 0.05}, 2), ({"slow": 8.0}, 1), ({"slow": 6.0}, 3), ({"good": 0.6}, 2)],
    ids=["all fail", "5 % fail", "twice as slow", "half again as slow", "outcomes 20 points worse"],
)
def test_a_harmful_canary_is_rolled_back_early(harm: dict[str, float], steps_max: int) -> None:
    random = np.random.default_rng(2)
    for _ in range(paths(3)):
        decision = simulated(random, ProgressionPlan(), **harm)
        assert decision.kind is DecisionKind.ROLL_BACK
        assert decision.progress.step < steps_max
