"""Keys, fields and values must be what the installed Feast writes and reads, byte for byte."""

import base64
import importlib.util
import json
import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from skewless.canonical_json import digest
from skewless.dtypes import ELEMENTS, FEAST_ALIASES, TABLE, Dtype, from_feast
from skewless.errors import InvalidDefinition
from skewless.features.contract import FeatureContract, FeatureField, JoinKey, ViewRead
from skewless.features.plan import ReadPlan
from skewless.features.redis_layout import ENTITYLESS_KEY, KeyTemplate, feature_field, project_of, timestamp_field
from skewless.features.value_codec import block_decoder, event_times_of
from skewless.features.visibility import STATUS_CODE, STATUS_CODES, Status
from skewless.timestamps import SECOND_US, to_micros

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "contract" / "golden"
MANY = 64
"""So many items are read by arithmetic on all of them at once, and not one by one."""
VALUE_TYPES = {
    Dtype.BOOL: ValueType.BOOL,
    Dtype.BYTES: ValueType.BYTES,
    Dtype.FLOAT32: ValueType.FLOAT,
    Dtype.FLOAT64: ValueType.DOUBLE,
    Dtype.INT32: ValueType.INT32,
    Dtype.INT64: ValueType.INT64,
    Dtype.STRING: ValueType.STRING,
}
INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES = st.one_of(
    st.tuples(st.just(Dtype.BOOL), st.booleans()),
    st.tuples(st.just(Dtype.BYTES), st.binary(min_size=1)),  # whether empty bytes are null depends on what is beside
    st.tuples(st.just(Dtype.FLOAT32), st.floats(width=32, allow_nan=False)),
    st.tuples(st.just(Dtype.FLOAT64), st.floats(allow_nan=False)),
    st.tuples(st.just(Dtype.INT32), INT32),
    st.tuples(st.just(Dtype.INT64), INT64),
    st.tuples(st.just(Dtype.STRING), st.text()),
)


def _golden(name: str) -> list[dict[str, Any]]:
    vectors: list[dict[str, Any]] = json.loads((GOLDEN / name).read_text())["vectors"]
    return vectors


def _decode(dtype: Dtype, stored: Sequence[bytes | None], feast_type: str = "") -> list[tuple[object, Status]]:
    """(value or None, status) of each item."""
    decoded = block_decoder(dtype, feast_type)(stored)
    codes = [STATUS_CODE[Status.OK]] * len(stored) if decoded.codes is None else decoded.codes.tolist()
    statuses = [STATUS_CODES[code] for code in codes]
    return [
        (value if status is Status.OK else None, status)
        for value, status in zip(decoded.values.tolist(), statuses, strict=True)
    ]


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_golden_vectors", ROOT / "scripts" / "make_golden_vectors.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- golden vectors --------------------------------------------------------------------------------------------------


def test_the_installed_feast_still_makes_the_golden_vectors() -> None:
    made = _script().golden_files()
    assert sorted(made) == sorted(path.name for path in GOLDEN.iterdir())
    for name, text in made.items():
        assert (GOLDEN / name).read_text() == text, f"{name}: run scripts/make_golden_vectors.py, see what changed"


def test_golden_vectors_have_every_type_that_can_be_read() -> None:
    types = {vector["type"] for vector in _golden("values.json")}
    assert types == {row.feast for row in TABLE.values()} | set(FEAST_ALIASES)


