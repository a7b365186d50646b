"""Brings the ONNX file of a binary classifier into the form that bundles ship, whatever exported it.

One float32 input (rows, columns), one float32 output (rows, 1 or 2) with the positive class in its last column, shapes
stated, weights inside, and no notes of where each node came from, which hold paths of the machine that exported it.
"""

from typing import Any

import onnx

from skewless.errors import InvalidDefinition
from skewless.training.learner import CLASSES

_EXPORT_HINT = "export probabilities as one tensor: for scikit-learn `to_onnx(model, rows, options={'zipmap': False})`"


def classifier_form(data: bytes, columns: int) -> bytes:
    """The model with its probabilities as its only output. Raises InvalidDefinition for another model."""
    try:
        model = onnx.load_model_from_string(data)
        graph = model.graph
        external = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer)
        if not external:
            onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and ONNX's exceptions share no base class; nothing else runs in here
        raise InvalidDefinition(f"this is no ONNX model: {error}") from error
    if external:
        raise InvalidDefinition("the ONNX model keeps weights in other files", hint="save it without external data")
    taken = _only_input(graph, columns)
    given = _probabilities(graph)
    taken.CopyFrom(onnx.helper.make_tensor_value_info(taken.name, onnx.TensorProto.FLOAT, ["rows", columns]))
    width = _width(given) or CLASSES
    kept = onnx.helper.make_tensor_value_info(given.name, onnx.TensorProto.FLOAT, ["rows", width])
    del graph.output[:]
    graph.output.append(kept)
    _forget_origins(model)
    onnx.checker.check_model(model)
    written: bytes = model.SerializeToString(deterministic=True)
    return written


def tensors_of(data: bytes) -> tuple[str, tuple[str, int]]:
    """Name of the input, and name and columns of the output, of a model in that form."""
    graph = onnx.load_model_from_string(data).graph
    (output,) = graph.output
    return graph.input[0].name, (output.name, _width(output))


def _only_input(graph: Any, columns: int) -> Any:
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [each for each in graph.input if each.name not in weights]
    if len(inputs) != 1 or not _is_float(inputs[0]) or _width(inputs[0]) not in (0, columns):
        raise InvalidDefinition(
            f"the ONNX model takes {_listed(inputs)}; it must take one float32 tensor of {columns} columns",
            hint="export the model alone, without preprocessing; the transform gives it all columns in one tensor",
        )
    return inputs[0]


def _probabilities(graph: Any) -> Any:
    """The output that can hold probabilities; a label beside it is left out."""
    found = [each for each in graph.output if _is_float(each) and _width(each) in (0, 1, CLASSES)]
    if len(found) != 1:
        raise InvalidDefinition(
            f"the ONNX model gives {_listed(graph.output)}; one float32 tensor of 1 or {CLASSES} columns must hold the"
            " probabilities",
            hint=_EXPORT_HINT,
        )
    return found[0]


def _is_float(value: Any) -> bool:
    return bool(
        value.type.WhichOneof("value") == "tensor_type" and value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    )


def _width(value: Any) -> int:
    """Columns of a tensor (rows, columns); 0 where they are not stated, -1 where there are not two axes."""
    if not value.type.tensor_type.HasField("shape"):
        return 0
    axes = value.type.tensor_type.shape.dim
    return int(axes[1].dim_value) if len(axes) == 2 else -1


def _listed(values: Any) -> str:
    kinds = {each.name: each.type.WhichOneof("value") or "nothing" for each in values}
    return ", ".join(f"`{name}` ({kind.removesuffix('_type')})" for name, kind in kinds.items()) or "nothing"


def _forget_origins(model: Any) -> None:
    model.ClearField("doc_string")
    model.graph.ClearField("doc_string")
    del model.metadata_props[:]
    for node in model.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
