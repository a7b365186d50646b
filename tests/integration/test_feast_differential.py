"""Our reader against Feast's own over random definitions and data: equal, or different for a reason that is listed."""

import importlib
import json
import math
import random
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import python_values_to_proto_values
from feast.types import Bytes, Float64, Int64, String, UnixTimestamp, from_value_type

from harness.servers import ValkeyServer
from skewless.adapters.feast_import import quiet
from skewless.adapters.feast_repository import Connections, FeatureRepository
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.dtypes import ELEMENTS, FEAST_ALIASES, TABLE, Dtype, column_of, to_python
from skewless.features.contract import FeatureContract, OnDemandView, ViewRead, column_name
from skewless.features.frame import STATUS_CODES, FeatureFrame
from skewless.features.on_demand import OnDemandPlan
from skewless.features.plan import ReadPlan
from skewless.features.visibility import Status
from skewless.timestamps import HOUR_US, from_micros, parse_timestamp, to_micros

AS_OF = parse_timestamp("2024-03-01T12:00:00Z")
TTL = timedelta(hours=6)
MOMENT = from_micros(parse_timestamp("2013-05-01T12:30:00Z"))
UUIDS = tuple(str(uuid.UUID(int=number)) for number in (0, 1, 2**128 - 1))
ROWS = 40
SEEDS = (1, 2, 3, 5)

VALUES: dict[ValueType, list[Any]] = {
    ValueType.BOOL: [True, False, None],
    ValueType.INT32: [0, 1, -1, 2**31 - 1, -(2**31), None],
    ValueType.INT64: [0, -1, 2**53 + 1, 2**63 - 1, -(2**63), None],
    ValueType.FLOAT: [0.0, -0.0, 0.1, 3.4e38, math.inf, -math.inf, math.nan, None],
    ValueType.DOUBLE: [0.0, -0.0, 0.1, 5e-324, 1e300, -math.inf, math.nan, None],
    ValueType.STRING: ["", "plain", "süd \N{CLOUD WITH RAIN}", "a\x00b", None],
    ValueType.BYTES: [b"a", b"\x00\xff", None],
    ValueType.UNIX_TIMESTAMP: [MOMENT, from_micros(0), from_micros(-1_000_000), None],
    ValueType.PDF_BYTES: [b"%PDF", None],
    ValueType.IMAGE_BYTES: [b"\xff\xd8", None],
    ValueType.JSON: ["{}", '{"a": [1, null, "ü"]}', "3", None],
    ValueType.UUID: [*UUIDS, None],
    ValueType.TIME_UUID: [*UUIDS, None],
    ValueType.DECIMAL: ["1.50", "-0", "1E+3", None],
    ValueType.BOOL_LIST: [[], [True], [False, True], None],
    ValueType.INT32_LIST: [[], [0], [-1, 2**31 - 1, -(2**31)], None],
    ValueType.INT64_LIST: [[], [0], [-1, 2**63 - 1, -(2**63)], None],
    ValueType.FLOAT_LIST: [[], [0.1, -0.0], [math.inf, math.nan], None],
    ValueType.DOUBLE_LIST: [[], [0.1, -0.0], [math.inf, math.nan], None],
    ValueType.STRING_LIST: [[], [""], ["a", "\N{CLOUD WITH RAIN}"], None],
    ValueType.BYTES_LIST: [[], [b""], [b"\x00\xff", b"a"], None],
    ValueType.UNIX_TIMESTAMP_LIST: [[], [MOMENT], [MOMENT, from_micros(0)], None],
    ValueType.JSON_LIST: [[], ["{}", "[1]"], None],
    ValueType.UUID_LIST: [[], list(UUIDS), None],
    ValueType.TIME_UUID_LIST: [[], list(UUIDS), None],
    ValueType.DECIMAL_LIST: [[], ["1.50", "0"], None],
}
"""What is written; empty bytes and times within a second have tests of their own."""
KEYS: dict[str, tuple[ValueType, list[Any]]] = {
    "number": (ValueType.INT64, [0, -7, 2**63 - 1, 1001]),
    "small": (ValueType.INT32, [0, -7, 1001]),
    "text": (ValueType.STRING, ["", "süd \N{CLOUD WITH RAIN}", "1001"]),
    "day": (ValueType.UNIX_TIMESTAMP, [MOMENT, from_micros(0)]),
}
COMPUTED = """
def compute(inputs):
    return {
        "sum": [None if b is None else b + a for b, a in zip(inputs["base"], inputs["asked"])],
        "known": [b is not None for b in inputs["first__base"]],
    }
"""


