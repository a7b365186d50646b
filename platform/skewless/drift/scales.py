"""Brings what is watched onto one scale: how unusual a window is among those of recent weeks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.drift.streams import Floats, Raw

CLIP = 10.0
"""No window counts for more: one that is odd beyond all measure is still one window."""
_TAIL = 0.9
_NORMAL_TAIL = 1.2815515655446004
"""Where nine tenths of a standard normal distribution lie below."""
_NORMAL_MEDIAN_SQUARE = 0.4549364231195724
"""The median of the square of a standard normal number."""
_WIDTH_MIN_LOG = 0.1
"""Narrowest scale of a ratio's logarithm: a tenth more or less is never news by itself."""
_WIDTH_MIN = 0.5
"""Narrowest scale of a mean over its noise: of what rounding to steps, or no noise at all, would make narrower."""


@dataclass(frozen=True, slots=True, eq=False)
class Scales:
    """Of each stream, in the order of `Ruler.streams`: where its usual values lie and how far they spread.

    `excesses` (segments,) say by how much a row adds to a ratio beyond chance: traffic is never as even as dice.
    `wanders` (means,) are variances in steps² that means have besides chance. `centres` and `widths` are (streams,).
    """

    excesses: Floats
    wanders: Floats
    centres: Floats
    widths: Floats

    def standardised(self, raw: Raw) -> NDArray[np.float32]:
        """How unusual each window is (windows, streams), from -CLIP to CLIP, about normal where nothing changed."""
        ratios, means = _levelled(raw, self.excesses, self.wanders)
        with np.errstate(invalid="ignore"):
            scaled = (np.concatenate((ratios, means, -means), axis=1) - self.centres) / self.widths
        return np.clip(scaled, -CLIP, CLIP).astype(np.float32)


def scales_of(raw: Raw) -> Scales:
    """The scales of history's windows. Streams that no window could be scored of stay silent."""
    with np.errstate(invalid="ignore", divide="ignore"):
        excesses = np.maximum(_median((raw.ratios - 1.0) / raw.ratio_rows), 0.0)
        wanders = np.maximum(_median(np.square(raw.shifts)) / _NORMAL_MEDIAN_SQUARE - _median(raw.noises), 0.0)
    ratios, means = _levelled(raw, excesses, wanders)
    middle, high = _median(ratios), _quantile(ratios, _TAIL)
    width = np.maximum((high - middle) / _NORMAL_TAIL, _WIDTH_MIN_LOG)
    centre, low, top = _median(means), _quantile(means, 1.0 - _TAIL), _quantile(means, _TAIL)
    spread = np.maximum((top - low) / (2.0 * _NORMAL_TAIL), _WIDTH_MIN)
    return Scales(excesses, wanders, np.concatenate((middle, centre, -centre)), np.concatenate((width, spread, spread)))


def _levelled(raw: Raw, excesses: Floats, wanders: Floats) -> tuple[Floats, Floats]:
    """Logarithms of ratios, and means over their noise: neither depends on how many rows a window has."""
    with np.errstate(invalid="ignore", divide="ignore"):
        # A thousandth keeps windows that fit to the row from being infinitely good.
        ratios = np.log(raw.ratios + 1e-3) - np.log1p(raw.ratio_rows * excesses)
        means = raw.shifts / np.sqrt(np.maximum(raw.noises + wanders, 1e-12))
    return ratios, means


def _median(values: Floats) -> Floats:
    return _quantile(values, 0.5)


def _quantile(values: Floats, level: float) -> Floats:
    """Over windows (streams,), of those that are scored; 0 where none is.

    What `numpy.nanquantile` gives, to the last bit, without its calls for each column, in which most of a calibration
    by few long windows was spent.
    """
    if not len(values):
        return np.zeros(values.shape[1])
    ordered = np.sort(values, axis=0)  # NaN goes last
    scored = np.count_nonzero(~np.isnan(values), axis=0)
    place = level * np.maximum(scored - 1, 0)
    below = np.floor(place).astype(np.intp)
    above = np.minimum(below + 1, np.maximum(scored - 1, 0))
    columns = np.arange(values.shape[1])
    low, high, part = ordered[below, columns], ordered[above, columns], place - below
    # As NumPy interpolates, from the nearer end.
    found = np.where(part < 0.5, low + (high - low) * part, high - (high - low) * (1.0 - part))
    return np.where(scored > 0, found, 0.0)
