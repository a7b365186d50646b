"""Small bundle folders for tests of artifact stores, which know nothing of a bundle but its manifest."""

import random
from collections.abc import Mapping
from pathlib import Path

from skewless.bundles.manifest import MANIFEST, FileEntry, Manifest
from skewless.canonical_json import Digest, digest_bytes

SMALL: Mapping[str, bytes] = {
    "contract.json": b'{"views":[]}',
    "model/model.onnx": bytes(range(256)) * 40,
    "model/variables/data-00000-of-00001": b"weights",
    "empty": b"",
}


def write_artifact(folder: Path, files: Mapping[str, bytes] = SMALL, *, name: str = "flight-delay") -> Digest:
    """Write a folder with these files and their manifest, and return its digest; another name gives another digest."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    manifest = Manifest(name, {path: FileEntry(len(data), digest_bytes(data)) for path, data in files.items()}).encode()
    (folder / MANIFEST).write_bytes(manifest)
    return digest_bytes(manifest)


def large_file(size_bytes: int, *, seed: int = 0) -> bytes:
    """Bytes that no two pieces have in common."""
    return random.Random(seed).randbytes(size_bytes)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
