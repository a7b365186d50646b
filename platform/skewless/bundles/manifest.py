"""A bundle's manifest: every file with its size and SHA-256. The SHA-256 of the manifest itself is the bundle's digest.

    {"files": {"contract.json": {"bytes": 1834, "sha256": "…"}, …}, "format": 2, "name": "flight-delay"}

What a path may be is narrow on purpose: it must mean the same file in every file system and object store, and none
outside of the bundle's folder. Sizes tell a file whose copying was cut short from one that somebody changed.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skewless import canonical_json
from skewless.canonical_json import Digest
from skewless.errors import BundleRefused

MANIFEST = "manifest.json"
FORMAT = 2
FILES_MAX = 10_000
"""Files of one bundle; most have a dozen."""
PATH_CHARACTERS_MAX = 240
MANIFEST_BYTES_MAX = 4 << 20
"""More than `FILES_MAX` entries with the longest paths take."""
SEGMENT = "[A-Za-z0-9_][A-Za-z0-9._+-]*"
"""Each part of a path between `/`, as a regular expression."""
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""What a bundle, so a model, may be called; the registry keeps no other name."""
_SEGMENT = re.compile(SEGMENT)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIELDS = frozenset({"files", "format", "name"})
_ENTRY_FIELDS = frozenset({"bytes", "sha256"})
_SEEN_MAX = 120
_BUILD_AGAIN = "fetch the bundle again from where it was built, or build it again"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What the manifest says of one file."""

    bytes: int
    sha256: Digest


@dataclass(frozen=True, slots=True)
class Manifest:
    """The bundle's name and files, by path relative to its folder; `manifest.json` itself is not among them."""

    name: str
    files: Mapping[str, FileEntry]

    def encode(self) -> bytes:
        """The bytes of `manifest.json`. Raises BundleRefused for paths or a name that no reader would accept."""
        _check_name(self.name)
        _check_paths(list(self.files))
        files = {path: {"bytes": each.bytes, "sha256": each.sha256} for path, each in self.files.items()}
        return canonical_json.encode({"format": FORMAT, "name": self.name, "files": files})

    @property
    def bytes_total(self) -> int:
        """Of all files together."""
        return sum(each.bytes for each in self.files.values())


def entry_of(data: bytes) -> FileEntry:
    """The entry of a file with this content."""
    return FileEntry(len(data), canonical_json.digest_bytes(data))


def parse_manifest(data: bytes) -> Manifest:
    """The manifest in the bytes of `manifest.json`.

    Raises BundleRefused for another format, for JSON that is not canonical (one content has one digest), for paths
    that could lead out of the folder or mean two things, and for entries that say no size or digest.
    """
    content = _content(data)
    form = content.get("format")
    if form == 1:
        raise BundleRefused(
            f"`{MANIFEST}` has bundle format 1; this version reads format {FORMAT}",
            hint="bundles of format 1 lack the baseline, the serving profile and file sizes: train the model again",
        )
    if form != FORMAT or type(form) is not int:
        raise BundleRefused(
            f"`{MANIFEST}` has bundle format {_seen(form)}; this version reads format {FORMAT}",
            hint="read it with the version of Skewless that wrote it, or build it again with this one",
        )
    if content.keys() != _FIELDS:
        raise BundleRefused(
            f"`{MANIFEST}` must have the fields {sorted(_FIELDS)}, got {sorted(content)}", hint=_BUILD_AGAIN
        )
    _check_name(content["name"])
    files = content["files"]
    if not isinstance(files, dict):
        raise BundleRefused(f"`{MANIFEST}`: `files` must be an object, got {_seen(files)}", hint=_BUILD_AGAIN)
    _check_paths(list(files))
    entries = {path: _entry(path, entry) for path, entry in files.items()}
    if canonical_json.encode(content) != data:
        raise BundleRefused(
            f"`{MANIFEST}` is not canonical JSON (keys sorted, none twice, no white space), so its digest is not the"
            " digest of what it says",
            hint="do not edit or reformat files of a bundle; " + _BUILD_AGAIN,
        )
    return Manifest(content["name"], entries)


