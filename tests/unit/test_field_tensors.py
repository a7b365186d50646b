"""Tensors of the Open Inference Protocol become the same columns as the same instances in JSON, or are refused."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.canonical_json import digest
from skewless.dtypes import Column, Dtype, to_python
from skewless.errors import InvalidRequest, LimitExceeded
from skewless.features.contract import FeatureContract, RequestField
from skewless.limits import ROWS_MAX, STRING_BYTES_MAX
from skewless.serving.answer_tensors import AnswerTensor, TensorSpec, raw_strings
from skewless.serving.field_tensors import FieldTensors, GivenTensor
from skewless.serving.instances import InstanceValidator
from skewless.serving.tensor_values import WrongContents, split_strings
from skewless.timestamps import format_timestamp

DTYPES = (
    Dtype.BOOL,
    Dtype.INT32,
    Dtype.INT64,
    Dtype.FLOAT32,
    Dtype.FLOAT64,
    Dtype.STRING,
    Dtype.BYTES,
    Dtype.TIMESTAMP,
)
WIRE = {"BOOL": "?", "INT32": "<i4", "INT64": "<i8", "FP32": "<f4", "FP64": "<f8"}
YEAR_9999 = 253_402_300_799_999_999


def validator_of(*fields: RequestField) -> InstanceValidator:
    return InstanceValidator.compile(FeatureContract("demo", (), fields, digest("definitions")))


EVERY = validator_of(
    *(RequestField(f"a_{dtype}", dtype) for dtype in DTYPES),
    *(RequestField(f"n_{dtype}", dtype, nullable=True) for dtype in DTYPES),
)
TENSORS = FieldTensors.compile(EVERY)
DATATYPES = {spec.name: spec.datatype for spec in TENSORS.inputs}

VALUES: dict[Dtype, st.SearchStrategy[Any]] = {
    Dtype.BOOL: st.booleans(),
    Dtype.INT32: st.integers(-(2**31), 2**31 - 1),
    Dtype.INT64: st.integers(-(2**63), 2**63 - 1),
    Dtype.FLOAT32: st.floats(width=32, allow_nan=False, allow_infinity=False),
    Dtype.FLOAT64: st.floats(allow_nan=False, allow_infinity=False),
    Dtype.STRING: st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    Dtype.BYTES: st.binary(max_size=20),
    Dtype.TIMESTAMP: st.integers(-62_135_596_800_000_000, YEAR_9999),
}


@st.composite
def rows_of_every_field(draw: st.DrawFn) -> list[dict[str, object]]:
    """Instances as Python values of their dtypes, None where null."""
    row = {
        field.name: st.none() | VALUES[field.dtype] if field.nullable else VALUES[field.dtype] for field in EVERY.fields
    }
    return draw(st.lists(st.fixed_dictionaries(row), min_size=1, max_size=5))


def as_json(dtype: Dtype, value: Any) -> object:
    """What the REST API's instances hold."""
    if value is None:
        return None
    if dtype is Dtype.BYTES:
        return base64.b64encode(value).decode()
    return format_timestamp(value) if dtype is Dtype.TIMESTAMP else value


def raw_of(datatype: str, values: Sequence[Any]) -> bytes:
    """Raw contents as Triton's clients write them; anything stands where a value is None."""
    if datatype == "BYTES":
        elements = [b"?" if each is None else each.encode() if isinstance(each, str) else each for each in values]
        return b"".join(len(each).to_bytes(4, "little") + each for each in elements)
    return np.array([0 if each is None else each for each in values], dtype=WIRE[datatype]).tobytes()


def given_tensors(
    rows: list[dict[str, object]], contents: Callable[[str, list[Any]], dict[str, Any]], *, companions: bool
) -> list[GivenTensor]:
    """A tensor per field, and one per nullable field that says which rows are valid."""
    tensors: list[GivenTensor] = []
    for field in EVERY.fields:
        values = [row[field.name] for row in rows]
        named = {field.name: values}
        if field.nullable and companions:
            named[f"{field.name}__valid"] = [each is not None for each in values]
        for name, each in named.items():
            path = f"$.inputs[{len(tensors)}]"
            tensors.append(GivenTensor(name, DATATYPES[name], [len(rows), 1], path, **contents(DATATYPES[name], each)))
    return tensors


