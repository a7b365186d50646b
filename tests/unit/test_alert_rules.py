"""Alert rules: on metrics and labels that are documented, and, where promtool is there, with what they raise."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "monitoring" / "prometheus"
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
OF_PROMETHEUS = {"instance", "job", "le", "worker"}
"""Labels that no metric names: of the scrape, of a histogram's buckets, and of several workers' page."""


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def labels_of(metric: str) -> set[str]:
    """As the reference documents them."""
    family = re.sub(r"_(bucket|sum|count)$", "", metric)
    row = re.search(rf"^\| `{family}` \| (.*?) \|", REFERENCE, re.MULTILINE)
    assert row is not None, f"docs/reference.md lacks a row for {family}"
    return set(re.findall(r"`(\w+)`", row.group(1)))


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_asks_for_labels_that_its_metrics_have(rule: dict[str, Any]) -> None:
    metrics = set(re.findall(r"\bskewless_\w+", rule["expr"]))
    known = OF_PROMETHEUS.union(*(labels_of(metric) for metric in metrics))
    asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", rule["expr"]))
    for grouped in re.findall(r"\bby \(([^)]*)\)", rule["expr"]):
        asked |= {each.strip() for each in grouped.split(",")}
    told = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    assert asked | told <= known, (
        f"{rule['alert']}: no metric of {sorted(metrics)} has {sorted((asked | told) - known)}"
    )


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_what_an_alert_tells_survives_its_aggregation(rule: dict[str, Any]) -> None:
    grouped = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
    if grouped:
        kept = {each.strip() for each in grouped[0].split(",")}
        assert set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))) <= kept


@pytest.mark.parametrize("arguments", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")])
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; it comes with Prometheus")
    told = subprocess.run([promtool, *arguments], cwd=RULES, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
