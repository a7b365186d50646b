"""Whether a bundle's feature definitions are still registered, and how the difference is told."""

from dataclasses import replace

import pytest

from harness.bundles import contract
from skewless.canonical_json import digest
from skewless.dtypes import Dtype
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import (
    Action,
    FeatureContract,
    FeatureField,
    JoinKey,
    Mode,
    OnDemandView,
    Policy,
    RequestField,
    ViewRead,
)
from skewless.features.contract_changes import ContractState, Definitions, compare_contract, contract_differences
from skewless.timestamps import HOUR_US

BUILT_FROM = contract()
WEATHER, AIRCRAFT, NOISE = BUILT_FROM.views


def _registry(*services: FeatureContract) -> CompiledRegistry:
    named = {f"service-{number}": service for number, service in enumerate(services)}
    return CompiledRegistry("demo", named, {"broken": "it has no answer"}, {})


def _registered(*views: ViewRead, on_demand: tuple[OnDemandView, ...] = ()) -> FeatureContract:
    """What the service says after somebody changed it."""
    return replace(BUILT_FROM, views=views, on_demand=on_demand, definitions_digest=digest("others"))


def _told(*views: ViewRead, on_demand: tuple[OnDemandView, ...] = ()) -> str:
    state = compare_contract(BUILT_FROM, _registry(_registered(*views, on_demand=on_demand)))
    assert state.definitions is Definitions.CHANGED
    return state.detail


def test_a_contract_is_current_while_some_service_has_its_definitions() -> None:
    # Its policies, nullable keys and request fields are the model's own, which the registry knows nothing of.
    policy = Policy(Action.DEFAULT, 1.5)
    weather = replace(WEATHER, features=(FeatureField("temp", Dtype.FLOAT32, on_stale=policy), *WEATHER.features[1:]))
    aircraft = replace(AIRCRAFT, join_keys=(replace(AIRCRAFT.join_keys[0], nullable=False),))
    registered = replace(BUILT_FROM, views=(weather, aircraft, NOISE), request_fields=())
    assert compare_contract(BUILT_FROM, _registry(_registered(WEATHER), registered)) == ContractState(
        Definitions.CURRENT
    )


def test_a_contract_that_states_registered_definitions_and_reads_others_was_changed() -> None:
    registered = replace(BUILT_FROM, views=(replace(WEATHER, ttl_us=HOUR_US), AIRCRAFT, NOISE))
    assert compare_contract(BUILT_FROM, _registry(registered)) == ContractState(
        Definitions.CHANGED,
        "it states the definitions of feature service `service-0` and reads others: "
        "ttl of view `weather` was 14400 s, is 3600 s",
    )


def test_without_a_snapshot_nothing_is_known_and_it_is_said_how_to_get_one() -> None:
    state = compare_contract(BUILT_FROM, None)
    assert state.definitions is Definitions.UNKNOWN
    assert "project `demo`" in state.detail
    assert "skewless apply" in state.detail


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ((replace(WEATHER, ttl_us=HOUR_US), AIRCRAFT, NOISE), "ttl of view `weather` was 14400 s, is 3600 s"),
        ((replace(WEATHER, ttl_us=0), AIRCRAFT, NOISE), "ttl of view `weather` was 14400 s, is unlimited"),
        ((WEATHER, AIRCRAFT), "view `noise` is gone"),
        ((WEATHER, AIRCRAFT, NOISE, replace(NOISE, alias="night")), "view `night` is new"),
        (
            (WEATHER, replace(AIRCRAFT, features=(FeatureField("seats", Dtype.INT32),)), NOISE),
            "feature `seats` of view `aircraft` was int64, is int32",
        ),
        (
            (WEATHER, AIRCRAFT, replace(NOISE, features=(FeatureField("loudness", Dtype.FLOAT32),))),
            "feature `level` of view `noise` is gone; feature `loudness` of view `noise` is new",
        ),
        (
            (WEATHER, AIRCRAFT, replace(NOISE, join_keys=(JoinKey("station", Dtype.STRING),))),
            "join keys of view `noise` were `station int64`, are `station string`",
        ),
        (
            (WEATHER, AIRCRAFT, replace(NOISE, stored_name="noise_v2")),
            "view `noise` was kept as `noise`, is kept as `noise_v2`",
        ),
        ((WEATHER, AIRCRAFT, NOISE), "they differ in what a contract does not hold, such as sources"),
    ],
)
def test_the_difference_is_told_in_words(changed: tuple[ViewRead, ...], told: str) -> None:
    assert _told(*changed) == f"feature service `service-0` is now another one: {told}"


def test_a_change_of_an_on_demand_view_is_a_difference() -> None:
    rounded = OnDemandView("rounded", Mode.PYTHON, "shop.computed:rounded", digest("a"), (), ())
    assert "on-demand view `rounded` is new" in _told(*BUILT_FROM.views, on_demand=(rounded,))
    built_from = replace(BUILT_FROM, on_demand=(rounded,))
    for changed, told in (
        (replace(rounded, source_digest=digest("b")), "is changed: its function has another source"),
        (replace(rounded, mode=Mode.PANDAS), "is changed: it has other inputs, features or another way to be called"),
    ):
        state = compare_contract(built_from, _registry(_registered(*BUILT_FROM.views, on_demand=(changed,))))
        assert f"on-demand view `rounded` {told}" in state.detail


def test_the_service_that_reads_most_of_the_same_views_says_what_differs() -> None:
    state = compare_contract(BUILT_FROM, _registry(_registered(NOISE), _registered(WEATHER, AIRCRAFT)))
    assert state.detail == "feature service `service-1` is now another one: view `noise` is gone"


@pytest.mark.parametrize("services", [(), (_registered(replace(NOISE, alias="night")),)])
def test_a_contract_whose_views_no_service_reads_is_changed(services: tuple[FeatureContract, ...]) -> None:
    state = compare_contract(BUILT_FROM, _registry(*services))
    assert state == ContractState(
        Definitions.CHANGED, "no feature service reads `aircraft`, `noise`, `weather` any more"
    )


def test_two_contracts_differ_in_what_the_model_chose_too() -> None:
    policy = Policy(Action.DEFAULT, 1.5)
    weather = replace(WEATHER, features=(FeatureField("temp", Dtype.FLOAT32, on_stale=policy), *WEATHER.features[1:]))
    aircraft = replace(AIRCRAFT, join_keys=(replace(AIRCRAFT.join_keys[0], nullable=False),))
    fields = (
        RequestField("scheduled_departure", Dtype.INT64),
        RequestField("distance", Dtype.FLOAT32),
        RequestField("party", Dtype.INT32),
        RequestField("night", Dtype.BOOL),
    )
    other = replace(BUILT_FROM, views=(weather, aircraft, NOISE), request_fields=fields)
    assert list(contract_differences(BUILT_FROM, BUILT_FROM)) == []
    assert list(contract_differences(BUILT_FROM, other)) == [
        "request field `distance` must be given now",
        "request field `scheduled_departure` was timestamp, is int64",
        "join key `tailnum` must be given now",
        "request field `is_holiday` is gone",
        "request field `night` is new",
        "policy of `weather__temp` where it is stale was null, is default 1.5",
    ]
    assert "join key `tailnum` may be null now" in list(contract_differences(other, BUILT_FROM))
