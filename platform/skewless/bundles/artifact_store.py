"""Where bundle folders are kept, by digest: the port that folders and S3-compatible storage implement."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from skewless.canonical_json import Digest
from skewless.errors import InvalidDefinition
from skewless.timestamps import Micros

_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A bundle that is kept. `put_time` is when it was put last, `size_bytes` that of its files."""

    digest: Digest
    put_time: Micros
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Leftover:
    """What an unfinished put or removal left, or is busy with now. Nobody can open it."""

    name: str
    modified_time: Micros
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Inventory:
    """Everything in a store: artifacts by digest, leftovers by name."""

    artifacts: tuple[Artifact, ...]
    leftovers: tuple[Leftover, ...]


class ArtifactStore(Protocol):
    """Keeps immutable bundle folders. A folder is there completely or not at all; any number of processes share it.

    Every method raises InvalidDefinition for a name that is no digest, and Unavailable when the store cannot be
    reached or used now; none waits without a bound.
    """

    def put(self, folder: Path, digest: Digest) -> str:
        """Keep a copy of `folder` under `digest` and return its location, relative to the store.

        Safe to repeat: what is there already is not sent again, what is torn is replaced, and the put time is now.
        An interrupted put is invisible. Raises BundleRefused for a folder that is not what its manifest says, or
        whose manifest does not have this digest, and Conflict while the bundle is being removed.
        """
        ...

    def open(self, digest: Digest) -> Path:
        """A local folder with the bundle's files, each compared with its SHA-256; to be read only.

        Raises NotFound, and BundleRefused naming the file that is missing, torn, foreign or tampered with.
        """
        ...

    def verify(self, digest: Digest) -> int:
        """Read all that the store keeps of a bundle, and return its bytes. Raises as `open`, and keeps no copy."""
        ...

    def digests(self) -> tuple[Digest, ...]:
        """Every digest kept, sorted."""
        ...

    def inventory(self) -> Inventory:
        """Everything kept, and what unfinished work left."""
        ...

    def delete(self, digest: Digest) -> None:
        """Forget a bundle, whoever needs it. Raises NotFound."""
        ...

    def discard(self, digest: Digest, *, unless_put_after: int) -> bool:
        """Forget a bundle; False where it was put after that moment (µs) or is gone. Safe beside puts of it."""
        ...

    def discard_leftover(self, name: str, *, unless_modified_after: int) -> bool:
        """Remove a leftover of `inventory`; False where it was written to after that moment (µs) or is gone."""
        ...


def check_digest(digest: str) -> Digest:
    """The digest. Raises InvalidDefinition for anything but 64 lower-case hexadecimal digits.

    A digest becomes part of paths and keys: anything else could point out of the store.
    """
    if not is_digest(digest):
        raise InvalidDefinition(f"{digest!r} is not a bundle digest: 64 lower-case hexadecimal digits")
    return Digest(digest)


def is_digest(name: str) -> bool:
    """Whether a name has the form of a digest.

    >>> is_digest("ab" * 32), is_digest("../" + "ab" * 32)
    (True, False)
    """
    return _DIGEST.fullmatch(name) is not None
