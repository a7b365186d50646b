"""The published JSON Schema of a route: current, true of every route, and as strict as the loader."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from harness.routes import routes
from skewless.canonical_json import digest, encode
from skewless.errors import InvalidDefinition
from skewless.rollout.routes import Arm, Canary, Experiment, ExperimentKind, Route, Shadow
from skewless.rollout.schema import route_schema

PUBLISHED = Path(__file__).parents[2] / "docs" / "schemas" / "route-1.json"
VALIDATOR = Draft202012Validator(route_schema())
A, B, C, D = (digest(name) for name in "abcd")
ARMS = (Arm("control", A, 0.5), Arm("other", B, 0.5))
FULL = Route(
    "flights",
    "",
    A,
    B,
    Canary(C, 0.1),
    Shadow(D),
    Experiment("one", ExperimentKind.BANDIT, ARMS, 0.5, "yes", exploration_min=0.1),
).to_json()


def test_the_published_schema_is_current() -> None:
    text = json.dumps(route_schema(), indent=2, ensure_ascii=False) + "\n"
    assert PUBLISHED.read_text() == text, "write it again from skewless.rollout.schema.route_schema()"


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(route_schema())


@settings(deadline=None)
@given(routes())
def test_every_route_is_a_document_of_the_schema(route: Route) -> None:
    VALIDATOR.validate(json.loads(encode(route.to_json())))


def test_the_schema_names_every_field() -> None:
    schema = route_schema()
    assert set(schema["properties"]) == set(FULL)
    for part in ("canary", "shadow", "experiment"):
        assert set(schema["properties"][part]["oneOf"][0]["properties"]) == set(FULL[part])


def test_what_may_be_left_out_is_the_same_for_both() -> None:
    experiment = Experiment("one", ExperimentKind.AB, ARMS, 0.5, "yes")
    full = {**FULL, "experiment": experiment.to_json()}
    for document in places(full):
        without = json.loads(json.dumps(full))
        if isinstance(document[-1], str):
            del at(without, document[:-1])[document[-1]]
        assert VALIDATOR.is_valid(without) == loads(without), document


@pytest.mark.parametrize("wrong", [None, "", "A b", 7, -1, 0.5, 2.0, True, [], {}, [7], {"a": 1}, "x" * 300], ids=str)
def test_what_the_schema_refuses_does_not_load(wrong: object) -> None:
    for document in places(FULL):
        changed = json.loads(json.dumps(FULL))
        at(changed, document[:-1])[document[-1]] = wrong
        if loads(changed):
            assert VALIDATOR.is_valid(changed), document


def test_an_unknown_field_is_refused_by_both_wherever_it_is() -> None:
    for document in [(), ("canary",), ("shadow",), ("experiment",), ("experiment", "arms", 0)]:
        changed = json.loads(json.dumps(FULL))
        at(changed, document)["unknown"] = 1
        assert not VALIDATOR.is_valid(changed)
        assert not loads(changed)


def places(data: object, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a document."""
    inside: list[tuple[Any, ...]] = []
    listed = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in listed:
        inside += [(*before, key), *places(value, (*before, key))]
    return inside


def at(data: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        data = data[key]
    return data


def loads(data: object) -> bool:
    try:
        Route.from_json(data)
    except InvalidDefinition:
        return False
    return True
