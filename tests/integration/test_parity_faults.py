"""The fault catalogue of parity: each cause made to happen in a real store, and named, with no other alarm.

All faults are in one store, each at a station of its own: what one check names must not depend on the others.
"""

import importlib
import linecache
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from feast import ValueType

from harness.feature_repository import FEAST_WARNS
from harness.hurt_store import key_of
from harness.parity_world import (
    FUNCTION,
    ParityWorld,
    Row,
    leg,
    network,
    parity_world,
    score,
    weather,
)
from harness.servers import ValkeyServer
from skewless.features.contract import Action, Policy
from skewless.features.redis_layout import feature_field
from skewless.parity.causes import CAUSES, Cause
from skewless.parity.explanation import explain_value

pytestmark = FEAST_WARNS

AT = 12.0
"""The hour at which everything is asked; the last materialization is of hour 11."""
SECOND_RUN = 11.0
SHORT_TTL = timedelta(hours=1)
EXACT = 1013.1
UNITS = ("units1", "units2", "units3", "units4")
HONEST = ("north", "süd", "nobody")

EXPECTED: dict[str, tuple[Cause, frozenset[str]]] = {
    "lost": (Cause.MISSING_ONLINE, frozenset({"weather"})),
    "nulled": (Cause.MISSING_ONLINE, frozenset({"weather"})),
    "fieldless": (Cause.MISSING_ONLINE, frozenset({"weather"})),
    "invented": (Cause.EXTRA_ONLINE, frozenset({"weather"})),
    "deleted": (Cause.EXTRA_ONLINE, frozenset({"weather"})),
    "behind": (Cause.MATERIALIZATION_LAG, frozenset({"weather"})),
    "killed": (Cause.MATERIALIZATION_LAG, frozenset({"weather"})),
    "late": (Cause.LATE_ROW, frozenset({"weather"})),
    "restated": (Cause.RESTATED_ROW, frozenset({"weather"})),
    "leaked": (Cause.FUTURE_LEAK, frozenset({"weather"})),
    "skewed": (Cause.FUTURE_LEAK, frozenset({"weather"})),
    "corrected": (Cause.EQUAL_TIMESTAMP_CORRECTION, frozenset({"weather"})),
    "expired": (Cause.TTL, frozenset({"weather"})),
    "rounded": (Cause.DECLARED_PRECISION, frozenset({"weather"})),
    "spelled": (Cause.COERCION, frozenset({"weather"})),
    "retyped": (Cause.COERCION, frozenset({"weather"})),
    "zeroed": (Cause.DEFAULT_FILLED, frozenset({"weather"})),
    "keyed": (Cause.ENTITY_KEY_TYPE, frozenset({"leg"})),
    **{name: (Cause.PIPELINES_DIFFER, frozenset({"weather"})) for name in UNITS},
}
"""What each station suffers from, and in which stored view."""


def _first_sources() -> dict[str, list[Row]]:
    stations = [*EXPECTED, "north", "süd", "aged", "killed too"]
    rows = [weather(name, 9.5) for name in stations if name not in ("invented", "leaked", "expired", "aged")]
    rows += [weather(name, 2) for name in ("expired", "aged")]
    rows += [
        weather("behind", 11.6, temp=8.0),
        weather("late", 9.7, 11.5, temp=8.0),
        weather("restated", 9.8, temp=2.0),
        weather("leaked", 9.8, 20, temp=9.0),
        weather("corrected", 9.5, 10.5, temp=9.0),
        weather("nulled", 11.5, temp=3.0),
        weather("rounded", 11.5, pressure=EXACT, wind=2**53 + 1),
        weather("spelled", 11.5, sky="Café  noir"),
        weather("zeroed", 11.5, wind=None),
        weather("killed", 11.7, sky="rain"),
        weather("killed too", 11.7, sky="rain"),
        *(weather(name, 11.5, temp=10.0 * number) for number, name in enumerate(UNITS)),
    ]
    legs = [leg(name, 1, 1, late=0.1 * number) for number, name in enumerate(stations) if name != "keyed"]
    return {"weather": rows, "leg": [*legs, leg("keyed", 1, 5)], "network": [network(1), network(9.9, load=0.5)]}


