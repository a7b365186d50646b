"""The folder artifact store: a bundle is there completely or not at all."""

import threading
from pathlib import Path

import pytest

from skewless.bundles.artifact_store import FolderArtifactStore
from skewless.canonical_json import Digest, digest
from skewless.errors import BundleRefused, InvalidDefinition, NotFound

A, B = digest("a"), digest("b")


@pytest.fixture
def store(tmp_path: Path) -> FolderArtifactStore:
    return FolderArtifactStore(tmp_path / "artifacts")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "built"
    (made / "model").mkdir(parents=True)
    (made / "manifest.json").write_bytes(b"{}")
    (made / "model" / "model.onnx").write_bytes(bytes(range(256)))
    return made


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_opened_bundle_has_the_bytes_that_were_put(store: FolderArtifactStore, folder: Path) -> None:
    location = store.put(folder, A)
    assert _content(store.open(A)) == _content(folder)
    assert location == A, "the location is relative to the store, so that the store can move"


def test_putting_a_digest_again_keeps_the_first_copy(store: FolderArtifactStore, folder: Path) -> None:
    store.put(folder, A)
    (folder / "manifest.json").write_bytes(b"changed")
    assert store.put(folder, A) == A
    assert (store.open(A) / "manifest.json").read_bytes() == b"{}"


def test_digests_are_listed_sorted_and_nothing_else_is(
    store: FolderArtifactStore, folder: Path, tmp_path: Path
) -> None:
    assert store.digests() == ()
    for each in (A, B):
        store.put(folder, each)
    (tmp_path / "artifacts" / f".incoming-{A}-left-by-a-crash").mkdir()
    (tmp_path / "artifacts" / "notes.txt").write_text("not a bundle")
    assert store.digests() == tuple(sorted((A, B)))


def test_an_unknown_digest_is_not_found_and_the_known_ones_are_named(store: FolderArtifactStore, folder: Path) -> None:
    store.put(folder, A)
    with pytest.raises(NotFound, match=f"Known: `{A}`"):
        store.open(B)
    with pytest.raises(NotFound):
        store.delete(B)


def test_a_deleted_bundle_is_gone_and_leaves_nothing(store: FolderArtifactStore, folder: Path, tmp_path: Path) -> None:
    store.put(folder, A)
    store.put(folder, B)
    store.delete(A)
    assert store.digests() == (B,)
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == [B]
    store.put(folder, A)
    assert store.digests() == tuple(sorted((A, B)))


@pytest.mark.parametrize("name", ["../escape", "/etc", "", "A" * 64, "a" * 63])
def test_a_name_that_is_no_digest_never_becomes_a_path(store: FolderArtifactStore, folder: Path, name: str) -> None:
    for act in (lambda: store.put(folder, Digest(name)), lambda: store.open(Digest(name))):
        with pytest.raises(InvalidDefinition, match="64 lower-case"):
            act()


def test_a_folder_with_a_link_is_refused_and_nothing_is_kept(
    store: FolderArtifactStore, folder: Path, tmp_path: Path
) -> None:
    (folder / "model" / "link").symlink_to(tmp_path)
    with pytest.raises(BundleRefused, match="`model/link`"):
        store.put(folder, A)
    assert store.digests() == ()


def test_a_folder_that_is_not_there_is_refused(store: FolderArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(BundleRefused, match="does not exist"):
        store.put(tmp_path / "nothing", A)


def test_a_file_that_cannot_be_copied_leaves_nothing_behind(
    store: FolderArtifactStore, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "artifacts").write_text("a file where the store should be")
    with pytest.raises(OSError, match="exists"):
        store.put(folder, A)
    assert (tmp_path / "artifacts").is_file()


def test_puts_of_one_digest_at_once_all_succeed_and_keep_one_copy(
    store: FolderArtifactStore, folder: Path, tmp_path: Path
) -> None:
    barrier = threading.Barrier(8)
    locations: list[str] = []

    def put() -> None:
        barrier.wait()
        locations.append(store.put(folder, A))

    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert locations == [A] * 8
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == [A]
    assert _content(store.open(A)) == _content(folder)
