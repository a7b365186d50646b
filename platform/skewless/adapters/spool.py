"""Segments of the prediction log as files: appended frame by frame by one process, sealed, and never written again.

    <segment>.spool     being written; its writer holds a lock on it, which the kernel takes back when the process dies
    <segment>.sealed    complete
    file  = b"SKEWSPL2", 8 random bytes (the file's marker), frame*
    frame = marker, u32 length, u32 CRC-32 of the payload, payload        (little-endian)

A frame that was torn or damaged costs itself alone: the next one is found by the marker. The marker is random because
payloads hold what callers sent, and nobody who does not know it can write a payload in which a frame is found. Files of
an older gateway (`SKEWSPL1`, no markers) are still read, up to their first torn frame.
"""

import errno
import fcntl
import os
import secrets
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from skewless.durability import sync

SUFFIX = ".spool"
SEALED = ".sealed"
SPOOL = "spool"
"""The folder of segments within a log's folder."""
PART = "prediction log"
"""What the log is called where it cannot be written or read."""
_INCOMING = ".incoming"
_MAGIC = b"SKEWSPL2"
_MAGIC_BEFORE = b"SKEWSPL1"
_MARKER_BYTES = 8
_TIME_DIGITS = 14
_HEADER = struct.Struct("<II")
_HEAD_BYTES = len(_MAGIC) + _MARKER_BYTES


@dataclass(frozen=True, slots=True)
class SegmentFrames:
    """Payloads of a segment in order, and how many bytes of it are in no frame.

    Bytes behind the last whole frame are what its writer was at when it was read or killed. Any before it are damage,
    as is all of a file whose head is another.
    """

    frames: list[bytes]
    lost_bytes: int
    tail_bytes: int
    """Of `lost_bytes`, those behind the last whole frame."""


