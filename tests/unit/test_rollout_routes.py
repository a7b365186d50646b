"""Routes and their table: what a route may be, and that a gateway's local copy reads back as it was written."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.routes import routes
from skewless.canonical_json import digest, encode
from skewless.errors import InvalidDefinition, NotFound
from skewless.rollout.routes import (
    Arm,
    Canary,
    Experiment,
    ExperimentKind,
    Route,
    RoutingTable,
    Shadow,
    check_endpoint_name,
)

A, B, C, D = (digest(name) for name in "abcd")
CONTROL, OTHER = Arm("control", A, 0.5), Arm("other", B, 0.5)


def experiment(**changed: Any) -> Experiment:
    given_fields = {
        "name": "one",
        "kind": ExperimentKind.AB,
        "arms": (CONTROL, OTHER),
        "traffic": 0.5,
        "success": "yes",
    }
    return Experiment(**{**given_fields, **changed})


def bandit(**changed: Any) -> Experiment:
    return experiment(**{"kind": ExperimentKind.BANDIT, "exploration_min": 0.1, **changed})


@settings(deadline=None)
@given(st.lists(routes(), unique_by=lambda route: route.endpoint, max_size=5))
def test_a_table_read_back_from_its_json_is_equal(given_routes: list[Route]) -> None:
    table = RoutingTable(tuple(given_routes))
    assert RoutingTable.from_json(json.loads(encode(table.to_json()))) == table


def test_a_route_may_leave_out_what_has_a_default() -> None:
    assert Route.from_json({"endpoint": "one", "description": "", "live": A}) == Route("one", "", A)
    shadowed = {"endpoint": "one", "description": "", "live": A, "shadow": {"bundle": B}}
    assert Route.from_json(shadowed) == Route("one", "", A, shadow=Shadow(B, 1.0))


def test_equal_tables_do_not_depend_on_the_order_of_routes() -> None:
    one, two = Route("one", "", A), Route("two", "", B)
    assert RoutingTable((one, two)) == RoutingTable((two, one))


def test_a_table_names_every_bundle_of_every_role_and_the_one_of_a_rollback() -> None:
    everything = Route("one", "", A, previous=B, canary=Canary(C, 0.1), shadow=Shadow(D), experiment=experiment())
    assert everything.bundles() == {A, B, C, D}
    armed = Route("one", "", C, experiment=experiment())
    assert armed.bundles() == {A, B, C}
    assert RoutingTable((everything, Route("two", "", digest("e")))).bundles() == {A, B, C, D, digest("e")}
    assert RoutingTable().bundles() == frozenset()


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
def test_a_share_outside_zero_to_one_is_refused_wherever_it_is(share: float) -> None:
    for refused in (
        lambda: Canary(B, share),
        lambda: Shadow(B, share),
        lambda: Arm("other", B, share),
        lambda: experiment(traffic=share),
    ):
        with pytest.raises(InvalidDefinition, match="allowed: 0 to 1"):
            refused()


@pytest.mark.parametrize("bundle", ["", "abc", "A" * 64, "g" * 64, f"{A}0"])
def test_a_bundle_that_is_no_digest_is_refused_in_every_role(bundle: str) -> None:
    for roles in (
        {"live": bundle},
        {"previous": bundle},
        {"canary": {"bundle": bundle, "share": 0.1}},
        {"shadow": {"bundle": bundle}},
        {"experiment": {**experiment().to_json(), "arms": [{"name": "a", "bundle": bundle, "share": 1.0}]}},
    ):
        with pytest.raises(InvalidDefinition, match="64 lower-case hexadecimal digits"):
            Route.from_json({**Route("one", "", A).to_json(), **roles})


@pytest.mark.parametrize("part", [{"previous": A}, {"canary": Canary(A, 0.1)}, {"shadow": Shadow(A)}])
def test_the_live_bundle_is_neither_previous_nor_canary_nor_shadow(part: dict[str, Any]) -> None:
    with pytest.raises(InvalidDefinition, match="is the live one"):
        Route("one", "", A, **part)


def test_an_arm_may_be_the_live_bundle_and_two_arms_the_same_one() -> None:
    same = experiment(arms=(CONTROL, Arm("again", A, 0.5)))
    assert Route("one", "", A, experiment=same).bundles() == {A}


def test_canary_and_experiment_share_the_traffic() -> None:
    Route("one", "", A, canary=Canary(C, 0.5), experiment=experiment(traffic=0.5))
    with pytest.raises(InvalidDefinition, match="more than all of it"):
        Route("one", "", A, canary=Canary(C, 0.51), experiment=experiment(traffic=0.5))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"arms": (Arm("only", A, 1.0),)}, "has 1 arms; allowed: 2 to 8"),
        ({"arms": tuple(Arm(f"a{each}", A, 1 / 9) for each in range(9))}, "has 9 arms; allowed: 2 to 8"),
        ({"arms": (CONTROL, CONTROL)}, "names an arm twice: control, control"),
        ({"arms": (CONTROL, Arm("other", B, 0.4))}, "shares sum to 0.9; allowed: 1"),
        ({"name": "A b"}, "cannot name an experiment"),
        ({"success": ""}, "the success label has 0 characters"),
        ({"salt": "x" * 201}, "the salt has 201 characters; allowed: 0 to 200"),
        ({"exploration_min": 0.1}, "only a bandit has one"),
        ({"half_life_s": 60.0}, "`half_life_s` is 60.0; only a bandit has one"),
        ({"kind": ExperimentKind.BANDIT, "exploration_min": 0.1, "half_life_s": 0.0}, "`half_life_s` is 0.0; allowed"),
        ({"kind": ExperimentKind.BANDIT}, "`exploration_min` is 0.0; allowed for 2 arms: above 0 and up to 0.5"),
        ({"kind": ExperimentKind.BANDIT, "exploration_min": 0.6}, "allowed for 2 arms"),
        ({"layout": ((0, 10_000),)}, "the layout does not give each arm its share"),
        ({"layout": ((0, 5_000), (2, 5_000))}, "the layout does not give each arm its share"),
        ({"layout": ((0, 5_000), (1, 5_001), (0, -1))}, "the layout does not give each arm its share"),
    ],
)
def test_an_experiment_that_breaks_a_rule_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidDefinition, match=said.replace("(", r"\(")):
        experiment(**changed)


def test_no_arm_of_a_bandit_is_below_its_least_share() -> None:
    bandit(arms=(Arm("control", A, 0.9), Arm("other", B, 0.1)))
    with pytest.raises(InvalidDefinition, match=r"arm `other` has 0\.05; allowed: 0\.1 or more"):
        bandit(arms=(Arm("control", A, 0.95), Arm("other", B, 0.05)))


def test_shares_that_sum_to_one_but_for_rounding_are_taken() -> None:
    thirds = tuple(Arm(name, A, 1 / 3) for name in ("a", "b", "c"))
    assert sum(count for _, count in experiment(arms=thirds).layout) == 10_000


def test_an_unknown_arm_is_not_found_and_the_known_ones_are_named() -> None:
    assert experiment().arm("other") is OTHER
    with pytest.raises(NotFound, match=r"arm `third` does not exist. Known: `control`, `other`"):
        experiment().arm("third")


@pytest.mark.parametrize("sticky_by", [("user", "user"), ("",)])
def test_sticky_keys_are_named_once_each(sticky_by: tuple[str, ...]) -> None:
    with pytest.raises(InvalidDefinition, match="each once"):
        Route("one", "", A, sticky_by=sticky_by)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": 0}, "versions count from 1"),
        ({"version": True}, r"\$.version is True; allowed: an integer"),
        ({"version": None}, r"\$.version is None; allowed: an integer"),
        ({"live": None}, r"\$.live is None; allowed: text"),
        ({"canary": {"bundle": B}}, r"\$.canary.share is missing; allowed: a number"),
        ({"canary": {"bundle": B, "share": "much"}}, r"\$.canary.share is 'much'; allowed: a number"),
        ({"canary": {"bundle": B, "share": True}}, r"\$.canary.share is True; allowed: a number"),
        ({"canary": B}, r"\$.canary is '.*'; allowed: an object"),
        ({"canery": None}, r"\$ has no field 'canery'. Fields: endpoint, description, live"),
        ({"sticky_by": [7]}, r"\$.sticky_by\[0\] is 7; allowed: text"),
        ({"experiment": {**experiment().to_json(), "kind": "abc"}}, r"kind is 'abc'; allowed: ab, bandit"),
        ({"experiment": {**experiment().to_json(), "arms": [7, 8]}}, r"arms\[0\] is int; allowed: an object"),
        ({"experiment": {**experiment().to_json(), "layout": [[0]]}}, r"layout\[0\] is \[0\]"),
        ({"experiment": {**experiment().to_json(), "layout": [[True, 1]]}}, r"layout\[0\] is \[True, 1\]"),
    ],
)
def test_data_that_is_no_route_is_refused_with_the_place(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidDefinition, match=said):
        Route.from_json({**Route("one", "", A).to_json(), **changed})


@pytest.mark.parametrize(
    "data", [None, [], {}, {"format": 1, "routes": []}, {"format": 2}, {"format": 2, "routes": {}},
             {"format": 2, "routes": [7]}, {"format": 2, "routes": [{"endpoint": "one"}]}],
)  # fmt: skip
def test_data_that_is_no_routing_table_is_refused(data: object) -> None:
    with pytest.raises(InvalidDefinition):
        RoutingTable.from_json(data)
