"""Whatever exported it, a classifier's ONNX file is brought into one form, or refused with what is wrong."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from skewless.adapters.onnx_classifier import classifier_form, tensors_of
from skewless.adapters.onnx_runtime import OnnxModel
from skewless.errors import InvalidDefinition

ORIGIN = "/somewhere/on/one/machine.py"


def exported(*, rank: list[Any] | None = None, input_type: int = TensorProto.FLOAT, columns: int = 2) -> Any:
    """A classifier as exporters write it: a label besides, shapes left open, notes of where nodes came from."""
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["odds"], doc_string=ORIGIN),
        helper.make_node("Sigmoid", ["odds"], ["p"]),
        helper.make_node("Greater", ["p", "half"], ["label"]),
    ]
    weights = np.ones((3, columns), dtype=np.float32)
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", input_type, rank or [None, None])],
        [
            helper.make_tensor_value_info("label", TensorProto.BOOL, [None, columns]),
            helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, columns]),
        ],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.full((), 0.5, np.float32), "half")],
        doc_string=ORIGIN,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"source": ORIGIN})
    return model


def test_only_the_probabilities_are_left_with_shapes_and_without_origins() -> None:
    data = classifier_form(exported().SerializeToString(), 3)
    model = OnnxModel(data)
    assert (model.input_name, model.input_columns) == ("x", 3)
    assert (model.output_name, model.output_columns) == ("p", 2)
    assert tensors_of(data) == ("x", ("p", 2))
    assert ORIGIN.encode() not in data
    assert classifier_form(data, 3) == data


def test_one_column_of_probabilities_is_enough() -> None:
    assert tensors_of(classifier_form(exported(columns=1).SerializeToString(), 3)) == ("x", ("p", 1))


def _external() -> Any:
    model = exported()
    weights = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(weights, "weights.bin")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    return model


def _two_outputs() -> Any:
    model = exported()
    model.graph.node.append(helper.make_node("Identity", ["p"], ["q"]))
    model.graph.output.append(helper.make_tensor_value_info("q", TensorProto.FLOAT, [None, 2]))
    return model


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (exported(rank=[None, 4]), "one float32 tensor of 3 columns"),
        (exported(rank=[None]), "one float32 tensor of 3 columns"),
        (exported(columns=3), "of 1 or 2 columns must hold"),
        (_two_outputs(), "of 1 or 2 columns must hold"),
        (_external(), "weights in other files"),
    ],
)
def test_another_model_is_refused(model: Any, said: str) -> None:
    with pytest.raises(InvalidDefinition, match=said):
        classifier_form(model.SerializeToString(), 3)


@pytest.mark.parametrize("data", [b"", b"no model", b"\x80\x04."])
def test_what_is_no_onnx_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidDefinition, match="no ONNX model"):
        classifier_form(data, 3)
