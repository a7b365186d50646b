"""An artifact store on S3-compatible storage, with a folder on this machine in which opened bundles are kept.

    <prefix>/<digest>/<path>                 a file of up to 4 MiB
    <prefix>/<digest>/<path>/00000-of-00009  the pieces of a larger one, 4 MiB each but the last; put together, the file
    <prefix>/<digest>/manifest.json          written last: where it is, the bundle is there
    <prefix>/claims/<digest>                 empty; its time says when the bundle was put last
    <prefix>/removals/<digest>/<unique>      empty; there while somebody removes the bundle

Pieces, and no multipart uploads: a piece is an object like any other, so an interrupted put goes on where it stopped
on every server, and nothing is left that only an administrator sees. All that is written under a digest follows from
the digest, so puts of one bundle at once write the same bytes and need no lock. Between a put and a removal it takes
order: a put writes its claim and then looks for a removal; a removal writes its mark and then looks at the claim. A
list shows what was written before, so at least one of the two sees the other, and whoever does stands back.
"""

import hashlib
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from skewless.adapters.folder_artifact_store import FolderArtifactStore, verify_folder
from skewless.adapters.s3_objects import S3Objects, StoredObject
from skewless.bundles.artifact_store import Artifact, Inventory, Leftover, check_digest, is_digest
from skewless.bundles.manifest import MANIFEST, MANIFEST_BYTES_MAX, Manifest, check_size, parse_manifest
from skewless.bundles.manifest import check_digest as check_sha256
from skewless.canonical_json import Digest, digest_bytes
from skewless.errors import BundleRefused, Conflict, NotFound, Unavailable
from skewless.limits import ARTIFACT_REMOVAL_S_MAX, ARTIFACT_REMOVAL_STALE_S, ARTIFACT_REQUESTS_MAX, MIB
from skewless.timestamps import SECOND_US, Micros

PIECE_BYTES = 4 * MIB
"""Part of the layout: what was written with another size is not read with this one."""
_CLAIMS = "claims"
_REMOVALS = "removals"
_LISTED_MAX = 10
_LONG_AGO = Micros(0)

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class _Piece:
    """An object that holds a part of a bundle's file, or all of it."""

    path: str
    key: str
    size_bytes: int
    is_last: bool


@dataclass(slots=True)
class _Found:
    """What is there of one digest: objects of the bundle, and when they or a claim, and marks, were written last."""

    objects: list[StoredObject] = field(default_factory=list)
    is_whole: bool = False
    put_time: Micros = _LONG_AGO
    marked_time: Micros = _LONG_AGO

    @property
    def size_bytes(self) -> int:
        return sum(each.size_bytes for each in self.objects)


