"""How high sums may climb before it is an alarm: as high as recent weeks, shuffled by days, reach once in a while.

Each stream has a sum S = max(0, S + z - 1) over its windows (CUSUM): it stays near 0 while windows are as usual, and
climbs while they are not. Days of history are drawn with replacement, all streams of a day together, so that what hangs
together in time and between streams does so in the drawn months too. The height is that which the drawn months pass as
often as false alarms were promised.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.timestamps import DAY_US

ALLOWANCE = 1.0
"""What a window may be above the usual without adding to the sum."""
PATHS = 400
PATH_DAYS_MAX = 30.0
BLOCK_WINDOWS_MIN = 7
"""Windows that are drawn together: those of as many whole days as have so many, a week where a window is a day."""
RELEASE = 0.5
"""An alarm is over when everything is below this share of the height."""
_HALVINGS = 14

Sums = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Threshold:
    """An alarm opens where any stream's sum over its weight reaches `height`, and closes where all are below half.

    `weights` (streams,) are those that were given. `days` is the promise: the mean time between two false alarms.
    `drawn` is how many there were in the drawn months, per `days`.
    """

    height: float
    weights: Sums
    days: float
    drawn: float


def increments(z: NDArray[np.float32]) -> Sums:
    """What windows add to the sums; nothing where they could not be scored."""
    steps: Sums = np.nan_to_num(z - np.float32(ALLOWANCE), nan=0.0)
    return steps


def climbed(steps: Sums) -> Sums:
    """The sums (windows, streams) after each window, from 0."""
    sums = np.zeros(steps.shape[1], dtype=np.float32)
    found = np.empty_like(steps)
    for window, step in enumerate(steps):
        sums = np.maximum(sums + step, 0.0)
        found[window] = sums
    return found


def is_open(was_open: NDArray[np.bool_], statistic: Sums, height: float) -> NDArray[np.bool_]:
    """Whether an alarm is open after windows with this statistic, the largest sum over its weight."""
    return statistic >= np.where(was_open, height * RELEASE, height)


def threshold_of(z: NDArray[np.float32], weights: Sums, window_us: int, days: float, seed: int) -> Threshold:
    """The threshold for one false alarm in `days`, from history's scores (windows, streams).

    `weights` (streams,) say how many times as high a sum must be. They must not come from the same history: what was
    calm in it by luck would raise the alarms of the weeks that follow.

    The same scores and seed give the same threshold. Takes about a second for 30 streams of 4 weeks of 5 minutes.
    """
    generator = np.random.default_rng(seed)
    steps = increments(z)
    length = max(int(min(days, PATH_DAYS_MAX) * DAY_US // window_us), 1)
    a_day = DAY_US // window_us
    block = a_day * -(-BLOCK_WINDOWS_MIN // a_day)
    starts = _starts(generator, len(steps), block, PATHS, -(-length // block))
    statistics = _statistics(steps / weights, starts, block, length)
    wanted = PATHS * length * window_us / (days * DAY_US)
    highest = statistics.max(axis=0)
    # Lower down alarms run into each other, and there would be fewer again.
    low, high = float(np.quantile(highest, max(1.0 - 2.0 * wanted / PATHS, 0.02))), float(highest.max()) * 1.01 + 0.01
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _openings(statistics, middle) > wanted else (low, middle)
    return Threshold(high, weights, days, _openings(statistics, high) / wanted)


def _starts(generator: np.random.Generator, windows: int, block: int, paths: int, blocks: int) -> NDArray[np.intp]:
    """Where each block of each path (paths, blocks) begins: at one time of day for all blocks of a path."""
    days = windows // block
    phases = generator.integers(0, block, size=(paths, 1))
    drawn = generator.integers(0, days, size=(paths, blocks)) * block + phases
    # History goes round, so that a block of its last day may begin at any time of day.
    return drawn % (days * block)


def _statistics(steps: Sums, starts: NDArray[np.intp], block: int, length: int) -> Sums:
    """The largest sum over its weight at each window of each path: (windows, paths)."""
    sums = np.zeros((len(starts), steps.shape[1]), dtype=np.float32)
    largest = np.empty((length, len(starts)), dtype=np.float32)
    for window, at in enumerate(_places(starts, block, length, len(steps))):
        sums += steps[at]
        np.maximum(sums, 0.0, out=sums)
        np.max(sums, axis=1, out=largest[window])
    return largest


def _places(starts: NDArray[np.intp], block: int, length: int, windows: int) -> Iterator[NDArray[np.intp]]:
    """For each window of the paths, which window of history stands there (paths,)."""
    whole = windows // block * block
    for window in range(length):
        yield (starts[:, window // block] + window % block) % whole


def _openings(statistics: Sums, height: float) -> int:
    """How often an alarm opens in all paths together."""
    is_now = np.zeros(statistics.shape[1], dtype=np.bool_)
    count = 0
    for largest in statistics:
        was = is_now
        is_now = is_open(was, largest, height)
        count += int(np.count_nonzero(is_now & ~was))
    return count
