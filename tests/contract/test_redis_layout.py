"""Keys, fields and values must be what the installed Feast writes and reads, byte for byte."""

from datetime import UTC, datetime

import pytest
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from skewless.dtypes import Dtype
from skewless.errors import InvalidDefinition
from skewless.features.contract import JoinKey
from skewless.features.redis_layout import ENTITYLESS_KEY, KeyTemplate, feature_field, project_of, timestamp_field
from skewless.features.value_codec import decode_timestamp, decoder
from skewless.timestamps import SECOND_US, to_micros

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
    st.tuples(st.just(Dtype.BYTES), st.binary(min_size=1)),  # Feast stores empty bytes as a null
    st.tuples(st.just(Dtype.FLOAT32), st.floats(width=32, allow_nan=False)),
    st.tuples(st.just(Dtype.FLOAT64), st.floats(allow_nan=False)),
    st.tuples(st.just(Dtype.INT32), INT32),
    st.tuples(st.just(Dtype.INT64), INT64),
    st.tuples(st.just(Dtype.STRING), st.text()),
)


def _feast_key(values: dict[str, tuple[Dtype, object]], project: str) -> bytes:
    protos = [python_values_to_proto_values([value], VALUE_TYPES[dtype])[0] for dtype, value in values.values()]
    key: bytes = _redis_key(project, EntityKey(join_keys=list(values), entity_values=protos), 3)
    return key


def test_a_key_seen_in_the_wild_is_built_to_the_byte() -> None:
    template = KeyTemplate.compile((JoinKey("driver_id", Dtype.INT64),), "demo")
    golden = "0100000002000000090000006472697665725f69640400000008000000e90300000000000064656d6f"
    assert template.key((1001,)).hex() == golden


@given(number=INT64, small=INT32, text=st.text(), raw=st.binary(min_size=1))
def test_composite_keys_equal_feasts(number: int, small: int, text: str, raw: bytes) -> None:
    values: dict[str, tuple[Dtype, object]] = {
        "zeta": (Dtype.STRING, text),
        "alpha": (Dtype.INT64, number),
        "mid": (Dtype.INT32, small),
        "raw": (Dtype.BYTES, raw),
    }
    template = KeyTemplate.compile(tuple(JoinKey(name, dtype) for name, (dtype, _) in values.items()), "prod")
    assert template.key(tuple(values[name][1] for name in template.names)) == _feast_key(values, "prod")


@given(number=INT64, text=st.text())
def test_the_project_of_a_key_is_read_back_from_it(number: int, text: str) -> None:
    values: dict[str, tuple[Dtype, object]] = {"a": (Dtype.INT64, number), "b": (Dtype.STRING, text + "prod")}
    assert project_of(_feast_key(values, "nonprod")) == "nonprod"


@given(st.binary(max_size=40))
def test_a_key_of_someone_else_has_no_project_or_at_least_does_no_harm(key: bytes) -> None:
    assert project_of(key) != "prod"


def test_a_view_without_entity_has_feasts_dummy_key() -> None:
    template = KeyTemplate.compile((), "prod")
    assert template.key(()) == _feast_key({ENTITYLESS_KEY: (Dtype.STRING, "")}, "prod")


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


@given(VALUES)
def test_values_that_feast_stores_decode_to_what_was_stored(typed: tuple[Dtype, object]) -> None:
    dtype, value = typed
    stored = python_values_to_proto_values([value], VALUE_TYPES[dtype])[0].SerializeToString()
    assert decoder(dtype, where="v:f")(stored) == value


def test_a_stored_null_is_empty_bytes_and_decodes_to_none() -> None:
    stored = python_values_to_proto_values([None], ValueType.INT64)[0].SerializeToString()
    assert stored == b""
    assert decoder(Dtype.INT64, where="v:f")(stored) is None


def test_a_stored_timestamp_decodes_to_microseconds_of_its_whole_second() -> None:
    moment = datetime(2013, 5, 1, 12, 30, tzinfo=UTC)
    stored = python_values_to_proto_values([moment], ValueType.UNIX_TIMESTAMP)[0].SerializeToString()
    assert decoder(Dtype.TIMESTAMP, where="v:f")(stored) == to_micros(moment)


def test_a_value_written_under_another_type_is_never_served() -> None:
    stored = python_values_to_proto_values([1.5], ValueType.DOUBLE)[0].SerializeToString()
    with pytest.raises(InvalidDefinition, match="feature `v:f` is declared `int64`"):
        decoder(Dtype.INT64, where="feature `v:f`")(stored)


@given(seconds=st.integers(-(10**9), 10**10), micros=st.integers(0, SECOND_US - 1))
def test_event_times_keep_their_microseconds(seconds: int, micros: int) -> None:
    stored = Timestamp(seconds=seconds, nanos=micros * 1_000 + 999).SerializeToString()
    assert decode_timestamp(stored) == seconds * SECOND_US + micros
