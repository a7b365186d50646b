"""What a shipper keeps in a prediction log's folder `shipping/`: its lock, its id, and a file for each sink.

    shipping/lock          locked by the one shipper of the folder as long as it lives
    shipping/id            who it is in the tables of the log store
    shipping/store.json    {"round": 12, "committing": [segments], "taken": [segments]}
    shipping/stream.json   the numbers of the stream's segments (`stream_sink`)

A round is in the journal, on the disk, before anything of it is committed, so that after a crash it is done again with
the same segments and under the same number, which the tables know.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from skewless.durability import sync
from skewless.errors import Conflict, InvalidDefinition

SHIPPING = "shipping"
"""The folder within a log's folder."""
_LOCK = "lock"
_ID = "id"
_ID_BYTES = 8
STORE_JOURNAL = "store.json"
STREAM_NUMBERS = "stream.json"
"""The file in which the sink of a stream keeps its numbers."""


class Journal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`round` is the last one that was begun; `committing` its segments until all of them are committed."""

    round: int = 0
    committing: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    """Segments that are committed and not deleted yet, because another sink still wants them."""


@contextmanager
def only_shipper(folder: Path) -> Iterator[None]:
    """Holds the lock of a log's folder inside. Raises Conflict, naming the process, where another holds it."""
    shipping = folder / SHIPPING
    shipping.mkdir(parents=True, exist_ok=True)
    # The file stays: removing it could let two shippers lock two files of one name.
    descriptor = os.open(shipping / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "another process"
            raise Conflict(
                f"`{folder}` is shipped by process {holder} already",
                hint="one shipper serves a folder; `skewless log status` says how it does",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def shipper_of(folder: Path) -> int | None:
    """The process that ships a log's folder now; None where none does."""
    try:
        descriptor = os.open(folder / SHIPPING / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(descriptor)
    return None


def shipper_id(folder: Path) -> str:
    """The id of a folder's shipper, made at its first asking. Raises OSError."""
    path = folder / SHIPPING / _ID
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        replace_file(path, secrets.token_hex(_ID_BYTES).encode())
        return path.read_text().strip()


def read_journal(path: Path) -> Journal:
    """The journal in a file; an empty one where there is none. Raises InvalidDefinition for one that is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Journal)
    except FileNotFoundError:
        return Journal()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidDefinition(
            f"`{path}` is no journal of a shipper: {error}",
            hint=f"restore it; without it, remove `{_ID}` beside it as well, and segments that were being committed "
            "when it was lost may come twice",
        ) from error


def write_journal(path: Path, journal: Journal) -> None:
    """Replace the journal; it survives a power cut once this returns. Raises OSError."""
    replace_file(path, msgspec.json.encode(journal))


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file in one step that survives a power cut. Raises OSError; then it is what it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_name(f".{path.name}.incoming")
    try:
        incoming.write_bytes(data)
        sync(incoming)
        incoming.replace(path)
    except OSError:
        incoming.unlink(missing_ok=True)
        raise
    sync(path.parent)


def waiting(names: Sequence[str], spool: Path, suffix: str) -> tuple[str, ...]:
    """Those segments whose file is still there."""
    return tuple(name for name in names if (spool / f"{name}{suffix}").exists())
