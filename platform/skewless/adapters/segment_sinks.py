"""Who takes sealed segments of the prediction log: the port of sinks, and what they are given."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from skewless.adapters.log_tables import LogTable, segment_tables
from skewless.adapters.spool import read_segment, segment_name
from skewless.errors import InvalidDefinition
from skewless.serving.log_blocks import LoggedEntry, decode

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
        """What of it cannot be read; the rest of it is shipped all the same. Raises FileNotFoundError."""
        if self._faults is None:
            self.entries()
        assert self._faults is not None, "reading it found them"
        return self._faults

    def entries(self) -> Sequence[LoggedEntry]:
        """Everything in it that can be read, in order. Raises FileNotFoundError where it is gone."""
        if self._entries is None:
            self._faults = []
            self._entries = self._read(self._faults)
        return self._entries

    def tables(self) -> list[LogTable]:
        """Everything in it as tables. An entry that makes none is left out, and a fault. Raises FileNotFoundError."""
        entries = self.entries()
        try:
            return segment_tables(self.name, entries)
        except _UNUSABLE:
            return segment_tables(self.name, list(self._usable(entries)))

    def _usable(self, entries: Sequence[LoggedEntry]) -> Iterator[LoggedEntry]:
        for number, entry in enumerate(entries):
            try:
                segment_tables(self.name, [entry])
            except _UNUSABLE as error:
                assert self._faults is not None, "it was read"
                self._faults.append(f"entry {number} does not fit together: {error!r}")
            else:
                yield entry

    def forget(self) -> None:
        """Give up the memory of what was read."""
        self._entries = None

    def _read(self, faults: list[str]) -> Sequence[LoggedEntry]:
        try:
            found = read_segment(self.path)
        except FileNotFoundError:
            raise
        except OSError as error:
            faults.append(f"it cannot be read: {error.strerror or error}")
            return ()
        if found.lost_bytes:
            faults.append(f"{found.lost_bytes} bytes of it are in no whole frame")
        if not found.frames:
            faults.append("there is nothing in it")
        entries: list[LoggedEntry] = []
        for number, frame in enumerate(found.frames):
            try:
                entries.append(decode(frame))
            except InvalidDefinition as error:
                faults.append(f"frame {number}: {error.message}")
        return entries


class SegmentSink(Protocol):
    """Takes sealed segments for good: each once in effect, however often it is handed over."""

    name: str

    def take(self, segments: Sequence[SealedSegment]) -> None:
        """Return when all of them are safe with it; those it has already cost next to nothing.

        Raises Unavailable where it is away or full. What was taken until then it knows, and the rest is handed over
        again.
        """
        ...
