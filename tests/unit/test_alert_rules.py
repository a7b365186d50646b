"""Rules: of metrics and labels that are documented, each tried with series that raise it and series that do not."""

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import yaml

from harness.documented import resolve
from harness.rules import FOLDER, RECORDED, ROOT, Rule, alerts, rule_files, rule_test_files, rules, tool

REFERENCE = (ROOT / "docs" / "reference.md").read_text()
OF_PROMETHEUS = {"instance", "job", "le", "worker"}
"""Labels that no metric names: of the scrape, of a histogram's buckets, and of several workers' page."""
OF_EVERY_PROCESS = {"up", "process_start_time_seconds", "process_resident_memory_bytes"}
"""Metrics that the reference does not list by itself: Prometheus' own, and those of every process."""
METRIC = re.compile(r"\bskewless_\w+")
each_alert = pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule.name)
each_rule = pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)
each_file = pytest.mark.parametrize("path", rule_files(), ids=lambda path: path.name)


def row_of(metric: str) -> str | None:
    """The labels of a metric, or of its histogram, as the reference's table has them; None where it has none."""
    for family in (metric, re.sub(r"_(bucket|sum|count)$", "", metric)):
        row = re.search(rf"^\| `{family}` \|(.*?)\|", REFERENCE, re.MULTILINE)
        if row is not None:
            return row.group(1)
    return None


def labels_of(metric: str) -> set[str]:
    """As the reference documents them."""
    row = row_of(metric)
    assert row is not None, f"docs/reference.md lacks a row for {metric}"
    return set(re.findall(r"`(\w+)`", row))


def labels_of_recorded(name: str) -> set[str]:
    """Those that are left by the rule that records it."""
    (rule,) = [each for each in rules() if each.name == name]
    return {label for grouped in re.findall(r"\bby \(([^)]*)\)", rule.expr) for label in re.split(r",\s*", grouped)}


def known_labels(rule: Rule) -> set[str]:
    """The labels of all that a rule asks for."""
    plain = RECORDED.sub("", rule.expr)
    recorded = (labels_of_recorded(name) for name in RECORDED.findall(rule.expr))
    return OF_PROMETHEUS.union(*recorded, *(labels_of(metric) for metric in METRIC.findall(plain)))


def test_the_folder_has_a_file_for_each_part_that_is_watched() -> None:
    names = {path.stem for path in rule_files()}
    assert names >= {"alerts", "monitor", "recording"}
    assert {f"{name}_test.yml" for name in names} == {path.name for path in rule_test_files()}


def test_prometheus_loads_every_file_of_rules() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert sorted(config["rule_files"]) == [path.name for path in rule_files()]


def test_names_are_given_once_and_groups_too() -> None:
    twice = [name for name, count in Counter(rule.name for rule in rules()).items() if count > 1]
    assert not twice
    groups = Counter(rule.group for rule in rules() if rule.place == 0)
    assert set(groups.values()) == {1}, groups


@each_rule
def test_a_rule_asks_for_labels_that_its_metrics_have(rule: Rule) -> None:
    asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", rule.expr))
    for grouped in re.findall(r"\b(?:by|on|ignoring|group_left|group_right) ?\(([^)]*)\)", rule.expr):
        asked |= {each.strip() for each in grouped.split(",") if each.strip()}
    told = set(re.findall(r"\$labels\.(\w+)", str(rule.annotations)))
    unknown = (asked | told) - known_labels(rule)
    assert not unknown, f"{rule.name}: no metric of {METRIC.findall(rule.expr)} has {sorted(unknown)}"


@each_rule
def test_a_rule_asks_for_metrics_that_some_process_tells(rule: Rule) -> None:
    plain = re.sub(r"\"[^\"]*\"", "", RECORDED.sub("", rule.expr))
    plain = re.sub(r"\{[^}]*\}|\([a-z_, ]*\)", "", plain)
    names = set(re.findall(r"\b[a-z]+(?:_[a-z0-9]+)+\b", plain))
    functions = set(re.findall(r"\b(\w+) ?\(", plain))
    asked = {name for name in names if name not in functions and not name.startswith("group_")}
    missing = sorted(name for name in asked - OF_EVERY_PROCESS if row_of(name) is None)
    assert not missing, f"{rule.name}: docs/reference.md has no metric {missing}"