class S3ArtifactStore:
    """See `ArtifactStore`. A bundle that was opened once is opened again without asking the server."""

    def __init__(self, objects: S3Objects, cache: FolderArtifactStore) -> None:
        self._objects = objects
        self._cache = cache

    @property
    def cache(self) -> FolderArtifactStore:
        """Where opened bundles are kept on this machine; what is no longer wanted may be discarded from it."""
        return self._cache

    def put(self, folder: Path, digest: Digest) -> str:
        """See `ArtifactStore.put`. Pieces that are there with the right content are not sent again."""
        manifest = verify_folder(folder, check_digest(digest))
        self._claim(digest)
        there = {each.key: each for each in self._objects.list(f"{digest}/")}

        def send(key_and_data: tuple[str, bytes]) -> None:
            key, data = key_and_data
            if not self._holds(there.get(key), data):
                self._objects.put(key, data)

        for _ in _in_order(send, _read_pieces(folder, digest, manifest)):
            pass
        send((f"{digest}/{MANIFEST}", manifest.encode()))
        return digest

    def open(self, digest: Digest) -> Path:
        """See `ArtifactStore.open`: out of the cache where it is there and whole, else fetched into it."""
        try:
            return self._cache.open(digest)
        except NotFound:
            pass
        except BundleRefused:
            # The copy was damaged on this machine; the store may have a good one.
            with suppress(NotFound):
                self._cache.delete(digest)
        manifest = self._manifest(digest)
        with self._cache.receiving(digest) as incoming:
            for path, data in self._contents(digest, manifest):
                (incoming / path).parent.mkdir(parents=True, exist_ok=True)
                with (incoming / path).open("ab") as file:
                    file.write(data)
            (incoming / MANIFEST).write_bytes(manifest.encode())
        return self._cache.root / digest

    def verify(self, digest: Digest) -> int:
        """See `ArtifactStore.verify`. Reads everything from the server, whatever the cache has."""
        manifest = self._manifest(check_digest(digest))
        return sum(len(data) for _, data in self._contents(digest, manifest)) + len(manifest.encode())

    def digests(self) -> tuple[Digest, ...]:
        """See `ArtifactStore.digests`. Lists every object of the store."""
        return tuple(sorted(digest for digest, found in self._everything().items() if found.is_whole))

    def inventory(self) -> Inventory:
        """See `ArtifactStore.inventory`. A leftover is named by the digest that it is of."""
        everything = sorted(self._everything().items())
        return Inventory(
            tuple(Artifact(digest, found.put_time, found.size_bytes) for digest, found in everything if found.is_whole),
            tuple(
                Leftover(digest, max(found.put_time, found.marked_time), found.size_bytes)
                for digest, found in everything
                if not found.is_whole
            ),
        )

    def delete(self, digest: Digest) -> None:
        """See `ArtifactStore.delete`. Also removes this machine's copy; those of others stay."""
        self._manifest(check_digest(digest))
        self._remove(digest, unless_put_after=None)
        with suppress(NotFound):
            self._cache.delete(digest)

    def discard(self, digest: Digest, *, unless_put_after: int) -> bool:
        """See `ArtifactStore.discard`. Also removes this machine's copy."""
        if not self._remove(check_digest(digest), unless_put_after=unless_put_after):
            return False
        with suppress(NotFound):
            self._cache.delete(digest)
        return True

    def discard_leftover(self, name: str, *, unless_modified_after: int) -> bool:
        """See `ArtifactStore.discard_leftover`."""
        return self._remove(check_digest(name), unless_put_after=unless_modified_after)

    def _claim(self, digest: Digest) -> None:
        """Make the put time now. Raises Conflict while somebody removes the bundle."""
        claim = f"{_CLAIMS}/{digest}"
        self._objects.put(claim, b"")
        for mark in self._objects.list(f"{_REMOVALS}/{digest}/"):
            # Both times are the server's, so clocks of other machines do not matter.
            claimed = self._objects.modified_time(claim)
            if claimed is None or claimed - mark.modified_time < ARTIFACT_REMOVAL_STALE_S * SECOND_US:
                raise Conflict(
                    f"bundle {digest[:12]} is being removed from the artifact store",
                    hint="put it again: a removal takes seconds; one that was killed counts as over after "
                    f"{ARTIFACT_REMOVAL_STALE_S / 60:g} minutes",
                )
            self._objects.delete(mark.key)

    def _remove(self, digest: Digest, *, unless_put_after: int | None) -> bool:
        """Remove all of a digest; False where there is nothing or a put came after the moment.

        The manifest goes first, so what a killed removal leaves is a leftover. A removal that fails leaves its mark: a
        request that was given up may still reach the server, and until the mark is stale nobody puts the bundle.
        """
        until = time.monotonic() + ARTIFACT_REMOVAL_S_MAX
        mark = f"{_REMOVALS}/{digest}/{uuid.uuid4().hex}"
        self._objects.put(mark, b"")
        found = self._found(digest)
        wanted = unless_put_after is not None and found.put_time > unless_put_after
        if not wanted:
            manifest = f"{digest}/{MANIFEST}"
            doomed = sorted((each.key for each in found.objects), key=lambda key: key != manifest)
            for key in (*doomed, f"{_CLAIMS}/{digest}"):
                if time.monotonic() > until:
                    raise Unavailable("the artifact store", f"removing bundle {digest[:12]} takes too long")
                self._objects.delete(key)
            for other in self._objects.list(f"{_REMOVALS}/{digest}/"):
                if unless_put_after is not None and other.modified_time <= unless_put_after:
                    self._objects.delete(other.key)
        self._objects.delete(mark)
        return not wanted and found.put_time > _LONG_AGO

    def _found(self, digest: Digest) -> _Found:
        """What is there of a digest now, without looking at marks."""
        found = _Found()
        for each in self._objects.list(f"{digest}/"):
            _add(found, each, digest)
        claimed = self._objects.modified_time(f"{_CLAIMS}/{digest}")
        found.put_time = max(found.put_time, claimed or _LONG_AGO)
        return found

    def _everything(self) -> dict[Digest, _Found]:
        everything: dict[Digest, _Found] = {}
        for each in self._objects.list():
            first, _, rest = each.key.partition("/")
            name = first if is_digest(first) else rest.partition("/")[0]
            if not is_digest(name):
                continue
            found = everything.setdefault(Digest(name), _Found())
            if first == _CLAIMS:
                found.put_time = max(found.put_time, each.modified_time)
            elif first == _REMOVALS:
                found.marked_time = max(found.marked_time, each.modified_time)
            elif first == name:
                _add(found, each, Digest(name))
        return everything

    def _manifest(self, digest: Digest) -> Manifest:
        """The manifest as the server has it. Raises NotFound, and BundleRefused where it is not that of the digest."""
        content = self._objects.get(f"{digest}/{MANIFEST}", bytes_max=MANIFEST_BYTES_MAX)
        if content is None:
            raise NotFound(
                "bundle artifact",
                digest,
                known=self.digests()[:_LISTED_MAX],
                hint="build the bundle again, or point the artifact store at the bucket and prefix that has it",
            )
        data = bytes(content.data)
        if (actual := digest_bytes(data)) != digest:
            raise BundleRefused(
                f"`{MANIFEST}` of bundle {digest[:12]} has SHA-256 {actual}; the digest asked for is {digest}",
                hint="it was torn or changed in the store; put the bundle again from where it was built",
            )
        return parse_manifest(data)

    def _contents(self, digest: Digest, manifest: Manifest) -> Iterator[tuple[str, memoryview]]:
        """Path and content of every piece, in order; a file's last piece comes once all of it has been verified."""
        hashes = {path: hashlib.sha256() for path in manifest.files}
        for piece, data in _in_order(self._fetch, _pieces(digest, manifest)):
            hashes[piece.path].update(data)
            if piece.is_last:
                check_sha256(piece.path, Digest(hashes[piece.path].hexdigest()), manifest.files[piece.path])
            yield piece.path, data

    def _fetch(self, piece: _Piece) -> tuple[_Piece, memoryview]:
        content = self._objects.get(piece.key, bytes_max=piece.size_bytes)
        if content is None:
            raise BundleRefused(
                f"`{piece.path}` is missing from the artifact store: there is no object `{piece.key}`",
                hint="put the bundle again from where it was built",
            )
        if content.size_bytes != piece.size_bytes:
            raise BundleRefused(
                f"`{piece.path}` is torn: object `{piece.key}` has {content.size_bytes:,} bytes, "
                f"{piece.size_bytes:,} are expected",
                hint="put the bundle again from where it was built",
            )
        return piece, content.data

    def _holds(self, there: StoredObject | None, data: bytes) -> bool:
        """Whether an object has this content already: by its MD5, or where its etag is none, by reading it."""
        if there is None or there.size_bytes != len(data):
            return False
        if there.etag == hashlib.md5(data, usedforsecurity=False).hexdigest():
            return True
        content = self._objects.get(there.key, bytes_max=len(data))
        return content is not None and content.data == data


