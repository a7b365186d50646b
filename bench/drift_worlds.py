"""Made-up traffic for the drift detector: weeks with days and weekends in them, and changes that are put in.

Worlds are drawn as counts, not as rows: a window's counts in bins are multinomial with the bins' shares of that moment,
each row twice, as where entities repeat. Means are what the counts imply. So 4 weeks of 5-minute windows of 30 features
take seconds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from skewless.drift.traffic import ALL, Series
from skewless.dtypes import Column, Dtype
from skewless.statistics.bins import column_bins
from skewless.statistics.tally import ROWS, TallyLayout
from skewless.statistics.variable import BELOW, LISTED, NULL, UNSEEN, Variable
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US

WINDOW_US = 5 * MINUTE_US
FIRST_WINDOW = 4 * DAY_US // WINDOW_US  # a Monday
WINDOWS_A_DAY = DAY_US // WINDOW_US
ROWS_A_WINDOW = 3_000
WORDS = 12
NULL_SHARE = 0.01
WANDER, PERSISTENCE = 0.03, 0.95
"""Deviation of what every feature wanders by, and how much of it is left after a window."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to one feature from a moment on. `kind` is a key of CHANGES, `size` in its unit."""

    kind: str
    size: float
    feature: str


@dataclass(frozen=True, slots=True)
class World:
    """Means, logits and rows at every window from `first` on; drawn once, counted as often as wanted."""

    layout: TallyLayout
    rows: NDArray[np.int64]
    means: Floats
    logits: Floats
    slice_shares: Mapping[str, float]

    def __len__(self) -> int:
        return len(self.rows)


