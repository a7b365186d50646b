"""What a detector tells: readings of windows, and alarms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skewless.drift.contract_breaks import Break
from skewless.drift.streams import Kind, Stream
from skewless.statistics.variable import Part

ALARMS_KEPT = 100
"""In what a detector remembers; older ones are history, which somebody else keeps."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A variable that moved: by which of its streams most, how far (`level` in heights), since about when.

    `share` is how often its sum stood as high in recent weeks, None without calibration; `named` says that it is
    beyond chance beside all others. `reached_us` is when it was high enough to raise the alarm by itself, None where
    it never was.
    """

    stream: Stream
    level: float
    since_us: int
    share: float | None
    named: bool
    reached_us: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "slice": self.stream.slice,
            "part": self.stream.part.value,
            "name": self.stream.name,
            "kind": self.stream.kind.value,
            "level": self.level,
            "since_us": self.since_us,
            "share": self.share,
            "named": self.named,
            "reached_us": self.reached_us,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Moved":
        """The inverse of `to_json`."""
        stream = Stream(data["slice"], Part(data["part"]), data["name"], Kind(data["kind"]))
        return cls(stream, data["level"], data["since_us"], data["share"], data["named"], data["reached_us"])


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something changed. Times are in µs.

    `opened_us` is the end of the window that raised it, `since_us` about when it began, `closed_us` None while it is
    open; `peak` is the largest sum in heights. `moved` is what had moved when it opened, the furthest first, and then
    what joined later, in order of time.
    """

    opened_us: int
    since_us: int
    closed_us: int | None
    peak: float
    calibrated: bool
    moved: tuple[Moved, ...]

    @property
    def named(self) -> tuple[Moved, ...]:
        """What moved beyond chance; the first of `moved` at least."""
        return tuple(each for each in self.moved if each.named)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "opened_us": self.opened_us,
            "since_us": self.since_us,
            "closed_us": self.closed_us,
            "peak": self.peak,
            "calibrated": self.calibrated,
            "moved": [each.to_json() for each in self.moved],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Alarm":
        """The inverse of `to_json`."""
        moved: Sequence[Mapping[str, Any]] = data["moved"]
        return cls(**{**data, "moved": tuple(Moved.from_json(each) for each in moved)})


@dataclass(frozen=True, slots=True)
class Reading:
    """One window: `level` is the largest sum in heights (an alarm opens at 1), `leading` whose, '' for none."""

    start_us: int
    rows: int
    level: float
    leading: str
    is_open: bool
    breaks: tuple[Break, ...]
