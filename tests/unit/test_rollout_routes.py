"""The routing table: what a route may be, and that a gateway's local copy reads back as it was written."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skewless.canonical_json import Digest, digest, encode
from skewless.errors import InvalidDefinition, NotFound
from skewless.rollout.routes import Route, RoutingTable, check_endpoint_name

A, B, C = (digest(name) for name in "abc")

digests = st.integers(0, 2**256 - 1).map(lambda number: Digest(f"{number:064x}"))
names = st.text("abz", min_size=1, max_size=8)
descriptions = st.text(' aZ0"\\\n\x00é→😀', max_size=8)


@st.composite
def routes(draw: st.DrawFn) -> Route:
    canary = draw(st.none() | digests)
    share = draw(st.floats(0, 1)) if canary is not None else 0.0
    shadow = draw(st.none() | digests)
    return Route(draw(names), draw(descriptions), draw(digests), canary, share, shadow, draw(st.integers(1)))


@settings(deadline=None)
@given(st.lists(routes(), unique_by=lambda route: route.endpoint, max_size=5))
def test_a_table_read_back_from_its_json_is_equal(given_routes: list[Route]) -> None:
    table = RoutingTable(tuple(given_routes))
    assert RoutingTable.from_json(json.loads(encode(table.to_json()))) == table


def test_equal_tables_do_not_depend_on_the_order_of_routes() -> None:
    one, two = Route("one", "", A), Route("two", "", B)
    assert RoutingTable((one, two)) == RoutingTable((two, one))


def test_a_table_names_every_bundle_of_every_role() -> None:
    table = RoutingTable((Route("one", "", A, canary=B, canary_share=0.1), Route("two", "", A, shadow=C)))
    assert table.bundles() == {A, B, C}


def test_an_unknown_endpoint_is_not_found_and_the_known_ones_are_named() -> None:
    table = RoutingTable((Route("flight-delay", "", A),))
    assert table.route("flight-delay").live == A
    with pytest.raises(NotFound, match=r"`flights` does not exist. Known: `flight-delay`"):
        table.route("flights")


def test_an_endpoint_with_two_routes_is_refused() -> None:
    with pytest.raises(InvalidDefinition, match="more than one route: one"):
        RoutingTable((Route("one", "", A), Route("one", "", B)))


@pytest.mark.parametrize("name", ["a", "flight-delay", "v2", "a" * 63])
def test_an_endpoint_name_of_the_allowed_form_is_taken(name: str) -> None:
    check_endpoint_name(name)


@pytest.mark.parametrize(
    "name", ["", "Flight", "2fast", "-a", "a-", "a_b", "a/b", "a.b", "a b", "é", "a" * 64, "a\n", None, 7]
)
def test_an_endpoint_name_outside_the_allowed_form_is_refused(name: object) -> None:
    with pytest.raises(InvalidDefinition, match=r"cannot name an endpoint\. Allowed: 1 to 63"):
        check_endpoint_name(name)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_canary_share_outside_zero_to_one_is_refused(share: float) -> None:
    with pytest.raises(InvalidDefinition, match="0 to 1"):
        Route("one", "", A, canary=B, canary_share=share)


def test_a_share_without_a_canary_is_refused() -> None:
    with pytest.raises(InvalidDefinition, match="there is none"):
        Route("one", "", A, canary_share=0.5)


@pytest.mark.parametrize("bundle", ["", "abc", "A" * 64, "g" * 64, f"{A}0"])
def test_a_bundle_that_is_no_digest_is_refused_in_every_role(bundle: str) -> None:
    for roles in ({"live": bundle}, {"live": A, "canary": bundle}, {"live": A, "shadow": bundle}):
        with pytest.raises(InvalidDefinition, match="64 lower-case hexadecimal digits"):
            Route.from_json({**Route("one", "", A).to_json(), **roles})


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"format": 2, "routes": []},
        {"format": 1},
        {"format": 1, "routes": {}},
        {"format": 1, "routes": [7]},
        {"format": 1, "routes": [{"endpoint": "one"}]},
        {"format": 1, "routes": [{**Route("one", "", A).to_json(), "version": 0}]},
        {"format": 1, "routes": [{**Route("one", "", A).to_json(), "canary_share": "much"}]},
    ],
)
def test_data_that_is_no_routing_table_is_refused(data: object) -> None:
    with pytest.raises(InvalidDefinition):
        RoutingTable.from_json(data)
