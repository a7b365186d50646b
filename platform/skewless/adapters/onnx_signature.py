"""Reads from an ONNX file what it takes and gives, for admission; the file is not run.

A bundle's model takes one float32 tensor (rows, columns) and gives float32 tensors (rows, columns), where `rows` is any
number: batches are formed while the model serves. Other outputs that a file has, such as a label beside probabilities,
may stay; nobody asks for them.
"""

from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from skewless.adapters.model_on_disk import on_disk
from skewless.bundles.model_files import ModelFiles
from skewless.errors import BundleRefused
from skewless.serving.ports import ModelSignature

_HINT = "export it with one float32 input of shape [None, columns] and float32 outputs of shape [None, columns]"


def onnx_signature(model: ModelFiles, declared: ModelSignature) -> ModelSignature:
    """What an ONNX file takes, and which of the declared outputs it gives.

    Raises BundleRefused for a file that is no valid ONNX model, for weights that lie in files the bundle lacks, and for
    tensors that are not float32 (rows, columns) with any number of rows.
    """
    proto = _read(model)
    initial = {each.name for each in proto.graph.initializer}
    inputs = [each for each in proto.graph.input if each.name not in initial]
    if len(inputs) != 1:
        listed = ", ".join(f"`{each.name}`" for each in inputs) or "none"
        raise BundleRefused(f"`{model.entry}` has the inputs {listed}; a bundle's model has exactly one", hint=_HINT)
    wanted = [name for name, _ in declared.outputs]
    outputs = {each.name: each for each in proto.graph.output}
    return ModelSignature(
        input_name=inputs[0].name,
        input_columns=_columns(inputs[0], "input", model.entry),
        outputs=tuple((name, _columns(outputs[name], "output", model.entry)) for name in wanted if name in outputs)
        or tuple((name, _columns(each, "output", model.entry)) for name, each in outputs.items()),
    )


def _read(model: ModelFiles) -> Any:
    try:
        proto = onnx.load_model_from_string(model.files[model.entry])
        _check_weights(proto, model)
        with on_disk(model) as path:
            onnx.checker.check_model(path)
    except (DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise BundleRefused(f"`{model.entry}` is no valid ONNX model: {error}", hint="export it again") from error
    return proto


def _check_weights(proto: Any, model: ModelFiles) -> None:
    for tensor in _tensors(proto.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            if place not in model.files:
                raise BundleRefused(
                    f"the weights `{tensor.name}` of `{model.entry}` lie in `{place}`, which is no file of the bundle",
                    hint="keep that file beside the model, or save all in one:"
                    " onnx.save(onnx.load(path), path, save_as_external_data=False)",
                )


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor with data in a graph and the graphs within it."""
    yield from graph.initializer
    yield from (part for sparse in graph.sparse_initializer for part in (sparse.values, sparse.indices))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(inner)


def _columns(value: Any, kind: str, entry: str) -> int:
    """The columns of a tensor (rows, columns)."""
    tensor = value.type.tensor_type
    dimensions = [each.dim_value or each.dim_param or None for each in tensor.shape.dim]
    element = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    shape = ", ".join("any" if each is None else str(each) for each in dimensions)
    if tensor.elem_type != onnx.TensorProto.FLOAT or len(dimensions) != 2 or not isinstance(dimensions[1], int):
        raise BundleRefused(f"the {kind} `{value.name}` of `{entry}` is {element} of shape [{shape}]", hint=_HINT)
    if isinstance(dimensions[0], int):
        raise BundleRefused(
            f"the {kind} `{value.name}` of `{entry}` has the shape [{shape}], which fixes the number of rows",
            hint="export it with a first dimension that is free, since rows of several requests share a batch",
        )
    columns: int = dimensions[1]
    return columns
