"""Reading a bundle's folder and trusting none of it: what is read is exactly what the manifest names.

A folder holds regular files and the folders above them, nothing else: a link's target is not covered by the digest and
may change after it was verified, and a file that the manifest does not name is one that nobody verified.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from skewless import canonical_json
from skewless.bundles.manifest import (
    MANIFEST,
    MANIFEST_BYTES_MAX,
    FileEntry,
    Manifest,
    check_digest,
    check_size,
    parse_manifest,
)
from skewless.canonical_json import Digest
from skewless.errors import BundleRefused

DOCUMENT_BYTES_MAX = 1 << 28
"""Of a file that is read into memory as a whole. A transform with a vocabulary of a million words has 20 MB."""
_HASHED_BYTES = 1 << 20


def read_manifest(folder: Path, expected: Digest | None) -> tuple[Digest, Manifest]:
    """The bundle's digest and its manifest; `expected` None accepts whatever digest it has. Raises BundleRefused."""
    with _opened(folder, MANIFEST) as file:
        data = file.read(MANIFEST_BYTES_MAX + 1)
    digest = canonical_json.digest_bytes(data)
    if expected is not None and digest != expected:
        raise BundleRefused(
            f"`{MANIFEST}` of bundle folder `{folder.name}` has SHA-256 {digest}; the digest asked for is {expected}",
            hint="it is another bundle, or its manifest was changed; fetch the one that is wanted again",
        )
    return digest, parse_manifest(data)


def check_entries(folder: Path, manifest: Manifest) -> None:
    """Raise BundleRefused unless the folder holds the manifest's files and nothing else. Reads no file."""
    wanted = {MANIFEST, *manifest.files}
    folders = {parent.as_posix() for path in wanted for parent in Path(path).parents}
    found = set()
    for path, mode in _walk(folder, folders):
        if not stat.S_ISREG(mode):
            raise BundleRefused(
                f"`{path}` in bundle folder `{folder.name}` is {_kind(mode)}; a bundle holds regular files only",
                hint="replace it by the file that it stands for, and build the bundle again",
            )
        if path not in wanted:
            raise BundleRefused(
                f"`{path}` in bundle folder `{folder.name}` is not named by `{MANIFEST}`",
                hint="nobody verified it; remove it if it is not the bundle's, or build the bundle with it",
            )
        found.add(path)
    missing = sorted(wanted - found)
    if missing:
        raise BundleRefused(
            f"`{missing[0]}` is missing from bundle folder `{folder.name}`"
            + (f", and {len(missing) - 1} more of {len(wanted)} files" if len(missing) > 1 else ""),
            hint="the folder was copied in part; fetch the bundle again, or build it again",
        )


def read_files(folder: Path, manifest: Manifest, paths: Iterable[str]) -> dict[str, bytes]:
    """Files of the manifest by path, each of its size and SHA-256. Raises BundleRefused naming the one that is not."""
    return {path: _read(folder, path, manifest.files[path]) for path in paths}


def check_file(folder: Path, path: str, entry: FileEntry) -> None:
    """Raise BundleRefused unless a file has its size and SHA-256. Holds a megabyte of it at a time."""
    digest = hashlib.sha256()
    with _opened(folder, path) as file:
        check_size(path, os.fstat(file.fileno()).st_size, entry)
        while chunk := file.read(_HASHED_BYTES):
            digest.update(chunk)
    check_digest(path, Digest(digest.hexdigest()), entry)


def read_file(folder: Path, path: str, entry: FileEntry) -> bytes:
    """A file of any size, verified. Raises BundleRefused."""
    with _opened(folder, path) as file:
        check_size(path, os.fstat(file.fileno()).st_size, entry)
        data = file.read(entry.bytes + 1)
    check_size(path, len(data), entry)
    check_digest(path, canonical_json.digest_bytes(data), entry)
    return data


def _read(folder: Path, path: str, entry: FileEntry) -> bytes:
    if entry.bytes > DOCUMENT_BYTES_MAX:
        raise BundleRefused(f"`{path}` has {entry.bytes:,} bytes; at most {DOCUMENT_BYTES_MAX:,} are read")
    return read_file(folder, path, entry)


def _walk(folder: Path, folders: set[str], above: str = "") -> Iterator[tuple[str, int]]:
    """Path and mode of everything below a folder, in order; only the bundle's own folders are looked into."""
    try:
        entries = sorted(os.scandir(folder / above), key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(folder, above or ".", error) from error
    for entry in entries:
        path = f"{above}/{entry.name}" if above else entry.name
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode) and path in folders:
            yield from _walk(folder, folders, path)
        else:
            yield path, mode


@contextmanager
def _opened(folder: Path, path: str) -> Iterator[BinaryIO]:
    """A regular file, opened for reading. Never follows a link to it, nor waits for who writes to a pipe."""
    try:
        descriptor = os.open(folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise BundleRefused(f"`{path}` in bundle folder `{folder.name}` is {_kind(mode)}, not a file")
            yield file
    except OSError as error:
        raise _unreadable(folder, path, error) from error


def _unreadable(folder: Path, path: str, error: OSError) -> BundleRefused:
    return BundleRefused(f"`{path}` of bundle folder `{folder.name}` cannot be read: {error.strerror}")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder that holds no file of it", stat.S_IFIFO: "a pipe"}
    return kinds.get(stat.S_IFMT(mode), "no regular file")
