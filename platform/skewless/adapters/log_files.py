"""Where the files of the log store lie, a folder or a bucket: whole files only, durable once they are kept.

A file is written to a place of this machine (`draft`) and then kept, in one step and on the disk or in the bucket when
`keep` returns. To be read it is fetched, from a bucket into a file of this machine.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from skewless.durability import sync
from skewless.limits import LOG_UNNAMED_AGE_S

PART = "the log store"
SETTING = "SKEWLESS_LOG_STORE"
_DRAFT = ".draft"


class LogFiles(Protocol):
    """Files by path, with slashes, relative to the store. Methods raise Unavailable or OSError."""

    def address(self, path: str) -> str:
        """What other programs call the file: an absolute path, or `s3://bucket/key`."""
        ...

    def draft(self, path: str) -> Path:
        """Where to write what is to be kept under a path."""
        ...

    def keep(self, draft: Path, path: str) -> None:
        """Make a draft the file under a path, or replace it by it. The draft is gone then."""
        ...

    @contextmanager
    def fetched(self, path: str) -> Iterator[Path]:
        """A file to read, as long as the block lasts."""
        ...

    def remove(self, paths: Sequence[str]) -> int:
        """Remove those files that are there, and return how many there were, as far as that is known."""
        ...

    def folders(self, path: str) -> list[str]:
        """Names of the folders in a folder; none where there is no such folder."""
        ...

    def tidy(self) -> None:
        """Remove what a process that died left on this machine; called where no other process writes."""
        ...

    def stops_second_writers(self) -> bool:
        """Whether of two commits at once one fails, so that shippers of several machines may write."""
        ...


class FolderLogFiles:
    """Implements `LogFiles` in a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def address(self, path: str) -> str:
        """See `LogFiles.address`."""
        return str(self._root / path)

    def draft(self, path: str) -> Path:
        """See `LogFiles.draft`: beside the file, so that it can be renamed."""
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.with_name(f".{target.name}{_DRAFT}")

    def keep(self, draft: Path, path: str) -> None:
        """See `LogFiles.keep`."""
        target = self._root / path
        sync(draft)
        draft.replace(target)
        sync(target.parent)

    @contextmanager
    def fetched(self, path: str) -> Iterator[Path]:
        """See `LogFiles.fetched`: the file itself."""
        yield self._root / path

    def remove(self, paths: Sequence[str]) -> int:
        """See `LogFiles.remove`."""
        removed = 0
        for path in paths:
            with suppress(FileNotFoundError):
                (self._root / path).unlink()
                removed += 1
        return removed

    def folders(self, path: str) -> list[str]:
        """See `LogFiles.folders`."""
        try:
            return sorted(each.name for each in os.scandir(self._root / path) if each.is_dir())
        except FileNotFoundError:
            return []

    def stops_second_writers(self) -> bool:
        """See `LogFiles.stops_second_writers`: a commit is a link to a name that must be free."""
        return True

    def tidy(self) -> None:
        """See `LogFiles.tidy`: drafts, where they are too old to be another machine's."""
        for draft in self._root.rglob(f".*{_DRAFT}"):
            with suppress(FileNotFoundError):
                if time.time() - draft.stat().st_mtime > LOG_UNNAMED_AGE_S:
                    draft.unlink()