class SpoolFile:
    """One locked segment, open for appending. Not safe for threads; one thread writes."""

    def __init__(self, path: Path, descriptor: int, marker: bytes) -> None:
        self.path = path
        self._descriptor = descriptor
        self._marker = marker
        self.size = os.fstat(descriptor).st_size

    @classmethod
    def create(cls, folder: Path, *, fsync: bool = False) -> "SpoolFile":
        """A new, locked segment in a folder, named by the time and a random number. Raises OSError.

        It gets its name once it is locked, so nobody takes it for one that was left behind. `fsync`: the name survives
        a power cut.
        """
        path = folder / f"{time.time_ns() // 1_000:0{_TIME_DIGITS}x}{secrets.token_hex(6)}{SUFFIX}"
        incoming = path.with_suffix(_INCOMING)
        descriptor = os.open(incoming, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            marker = secrets.token_bytes(_MARKER_BYTES)
            _write_all(descriptor, _MAGIC + marker)
            incoming.rename(path)
            if fsync:
                sync(folder)
        except OSError:
            os.close(descriptor)
            incoming.unlink(missing_ok=True)
            raise
        return cls(path, descriptor, marker)

    @classmethod
    def take_over(cls, path: Path) -> "SpoolFile | None":
        """The open segment that a dead process left behind, locked; None where its writer lives or it is gone.

        Raises OSError; then it is not locked.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between opening and locking its writer may have sealed it, which leaves no file under this name.
            if _is_still(path, descriptor):
                return cls(path, descriptor, os.pread(descriptor, _MARKER_BYTES, len(_MAGIC)))
        except BlockingIOError:
            pass
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    @property
    def is_empty(self) -> bool:
        """Whether no frame was ever appended."""
        return self.size <= _HEAD_BYTES

    def append(self, payload: bytes) -> None:
        """Write one frame, which is there as a whole when this returns. Raises OSError; then it is not there."""
        frame = b"".join((self._marker, _HEADER.pack(len(payload), zlib.crc32(payload)), payload))
        try:
            _write_all(self._descriptor, frame)
        except OSError:
            # Where cutting fails too, what is left is no whole frame, and the next one is found behind it.
            with suppress(OSError):
                os.ftruncate(self._descriptor, self.size)
            self.size = os.fstat(self._descriptor).st_size
            raise
        self.size += len(frame)

    def sync(self) -> None:
        """Return when all that was appended survives a power cut. Raises OSError.

        After a failure the kernel may have forgotten what it could not write: seal the file and go on in another.
        """
        os.fsync(self._descriptor)

    def seal(self, *, fsync: bool = False) -> Path | None:
        """Give the file its last name and let go of it; an empty one is deleted, and None returned.

        Raises OSError; then the file is left unlocked under its name, for whoever takes over such files.
        """
        try:
            if self.is_empty:
                self.path.unlink(missing_ok=True)
                return None
            if fsync:
                os.fsync(self._descriptor)
            sealed = self.path.with_suffix(SEALED)
            self.path.rename(sealed)
            if fsync:
                sync(sealed.parent)
            return sealed
        finally:
            os.close(self._descriptor)

    def release(self) -> None:
        """Let go of the lock and leave the file as it is, for whoever takes over such files."""
        os.close(self._descriptor)


def segment_name(path: Path) -> str:
    """The segment of a file.

    >>> segment_name(Path("spool/00064a.sealed"))
    '00064a'
    """
    return path.stem


def begun_us(path: Path) -> int:
    """When a segment was begun (µs), which its name begins with; 0 for a name of another kind.

    >>> begun_us(Path("spool/0000000000000a0123456789ab.sealed"))
    10
    """
    try:
        return int(path.name[:_TIME_DIGITS], 16)
    except ValueError:
        return 0


def sealed_segments(folder: Path) -> list[Path]:
    """Complete segments of a folder, oldest first; none where there is no folder."""
    return _with_suffix(folder, SEALED)


def open_segments(folder: Path) -> list[Path]:
    """Segments that are being written, or were left behind, oldest first."""
    return _with_suffix(folder, SUFFIX)


def segment_frames(folder: Path) -> Iterator[tuple[str, list[bytes]]]:
    """Every segment of a folder with its payloads, also those being written; each once, oldest first.

    One that is sealed meanwhile is read all the same. One that is deleted meanwhile has gone to the log's store, which
    must therefore be read afterwards.
    """
    names = {segment_name(path): path for path in (*open_segments(folder), *sealed_segments(folder))}
    for name, path in sorted(names.items()):
        frames = _frames_of(path)
        if frames is not None:
            yield name, frames


def _frames_of(path: Path) -> list[bytes] | None:
    """Of a segment under the name that it has or will get; None where it is gone."""
    for candidate in dict.fromkeys((path, path.with_suffix(SEALED))):
        with suppress(FileNotFoundError):
            return read_frames(candidate)
    return None


def remove_leftovers(folder: Path, *, age_s: float) -> None:
    """Delete files of processes that died while they created a segment; nothing was ever written into them."""
    for path in folder.glob(f"*{_INCOMING}"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > age_s:
                path.unlink()


def read_frames(path: Path) -> list[bytes]:
    """Payloads of a segment in order, those behind a torn or damaged frame too. Raises OSError."""
    return read_segment(path).frames


def read_segment(path: Path) -> SegmentFrames:
    """As `read_frames`, and what is in no frame. Raises OSError."""
    data = path.read_bytes()
    if data[: len(_MAGIC_BEFORE)] == _MAGIC_BEFORE:
        return _read_unmarked(data)
    if data[: len(_MAGIC)] != _MAGIC or len(data) < _HEAD_BYTES:
        # Longer than the head that every file begins with, it once held something, which must not be cut off.
        return SegmentFrames([], len(data), len(data) if len(data) < _HEAD_BYTES else 0)
    marker = data[len(_MAGIC) : _HEAD_BYTES]
    frames: list[bytes] = []
    position, whole_until, lost_bytes = _HEAD_BYTES, _HEAD_BYTES, 0
    while (position := data.find(marker, position)) >= 0:
        payload = _payload(data, position + _MARKER_BYTES)
        if payload is None:
            position += 1
            continue
        frames.append(payload)
        lost_bytes += position - whole_until
        position = whole_until = position + _MARKER_BYTES + _HEADER.size + len(payload)
    tail_bytes = len(data) - whole_until
    return SegmentFrames(frames, lost_bytes + tail_bytes, tail_bytes)


def _read_unmarked(data: bytes) -> SegmentFrames:
    """A file of an older gateway; what follows a torn frame cannot be found."""
    frames: list[bytes] = []
    position = len(_MAGIC_BEFORE)
    while (payload := _payload(data, position)) is not None:
        frames.append(payload)
        position += _HEADER.size + len(payload)
    return SegmentFrames(frames, len(data) - position, len(data) - position)


def _payload(data: bytes, position: int) -> bytes | None:
    """The payload whose header is at a place; None where there is no whole and sound one."""
    start = position + _HEADER.size
    if start > len(data):
        return None
    length, checksum = _HEADER.unpack_from(data, position)
    if start + length > len(data):
        return None
    payload = data[start : start + length]
    return payload if zlib.crc32(payload) == checksum else None


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        written = os.write(descriptor, left)
        if written == 0:
            raise OSError(errno.EIO, "nothing was written")
        left = left[written:]


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether an open file is the one under a path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _with_suffix(folder: Path, suffix: str) -> list[Path]:
    return sorted(folder.glob(f"*{suffix}"))
