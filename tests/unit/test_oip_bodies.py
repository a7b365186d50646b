"""Whatever bytes come as a body or a tensor, they are read or refused; nothing else is raised."""

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from harness.bundles import contract
from skewless.errors import InvalidRequest
from skewless.serving.field_tensors import FieldTensors, GivenTensor
from skewless.serving.instances import InstanceValidator
from skewless.serving.ports import ModelSignature
from skewless.serving.request_parameters import read_parameters
from skewless_gateway.edges.oip_binary import OipBody, read_body, written
from skewless_gateway.edges.raw_model import read_tensor

TENSORS = FieldTensors.compile(InstanceValidator.compile(contract()))
SIGNATURE = ModelSignature("features", 2, (("probabilities", 2),))
NAMES = st.sampled_from([spec.name for spec in TENSORS.inputs]) | st.text(max_size=5)
DATATYPES = st.sampled_from(["BOOL", "INT32", "INT64", "FP32", "BYTES", "FP16", ""])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.sampled_from(
    ["id", "inputs", "outputs", "parameters", "name", "datatype", "shape", "data", "binary_data_size", "model_name"]
)
NEARLY_RIGHT = st.recursive(
    JSON | NAMES | DATATYPES | st.lists(st.integers(-1, 3), max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS, inner, max_size=6),
    max_leaves=25,
)


def explained(error: InvalidRequest, path: str = "$") -> None:
    """Assert that a refusal says where, and what is allowed or to be done."""
    assert error.path.startswith(path)
    assert error.allowed or error.hint


@given(NEARLY_RIGHT, st.binary(max_size=20), st.integers(-2, 2) | st.none())
@example({"inputs": [{"name": "origin", "datatype": "BYTES", "shape": [1], "data": [[[[]]]]}]}, b"", None)
def test_a_body_is_read_or_refused(document: Any, contents: bytes, off_by: int | None) -> None:
    head = json.dumps(document).encode()
    length = None if off_by is None else str(len(head) + off_by).encode()
    try:
        body = read_body(head + contents, length)
        read_parameters(body.parameters, as_of_allowed=True)
        TENSORS.columns(body.tensors)
    except InvalidRequest as error:
        explained(error)


@given(st.binary(max_size=60), st.none() | st.binary(max_size=4))
def test_bytes_that_are_no_body_are_refused(body: bytes, length: bytes | None) -> None:
    try:
        read_body(body, length)
    except InvalidRequest as error:
        explained(error)


@st.composite
def given_tensors(draw: st.DrawFn) -> list[GivenTensor]:
    """Every input of the contract, most of them with something wrong."""
    rows = draw(st.integers(0, 3))
    tensors: list[GivenTensor] = []
    for spec in TENSORS.inputs:
        shape: list[Any] = draw(st.sampled_from([[rows], [rows, 1]]) | st.lists(SCALARS, max_size=3))
        data = draw(st.none() | st.lists(SCALARS | st.lists(SCALARS, max_size=2), min_size=rows, max_size=rows))
        raw = draw(st.binary(max_size=16)) if data is None else None
        path = f"$.inputs[{len(tensors)}]"
        tensors.append(GivenTensor(spec.name, draw(st.just(spec.datatype) | DATATYPES), shape, path, data, raw))
    return tensors


@given(given_tensors())
def test_tensors_are_read_or_refused(tensors: list[GivenTensor]) -> None:
    try:
        columns, rows = TENSORS.columns(tensors)
    except InvalidRequest as error:
        explained(error, "$.inputs")
    else:
        assert rows > 0
        assert {len(column) for column in columns.values()} == {rows}


@given(
    st.lists(SCALARS, max_size=3), st.lists(SCALARS | st.lists(SCALARS, max_size=3), max_size=4), st.binary(max_size=17)
)
def test_a_raw_models_tensor_is_read_or_refused(shape: list[Any], data: list[Any], raw: bytes) -> None:
    for each in ({"data": data}, {"raw": raw}):
        for wanted in (shape, [1, 2], [2, 2]):
            try:
                tensor = read_tensor([GivenTensor("features", "FP32", wanted, "$.inputs[0]", **each)], SIGNATURE)
            except InvalidRequest as error:
                explained(error, "$.inputs")
            else:
                assert tensor.shape == tuple(wanted)


def test_an_answer_without_bytes_is_all_json() -> None:
    content, length = written({"model_name": "m"}, [], None)
    assert (json.loads(content), length) == ({"model_name": "m", "outputs": []}, len(content))


def test_what_is_wanted_as_bytes_is_all_some_or_nothing() -> None:
    def binary(**members: object) -> OipBody:
        return read_body(json.dumps({"inputs": [], **members}).encode(), None)

    assert binary().binary == frozenset()
    assert binary(parameters={"binary_data_output": True}).binary is None
    outputs = [{"name": "a"}, {"name": "b", "parameters": {"binary_data": True}}]
    assert binary(outputs=outputs).binary == frozenset({"b"})
    some = binary(
        outputs=[*outputs, {"name": "c", "parameters": {"binary_data": False}}], parameters={"binary_data_output": True}
    )
    assert some.binary == frozenset({"a", "b"})
