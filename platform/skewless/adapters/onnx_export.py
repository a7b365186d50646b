"""Writes a fitted transform as an ONNX file; the importer of `onnx` for transforms."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from skewless.errors import InvalidDefinition
from skewless.transforms import FittedTransform
from skewless.transforms.onnx_builder import ML, OnnxNode
from skewless.transforms.onnx_graph import OUTPUT, OnnxGraph, export

_IR_VERSION = 9
"""ONNX's file format that its operators of version 20 came with; any runtime that knows those reads it."""
_ML_VERSION = 3


def export_onnx(fitted: FittedTransform) -> bytes:
    """The transform as an ONNX model: inputs and output are described in `transforms/onnx_graph.py`.

    The same transform gives the same bytes. Its digest and the names of its outputs are in the model's metadata.
    Raises InvalidDefinition naming what cannot be exported.
    """
    graph = export(fitted)
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [_node(each) for each in graph.nodes],
            "skewless transform",
            [_value(name, element, 1) for name, element in graph.inputs],
            [_value(OUTPUT, "FLOAT", len(graph.output_names))],
            [_literal(name, array) for name, array in graph.constants.items()],
        ),
        producer_name="skewless",
        ir_version=_IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", graph.opset), onnx.helper.make_opsetid(ML, _ML_VERSION)],
    )
    onnx.helper.set_model_props(model, {"transform_digest": fitted.digest, "outputs": _listed(graph)})
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise InvalidDefinition(f"the exported transform is no valid ONNX model: {error}") from error
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _listed(graph: OnnxGraph) -> str:
    return "\n".join(graph.output_names)


def _node(node: OnnxNode) -> Any:
    attributes = dict(node.attributes)
    if node.operator == "Cast":
        attributes["to"] = getattr(onnx.TensorProto, attributes["to"])
    return onnx.helper.make_node(node.operator, node.inputs, [node.output], domain=node.domain, **attributes)


def _value(name: str, element: str, columns: int) -> Any:
    return onnx.helper.make_tensor_value_info(name, getattr(onnx.TensorProto, element), ["rows", columns])


def _literal(name: str, array: NDArray[Any]) -> Any:
    if array.dtype == object:
        texts = [text.encode() for text in array.ravel().tolist()]
        return onnx.helper.make_tensor(name, onnx.TensorProto.STRING, array.shape, texts)
    return onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
