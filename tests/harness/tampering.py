"""Changing a bundle on disk: as an accident does, or as somebody who also puts the digests right."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skewless import canonical_json
from skewless.bundles.manifest import MANIFEST
from skewless.canonical_json import Digest


def edit(folder: Path, path: str, change: Callable[[Any], object]) -> None:
    """Change the plain data of a JSON file in place, and put the manifest right."""
    document = json.loads((folder / path).read_bytes())
    change(document)
    replace(folder, path, canonical_json.encode(document))


def replace(folder: Path, path: str, data: bytes) -> None:
    """Give a file another content, and put the manifest right."""
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(data)
    name(folder, path, data)


def name(folder: Path, path: str, data: bytes) -> None:
    """Have the manifest say that a file has this content."""
    entry = {"bytes": len(data), "sha256": canonical_json.digest_bytes(data)}
    edit_manifest(folder, lambda manifest: manifest["files"].update({path: entry}))


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest in place; it stays canonical."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    change(manifest)
    (folder / MANIFEST).write_bytes(canonical_json.encode(manifest))


def digest_of(folder: Path) -> Digest:
    """The digest that the bundle has now."""
    return canonical_json.digest_bytes((folder / MANIFEST).read_bytes())


def flip(folder: Path, path: str, position: int, bit: int = 0) -> None:
    """Change one bit of a file."""
    data = bytearray((folder / path).read_bytes())
    data[position] ^= 1 << bit
    (folder / path).write_bytes(data)
