"""Read plans: what is asked of the store, and what its answers mean."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from harness.bundles import ORIGIN, STATION, TAILNUM, WEATHER_TTL_US, Hashes, contract, flights_at, merged, stored
from harness.hashes import answer
from skewless.canonical_json import Digest
from skewless.dtypes import Column, Dtype, column_of, to_python
from skewless.errors import InvalidDefinition, Rejected
from skewless.features import plan as plan_module
from skewless.features.contract import Action, FeatureContract, FeatureField, JoinKey, Policy, ViewRead
from skewless.features.frame import NO_EVENT_TIME, STATUS_CODES, FeatureFrame
from skewless.features.plan import HashSizes, PreparedRead, ReadPlan
from skewless.features.redis_layout import timestamp_field
from skewless.features.visibility import Status
from skewless.timestamps import HOUR_US, SECOND_US

NOW = 1_367_411_400 * SECOND_US
KEYS = {
    "origin": column_of(Dtype.STRING, ["JFK", "LGA", "JFK", "nowhere"]),
    "tailnum": column_of(Dtype.STRING, ["N1", None, "N1", "N2"]),
    "station": column_of(Dtype.INT64, [7, 7, 7, 8]),
}


def _decode(prepared: PreparedRead, hashes: Hashes, as_of: int = NOW) -> FeatureFrame:
    return prepared.decode(answer(prepared.commands, hashes), as_of).frame


def _frame(read: FeatureContract, hashes: Hashes, keys: Mapping[str, Column], rows: int) -> FeatureFrame:
    return _decode(ReadPlan.compile(read).prepare(keys, rows), hashes)


def _statuses(frame: FeatureFrame, name: str) -> list[Status]:
    return [STATUS_CODES[code] for code in frame.statuses[name]]


def test_each_entity_is_asked_for_once() -> None:
    prepared = ReadPlan.compile(contract()).prepare(KEYS, 4)
    assert len(prepared.commands) == 3 + 2 + 2
    assert len(set(prepared.keys)) == 7


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


@pytest.mark.parametrize("seed", range(20))
def test_a_row_read_alone_is_the_row_read_among_others(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dtypes = [Dtype.FLOAT32, Dtype.INT64, Dtype.STRING]
    features = tuple(FeatureField(f"f{number}", dtypes[number % 3]) for number in range(9))
    read = _contract(ViewRead("mixed", (ORIGIN,), WEATHER_TTL_US, features))
    values: dict[Dtype, Any] = {Dtype.FLOAT32: -0.5, Dtype.INT64: -7, Dtype.STRING: "é" * 70}

    def made(null_share: float, absent_share: float) -> dict[str, object]:
        kept = [each for each in features if rng.random() >= absent_share]
        return {each.name: None if rng.random() < null_share else values[each.dtype] for each in kept}

    shares = [(0.0, 0.0), (0.1, 0.0), (0.5, 0.0), (1.0, 0.0), (0.2, 0.2), (0.0, 0.1)]
    names = [f"e{row}" for row in range(len(shares))]
    hashes = merged(
        *(
            stored((ORIGIN,), (name,), "mixed", NOW - int(rng.choice([0, 1, 9])) * HOUR_US, made(*share))
            for name, share in zip(names, shares, strict=True)
        )
    )
    together = _frame(read, hashes, {"origin": column_of(Dtype.STRING, tuple(names))}, len(names))
    for row, name in enumerate(names):
        alone = _frame(read, hashes, {"origin": column_of(Dtype.STRING, [name])}, 1)
        assert alone.event_times["mixed"].tolist() == [together.event_times["mixed"][row]]
        for column, codes in alone.statuses.items():
            assert codes.tolist() == [together.statuses[column][row]], (seed, name, column)
            one, many = alone.columns[column], together.columns[column]
            assert (one.valid[0], one.values[0]) == (many.valid[row], many.values[row]), (seed, name, column)


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
    assert len(prepared.commands) == 3 + 2
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
    assert len(prepared.commands) == 3 + 2
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
    assert len(prepared.commands) == 2
    assert _statuses(_decode(prepared, {}), "leg__f") == [Status.MISSING] * 4


def test_a_view_without_entity_is_read_once_for_all_rows() -> None:
    prepared = ReadPlan.compile(_contract(_view("network"))).prepare({}, 3)
    (key,) = prepared.keys
    hashes = {key: next(iter(stored((), (), "network", NOW, {"f": 9}).values()))}
    assert to_python(_decode(prepared, hashes).columns["network__f"]) == [9, 9, 9]


def test_no_rows_are_no_reads() -> None:
    keys = {name: column_of(each.dtype, []) for name, each in KEYS.items()}
    prepared = ReadPlan.compile(contract()).prepare(keys, 0)
    assert prepared.commands == []
    assert _decode(prepared, {}).columns["weather__temp"].values.dtype == np.float32


def test_features_that_share_a_hash_field_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # A collision of MurmurHash3 costs billions of tries to find; a hash that always collides shows the same.
    monkeypatch.setattr(plan_module, "feature_field", lambda _view, _feature: b"same")
    with pytest.raises(InvalidDefinition, match="`a:f` and `b:g` share the Redis hash field"):
        ReadPlan.compile(_contract(_view("a", ORIGIN), _view("b", ORIGIN, feature="g")))
    ReadPlan.compile(_contract(_view("a", ORIGIN), _view("b", STATION, feature="g")))


def test_a_value_stored_under_another_dtype_is_invalid_and_says_why() -> None:
    frame = _one(_weather(NOW, temp=3, wind_dir=4))
    assert _statuses(frame, "weather__temp") == [Status.INVALID]
    assert to_python(frame.columns["weather__temp"]) == [None]
    assert _statuses(frame, "weather__wind_dir") == [Status.OK]
    (fault,) = frame.faults
    assert (fault.row, fault.column) == (0, "weather__temp")
    assert "declared `float32`" in fault.reason


def test_what_cannot_be_read_follows_the_policy_for_missing() -> None:
    frame = _one(_weather(NOW, wind_dir=2.5))
    assert (to_python(frame.columns["weather__wind_dir"]), _statuses(frame, "weather__wind_dir")) == (
        [90],
        [Status.DEFAULT],
    )
    with pytest.raises(Rejected, match="`weather__temp` is invalid"):
        _one(_weather(NOW, temp=3), contract(reject_missing_weather=True))


def test_an_event_time_that_cannot_be_read_makes_its_view_invalid_and_no_other() -> None:
    hashes = flights_at(NOW)
    key = ReadPlan.compile(contract()).prepare(KEYS, 4).keys[0]
    hashes[key][timestamp_field("weather")] = b"\x08\xff"
    frame = _frame(contract(), hashes, KEYS, 4)
    assert _statuses(frame, "weather__temp")[::2] == [Status.INVALID] * 2
    assert frame.event_times["weather"].tolist()[0] == NO_EVENT_TIME
    assert _statuses(frame, "noise__level")[0] is Status.OK
    assert {(fault.row, fault.column) for fault in frame.faults} == {
        (row, column) for row in (0, 2) for column in ("weather__temp", "weather__wind_dir")
    }


def test_a_hash_that_the_store_gives_an_error_for_is_invalid_and_harms_no_other() -> None:
    prepared = ReadPlan.compile(contract()).prepare(KEYS, 4)
    replies = answer(prepared.commands, flights_at(NOW))
    replies[0] = ValueError("WRONGTYPE Operation against a key holding the wrong kind of value")
    frame = prepared.decode(replies, NOW).frame
    assert _statuses(frame, "weather__temp") == [Status.INVALID, Status.STALE, Status.INVALID, Status.MISSING]
    assert "WRONGTYPE" in frame.faults[0].reason
    assert _statuses(frame, "aircraft__seats")[0] is Status.OK


def test_every_row_may_have_its_own_as_of() -> None:
    prepared = ReadPlan.compile(contract()).prepare(KEYS, 4)
    replies = answer(prepared.commands, flights_at(NOW))
    moments = np.array([NOW, NOW - 2 * HOUR_US, NOW + 9 * HOUR_US, NOW], dtype=np.int64)
    together = prepared.decode(replies, moments).frame
    for row, moment in enumerate(moments.tolist()):
        alone = prepared.decode(replies, moment).frame
        for name, codes in together.statuses.items():
            assert codes[row] == alone.statuses[name][row], (name, row)
            assert to_python(together.columns[name])[row] == to_python(alone.columns[name])[row], (name, row)


def test_rows_that_were_read_together_are_taken_apart_and_only_the_own_refusal_is_raised() -> None:
    strict = ReadPlan.compile(contract(reject_missing_weather=True)).prepare(KEYS, 4)
    decoded = strict.decode(answer(strict.commands, flights_at(NOW)), NOW)
    part = decoded.cut(1, 3)
    assert to_python(part.columns["aircraft__seats"]) == [None, 180]
    assert part.event_times["weather"].tolist() == [NOW - 5 * HOUR_US, NOW - HOUR_US]
    with pytest.raises(Rejected) as refused:
        decoded.cut(2, 4)
    assert refused.value.path == "$.instances[1]"


def test_the_whole_hash_is_asked_for_where_most_of_it_is_wanted_and_means_the_same() -> None:
    names = [f"f{number}" for number in range(40)]
    wide = ViewRead("wide", (ORIGIN,), 0, tuple(FeatureField(name, Dtype.INT64) for name in names))
    read = _contract(wide, _view("narrow", STATION))
    sizes: HashSizes = {("origin",): 50, ("station",): 60}
    keys = {name: KEYS[name] for name in ("origin", "station")}
    named, whole = (ReadPlan.compile(read, known).prepare(keys, 4) for known in (None, sizes))
    assert not any(b"HGETALL" in command for command in named.commands)
    assert [b"HGETALL" in command for command in whole.commands] == [True] * 3 + [False] * 2
    written = {name: number for number, name in enumerate(names) if number % 7}
    hashes = merged(
        stored((ORIGIN,), ("JFK",), "other", NOW, {"f": 1}),
        stored((ORIGIN,), ("JFK",), "wide", NOW, written),
        stored((ORIGIN,), ("LGA",), "wide", NOW, dict(reversed(written.items()))),
        stored((STATION,), (7,), "narrow", NOW, {"f": 3}),
    )
    first, second = _decode(named, hashes), _decode(whole, hashes)
    assert to_python(second.columns["wide__f1"]) == [1, 1, 1, None]
    for name in first.columns:
        assert to_python(first.columns[name]) == to_python(second.columns[name])
        assert first.statuses[name].tolist() == second.statuses[name].tolist()


def test_rows_say_which_of_their_views_came_from_the_near_cache() -> None:
    prepared = ReadPlan.compile(contract()).prepare(KEYS, 4)
    near = [index == 0 for index in range(len(prepared.commands))]
    frame = prepared.decode(answer(prepared.commands, flights_at(NOW)), NOW, near).frame
    assert frame.near["weather"].tolist() == [True, False, True, False]
    assert frame.near["aircraft"].tolist() == [False] * 4


def test_views_kept_near_are_asked_for_first_and_apart() -> None:
    near = dataclasses.replace(_view("b", ORIGIN), near_cache=True)
    prepared = ReadPlan.compile(_contract(_view("a", ORIGIN), near)).prepare({"origin": KEYS["origin"]}, 4)
    assert prepared.cacheable == 3
    assert len(prepared.commands) == 6
    hashes = merged(
        stored((ORIGIN,), ("JFK",), "a", NOW, {"f": 1}), stored((ORIGIN,), ("JFK",), "b", NOW - HOUR_US, {"f": 2})
    )
    frame = _decode(prepared, hashes)
    assert (to_python(frame.columns["a__f"])[0], to_python(frame.columns["b__f"])[0]) == (1, 2)


def test_one_view_may_be_read_for_two_entities_under_two_names() -> None:
    origin = dataclasses.replace(_view("airport", JoinKey("origin", Dtype.STRING, stored_name="airport")), alias="from")
    target = dataclasses.replace(_view("airport", JoinKey("target", Dtype.STRING, stored_name="airport")), alias="to")
    keys = {"origin": column_of(Dtype.STRING, ["JFK"]), "target": column_of(Dtype.STRING, ["LGA"])}
    airport = JoinKey("airport", Dtype.STRING)
    hashes = merged(
        stored((airport,), ("JFK",), "airport", NOW, {"f": 1}), stored((airport,), ("LGA",), "airport", NOW, {"f": 2})
    )
    frame = _frame(_contract(origin, target), hashes, keys, 1)
    assert to_python(frame.columns["from__f"]) == [1]
    assert to_python(frame.columns["to__f"]) == [2]
    with pytest.raises(InvalidDefinition, match="`a__f` is read twice"):
        ReadPlan.compile(_contract(_view("a", ORIGIN), _view("a", STATION)))


@pytest.mark.parametrize("policy", [Policy(), Policy(Action.DEFAULT, 4)])
def test_a_stale_value_follows_its_own_policy(policy: Policy) -> None:
    view = ViewRead("v", (ORIGIN,), HOUR_US, (FeatureField("f", Dtype.INT64, Policy(Action.DEFAULT, 1), policy),))
    frame = _one(stored((ORIGIN,), ("JFK",), "v", NOW - 2 * HOUR_US, {"f": 7}), _contract(view))
    expected: Any = (policy.value, Status.DEFAULT if policy.value is not None else Status.STALE)
    assert (to_python(frame.columns["v__f"])[0], _statuses(frame, "v__f")[0]) == expected