def _hurt(world: ParityWorld) -> None:
    """Everything that goes wrong after the second materialization."""
    store: Any = redis.Redis.from_url(world.url)  # whose stubs know no keys of bytes
    for station in ("lost", "expired"):
        store.delete(key_of(world, "weather", station))
    store.hdel(key_of(world, "weather", "fieldless"), feature_field("weather", "sky"))
    store.hset(key_of(world, "weather", "retyped"), feature_field("weather", "wind"), b"\x12\x01x")
    store.delete(key_of(world, "leg", "keyed", 1))
    store.close()
    world.push("leg", [leg("keyed", 1, 5)], key_types={"line": ValueType.INT32})
    world.push(
        "weather",
        [
            weather("nulled", 11.5, temp=None),
            weather("invented", 9.6, temp=4.0),
            weather("leaked", 9.8, temp=9.0),
            weather("skewed", 13),
            weather("rounded", 11.5, pressure=float(np.float32(EXACT)), wind=2**53),
            weather("spelled", 11.5, sky=" cafe\u0301  NOIR"),
            weather("zeroed", 11.5, wind=0),
            weather("killed too", 11.7, sky="rain"),  # of the run that was killed before it came to `killed`
            *(weather(name, 11.5, temp=10.0 * number * 1.8 + 32) for number, name in enumerate(UNITS)),
        ],
    )
    rows = [row for row in world.rows["weather"] if row["station"] != "deleted"]
    kept = [row for row in rows if not (row["station"] == "restated" and row["temp"] == 2.0)]
    world.write_sources(weather=[*kept, weather("restated", 9.8, 13, temp=7.0)])


@pytest.fixture(scope="module")
def hurt(tmp_path_factory: pytest.TempPathFactory, valkey_server: ValkeyServer) -> Iterator[ParityWorld]:
    """The store with all faults in it."""
    with parity_world(tmp_path_factory.mktemp("faults"), "parityfaults", valkey_server) as world:
        world.write_sources(**_first_sources())
        world.define()
        world.materialize(10)
        world.materialize(SECOND_RUN)
        _hurt(world)
        yield world


def _entities(*stations: str) -> list[Row]:
    return [{"station": station, "line": 1} for station in stations]


def test_honest_stations_have_no_cause(hurt: ParityWorld) -> None:
    _, report = hurt.check(hurt.serve(_entities(*HONEST, "aged", "killed too"), AT))
    assert report["causes"] == []
    levels = report["levels"]
    assert levels["values"]["bit_equal"] == levels["values"]["compared"] == 5 * 11
    assert levels["model_inputs"]["equal"] == levels["predictions"]["equal"] == 5


@pytest.mark.parametrize("station", [name for name in EXPECTED if name not in UNITS])
def test_each_fault_alone_has_its_cause_and_no_other(hurt: ParityWorld, station: str) -> None:
    cause, views = EXPECTED[station]
    found = hurt.causes(hurt.serve(_entities(station), AT))
    assert set(found) == {cause}
    # An on-demand feature has the cause of what it was computed from.
    assert views <= found[cause] <= views | {"comfort"}


def test_all_faults_at_once_are_told_apart(hurt: ParityWorld) -> None:
    stations = [*EXPECTED, *HONEST]
    checked, report = hurt.check(hurt.serve(_entities(*stations), AT))
    for row, station in enumerate(stations):
        named = {CAUSES[codes[row]] for codes in checked.features.values() if codes[row] < len(CAUSES)}
        assert named == ({EXPECTED[station][0]} if station in EXPECTED else set()), station
    assert {each["cause"] for each in report["causes"]} == {cause.value for cause, _ in EXPECTED.values()}
    for codes in (checked.tensor, checked.output):
        inherited = {station: CAUSES[code] for station, code in zip(stations, codes, strict=True) if code < len(CAUSES)}
        assert all(cause is EXPECTED[station][0] for station, cause in inherited.items()), inherited


def test_a_change_of_unit_in_one_pipeline_is_told_with_its_rule(hurt: ParityWorld) -> None:
    _, report = hurt.check(hurt.serve(_entities(*UNITS), AT))
    (found,) = (each for each in report["causes"] if each["view"] == "weather")
    assert found["cause"] == Cause.PIPELINES_DIFFER
    assert found["rules"] == {"weather__temp": "served = 1.8 * offline + 32"}


def test_an_explanation_has_both_rows_and_the_version_that_was_served(hurt: ParityWorld) -> None:
    checked, _ = hurt.check(hurt.serve(_entities("corrected"), AT))
    told = explain_value(checked, hurt.contract(), 0, "weather__temp")
    assert told.cause is Cause.EQUAL_TIMESTAMP_CORRECTION
    assert (told.served.value, told.offline.value) == ("1.5", "9.0")
    assert [each.value for each in told.versions] == ["1.5", "9.0"]
    assert "a version known since 2024-03-01T09:30:00Z holds the served value" in told.words
    assert "offline 9.0 (ok, row of 2024-03-01T09:30:00Z, known since 2024-03-01T10:30:00Z)" in told.words


def test_what_became_known_after_the_moment_is_no_mismatch_and_is_told_apart(hurt: ParityWorld) -> None:
    """At hour 10.4 neither the correction (10.5) nor the late row (11.5) was known to anybody."""
    earlier = [hurt.serve(_entities("corrected", "late"), 10.4)]
    _, report = hurt.check(earlier[0])
    assert report["causes"] == []
    assert {(each["view"], each["cause"], each["differing"]) for each in report["known_later"]} == {
        ("weather", "late_row", 1),
        ("weather", "restated_row", 1),
    }
    assert report["levels"]["values"]["equal_to_finally_known"] < report["levels"]["values"]["equal"]


