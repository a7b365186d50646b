"""Stored transforms: what is written can be read, and anything else is refused."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skewless import canonical_json
from skewless.bundles.golden import GoldenVectors, check_same_bits
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidDefinition
from skewless.transforms import FittedTransform, Transform, column, where

STORED = sorted((Path(__file__).parent / "stored_transforms").glob("*.json"))
NUMBER = column("number", Dtype.FLOAT32)
WORD = column("word", Dtype.STRING)
MOMENT = column("moment", Dtype.TIMESTAMP, nullable=False)
COLUMNS = {
    "number": column_of(Dtype.FLOAT32, [1.0, None, 2.5, -3.0]),
    "word": column_of(Dtype.STRING, ["a", "b", None, "a"]),
    "moment": column_of(Dtype.TIMESTAMP, [0, 1, 2, 1_362_900_000_000_000]),
}


def declared() -> Transform:
    filled = NUMBER.clean(-100, 100).impute_median()
    return Transform(
        {
            "filled": filled.standardise(),
            "sign": where(filled > 0, 1, -1),
            "word": WORD.lower().one_hot(top_k=2),
            "place": WORD.index(top_k=5),
            "same": (WORD == "a").impute(0.0),
            "hour": MOMENT.hour("UTC").cyclical(24),
            "share": (1 / NUMBER).impute(0.0).bucket([0.0, 0.5]),
        }
    )


def fitted() -> FittedTransform:
    return declared().fit(COLUMNS, 4)


def test_what_was_written_is_read_back_equal_and_computes_the_same_bytes() -> None:
    original = fitted()
    read = FittedTransform.from_json(json.loads(canonical_json.encode(original.to_json())))
    assert read == original
    assert read.output_names == original.output_names
    assert read.inputs == original.inputs
    assert read.prepare().apply(COLUMNS, 4).tobytes() == original.prepare().apply(COLUMNS, 4).tobytes()
    assert Transform.from_json(json.loads(canonical_json.encode(declared().to_json()))) == declared()


def test_the_digest_of_a_known_transform_has_not_changed() -> None:
    """It changes with what a stored transform looks like: then, and only then, with SEMANTICS_VERSION or a reason."""
    assert fitted().digest == "9808bf84f87054df5e8efd146cb5c12aedd8e2cd0e9f3f357401d07c74ead1c7"


def test_the_numbers_of_a_known_transform_have_not_changed() -> None:
    tensor = fitted().prepare().apply(COLUMNS, 4)
    filled = np.array([1.0, 1.0, 2.5, -3.0])
    expected = (filled - filled.mean()) / filled.std()
    assert tensor[:, 0].tolist() == pytest.approx(expected.tolist())
    assert tensor[:, 1].tolist() == [1.0, 1.0, 1.0, -1.0]
    assert tensor[:, 9].tolist() == [2.0, 1.0, 1.0, 0.0]
    assert tensor[:, 2:7].tolist() == [[1, 0, 0, 0, 1], [0, 1, 0, 1, 0], [0, 0, 0, -2, 0], [1, 0, 0, 0, 1]]


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_transform_of_every_version_loads_and_computes_the_same_bytes_for_ever(path: Path) -> None:
    """Each file was written by the first Skewless that had its version. Add files; never change one."""
    example = json.loads(path.read_text())
    stored = FittedTransform.from_json(example["transform"])
    golden = GoldenVectors.from_json(example["golden"])
    assert stored.to_json() == example["transform"]
    assert f"version-{example['transform']['semantics_version']}" == path.stem
    prepared = stored.prepare()
    check_same_bits(golden.tensor, prepared.apply(golden.columns, golden.rows), what=path.stem)
    for row in range(golden.rows):
        alone = {
            name: Column(each.dtype, each.values[row : row + 1], each.valid[row : row + 1])
            for name, each in golden.columns.items()
        }
        check_same_bits(golden.tensor[row : row + 1], prepared.apply(alone, 1), what=f"{path.stem}, row {row} alone")


def test_adding_operations_changes_no_digest_of_a_transform_without_them() -> None:
    assert declared().to_json()["semantics_version"] == 1
    newer = Transform({"out": NUMBER.clip_quantiles(0.1, 0.9).impute(0.0)})
    assert newer.to_json()["semantics_version"] == 2
    assert Transform.from_json(newer.to_json()) == newer
    pretended = {**newer.to_json(), "semantics_version": 1}
    with pytest.raises(InvalidDefinition, match="the operations used are of version 2"):
        Transform.from_json(pretended)


def _set(path: list[str | int], value: object) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        target: Any = data
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value

    return change


def _learned(data: dict[str, Any], operation: str) -> dict[str, Any]:
    at = [node["operation"] for node in data["nodes"]].index(operation)
    entry: dict[str, Any] = data["learned"][at]
    return entry


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_set(["semantics_version"], 2), "semantics version 2"),
        (_set(["semantics_version"], True), "semantics version True"),
        (_set(["semantics_version"], 99), "this version of Skewless computes 1 to 2"),
        (_set(["digest"], "0" * 64), "states the digest"),
        (_set(["outputs", 0, "name"], "renamed"), "states the digest"),
        (_set(["nodes", 1, "settings", "low"], -50.0), "states the digest"),
        (_set(["nodes", 1, "settings", "low"], "x"), "must be a finite number"),
        (_set(["nodes", 1, "settings", "lower"], 1.0), "$.nodes[1].settings: `clean` must have the settings"),
        (_set(["nodes", 1, "operation"], "launch"), "operation 'launch', which this version does not have"),
        (_set(["nodes", 1, "operands"], [5]), "earlier nodes"),
        (_set(["nodes", 1, "operands"], []), "takes 1 operands, got 0"),
        (_set(["nodes", 1, "note"], "hello"), "$.nodes[1]: must be an object with the fields"),
        (_set(["nodes", 0], {"operation": "column"}), "$.nodes[0]: must be an object"),
        (_set(["nodes"], 3), "$.nodes: must be a list"),
        (_set(["outputs", 0, "node"], 999), "$.outputs[0].node: must be the index"),
        (_set(["outputs", 0, "node"], 1), "can be null"),
        (_set(["learned"], []), "one `learned` entry for each"),
        (_set(["learned", 0], {"value": 1.0}), "$.learned[0]: `column` learns nothing"),
        (lambda data: data.pop("learned"), "must have the fields"),
        (lambda data: data.update(extra=1), "must have the fields"),
        (lambda data: data["outputs"].pop(), "unused"),
        (lambda data: _learned(data, "standardise").update(scale=0.0), "must be above 0"),
        (lambda data: _learned(data, "standardise").update(scale=2.0), "states the digest"),
        (lambda data: _learned(data, "standardise").pop("scale"), "must have ['offset', 'scale']"),
        (lambda data: _learned(data, "index").update(vocabulary=["a", "a"]), "differ from one another"),
        (lambda data: _learned(data, "local_time").update(offsets=[]), "one more than transitions"),
    ],
)
def test_a_changed_transform_is_refused(change: Callable[[dict[str, Any]], None], said: str) -> None:
    data = copy.deepcopy(fitted().to_json())
    change(data)
    with pytest.raises(InvalidDefinition) as caught:
        FittedTransform.from_json(data)
    assert said in caught.value.message


@pytest.mark.parametrize("data", [None, [], "text", {}])
def test_something_else_is_refused(data: Any) -> None:
    for read in (FittedTransform.from_json, Transform.from_json):
        with pytest.raises(InvalidDefinition, match="must have the fields"):
            read(data)


@pytest.mark.parametrize(
    ("name", "replacement", "said"),
    [
        ("number", None, "column `number` is missing"),
        ("number", column_of(Dtype.FLOAT64, [1.0] * 4), "column `number` is float64"),
        ("number", Column(Dtype.FLOAT32, np.zeros(4), np.ones(4, dtype=np.bool_)), "in an array of float64"),
        ("number", column_of(Dtype.FLOAT32, [1.0] * 3), "shape (3,)"),
        ("number", Column(Dtype.FLOAT32, np.zeros(4, np.float32), np.ones(3, dtype=np.bool_)), "both must be (4,)"),
        ("moment", column_of(Dtype.TIMESTAMP, [0, 1, None, 3]), "column `moment` is null in row 2"),
    ],
)
def test_columns_that_do_not_fit_are_refused_by_name(name: str, replacement: Column | None, said: str) -> None:
    columns = dict(COLUMNS)
    if replacement is None:
        del columns[name]
    else:
        columns[name] = replacement
    for use in (fitted().prepare().apply, declared().fit):
        with pytest.raises(InvalidDefinition) as caught:
            use(columns, 4)
        assert said in caught.value.message


def test_columns_that_are_not_read_are_ignored_and_none_is_written_to() -> None:
    before = {name: (each.values.copy(), each.valid.copy()) for name, each in COLUMNS.items()}
    tensor = fitted().prepare().apply({**COLUMNS, "other": column_of(Dtype.BOOL, [])}, 4)
    assert tensor.shape == (4, len(fitted().output_names))
    for name, (values, valid) in before.items():
        assert np.array_equal(COLUMNS[name].values, values)
        assert np.array_equal(COLUMNS[name].valid, valid)
