"""Append-only spool files: frames that survive a `kill -9` of their writer, read back up to the first torn one.

    file  = b"SKEWSPL1" frame*
    frame = u32 length, u32 CRC-32 of the payload, payload       (little-endian)

A writer holds an exclusive lock on its file, so that another process can tell a file left behind from a live one.
"""

import fcntl
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

_MAGIC = b"SKEWSPL1"
_HEADER = struct.Struct("<II")
SUFFIX = ".spool"


class SpoolFile:
    """One locked spool file, open for appending. Not safe for threads; one thread writes."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    @classmethod
    def create(cls, path: Path) -> "SpoolFile":
        """A new, locked file. Raises FileExistsError where there is one."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, _MAGIC)
        return cls(path, descriptor)

    @classmethod
    def take_over(cls, path: Path) -> "SpoolFile | None":
        """The file that a dead process left behind, locked; None where its writer lives or it is gone already."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_nlink == 0:
            os.close(descriptor)
            return None
        return cls(path, descriptor)

    def append(self, payloads: Sequence[bytes]) -> None:
        """Write one frame per payload, all or none as far as this process can tell. Raises OSError."""
        data = memoryview(b"".join(_HEADER.pack(len(each), zlib.crc32(each)) + each for each in payloads))
        start = self.size
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            os.ftruncate(self._descriptor, start)
            raise
        self.size = os.fstat(self._descriptor).st_size

    def delete(self) -> None:
        """Remove the file, then let go of its lock."""
        self.path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def release(self) -> None:
        """Let go of the lock and leave the file for whoever recovers it."""
        os.close(self._descriptor)


def read_frames(path: Path) -> list[bytes]:
    """Payloads of a spool file in order; a torn or damaged frame ends it. Raises FileNotFoundError."""
    data = path.read_bytes()
    payloads: list[bytes] = []
    position = len(_MAGIC)
    if data[:position] != _MAGIC:
        return payloads
    while position + _HEADER.size <= len(data):
        length, checksum = _HEADER.unpack_from(data, position)
        position += _HEADER.size
        payload = data[position : position + length]
        if len(payload) < length or zlib.crc32(payload) != checksum:
            break
        payloads.append(payload)
        position += length
    return payloads
