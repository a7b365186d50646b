"""An artifact store in one folder of a file system: `<root>/<digest>/` holds a bundle's files.

Beside the bundles lie, for as long as work is under way or when it was killed:

    .incoming-<digest>-<unique>   being written; renamed to its digest when it is whole and on disk
    .checking-<digest>            whole, set aside to look at its put time once more; who wants it puts it back
    .outgoing-<digest>-<unique>   being removed

A rename is the one step that shows or hides a bundle, so no reader sees a part of one, and a `kill -9` at any moment
leaves a bundle that is there or not there. The time of a bundle's folder is when it was put last.
"""

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from skewless.bundles.artifact_store import Artifact, Inventory, Leftover, check_digest, is_digest
from skewless.bundles.bundle_folder import check_entries, check_file, read_manifest
from skewless.bundles.manifest import MANIFEST, FileEntry, Manifest, check_size
from skewless.bundles.manifest import check_digest as check_sha256
from skewless.canonical_json import Digest
from skewless.durability import sync
from skewless.errors import BundleRefused, NotFound, Unavailable
from skewless.limits import ARTIFACT_LEFTOVER_AGE_S
from skewless.timestamps import SECOND_US, Micros

_INCOMING = ".incoming-"
_CHECKING = ".checking-"
_OUTGOING = ".outgoing-"
_LISTED_MAX = 10
_CHUNK_BYTES = 1024 * 1024


