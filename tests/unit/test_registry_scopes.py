"""What an API key's scope allows."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.errors import InvalidDefinition
from skewless.registry.api_scopes import PREFIXES_MAX, ApiRate, ApiScope


@pytest.mark.parametrize(
    ("entity", "allowed"),
    [
        ({"tailnum": "N14228"}, True),
        ({"tailnum": "N1"}, True),
        ({"tailnum": "N"}, False),
        ({"tailnum": "n14228"}, False),
        ({"tailnum": ""}, False),
        ({"tailnum": None}, False),
        ({}, False),
        ({"tailnum": "N2x", "origin": "JFK"}, True),
    ],
)
def test_an_entity_is_allowed_by_a_prefix_of_every_named_join_key(entity: dict[str, object], allowed: bool) -> None:
    assert ApiScope(("one",), {"tailnum": ("N1", "N2")}).allows("one", entity) is allowed


def test_every_named_join_key_must_fit() -> None:
    scope = ApiScope(("one",), {"a": ("x",), "b": ("1",)})
    assert scope.allows("one", {"a": "xy", "b": 12})
    assert not scope.allows("one", {"a": "xy", "b": 21})
    assert not scope.allows("one", {"a": "xy"})


def test_endpoints_are_names_or_all() -> None:
    assert ApiScope(("*",)).allows("anything", {})
    assert ApiScope(("one", "two")).covers("two")
    assert not ApiScope(("one", "two")).covers("three")


@pytest.mark.parametrize(
    ("endpoints", "entities"),
    [
        ((), {}),
        (("One",), {}),
        (("one", "*"), {}),
        (("one",), {"key": ()}),
        (("one",), {"key": ("",)}),
        (("one",), {"key": ("x",) * (PREFIXES_MAX + 1)}),
    ],
)
def test_a_scope_that_allows_nothing_or_means_something_else_is_refused(
    endpoints: tuple[str, ...], entities: dict[str, tuple[str, ...]]
) -> None:
    with pytest.raises(InvalidDefinition):
        ApiScope(endpoints, entities)


@given(
    st.lists(st.from_regex("[a-z][a-z0-9]{0,9}", fullmatch=True), min_size=1, max_size=4, unique=True),
    st.dictionaries(st.text(max_size=5), st.lists(st.text(min_size=1), min_size=1, max_size=3), max_size=3),
)
def test_a_scope_survives_its_own_json(endpoints: list[str], entities: dict[str, list[str]]) -> None:
    scope = ApiScope(tuple(endpoints), {key: tuple(prefixes) for key, prefixes in entities.items()})
    assert ApiScope.from_json(scope.to_json()) == scope


@pytest.mark.parametrize("data", [{}, {"endpoints": ["one"]}, {"endpoints": None, "entities": {}}, {"entities": []}])
def test_data_that_is_no_scope_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(InvalidDefinition):
        ApiScope.from_json(data)


@pytest.mark.parametrize(
    ("per_s", "burst"),
    [(0.0, 1), (-1.0, 1), (float("inf"), 1), (float("nan"), 1), (1e9, 1), (1.0, 0), (1.0, -1), (1.0, 10**9)],
)
def test_a_rate_that_never_allows_or_never_refuses_is_refused(per_s: float, burst: int) -> None:
    with pytest.raises(InvalidDefinition):
        ApiRate(per_s, burst)


def test_a_rate_survives_its_own_json() -> None:
    assert ApiRate.from_json(ApiRate(0.25, 7).to_json()) == ApiRate(0.25, 7)
    odd: list[Any] = [{}, {"per_s": 1}, {"per_s": "x", "burst": 1}, {"per_s": None, "burst": 1}, []]
    for data in odd:
        with pytest.raises(InvalidDefinition):
            ApiRate.from_json(data)
