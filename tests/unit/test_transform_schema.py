"""The published JSON Schema: current, right for everything that is stored, and strict."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from skewless.transforms import SEMANTICS_VERSION
from skewless.transforms.catalogue import CATALOGUE
from skewless.transforms.schema import check_schema, transform_schema
from skewless.transforms.semantics import version_of

PUBLISHED = Path(__file__).parents[2] / "docs" / "schemas" / "transform.schema.json"
STORED = sorted((Path(__file__).parent / "stored_transforms").glob("*.json"))
VALIDATOR = Draft202012Validator(transform_schema())


def stored(path: Path) -> dict[str, Any]:
    transform: dict[str, Any] = json.loads(path.read_text())["transform"]
    return transform


def errors(data: object) -> list[str]:
    return [error.json_path for error in VALIDATOR.iter_errors(data)]


def test_the_published_schema_is_current() -> None:
    assert json.loads(PUBLISHED.read_text()) == transform_schema(), (
        "write it again: .venv/bin/skewless transform schema > docs/schemas/transform.schema.json"
    )


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(transform_schema())


def test_every_setting_and_learned_value_of_every_operation_has_a_schema() -> None:
    for operation in CATALOGUE.values():
        for check in (*operation.settings.values(), *operation.learned.values()):
            assert check_schema(check), f"{operation.name}: {check!r}"


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_every_stored_example_is_valid(path: Path) -> None:
    assert errors(stored(path)) == []


def test_the_stored_examples_use_every_version() -> None:
    assert {stored(path)["semantics_version"] for path in STORED} == set(range(1, SEMANTICS_VERSION + 1))


def test_the_stored_examples_use_every_operation_that_needs_no_installed_code() -> None:
    used = {node["operation"] for path in STORED for node in stored(path)["nodes"]}
    assert set(CATALOGUE) - used <= {"onnx", "python"}


def _places(data: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place of the JSON below the top, long lists by their first items."""
    items = data.items() if isinstance(data, dict) else enumerate(data[:2]) if isinstance(data, list) else ()
    return [place for key, value in items for place in ((*path, key), *_places(value, (*path, key)))]


def _changed(data: dict[str, Any], place: tuple[str | int, ...], value: object) -> dict[str, Any]:
    copied = copy.deepcopy(data)
    target: Any = copied
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = value
    return copied


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_value_of_another_type_is_refused_wherever_it_stands(path: Path) -> None:
    data = stored(path)
    del data["nodes"][12:], data["learned"][12:]
    for place in _places(data):
        assert errors(_changed(data, place, {"another": "type"})), place


@pytest.mark.parametrize(
    "change",
    [
        {"semantics_version": 0}, {"semantics_version": SEMANTICS_VERSION + 1}, {"digest": "A" * 64}, {"nodes": []},
        {"outputs": []}, {"extra": 1}, {"nodes": [{"operation": "launch", "operands": [], "settings": {}}]},
        {"nodes": [{"operation": "is_null", "operands": [-1], "settings": {}}]},
        {"learned": [{"value": "text", "x": 1}]},
    ],
)  # fmt: skip
def test_what_no_transform_can_be_is_refused(change: dict[str, Any]) -> None:
    assert errors({**stored(STORED[0]), **change})


def test_a_missing_field_is_refused() -> None:
    for name in stored(STORED[0]):
        data = stored(STORED[0])
        del data[name]
        assert errors(data), name


def test_a_transform_has_the_lowest_version_that_knows_its_operations() -> None:
    assert version_of(["clip", "column"]) == 1
    assert version_of(["clip", "column", "clip_quantiles"]) == 2