class FolderArtifactStore:
    """See `ArtifactStore`. The file system must rename folders atomically, as every local one does."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def root(self) -> Path:
        """The folder of the store; a bundle that was opened lies in it under its digest."""
        return self._root

    def put(self, folder: Path, digest: Digest) -> str:
        """See `ArtifactStore.put`. Durable when it returns: files and folders are synced before the rename."""
        manifest = listed(folder, check_digest(digest))
        with _translated(self._root):
            self._remove_abandoned()
            if not self._wanted_again(digest):
                with self.receiving(digest) as incoming:
                    for path, entry in manifest.files.items():
                        _copy(folder, incoming, path, entry)
                    (incoming / MANIFEST).write_bytes(manifest.encode())
        return digest

    def open(self, digest: Digest) -> Path:
        """See `ArtifactStore.open`; the folder is the kept one itself."""
        kept = self._kept(check_digest(digest))
        verify_folder(kept, digest)
        return kept

    def verify(self, digest: Digest) -> int:
        """See `ArtifactStore.verify`."""
        return _size_bytes(self.open(digest))

    def digests(self) -> tuple[Digest, ...]:
        """See `ArtifactStore.digests`."""
        with _translated(self._root):
            self._put_back_all()
            return tuple(sorted(Digest(each.name) for each in self._entries() if is_digest(each.name)))

    def inventory(self) -> Inventory:
        """See `ArtifactStore.inventory`. A bundle that disappears meanwhile is left out."""
        artifacts: list[Artifact] = []
        leftovers: list[Leftover] = []
        with _translated(self._root):
            self._put_back_all()
            for entry in self._entries():
                with suppress(FileNotFoundError):
                    if is_digest(entry.name):
                        artifacts.append(Artifact(Digest(entry.name), _modified(entry), _size_bytes(entry)))
                    elif entry.name.startswith((_INCOMING, _OUTGOING)):
                        leftovers.append(Leftover(entry.name, _newest(entry), _size_bytes(entry)))
        return Inventory(tuple(artifacts), tuple(leftovers))

    def delete(self, digest: Digest) -> None:
        """See `ArtifactStore.delete`. Renamed first, so that nobody opens a half-deleted bundle."""
        kept = self._kept(check_digest(digest))
        with _translated(self._root):
            try:
                self._remove(kept, digest)
            except FileNotFoundError:
                raise self._not_found(digest) from None

    def discard(self, digest: Digest, *, unless_put_after: int) -> bool:
        """See `ArtifactStore.discard`.

        The bundle is set aside first. A put that touched it before that shows in its time; one that comes later
        puts it back, and then there is nothing left to remove here.
        """
        kept, checking = self._root / check_digest(digest), self._root / f"{_CHECKING}{digest}"
        with _translated(self._root):
            try:
                if _modified(kept) > unless_put_after:
                    return False
                kept.rename(checking)
                if _modified(checking) > unless_put_after:
                    self._put_back(digest)
                    return False
                self._remove(checking, digest)
            except FileNotFoundError:
                return False
            except OSError:
                # Another collection holds the same bundle; a rename does not replace a folder that has files.
                if not checking.is_dir():
                    raise
                return False
        return True

    def discard_leftover(self, name: str, *, unless_modified_after: int) -> bool:
        """See `ArtifactStore.discard_leftover`."""
        leftover = self._root / name
        assert leftover.parent == self._root, f"{name!r} points out of the store"
        assert name.startswith((_INCOMING, _OUTGOING)), f"{name!r} is no leftover"
        with _translated(self._root):
            if not leftover.is_dir() or _newest(leftover) > unless_modified_after:
                return False
            shutil.rmtree(leftover, ignore_errors=True)
            return not leftover.exists()

    @contextmanager
    def receiving(self, digest: Digest) -> Iterator[Path]:
        """An empty folder for the verified files of a bundle, kept under its digest when the block ends well.

        What the file system refuses inside the block becomes Unavailable.
        """
        incoming = self._root / f"{_INCOMING}{digest}-{uuid.uuid4().hex}"
        with _translated(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
            incoming.mkdir()
            try:
                yield incoming
                _sync_tree(incoming)
                _rename_unless_there(incoming, self._root / digest)
            finally:
                shutil.rmtree(incoming, ignore_errors=True)
            sync(self._root)

    def _kept(self, digest: Digest) -> Path:
        """The folder of a bundle that is there. Raises NotFound."""
        kept = self._root / digest
        with _translated(self._root):
            self._put_back(digest)
            if not kept.is_dir():
                raise self._not_found(digest)
        return kept

    def _not_found(self, digest: Digest) -> NotFound:
        return NotFound(
            "bundle artifact",
            digest,
            known=self.digests()[:_LISTED_MAX],
            hint=f"the registry knows bundles whose files are kept in `{self._root}`; build it again, or "
            "point the artifact store at the folder that has it",
        )

    def _wanted_again(self, digest: Digest) -> bool:
        """Whether the bundle is kept whole; then its put time is now. A torn one is removed."""
        kept = self._root / digest
        self._put_back(digest)
        try:
            os.utime(kept)
        except FileNotFoundError:
            return False
        try:
            verify_folder(kept, digest)
        except BundleRefused:
            with suppress(FileNotFoundError):
                self._remove(kept, digest)
            return False
        return True

    def _put_back(self, digest: str) -> None:
        """Undo the first step of a `discard`, whether its process lives or was killed."""
        checking = self._root / f"{_CHECKING}{digest}"
        with suppress(FileNotFoundError):
            if not _rename_unless_there(checking, self._root / digest):
                self._remove(checking, digest)

    def _put_back_all(self) -> None:
        for entry in self._entries():
            if entry.name.startswith(_CHECKING):
                self._put_back(entry.name.removeprefix(_CHECKING))

    def _remove(self, folder: Path, digest: str) -> None:
        outgoing = self._root / f"{_OUTGOING}{digest}-{uuid.uuid4().hex}"
        folder.rename(outgoing)
        sync(self._root)
        shutil.rmtree(outgoing, ignore_errors=True)

    def _remove_abandoned(self) -> None:
        before = time.time_ns() // 1_000 - ARTIFACT_LEFTOVER_AGE_S * SECOND_US
        for entry in self._entries():
            if entry.name.startswith((_INCOMING, _OUTGOING)):
                with suppress(FileNotFoundError):
                    self.discard_leftover(entry.name, unless_modified_after=int(before))

    def _entries(self) -> list[Path]:
        try:
            return sorted(entry for entry in self._root.iterdir() if entry.is_dir() and not entry.is_symlink())
        except FileNotFoundError:
            return []


def verify_folder(folder: Path, digest: Digest) -> Manifest:
    """The manifest of a bundle folder whose every file has been read and compared with its size and SHA-256.

    Raises BundleRefused naming the file that is missing, foreign, torn or tampered with. Holds a megabyte at a time.
    """
    manifest = listed(folder, digest)
    for path, entry in manifest.files.items():
        check_file(folder, path, entry)
    return manifest


def listed(folder: Path, digest: Digest) -> Manifest:
    """The manifest of a bundle folder that holds exactly its files. Raises BundleRefused; reads no file but this."""
    if not folder.is_dir():
        raise BundleRefused(f"bundle folder `{folder}` does not exist")
    _, manifest = read_manifest(folder, digest)
    check_entries(folder, manifest)
    return manifest


def _copy(source: Path, target: Path, path: str, entry: FileEntry) -> None:
    """Copy one file, hashing what is written: the source may change while it is copied."""
    (target / path).parent.mkdir(parents=True, exist_ok=True)
    seen, size = sha256(), 0
    with (source / path).open("rb") as reading, (target / path).open("wb") as writing:
        while chunk := reading.read(_CHUNK_BYTES):
            seen.update(chunk)
            size += len(chunk)
            writing.write(chunk)
    check_size(path, size, entry)
    check_sha256(path, Digest(seen.hexdigest()), entry)


def _rename_unless_there(folder: Path, kept: Path) -> bool:
    """Whether `folder` now is `kept`; False where that was there already. Raises FileNotFoundError."""
    try:
        folder.rename(kept)
    except FileNotFoundError:
        raise
    except OSError:
        # Another process kept the same digest first; a rename never replaces a folder that has files.
        if not kept.is_dir():
            raise
        return False
    return True


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def _modified(path: Path) -> Micros:
    return Micros(path.stat().st_mtime_ns // 1_000)


def _newest(folder: Path) -> Micros:
    """When anything in a folder was written last; what disappears meanwhile does not count."""
    newest = _modified(folder)
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            newest = max(newest, _modified(path))
    return newest


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def _translated(root: Path) -> Iterator[None]:
    """What the file system refuses, as an error of ours."""
    try:
        yield
    except OSError as error:
        raise Unavailable(
            "the artifact store",
            f"`{root}` cannot be used: {error.strerror or error}",
            hint="check that the folder exists, its permissions, and that the disk is not full",
        ) from error