def assert_equal(left: dict[str, Column], right: dict[str, Column]) -> None:
    assert list(left) == list(right)
    for name, column in left.items():
        other = right[name]
        assert column.dtype is other.dtype
        assert column.values.dtype == other.values.dtype, name
        assert column.valid.tolist() == other.valid.tolist(), name
        if column.values.dtype == object:
            assert column.values.tolist() == other.values.tolist(), name
        else:
            assert column.values.tobytes() == other.values.tobytes(), name
        assert column.values.flags.c_contiguous
        assert column.values.flags.writeable


@given(rows_of_every_field())
def test_raw_tensors_are_read_as_the_same_instances_in_json_are(rows: list[dict[str, object]]) -> None:
    in_json = [{field.name: as_json(field.dtype, row[field.name]) for field in EVERY.fields} for row in rows]
    expected, count = EVERY.columns(in_json)
    found, rows_found = TENSORS.columns(
        given_tensors(rows, lambda datatype, values: {"raw": raw_of(datatype, values)}, companions=True)
    )
    assert rows_found == count
    assert_equal(found, expected)


@given(rows_of_every_field())
def test_lists_are_read_as_raw_tensors_are(rows: list[dict[str, object]]) -> None:
    raw, _ = TENSORS.columns(
        given_tensors(rows, lambda datatype, values: {"raw": raw_of(datatype, values)}, companions=True)
    )
    listed, _ = TENSORS.columns(given_tensors(rows, lambda _, values: {"data": values}, companions=False))
    nested, _ = TENSORS.columns(
        given_tensors(rows, lambda _, values: {"data": [[each] for each in values]}, companions=False)
    )
    assert_equal(listed, raw)
    assert_equal(nested, raw)


NUMBERS = validator_of(RequestField("x", Dtype.FLOAT32, nullable=True), RequestField("at", Dtype.TIMESTAMP))
SPEED = GivenTensor("x", "FP32", [2], "$.inputs[0]", data=[1.5, 2])
AT = GivenTensor("at", "INT64", [2], "$.inputs[1]", data=[0, 1])
VALID = GivenTensor("x__valid", "BOOL", [2], "$.inputs[2]", data=[True, False])


def columns(*tensors: GivenTensor) -> dict[str, Column]:
    return FieldTensors.compile(NUMBERS).columns(tensors)[0]


def refused(*tensors: GivenTensor, code: str, path: str) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        columns(*tensors)
    assert (caught.value.code, caught.value.path) == (code, path), caught.value
    assert caught.value.allowed or caught.value.hint
    return caught.value


def test_a_row_that_is_not_valid_is_null_and_its_element_is_not_looked_at() -> None:
    raw = replace(SPEED, data=None, raw=np.array([1.5, np.nan], dtype="<f4").tobytes())
    found = columns(raw, AT, VALID)["x"]
    assert to_python(found) == [1.5, None]
    assert found.values.tolist() == [1.5, 0.0], "a null holds the dtype's zero"
    assert to_python(columns(replace(SPEED, data=[1.5, "?"]), AT, VALID)["x"]) == [1.5, None]


def test_null_in_a_list_is_null_where_no_other_input_says_it() -> None:
    assert to_python(columns(replace(SPEED, data=[None, 2.5]), AT)["x"]) == [None, 2.5]
    refused(replace(SPEED, data=[None, 2.5]), AT, VALID, code="mistyped_field", path="$.inputs[0].data[0]")
    refused(SPEED, replace(AT, data=[0, None]), code="mistyped_field", path="$.inputs[1].data[1]")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_json_cannot_say_is_refused_in_tensors_too(value: float) -> None:
    raw = replace(SPEED, data=None, raw=np.array([1.5, value], dtype="<f4").tobytes())
    told = refused(raw, AT, code="mistyped_field", path="$.inputs[0].data[1]")
    assert "__valid" in told.hint
    refused(replace(SPEED, data=[1.5, value]), AT, code="mistyped_field", path="$.inputs[0].data[1]")


def test_datatypes_are_not_cast() -> None:
    told = refused(replace(SPEED, datatype="FP64"), AT, code="mistyped_field", path="$.inputs[0].datatype")
    assert told.allowed == "`FP32`"
    refused(SPEED, replace(AT, data=[0, 1.0]), code="mistyped_field", path="$.inputs[1].data[1]")
    refused(SPEED, replace(AT, data=[0, True]), code="mistyped_field", path="$.inputs[1].data[1]")


@pytest.mark.parametrize("moment", [-62_135_596_800_000_001, YEAR_9999 + 1])
def test_moments_outside_the_years_that_a_receipt_can_show_are_refused(moment: int) -> None:
    raw = replace(AT, data=None, raw=np.array([0, moment], dtype="<i8").tobytes())
    refused(SPEED, raw, code="mistyped_field", path="$.inputs[1].data[1]")
    refused(SPEED, replace(AT, data=[0, moment]), code="mistyped_field", path="$.inputs[1].data[1]")


