"""Where bundle folders are kept, by digest. What is inside a bundle is no concern of the store."""

import re
import shutil
import stat
import uuid
from pathlib import Path
from typing import Protocol

from skewless.canonical_json import Digest
from skewless.durability import sync
from skewless.errors import BundleRefused, InvalidDefinition, NotFound

_INCOMING = ".incoming-"
_OUTGOING = ".outgoing-"
_LISTED_MAX = 10


class ArtifactStore(Protocol):
    """Keeps immutable bundle folders. A folder is there completely or not at all."""

    def put(self, folder: Path, digest: Digest) -> str:
        """Keep a copy of `folder` under `digest` and return its location, relative to the store.

        Does nothing where the digest is kept already. Raises BundleRefused for a folder that cannot be kept.
        """
        ...

    def open(self, digest: Digest) -> Path:
        """A local folder with the bundle's files, to be read only. Raises NotFound."""
        ...

    def digests(self) -> tuple[Digest, ...]:
        """Every digest kept, sorted."""
        ...

    def delete(self, digest: Digest) -> None:
        """Forget a bundle. Raises NotFound."""
        ...


class FolderArtifactStore:
    """An artifact store in one folder of one file system, `<root>/<digest>/`; several processes may share it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, folder: Path, digest: Digest) -> str:
        """See `ArtifactStore.put`. Durable when it returns: files and folders are synced before the rename."""
        kept = self._folder(digest)
        if kept.is_dir():
            return kept.name
        _refuse_unkeepable(folder)
        self._root.mkdir(parents=True, exist_ok=True)
        incoming = self._root / f"{_INCOMING}{digest}-{uuid.uuid4().hex}"
        try:
            shutil.copytree(folder, incoming)
            _sync_tree(incoming)
            _rename_unless_there(incoming, kept)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        sync(self._root)
        return kept.name

    def open(self, digest: Digest) -> Path:
        """See `ArtifactStore.open`."""
        kept = self._folder(digest)
        if not kept.is_dir():
            raise NotFound(
                "bundle artifact",
                digest,
                known=self.digests()[:_LISTED_MAX],
                hint=f"the registry knows bundles whose files are kept in `{self._root}`; build it again, or "
                "point the artifact store at the folder that has it",
            )
        return kept

    def digests(self) -> tuple[Digest, ...]:
        """See `ArtifactStore.digests`."""
        if not self._root.is_dir():
            return ()
        return tuple(
            sorted(Digest(each.name) for each in self._root.iterdir() if re.fullmatch("[0-9a-f]{64}", each.name))
        )

    def delete(self, digest: Digest) -> None:
        """See `ArtifactStore.delete`. Renamed first, so that nobody opens a half-deleted bundle."""
        outgoing = self._root / f"{_OUTGOING}{digest}-{uuid.uuid4().hex}"
        self.open(digest).rename(outgoing)
        for leftover in (outgoing, *self._root.glob(f"{_OUTGOING}{digest}-*")):
            shutil.rmtree(leftover, ignore_errors=True)
        sync(self._root)

    def _folder(self, digest: Digest) -> Path:
        # The digest becomes a path: anything but hexadecimal digits could point out of the store.
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise InvalidDefinition(f"{digest!r} is not a bundle digest: 64 lower-case hexadecimal digits")
        return self._root / digest


def _refuse_unkeepable(folder: Path) -> None:
    if not folder.is_dir():
        raise BundleRefused(f"bundle folder `{folder}` does not exist")
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            # A link's target is not covered by the bundle's digest and may change after it was verified.
            raise BundleRefused(
                f"`{path.relative_to(folder)}` in bundle folder `{folder}` is neither a file nor a folder",
                hint="a bundle holds regular files only; replace links by what they point to",
            )


def _rename_unless_there(incoming: Path, kept: Path) -> None:
    try:
        incoming.rename(kept)
    except OSError:
        # Another process kept the same digest first; a rename never replaces a folder that has files.
        if not kept.is_dir():
            raise


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)
