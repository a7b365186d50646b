"""Taste that a machine can check: sizes, banned words and calls, each with what to do instead."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE_FOLDERS = ("platform", "services", "feature_repo", "migrations", "tests", "scripts", "monitoring", "bench")
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
DRAWERS = {"base.py", "common.py", "helpers.py", "manager.py", "misc.py", "utils.py"}
TEXT_SUFFIXES = {".cfg", ".ini", ".json", ".mako", ".md", ".pbtxt", ".py", ".sh", ".toml", ".yaml", ".yml", ""}

# Written in pieces so that this file does not find itself.
BANNED_IN_CODE = {
    r"\b" + "TO" + r"DO\b": "finish it, or open an issue and leave the code whole",
    r"\b" + "FIX" + r"ME\b": "finish it",
    r"\b" + "XX" + r"X\b": "say what is the matter",
    r"\btime\." + r"sleep\(": "poll with a deadline (tests/harness)",
    r"\bexcept:": "name the exception",
    r"#\s*type:\s*ignore(?!\[)": "name the error code and the reason",
    r"\bunittest\." + "mock": "write a fake of the port (tests/harness/fakes.py)",
}
MACHINE_PATH = re.compile(r"(?<![\w.$}~])/(?:home|root|Users|work|opt/pypi)/[\w.-]+")


def _files(*suffixes: str) -> Iterator[Path]:
    """Every file of the project with one of the suffixes, in a stable order."""
    for folder in CODE_FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix in suffixes and "__pycache__" not in path.parts:
                yield path


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Everything in which a function can be defined, and no expression, of which there are ten times as many."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield child
            yield from _statements(child)


PYTHON = list(_files(".py"))
TEXTS = {path: path.read_text() for path in PYTHON}
MARKDOWN = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def test_there_is_code_to_check() -> None:
    assert len(PYTHON) > 20
    assert len(MARKDOWN) > 3


def test_files_stay_short_enough_to_hold_in_mind() -> None:
    long = {_name(path): lines for path, text in TEXTS.items() if (lines := len(text.splitlines())) > FILE_LINES_MAX}
    assert not long, f"split by noun; more than {FILE_LINES_MAX} lines: {long}"


def test_functions_stay_short_enough_to_read_at_once() -> None:
    long = {
        f"{_name(path)}:{node.lineno} {node.name}": lines
        for path, text in TEXTS.items()
        if len(text.splitlines()) > FUNCTION_LINES_MAX  # a shorter file has no longer function
        for node in _statements(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    }
    assert not long, f"split; more than {FUNCTION_LINES_MAX} lines: {long}"


def test_modules_are_named_after_a_noun_and_no_drawer() -> None:
    drawers = [_name(path) for path in PYTHON if path.name in DRAWERS]
    assert not drawers, f"name the module after the one thing it holds: {drawers}"


@pytest.mark.parametrize(("pattern", "instead"), BANNED_IN_CODE.items())
def test_banned_words_and_calls_are_absent(pattern: str, instead: str) -> None:
    found = [
        f"{_name(path)}:{number}"
        for path, text in TEXTS.items()
        if path != Path(__file__) and not ("sleep" in pattern and not path.name.startswith("test_"))
        if re.search(pattern, text)  # most files have none at all
        for number, line in enumerate(text.splitlines(), start=1)
        if re.search(pattern, line)
    ]
    assert not found, f"{pattern}: {instead}: {found}"


def test_only_the_command_line_prints() -> None:
    found = [
        f"{_name(path)}:{node.lineno}"
        for path, text in TEXTS.items()
        if not _name(path).startswith(("platform/skewless/cli/", "tests/")) and "print(" in text
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not found, f"return it, take a progress callback, or log at the edge: {found}"


def test_no_file_names_a_path_of_one_machine() -> None:
    roots = [path for path in ROOT.iterdir() if path.is_file() and path.suffix in TEXT_SUFFIXES and path.name != ".git"]
    found = [
        f"{_name(path)}: {hit.group()}"
        for path in [*roots, *MARKDOWN, *_files(*TEXT_SUFFIXES)]
        if path != Path(__file__)
        for hit in MACHINE_PATH.finditer(path.read_text(errors="replace"))
    ]
    assert not found, f"use a path relative to the repository, or a setting: {found}"


def test_every_document_has_one_title_in_its_first_line() -> None:
    for path in MARKDOWN:
        prose = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
        titles = [line for line in prose.splitlines() if line.startswith("# ")]
        assert len(titles) == 1, f"{_name(path)} has {len(titles)} titles: {titles}"
        assert prose.startswith(titles[0]), f"{_name(path)} must begin with its title"