def test_unknown_missing_and_repeated_inputs_are_named() -> None:
    told = refused(SPEED, replace(AT, name="att"), code="unknown_input", path="$.inputs.att")
    assert told.hint == "did you mean `at`?"
    refused(SPEED, code="missing_field", path="$.inputs.at")
    assert "x__valid" in refused(AT, code="missing_field", path="$.inputs.x").hint
    refused(SPEED, AT, SPEED, code="invalid_tensor", path="$.inputs[0].name")
    refused(SPEED, AT, replace(VALID, name="at__valid"), code="unknown_input", path="$.inputs.at__valid")


@pytest.mark.parametrize("shape", [[], [2, 2], [2, 1, 1], [1, 2], [2.0], [True], ["2"], [None]])
def test_shapes_other_than_rows_and_one_are_refused(shape: list[Any]) -> None:
    refused(replace(SPEED, shape=shape), AT, code="invalid_tensor", path="$.inputs[0].shape")


@pytest.mark.parametrize("rows", [0, -1])
def test_a_request_without_rows_is_refused(rows: int) -> None:
    refused(replace(SPEED, shape=[rows], data=[]), AT, code="invalid_tensor", path="$.inputs[0].shape")


def test_inputs_of_different_lengths_are_refused() -> None:
    refused(SPEED, replace(AT, shape=[3], data=[0, 1, 2]), code="invalid_tensor", path="$.inputs[1].shape")
    refused(SPEED, replace(AT, data=[0]), code="invalid_tensor", path="$.inputs[1].data")
    refused(SPEED, replace(AT, data=None, raw=b"1234567"), code="invalid_tensor", path="$.inputs[1].data")


def test_more_rows_than_the_limit_are_refused_before_they_are_read() -> None:
    with pytest.raises(LimitExceeded):
        columns(replace(SPEED, shape=[ROWS_MAX + 1], data=[]), AT)


def test_a_flag_that_is_neither_0_nor_1_is_refused() -> None:
    raw = replace(VALID, data=None, raw=b"\x01\x02")
    refused(SPEED, AT, raw, code="mistyped_field", path="$.inputs[2].data[1]")


TEXT = validator_of(RequestField("origin", Dtype.STRING))


@pytest.mark.parametrize("element", [b"\xff", b"a" * (STRING_BYTES_MAX + 1)])
def test_texts_that_are_no_utf_8_or_too_long_are_refused(element: bytes) -> None:
    tensor = GivenTensor("origin", "BYTES", [1], "$.inputs[0]", raw=raw_of("BYTES", [element]))
    with pytest.raises(InvalidRequest) as caught:
        FieldTensors.compile(TEXT).columns([tensor])
    assert caught.value.path == "$.inputs[0].data[0]"


@pytest.mark.parametrize(
    "raw", [b"", b"\x01", b"\x01\x00\x00\x00", b"\xff\xff\xff\xffab", b"\x01\x00\x00\x00ab", b"\x00\x00\x00\x00" * 2]
)
def test_lengths_that_do_not_fit_the_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(WrongContents):
        split_strings(raw, 1)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_texts_are_written_as_they_are_read(texts: list[str]) -> None:
    assert [each.decode() for each in split_strings(raw_strings(texts), len(texts))] == texts


def test_a_field_named_as_what_says_validity_stays_a_field() -> None:
    fields = RequestField("x", Dtype.FLOAT32, nullable=True), RequestField("x__valid", Dtype.INT64)
    assert FieldTensors.compile(validator_of(*fields)).inputs == (
        TensorSpec("x", "FP32"),
        TensorSpec("x__valid", "INT64"),
    )


def test_every_dtype_of_a_field_has_a_datatype_and_only_nullable_fields_say_validity() -> None:
    listed = [(spec.name, spec.datatype) for spec in TENSORS.inputs if spec.optional]
    assert listed == [(f"n_{dtype}__valid", "BOOL") for dtype in DTYPES]


def test_float32_outputs_are_told_exactly() -> None:
    values = np.array([[0.1], [1 / 3]], dtype=np.float32)
    tensor = AnswerTensor("probability", "FP32", (2, 1), values)
    assert np.array(tensor.data(), dtype=np.float32).tobytes() == tensor.raw() == values.tobytes()
