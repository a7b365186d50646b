"""Who takes sealed segments of the prediction log: the port of sinks, and what they are given."""

import errno
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from skewless.adapters.log_tables import LogTable, segment_tables
from skewless.adapters.spool import PART, SegmentFrames, read_segment, segment_name
from skewless.errors import InvalidDefinition, Unavailable
from skewless.serving.log_blocks import LaterFormat, LoggedEntry, decode

_UNUSABLE = (pa.ArrowException, ArithmeticError, LookupError, TypeError, ValueError)
"""What an entry raises that was decoded and does not fit together; one of them must not stop all others."""


class SealedSegment:
    """One complete segment. What it holds is read when it is first asked for, and kept until `forget`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: Sequence[LoggedEntry] | None = None
        self._faults: list[str] | None = None

    def __repr__(self) -> str:
        return f"SealedSegment({str(self.path)!r})"

    @property
    def name(self) -> str:
        """The segment's name, by which sinks tell what they have taken."""
        return segment_name(self.path)

    @property
    def faults(self) -> Sequence[str]:
        """What of it cannot be read; the rest of it is shipped all the same. Raises as `entries` does."""
        if self._faults is None:
            self.entries()
        assert self._faults is not None, "reading it found them"
        return self._faults

    def entries(self) -> Sequence[LoggedEntry]:
        """Everything in it that can be read, in order.

        Raises FileNotFoundError where it is gone, and Unavailable where it may be read later: a later version wrote it,
        or the machine lacks something now.
        """
        if self._entries is None:
            faults: list[str] = []
            self._entries = self._read(faults)
            # Read again after `forget`, what `tables` found meanwhile is still to be told.
            self._faults = faults if self._faults is None else self._faults
        return self._entries

    def tables(self) -> list[LogTable]:
        """Everything in it as tables. An entry that makes none is left out, and a fault. Raises as `entries` does."""
        entries = self.entries()
        assert self._faults is not None, "it was read"
        return tables_of(self.name, entries, self._faults)

    @property
    def size(self) -> int:
        """Bytes of its file; 0 where somebody has taken it away."""
        return file_size(self.path)

    def forget(self) -> None:
        """Give up the memory of what was read."""
        self._entries = None

    def _read(self, faults: list[str]) -> Sequence[LoggedEntry]:
        found = self._found(faults)
        if found is None:
            return ()
        if found.lost_bytes:
            faults.append(f"{found.lost_bytes} bytes of it are in no whole frame")
        if not found.frames:
            faults.append("there is nothing in it")
        return entries_of(self.name, found.frames, faults)

    def _found(self, faults: list[str]) -> SegmentFrames | None:
        """Its frames; None, and a fault, where the disk has lost them."""
        try:
            return read_segment(self.path)
        except FileNotFoundError:
            raise
        except OSError as error:
            reason = f"it cannot be read: {error.strerror or error}"
            if error.errno != errno.EIO:  # permissions, file descriptors or memory, which somebody may give it
                raise Unavailable(
                    PART, f"segment `{self.name}`: {reason}", hint="see that its file can be opened and read"
                ) from error
            faults.append(reason)
            return None


def file_size(path: Path) -> int:
    """Bytes of a file; 0 where it is gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def cut(segments: Iterable[SealedSegment], bytes_max: int) -> Iterator[list[SealedSegment]]:
    """Segments in order, as many at a time as have `bytes_max` together, or one larger one."""
    some: list[SealedSegment] = []
    size = 0
    for segment in segments:
        bytes_ = segment.size
        if some and size + bytes_ > bytes_max:
            yield some
            some, size = [], 0
        some.append(segment)
        size += bytes_
    if some:
        yield some


def entries_of(segment: str, frames: Sequence[bytes], faults: list[str]) -> list[LoggedEntry]:
    """What frames of a segment hold, in order; one that holds nothing readable becomes one of `faults`.

    Raises Unavailable where a later version wrote one.
    """
    entries: list[LoggedEntry] = []
    for number, frame in enumerate(frames):
        try:
            entries.append(decode(frame))
        except LaterFormat as error:
            raise Unavailable(
                PART,
                f"segment `{segment}` is of a later version of skewless: {error.message}",
                hint="upgrade this program (a shipper, say) to the version of skewless that the gateways run",
            ) from error
        except InvalidDefinition as error:
            faults.append(f"frame {number}: {error.message}")
    return entries


def tables_of(segment: str, entries: Sequence[LoggedEntry], faults: list[str]) -> list[LogTable]:
    """Entries of a segment as tables; one that makes none is left out, and becomes one of `faults`."""
    try:
        return segment_tables(segment, entries)
    except _UNUSABLE:
        return segment_tables(segment, list(_usable(segment, entries, faults)))


def _usable(segment: str, entries: Sequence[LoggedEntry], faults: list[str]) -> Iterator[LoggedEntry]:
    for number, entry in enumerate(entries):
        try:
            segment_tables(segment, [entry])
        except _UNUSABLE as error:
            fault = f"entry {number} does not fit together: {error!r}"
            if fault not in faults:  # of another sink's reading
                faults.append(fault)
        else:
            yield entry


class SegmentSink(Protocol):
    """Takes sealed segments for good: each once in effect, however often it is handed over."""

    name: str

    def take(self, segments: Sequence[SealedSegment]) -> None:
        """Return when all of them are safe with it; those it has already cost next to nothing.

        Raises Unavailable where it is away or full. What was taken until then it knows, and the rest is handed over
        again.
        """
        ...