@pytest.mark.parametrize("vector", _golden("keys.json"), ids=lambda vector: vector["shows"])
def test_a_golden_key_is_built_to_the_byte(vector: dict[str, Any]) -> None:
    declared = {
        name: (from_feast(kind, where="a golden key"), value) for name, (kind, value) in vector["join_keys"].items()
    }
    values = {name: _native(dtype, value) for name, (dtype, value) in declared.items()}
    entityless = list(declared) == [ENTITYLESS_KEY]
    keys = () if entityless else tuple(JoinKey(name, dtype) for name, (dtype, _) in declared.items())
    template = KeyTemplate.compile(keys, vector["project"])
    entity = [values[name] for name in template.names]
    assert template.keys([entity[0] if len(entity) == 1 else tuple(entity)])[0].hex() == vector["key"]
    # Under another name for the caller nothing changes in the store, not even the order of the parts.
    renamed = tuple(
        JoinKey(f"{chr(255 - number)}x", key.dtype, stored_name=key.name) for number, key in enumerate(keys)
    )
    other = KeyTemplate.compile(renamed, vector["project"])
    names = {key.name: key.key_name for key in renamed}
    entity = [values[names[name]] for name in other.names]
    assert other.keys([entity[0] if len(entity) == 1 else tuple(entity)])[0].hex() == vector["key"]
    assert project_of(bytes.fromhex(vector["key"])) == vector["project"]


@pytest.mark.parametrize("vector", _golden("fields.json"), ids=lambda vector: f"{vector['stored_name']}")
def test_a_golden_field_is_the_one_that_is_asked_for(vector: dict[str, Any]) -> None:
    stored, feature = vector["stored_name"], vector["feature"]
    assert feature_field(stored, feature).hex() == vector["field"]
    assert timestamp_field(stored).hex() == vector["time_field"]
    view = ViewRead(vector["view"], (), 0, (FeatureField(feature, Dtype.INT64),), stored_name=stored, alias="other")
    contract = FeatureContract("prod", (view,), (), digest("definitions"))
    (command,) = ReadPlan.compile(contract).prepare({}, 1).commands
    assert bytes.fromhex(vector["field"]) in command
    assert bytes.fromhex(vector["time_field"]) in command


@pytest.mark.parametrize("kind", sorted({vector["type"] for vector in _golden("values.json")}))
@pytest.mark.parametrize("repeated", [1, MANY], ids=["few", "many"])
def test_golden_values_decode_to_what_was_written(kind: str, repeated: int) -> None:
    vectors = [vector for vector in _golden("values.json") if vector["type"] == kind]
    dtype = from_feast(kind, where="a golden value")
    stored = [bytes.fromhex(vector["stored"]) for vector in vectors] * repeated
    read = _decode(dtype, stored, kind if kind in FEAST_ALIASES else "")
    for vector, (value, status) in zip(vectors * repeated, read, strict=True):
        expected = _expected(dtype, vector["value"])
        assert status is (Status.NULL if expected is None else Status.OK), vector
        assert _same(value, expected), f"{vector}: {value!r}"


def test_golden_event_times_are_read_to_the_microsecond() -> None:
    vectors = _golden("times.json")
    times, faults = event_times_of([bytes.fromhex(vector["stored"]) for vector in vectors])
    assert (times.tolist(), faults) == ([vector["micros"] for vector in vectors], ())


def _native(dtype: Dtype, value: Any) -> Any:
    """A golden value of a scalar dtype as columns hold it."""
    if value is None:
        return None
    if dtype is Dtype.BYTES:
        return base64.b64decode(value)
    if dtype is Dtype.TIMESTAMP:
        return to_micros(datetime.fromisoformat(value))
    if dtype in (Dtype.FLOAT32, Dtype.FLOAT64):
        return float(TABLE[dtype].numpy.type(float(value))) + 0.0
    return value


def _expected(dtype: Dtype, value: Any) -> object:
    """What a reader gives for what was written: NaN is stored as a null, and -0.0 is read as 0.0."""
    if dtype in ELEMENTS:
        return None if value is None else tuple(_native(ELEMENTS[dtype], each) for each in value)
    native = _native(dtype, value)
    return None if isinstance(native, float) and math.isnan(native) else native


def _same(value: object, expected: object) -> bool:
    if isinstance(expected, tuple) and isinstance(value, tuple):
        return len(value) == len(expected) and all(map(_same, value, expected))
    if isinstance(expected, float) and isinstance(value, float):
        if math.isnan(expected):
            return math.isnan(value)
        return value == expected and math.copysign(1, value) == math.copysign(1, expected)
    return type(value) is type(expected) and value == expected