def check_size(path: str, size: int, entry: FileEntry) -> None:
    """Raise BundleRefused, telling a torn file from one with too much in it, unless a file has its size in bytes."""
    if size < entry.bytes:
        raise BundleRefused(
            f"`{path}` is torn: it has {size:,} of the {entry.bytes:,} bytes that the manifest says",
            hint="copying it was cut short; " + _BUILD_AGAIN,
        )
    if size > entry.bytes:
        raise BundleRefused(
            f"`{path}` has {size:,} bytes, {size - entry.bytes:,} more than the {entry.bytes:,} that the manifest says",
            hint="something was written to it after the bundle was built; " + _BUILD_AGAIN,
        )


def check_digest(path: str, sha256: Digest, entry: FileEntry) -> None:
    """Raise BundleRefused unless a file of the right size has its SHA-256."""
    if sha256 != entry.sha256:
        raise BundleRefused(
            f"`{path}` was changed: it has SHA-256 {sha256}, the manifest says {entry.sha256}",
            hint="its size is right and its content is not, so nobody cut it short; " + _BUILD_AGAIN,
        )


def _content(data: bytes) -> dict[str, Any]:
    if len(data) > MANIFEST_BYTES_MAX:
        raise BundleRefused(f"`{MANIFEST}` has {len(data):,} bytes; at most {MANIFEST_BYTES_MAX:,} are read")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        # RecursionError: lists in lists, thousands deep.
        reason = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
        raise BundleRefused(f"`{MANIFEST}` is not a bundle manifest: {reason}", hint=_BUILD_AGAIN) from error
    if not isinstance(content, dict):
        raise BundleRefused(f"`{MANIFEST}` is not a bundle manifest: it holds {_seen(content)}", hint=_BUILD_AGAIN)
    return content


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name):
        raise BundleRefused(
            f"`{MANIFEST}`: the bundle's name is {_seen(name)}",
            hint="a name has 1 to 100 letters, digits, `.`, `_` and `-`, first a letter or digit; rename the model",
        )


def _check_paths(paths: list[str]) -> None:
    if len(paths) > FILES_MAX:
        raise BundleRefused(f"`{MANIFEST}` names {len(paths):,} files; at most {FILES_MAX:,} are allowed")
    for path in paths:
        if path == MANIFEST or len(path) > PATH_CHARACTERS_MAX or not all(map(_SEGMENT.fullmatch, path.split("/"))):
            raise BundleRefused(
                f"`{MANIFEST}` names the path {_seen(path)}, which no file of a bundle may have",
                hint="a path is relative to the bundle's folder, with `/` between names of letters, digits, `_`, `-`,"
                " `.` and `+` that begin with a letter, a digit or `_`",
            )
    _check_distinct(paths)


def _check_distinct(paths: list[str]) -> None:
    """No two paths that are one on a file system without case, and none that is a folder of another."""
    folded = {path.casefold(): path for path in paths}
    if len(folded) < len(paths):
        twice = next(path for path in paths if folded[path.casefold()] != path)
        raise BundleRefused(
            f"`{MANIFEST}` names `{twice}` and `{folded[twice.casefold()]}`, one file where case does not count"
        )
    for path in folded:
        parts = path.split("/")
        for count in range(1, len(parts)):
            if (above := "/".join(parts[:count])) in folded:
                raise BundleRefused(
                    f"`{MANIFEST}` names `{folded[above]}` as a file and as the folder of `{folded[path]}`"
                )


def _entry(path: str, entry: object) -> FileEntry:
    if isinstance(entry, dict) and entry.keys() == _ENTRY_FIELDS:
        size, sha256 = entry["bytes"], entry["sha256"]
        if type(size) is int and size >= 0 and isinstance(sha256, str) and _SHA256.fullmatch(sha256):
            return FileEntry(size, Digest(sha256))
    raise BundleRefused(
        f"`{MANIFEST}` says {_seen(entry)} of `{path}`, where the size in bytes and the SHA-256 belong",
        hint='an entry is {"bytes": 123, "sha256": "64 lower-case hexadecimal digits"}',
    )


def _seen(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SEEN_MAX else text[:_SEEN_MAX] + "…"
