"""A comparison of two bundles as text for a terminal."""

from collections.abc import Iterator
from typing import Any

from skewless.statistics.comparison import BaselineComparison, Difference
from skewless.training.compare import BundleComparison, MetricRows, Row

_DRIFTED_SHOWN = 15
_STATED_WIDTH = 40


def comparison_lines(found: BundleComparison) -> Iterator[str]:
    """Lines, section by section; a section without a difference says so."""
    if found.before == found.after:
        yield f"bundle {found.before[:12]}: one and the same"
        return
    yield f"bundle {found.before[:12]} → {found.after[:12]}"
    yield from _section("metrics", _metric_lines(found.metrics))
    yield from _section("slices (AUROC)", _table(found.metrics.slices))
    yield from _section("contract", iter(found.contract))
    yield from _section("transform", iter([] if found.transform.equal else found.transform.text().splitlines()[1:]))
    yield from _section("baseline", _baseline_lines(found.baseline))
    yield from _section("stated", _table(found.stated))


def _section(title: str, lines: Iterator[str]) -> Iterator[str]:
    yield f"\n{title}:"
    empty = True
    for line in lines:
        empty = False
        yield f"  {line}"
    if empty:
        yield "  no difference"


def _metric_lines(metrics: MetricRows) -> Iterator[str]:
    yield metrics.note
    yield from _table(metrics.rows)


def _table(rows: tuple[Row, ...]) -> Iterator[str]:
    cells = [(row.name, _value(row.before), _value(row.after), _change(row)) for row in rows]
    widths = [max((len(cell[place]) for cell in cells), default=0) for place in range(3)]
    for name, before, after, change in cells:
        yield f"{name:<{widths[0]}}  {before:>{widths[1]}}  {after:>{widths[2]}}  {change}".rstrip()


def _change(row: Row) -> str:
    if not isinstance(row.before, int | float) or not isinstance(row.after, int | float) or row.before == row.after:
        return ""
    word = {True: " better", False: " worse", None: ""}[row.better]
    return f"{row.after - row.before:+.4g}{word}"


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1_000 else f"{value:.4g}"
    text = str(value)
    return text if len(text) <= _STATED_WIDTH else f"{text[: _STATED_WIDTH - 1]}…"


def _baseline_lines(found: BaselineComparison) -> Iterator[str]:
    """What moved more than chance explains, the furthest first."""
    for part, name in found.only_in_first:
        yield f"{part.value} `{name}` is gone"
    for part, name in found.only_in_second:
        yield f"{part.value} `{name}` is new"
    moved = [each for each in found.differences if each.psi is not None and each.psi > (each.psi_limit or 0.0)]
    moved.sort(key=lambda each: each.psi or 0.0, reverse=True)
    for each in moved[:_DRIFTED_SHOWN]:
        yield _moved(each)
    if len(moved) > _DRIFTED_SHOWN:
        yield f"and {len(moved) - _DRIFTED_SHOWN} more by less"


def _moved(each: Difference) -> str:
    told = [f"{each.part.value} `{each.name}`: PSI {each.psi:.3f}"]
    if each.jensen_shannon is not None:
        told.append(f"Jensen-Shannon {each.jensen_shannon:.3f}")
    if each.null_share.change:
        told.append(f"nulls {each.null_share.first:.1%} → {each.null_share.second:.1%}")
    if each.mean.change:
        told.append(f"mean {each.mean.first:.4g} → {each.mean.second:.4g}")
    if each.new_words:
        told.append(f"new: {', '.join(each.new_words)}")
    return ", ".join(told)
