"""The rules and rule tests of `monitoring/prometheus`, as Prometheus reads them."""

import re
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "monitoring" / "prometheus"
ALERTMANAGER = ROOT / "monitoring" / "alertmanager" / "alertmanager.yml"
TESTED = "_test.yml"
RECORDED = re.compile(r"\b[a-z_]+:[a-z_]+:[a-z0-9_]+\b")
"""The name of what is recorded: `level:metric:operation`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: an alert, or something recorded. `place` counts from 0 in its group."""

    file: str
    group: str
    place: int
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the alert, or of what is recorded."""
        return str(self.content.get("alert") or self.content["record"])

    @property
    def is_alert(self) -> bool:
        """Whether it raises, and does not record."""
        return "alert" in self.content

    @property
    def expr(self) -> str:
        """In PromQL."""
        return str(self.content["expr"])

    @property
    def annotations(self) -> dict[str, str]:
        """As templates."""
        return dict(self.content.get("annotations", {}))


@cache
def rule_files() -> tuple[Path, ...]:
    """Every file of rules."""
    return tuple(
        path
        for path in sorted(FOLDER.glob("*.yml"))
        if not path.name.endswith(TESTED) and "groups:" in path.read_text()
    )


def rule_test_files() -> list[Path]:
    """Every file of rule tests."""
    return sorted(FOLDER.glob(f"*{TESTED}"))


@cache
def rules() -> tuple[Rule, ...]:
    """Every rule of every file, in order."""
    return tuple(
        Rule(path.name, group["name"], place, rule)
        for path in rule_files()
        for group in yaml.safe_load(path.read_text())["groups"]
        for place, rule in enumerate(group["rules"])
    )


def alerts() -> list[Rule]:
    """The rules that raise."""
    return [rule for rule in rules() if rule.is_alert]


def tool(name: str, package: str) -> str:
    """The path of a program that Debian has; skips the test, saying so, where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; Debian has it in the package {package}")
    return found
