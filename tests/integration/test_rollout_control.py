"""What follows from a rollout's evidence: canaries by steps, experiments counted once, bandits, and shadows read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import uuid_utils

from harness.bundles import BuiltBundle, build_bundle, contract
from skewless.adapters.prediction_log import FolderPredictionLog
from skewless.adapters.rollout_evidence import LogEvidence
from skewless.bundles.bundle import signature_json
from skewless.canonical_json import Digest
from skewless.dtypes import Dtype, column_of
from skewless.features.frame import FeatureFrame
from skewless.registry.database import engine
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry, system_clock
from skewless.registry.rollout_control import RolloutControl
from skewless.rollout import changes
from skewless.rollout.history import RouteAction
from skewless.rollout.progression import Progress, ProgressionPlan, Step
from skewless.rollout.role_counts import LATENCY_BINS, RoleCounts, latency_bin
from skewless.rollout.routes import Arm, Experiment, ExperimentKind, Role, Route
from skewless.rollout.shadow_comparison import ShadowComparison
from skewless.serving.records import AnsweredBatch, Outcome
from skewless.serving.role_tally import RoleTally
from skewless.timestamps import SECOND_US, Micros

ENDPOINT = "flight-delay"
PLAN = ProgressionPlan((Step(0.1, 60.0), Step(0.5, 60.0)), requests_min=100)


@dataclass
class Rollout:
    """A registry, a prediction log, and a clock that a test moves."""

    folder: Path
    registry: Registry
    bundles: tuple[BuiltBundle, BuiltBundle]
    moments: list[Micros] = field(default_factory=lambda: [system_clock()])

    @property
    def control(self) -> RolloutControl:
        return RolloutControl(self.registry, LogEvidence(self.folder / "log"), now=self.now)

    @property
    def route(self) -> Route:
        return self.registry.endpoint(ENDPOINT).route

    def now(self) -> Micros:
        return self.moments[-1]

    def later(self, seconds: float) -> None:
        self.moments.append(Micros(self.now() + int(seconds * SECOND_US)))

    def log(self) -> FolderPredictionLog:
        return FolderPredictionLog(self.folder / "log", flush_ms=0)

    async def tally(self, **roles: tuple[int, int]) -> None:
        """Write what roles did in the last seconds: (requests, errors) by role, each answer in 5 ms."""
        live, candidate = (each.digest for each in self.bundles)
        tallies = []
        for role, (requests, errors) in roles.items():
            latency = [0] * LATENCY_BINS
            latency[latency_bin(5.0)] = requests - errors
            bundle = live if role == "live" else candidate
            counts = RoleCounts(requests, errors, tuple(latency))
            start = Micros(self.now() - SECOND_US)
            tallies.append(RoleTally(ENDPOINT, Role(role), "", bundle, None, start, self.now(), counts, requests))
        log = self.log()
        log.append_tallies(tallies)
        await log.close()

    def start_canary(self, plan: ProgressionPlan = PLAN) -> None:
        def start(route: Route) -> Route:
            return changes.start_canary(route, self.bundles[1].digest, plan.steps[0].share)

        self.registry.change_route(
            ENDPOINT, start, action=RouteAction.START_CANARY, actor="ann", reason="test",
            progress=Progress.started(plan, start(self.route), self.now()).to_json(),
        )  # fmt: skip
        self.later(1.5)

    def start_experiment(self, kind: ExperimentKind) -> None:
        arms = (Arm("control", self.bundles[0].digest, 0.5), Arm("larger", self.bundles[1].digest, 0.5))
        least = 0.1 if kind is ExperimentKind.BANDIT else 0.0
        trial = Experiment("size", kind, arms, traffic=1.0, success="late", exploration_min=least)
        self.registry.change_route(
            ENDPOINT, lambda route: changes.start_experiment(route, trial),
            action=RouteAction.START_EXPERIMENT, actor="ann", reason="test",
        )  # fmt: skip


@pytest.fixture
def rollout(tmp_path: Path, registry_url: str) -> Iterator[Rollout]:
    (tmp_path / "artifacts").mkdir()
    first, second = (build_bundle(tmp_path / "artifacts", scale=2.0**-power) for power in (12, 13))
    registry = Registry(engine(registry_url))
    for built in (first, second):
        bundle = built.bundle
        registry.register_bundle(
            BundleRecord(
                bundle.digest, bundle.name, Micros(0), bundle.digest, bundle.contract.digest, bundle.transform.digest,
                signature_json(bundle.signature),
            )
        )  # fmt: skip
    registry.create_endpoint(ENDPOINT, description="", bundle=first.digest, actor="ann", reason="test")
    yield Rollout(tmp_path, registry, (first, second))
    registry.close()


def answered(
    bundle: Digest, ids: Sequence[str], label: str, *, role: str = Role.ARM, experiment: str = "", arm: str = ""
) -> AnsweredBatch:
    """A logged batch, as small as can be."""
    rows = len(ids)
    return AnsweredBatch(
        endpoint=ENDPOINT,
        bundle=bundle,
        rung="normal",
        request_id="r",
        as_of=0,
        prediction_ids=ids,
        key_names=("origin",),
        given={"origin": column_of(Dtype.STRING, ["JFK"] * rows)},
        frame=FeatureFrame(rows, {}, {}, {}),
        tensor=np.zeros((rows, len(contract().views)), np.float32),
        outputs={},
        labels=[label] * rows,
        probabilities=np.zeros(rows, np.float32),
        stage_ms={},
        role=role,
        experiment=experiment,
        arm=arm,
    )


def new_ids(count: int) -> list[str]:
    return [str(uuid_utils.uuid7()) for _ in range(count)]


def an_outcome(prediction_id: str, label: str, moment: int) -> Outcome:
    """One told after all before it."""
    return Outcome(prediction_id, label, None, int(moment), outcome_id=str(uuid_utils.uuid7()))


async def test_a_canary_goes_up_step_by_step_and_is_promoted_each_step_in_the_audit_log(rollout: Rollout) -> None:
    rollout.start_canary()
    await rollout.tally(live=(900, 0), canary=(100, 0))
    (held,) = rollout.control.adjust(ENDPOINT, actor="watch")
    assert not held.changed
    assert "held for 2 of 60 s" in "; ".join(held.words)
    rollout.later(60)
    (advanced,) = rollout.control.adjust(ENDPOINT, actor="watch")
    assert advanced.changed
    assert rollout.route.canary is not None
    assert rollout.route.canary.share == 0.5
    rollout.later(61)
    (waiting,) = rollout.control.adjust(ENDPOINT, actor="watch")
    assert "the canary answered 0 of 100 requests" in waiting.words, "a step counts what was answered in it"
    await rollout.tally(live=(500, 0), canary=(500, 0))
    rollout.control.adjust(ENDPOINT, actor="watch")
    after = rollout.route
    assert (after.live, after.canary) == (rollout.bundles[1].digest, None)
    assert rollout.route.previous == rollout.bundles[0].digest
    assert rollout.registry.progress(ENDPOINT) is None
    events = [(each.action, each.detail.get("decision")) for each in rollout.registry.audit(ENDPOINT)][1:]
    assert events == [("start_canary", None), ("set_canary_share", "advance"), ("promote", "promote")]


async def test_a_canary_that_fails_is_taken_back_before_its_step_is_over(rollout: Rollout) -> None:
    rollout.start_canary()
    await rollout.tally(live=(900, 0), canary=(100, 60))
    (taken_back,) = rollout.control.adjust(ENDPOINT, actor="watch")
    assert taken_back.changed
    assert (rollout.route.live, rollout.route.canary) == (rollout.bundles[0].digest, None)
    last = rollout.registry.audit(ENDPOINT)[-1]
    assert (last.action, last.detail["decision"], last.detail["by"]) == ("abort", "roll_back", "progression")
    assert "60 of 100 requests failed" in last.reason
    assert rollout.control.needed() == ()


async def test_a_canary_changed_by_hand_is_left_alone(rollout: Rollout) -> None:
    rollout.start_canary()
    rollout.registry.change_route(
        ENDPOINT, lambda route: changes.set_canary_share(route, 0.3),
        action=RouteAction.SET_CANARY_SHARE, actor="ben", reason="by hand",
    )  # fmt: skip
    await rollout.tally(live=(900, 0), canary=(100, 60))
    (left,) = rollout.control.adjust(ENDPOINT, actor="watch")
    assert not left.changed
    assert rollout.route.canary is not None


async def test_harm_in_the_outcomes_takes_a_canary_back(rollout: Rollout) -> None:
    rollout.start_canary()
    by_role = {"live": new_ids(400), "canary": new_ids(400)}
    log = rollout.log()
    for (role, ids), built in zip(by_role.items(), rollout.bundles, strict=True):
        log.append(answered(built.digest, ids, "late", role=role))
    rollout.later(10)
    moment = int(rollout.now()) - SECOND_US
    for role, ids in by_role.items():
        right = 380 if role == "live" else 100
        labels = ["late"] * right + ["on_time"] * (len(ids) - right)
        log.append_outcomes([an_outcome(each, label, moment) for each, label in zip(ids, labels, strict=True)])
    await log.close()
    (taken_back,) = rollout.control.adjust(ENDPOINT, actor="watch")
    assert taken_back.changed, taken_back.words
    assert "outcomes" in rollout.registry.audit(ENDPOINT)[-1].reason


async def test_outcomes_of_an_experiment_are_counted_once_however_often_one_looks(rollout: Rollout) -> None:
    rollout.start_experiment(ExperimentKind.AB)
    ids = {"control": new_ids(50), "larger": new_ids(50)}
    log = rollout.log()
    for (arm, own), built in zip(ids.items(), rollout.bundles, strict=True):
        log.append(answered(built.digest, own, "late", experiment="size", arm=arm))
    foreign = new_ids(20)
    log.append(answered(rollout.bundles[0].digest, foreign, "late", experiment="earlier", arm="control"))
    rollout.later(5)

    def came(own: Sequence[str], label: str) -> list[Outcome]:
        return [an_outcome(each, label, rollout.now()) for each in own]

    log.append_outcomes([*came(ids["control"][:30], "late"), *came(ids["control"][30:], "on_time")])
    log.append_outcomes([*came(ids["larger"], "on_time"), *came(ids["larger"][:40], "late"), *came(foreign, "late")])
    await log.close()
    expected = {"control": (50, 30), "larger": (50, 40)}
    for _ in range(2):
        counts = rollout.control.count_outcomes(ENDPOINT)
        assert {arm: (each.trials, each.successes) for arm, each in counts.items()} == expected
    again = rollout.log()
    again.append_outcomes(came(ids["larger"], "on_time"))
    await again.close()
    counts = rollout.control.count_outcomes(ENDPOINT)
    assert {arm: (each.trials, each.successes) for arm, each in counts.items()} == expected, "said again, counted once"
    standing = rollout.control.standing(ENDPOINT)
    assert standing.experiment is not None
    assert {arm.name: arm.trials for arm in standing.experiment.arms} == {"control": 50, "larger": 50}
    assert standing.to_json()["experiment_reading"]["best"] == "larger"


async def test_a_bandits_shares_follow_its_outcomes_within_bounds_and_are_audited(rollout: Rollout) -> None:
    rollout.start_experiment(ExperimentKind.BANDIT)
    rollout.later(5)
    log = rollout.log()
    for arm, built, good in (("control", rollout.bundles[0], 20), ("larger", rollout.bundles[1], 70)):
        ids = new_ids(100)
        log.append(answered(built.digest, ids, "late", experiment="size", arm=arm))
        labels = ["late"] * good + ["on_time"] * (100 - good)
        log.append_outcomes([an_outcome(each, label, rollout.now()) for each, label in zip(ids, labels, strict=True)])
    await log.close()
    (adjusted,) = rollout.control.adjust(ENDPOINT, actor="watch")
    assert adjusted.changed
    assert rollout.route.experiment is not None
    shares = {arm.name: arm.share for arm in rollout.route.experiment.arms}
    assert shares["control"] == pytest.approx(0.1, abs=0.001), "the least that exploration leaves it"
    assert sum(shares.values()) == pytest.approx(1.0)
    last = rollout.registry.audit(ENDPOINT)[-1]
    assert (last.action, last.detail["by"]) == ("set_arm_shares", "bandit")
    assert last.detail["counts"]["larger"]["successes"] == 70
    (same,) = rollout.control.adjust(ENDPOINT, actor="watch")
    assert not same.changed, "the same outcomes move nothing again"


async def test_a_shadows_comparison_adds_up_over_gateways_and_time(rollout: Rollout) -> None:
    live, shadow = (each.digest for each in rollout.bundles)
    rollout.registry.change_route(
        ENDPOINT, lambda route: changes.start_shadow(route, shadow),
        action=RouteAction.START_SHADOW, actor="ann", reason="test",
    )  # fmt: skip
    rollout.later(2)
    generator = np.random.default_rng(7)
    whole = ShadowComparison()
    for _ in range(3):
        scores = generator.random(200, np.float32)
        other, flips = np.clip(scores + np.float32(0.1), 0, 1), np.zeros(200, np.bool_)
        whole = whole.merged(part := ShadowComparison().added(scores, other, flips))
        tally = RoleTally(
            ENDPOINT, Role.SHADOW, "", shadow, live, Micros(rollout.now() - SECOND_US), rollout.now(),
            RoleCounts(requests=200, latency=(200, *[0] * (LATENCY_BINS - 1))), 200, 5, part,
        )  # fmt: skip
        log = rollout.log()
        log.append_tallies([tally])
        await log.close()
        rollout.later(2)
    standing = rollout.control.standing(ENDPOINT)
    assert standing.shadow == whole.reading()
    assert standing.shadow_dropped_rows == 15
    assert standing.shadow is not None
    assert standing.shadow.low > 0.05
