"""A comparison of two files as tables for a terminal."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from skewless.drift.alarms import Alarm, Moved
from skewless.drift.check import CheckReport, Finding, Severity, Timeline
from skewless.drift.streams import Kind
from skewless.statistics.alignment import aligned
from skewless.statistics.comparison import Pair
from skewless.statistics.divergence import Within
from skewless.timestamps import format_timestamp

_BARS = "▁▂▃▄▅▆▇█"
_SPARK_CELLS = 16
_TIMELINE_CELLS = 64
_ROWS_SHOWN = 40
_NAMES_SHOWN = 6
_LATER_SHOWN = 12
_STYLES = {Severity.QUIET: "dim", Severity.SMALL: "yellow", Severity.LARGE: "red", Severity.BROKEN: "bold red"}


def print_report(report: CheckReport) -> None:
    """Write a report to standard output; what is quiet is counted, and listed where there is room."""
    console = Console()
    for line in summary_lines(report):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(_table(report.of()))
    if report.slices:
        console.print(_slice_table(report))
    if report.timeline is not None:
        for line in timeline_lines(report.timeline):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def summary_lines(report: CheckReport) -> Iterator[str]:
    """Rows, and what is wrong with the columns themselves."""
    columns = report.columns
    counts = {each: sum(finding.severity is each for finding in report.of()) for each in Severity}
    told = ", ".join(f"{count} {each.value}" for each, count in counts.items() if count)
    yield f"{report.rows[0]:,} rows of reference, {report.rows[1]:,} current; {len(report.of())} columns: {told}"
    if columns.only_in_reference:
        yield f"gone: {', '.join(columns.only_in_reference)}"
    if columns.only_in_current:
        yield f"new: {', '.join(columns.only_in_current)}"
    for name, before, after in columns.retyped:
        yield f"`{name}` was {before} and is {after}: not compared"
    if columns.left_out:
        yield f"not compared: {', '.join(f'{name} ({kind})' for name, kind in columns.left_out)}"


def timeline_lines(timeline: Timeline) -> Iterator[str]:
    """The level of each window as a line of bars, then every alarm, then what broke."""
    readings = timeline.readings
    hours = timeline.window_us / 3_600e6
    promise = (
        f"one false alarm in {timeline.promise_days:g} days is promised"
        if timeline.grade.calibrated
        else "UNCALIBRATED: too little history, no rate of false alarms is promised"
    )
    yield f"\n{len(readings):,} windows of {hours:g} h beside the {timeline.grade.value} of the reference; {promise}"
    yield f"{spark([each.level for each in readings], _TIMELINE_CELLS, top=2.0)}  (half height: an alarm)"
    if readings:
        yield f"{format_timestamp(readings[0].start_us)} to {format_timestamp(readings[-1].start_us)}"
    yield from (alarm_line(each) for each in timeline.alarms)
    if not timeline.alarms:
        yield "no alarm"
    yield from break_lines(timeline)


def alarm_line(alarm: Alarm) -> str:
    """When, what moved first, and what later."""
    closed = "still open" if alarm.closed_us is None else f"closed {format_timestamp(alarm.closed_us)}"
    first = [each for each in alarm.named if each.reached_us is None or each.reached_us <= alarm.opened_us]
    later = [each for each in alarm.named if each not in first]
    told = ", ".join(_moved(each) for each in first[:_NAMES_SHOWN])
    told += f" and {len(first) - _NAMES_SHOWN} more" if len(first) > _NAMES_SHOWN else ""
    for each in later[:_LATER_SHOWN]:
        told += f"; {format_timestamp(each.reached_us or 0)} {_moved(each)}"
    told += f"; and {len(later) - _LATER_SHOWN} more" if len(later) > _LATER_SHOWN else ""
    mark = "" if alarm.calibrated else " (uncalibrated)"
    since = format_timestamp(alarm.since_us)
    return f"alarm{mark} {format_timestamp(alarm.opened_us)}, since about {since}, {closed}: {told}"


def break_lines(timeline: Timeline) -> Iterator[str]:
    """Each contract that broke once, with its first and last window."""
    found: dict[tuple[str, str], list[int]] = {}
    for reading in timeline.readings:
        for each in reading.breaks:
            found.setdefault((each.rule.value, each.name), []).append(reading.start_us)
    for (rule, name), starts in found.items():
        about = f" of `{name}`" if name else ""
        yield f"broken: {rule}{about}, {format_timestamp(starts[0])} to {format_timestamp(starts[-1])}"


def spark(values: Sequence[float], cells: int, *, top: float | None = None) -> str:
    """Values as a line of at most `cells` bars, each the largest of its share; `top` is the value of a full bar.

    >>> spark([0.0, 1.0, 2.0], 3)
    '▁▅█'
    """
    if not values:
        return ""
    groups = np.array_split(np.array(values), min(cells, len(values)))
    highs = [float(group.max()) for group in groups]
    full = top or max(highs) or 1.0
    return "".join(
        _BARS[min(math.floor(min(each / full, 1.0) * (len(_BARS) - 1) + 0.5), len(_BARS) - 1)] for each in highs
    )


def _moved(moved: Moved) -> str:
    place = f" in {moved.stream.slice}" if moved.stream.slice else ""
    how = {Kind.RISE: " ↑", Kind.FALL: " ↓"}.get(moved.stream.kind, "")
    return f"{moved.stream.name}{how}{place}"


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, right in _COLUMNS:
        table.add_column(title, justify="right" if right else "left", no_wrap=not right)
    for each in findings[:_ROWS_SHOWN]:
        table.add_row(*map(Text, _cells(each)), style=_STYLES[each.severity])
    if len(findings) > _ROWS_SHOWN:
        table.caption = f"and {len(findings) - _ROWS_SHOWN} columns that moved less; --json has all"
    return table


_COLUMNS = (
    ("column", False),
    ("", False),
    ("PSI", True),
    ("by chance", True),
    ("JS", True),
    ("KS", True),
    ("Wasserstein", True),
    ("nulls", True),
    ("unseen", True),
    ("mean", True),
    ("reference", False),
    ("current", False),
)


def _cells(finding: Finding) -> tuple[str, ...]:
    difference = finding.difference
    first, second = aligned(finding.reference, finding.current)
    top = max(float((first / max(first.sum(), 1.0)).max()), float((second / max(second.sum(), 1.0)).max()))
    bars = [spark((each / max(each.sum(), 1.0)).tolist(), _SPARK_CELLS, top=top or 1.0) for each in (first, second)]
    return (
        difference.name,
        finding.severity.value,
        _number(difference.psi),
        _number(difference.psi_floor),
        _number(difference.jensen_shannon),
        _within(difference.kolmogorov_smirnov),
        _within(difference.wasserstein),
        _shares(difference.null_share),
        _shares(difference.unseen_share),
        _change(difference.mean),
        *bars,
    )


def _slice_table(report: CheckReport) -> Table:
    """What moved furthest in each slice, the worst slice first."""
    table = Table(box=None, pad_edge=False, header_style="bold", title="slices", title_justify="left")
    for title in ("slice", "rows", "worst", "moved furthest"):
        table.add_column(title, justify="right" if title == "rows" else "left")
    slices = [(name, report.of(name)) for name in report.slices]
    slices.sort(key=lambda each: (-_worst(each[1]).rank, -(each[1][0].difference.psi or 0.0)))
    for name, findings in slices:
        moved = [each for each in findings if each.severity is not Severity.QUIET][:_NAMES_SHOWN]
        told = ", ".join(f"{each.difference.name} {_number(each.difference.psi)}" for each in moved) or "nothing"
        worst = _worst(findings)
        cells = (name, f"{findings[0].current.total:,}", worst.value, told)
        table.add_row(*map(Text, cells), style=_STYLES[worst])
    return table


def _worst(findings: Sequence[Finding]) -> Severity:
    return max((each.severity for each in findings), key=lambda each: each.rank)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.1e}"


def _within(value: Within | None) -> str:
    """The value, and by how much it may be off because of the bins."""
    if value is None:
        return ""
    off = max(value.high - value.value, value.value - value.low)
    return _number(value.value) if off < 5e-4 * max(abs(value.value), 1.0) else f"{_number(value.value)} ±{off:.2g}"


def _shares(pair: Pair) -> str:
    if pair.first is None or pair.second is None:
        return ""
    if pair.first == pair.second:
        return f"{pair.second:.1%}" if pair.second else ""
    return f"{pair.first:.1%} → {pair.second:.1%}"


def _change(pair: Pair) -> str:
    return "" if pair.first is None or pair.second is None else f"{pair.first:.4g} → {pair.second:.4g}"