# --- properties ------------------------------------------------------------------------------------------------------


def _feast_key(values: dict[str, tuple[Dtype, object]], project: str) -> bytes:
    protos = [python_values_to_proto_values([value], VALUE_TYPES[dtype])[0] for dtype, value in values.values()]
    key: bytes = _redis_key(project, EntityKey(join_keys=list(values), entity_values=protos), 3)
    return key


@given(number=INT64, small=INT32, text=st.text(), raw=st.binary(min_size=1))
def test_composite_keys_equal_feasts(number: int, small: int, text: str, raw: bytes) -> None:
    values: dict[str, tuple[Dtype, object]] = {
        "zeta": (Dtype.STRING, text),
        "alpha": (Dtype.INT64, number),
        "mid": (Dtype.INT32, small),
        "raw": (Dtype.BYTES, raw),
    }
    template = KeyTemplate.compile(tuple(JoinKey(name, dtype) for name, (dtype, _) in values.items()), "prod")
    assert template.keys([tuple(values[name][1] for name in template.names)]) == [_feast_key(values, "prod")]


@given(number=INT64, text=st.text())
def test_the_project_of_a_key_is_read_back_from_it(number: int, text: str) -> None:
    values: dict[str, tuple[Dtype, object]] = {"a": (Dtype.INT64, number), "b": (Dtype.STRING, text + "prod")}
    assert project_of(_feast_key(values, "nonprod")) == "nonprod"


@given(st.binary(max_size=40))
def test_a_key_of_someone_else_has_no_project_or_at_least_does_no_harm(key: bytes) -> None:
    assert project_of(key) != "prod"


def test_a_float_join_key_is_refused_with_the_allowed_types() -> None:
    with pytest.raises(InvalidDefinition, match=r"cannot serialize\. Allowed: `bytes`, `string`"):
        KeyTemplate.compile((JoinKey("price", Dtype.FLOAT64),), "prod")
    with pytest.raises(ValueError, match="not supported"):
        serialize_entity_key(
            EntityKey(join_keys=["price"], entity_values=python_values_to_proto_values([1.5], ValueType.DOUBLE)), 3
        )


@given(view=st.text(min_size=1), feature=st.text(min_size=1))
def test_hash_fields_equal_feasts(view: str, feature: str) -> None:
    assert feature_field(view, feature) == _mmh3(f"{view}:{feature}")
    assert timestamp_field(view) == f"_ts:{view}".encode()


@given(typed=VALUES, repeated=st.sampled_from([1, MANY]))
def test_values_that_feast_stores_decode_to_what_was_stored(typed: tuple[Dtype, object], repeated: int) -> None:
    dtype, value = typed
    stored = python_values_to_proto_values([value], VALUE_TYPES[dtype])[0].SerializeToString()
    assert _decode(dtype, [stored] * repeated) == [(value, Status.OK)] * repeated


@pytest.mark.parametrize("repeated", [1, MANY])
def test_null_missing_and_foreign_values_are_told_apart(repeated: int) -> None:
    null = python_values_to_proto_values([None], ValueType.INT64)[0].SerializeToString()
    foreign = python_values_to_proto_values([1.5], ValueType.DOUBLE)[0].SerializeToString()
    statuses = [status for _, status in _decode(Dtype.INT64, [null, None, foreign] * repeated)]
    assert statuses == [Status.NULL, Status.MISSING, Status.INVALID] * repeated


@given(seconds=st.integers(-(10**9), 10**10), micros=st.integers(0, SECOND_US - 1), repeated=st.sampled_from([1, MANY]))
def test_event_times_keep_their_microseconds(seconds: int, micros: int, repeated: int) -> None:
    stored = Timestamp(seconds=seconds, nanos=micros * 1_000 + 999).SerializeToString()
    times, faults = event_times_of([stored] * repeated)
    assert np.array_equal(times, np.full(repeated, seconds * SECOND_US + micros))
    assert faults == ()