def _add(found: _Found, entry: StoredObject, digest: Digest) -> None:
    found.objects.append(entry)
    found.put_time = max(found.put_time, entry.modified_time)
    found.is_whole = found.is_whole or entry.key == f"{digest}/{MANIFEST}"


def _pieces(digest: Digest, manifest: Manifest) -> Iterator[_Piece]:
    """The objects that a bundle's files lie in, in order."""
    for path, entry in manifest.files.items():
        count = max(1, -(-entry.bytes // PIECE_BYTES))
        for index in range(count):
            key = f"{digest}/{path}" if count == 1 else f"{digest}/{path}/{index:05}-of-{count:05}"
            size_bytes = min(PIECE_BYTES, entry.bytes - index * PIECE_BYTES)
            yield _Piece(path, key, size_bytes, is_last=index == count - 1)


def _read_pieces(folder: Path, digest: Digest, manifest: Manifest) -> Iterator[tuple[str, bytes]]:
    """Key and content of every piece of a folder. Raises BundleRefused where a file changed since it was verified."""
    for path, pieces in groupby(_pieces(digest, manifest), key=lambda piece: piece.path):
        seen, size = hashlib.sha256(), 0
        try:
            with (folder / path).open("rb") as file:
                for piece in pieces:
                    data = file.read(piece.size_bytes)
                    seen.update(data)
                    size += len(data)
                    yield piece.key, data
        except OSError as error:
            raise BundleRefused(f"`{path}` of bundle folder `{folder.name}` cannot be read: {error}") from error
        check_size(path, size, manifest.files[path])
        check_sha256(path, Digest(seen.hexdigest()), manifest.files[path])


def _in_order(work: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> Iterator[ResultT]:
    """Results of `work` in the order of the items, of which a few are worked on at a time and no more are held."""
    waiting: deque[Future[ResultT]] = deque()
    with ThreadPoolExecutor(ARTIFACT_REQUESTS_MAX, thread_name_prefix="artifact") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= ARTIFACT_REQUESTS_MAX:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for each in waiting:
                each.cancel()
