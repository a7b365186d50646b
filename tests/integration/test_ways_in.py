"""Every way in which a bundle comes to answer: each admits it, transform differential included, and asks for parity."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.registered import register
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.bundles.admission_checks import STEPS
from skewless.bundles.bundle import Bundle
from skewless.canonical_json import Digest
from skewless.errors import BundleRefused
from skewless.parity.dry_run import DryRun, Fault, Result
from skewless.registry import database
from skewless.registry.deployment import Change, Deployment
from skewless.registry.repository import Registry
from skewless.rollout.routes import Arm, Experiment, ExperimentKind
from skewless.settings import Home, Settings, load_settings

CHANGE = Change("ann", "because")
FAULT = Fault("weather", "late_row", 9, 10, "an example", "skewless features repair --view weather --dry-run")


@dataclass(slots=True)
class Asked:
    """Answers for every bundle, and what was asked."""

    verdict: DryRun = field(default_factory=lambda: DryRun(Result.PASSED, "10 questions"))
    parity: list[tuple[Digest, str | None]] = field(default_factory=list)
    admitted: list[Digest] = field(default_factory=list)
    refused: bool = False

    def check_parity(self, candidate: Digest, endpoint: str | None) -> DryRun:
        """The verdict."""
        self.parity.append((candidate, endpoint))
        return self.verdict

    def admit(self, _folder: Path, digest: Digest) -> Bundle:
        """Refuse, or nothing: a deployment does not look at what it is given."""
        self.admitted.append(digest)
        if self.refused:
            raise BundleRefused("row and batch differ")
        return None  # type: ignore[return-value]  # see above


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("SKEWLESS_HOME", str(tmp_path / "home"))
    url = load_settings(Settings).registry_url
    database.upgrade(url)
    made = Registry(database.engine(url))
    yield made
    made.close()


@pytest.fixture
def home(registry: Registry) -> Home:
    return load_settings(Settings).folders


@pytest.fixture
def bundles(home: Home, registry: Registry, tmp_path: Path) -> list[Digest]:
    """Two registered bundles; the first is live on endpoint `one`."""
    made = [register(home, registry, tmp_path / f"built{each}", each) for each in range(2)]
    _deployment(home, registry, Asked()).create_endpoint("one", bundle=made[0], description="", change=CHANGE)
    return made


def _deployment(home: Home, registry: Registry, asked: Asked) -> Deployment:
    return Deployment(
        registry,
        FolderArtifactStore(home.artifacts),
        home.triton_models,
        admit=asked.admit,
        check_parity=asked.check_parity,
    )


def _experiment(bundles: list[Digest]) -> Experiment:
    arms = (Arm("a", bundles[0], 0.5), Arm("b", bundles[1], 0.5))
    return Experiment(
        "size",
        ExperimentKind.AB,
        arms,
        traffic=1.0,
        success="yes",
        maximise=True,
        exploration_min=0.0,
        half_life_s=None,
    )


Way = Callable[[Deployment, list[Digest], Change], object]
WAYS: dict[str, Way] = {
    "create": lambda made, bundles, change: made.create_endpoint(
        "two", bundle=bundles[1], description="", change=change
    ),
    "canary": lambda made, bundles, change: made.start_canary("one", change, bundle=bundles[1], share=0.1),
    "experiment": lambda made, bundles, change: made.start_experiment("one", change, experiment=_experiment(bundles)),
    "promote": lambda made, bundles, change: made.promote("one", change, bundle=bundles[1]),
}
"""Ways in which a bundle comes to answer that answered nobody."""


def _shadow(made: Deployment, bundles: list[Digest], change: Change) -> object:
    return made.start_shadow("one", change, bundle=bundles[1], share=1.0)


@pytest.mark.parametrize("way", [*WAYS, "shadow"])
def test_every_way_in_admits_and_a_refusal_changes_nothing(
    home: Home, registry: Registry, bundles: list[Digest], way: str
) -> None:
    before, asked = registry.endpoints(), Asked(refused=True)
    with pytest.raises(BundleRefused, match="row and batch differ"):
        {**WAYS, "shadow": _shadow}[way](_deployment(home, registry, asked), bundles, CHANGE)
    assert (asked.admitted, registry.endpoints()) == ([bundles[1]], before)


def test_admitting_includes_the_transform_s_differential_check() -> None:
    assert "transform" in {step.name for step in STEPS}


@pytest.mark.parametrize("way", WAYS)
def test_faults_online_refuse_a_bundle_at_every_way_in_and_a_reason_to_go_on_is_kept(
    home: Home, registry: Registry, bundles: list[Digest], way: str
) -> None:
    before = registry.endpoints()
    asked = Asked(DryRun(Result.REFUSED, "10 questions", 1, 10, 10, (FAULT,)))
    made = _deployment(home, registry, asked)
    with pytest.raises(BundleRefused, match="would be given other features online than offline") as refused:
        WAYS[way](made, bundles, CHANGE)
    assert "late_row in 9 of 10" in refused.value.message
    assert asked.parity == [(bundles[1], None if way == "create" else "one")]
    assert registry.endpoints() == before
    WAYS[way](made, bundles, Change("ann", "because", skip_parity="agreed"))
    assert len(asked.parity) == 1, "nothing is asked where somebody says so"
    detail = registry.audit("two" if way == "create" else "one")[-1].detail
    assert (detail["parity"][bundles[1]]["result"], detail["parity"][bundles[1]]["words"]) == ("skipped", "agreed")


def test_a_verdict_is_kept_and_who_answers_already_is_not_asked_again(
    home: Home, registry: Registry, bundles: list[Digest]
) -> None:
    asked = Asked()
    made = _deployment(home, registry, asked)
    made.start_canary("one", CHANGE, bundle=bundles[1], share=0.1)
    assert registry.audit("one")[-1].detail["parity"][bundles[1]]["result"] == "passed"
    made.promote("one", CHANGE)
    made.rollback("one", CHANGE)
    assert asked.parity == [(bundles[1], "one")]


def test_a_shadow_answers_nobody_and_is_not_asked_until_it_is_to_answer(
    home: Home, registry: Registry, bundles: list[Digest]
) -> None:
    asked = Asked()
    made = _deployment(home, registry, asked)
    _shadow(made, bundles, CHANGE)
    assert asked.parity == []
    made.promote("one", CHANGE, bundle=bundles[1])
    assert asked.parity == [(bundles[1], "one")]
