"""Where code may lie, so that it imports, is type-checked and reaches the wheel."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE_ROOTS = ("platform", "services", "monitoring")
PACKAGES = [
    ROOT / each
    for each in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
]


@pytest.mark.parametrize("source_root", SOURCE_ROOTS)
def test_a_source_root_is_no_package_itself(source_root: str) -> None:
    init = ROOT / source_root / "__init__.py"
    assert not init.exists(), f"{init}: delete it; `platform/__init__.py` would shadow the standard library's module"


@pytest.mark.parametrize("source_root", SOURCE_ROOTS)
def test_no_module_lies_loose_in_a_source_root(source_root: str) -> None:
    loose = [str(each.relative_to(ROOT)) for each in (ROOT / source_root).glob("*.py")]
    assert not loose, f"move into a package, a loose file becomes a top-level module: {loose}"


def test_every_package_ships_in_the_wheel() -> None:
    with_code = [
        folder
        for source_root in SOURCE_ROOTS
        for folder in (ROOT / source_root).iterdir()
        if folder.is_dir() and any(folder.rglob("*.py"))
    ]
    forgotten = [str(each.relative_to(ROOT)) for each in with_code if each not in PACKAGES]
    assert not forgotten, f"add to tool.hatch.build.targets.wheel.packages in pyproject.toml: {forgotten}"


def test_every_package_of_the_wheel_exists_under_a_unique_name() -> None:
    assert [str(each) for each in PACKAGES if not (each / "__init__.py").exists()] == []
    names = [each.name for each in PACKAGES]
    assert len(names) == len(set(names)), f"hatchling keys packages on their last part, so it must be unique: {names}"


def test_every_folder_with_code_has_an_init_file() -> None:
    folders = {module.parent for package in PACKAGES for module in package.rglob("*.py")}
    bare = sorted(str(each.relative_to(ROOT)) for each in folders if not (each / "__init__.py").exists())
    assert not bare, f"add an __init__.py with a one-line docstring: {bare}"


def test_every_top_level_package_is_typed() -> None:
    untyped = [str(each.relative_to(ROOT)) for each in PACKAGES if not (each / "py.typed").exists()]
    assert not untyped, f"add an empty py.typed: {untyped}"


def test_test_files_have_unique_names() -> None:
    names = [each.name for each in (ROOT / "tests").rglob("test_*.py")]
    twice = sorted({each for each in names if names.count(each) > 1})
    assert not twice, f"rename, reports would not say which file is meant: {twice}"