def test_a_row_that_the_source_has_not_got_yet_is_pending_and_no_alarm(hurt: ParityWorld) -> None:
    hurt.push("weather", [weather("fresh", 22)])
    _, report = hurt.check(hurt.serve(_entities("fresh"), 23))
    assert report["causes"] == []
    assert report["levels"]["values"]["pending"] > 0


def test_a_reader_without_ttl_is_named(hurt: ParityWorld) -> None:
    """What Feast's own SDK serves: rows of any age."""
    contract = hurt.contract()
    ageless = replace(contract, views=tuple(replace(view, ttl_us=0) for view in contract.views))
    assert set(hurt.causes(hurt.serve(_entities("aged"), AT, contract=ageless))) == {"ttl"}


def test_a_lower_rung_explains_what_was_served_on_it(hurt: ParityWorld) -> None:
    served = hurt.serve(_entities("behind", "north"), AT)
    assert set(hurt.causes(replace(served, rungs=["last_known+in_process", "normal"]))) == {"stale_serving"}


def test_a_default_for_a_field_that_is_not_there_is_named(hurt: ParityWorld) -> None:
    policies = {"weather__sky": (Policy(Action.DEFAULT, "none"), Policy())}
    contract = hurt.contract(policies)
    served = hurt.serve(_entities("fieldless", "north"), AT, contract=contract)
    assert set(hurt.causes(served, contract=contract)) == {"default_filled"}


def test_an_edited_transform_is_named_and_nothing_else(hurt: ParityWorld) -> None:
    served = hurt.serve(_entities("north", "behind"), AT)
    tensor = served.tensor.copy()
    tensor[:, 1] += 1.0
    edited = replace(served, tensor=tensor, outputs=score(tensor))
    assert hurt.causes(replace(edited, prediction_ids=["a", "b"])) == {
        "materialization_lag": {"weather", "comfort"},
        "transform": {"(model input)"},
    }


def test_a_tensor_of_which_only_the_digest_was_kept_is_compared_by_it(hurt: ParityWorld) -> None:
    served = hurt.serve(_entities("north", "süd"), AT)
    bare = replace(served, tensor=np.zeros_like(served.tensor), has_tensor=np.zeros(2, dtype=np.bool_))
    assert hurt.causes(bare) == {}
    other = replace(bare, tensor_digests=[served.tensor_digests[0], "0" * 64])
    assert hurt.causes(other) == {"transform": {"(model input)"}}


def test_another_model_is_named_and_nothing_else(hurt: ParityWorld) -> None:
    served = hurt.serve(_entities("north", "süd"), AT)
    assert hurt.causes(replace(served, outputs=served.outputs * np.float32(0.5))) == {"model": {"(prediction)"}}


def test_on_demand_code_that_drifted_is_named(hurt: ParityWorld) -> None:
    served = hurt.serve(_entities("north", "behind"), AT)
    module = f"functions_{hurt.repository.project}"
    path = hurt.folder / f"{module}.py"
    try:
        _rewrite(path, module, FUNCTION.replace("2.0", "3.0"))
        assert hurt.causes(served, contract=hurt.contract()) == {
            "materialization_lag": {"weather"},
            "on_demand_code": {"comfort"},
        }
    finally:
        _rewrite(path, module, FUNCTION)


def _rewrite(path: Path, module: str, text: str) -> None:
    path.write_text(text)
    sys.modules.pop(module, None)
    importlib.invalidate_caches()
    linecache.checkcache()
    for cached in (path.parent / "__pycache__").glob(f"{module}*"):
        cached.unlink()


def test_a_changed_definition_goes_before_everything_in_its_view_alone(
    tmp_path: Path, valkey_server: ValkeyServer
) -> None:
    with parity_world(tmp_path, "paritychanged", valkey_server) as world:
        world.write_sources(
            weather=[weather("north", 9), weather("north", 11.5, temp=2.5)],
            leg=[leg("north", 1, 9), leg("north", 1, 11.5, late=2.0)],
            network=[network(9)],
        )
        world.define()
        world.materialize(10)
        contract = world.contract()
        served = world.serve(_entities("north"), AT)
        world.define(ttl=SHORT_TTL)
        assert world.causes(served, contract=contract) == {
            "definition_changed": {"weather", "comfort"},
            "materialization_lag": {"leg"},
        }


def test_every_cause_but_unknown_is_made_to_happen_here() -> None:
    source = Path(__file__).read_text()
    absent = {each for each in Cause if f"Cause.{each.name}" not in source and f'"{each.value}"' not in source}
    assert {each.value for each in absent} == {"un" + "known"}
