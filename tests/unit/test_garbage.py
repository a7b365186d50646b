"""Garbage is what nobody refers to and is old; the plan is pure, and a collection spares what is wanted meanwhile."""

import random
from pathlib import Path

import pytest

from harness.artifacts import write_artifact
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.bundles.artifact_store import Artifact, Inventory, Leftover
from skewless.bundles.garbage import collect_garbage, grace_begins, plan_garbage
from skewless.canonical_json import Digest, digest
from skewless.errors import InvalidDefinition
from skewless.limits import ARTIFACT_GRACE_S_MIN
from skewless.timestamps import SECOND_US, Micros

A, B, C, D = (digest(name) for name in "abcd")
HOUR_S = 3_600


def _artifact(made: Digest, put_time: int) -> Artifact:
    return Artifact(made, Micros(put_time), 100)


def test_nothing_that_is_referenced_is_garbage_however_old() -> None:
    rng = random.Random(7)
    for _ in range(200):
        artifacts = tuple(_artifact(digest(number), rng.randrange(100)) for number in range(rng.randrange(12)))
        referenced = frozenset(each.digest for each in artifacts if rng.random() < 0.5)
        before = rng.randrange(100)
        plan = plan_garbage(Inventory(artifacts, ()), referenced, before=before)
        assert not {each.digest for each in plan.artifacts} & referenced
        expected = [each for each in artifacts if each.digest not in referenced and each.put_time <= before]
        assert list(plan.artifacts) == expected
        assert plan.referenced + plan.young + len(plan.artifacts) == len(artifacts)


def test_what_was_put_exactly_at_the_moment_is_garbage_and_a_microsecond_later_is_not() -> None:
    plan = plan_garbage(Inventory((_artifact(A, 10), _artifact(B, 11)), ()), frozenset(), before=10)
    assert [each.digest for each in plan.artifacts] == [A]
    assert plan.young == 1


def test_leftovers_are_garbage_by_age_alone() -> None:
    old, young = Leftover(".incoming-a", Micros(5), 30), Leftover(".incoming-b", Micros(50), 30)
    plan = plan_garbage(Inventory((), (old, young)), frozenset({A}), before=10)
    assert plan.leftovers == (old,)
    assert (plan.young, plan.bytes_freed) == (1, 30)


def test_what_is_referenced_and_not_kept_is_told() -> None:
    plan = plan_garbage(Inventory((_artifact(A, 1),), ()), frozenset({A, B}), before=10)
    assert plan.missing == (B,)
    assert plan.referenced == 1


@pytest.mark.parametrize("older_than_s", [0, -1, ARTIFACT_GRACE_S_MIN - 1, float("nan")])
def test_an_age_that_could_take_what_is_on_its_way_is_refused(older_than_s: float) -> None:
    with pytest.raises(InvalidDefinition, match="must be older than"):
        grace_begins(older_than_s=older_than_s, now=Micros(0))


class _PutBetween(FolderArtifactStore):
    """Somebody puts a bundle after the inventory was taken."""

    def __init__(self, root: Path, folder: Path, made: Digest) -> None:
        super().__init__(root)
        self._folder = folder
        self._made = made

    def inventory(self) -> Inventory:
        seen = super().inventory()
        self.put(self._folder, self._made)
        return seen


def test_a_bundle_that_is_put_while_garbage_is_collected_stays(tmp_path: Path) -> None:
    made = write_artifact(tmp_path / "built")
    store = _PutBetween(tmp_path / "artifacts", tmp_path / "built", made)
    store.put(tmp_path / "built", made)
    [first] = FolderArtifactStore(store.root).inventory().artifacts
    now = Micros(first.put_time + HOUR_S * SECOND_US)
    report = collect_garbage(store, frozenset(), older_than_s=HOUR_S, now=now, retire=lambda _digest: True)
    assert [each.digest for each in report.plan.artifacts] == [made], "by the inventory it was old"
    assert (report.removed, report.spared) == ((), (made,))
    assert store.digests() == (made,)
    store.open(made)


def test_a_bundle_is_retired_before_it_is_removed_and_stays_where_that_fails(tmp_path: Path) -> None:
    made = {name: write_artifact(tmp_path / name, name=name) for name in ("gone", "routed")}
    store = FolderArtifactStore(tmp_path / "artifacts")
    for name, each in made.items():
        store.put(tmp_path / name, each)
    newest = max(each.put_time for each in store.inventory().artifacts)
    seen: list[tuple[Digest, bool]] = []

    def retire(each: Digest) -> bool:
        seen.append((each, each in store.digests()))
        return each != made["routed"]

    report = collect_garbage(
        store, frozenset(), older_than_s=HOUR_S, now=Micros(newest + HOUR_S * SECOND_US), retire=retire
    )
    assert sorted(seen) == sorted((each, True) for each in made.values())
    assert (report.removed, report.spared) == ((made["gone"],), (made["routed"],))
    assert store.digests() == (made["routed"],)
