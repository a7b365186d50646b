"""What is read from real ONNX files, and how they run here: weights beside the model, several outputs, and refusals."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from skewless.adapters.onnx_scorer import onnx_scorer
from skewless.adapters.onnx_signature import onnx_signature
from skewless.bundles.model_files import ModelFiles, ModelFormat
from skewless.errors import BundleRefused
from skewless.serving.ports import ModelSignature

WEIGHTS = np.arange(24, dtype=np.float32).reshape(8, 3)
DECLARED = ModelSignature("features", 8, (("result", 3),))


def _linear(*, outputs: tuple[str, ...] = ("result",), rows: str | int | None = None) -> onnx.ModelProto:
    """(rows, 8) times WEIGHTS; the second output, where asked for, is its negative."""
    nodes = [helper.make_node("MatMul", ["features", "weights"], ["result"])]
    if len(outputs) > 1:
        nodes.append(helper.make_node("Neg", ["result"], [outputs[1]]))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [rows, 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, 3]) for name in outputs],
        [numpy_helper.from_array(WEIGHTS, "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _one_file(model: onnx.ModelProto) -> ModelFiles:
    return ModelFiles.onnx(model.SerializeToString())


def _with_weights_beside(folder: Path, location: str = "model.data") -> dict[str, bytes]:
    """The files of a model whose weights lie in a file of their own."""
    path = folder / "model.onnx"
    onnx.save(_linear(), str(path), save_as_external_data=True, location=location, size_threshold=0)
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def _tensor() -> NDArray[np.float32]:
    return np.linspace(-1.0, 1.0, 16, dtype=np.float32).reshape(2, 8)


def _run(model: ModelFiles, declared: ModelSignature) -> Mapping[str, NDArray[np.float32]]:
    return onnx_scorer(model, declared)(_tensor())


@pytest.mark.parametrize("rows", [None, "rows"])
def test_tensors_are_read_without_running_the_file(rows: str | None) -> None:
    assert onnx_signature(_one_file(_linear(rows=rows)), DECLARED) == DECLARED


def test_only_declared_outputs_are_read_and_run_in_their_order() -> None:
    model = _one_file(_linear(outputs=("result", "negative")))
    both = ModelSignature("features", 8, (("negative", 3), ("result", 3)))
    assert onnx_signature(model, both) == both
    assert onnx_signature(model, DECLARED) == DECLARED
    outputs = _run(model, both)
    assert list(outputs) == ["negative", "result"]
    assert np.array_equal(outputs["result"], _tensor() @ WEIGHTS)
    assert np.array_equal(outputs["negative"], -outputs["result"])
    assert list(_run(model, DECLARED)) == ["result"]


def test_an_output_that_the_file_lacks_shows_in_what_it_has() -> None:
    declared = ModelSignature("features", 8, (("score", 3),))
    assert onnx_signature(_one_file(_linear()), declared).outputs == (("result", 3),)


def test_weights_beside_the_model_are_read_and_run(tmp_path: Path) -> None:
    model = ModelFiles(ModelFormat.ONNX, _with_weights_beside(tmp_path), "model.onnx")
    assert set(model.files) == {"model.onnx", "model.data"}
    assert onnx_signature(model, DECLARED) == DECLARED
    assert np.array_equal(_run(model, DECLARED)["result"], _tensor() @ WEIGHTS)


def test_weights_in_a_file_that_the_bundle_lacks_are_refused(tmp_path: Path) -> None:
    files = _with_weights_beside(tmp_path)
    del files["model.data"]
    with pytest.raises(BundleRefused, match=r"weights `weights` of `model.onnx` lie in `model.data`, which is no file"):
        onnx_signature(ModelFiles(ModelFormat.ONNX, files, "model.onnx"), DECLARED)


@pytest.mark.parametrize("location", ["../outside.data", "/etc/hostname"])
def test_weights_outside_of_the_bundle_are_refused(location: str) -> None:
    model = _linear()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    with pytest.raises(BundleRefused, match="which is no file of the bundle"):
        onnx_signature(_one_file(model), DECLARED)


def test_two_inputs_are_refused() -> None:
    model = _linear()
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [None, 1]))
    with pytest.raises(BundleRefused, match="has the inputs `features`, `more`; a bundle's model has exactly one"):
        onnx_signature(_one_file(model), DECLARED)


def test_an_initial_value_that_is_listed_as_an_input_is_none() -> None:
    model = _linear()
    model.graph.input.append(helper.make_tensor_value_info("weights", TensorProto.FLOAT, [8, 3]))
    assert onnx_signature(_one_file(model), DECLARED) == DECLARED


def test_a_file_that_is_no_model_is_refused() -> None:
    for data in (b"\x00" * 40, _linear().SerializeToString()[:-30]):
        with pytest.raises(BundleRefused, match=r"`model.onnx` is no valid ONNX model"):
            onnx_signature(ModelFiles.onnx(data), DECLARED)
        with pytest.raises(BundleRefused, match=r"ONNX Runtime cannot load `model.onnx`"):
            onnx_scorer(ModelFiles.onnx(data), DECLARED)


def test_an_operator_that_does_not_exist_is_refused() -> None:
    model = _linear()
    model.graph.node[0].op_type = "Launch"
    with pytest.raises(BundleRefused, match="no valid ONNX model"):
        onnx_signature(_one_file(model), DECLARED)


def test_what_the_model_cannot_run_on_is_refused() -> None:
    run = onnx_scorer(_one_file(_linear()), DECLARED)
    with pytest.raises(BundleRefused, match=r"ONNX Runtime cannot run `model.onnx`"):
        run(np.zeros((2, 7), dtype=np.float32))
