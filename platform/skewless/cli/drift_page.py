"""A comparison of two files as one HTML page that needs nothing else: no script, no font, no address."""

import html
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from skewless.cli.drift_table import alarm_line, break_lines, summary_lines
from skewless.drift.check import CheckReport, Finding, Severity, Timeline
from skewless.statistics.alignment import aligned
from skewless.statistics.comparison import Pair
from skewless.statistics.divergence import Within
from skewless.timestamps import format_timestamp

_BAR_WIDTH, _BAR_HEIGHT = 220, 44
_TIME_WIDTH, _TIME_HEIGHT = 960, 160
_POINTS_MAX = 960
_TOP_LEVEL = 3.0
_STYLE = """
body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;width:100%}th,td{padding:.3rem .6rem;text-align:right;border-bottom:1px solid #ddd}
th:first-child,td:first-child,th:last-child,td:last-child{text-align:left}
.quiet{color:#777}.small{background:#fff6d6}.large{background:#fde3e0}.broken{background:#f6c6c0;font-weight:600}
.first{fill:#9aa5b1}.second{fill:#3b6fb6;fill-opacity:.75}.level{fill:none;stroke:#3b6fb6}.height{stroke:#c33}
.open{fill:#c33;fill-opacity:.15}
@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}th,td{border-color:#333}
.small{background:#3b3413}.large{background:#4a2420}.broken{background:#6b2a22}}
"""


def page(report: CheckReport, *, reference: str, current: str) -> str:
    """The page's text; `reference` and `current` are what the two sides are called."""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'><title>Drift check</title>",
        f"<style>{_STYLE}</style>",
        f"<h1>Drift check</h1><p><b>{_text(current)}</b> beside <b>{_text(reference)}</b></p>",
        *(f"<p>{_text(line)}</p>" for line in summary_lines(report)),
        *([] if report.timeline is None else _timeline(report.timeline)),
        "<h2>Columns</h2><p>Bars: shares of the bins, grey in the reference, blue now. By chance: what the stability"
        " index is on average where nothing changed.</p>",
        _table(report.of()),
    ]
    for name in report.slices:
        moved = [each for each in report.of(name) if each.severity is not Severity.QUIET]
        parts.append(f"<h2>Slice {_text(name)}</h2>")
        parts.append(_table(moved) if moved else "<p class='quiet'>nothing moved</p>")
    return "\n".join(parts) + "\n</html>\n"


def _timeline(timeline: Timeline) -> Iterator[str]:
    yield "<h2>Windows</h2>"
    told = "calibrated" if timeline.grade.calibrated else "uncalibrated: too little history"
    yield f"<p>Beside the {_text(timeline.grade.value)} of the reference; {told}. Red line: the height of an alarm.</p>"
    yield _level_svg(timeline)
    lines = [*(alarm_line(each) for each in timeline.alarms), *break_lines(timeline)] or ["no alarm"]
    yield "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


def _level_svg(timeline: Timeline) -> str:
    readings = timeline.readings
    groups = np.array_split(np.arange(len(readings)), min(_POINTS_MAX, max(len(readings), 1)))
    levels = [max(readings[at].level for at in group.tolist()) for group in groups if len(group)]
    is_open = [any(readings[at].is_open for at in group.tolist()) for group in groups if len(group)]
    wide = _TIME_WIDTH / max(len(levels), 1)

    def down(level: float) -> float:
        return _TIME_HEIGHT * (1 - min(level, _TOP_LEVEL) / _TOP_LEVEL)

    points = " ".join(f"{(at + 0.5) * wide:.1f},{down(level):.1f}" for at, level in enumerate(levels))
    shades = "".join(
        f"<rect class='open' x='{at * wide:.1f}' y='0' width='{wide:.2f}' height='{_TIME_HEIGHT}'/>"
        for at, each in enumerate(is_open)
        if each
    )
    ends = f"{format_timestamp(readings[0].start_us)} to {format_timestamp(readings[-1].start_us)}" if readings else ""
    return (
        f"<svg viewBox='0 0 {_TIME_WIDTH} {_TIME_HEIGHT}' width='100%' role='img' aria-label='{_text(ends)}'>{shades}"
        f"<line class='height' x1='0' x2='{_TIME_WIDTH}' y1='{down(1.0):.1f}' y2='{down(1.0):.1f}'/>"
        f"<polyline class='level' points='{points}'/></svg><p class='quiet'>{_text(ends)}</p>"
    )


def _table(findings: Sequence[Finding]) -> str:
    head = "".join(f"<th>{title}</th>" for title in _TITLES)
    rows = "".join(
        f"<tr class='{each.severity.value}'>{''.join(f'<td>{cell}</td>' for cell in _cells(each))}</tr>"
        for each in findings
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


_TITLES = (
    "column",
    "severity",
    "PSI",
    "by chance",
    "Jensen-Shannon",
    "Kolmogorov-Smirnov",
    "Wasserstein",
    "nulls",
    "unseen",
    "mean",
    "bins",
)


def _cells(finding: Finding) -> tuple[str, ...]:
    difference = finding.difference
    new = f" <small>new: {_text(', '.join(difference.new_words))}</small>" if difference.new_words else ""
    return (
        f"{_text(difference.name)}{new}",
        finding.severity.value,
        _number(difference.psi),
        _number(difference.psi_floor),
        _number(difference.jensen_shannon),
        _within(difference.kolmogorov_smirnov),
        _within(difference.wasserstein),
        _pair(difference.null_share, percent=True),
        _pair(difference.unseen_share, percent=True),
        _pair(difference.mean),
        _bars_svg(*aligned(finding.reference, finding.current)),
    )


def _bars_svg(first: NDArray[np.float64], second: NDArray[np.float64]) -> str:
    shares = [each / max(float(each.sum()), 1.0) for each in (first, second)]
    top = max(float(each.max()) for each in shares) or 1.0
    wide = _BAR_WIDTH / len(first)
    bars = "".join(
        f"<rect class='{name}' x='{at * wide + shift * wide / 3:.1f}' y='{_BAR_HEIGHT * (1 - share / top):.1f}'"
        f" width='{wide * 0.6:.1f}' height='{_BAR_HEIGHT * share / top:.1f}'/>"
        for shift, (name, each) in enumerate(zip(("first", "second"), shares, strict=True))
        for at, share in enumerate(each.tolist())
        if share
    )
    return f"<svg width='{_BAR_WIDTH}' height='{_BAR_HEIGHT}'>{bars}</svg>"


def _within(value: Within | None) -> str:
    return (
        ""
        if value is None
        else f"{_number(value.value)} <small>({_number(value.low)} to {_number(value.high)})</small>"
    )


def _pair(pair: Pair, *, percent: bool = False) -> str:
    if pair.first is None or pair.second is None:
        return ""
    told = [f"{each:.1%}" if percent else f"{each:.4g}" for each in (pair.first, pair.second)]
    return told[0] if told[0] == told[1] else f"{told[0]} → {told[1]}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _text(text: str) -> str:
    return html.escape(text)