def world(
    seed: int, *, days: int, numbers: int = 24, words: int = 6, slices: Mapping[str, float] | None = None
) -> World:
    """A world of `days` days: every third feature has a daily cycle, every fourth other weekends."""
    generator = np.random.default_rng([seed, 1])
    windows = days * WINDOWS_A_DAY
    hours = (FIRST_WINDOW + np.arange(windows)) * WINDOW_US / HOUR_US
    weekend = (hours // 24 + 3) % 7 >= 5
    busy = 1.0 + 0.6 * np.sin(2 * np.pi * (hours - 9) / 24)
    rows = np.maximum((ROWS_A_WINDOW * busy * np.where(weekend, 0.7, 1.0)).astype(np.int64), 40)

    def moving(count: int) -> Floats:
        lines = _wandering(generator, windows, count)
        for line in range(count):
            if line % 3 == 0:
                lines[:, line] += 0.5 * np.sin(2 * np.pi * (hours + 24 * generator.random()) / 24)
            if line % 4 == 0:
                lines[:, line] += np.where(weekend, 0.3, 0.0)
        return lines

    variables = [*_number_variables(numbers), *_word_variables(words)]
    base = np.repeat(np.log(np.geomspace(1.0, 0.02, WORDS))[np.newaxis], words, axis=0)
    logits = base[np.newaxis] + np.stack([moving(words) for _ in range(WORDS)], axis=2)
    return World(TallyLayout(tuple(variables)), rows, moving(numbers), logits, slices or {ALL: 1.0})


def history_and_after(
    made: World, days: int, seed: int, change: Change | None = None, at: int = 0, only: str = ""
) -> tuple[dict[str, Series], dict[str, Series]]:
    """The series of each slice over the first `days`, and over the rest; see `counted`."""
    whole = counted(made, 0, len(made), seed, change, at, only)
    middle = FIRST_WINDOW + days * WINDOWS_A_DAY
    first, last = FIRST_WINDOW, FIRST_WINDOW + len(made)
    before = {name: each.between(first, middle) for name, each in whole.items()}
    return before, {name: each.between(middle, last) for name, each in whole.items()}


def counted(
    made: World, start: int, stop: int, seed: int, change: Change | None = None, at: int = 0, only: str = ""
) -> dict[str, Series]:
    """Windows `start` to `stop` by slice, changed from window `at` on, in the slice `only` where one is named.

    ALL is the sum of all slices.
    """
    generator = np.random.default_rng([seed, 2, start])
    found: dict[str, Series] = {}
    for name, share in made.slice_shares.items():
        applied = change if not only or name == only else None
        found[name] = _counted(generator, made, start, stop, share, applied, at)
    if ALL not in found:
        parts = list(found.values())
        found = {ALL: _summed(parts), **found}
    return found


def _summed(parts: list[Series]) -> Series:
    first = parts[0]
    return Series(
        first.layout,
        first.window_us,
        first.first,
        np.sum([each.counts for each in parts], axis=0),
        np.min([each.lows for each in parts], axis=0),
        np.max([each.highs for each in parts], axis=0),
    )


def _counted(
    generator: np.random.Generator, made: World, start: int, stop: int, share: float, change: Change | None, at: int
) -> Series:
    layout, windows = made.layout, stop - start
    counts = np.zeros((windows, layout.size), dtype=np.int64)
    pairs = np.maximum((made.rows[start:stop] * share / 2).astype(np.int64), 1)
    counts[:, ROWS] = 2 * pairs
    since = np.arange(start, stop) - at
    number, word = 0, 0
    for place, variable in enumerate(layout.variables):
        mine = change if change is not None and change.feature == variable.name else None
        if variable.vocabulary is None:
            shares, inside = _number_shares(variable, made.means[start:stop, number], since, mine)
            number += 1
        else:
            shares, inside = _word_shares(made.logits[start:stop, word], since, mine), None
            word += 1
        drawn = 2 * generator.multinomial(pairs, shares)
        at_cells = layout.starts[place]
        counts[:, at_cells : at_cells + variable.size] = drawn
        if inside is not None and (line := layout.number_lines[place]) is not None:
            first, second = (np.einsum("ij,ij->i", drawn[:, BELOW:-1], each) for each in inside)
            counts[:, layout.sums_start + line] = np.rint(first)
            counts[:, layout.sums_start + layout.numbers + line] = np.rint(second)
    edges = np.zeros((windows, layout.numbers))
    return Series(layout, WINDOW_US, FIRST_WINDOW + start, counts, edges - 4.0, edges + 4.0)


def _wandering(generator: np.random.Generator, windows: int, count: int) -> Floats:
    """What wanders about 0 (windows, count), first-order autoregressive."""
    pushes = generator.normal(0.0, WANDER * np.sqrt(1 - PERSISTENCE**2), (windows, count))
    lines = np.empty((windows, count))
    last = generator.normal(0.0, WANDER, count)
    for window in range(windows):
        last = PERSISTENCE * last + pushes[window]
        lines[window] = last
    return lines


def _number_variables(count: int) -> list[Variable]:
    sample = np.random.default_rng(0).normal(size=20_000)
    made = []
    for line in range(count):
        column = Column(Dtype.FLOAT64, sample, np.ones(len(sample), dtype=np.bool_))
        made.append(column_bins(f"number_{line:02}", column, served=False, known_max=512))
    return made


def _word_variables(count: int) -> list[Variable]:
    words = np.array([f"word_{place:02}" for place in range(WORDS)], dtype=object)
    # Most frequent first, so that bins stand in the order of the words.
    values = np.repeat(words, [2 * (WORDS - place) for place in range(WORDS)])
    column = Column(Dtype.STRING, values, np.ones(len(values), dtype=np.bool_))
    return [column_bins(f"words_{line:02}", column, served=False, known_max=512) for line in range(count)]


def _number_shares(
    variable: Variable, means: Floats, since: NDArray[np.int64], change: Change | None
) -> tuple[Floats, tuple[Floats, Floats]]:
    """Shares of the bins (windows, bins), and mean steps and steps² within each finite bin (windows, finite bins)."""
    mean, deviation = means.copy(), np.ones(len(means))
    nulls = np.full(len(means), NULL_SHARE)
    stuck = np.zeros(len(means))
    if change is not None:
        NUMBER_CHANGES[change.kind](change.size, since, mean, deviation, nulls, stuck)
    edges = np.array(variable.edges)
    with np.errstate(all="ignore"):
        z = (edges[np.newaxis] - mean[:, np.newaxis]) / deviation[:, np.newaxis]
        below = np.concatenate((np.zeros((len(z), 1)), ndtr(z), np.ones((len(z), 1))), axis=1)
        density = np.concatenate(
            (np.zeros((len(z), 1)), np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi), np.zeros((len(z), 1))), axis=1
        )
        ends = np.concatenate((np.zeros((len(z), 1)), z, np.zeros((len(z), 1))), axis=1)
        within = np.diff(below, axis=1)
        safe = np.maximum(within, 1e-12)
        first = -np.diff(density, axis=1) / safe
        second = 1.0 - np.diff(ends * density, axis=1) / safe
    first, second = np.clip(first, -9.0, 9.0), np.clip(second, 0.0, 81.0)
    centre, unit = variable.grid.centre, variable.grid.unit
    offset = mean[:, np.newaxis] - centre
    step = (offset + deviation[:, np.newaxis] * first) / unit
    square = (
        offset**2 + 2 * offset * deviation[:, np.newaxis] * first + deviation[:, np.newaxis] ** 2 * second
    ) / unit**2
    shares = np.zeros((len(means), variable.size))
    shares[:, BELOW:-1] = within * ((1 - nulls) * (1 - stuck))[:, np.newaxis]
    shares[:, NULL] = nulls
    at = BELOW + int(np.searchsorted(edges, 0.0, side="right"))
    shares[:, at] += stuck * (1 - nulls)
    return shares / shares.sum(axis=1, keepdims=True), (step, np.maximum(square, step**2))


