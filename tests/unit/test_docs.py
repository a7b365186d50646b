"""What is documented exists, and what exists is documented."""

import ast
import importlib
import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from harness.documented import resolve
from skewless.cli.main import EXIT_CODES, EXIT_MEANINGS
from skewless.monitor_settings import MonitorSettings
from skewless.settings import Settings, ShipperSettings, StackSettings, variable_name
from skewless_gateway.settings import GatewaySettings
from skewless_http import problems
from skewless_http.problems import STATUS_OF_CLASS
from skewless_ingest.settings import IngestSettings
from skewless_scheduler.settings import SchedulerSettings

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]
ADRS = sorted((ROOT / "docs" / "adr").glob("*"))
ADR_LINES_MAX = 80
ADR_SECTIONS = ("Context", "Decision", "Rejected alternatives", "Consequences", "Revisit when")
SETTINGS: tuple[type[BaseSettings], ...] = (
    Settings, StackSettings, GatewaySettings, ShipperSettings, MonitorSettings, IngestSettings, SchedulerSettings,
)  # fmt: skip
SHELL = {"bash", "console", "sh", "shell"}
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def _blocks(document: Path, *languages: str) -> Iterator[str]:
    """Contents of the fenced blocks of these languages."""
    for language, content in re.findall(r"^```(\w+)\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE):
        if language in languages:
            yield content


def _command_lines(document: Path) -> Iterator[list[str]]:
    """Words of every shell command in the blocks; in a console block only lines with a prompt are commands."""
    for block in _blocks(document, *SHELL):
        lines = block.replace("\\\n", " ").splitlines()
        prompted = [line[2:] for line in lines if line.startswith("$ ")]
        for line in prompted or lines:
            for part in re.split(r"\s(?:&&|\|\||[|;])\s", line):
                words = shlex.split(part, comments=True) if part.count("'") % 2 == 0 else part.split()
                if words:
                    yield words


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+):.*## ", MAKEFILE, re.MULTILINE))


@each_document
def test_documented_make_targets_exist(document: Path) -> None:
    named = set(re.findall(r"`make ([a-z0-9-]+)", document.read_text()))
    named |= {words[1] for words in _command_lines(document) if words[0] == "make" and len(words) > 1}
    assert named <= _targets(), f"{document.name} names targets that the Makefile lacks: {sorted(named - _targets())}"


def test_make_targets_are_listed_by_help_and_phony() -> None:
    phony = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE).group(1).split())  # type: ignore[union-attr]  # the line is there
    assert phony == _targets()


@each_document
def test_documented_commands_exist_with_their_options(document: Path) -> None:
    for words in _command_lines(document):
        if words[0].removeprefix(".venv/bin/") == "skewless":
            resolve(words[1:])


@each_document
def test_python_blocks_parse_and_import_what_exists(document: Path) -> None:
    for block in _blocks(document, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
            elif isinstance(node, ast.Import):
                assert all(importlib.util.find_spec(alias.name) for alias in node.names)


@each_document
def test_json_blocks_are_json(document: Path) -> None:
    for block in _blocks(document, "json"):
        json.loads(block)


@each_document
def test_links_within_the_repository_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", document.read_text())
    broken = [link for link in links if not (document.parent / link).exists()]
    assert not broken, f"{document.name}: {broken}"


def test_the_readme_shows_how_to_try_and_to_test() -> None:
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text


@pytest.mark.parametrize("settings_class", SETTINGS, ids=lambda each: each.__name__)
def test_every_setting_is_documented_with_its_default(settings_class: type[BaseSettings]) -> None:
    missing = [
        row
        for name, field in settings_class.model_fields.items()
        if (row := f"| `{variable_name(settings_class, name)}` | {_default(field)} | {field.description} |")
        not in REFERENCE
    ]
    assert not missing, "docs/reference.md lacks these rows:\n" + "\n".join(missing)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return "not given" if field.default is None else f"`{field.default}`"


def _codes() -> set[str]:
    """Every error code: those of the classes, and the narrower ones given where an error is raised."""
    codes = {error.code for error in STATUS_OF_CLASS}
    for folder in ("platform", "services"):
        for path in (ROOT / folder).rglob("*.py"):
            source = path.read_text()
            codes.update(re.findall(r'\bcode="(\w+)"', source))
            codes.update(f"unknown_{what}" for what in re.findall(r'\bunknown_name\(.*what="(\w+)"', source))
            codes.update(_named_codes(source))
    return codes


def _named_codes(source: str) -> set[str]:
    """Codes given by the name of a constant of the same module or of `problems.py`."""
    names = set(re.findall(r"\bcode=([A-Z_]+)\b", source))
    return {getattr(problems, name) for name in names if hasattr(problems, name)}


def test_every_error_code_is_documented() -> None:
    missing = sorted(code for code in _codes() if f"| `{code}` |" not in REFERENCE)
    assert not missing, f"docs/reference.md lacks rows for the error codes {missing}"


def test_documented_statuses_are_those_of_the_gateway() -> None:
    for error, status in STATUS_OF_CLASS.items():
        assert re.search(rf"^\| `{error.code}` \| {status} \|", REFERENCE, re.MULTILINE), f"{error.code}: {status}"


def test_every_exit_code_is_documented_with_its_errors() -> None:
    for status, meaning in EXIT_MEANINGS.items():
        named = ", ".join(f"`{error.__name__}`" for error, code in EXIT_CODES.items() if code == status)
        assert (row := f"| {status} | {meaning} | {named} |") in REFERENCE, f"docs/reference.md lacks: {row}"


def test_every_metric_is_documented() -> None:
    names = ("skewless_gateway", "skewless_http", "skewless_ingest", "skewless_scheduler", "skewless_shipper")
    services = [*(ROOT / "services" / name for name in names), ROOT / "monitoring"]
    sources = [path.read_text() for service in services for path in service.rglob("*.py")]
    told = [source for source in sources if "prometheus_client" in source]
    metrics = {name for source in told for name in re.findall(r'"(skewless_[a-z_]+)"', source)}
    metrics -= {*names, "skewless_monitor"}  # the packages
    assert len(metrics) > 50, "modules of the gateway name their metrics as literals"
    missing = sorted(metric for metric in metrics if f"| `{metric}" not in REFERENCE)
    assert not missing, f"docs/reference.md lacks rows for the metrics {missing}"


def test_decisions_are_numbered_without_gaps_and_named_by_a_verb() -> None:
    numbers = []
    for path in ADRS:
        found = re.fullmatch(r"(\d{4})-[a-z]+(?:-[a-z0-9]+)+\.md", path.name)
        assert found, f"{path.name}: name it NNNN-verb-object.md"
        numbers.append(int(found.group(1)))
    assert numbers == list(range(1, len(ADRS) + 1))


@pytest.mark.parametrize("path", ADRS, ids=lambda path: path.name)
def test_decisions_are_short_and_have_every_section(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= ADR_LINES_MAX
    assert text.startswith(f"# {int(path.name[:4])}. "), "the title begins with the number"
    assert tuple(re.findall(r"^## (.+)$", text, re.MULTILINE)) == ADR_SECTIONS
