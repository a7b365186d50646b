"""What a repair writes into the online store is what Feast would have written, byte for byte."""

import base64
import json
import math
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skewless.dtypes import ELEMENTS, FEAST_ALIASES, TABLE, Dtype, column_of, from_feast
from skewless.features.value_codec import block_decoder, event_times_of
from skewless.features.value_encoding import stored_event_time, stored_values
from skewless.features.visibility import STATUS_CODE, Status
from skewless.timestamps import to_micros

GOLDEN = Path(__file__).parent / "golden"


def _golden(name: str) -> list[dict[str, Any]]:
    vectors: list[dict[str, Any]] = json.loads((GOLDEN / name).read_text())["vectors"]
    return vectors


def _native(dtype: Dtype, value: Any) -> Any:
    if value is None:
        return None
    if dtype in ELEMENTS:
        return tuple(_native(ELEMENTS[dtype], each) for each in value)
    if dtype is Dtype.BYTES:
        return base64.b64decode(value)
    if dtype is Dtype.TIMESTAMP:
        return to_micros(datetime.fromisoformat(value))
    return float(value) if dtype in (Dtype.FLOAT32, Dtype.FLOAT64) else value


@pytest.mark.parametrize("kind", sorted({vector["type"] for vector in _golden("values.json")}))
def test_values_are_written_as_feast_writes_them(kind: str) -> None:
    dtype = from_feast(kind, where="a golden value")
    for vector in _golden("values.json"):
        if vector["type"] != kind:
            continue
        value = _native(dtype, vector["value"])
        if isinstance(value, float) and math.isnan(value):
            value = None  # a NaN is a null as soon as it is read, online and offline
        (written,) = stored_values(column_of(dtype, [value]), kind if kind in FEAST_ALIASES else "")
        expected = bytes.fromhex(vector["stored"])
        if value is None or value == b"":
            # Feast has two ways to write a null time and empty bytes; all of them are read as a null.
            codes = block_decoder(dtype, kind if kind in FEAST_ALIASES else "")([written, expected]).codes
            assert codes is not None
            assert set(codes.tolist()) == {STATUS_CODE[Status.NULL]}, vector
        else:
            assert written == expected, vector


def test_event_times_are_written_as_feast_writes_them() -> None:
    for vector in _golden("times.json"):
        stored = bytes.fromhex(vector["stored"])
        # Nanoseconds below a microsecond are cut when they are read, and Feast's own writer has none.
        again = stored_event_time(vector["micros"])
        assert event_times_of([again])[0].tolist() == [vector["micros"]]
        assert again == stored or vector["micros"] == event_times_of([stored])[0].tolist()[0]


_SECONDS = st.integers(-(2**40), 2**40).map(lambda seconds: seconds * 1_000_000)
_ELEMENTS: dict[Dtype, st.SearchStrategy[Any]] = {
    Dtype.BOOL: st.booleans(),
    Dtype.INT32: st.integers(-(2**31), 2**31 - 1),
    Dtype.INT64: st.integers(-(2**63), 2**63 - 1),
    Dtype.FLOAT32: st.floats(width=32, allow_nan=False).map(lambda value: value + 0.0),
    Dtype.FLOAT64: st.floats(allow_nan=False).map(lambda value: value + 0.0),
    Dtype.STRING: st.text(),
    Dtype.BYTES: st.binary(min_size=1),
    Dtype.TIMESTAMP: _SECONDS,
}
_VALUES = _ELEMENTS | {
    listed: st.lists(_ELEMENTS[element], max_size=4).map(tuple) for listed, element in ELEMENTS.items()
}


@pytest.mark.parametrize("dtype", Dtype)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_is_written_is_read_back(dtype: Dtype, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.none() | _VALUES[dtype], min_size=1, max_size=8))
    column = column_of(dtype, values)
    decoded = block_decoder(dtype)(stored_values(column))
    codes = [0] * len(values) if decoded.codes is None else decoded.codes.tolist()
    assert codes == [STATUS_CODE[Status.NULL if each is None else Status.OK] for each in values]
    assert decoded.values.tolist() == column.values.tolist()
    assert decoded.values.dtype == TABLE[dtype].numpy


@settings(max_examples=50, deadline=None)
@given(st.integers(-(10**15), 10**17))
def test_event_times_are_read_back(moment: int) -> None:
    assert event_times_of([stored_event_time(moment)])[0].tolist() == [moment]
