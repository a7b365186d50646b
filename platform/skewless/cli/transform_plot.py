"""A plot of what a transform's outputs are over some rows: one small histogram each, as a single SVG."""

import html
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_COLUMNS = 4
_WIDTH, _HEIGHT = 220, 120
_BARS = 32
_BAR_AREA = (10, 24, 200, 66)
"""x, y, width and height of the bars within a panel, in pixels."""
_STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#333}.name{font-weight:600}.bar{fill:#3b6fb6}.axis{stroke:#999}"
    "@media(prefers-color-scheme:dark){svg{background:#16181c}text{fill:#ddd}.bar{fill:#7fa8e0}.axis{stroke:#666}}"
)


def outputs_svg(names: Sequence[str], tensor: NDArray[np.float32]) -> str:
    """The SVG text; `tensor` is (rows, names). Each panel has scales of its own: least, most and mean are below it."""
    panel_rows = -(-len(names) // _COLUMNS)
    width, height = _COLUMNS * _WIDTH, panel_rows * _HEIGHT
    panels = [
        f'<g transform="translate({index % _COLUMNS * _WIDTH},{index // _COLUMNS * _HEIGHT})">'
        f"{_panel(name, tensor[:, index].astype(np.float64))}</g>"
        for index, name in enumerate(names)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f"<style>{_STYLE}</style>{''.join(panels)}</svg>\n"
    )


def _panel(name: str, values: NDArray[np.float64]) -> str:
    left, top, width, height = _BAR_AREA
    shown = name if len(name) <= 32 else f"{name[:31]}…"
    finite = values[np.isfinite(values)]
    parts = [
        f'<text class="name" x="{left}" y="15">{html.escape(shown)}<title>{html.escape(name)}</title></text>',
        f'<line class="axis" x1="{left}" y1="{top + height}" x2="{left + width}" y2="{top + height}"/>',
    ]
    if not len(finite):
        return "".join([*parts, f'<text x="{left}" y="{top + height + 15}">no finite value</text>'])
    counts, _ = np.histogram(finite, bins=_BARS, range=_span(finite))
    bar = width / _BARS
    for index, count in enumerate(counts.tolist()):
        tall = height * count / int(counts.max())
        if count:
            parts.append(
                f'<rect class="bar" x="{left + index * bar:.1f}" y="{top + height - tall:.1f}" width="{bar - 1:.1f}"'
                f' height="{tall:.1f}"/>'
            )
    ends = f"{finite.min():.4g} to {finite.max():.4g}, mean {finite.mean():.4g}"
    return "".join([*parts, f'<text x="{left}" y="{top + height + 15}">{ends}</text>'])


def _span(finite: NDArray[np.float64]) -> tuple[float, float]:
    """The histogram's ends; a little room where all values are one."""
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if low < high else (low - 0.5, high + 0.5)