def _word_shares(logits: Floats, since: NDArray[np.int64], change: Change | None) -> Floats:
    weights = np.exp(logits)
    weights /= weights.sum(axis=1, keepdims=True)
    shares = np.zeros((len(logits), LISTED + WORDS))
    shares[:, LISTED:] = weights * (1 - NULL_SHARE)
    shares[:, NULL] = NULL_SHARE
    if change is not None:
        assert change.kind == "new word"
        new = np.where(since >= 0, change.size, 0.0)[:, np.newaxis]
        shares *= 1 - new
        shares[:, UNSEEN] = new[:, 0]
    return shares


def _shift(size: float, since: NDArray[np.int64], mean: Floats, *_: Floats) -> None:
    mean[since >= 0] += size


def _scale(size: float, since: NDArray[np.int64], _mean: Floats, deviation: Floats, *_: Floats) -> None:
    deviation[since >= 0] *= size


def _unit(size: float, since: NDArray[np.int64], mean: Floats, deviation: Floats, *_: Floats) -> None:
    """Another unit for a value that lies five deviations above zero, as heights do."""
    mean[since >= 0] = (mean[since >= 0] + 5.0) * size - 5.0
    deviation[since >= 0] *= size


def _ramp(size: float, since: NDArray[np.int64], mean: Floats, *_: Floats) -> None:
    """`size` deviations a day."""
    mean += size * np.maximum(since, 0) / WINDOWS_A_DAY


def _nulls(size: float, since: NDArray[np.int64], _mean: Floats, _deviation: Floats, nulls: Floats, _: Floats) -> None:
    nulls[since >= 0] = size


def _stuck(
    size: float, since: NDArray[np.int64], _mean: Floats, _deviation: Floats, _nulls: Floats, stuck: Floats
) -> None:
    stuck[since >= 0] = size


NUMBER_CHANGES: Mapping[str, Callable[..., None]] = {
    "shift": _shift,
    "scale": _scale,
    "unit": _unit,
    "ramp": _ramp,
    "nulls": _nulls,
    "stuck": _stuck,
}
