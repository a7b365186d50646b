"""The port of a stream of sealed segments: a publisher writes their parts in order, groups of consumers read them.

A stream delivers each part to one member of every group at least once, parts of one segment in their order to whoever
reads them alone. It may deliver a part again, after a crash on either side; `segment_consumer.py` makes of that an
effect that happens once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from skewless.adapters.segment_parts import SegmentPart

STREAM = "segment stream"
"""What the stream is called as a part that may be away."""


class WhenFull(StrEnum):
    """What becomes of new segments where slow groups have left no room in the stream."""

    WAIT = "wait"
    """They are refused, and stay with the publisher until the groups have read."""
    TRIM = "trim"
    """The oldest parts go, read or not; groups find the gap, and read what they missed from the log store."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A part for a consumer; `problem` says instead why what came is none. `token` is the stream's own."""

    part: SegmentPart | None
    token: object
    problem: str = ""


@dataclass(frozen=True, slots=True)
class GroupState:
    """How far a group is: members seen, parts not acknowledged, and parts not yet delivered (None: unknown)."""

    name: str
    consumers: int
    pending: int
    unread: int | None


@dataclass(frozen=True, slots=True)
class StreamState:
    """How full a stream is. `bytes_max` 0: its server bounds it by itself, and says nothing of its groups here."""

    entries: int
    bytes: int
    bytes_max: int
    groups: tuple[GroupState, ...]


class PartReader(Protocol):
    """One member of a group. Not safe for threads."""

    def receive(self, wait_s: float) -> list[Delivery]:
        """The next parts, oldest first: none where none came within the time. Raises Unavailable."""
        ...

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Have these not delivered again. Raises Unavailable; then they may be."""
        ...

    def close(self) -> None:
        """Leave the group's work to others; what was not acknowledged is delivered again."""
        ...


class SegmentStream(Protocol):
    """A stream by its address. It connects when first used. Not safe for threads."""

    trimmed: int
    """Parts that made room for newer ones before every group had read them, since the start."""

    def publish(self, parts: Sequence[SegmentPart]) -> None:
        """Have the parts kept, in order. Raises Unavailable where that is not known, and Overloaded where full.

        At most STREAM_PARTS_AT_ONCE parts. What may have been kept is published again.
        """
        ...

    def reader(self, group: str, consumer: str) -> PartReader:
        """A new member of a group; a group that is new begins with the oldest that the stream holds.

        Members have different names; one that comes back under its name goes on with what it left behind.
        """
        ...

    def state(self) -> StreamState:
        """How full it is. Raises Unavailable."""
        ...

    def forget_group(self, group: str) -> bool:
        """Remove a group that nobody reads for any more; whether there was one. Raises Unavailable."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...
