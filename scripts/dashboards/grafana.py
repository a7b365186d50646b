"""Grafana's model of a dashboard out of ours: the only module that knows Grafana's SDK."""

from collections.abc import Callable

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from scripts.dashboards.panels import DashboardText, Panel, Query, Row, Shown

REPOSITORY_GUIDE = "In the repository: "
REFRESH, SINCE = "30s", "now-3h"
Drawn = timeseries.Panel | stat.Panel | tables.Panel
_SOURCE = models.DataSourceRef(type_val="prometheus", uid="${source}")
_HEIGHTS = {Shown.NUMBER: 4, Shown.LINES: 8, Shown.TABLE: 9}
_GREEN, _YELLOW, _RED = "green", "orange", "red"


def dashboard_json(text: DashboardText) -> str:
    """The dashboard as Grafana imports it; the same text for the same dashboard."""
    made = (
        builders.Dashboard(text.title)
        .uid(text.uid)
        .description(f"{text.says} {REPOSITORY_GUIDE}{text.guide}".strip())
        .tags(["skewless"])
        .readonly()
        .refresh(REFRESH)
        .time(SINCE, "now")
        .timezone("utc")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(builders.DatasourceVariable("source").label("Prometheus").type("prometheus"))
        .link(
            builders.DashboardLink("Skewless")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["skewless"])
            .as_dropdown(True)
        )
    )
    for label, metric in text.chosen.items():
        made = made.with_variable(_variable(label, metric))
    for row in text.rows:
        made = _with_row(made, row)
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _variable(label: str, metric: str) -> builders.QueryVariable:
    """Values of a label to choose from, all of them at first."""
    return (
        builders.QueryVariable(label)
        .label(label)
        .query(f"label_values({metric}, {label})")
        .datasource(_SOURCE)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .multi(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def _with_row(made: builders.Dashboard, row: Row) -> builders.Dashboard:
    made = made.with_row(builders.Row(row.title))
    for panel in row.panels:
        made = made.with_panel(_panel(panel))
    return made


def _panel(panel: Panel) -> Drawn:
    draw: dict[Shown, Callable[[Panel], Drawn]] = {Shown.LINES: _lines, Shown.NUMBER: _number, Shown.TABLE: _table}
    drawn = (
        draw[panel.shown](panel)
        .title(panel.title)
        .description(panel.says)
        .datasource(_SOURCE)
        .unit(panel.unit)
        .height(_HEIGHTS[panel.shown])
        .span(panel.width)
        .thresholds(_thresholds(panel))
    )
    for number, query in enumerate(panel.queries):
        drawn = drawn.with_target(_query(query, chr(ord("A") + number), panel.shown))
    return drawn


def _lines(panel: Panel) -> timeseries.Panel:
    drawn = (
        timeseries.Panel()
        .line_width(1.5)
        .fill_opacity(8)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    return drawn if panel.lowest is None else drawn.axis_soft_min(panel.lowest)


def _number(panel: Panel) -> stat.Panel:
    has_bounds = panel.warns is not None or panel.alarms is not None
    return (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_mode(BigValueColorMode.VALUE if has_bounds else BigValueColorMode.NONE)
        .no_value("none")
    )


def _table(_panel: Panel) -> tables.Panel:
    hidden = {"Time": True, "__name__": True, "instance": True, "job": True}
    return tables.Panel().transformations(
        [models.DataTransformerConfig(id_val="organize", options={"excludeByName": hidden})]
    )


def _query(query: Query, name: str, shown: Shown) -> prometheus.Dataquery:
    asked = prometheus.Dataquery().ref_id(name).expr(query.expr).legend_format(query.legend or "__auto")
    if shown is Shown.TABLE:
        return asked.instant().format(PromQueryFormat.TABLE)
    return asked.range()


def _thresholds(panel: Panel) -> builders.ThresholdsConfig:
    """Colours by value; where smaller is worse, the worst colour is the lowest step."""
    is_falling = panel.warns is not None and panel.alarms is not None and panel.alarms < panel.warns
    if is_falling:
        steps = [(None, _RED), (panel.alarms, _YELLOW), (panel.warns, _GREEN)]
    else:
        bounds = [
            (bound, colour) for bound, colour in ((panel.warns, _YELLOW), (panel.alarms, _RED)) if bound is not None
        ]
        steps = [(None, _GREEN), *bounds]
    return (
        builders.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=colour) for value, colour in steps])
    )