class Reason(Enum):
    """Why a value that Feast's reader gives is not the one that ours gives."""

    STALE = "Feast applies no ttl to an online read; ours gives null with the status `stale`."
    FUTURE = "Feast serves a row whose event time is after the moment asked for; to ours it is `missing`."
    NEGATIVE_ZERO = "Feast gives -0.0 back; ours gives 0.0, as the offline store's joins do not keep the sign."
    TIME = "Feast gives datetimes, ours microseconds; both of the whole second that was written."
    PARSED = "Feast parses JSON, UUIDs and decimals into objects; ours gives the text that was written."
    EMPTY_BYTES = "Feast writes empty bytes as null, but only where no other value of the write has any bytes."
    INT64_BY_FLOAT = "Feast's writer of DataFrames takes integers beside nulls through float64: 2**53 + 1 is cut."
    NULL_IN_TIMES = "Feast writes a null among times as a number that it reads as None; ours calls it `invalid`."
    OWN_NAME_AND_ANOTHER = "Feast fails on a service that uses a view under its own name and under another."
    PYTHON_FULL_NAMES = "Feast leaves out what a python-mode function gives when full feature names are asked for."


@dataclass(frozen=True, slots=True)
class World:
    """A repository over a store of its own project, and what was written to it."""

    repository: FeatureRepository
    url: str
    folder: Path

    def apply(self, **definitions: Any) -> None:
        """Register Feast objects."""
        self.repository.apply(SimpleNamespace(__name__="world", **definitions))  # type: ignore[arg-type]  # what a module has

    def write(self, view: str, keys: dict[str, list[Any]], features: dict[str, list[Any]], times: list[int]) -> None:
        """Write rows with Feast's own conversion and Redis writer; times in microseconds."""
        registered = self.repository._store.registry.get_feature_view(view, self.repository.project)
        types = {column.name: column.dtype.to_value_type() for column in registered.entity_columns}
        key_protos = {name: python_values_to_proto_values(values, types[name]) for name, values in keys.items()}
        kinds = {field.name: field.dtype.to_value_type() for field in registered.features}
        protos = {name: python_values_to_proto_values(values, kinds[name]) for name, values in features.items()}
        rows: list[Any] = [
            (
                EntityKey(join_keys=list(keys), entity_values=[key_protos[name][row] for name in keys]),
                {name: column[row] for name, column in protos.items()},
                from_micros(time),
                None,
            )
            for row, time in enumerate(times)
        ]
        store = self.repository._store
        store._get_provider().online_write_batch(store.config, registered, rows, progress=None)

    def ours(
        self, service: str, given: list[dict[str, Any]], as_of: int = AS_OF
    ) -> tuple[FeatureContract, FeatureFrame]:
        """What our reader gives for the rows."""
        contract = self.repository.contract(service)
        dtypes = dict(contract.columns)
        names = [key.name for key in contract.join_keys] + [field.name for field in contract.request_fields]
        keys = {
            name: column_of(
                dtypes[name], [to_micros(row[name]) if dtypes[name] is Dtype.TIMESTAMP else row[name] for row in given]
            )
            for name in names
        }
        prepared = ReadPlan.compile(contract).prepare(keys, len(given))
        with closing(BlockingRedisOnlineStore(self.url)) as store:
            replies = store.read(prepared.keys, prepared.commands, timeout_s=5)
        frame = prepared.decode(replies, as_of).frame
        return contract, OnDemandPlan.compile(contract, importlib.import_module).extend(frame, keys)

    def value(self, service: str, column: str, given: dict[str, Any], as_of: int = AS_OF) -> tuple[object, Status]:
        """One value of ours with its status."""
        _, frame = self.ours(service, [given], as_of)
        return to_python(frame.columns[column])[0], STATUS_CODES[frame.statuses[column][0]]


