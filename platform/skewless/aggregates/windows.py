"""Windows over event time, as whole panes: the one place that says where a window begins and ends.

Time is cut into panes of `every`, from 1970 on, half-open: an event at an edge belongs to the pane that begins there.
A window is `panes` of them that follow one another. At a moment in pane p it is

    running     panes p-n+1 … p      what has happened of the window that is open: it grows with every event
    complete    panes p-n … p-1      the last window that is over: it changes at edges alone, and when an event is late

A running window's leading end moves with time, its trailing end by panes: a window of 1 h every 5 min holds what
happened in the last 55 to 60 minutes. It is the oldest of Flink's or Spark's sliding windows that is still open. A
tumbling window is one of a single pane.
"""

import re
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from skewless.errors import InvalidDefinition
from skewless.ingest_limits import AGGREGATE_PANES_MAX
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, SECOND_US

Moments = TypeVar("Moments", int, NDArray[np.int64])
"""A moment (µs), or many."""
_UNITS = {"s": SECOND_US, "m": MINUTE_US, "h": HOUR_US, "d": DAY_US}
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])")


@dataclass(frozen=True, slots=True)
class Window:
    """`size_us` long, in panes of `every_us`; see the module."""

    size_us: int
    every_us: int
    is_complete: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.every_us <= self.size_us or self.size_us % self.every_us:
            raise InvalidDefinition(
                f"a window of {duration(self.size_us)} cannot move every {duration(self.every_us)}",
                hint="give a step that the window is a whole multiple of",
            )
        if self.panes > AGGREGATE_PANES_MAX:
            raise InvalidDefinition(
                f"a window of {duration(self.size_us)} every {duration(self.every_us)} has {self.panes} panes; "
                f"at most {AGGREGATE_PANES_MAX} are kept per entity",
                hint="let it move in longer steps",
            )

    @property
    def panes(self) -> int:
        """How many panes it has."""
        return self.size_us // self.every_us

    @property
    def name(self) -> str:
        """What features are called by: its size, and what sets it apart from a sliding one that is running.

        >>> tumbling("1d").name, sliding("1h", every="5m").name, tumbling("1d", complete=True).name
        ('1d_tumbling', '1h', '1d_tumbling_complete')
        """
        tumbles = "_tumbling" if self.panes == 1 else ""
        return duration(self.size_us) + tumbles + ("_complete" if self.is_complete else "")

    def pane(self, moment: int) -> int:
        """The pane that a moment (µs) lies in.

        >>> tumbling("1h").pane(HOUR_US - 1), tumbling("1h").pane(HOUR_US)
        (0, 1)
        """
        return moment // self.every_us

    def pane_range(self, moment: Moments) -> tuple[Moments, Moments]:
        """First and last pane of the window at a moment or at each of many, both inclusive.

        >>> [sliding("1h", every="30m", complete=each).pane_range(HOUR_US) for each in (False, True)]
        [(1, 2), (0, 1)]
        """
        last = moment // self.every_us - self.is_complete
        return last - self.panes + 1, last

    def edges(self, pane: int) -> tuple[int, ...]:
        """Moments (µs) at which a pane comes into the window as a whole, and leaves it; in order.

        An event itself comes into a running window when it happens, so that there only the second is an edge.

        >>> [edge // HOUR_US for edge in tumbling("1h").edges(5)], [
        ...     edge // HOUR_US for edge in tumbling("1h", complete=True).edges(5)]
        ([6], [6, 7])
        """
        leaves = (pane + self.panes + self.is_complete) * self.every_us
        return ((pane + 1) * self.every_us, leaves) if self.is_complete else (leaves,)


def sliding(size: str, *, every: str, complete: bool = False) -> Window:
    """A window of `size` that moves in steps of `every`, such as "1h" and "5m" (s, m, h, d).

    `complete` takes what is over alone, as the module says. Raises InvalidDefinition.
    """
    return Window(parse_duration(size, where="a window's size"), parse_duration(every, where="its step"), complete)


def tumbling(size: str, *, complete: bool = False) -> Window:
    """Windows of `size` one after another, beginning at multiples of it since 1970 (UTC).

    `complete` gives the last one that is over, otherwise it is the one that is running. Raises InvalidDefinition.
    """
    size_us = parse_duration(size, where="a window's size")
    return Window(size_us, size_us, complete)


def parse_duration(text: str, *, where: str) -> int:
    """Microseconds of a text such as `90s`, `5m`, `1h` or `7d`; `where` names it in the refusal.

    >>> parse_duration("5m", where="") // SECOND_US
    300
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise InvalidDefinition(
            f"{where} is {text!r}, and no duration. Allowed: a whole number with one of {', '.join(_UNITS)}",
            hint='write it as "30s", "5m", "1h" or "7d"',
        )
    return int(found.group(1)) * _UNITS[found.group(2)]


def duration(length_us: int) -> str:
    """The shortest text that `parse_duration` reads as this length.

    >>> duration(HOUR_US), duration(90 * SECOND_US)
    ('1h', '90s')
    """
    for unit, unit_us in reversed(_UNITS.items()):
        if length_us % unit_us == 0:
            return f"{length_us // unit_us}{unit}"
    return f"{length_us / SECOND_US:g}s"
