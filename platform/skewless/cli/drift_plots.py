"""Plots of drift pages, as inline SVG without scripts. Colours are those of the page's style sheet, by class."""

import html
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skewless.statistics.variable import BELOW, LISTED, Part, Variable
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, SECOND_US, format_timestamp

_TIME_WIDTH, _TIME_HEIGHT = 960, 160
_POINTS_MAX = 960
_TOP_LEVEL = 3.0
_BARS_WIDTH, _BARS_HEIGHT = 320, 72
_TREND_WIDTH, _TREND_HEIGHT = 320, 72
STYLE = """
.first{fill:#9aa5b1}.second{fill:#3b6fb6;fill-opacity:.75}.training{fill:none;stroke:#b8860b;stroke-width:1.5}
.level{fill:none;stroke:#3b6fb6;stroke-width:1.5}.height{stroke:#c33;stroke-dasharray:4 3}
.open{fill:#c33;fill-opacity:.15}
.nulls{fill:#c33;fill-opacity:.3}
"""


class Levelled(Protocol):
    """A window as a detector reads it."""

    @property
    def start_us(self) -> int:
        """When it began."""

    @property
    def level(self) -> float:
        """How high it stood; an alarm opens at 1."""

    @property
    def is_open(self) -> bool:
        """Whether an alarm was open."""


def level_svg(readings: Sequence[Levelled]) -> str:
    """The level of each window under the height of an alarm, with open alarms shaded; nothing for no windows."""
    if not readings:
        return ""
    groups = np.array_split(np.arange(len(readings)), min(_POINTS_MAX, len(readings)))
    levels = [max(readings[at].level for at in group.tolist()) for group in groups]
    is_open = [any(readings[at].is_open for at in group.tolist()) for group in groups]
    wide = _TIME_WIDTH / len(levels)

    def down(level: float) -> float:
        return _TIME_HEIGHT * (1 - min(level, _TOP_LEVEL) / _TOP_LEVEL)

    points = " ".join(f"{(at + 0.5) * wide:.1f},{down(level):.1f}" for at, level in enumerate(levels))
    shades = "".join(
        f"<rect class='open' x='{at * wide:.1f}' y='0' width='{wide:.2f}' height='{_TIME_HEIGHT}'/>"
        for at, each in enumerate(is_open)
        if each
    )
    ends = f"{minute(readings[0].start_us)} to {minute(readings[-1].start_us)} UTC"
    return (
        f"<svg viewBox='0 0 {_TIME_WIDTH} {_TIME_HEIGHT}' width='100%' role='img'"
        f" aria-label='level of windows, {ends}'>{shades}"
        f"<line class='height' x1='0' x2='{_TIME_WIDTH}' y1='{down(1.0):.1f}' y2='{down(1.0):.1f}'/>"
        f"<polyline class='level' points='{points}'/></svg><p class='quiet'>{ends}</p>"
    )


def bars_svg(first: NDArray[np.float64], second: NDArray[np.float64], *, width: int = 220, height: int = 44) -> str:
    """Shares of bins of two counts (bins,), beside each other."""
    shares = [each / max(float(each.sum()), 1.0) for each in (first, second)]
    top = max(float(each.max()) for each in shares) or 1.0
    bars = _bars(shares, top, width, height)
    return f"<svg viewBox='0 0 {width} {height}' width='{width}' height='{height}'>{bars}</svg>"


def shares_svg(training: Variable, recent: Variable | None, now: Variable) -> str:
    """Shares of a variable's bins: training as a line, recent weeks grey, now blue; each bin says what it is."""
    sides = [training, *([] if recent is None else [recent]), now]
    counts = [np.array(each.counts, dtype=np.float64) for each in sides]
    hit = np.flatnonzero(sum(counts) > 0)
    if not len(hit):
        return ""
    shares = [each[hit] / max(float(each.sum()), 1.0) for each in counts]
    top = max(float(each.max()) for each in shares) or 1.0
    before = shares[1] if recent is not None else np.zeros(len(hit))
    bars = _bars([before, shares[-1]], top, _BARS_WIDTH, _BARS_HEIGHT)
    wide = _BARS_WIDTH / len(hit)
    steps = " ".join(
        f"{x * wide:.1f},{_BARS_HEIGHT * (1 - share / top):.1f}"
        for at, share in enumerate(shares[0].tolist())
        for x in (at, at + 1)
    )
    names = bin_names(now)
    titles = "".join(
        f"<rect x='{at * wide:.1f}' y='0' width='{wide:.1f}' height='{_BARS_HEIGHT}' fill='transparent'>"
        f"<title>{html.escape(_told(names[place], [each[at] for each in shares], recent is not None))}</title></rect>"
        for at, place in enumerate(hit.tolist())
    )
    return (
        f"<svg viewBox='0 0 {_BARS_WIDTH} {_BARS_HEIGHT}' width='100%' role='img'"
        f" aria-label='shares of the bins of {html.escape(now.name, quote=True)}'>{bars}"
        f"<polyline class='training' points='{steps}'/>{titles}</svg>"
    )