@pytest.fixture
def world(tmp_path: Path, valkey_server: ValkeyServer, request: pytest.FixtureRequest) -> Iterator[World]:
    """A project of the test's own."""
    project = "".join(character for character in request.node.name if character.isalnum())
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "feature_store.yaml").write_text(
        f"project: {project}\nprovider: local\n"
        'registry: {registry_type: sql, path: "${SKEWLESS_FEAST_REGISTRY}", cache_mode: sync}\n'
        'online_store: {type: redis, connection_string: "${SKEWLESS_ONLINE_STORE}"}\n'
        "entity_key_serialization_version: 3\n"
    )
    connections = Connections(f"{valkey_server.host}:{valkey_server.port}", f"sqlite:///{tmp_path}/registry.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        yield World(FeatureRepository(folder, connections), valkey_server.url, tmp_path)
    for name in [name for name in sys.modules if name == project]:
        del sys.modules[name]


def _source(name: str) -> FileSource:
    return FileSource(name=f"{name}_source", path="nowhere.parquet", timestamp_field="happened")


def _entity(name: str) -> Entity:
    return Entity(name=name, join_keys=[name], value_type=KEYS[name][0])


def _one_view(dtype: Any, *, ttl: timedelta = TTL) -> dict[str, Any]:
    view = FeatureView(
        name="view",
        entities=[_entity("text")],
        ttl=ttl,
        schema=[Field(name="value", dtype=dtype)],
        source=_source("view"),
    )
    return {"text": _entity("text"), "view": view, "service": FeatureService(name="service", features=[view])}


# --- random worlds ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Drawn:
    """Random definitions, and the values that their join keys were written with."""

    definitions: dict[str, Any]
    views: dict[str, FeatureView]


def _draw(rng: random.Random, functions: Any) -> Drawn:
    entities = {name: _entity(name) for name in KEYS}
    views: dict[str, FeatureView] = {}
    kinds = list(VALUES)
    rng.shuffle(kinds)
    for number, name in enumerate(("first", "second", "third", "ansicht süd", "none")):
        keys = [] if name == "none" else rng.sample(sorted(KEYS), k=rng.choice([1, 1, 2, 3]))
        chosen = {f"f{place}": kind for place, kind in enumerate(kinds[number::5])}
        schema = [Field(name=feature, dtype=from_value_type(kind)) for feature, kind in chosen.items()]
        if name == "first":
            schema.append(Field(name="base", dtype=Float64))
        views[name] = FeatureView(
            name=name,
            entities=[entities[key] for key in keys],
            # Without a ttl, so that functions are given the same by both readers.
            ttl=timedelta(0) if name == "first" else rng.choice([timedelta(0), TTL]),
            schema=schema,
            source=_source(name),
        )
    asked = RequestSource(name="asked", schema=[Field(name="asked", dtype=Int64)])
    computed = on_demand_feature_view(
        name="computed",
        sources=[views["first"][["base"]], asked],
        schema=[Field(name="sum", dtype=Float64), Field(name="known", dtype=from_value_type(ValueType.BOOL))],
        mode="python",
    )(functions.compute)
    used = [_used(rng, name, view) for name, view in views.items()]
    rng.shuffle(used)
    renamed = views["first"].with_join_key_map({key: f"other_{key}" for key in views["first"].entities[:1]})
    return Drawn(
        {
            **entities,
            **{f"view_{number}": view for number, view in enumerate(views.values())},
            "computed": computed,
            "service": FeatureService(name="service", features=[*used, renamed.with_name("again")]),
            "functions": FeatureService(name="functions", features=[computed]),
        },
        views,
    )


def _used(rng: random.Random, name: str, view: FeatureView) -> Any:
    """The view whole or in part, under its own or another name, in any order of its features."""
    if name == "first":
        return view.with_name("once")  # under two names of which none is its own, see Reason.OWN_NAME_AND_ANOTHER
    features = [field.name for field in view.features]
    part = view[rng.sample(features, k=rng.randrange(1, len(features) + 1))]
    return part.with_name(f"{name} anew") if rng.random() < 0.5 else part


def _fill(rng: random.Random, world: World, views: dict[str, FeatureView]) -> None:
    for name, view in views.items():
        keys = [] if name == "none" else list(view.entities)
        entities = {tuple(rng.choice(KEYS[key][1]) for key in keys) for _ in range(12)}
        ordered = sorted(entities, key=repr)
        world.write(
            name,
            {key: [entity[place] for entity in ordered] for place, key in enumerate(keys)} or {"__dummy_id": [""]},
            {field.name: [rng.choice(VALUES[field.dtype.to_value_type()]) for _ in ordered] for field in view.features},
            [AS_OF - rng.randrange(0, 12 * HOUR_US) for _ in ordered],
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_our_reader_gives_what_feasts_gives_or_a_listed_reason(world: World, seed: int) -> None:
    rng = random.Random(seed)
    name = world.repository.project
    (world.folder / f"{name}.py").write_text(COMPUTED)
    drawn = _draw(rng, importlib.import_module(name))
    world.apply(**drawn.definitions)
    _fill(rng, world, drawn.views)
    seen: dict[Reason | None, int] = {}
    for service in ("service", "functions"):
        contract = world.repository.contract(service)
        given = []
        for _ in range(ROWS):
            row = {key.name: rng.choice(KEYS[key.key_name][1]) for key in contract.join_keys}
            given.append({**row, **{field.name: rng.randrange(-9, 9) for field in contract.request_fields}})
        _compare(world, service, given, seen)
    assert seen[None] > ROWS * 5
    assert {Reason.STALE, Reason.TIME, Reason.PARSED} <= set(seen), f"seed {seed} shows only {seen}"


def _compare(world: World, service: str, given: list[dict[str, Any]], seen: dict[Reason | None, int]) -> None:
    contract, frame = world.ours(service, given)
    views: list[ViewRead | OnDemandView] = [*contract.views, *contract.on_demand]
    computed = {column_name(view.name, each.name): each.name for view in contract.on_demand for each in view.features}
    # Full names tell uses of one view apart; a python function's features come under short names only.
    theirs = world.repository.online_features(service, given, full_feature_names=not computed)
    types = {
        column_name(view.name, each.name): (each.dtype, each.feast_type) for view in views for each in view.features
    }
    compared = computed or {name: name for name in frame.columns}
    for column, name in compared.items():
        ours = to_python(frame.columns[column])
        for row, (mine, other) in enumerate(zip(ours, theirs[name], strict=True)):
            status = STATUS_CODES[frame.statuses[column][row]]
            if column in computed and status is Status.NULL:
                continue  # a function of a stale value, which Feast hands to it
            found = _reasons(mine, status, other, *types[column])
            assert found is not None, f"{column} of {given[row]}: ours {mine!r} ({status}), Feast's {other!r}"
            told: list[Reason | None] = [*found] or [None]
            for reason in told:
                seen[reason] = seen.get(reason, 0) + 1


def _reasons(mine: Any, status: Status, other: Any, dtype: Dtype, feast_type: str) -> list[Reason] | None:
    """Why the two differ: no reason where they do not, None where there is no reason for it."""
    if status is Status.STALE:
        return [] if other is None else [Reason.STALE]
    if mine is None or other is None:
        return [] if mine is other and status in (Status.NULL, Status.MISSING) else None
    reasons = []
    if feast_type in FEAST_ALIASES and not feast_type.endswith("Bytes"):
        mine, reasons = _parsed(mine, feast_type), [Reason.PARSED]
    elif ELEMENTS.get(dtype, dtype) is Dtype.TIMESTAMP:
        other, reasons = _in_micros(other), [Reason.TIME]
    pairs = list(zip(mine, other, strict=True)) if dtype in ELEMENTS and len(mine) == len(other) else [(mine, other)]
    if any(_is_negative_zero(theirs) and not _is_negative_zero(ours) for ours, theirs in pairs):
        reasons.append(Reason.NEGATIVE_ZERO)
    return reasons if all(_equal(ours, theirs) for ours, theirs in pairs) else None


def _equal(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, float) and math.isnan(ours):
        return isinstance(theirs, float) and math.isnan(theirs)
    return type(ours) is type(theirs) and bool(ours == theirs)


def _parsed(text: Any, feast_type: str) -> Any:
    if isinstance(text, tuple):
        return [_parsed(each, feast_type) for each in text]
    if "Json" in feast_type:
        return json.loads(text)
    return Decimal(text) if "Decimal" in feast_type else uuid.UUID(text)


def _in_micros(moment: Any) -> Any:
    return tuple(map(to_micros, moment)) if isinstance(moment, list) else to_micros(moment)


def _is_negative_zero(value: Any) -> bool:
    return isinstance(value, float) and value == 0 and math.copysign(1, value) < 0


# --- each reason alone -----------------------------------------------------------------------------------------------


def test_every_reason_has_a_test_of_its_own() -> None:
    assert [reason for reason in Reason if f"test_reason_{reason.name.lower()}" not in globals()] == []


def _feasts(world: World, given: dict[str, Any], column: str = "view__value") -> Any:
    return world.repository.online_features("service", [given])[column][0]


def test_reason_stale(world: World) -> None:
    world.apply(**_one_view(Int64))
    world.write("view", {"text": ["old", "fresh"]}, {"value": [1, 2]}, [AS_OF - 6 * HOUR_US - 1, AS_OF - 6 * HOUR_US])
    assert world.value("service", "view__value", {"text": "old"}) == (None, Status.STALE)
    assert world.value("service", "view__value", {"text": "fresh"}) == (2, Status.OK)
    assert [_feasts(world, {"text": text}) for text in ("old", "fresh")] == [1, 2]


def test_reason_future(world: World) -> None:
    world.apply(**_one_view(Int64))
    world.write("view", {"text": ["soon"]}, {"value": [1]}, [AS_OF + 1])
    assert world.value("service", "view__value", {"text": "soon"}) == (None, Status.MISSING)
    assert world.value("service", "view__value", {"text": "soon"}, AS_OF + 1) == (1, Status.OK)
    assert _feasts(world, {"text": "soon"}) == 1


def test_reason_negative_zero(world: World) -> None:
    world.apply(**_one_view(Float64))
    world.write("view", {"text": ["zero"]}, {"value": [-0.0]}, [AS_OF])
    value, status = world.value("service", "view__value", {"text": "zero"})
    assert (str(value), status) == ("0.0", Status.OK)
    assert str(_feasts(world, {"text": "zero"})) == "-0.0"


def test_reason_time(world: World) -> None:
    world.apply(**_one_view(UnixTimestamp))
    world.write("view", {"text": ["then"]}, {"value": [MOMENT + timedelta(microseconds=999_999)]}, [AS_OF])
    assert world.value("service", "view__value", {"text": "then"}) == (to_micros(MOMENT), Status.OK)
    assert _feasts(world, {"text": "then"}) == MOMENT


@pytest.mark.parametrize(
    ("kind", "text", "parsed"),
    [
        (ValueType.JSON, '{"a": 1.0}', {"a": 1.0}),
        (ValueType.UUID, UUIDS[1], uuid.UUID(int=1)),
        (ValueType.DECIMAL, "1.50", Decimal("1.50")),
    ],
)
def test_reason_parsed(world: World, kind: ValueType, text: str, parsed: object) -> None:
    world.apply(**_one_view(from_value_type(kind)))
    world.write("view", {"text": ["it"]}, {"value": [text]}, [AS_OF])
    assert world.value("service", "view__value", {"text": "it"}) == (text, Status.OK)
    assert _feasts(world, {"text": "it"}) == parsed


def test_reason_empty_bytes(world: World) -> None:
    world.apply(**_one_view(Bytes))
    world.write("view", {"text": ["alone"]}, {"value": [b""]}, [AS_OF])
    world.write("view", {"text": ["beside", "other"]}, {"value": [b"", b"a"]}, [AS_OF, AS_OF])
    assert [_feasts(world, {"text": text}) for text in ("alone", "beside")] == [None, b""]
    assert world.value("service", "view__value", {"text": "alone"}) == (None, Status.NULL)


def test_reason_int64_by_float(world: World) -> None:
    world.apply(**_one_view(Int64))
    rows = pd.DataFrame(
        {"text": ["big", "null"], "value": pd.array([2**53 + 1, None], dtype="Int64"), "happened": [MOMENT, MOMENT]}
    )
    with quiet():
        world.repository._store.write_to_online_store("view", rows)
    value, _ = world.value("service", "view__value", {"text": "big"}, to_micros(MOMENT))
    assert value == _feasts(world, {"text": "big"}) == 2**53


def test_reason_null_in_times(world: World) -> None:
    world.apply(**_one_view(from_value_type(ValueType.UNIX_TIMESTAMP_LIST)))
    world.write("view", {"text": ["it"]}, {"value": [[MOMENT, None]]}, [AS_OF])
    assert world.value("service", "view__value", {"text": "it"}) == (None, Status.INVALID)
    assert _feasts(world, {"text": "it"}) == [MOMENT, None]


def test_reason_own_name_and_another(world: World) -> None:
    definitions = _one_view(Int64)
    view = definitions["view"]
    service = FeatureService(name="service", features=[view, view.with_name("again")])
    world.apply(**{**definitions, "service": service})
    world.write("view", {"text": ["it"]}, {"value": [7]}, [AS_OF])
    assert world.value("service", "view__value", {"text": "it"}) == (7, Status.OK)
    assert world.value("service", "again__value", {"text": "it"}) == (7, Status.OK)
    with pytest.raises(TypeError, match="not supported between instances"):
        _feasts(world, {"text": "it"})


def test_reason_python_full_names(world: World) -> None:
    name = world.repository.project
    (world.folder / f"{name}.py").write_text("def echo(rows):\n    return {'same': rows['value']}\n")
    definitions = _one_view(String)
    echo = on_demand_feature_view(
        name="echo", sources=[definitions["view"]], schema=[Field(name="same", dtype=String)], mode="python"
    )(importlib.import_module(name).echo)
    service = FeatureService(name="service", features=[echo])
    world.apply(**{**definitions, "echo": echo, "service": service})
    world.write("view", {"text": ["it"]}, {"value": ["said"]}, [AS_OF])
    assert world.value("service", "echo__same", {"text": "it"}) == ("said", Status.OK)
    full = world.repository.online_features("service", [{"text": "it"}])
    short = world.repository.online_features("service", [{"text": "it"}], full_feature_names=False)
    assert ("echo__same" in full, short["same"]) == (False, ["said"])


def test_what_feast_calls_present_is_told_apart(world: World) -> None:
    world.apply(**_one_view(Int64))
    world.write("view", {"text": ["null", "zero"]}, {"value": [None, 0]}, [AS_OF, AS_OF])
    statuses = {text: world.value("service", "view__value", {"text": text})[1] for text in ("null", "zero", "nobody")}
    assert statuses == {"null": Status.NULL, "zero": Status.OK, "nobody": Status.MISSING}
    service: Any = world.repository._store.get_feature_service("service")
    with quiet():
        answer = world.repository._store.get_online_features(
            service, [{"text": text} for text in statuses], full_feature_names=True
        )
    told = dict(zip(answer.proto.metadata.feature_names.val, answer.proto.results, strict=True))["view__value"]
    assert set(told.statuses) == {1}, "PRESENT for all three"


def test_every_type_that_can_be_read_is_drawn() -> None:
    assert {str(from_value_type(kind)) for kind in VALUES} == {row.feast for row in TABLE.values()} | set(FEAST_ALIASES)
