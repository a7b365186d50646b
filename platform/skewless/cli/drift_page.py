"""A comparison of two files as one HTML page that needs nothing else: no script, no font, no address."""

import html
from collections.abc import Iterator, Sequence

from skewless.cli.drift_plots import STYLE, bars_svg, level_svg
from skewless.cli.drift_table import alarm_line, break_lines, summary_lines
from skewless.drift.check import CheckReport, Finding, Severity, Timeline
from skewless.statistics.alignment import aligned
from skewless.statistics.comparison import Pair
from skewless.statistics.divergence import Within

_STYLE = """
body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;width:100%}th,td{padding:.3rem .6rem;text-align:right;border-bottom:1px solid #ddd}
th:first-child,td:first-child,th:last-child,td:last-child{text-align:left}
.quiet{color:#777}.small{background:#fff6d6}.large{background:#fde3e0}.broken{background:#f6c6c0;font-weight:600}
@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}th,td{border-color:#333}
.small{background:#3b3413}.large{background:#4a2420}.broken{background:#6b2a22}}
"""


def page(report: CheckReport, *, reference: str, current: str) -> str:
    """The page's text; `reference` and `current` are what the two sides are called."""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'><title>Drift check</title>",
        f"<style>{_STYLE}{STYLE}</style>",
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
    yield level_svg(timeline.readings)
    lines = [*(alarm_line(each) for each in timeline.alarms), *break_lines(timeline)] or ["no alarm"]
    yield "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


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
        bars_svg(*aligned(finding.reference, finding.current)),
    )


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
