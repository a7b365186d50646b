"""A program that kills a process at each step of a put or a discard in turn, and checks what each kill left.

A step is whatever CPython announces to audit hooks with a path of the store: opening, renaming, making and removing.
The process under test is a fork, so that a kill costs a millisecond. Writes how many steps there were.
"""

import sys
import time
from pathlib import Path

from harness.artifacts import content
from harness.killed_forks import forked
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.canonical_json import Digest


def main(act: str, root: Path, built: Path, made: Digest) -> int:
    """The number of steps; raises AssertionError where a kill left something that is neither before nor after."""
    step = 0
    while True:
        store = FolderArtifactStore(root / str(step))
        if act == "discard":
            store.put(built, made)
        if forked(lambda store=store: _act(act, store, built, made), root=root, kill_at=step):  # type: ignore[misc]  # bound now
            return step
        _check(store, built, made)
        step += 1


def _act(act: str, store: FolderArtifactStore, built: Path, made: Digest) -> None:
    if act == "put":
        store.put(built, made)
    else:
        assert store.discard(made, unless_put_after=_now())


def _check(store: FolderArtifactStore, built: Path, made: Digest) -> None:
    kept = store.digests()
    assert kept in ((), (made,)), kept
    if kept:
        assert content(store.open(made)) == content(built)
    for leftover in store.inventory().leftovers:
        assert store.discard_leftover(leftover.name, unless_modified_after=_now())
    assert store.digests() == kept, "removing leftovers takes no bundle"
    store.put(built, made)
    assert content(store.open(made)) == content(built)
    assert [path.name for path in store.root.iterdir()] == [made]


def _now() -> int:
    return time.time_ns() // 1_000 + 1_000_000


if __name__ == "__main__":
    sys.stdout.write(f"{main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Digest(sys.argv[4]))}\n")
