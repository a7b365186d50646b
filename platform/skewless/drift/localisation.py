"""Which streams moved, once there is an alarm."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from skewless.drift.alarms import Moved
from skewless.drift.calibration import Calibration
from skewless.drift.threshold import Sums
from skewless.statistics.variable import Part

FALSE_SHARE = 0.1
"""Share of the named that may be there by chance, on average (Benjamini and Hochberg's rate)."""
MOVED_MAX = 20
"""Variables that an alarm lists."""


def moved_streams(
    calibration: Calibration, sums: Sums, levels: Sums, onsets_us: NDArray[np.int64], now_us: int
) -> tuple[Moved, ...]:
    """What moved by `now_us`, the furthest first: each variable of each slice once, by its furthest stream."""
    shares = shares_as_high(calibration.history_sums, sums)
    named = named_by_rate(shares, FALSE_SHARE)
    found: dict[tuple[str, Part, str], Moved] = {}
    for at in np.argsort(-levels, kind="stable").tolist():
        stream = calibration.streams[at]
        if levels[at] <= 0 or stream.variable in found:
            continue
        is_named = bool(named[at]) or not found  # the one that raised the alarm is named in any case
        level, reached_us = float(levels[at]), now_us if levels[at] >= 1.0 else None
        since_us, share = int(onsets_us[at]), float(shares[at])
        found[stream.variable] = Moved(stream, level, since_us, share, is_named, reached_us)
        if len(found) == MOVED_MAX:
            break
    return tuple(found.values())


def joined(before: tuple[Moved, ...], now: tuple[Moved, ...]) -> tuple[Moved, ...]:
    """What an alarm lists after another window: what it listed, and what is high enough by itself since.

    What it listed keeps its place, and takes the first time that it was high enough by itself.
    """
    known = {each.stream.variable: each for each in before}
    for each in now:
        was = known.get(each.stream.variable)
        if was is None or not was.named:
            if each.reached_us is not None:
                known.pop(each.stream.variable, None)  # it joins at the end
                known[each.stream.variable] = replace(each, named=True)
        elif was.reached_us is None and each.reached_us is not None:
            known[each.stream.variable] = replace(was, level=each.level, reached_us=each.reached_us)
    return tuple(known.values())


def shares_as_high(history: Sums, sums: Sums) -> NDArray[np.float64]:
    """How often each stream's sum was as high in history (windows, streams), in (0, 1]: a calibrated p-value."""
    as_high = np.count_nonzero(history >= sums, axis=0)
    shares: NDArray[np.float64] = (as_high + 1.0) / (len(history) + 1.0)
    return shares


def named_by_rate(p_values: NDArray[np.float64], rate: float) -> NDArray[np.bool_]:
    """Which of these are beyond chance, so that on average at most `rate` of them are there by chance.

    Benjamini and Hochberg's procedure.

    >>> named_by_rate(np.array([0.01, 0.5, 0.02]), 0.1).tolist()
    [True, False, True]
    """
    order = np.argsort(p_values, kind="stable")
    allowed = rate * np.arange(1, len(p_values) + 1) / len(p_values)
    below = np.flatnonzero(p_values[order] <= allowed)
    named = np.zeros(len(p_values), dtype=np.bool_)
    if len(below):
        named[order[: below[-1] + 1]] = True
    return named