def trend_svg(variable: Variable, means: Sequence[float | None], null_shares: Sequence[float | None]) -> str:
    """How a mean went on, with the share of nulls as an area below; nothing for fewer than two points."""
    count = len(null_shares)
    if count < 2:
        return ""
    wide = _TREND_WIDTH / (count - 1)
    known = [each for each in means if each is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    span = (high - low) or 1.0
    points = " ".join(
        f"{at * wide:.1f},{4 + (_TREND_HEIGHT - 8) * (1 - (each - low) / span):.1f}"
        for at, each in enumerate(means)
        if each is not None
    )
    area = " ".join(
        f"{at * wide:.1f},{_TREND_HEIGHT * (1 - (share or 0.0)):.1f}" for at, share in enumerate(null_shares)
    )
    ends = [told_number(variable, each) for each in (low, high)]
    told = f"mean from {ends[0]} to {ends[1]}" if known else "share of nulls"
    return (
        f"<svg viewBox='0 0 {_TREND_WIDTH} {_TREND_HEIGHT}' width='100%' role='img' aria-label='{told}'>"
        f"<polygon class='nulls' points='0,{_TREND_HEIGHT} {area} {_TREND_WIDTH},{_TREND_HEIGHT}'/>"
        f"<polyline class='level' points='{points}'/></svg><small class='quiet'>{told}</small>"
    )


def bin_names(variable: Variable) -> list[str]:
    """What each of a variable's counts is of."""
    if variable.vocabulary is not None:
        return ["null", "unseen", "other", *variable.vocabulary.listed]
    edges = [told_number(variable, each) for each in variable.edges]
    between = [f"{low} to {high}" for low, high in pairwise(edges)]
    inner = [f"below {edges[0]}", *between, f"{edges[-1]} and above"] if edges else ["all numbers"]
    assert len(inner) + BELOW + 1 == variable.size, "one name for each count"
    return ["null", "NaN", "-infinity", *inner, "+infinity"]


def told_number(variable: Variable, number: float) -> str:
    """A number of a variable in its unit: ages as lengths of time."""
    return duration(number) if variable.part is Part.AGE else f"{number:.4g}"


def minute(moment_us: int) -> str:
    """A moment as a page tells it: to the minute, in UTC.

    >>> minute(59_000_000)
    '1970-01-01 00:00'
    """
    return format_timestamp(moment_us)[:16].replace("T", " ")


def duration(length_us: float) -> str:
    """A length of time in its largest fitting unit.

    >>> duration(5_400_000_000)
    '1.5 h'
    """
    for unit_us, name in ((DAY_US, "d"), (HOUR_US, "h"), (MINUTE_US, "min"), (SECOND_US, "s")):
        if abs(length_us) >= unit_us:
            return f"{length_us / unit_us:.3g} {name}"
    return f"{length_us / SECOND_US:.3g} s"


def _told(name: str, shares: Sequence[float], has_recent: bool) -> str:
    sides = ["in training", *(["recently"] if has_recent else []), "now"]
    return f"{name}: " + ", ".join(f"{share:.1%} {side}" for share, side in zip(shares, sides, strict=True))


def _bars(shares: Sequence[NDArray[np.float64]], top: float, width: float, height: float) -> str:
    wide = width / max(len(shares[0]), 1)
    return "".join(
        f"<rect class='{name}' x='{at * wide + shift * wide / 3:.1f}' y='{height * (1 - share / top):.1f}'"
        f" width='{wide * 0.6:.1f}' height='{height * share / top:.1f}'/>"
        for shift, (name, each) in enumerate(zip(("first", "second"), shares, strict=True))
        for at, share in enumerate(each.tolist())
        if share
    )


assert len(("null", "unseen", "other")) == LISTED, "places of words before the listed ones"
