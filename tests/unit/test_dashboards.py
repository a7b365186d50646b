"""Dashboards: what is committed is what the code makes, and every query asks for metrics and labels that exist."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.rules import tool
from scripts.dashboards.__main__ import DASHBOARDS, FOLDER, files
from scripts.dashboards.grafana import dashboard_json
from scripts.dashboards.panels import DashboardText, Panel, Shown

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
FOREIGN = ("nv_", "redis_")
"""Metrics of Triton and of redis_exporter, which their own documentation lists."""
METRIC = re.compile(r"\b(?:skewless|nv|redis)_[a-z_]+\b")
VARIABLE = re.compile(r"\$[a-z]+")
PANELS = [(text, panel) for text in DASHBOARDS for panel in text.panels]


def _documented() -> dict[str, set[str]]:
    """Labels of each metric by docs/reference.md."""
    rows = re.findall(r"^\| `(skewless_[a-z_]+)` \|([^|]*)\|", REFERENCE, re.MULTILINE)
    return {name: set(re.findall(r"`([a-z_]+)`", labels)) for name, labels in rows}


def _metrics(expr: str) -> set[str]:
    return {re.sub("_(bucket|sum|count)$", "", name) for name in METRIC.findall(expr)}


def test_the_files_are_what_the_code_makes() -> None:
    wanted = files()
    assert sorted(FOLDER.glob("*.json")) == sorted(wanted)
    stale = [path.name for path, text in wanted.items() if path.read_text() != text]
    assert not stale, "run `python -m scripts.dashboards`"


@pytest.mark.parametrize("text", DASHBOARDS, ids=lambda text: text.uid)
def test_every_metric_and_label_that_is_asked_for_exists(text: DashboardText) -> None:
    documented = _documented()
    asked = {metric for panel in text.panels for query in panel.queries for metric in _metrics(query.expr)}
    ours = {metric for metric in asked | set(text.chosen.values()) if not metric.startswith(FOREIGN)}
    assert not ours - documented.keys(), "docs/reference.md does not know them"
    for panel in text.panels:
        for query in panel.queries:
            known = {label for metric in _metrics(query.expr) for label in documented.get(metric, set())}
            known |= {"le", "instance", "job", "worker"}
            if any(metric.startswith(FOREIGN) for metric in _metrics(query.expr)):
                known |= {"model", "gpu_uuid", "db"}
            for labels in re.findall(r"\bby \(([^)]*)\)", query.expr):
                assert set(labels.replace(" ", "").split(",")) <= known, f"{panel.title}: {query.expr}"
            for selector in re.findall(r"\{([^{}]*)\}", query.expr):
                assert set(re.findall(r"([a-z_]+)\s*(?:=|!)", selector)) <= known, f"{panel.title}: {query.expr}"
            legend = set(re.findall(r"\{\{([a-z_]+)\}\}", query.legend))
            kept = {each for labels in re.findall(r"\bby \(([^)]*)\)", query.expr) for each in labels.split(", ")}
            assert legend <= kept, f"{panel.title}: the legend names what the query adds up over"


@pytest.mark.parametrize("text", DASHBOARDS, ids=lambda text: text.uid)
def test_what_a_reader_may_choose_is_used_and_nothing_else(text: DashboardText) -> None:
    used = {name for panel in text.panels for query in panel.queries for name in VARIABLE.findall(query.expr)}
    assert used == {f"${name}" for name in text.chosen}


def test_prometheus_can_read_every_query(tmp_path: Path) -> None:
    expressions = [VARIABLE.sub(".*", query.expr) for _, panel in PANELS for query in panel.queries]
    rules = [{"record": f"panel:query:{number}", "expr": expr} for number, expr in enumerate(expressions)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool = tool("promtool", "prometheus")
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(expressions)} rules found" in done.stdout


@pytest.mark.parametrize(("text", "panel"), PANELS, ids=lambda each: getattr(each, "uid", None) or each.title)
def test_every_panel_says_what_it_means_and_has_a_unit(text: DashboardText, panel: Panel) -> None:
    assert panel.says.endswith("."), "a sentence for whoever was woken up"
    assert panel.queries
    assert (panel.shown is Shown.LINES) or len(panel.queries) == 1
    for guide in re.findall(r"docs/[\w-]+\.md", panel.says + text.guide):
        assert (ROOT / guide).is_file()


@pytest.mark.parametrize("text", DASHBOARDS, ids=lambda text: text.uid)
def test_grafana_gets_every_panel_in_rows_that_do_not_overlap(text: DashboardText) -> None:
    made: dict[str, Any] = json.loads(dashboard_json(text))
    panels = [panel for panel in made["panels"] if panel["type"] != "row"]
    assert [panel["title"] for panel in panels] == [panel.title for panel in text.panels]
    assert len({panel["title"] for panel in panels}) == len(panels), "a title is how people talk of a panel"
    taken: set[tuple[int, int]] = set()
    for panel in made["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, f"{panel['title']} lies over another"
        taken |= cells
