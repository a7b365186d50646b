"""What a dashboard shows, as plain data: panels with queries, in rows that each answer one question."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Shown(StrEnum):
    """How a panel shows what its queries give."""

    LINES = "lines"
    NUMBER = "number"
    """The newest value of each series, large."""
    TABLE = "table"
    """The newest values, one line per series: the first query's value and the labels."""


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of Prometheus, and how its series are named: `{{label}}` in `legend` stands for a label."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One question with its answer.

    `says` is what it means and what to do about it, for whoever was woken up. `unit` is Grafana's name of one. From
    `warns` on it is drawn yellow, from `alarms` on red; where smaller is worse, `alarms` is the smaller of both.
    """

    title: str
    says: str
    queries: tuple[Query, ...]
    unit: str = "short"
    shown: Shown = Shown.LINES
    width: int = 8
    """Of 24 columns."""
    warns: float | None = None
    alarms: float | None = None
    lowest: float | None = 0.0
    """Where the axis begins; None lets it fit."""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels that belong together."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class DashboardText:
    """One dashboard. `chosen` are labels that a reader picks, each with the metric that knows its values."""

    uid: str
    title: str
    says: str
    rows: tuple[Row, ...]
    chosen: Mapping[str, str] = field(default_factory=dict)
    guide: str = ""
    """The document that explains what is shown."""

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All of its panels, in order."""
        return tuple(panel for row in self.rows for panel in row.panels)


def lines(
    title: str, says: str, *queries: tuple[str, str], unit: str = "short", width: int = 8, **more: float | None
) -> Panel:
    """A panel of lines over time, of (expression, legend)."""
    return Panel(title, says, tuple(Query(*each) for each in queries), unit, Shown.LINES, width, **more)


def number(title: str, says: str, expr: str, *, unit: str = "short", width: int = 4, **more: float | None) -> Panel:
    """A panel of one number as it is now."""
    return Panel(title, says, (Query(expr),), unit, Shown.NUMBER, width, **more)


def table(title: str, says: str, expr: str, *, unit: str = "short", width: int = 12, **more: float | None) -> Panel:
    """A panel of series as they are now, one line each."""
    return Panel(title, says, (Query(expr),), unit, Shown.TABLE, width, **more)
