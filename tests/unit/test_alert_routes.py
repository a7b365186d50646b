"""Alertmanager's configuration: who is told what, and what is not told because another alert explains it."""

import re
import subprocess
from typing import Any

import pytest
import yaml

from harness.rules import ALERTMANAGER, alerts, tool

CONFIG: dict[str, Any] = yaml.safe_load(ALERTMANAGER.read_text())
INHIBITIONS: list[dict[str, Any]] = CONFIG["inhibit_rules"]
NAMES = {rule.name for rule in alerts()}
_NOT_WATCHED = {"alerts.yml", "ingest.yml", "monitor.yml", "scheduler.yml"}
"""Files of alerts that do not come from a monitor's jobs."""
BY_FILE = {name: {rule.name for rule in alerts() if rule.file == name} for name in {rule.file for rule in alerts()}}


def names_of(matchers: list[str]) -> set[str]:
    """The alerts that a rule's matchers name; fails where one of the names is no alert's."""
    (matcher,) = [each for each in matchers if each.startswith("alertname")]
    found = re.fullmatch(r'alertname(=~?)"(.*)"', matcher)
    assert found is not None, matcher
    # Alternatives of the whole: a bar within brackets is no end of one.
    alternatives = re.split(r"\|(?![^(]*\))", found.group(2)) if found.group(1) == "=~" else [re.escape(found.group(2))]
    for each in alternatives:
        assert any(re.fullmatch(each, name) for name in NAMES), f"no alert is called {each}"
    return {name for name in NAMES if any(re.fullmatch(each, name) for each in alternatives)}


def inhibited_by(source: str) -> set[str]:
    """What is not told while an alert is raised."""
    ruled = [each for each in INHIBITIONS if source in names_of(each["source_matchers"])]
    return {name for each in ruled for name in names_of(each["target_matchers"])}


def told_by_amtool(*arguments: str) -> str:
    command = [tool("amtool", "prometheus-alertmanager"), *arguments]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout.strip()


def test_amtool_can_read_it() -> None:
    assert "SUCCESS" in told_by_amtool("check-config", str(ALERTMANAGER))


@pytest.mark.parametrize("severity", ["page", "ticket"])
def test_each_severity_has_a_receiver_of_its_own(severity: str) -> None:
    labels = (f"severity={severity}", "endpoint=flight-delay", "alertname=GatewayServerErrors")
    routed = told_by_amtool("config", "routes", "test", f"--config.file={ALERTMANAGER}", *labels)
    assert routed.splitlines()[-1] == severity
    assert severity in {each["name"] for each in CONFIG["receivers"]}


def test_what_is_wrong_with_an_endpoint_is_one_message_and_pages_are_repeated_sooner() -> None:
    assert "endpoint" in CONFIG["route"]["group_by"]
    page, ticket = CONFIG["route"]["routes"]
    assert page["group_wait"] == "10s"
    assert (page["repeat_interval"], CONFIG["route"]["repeat_interval"]) == ("4h", "24h")
    assert "repeat_interval" not in ticket


def test_no_alert_silences_itself_and_no_cause_is_silenced_by_its_consequence() -> None:
    for name in NAMES:
        silenced = inhibited_by(name)
        assert name not in silenced
        assert not [each for each in silenced if name in inhibited_by(each)], name


def test_a_part_that_is_down_silences_what_follows_from_it() -> None:
    gateway = inhibited_by("GatewayDown")
    assert {"GatewaySlow", "WorkerDown", "EventLoopLate"} <= gateway <= BY_FILE["alerts.yml"]
    assert {"CircuitOpen", "GatewayServerErrors", "ModelServerLeftOut"} <= inhibited_by("TritonDown")
    assert {"SegmentsWait", "DriftLagsBehind"} <= inhibited_by("ShipperDown")
    assert "GatewayDown" not in inhibited_by("TritonDown") | inhibited_by("ShipperDown")


@pytest.mark.parametrize("down", ["MonitorDown", "ShipperDown"])
def test_one_of_several_that_is_down_keeps_no_page_of_the_others_from_anybody(down: str) -> None:
    of_others = [
        each
        for each in INHIBITIONS
        if down in names_of(each["source_matchers"]) and "instance" not in each.get("equal", [])
    ]
    for each in of_others:
        assert 'severity="ticket"' in each["target_matchers"]
        severities = {rule.name: rule.content["labels"]["severity"] for rule in alerts()}
        assert {severities[name] for name in names_of(each["target_matchers"])} == {"ticket"}


@pytest.mark.parametrize("down", ["MonitorDown", "MonitorAbsent"])
def test_without_a_monitor_nothing_is_told_of_what_it_watched_and_all_else_is(down: str) -> None:
    silenced = inhibited_by(down)
    watched = set().union(*(names for file, names in BY_FILE.items() if file not in _NOT_WATCHED))
    own = BY_FILE["monitor.yml"] - {"MonitorDown", "MonitorAbsent"}
    assert silenced == watched | own


def test_inhibitions_of_one_gateway_or_job_leave_the_others_alone() -> None:
    equal = {tuple(each["source_matchers"]): each.get("equal", []) for each in INHIBITIONS}
    assert equal[('alertname="GatewayDown"',)] == ["instance"]
    assert equal[('alertname="MonitorJobStale"',)] == ["instance", "monitor_job"]
