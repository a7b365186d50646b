"""`skewless rollout …` over a real registry, artifact store and model repository: every change is one command."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness.registered import register
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.bundles.model_repository import model_name
from skewless.canonical_json import Digest
from skewless.cli.endpoint_commands import endpoint
from skewless.cli.rollout_commands import rollout
from skewless.errors import (
    BundleRefused,
    Conflict,
    InvalidDefinition,
    InvalidRequest,
    NotFound,
    SkewlessError,
    Unavailable,
)
from skewless.registry import database
from skewless.registry.deployment import Change, Deployment
from skewless.registry.repository import Registry
from skewless.settings import Home, Settings, load_settings
from skewless.training.gates import GateLine, GateReport, Outcome

REASON = ("--reason", "because")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("SKEWLESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOGNAME", "ann")
    settings = load_settings(Settings)
    database.upgrade(settings.registry_url)
    return settings.folders


@pytest.fixture
def registry(home: Home) -> Iterator[Registry]:
    made = Registry(database.engine(load_settings(Settings).registry_url))
    yield made
    made.close()


@pytest.fixture
def bundles(home: Home, registry: Registry, tmp_path: Path) -> list[Digest]:
    """Three registered bundles, the first live on endpoint `one`; the last asks callers for more."""
    made = [register(home, registry, tmp_path / f"built{each}", each, asks_more=each == 2) for each in range(3)]
    _run(endpoint, "create", "one", "--bundle", made[0][:10])
    return made


def _run(command: Any, *arguments: str) -> str:
    done = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def _json(*arguments: str) -> Any:
    return json.loads(_run(rollout, *arguments, "--json"))


def _last(registry: Registry) -> Any:
    return registry.audit("one")[-1]


def test_a_canary_is_started_grown_and_promoted_each_by_one_command(
    home: Home, registry: Registry, bundles: list[Digest]
) -> None:
    started = _json("start", "one", "--bundle", bundles[1][:8], "--share", "5%", *REASON)
    assert started["canary"] == {"bundle": bundles[1], "share": 0.05}
    assert (home.triton_models / model_name(bundles[1]) / "config.pbtxt").is_file()
    assert _json("share", "one", "0.25", *REASON)["canary"]["share"] == 0.25
    assert "canary" in _run(rollout, "status")
    assert "25.00%" in _run(rollout, "status", "one")
    promoted = _json("promote", "one", *REASON)
    assert (promoted["live"], promoted["previous"], promoted["canary"]) == (bundles[1], bundles[0], None)
    assert (_last(registry).action, _last(registry).actor, _last(registry).reason) == ("promote", "ann", "because")
    assert _json("rollback", "one", *REASON)["live"] == bundles[0]


def test_a_canary_by_steps_keeps_its_plan_and_is_held_until_a_step_is_over(
    registry: Registry, bundles: list[Digest]
) -> None:
    plan = ("--steps", "0.01,0.05,1", "--hold", "10m,1h", "--requests-min", "50")
    started = _json("start", "one", "--bundle", bundles[1], *plan, *REASON)
    assert started["canary"]["share"] == 0.01
    progress = registry.progress("one")
    assert progress is not None
    assert progress["plan"]["steps"] == [{"share": 0.01, "hold_s": 600.0}, {"share": 0.05, "hold_s": 3600.0}]
    assert _last(registry).detail["plan"]["requests_min"] == 50
    (held,) = json.loads(_run(rollout, "adjust", "--json"))
    assert (held["subject"], held["changed"], held["words"][0]) == ("canary", False, "hold")
    status = _json("status", "one")
    assert (status["canary_progress"]["decision"], status["canary_progress"]["step"]) == ("hold", 0)
    assert "step 1 of 2" in _run(rollout, "status", "one")
    _json("abort", "one", *REASON)
    assert registry.progress("one") is None
    assert json.loads(_run(rollout, "adjust", "--json")) == []


def test_a_shadow_and_an_experiment_run_beside_each_other_and_end_by_name(
    registry: Registry, bundles: list[Digest]
) -> None:
    assert _json("shadow", "one", "--bundle", bundles[1], *REASON)["shadow"] == {"bundle": bundles[1], "share": 1.0}
    arms = ("--arm", "control=live", "--arm", f"larger={bundles[1]}:0.2")
    started = _json("experiment", "one", "size", *arms, "--success", "yes", "--traffic", "50%", *REASON)
    assert [(arm["name"], arm["bundle"], arm["share"]) for arm in started["experiment"]["arms"]] == [
        ("control", bundles[0], 0.8),
        ("larger", bundles[1], 0.2),
    ]
    status = _json("status", "one")
    assert status["shadow_comparison"]["rows"] == 0
    assert [arm["trials"] for arm in status["experiment_reading"]["arms"]] == [0, 0]
    counted = {arm: each["trials"] for arm, each in _json("outcomes", "one").items()}
    assert counted == {"control": 0, "larger": 0}
    with pytest.raises(InvalidRequest, match="shadow, experiment"):
        _run(rollout, "abort", "one", *REASON)
    _json("abort", "one", "shadow", *REASON)
    promoted = _json("promote", "one", "--arm", "larger", *REASON)
    assert (promoted["live"], promoted["experiment"], promoted["shadow"]) == (bundles[1], None, None)
    actions = [each.action for each in registry.audit("one")][1:]
    assert actions == ["start_shadow", "start_experiment", "abort", "promote"]


def test_a_bandit_is_started_with_its_bounds(bundles: list[Digest]) -> None:
    arms = ("--arm", "a=live", "--arm", f"b={bundles[1]}")
    started = _json(
        "experiment", "one", "pick", *arms, "--success", "yes", "--kind", "bandit", "--half-life", "7d", *REASON
    )["experiment"]
    assert (started["kind"], started["exploration_min"], started["half_life_s"]) == ("bandit", 0.05, 604_800.0)
    assert [arm["share"] for arm in started["arms"]] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("start", "one", "--bundle", "{1}", *REASON), InvalidRequest, "--share"),
        (("start", "one", "--bundle", "{1}", "--share", "5", *REASON), InvalidRequest, "no share"),
        (("start", "one", "--bundle", "{1}", "--steps", "0.5,0.1", *REASON), InvalidDefinition, "above the last"),
        (
            ("start", "one", "--bundle", "{1}", "--steps", "0.1", "--hold", "ten", *REASON),
            InvalidRequest,
            "no duration",
        ),
        (("start", "one", "--bundle", "{0}", "--share", "0.1", *REASON), InvalidDefinition, "live one"),
        (("start", "one", "--bundle", "{2}", "--share", "0.1", *REASON), BundleRefused, "luggage"),
        (("shadow", "one", "--bundle", "{2}", *REASON), BundleRefused, "luggage"),
        (("promote", "one", "--bundle", "{2}", *REASON), Conflict, "luggage"),
        (("promote", "one", *REASON), Conflict, "no canary"),
        (("promote", "one", "--arm", "a", *REASON), Conflict, "no experiment"),
        (("share", "one", "0.5", *REASON), Conflict, "no canary"),
        (("abort", "one", *REASON), InvalidRequest, "nothing beside"),
        (("abort", "one", "shadow", *REASON), Conflict, "no shadow"),
        (("rollback", "one", *REASON), Conflict, "no earlier"),
        (("start", "one", "--bundle", "{1}", "--share", "0.1", "--reason", " "), InvalidRequest, "reason"),
        (("start", "two", "--bundle", "{1}", "--share", "0.1", *REASON), NotFound, "two"),
        (("adjust", "two"), NotFound, "two"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    registry: Registry, bundles: list[Digest], arguments: tuple[str, ...], error: type[SkewlessError], said: str
) -> None:
    before = registry.endpoints(), registry.audit()
    with pytest.raises(error) as refused:
        _run(rollout, *(each.format(*bundles) for each in arguments))
    assert said in f"{refused.value} {getattr(refused.value, 'path', '')}"
    assert (registry.endpoints(), registry.audit()) == before


def test_other_instances_are_accepted_where_asked_for_and_kept_in_the_audit_trail(
    registry: Registry, bundles: list[Digest]
) -> None:
    _json("promote", "one", "--bundle", bundles[2], "--accept-other-instances", *REASON)
    assert "luggage" in _last(registry).detail["other_instances"][0]


def _failing(candidate: Digest, live: Digest | None) -> GateReport:
    text = f"0.70 of {candidate[:4]} against 0.75 of {(live or 'none')[:4]}"
    return GateReport((GateLine("auroc", Outcome.FAILED, text),))


def test_gates_stop_what_would_answer_and_can_be_overridden_with_a_reason(
    home: Home, registry: Registry, bundles: list[Digest]
) -> None:
    deployment = Deployment(registry, FolderArtifactStore(home.artifacts), home.triton_models, check_gates=_failing)
    change = Change("ann", "because")
    with pytest.raises(BundleRefused, match=r"0\.70"):
        deployment.start_canary("one", change, bundle=bundles[1], share=0.1)
    with pytest.raises(BundleRefused, match="auroc"):
        deployment.promote("one", change, bundle=bundles[1])
    assert registry.endpoint("one").route.version == 1
    assert not (home.triton_models / model_name(bundles[1])).exists()
    deployment.start_shadow("one", change, bundle=bundles[1], share=1.0)  # it answers nobody
    deployment.promote("one", Change("ann", "the old one is worse", override_gates=True), bundle=bundles[1])
    event = _last(registry)
    assert event.reason == "the old one is worse"
    assert event.detail["gates_overridden"] is True
    assert "auroc" in json.dumps(event.detail["gates"][bundles[1]])
    assert "gates overridden" in _run(endpoint, "show", "one")
    deployment.rollback("one", change)
    assert registry.endpoint("one").route.live == bundles[0], "no gate stops a rollback"


def test_an_artifact_store_that_is_away_stops_no_rollback(
    home: Home, registry: Registry, bundles: list[Digest]
) -> None:
    _json("promote", "one", "--bundle", bundles[1], *REASON)
    home.artifacts.rename(home.root / "elsewhere")
    assert _json("rollback", "one", *REASON)["live"] == bundles[0]
    with pytest.raises((NotFound, Unavailable)):
        _run(rollout, "promote", "one", "--bundle", bundles[1], *REASON)
