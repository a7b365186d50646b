"""Whatever the JSON of a stored transform is: it loads as what it says, or is refused. Nothing else ever happens."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.examples import examples
from skewless import canonical_json
from skewless.bundles.golden import GoldenVectors
from skewless.dtypes import Dtype, column_of
from skewless.errors import InvalidDefinition
from skewless.transforms import FittedTransform, Transform
from skewless.transforms.stored_form import parse

STORED = sorted((Path(__file__).parent / "stored_transforms").glob("*.json"))
EXAMPLES: list[dict[str, Any]] = [json.loads(path.read_text()) for path in STORED]
ROWS = [GoldenVectors.from_json(each["golden"]).columns for each in EXAMPLES]
NODES = [len(each["transform"]["nodes"]) for each in EXAMPLES]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.integers(-3, 60) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["column", "constant", "clip", "one_hot", "value", "settings", "float64", "string", "UTC", "oov"])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


def _containers(data: Any) -> list[Any]:
    found = [data]
    for container in found:
        values = container.values() if isinstance(container, dict) else container
        found.extend(value for value in values if isinstance(value, dict | list) and value)
    return found


def mutated(draw: st.DrawFn, data: dict[str, Any]) -> dict[str, Any]:
    """The data with one to three places changed, removed, doubled or exchanged."""
    copied = copy.deepcopy(data)
    for _ in range(draw(st.integers(1, 3))):
        containers = _containers(copied)
        container = containers[draw(st.integers(0, len(containers) - 1))]
        keys = list(container) if isinstance(container, dict) else list(range(len(container)))
        if not keys:
            continue
        key = draw(st.sampled_from(keys))
        how = draw(st.sampled_from(["set", "remove", "double", "exchange"]))
        if how == "set":
            container[key] = draw(VALUES)
        elif how == "remove":
            del container[key]
        elif how == "double" and isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        else:
            other = draw(st.sampled_from(keys))
            container[key], container[other] = container[other], container[key]
    return copied


@st.composite
def mutations(draw: st.DrawFn) -> tuple[int, dict[str, Any]]:
    which = draw(st.integers(0, len(EXAMPLES) - 1))
    return which, mutated(draw, EXAMPLES[which]["transform"])


def signed(data: dict[str, Any]) -> dict[str, Any]:
    """The data with the digest that it has now: someone who can compute SHA-256 changed it."""
    content = {name: value for name, value in data.items() if name != "digest"}
    return {**content, "digest": canonical_json.digest(content)}


@settings(max_examples=examples(250), deadline=None)
@given(mutations())
def test_a_mutation_is_refused_or_changes_nothing(change: tuple[int, dict[str, Any]]) -> None:
    which, data = change
    try:
        loaded = FittedTransform.from_json(data)
    except InvalidDefinition:
        return
    assert loaded.to_json() == EXAMPLES[which]["transform"]


@settings(max_examples=examples(250), deadline=None)
@given(mutations())
def test_a_mutation_with_a_digest_of_its_own_is_refused_or_runs(change: tuple[int, dict[str, Any]]) -> None:
    which, data = change
    try:
        loaded = FittedTransform.from_json(signed(data))
        columns = ROWS[which]
        rows = len(next(iter(columns.values())))
        tensor = loaded.prepare().apply(columns, rows)
    except InvalidDefinition:
        return
    assert tensor.shape == (rows, len(loaded.output_names))
    assert FittedTransform.from_json(loaded.to_json()) == loaded


@settings(max_examples=examples(150), deadline=None)
@given(data=st.binary(max_size=40), at=st.integers(0, 20_000), which=st.integers(0, len(EXAMPLES) - 1))
@example(data=b'{"a": 1, "a": 2}', at=0, which=0)
def test_any_bytes_are_refused_or_change_nothing(data: bytes, at: int, which: int) -> None:
    text = canonical_json.encode(EXAMPLES[which]["transform"])
    try:
        loaded = FittedTransform.from_bytes(text[:at] + data + text[at + len(data) :])
    except InvalidDefinition:
        return
    assert loaded.to_json() == EXAMPLES[which]["transform"]


@settings(max_examples=examples(150), deadline=None)
@given(VALUES)
def test_any_json_is_refused(value: Any) -> None:
    for read in (FittedTransform.from_json, Transform.from_json):
        with pytest.raises(InvalidDefinition):
            read(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b'{"a": 1, "a": 2}', "the field 'a' is there twice"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": -Infinity}', "-Infinity is no JSON number"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a": ' + b"1" * 5_000 + b"}", "is not JSON"),
    ],
    ids=["nothing", "not UTF-8", "twice", "nan", "infinity", "deep", "long number"],
)
def test_text_that_is_not_the_json_of_a_transform_says_why(text: bytes, said: str) -> None:
    with pytest.raises(InvalidDefinition, match=said):
        parse(text)


@pytest.mark.parametrize(
    ("place", "value", "path"),
    [
        (("nodes", 1, "settings", "low"), "x", r"\$\.nodes\[1\]\.settings\.low: "),
        (("nodes", 1, "settings", "low"), 10**400, r"\$\.nodes\[1\]\.settings\.low: "),
        (("nodes", 1, "settings"), [], r"\$\.nodes\[1\]\.settings: "),
        (("nodes", 1, "operands"), [True], r"\$\.nodes\[1\]\.operands: "),
        (("nodes", 1, "operation"), ["clip"], r"\$\.nodes\[1\]\.operation: "),
        (("nodes", 1), None, r"\$\.nodes\[1\]: "),
        (("outputs", 2, "name"), "", r"\$\.outputs\[2\]\.name: "),
        (("outputs", 2, "node"), True, r"\$\.outputs\[2\]\.node: "),
        (("learned", 2), 5, r"\$\.learned\[2\]: "),
        (("learned", 2, "value"), None, r"\$\.learned\[2\]\.value: "),
        (("learned",), {}, r"\$\.learned: "),
        (("digest",), 1, r"\$\.digest: "),
        (("semantics_version",), 99, r"\$\.semantics_version: "),
    ],
)
def test_an_error_says_the_path_of_the_place(place: tuple[str | int, ...], value: object, path: str) -> None:
    data = copy.deepcopy(EXAMPLES[0]["transform"])
    target = data
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = value
    with pytest.raises(InvalidDefinition, match=path):
        FittedTransform.from_json(data)


def test_a_stored_step_imports_and_runs_nothing() -> None:
    module = "this"  # a module of the standard library that prints when it is imported
    assert module not in sys.modules
    column = {"operation": "column", "operands": [], "settings": {"dtype": "float64", "name": "x", "nullable": False}}
    step = {
        "operation": "python",
        "operands": [0],
        "settings": {
            "package": "pip", "version": "1", "function": f"{module}:print", "source_sha256": "0" * 64,
            "operands": ["number"], "outputs": None,
        },
    }  # fmt: skip
    nodes = [column, step, {"operation": "impute", "operands": [1], "settings": {"value": 0.0}}]
    data = {
        "semantics_version": 2,
        "nodes": nodes,
        "outputs": [{"name": "out", "node": 2}],
        "learned": [None, {"rows_checked": 0}, None],
    }
    loaded = FittedTransform.from_json(signed(data))
    assert loaded.output_names == ("out",)
    with pytest.raises(InvalidDefinition, match="was read without what it runs"):
        loaded.prepare().apply({"x": column_of(Dtype.FLOAT64, [1.0])}, 1)
    assert module not in sys.modules


def test_a_graph_as_deep_as_a_file_allows_loads() -> None:
    column = {"operation": "column", "operands": [], "settings": {"dtype": "float64", "name": "x", "nullable": False}}
    deep = [
        {"operation": "clip", "operands": [index], "settings": {"low": 0.0, "high": None}} for index in range(3_000)
    ]
    data = {
        "semantics_version": 1,
        "nodes": [column, *deep],
        "outputs": [{"name": "out", "node": 3_000}],
        "learned": [None] * 3_001,
    }
    assert FittedTransform.from_json(signed(data)).output_names == ("out",)