@each_rule
def test_an_alert_finds_what_is_recorded_in_its_own_group_before_it(rule: Rule) -> None:
    """Groups are computed in any order: what another group records may be of the moment before."""
    before = [
        each.name for each in rules() if (each.file, each.group) == (rule.file, rule.group) and each.place < rule.place
    ]
    late = sorted(set(RECORDED.findall(rule.expr)) - set(before))
    assert not late, f"{rule.name} asks for {late}; record it before {rule.name}, in its group"


@each_alert
def test_what_an_alert_tells_survives_its_aggregation(rule: Rule) -> None:
    grouped = re.findall(r"\bby \(([^)]*)\)", rule.expr)
    if grouped:
        kept = {each.strip() for each in grouped[0].split(",")}
        assert set(re.findall(r"\$labels\.(\w+)", str(rule.annotations))) <= kept


@each_alert
def test_an_alert_says_how_urgent_it_is_what_it_means_and_what_to_do(rule: Rule) -> None:
    assert rule.content["labels"]["severity"] in {"page", "ticket"}
    assert set(rule.annotations) == {"summary", "hint"}
    assert rule.annotations["summary"][0].isupper() or rule.annotations["summary"].startswith("{{")
    assert re.fullmatch(r"[A-Z][A-Za-z]+", rule.name)


@each_alert
def test_a_hint_names_commands_settings_metrics_and_documents_that_exist(rule: Rule) -> None:
    told = rule.annotations["hint"] + " " + rule.annotations["summary"]
    plain = re.sub(r"\{\{.*?\}\}", "NAME", told)
    for command in re.findall(r"`skewless ([^`]+)`", plain):
        resolve(command.split())
    for document in re.findall(r"\bdocs/[\w-]+\.md", plain):
        assert (ROOT / document).is_file(), document
    for setting in re.findall(r"\bSKEWLESS_[A-Z_]+", plain):
        assert f"| `{setting}` |" in REFERENCE, setting
    for metric in METRIC.findall(plain):
        assert row_of(metric) is not None, metric
    for alert in re.findall(r"\bsee ([A-Z][a-z]+(?:[A-Z][a-z]+)+)\b", plain):
        assert alert in {each.name for each in alerts()}, alert


def tried(path: Path) -> tuple[set[str], set[str], set[str]]:
    """The names of a file of tests: alerts that are raised, alerts that are not, and recorded names."""
    raised: set[str] = set()
    silent: set[str] = set()
    recorded: set[str] = set()
    for test in yaml.safe_load(path.read_text())["tests"]:
        for each in test.get("alert_rule_test", ()):
            (raised if each.get("exp_alerts") else silent).add(each["alertname"])
        for each in test.get("promql_expr_test", ()):
            recorded |= set(RECORDED.findall(each["expr"]))
    return raised, silent, recorded


@each_file
def test_every_rule_is_tried_with_series_that_raise_it_and_with_series_that_do_not(path: Path) -> None:
    own = [rule for rule in rules() if rule.file == path.name]
    raised, silent, recorded = tried(path.with_name(f"{path.stem}_test.yml"))
    raising = {rule.name for rule in own if rule.is_alert}
    assert raising - raised == set(), "no test raises them"
    assert raising - silent == set(), "no test says when they are silent"
    assert {rule.name for rule in own if not rule.is_alert} - recorded == set(), "no test says what is recorded"
    assert raised | silent <= raising, "tests of alerts that do not exist never fail"


def told_by_promtool(*arguments: str) -> None:
    command = [tool("promtool", "prometheus"), *arguments]
    told = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode == 0, told.stdout + told.stderr


def test_promtool_can_read_every_rule() -> None:
    told_by_promtool("check", "rules", *(path.name for path in rule_files()))


@pytest.mark.parametrize("path", rule_test_files(), ids=lambda path: path.name)
def test_promtool_agrees_with_what_rules_are_said_to_raise(path: Path) -> None:
    told_by_promtool("test", "rules", path.name)
