"""The folder artifact store: what only a folder can show. What every store keeps to is in the contract test."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path, PosixPath
from typing import ClassVar

import pytest

from harness.artifacts import content, write_artifact
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.canonical_json import Digest
from skewless.errors import BundleRefused, Unavailable
from skewless.timestamps import SECOND_US

DAY_S = 86_400
TESTS = Path(__file__).parents[1]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


@pytest.fixture
def store(root: Path) -> FolderArtifactStore:
    return FolderArtifactStore(root)


@pytest.fixture
def built(tmp_path: Path) -> Path:
    return tmp_path / "built"


def _age(folder: Path, seconds: float) -> int:
    """Make a folder and all in it look that old; returns its new time (µs)."""
    moment_us = folder.stat().st_mtime_ns // 1_000 - int(seconds * SECOND_US)
    for path in (folder, *folder.rglob("*")):
        os.utime(path, ns=(moment_us * 1_000, moment_us * 1_000))
    return moment_us


def test_an_old_bundle_that_is_put_today_is_young(store: FolderArtifactStore, built: Path) -> None:
    made = write_artifact(built)
    built_time = _age(built, 30 * DAY_S)
    store.put(built, made)
    assert store.inventory().artifacts[0].put_time > built_time + 29 * DAY_S * SECOND_US


def test_a_put_between_the_look_and_the_removal_keeps_the_bundle(
    store: FolderArtifactStore, root: Path, built: Path
) -> None:
    made = write_artifact(built)
    store.put(built, made)
    _age(root / made, DAY_S)
    # What a removal does first, before it looks at the time once more.
    (root / made).rename(root / f".checking-{made}")
    store.put(built, made)
    assert [path.name for path in root.iterdir()] == [made]
    assert content(store.open(made)) == content(built)


class _Interrupted(PosixPath):
    """A path at whose first rename somebody else does something first."""

    first: ClassVar[list[Callable[[], object]]] = []

    def rename(self, target: str | os.PathLike[str]) -> "_Interrupted":
        while self.first:
            self.first.pop()()
        super().rename(target)
        return self.__class__(target)


def test_a_put_after_the_first_look_of_a_removal_keeps_the_bundle(
    store: FolderArtifactStore, root: Path, built: Path
) -> None:
    made = write_artifact(built)
    store.put(built, made)
    moment = _age(root / made, DAY_S)
    _Interrupted.first.append(lambda: store.put(built, made))
    assert not FolderArtifactStore(_Interrupted(root)).discard(made, unless_put_after=moment)
    assert not _Interrupted.first, "the put came in between"
    assert [path.name for path in root.iterdir()] == [made]
    assert content(store.open(made)) == content(built)


@pytest.mark.parametrize("look", ["open", "digests", "inventory", "delete"])
def test_a_removal_killed_before_it_decided_has_removed_nothing(
    store: FolderArtifactStore, root: Path, built: Path, look: str
) -> None:
    made = write_artifact(built)
    store.put(built, made)
    (root / made).rename(root / f".checking-{made}")
    if look == "open":
        assert content(store.open(made)) == content(built)
    elif look == "digests":
        assert store.digests() == (made,)
    elif look == "inventory":
        assert [artifact.digest for artifact in store.inventory().artifacts] == [made]
    else:
        store.delete(made)
        assert list(root.iterdir()) == []


def test_of_two_copies_that_two_removals_leave_one_is_dropped(
    store: FolderArtifactStore, root: Path, built: Path
) -> None:
    made = write_artifact(built)
    store.put(built, made)
    (root / made).rename(root / f".checking-{made}")
    FolderArtifactStore(root.with_name("other")).put(built, made)
    (root.with_name("other") / made).rename(root / made)
    assert content(store.open(made)) == content(built)
    assert [path.name for path in root.iterdir()] == [made]


def test_leftovers_are_named_and_removed_once_they_are_old(store: FolderArtifactStore, root: Path, built: Path) -> None:
    made = write_artifact(built)
    for name in (f".incoming-{made}-x", f".outgoing-{made}-y"):
        write_artifact(root / name)
    moment = _age(root / f".incoming-{made}-x", 2 * DAY_S)
    inventory = store.inventory()
    assert [leftover.name for leftover in inventory.leftovers] == [f".incoming-{made}-x", f".outgoing-{made}-y"]
    assert store.digests() == ()
    results = [store.discard_leftover(each.name, unless_modified_after=moment) for each in inventory.leftovers]
    assert results == [True, False]
    assert [path.name for path in root.iterdir()] == [f".outgoing-{made}-y"]


def test_a_put_removes_what_killed_puts_left_a_day_ago(store: FolderArtifactStore, root: Path, built: Path) -> None:
    made = write_artifact(built)
    for age_s in (2 * DAY_S, 60):
        write_artifact(root / f".incoming-{made}-{age_s}")
        _age(root / f".incoming-{made}-{age_s}", age_s)
    store.put(built, made)
    assert sorted(path.name for path in root.iterdir()) == [f".incoming-{made}-60", made]


def test_a_link_in_the_place_of_a_bundle_is_no_bundle(store: FolderArtifactStore, root: Path, built: Path) -> None:
    made = write_artifact(built)
    root.mkdir()
    (root / made).symlink_to(built, target_is_directory=True)
    assert store.digests() == ()


def test_a_file_that_the_manifest_does_not_name_is_refused(store: FolderArtifactStore, root: Path, built: Path) -> None:
    made = write_artifact(built)
    store.put(built, made)
    (root / made / "model" / "extra.pkl").write_bytes(b"")
    with pytest.raises(BundleRefused, match=r"`model/extra\.pkl`"):
        store.open(made)


def test_a_store_that_cannot_be_written_is_unavailable_and_says_where(root: Path, built: Path) -> None:
    root.write_text("a file where the store should be")
    with pytest.raises(Unavailable, match="artifacts` cannot be used") as refused:
        FolderArtifactStore(root).put(built, write_artifact(built))
    assert "permissions" in refused.value.hint
    assert root.is_file()


def test_a_kill_at_any_step_of_a_put_leaves_the_bundle_there_or_not_there(root: Path, built: Path) -> None:
    made = write_artifact(built)
    steps = _killed_at_each_step("put", root, built, made)
    assert steps > 10, "the put writes files, syncs, renames and cleans up"


def test_a_kill_at_any_step_of_a_discard_leaves_the_bundle_there_or_not_there(root: Path, built: Path) -> None:
    made = write_artifact(built)
    steps = _killed_at_each_step("discard", root, built, made)
    assert steps > 5, "the discard renames twice and removes files"


def _killed_at_each_step(act: str, root: Path, built: Path, made: Digest) -> int:
    """Runs tests/harness/killed_artifact_store.py, which checks what is left after each kill."""
    command = [sys.executable, str(TESTS / "harness" / "killed_artifact_store.py"), act, str(root), str(built), made]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(TESTS)}, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
