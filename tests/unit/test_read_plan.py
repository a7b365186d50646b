"""Read plans: what is asked of the store, and what its answers mean."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from harness.bundles import ORIGIN, STATION, TAILNUM, WEATHER_TTL_US, Hashes, contract, flights_at, merged, stored
from skewless.canonical_json import Digest
from skewless.dtypes import Column, Dtype, column_of, to_python
from skewless.errors import InvalidDefinition, Rejected
from skewless.features import plan as plan_module
from skewless.features.contract import Action, FeatureContract, FeatureField, JoinKey, Policy, ViewRead
from skewless.features.frame import NO_EVENT_TIME, STATUS_CODES, FeatureFrame
from skewless.features.plan import PreparedRead, ReadPlan
from skewless.features.visibility import Status
from skewless.timestamps import HOUR_US, SECOND_US

NOW = 1_367_411_400 * SECOND_US
KEYS = {
    "origin": column_of(Dtype.STRING, ["JFK", "LGA", "JFK", "nowhere"]),
    "tailnum": column_of(Dtype.STRING, ["N1", None, "N1", "N2"]),
    "station": column_of(Dtype.INT64, [7, 7, 7, 8]),
}


def _decode(prepared: PreparedRead, hashes: Hashes, as_of: int = NOW) -> FeatureFrame:
    answers = [[hashes.get(each.key, {}).get(name) for name in each.fields] for each in prepared.reads]
    return prepared.decode(answers, as_of)


def _frame(read: FeatureContract, hashes: Hashes, keys: Mapping[str, Column], rows: int) -> FeatureFrame:
    return _decode(ReadPlan.compile(read).prepare(keys, rows), hashes)


def _statuses(frame: FeatureFrame, name: str) -> list[Status]:
    return [STATUS_CODES[code] for code in frame.statuses[name]]


def test_each_entity_is_asked_for_once() -> None:
    prepared = ReadPlan.compile(contract()).prepare(KEYS, 4)
    assert len(prepared.reads) == 3 + 2 + 2
    assert len({each.key for each in prepared.reads}) == 7


def test_values_statuses_and_event_times_are_what_is_stored() -> None:
    frame = _frame(contract(), flights_at(NOW), KEYS, 4)
    assert to_python(frame.columns["weather__temp"]) == [21.5, None, 21.5, None]
    assert _statuses(frame, "weather__temp") == [Status.OK, Status.STALE, Status.OK, Status.MISSING]
    assert to_python(frame.columns["weather__wind_dir"]) == [270, None, 270, 90]
    assert _statuses(frame, "weather__wind_dir")[3] is Status.DEFAULT
    assert to_python(frame.columns["aircraft__seats"]) == [180, None, 180, None]
    assert _statuses(frame, "aircraft__seats") == [Status.OK, Status.MISSING, Status.OK, Status.MISSING]
    assert frame.event_times["weather"].tolist() == [NOW - HOUR_US, NOW - 5 * HOUR_US, NOW - HOUR_US, NO_EVENT_TIME]


def _weather(event_time: int, **features: object) -> Hashes:
    return stored((ORIGIN,), ("JFK",), "weather", event_time, features)


def _one(hashes: Hashes, read: FeatureContract | None = None) -> FeatureFrame:
    keys = {name: Column(each.dtype, each.values[:1], each.valid[:1]) for name, each in KEYS.items()}
    return _frame(read or contract(), hashes, keys, 1)


@pytest.mark.parametrize(
    ("age_us", "status"),
    [
        (0, Status.OK),
        (WEATHER_TTL_US, Status.OK),
        (WEATHER_TTL_US + SECOND_US, Status.STALE),
        (-SECOND_US, Status.MISSING),
    ],
)
def test_an_age_up_to_the_ttl_is_fresh_and_the_future_is_missing(age_us: int, status: Status) -> None:
    assert _statuses(_one(_weather(NOW - age_us, temp=1.5)), "weather__temp") == [status]


def test_a_stored_null_is_null_and_a_field_that_was_never_written_is_missing() -> None:
    assert _statuses(_one(_weather(NOW, temp=None)), "weather__temp") == [Status.NULL]
    assert _statuses(_one(_weather(NOW, wind_dir=1)), "weather__temp") == [Status.MISSING]


def test_a_stored_null_is_never_replaced_by_a_default() -> None:
    frame = _one(_weather(NOW, wind_dir=None))
    assert (to_python(frame.columns["weather__wind_dir"]), _statuses(frame, "weather__wind_dir")) == (
        [None],
        [Status.NULL],
    )


def test_a_rejected_feature_names_its_row_and_status() -> None:
    strict = contract(reject_missing_weather=True)
    with pytest.raises(Rejected, match="`weather__temp` is missing") as refused:
        _frame(strict, flights_at(NOW), KEYS, 4)
    assert refused.value.path == "$.instances[3]"


def test_a_null_key_is_not_asked_for() -> None:
    prepared = ReadPlan.compile(contract()).prepare({**KEYS, "tailnum": column_of(Dtype.STRING, [None] * 4)}, 4)
    assert len(prepared.reads) == 3 + 2
    frame = _decode(prepared, flights_at(NOW))
    assert _statuses(frame, "aircraft__seats") == [Status.MISSING] * 4
    assert frame.event_times["aircraft"].tolist() == [NO_EVENT_TIME] * 4


def _contract(*views: ViewRead) -> FeatureContract:
    return FeatureContract("demo", views, (), Digest("0" * 64))


def _view(name: str, *keys: JoinKey, feature: str = "f") -> ViewRead:
    return ViewRead(name, tuple(sorted(keys, key=lambda key: key.name)), 0, (FeatureField(feature, Dtype.INT64),))


def test_views_of_one_entity_share_a_read() -> None:
    read = _contract(_view("a", ORIGIN), _view("b", ORIGIN), _view("c", STATION))
    prepared = ReadPlan.compile(read).prepare({name: KEYS[name] for name in ("origin", "station")}, 4)
    assert len(prepared.reads) == 3 + 2
    hashes = merged(
        stored((ORIGIN,), ("JFK",), "a", NOW, {"f": 1}), stored((ORIGIN,), ("JFK",), "b", NOW - HOUR_US, {"f": 2})
    )
    frame = _decode(prepared, hashes)
    assert to_python(frame.columns["a__f"])[0] == 1
    assert to_python(frame.columns["b__f"])[0] == 2
    assert frame.event_times["b"].tolist()[0] == NOW - HOUR_US


@pytest.mark.parametrize("order", [(ORIGIN, STATION), (STATION, ORIGIN)])
def test_the_order_in_which_keys_are_declared_does_not_matter(order: tuple[JoinKey, ...]) -> None:
    view = dataclasses.replace(_view("leg"), join_keys=order)
    hashes = stored((STATION, ORIGIN), ("JFK", 7), "leg", NOW, {"f": 5})
    assert to_python(_one(hashes, _contract(view)).columns["leg__f"]) == [5]


def test_a_row_with_one_null_of_a_composite_key_has_no_entity() -> None:
    prepared = ReadPlan.compile(_contract(_view("leg", TAILNUM, STATION))).prepare(KEYS, 4)
    assert len(prepared.reads) == 2
    assert _statuses(_decode(prepared, {}), "leg__f") == [Status.MISSING] * 4


def test_a_view_without_entity_is_read_once_for_all_rows() -> None:
    prepared = ReadPlan.compile(_contract(_view("network"))).prepare({}, 3)
    (read,) = prepared.reads
    hashes = {read.key: next(iter(stored((), (), "network", NOW, {"f": 9}).values()))}
    assert to_python(_decode(prepared, hashes).columns["network__f"]) == [9, 9, 9]


def test_no_rows_are_no_reads() -> None:
    keys = {name: column_of(each.dtype, []) for name, each in KEYS.items()}
    prepared = ReadPlan.compile(contract()).prepare(keys, 0)
    assert prepared.reads == ()
    assert _decode(prepared, {}).columns["weather__temp"].values.dtype == np.float32


def test_features_that_share_a_hash_field_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # A collision of MurmurHash3 costs billions of tries to find; a hash that always collides shows the same.
    monkeypatch.setattr(plan_module, "feature_field", lambda _view, _feature: b"same")
    with pytest.raises(InvalidDefinition, match="`a:f` and `b:g` share the Redis hash field"):
        ReadPlan.compile(_contract(_view("a", ORIGIN), _view("b", ORIGIN, feature="g")))
    ReadPlan.compile(_contract(_view("a", ORIGIN), _view("b", STATION, feature="g")))


def test_a_value_stored_under_another_dtype_is_refused_by_name() -> None:
    with pytest.raises(InvalidDefinition, match=r"weather:temp.*declared `float32`"):
        _one(_weather(NOW, temp=3))


@pytest.mark.parametrize("policy", [Policy(), Policy(Action.DEFAULT, 4)])
def test_a_stale_value_follows_its_own_policy(policy: Policy) -> None:
    view = ViewRead("v", (ORIGIN,), HOUR_US, (FeatureField("f", Dtype.INT64, Policy(Action.DEFAULT, 1), policy),))
    frame = _one(stored((ORIGIN,), ("JFK",), "v", NOW - 2 * HOUR_US, {"f": 7}), _contract(view))
    expected: Any = (policy.value, Status.DEFAULT if policy.value is not None else Status.STALE)
    assert (to_python(frame.columns["v__f"])[0], _statuses(frame, "v__f")[0]) == expected
