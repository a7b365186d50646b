"""Line plots on logarithmic axes, and bars, as SVG text, readable on light and on dark ground.

Written here because nothing that is locked draws to a file without a browser.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

Point = tuple[float, float]

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 76, 210, 44, 54
FEW_DECADES = 100.0
"""Between the lowest and the highest point; on fewer decades, lines at 2 and 5 are drawn too."""
BAR_LEFT, BAR_RIGHT, BAR_STEP = 180, 90, 30
COLOURS = ("#d1495b", "#2e86ab", "#3c9d5d", "#b8860b", "#8e5bd0", "#d9762b", "#5b8c8c", "#c0589a")
"""Of middle lightness, so that each has contrast on white and on black."""
DASHES = ("", "6 3", "2 3", "9 3 2 3")
"""With the colour and the marker's shape, so that lines are told apart without colour."""

_STYLE = """<style>
 text { font: 12px system-ui, sans-serif; fill: #333 } .title { font-size: 15px; font-weight: 600 }
 .grid { stroke: #8884; stroke-width: 1 } .axis { stroke: #888; stroke-width: 1 }
 .line { fill: none; stroke-width: 2 } .mark { stroke: none }
 @media (prefers-color-scheme: dark) { text { fill: #ddd } }
</style>"""


def line_plot(title: str, x_label: str, y_label: str, series: Mapping[str, Sequence[Point]]) -> str:
    """An SVG of lines by name over positive points (x, y), both axes logarithmic; the highest line first in the legend.

    Raises ValueError where there is no point, or one that is not positive.
    """
    points = [point for line in series.values() for point in line]
    if not points or min(min(point) for point in points) <= 0:
        raise ValueError("a logarithmic plot needs at least one point, and positive ones only")
    x_axis = _Axis([x for x, _ in points], LEFT, WIDTH - RIGHT, ticks_per_decade=(1, 2, 5))
    ys = [y for _, y in points]
    y_steps = (1,) if max(ys) / min(ys) > FEW_DECADES else (1, 2, 5)
    y_axis = _Axis(ys, HEIGHT - BOTTOM, TOP, ticks_per_decade=y_steps)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>{_STYLE}",
        _text(LEFT, 22, title, css="title"),
        *_x_grid(x_axis),
        *_y_grid(y_axis),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_label, anchor="middle"),
        f'<g transform="translate(18 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">'
        f"{_text(0, 0, y_label, anchor='middle')}</g>",
        *_lines(x_axis, y_axis, series),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def bar_plot(title: str, unit: str, bars: Mapping[str, float]) -> str:
    """An SVG of one bar per name, from 0 on one linear axis, in the order given, each with its value and `unit`.

    Raises ValueError where there is no bar, none above 0, or one below.
    """
    if not bars or min(bars.values()) < 0 or not max(bars.values()):
        raise ValueError("bars need at least one value above 0, and none below")
    longest = max(bars.values())
    height = TOP + BAR_STEP * len(bars) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>{_STYLE}",
        _text(16, 22, title, css="title"),
    ]
    for row, (name, value) in enumerate(bars.items()):
        y = TOP + BAR_STEP * row
        width = value / longest * (WIDTH - BAR_LEFT - BAR_RIGHT)
        colour = COLOURS[row % len(COLOURS)]
        parts += [
            _text(BAR_LEFT - 10, y + 15, name, anchor="end"),
            f'<rect fill="{colour}" x="{BAR_LEFT}" y="{y}" width="{width:.1f}" height="{BAR_STEP - 8}"/>',
            _text(BAR_LEFT + width + 8, y + 15, f"{value:,.0f} {unit}"),
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Axis:
    """Places positive values between two pixels by their logarithm."""

    def __init__(self, values: Sequence[float], start: float, end: float, *, ticks_per_decade: Sequence[int]) -> None:
        low, high = math.log10(min(values)), math.log10(max(values))
        margin = max(0.04 * (high - low), 0.02)
        self._low, self._span = low - margin, high - low + 2 * margin
        self._start, self._end = start, end
        decades = range(math.floor(low) - 1, math.ceil(high) + 1)
        candidates = [step * 10.0**decade for decade in decades for step in ticks_per_decade]
        self.ticks = [tick for tick in candidates if 0 <= self._share(tick) <= 1]

    def place(self, value: float) -> float:
        """The pixel of a value."""
        return self._start + self._share(value) * (self._end - self._start)

    def _share(self, value: float) -> float:
        return (math.log10(value) - self._low) / self._span


def _x_grid(axis: _Axis) -> list[str]:
    bottom = HEIGHT - BOTTOM
    parts = []
    for tick in axis.ticks:
        x = axis.place(tick)
        parts += [_grid_line(x, TOP, x, bottom), _text(x, bottom + 18, _label(tick), anchor="middle")]
    return [*parts, f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{WIDTH - RIGHT}" fill="none"/>']


def _y_grid(axis: _Axis) -> list[str]:
    parts = []
    for tick in axis.ticks:
        y = axis.place(tick)
        parts += [_grid_line(LEFT, y, WIDTH - RIGHT, y), _text(LEFT - 8, y + 4, _label(tick), anchor="end")]
    return parts


def _lines(x_axis: _Axis, y_axis: _Axis, series: Mapping[str, Sequence[Point]]) -> list[str]:
    """Each line with its marks and its entry in the legend; a name keeps its colour whatever the others are."""
    drawn = {name: sorted(line) for name, line in series.items() if line}
    styles = {name: number for number, name in enumerate(drawn)}
    parts = []
    for row, name in enumerate(sorted(drawn, key=lambda each: -drawn[each][-1][1])):
        colour = COLOURS[styles[name] % len(COLOURS)]
        dash = DASHES[styles[name] // 2 % len(DASHES)]
        places = [(x_axis.place(x), y_axis.place(y)) for x, y in drawn[name]]
        legend_y = TOP + 12 + 20 * row
        legend = [(WIDTH - RIGHT + 14.0, float(legend_y)), (WIDTH - RIGHT + 42.0, float(legend_y))]
        parts += [_path(places, colour, dash), _path(legend, colour, dash)]
        parts += [_mark(x, y, colour, square=styles[name] % 2 == 1) for x, y in places]
        parts.append(_text(WIDTH - RIGHT + 50, legend_y + 4, name))
    return parts


def _path(places: Sequence[Point], colour: str, dash: str) -> str:
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return f'<path class="line" stroke="{colour}" stroke-dasharray="{dash}" d="M{steps}"/>'


def _mark(x: float, y: float, colour: str, *, square: bool) -> str:
    if square:
        return f'<rect class="mark" fill="{colour}" x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"/>'
    return f'<circle class="mark" fill="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>'


def _grid_line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="grid" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", css: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}">{escape(text)}</text>'


def _label(value: float) -> str:
    """A tick's number without an exponent.

    >>> _label(0.1), _label(5000.0)
    ('0.1', '5,000')
    """
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
