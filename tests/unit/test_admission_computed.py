"""Admission of what a bundle computes: a bit, a parameter, a model that is otherwise is refused, each in words."""

import dataclasses
import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from harness import tampering
from harness.admissions import (
    edit_golden,
    everything,
    flipped_bit,
    told_by,
    transform_with_step,
)
from harness.bundles import build_bundle, content, model, sample_columns
from skewless.adapters.step_loader import TransformSteps
from skewless.bundles.admission import ModelTools, Result, admit
from skewless.bundles.bundle import write_bundle
from skewless.bundles.golden import GoldenVectors
from skewless.bundles.post_processing import PostProcessing
from skewless.bundles.serving_profile import ServingProfile
from skewless.canonical_json import digest_bytes, encode
from skewless.dtypes import Column
from skewless.errors import BundleRefused
from skewless.transforms import FittedTransform

ONNX = "model/model.onnx"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_bundle(tmp_path_factory.mktemp("artifacts")).folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy of the bundle to tamper with."""
    return Path(shutil.copytree(built, tmp_path / "bundle"))


def test_a_golden_tensor_one_bit_off_is_refused_by_row_and_column(folder: Path) -> None:
    edit_golden(folder, lambda golden: dataclasses.replace(golden, tensor=flipped_bit(golden.tensor, 2, 3)))
    admission = admit(folder, None, everything())
    assert [check.name for check in admission.refusals] == ["golden"]
    assert "differs from the golden vectors in 1 of 32 values, first at row 2, column 3" in (
        admission.refusals[0].message
    )


def test_a_transform_parameter_changed_with_every_digest_put_right_is_refused(folder: Path) -> None:
    fitted = FittedTransform.from_bytes((folder / "transform.json").read_bytes())
    node, learned = next((node, learned) for node, learned in fitted.learned.items() if "value" in learned)
    changed = FittedTransform(fitted.graph, {**fitted.learned, node: {"value": learned["value"] + 1e-3}})
    tampering.replace(folder, "transform.json", encode(changed.to_json()))
    assert "the transform's tensor differs from the golden vectors in 1 of 32 values" in told_by(folder, "golden")


def test_another_calibration_is_refused(folder: Path) -> None:
    other = {"kind": "sigmoid", "slope": 1.0, "intercept": 0.25}
    tampering.edit(folder, "post_processing.json", lambda post: post.update(calibration=other))
    assert "the post-processing's score differs from the golden vectors" in told_by(folder, "golden")


def test_golden_vectors_without_scores_are_refused(folder: Path) -> None:
    edit_golden(folder, lambda golden: dataclasses.replace(golden, scores=None))
    assert "lack the scores" in told_by(folder, "golden")


def test_golden_outputs_one_bit_off_are_refused_by_row_and_column(folder: Path) -> None:
    def change(golden: GoldenVectors) -> GoldenVectors:
        outputs = {"probabilities": flipped_bit(golden.outputs["probabilities"], 1, 0)}
        return dataclasses.replace(golden, outputs=outputs)

    edit_golden(folder, change)
    told = told_by(folder, "outputs")
    assert told.startswith(
        "model output `probabilities` differs from the golden vectors in 1 of 8 values, first at row 1"
    )


def test_another_model_of_the_same_shape_is_refused(folder: Path) -> None:
    tampering.replace(folder, ONNX, model(8, scale=2.0**-11))
    assert "model output `probabilities` differs from the golden vectors" in told_by(folder, "outputs")


def test_a_tolerance_of_the_serving_profile_holds_and_ends(tmp_path: Path) -> None:
    made = dataclasses.replace(content(wrong_golden=True), serving=ServingProfile(output_tolerance=0.1))
    write_bundle(made, tmp_path / "tolerant")
    assert "by more than 0.1" in told_by(tmp_path / "tolerant", "outputs")
    made = dataclasses.replace(content(scale=2.0**-12 + 2.0**-30), serving=ServingProfile(output_tolerance=0.01))
    made = dataclasses.replace(made, model=content().model)
    write_bundle(made, tmp_path / "near")
    seen = {check.name: check for check in admit(tmp_path / "near", None, everything()).checks}
    assert seen["outputs"].result is Result.PASSED, seen["outputs"].message
    assert seen["outputs"].looked_at == "4 golden rows, within 0.01"


def test_a_transform_whose_export_differs_is_refused_with_the_smallest_row(folder: Path) -> None:
    def export(fitted: FittedTransform) -> Callable[[Mapping[str, Column], int], NDArray[np.float32]]:
        prepared = fitted.prepare()

        def run(columns: Mapping[str, Column], rows: int) -> NDArray[np.float32]:
            tensor = prepared.apply(columns, rows)
            tensor[:, 1] = 0.0  # temp_is_null
            return tensor

        return run

    told = told_by(folder, "transform", export=export)
    assert told.startswith("ONNX: `temp_is_null` is 0.0, not 1.0, for")


def test_a_transform_that_cannot_be_exported_is_compared_without_and_says_so(tmp_path: Path) -> None:
    fitted = transform_with_step()
    write_bundle(content(fitted=fitted), tmp_path / "bundle")
    seen = {check.name: check for check in admit(tmp_path / "bundle", None, everything()).checks}
    assert seen["transform"].result is Result.PASSED
    assert "not compared with ONNX" in seen["transform"].looked_at


def test_a_step_whose_rows_depend_on_their_batch_is_refused(tmp_path: Path) -> None:
    # Alone, every row minus the mean of its batch is 0; one golden row shows nothing of it.
    columns = {name: Column(each.dtype, each.values[:1], each.valid[:1]) for name, each in sample_columns().items()}
    write_bundle(content(fitted=transform_with_step(), columns=columns), tmp_path / "bundle")

    stored = json.loads((tmp_path / "bundle" / "transform.json").read_bytes())
    steps = TransformSteps(
        {digest_bytes(each.read_bytes()): each.read_bytes() for each in (tmp_path / "bundle" / "transform").iterdir()}
    )
    (step,) = [node for node in stored["nodes"] if node["operation"] == "onnx"]
    step["settings"]["rows_together"] = True
    del stored["digest"]
    stored["digest"] = digest_bytes(encode(stored))
    FittedTransform.from_json(stored, steps)
    tampering.replace(tmp_path / "bundle", "transform.json", encode(stored))
    assert "row alone: `level` is 0.0, not" in told_by(tmp_path / "bundle", "transform")


def test_a_slow_transform_is_tried_on_fewer_rows(built: Path) -> None:
    ticks = iter(range(0, 10**15, 10**9))  # every look at the clock is a second later
    admission = admit(built, None, everything(clock=lambda: next(ticks), differential_s=2.0))
    seen = {check.name: check.looked_at for check in admission.checks}
    assert seen["transform"].endswith("on 32 rows")
    admission = admit(built, None, everything(clock=lambda: next(ticks), differential_s=0.5))
    seen = {check.name: check.looked_at for check in admission.checks}
    assert seen["transform"].endswith("on 16 rows")


# The model's own file.


def test_a_torn_model_with_digests_put_right_is_refused(folder: Path) -> None:
    data = (folder / ONNX).read_bytes()
    tampering.replace(folder, ONNX, data[:-40])
    told = told_by(folder, "model")
    assert "`model.onnx`" in told


def test_a_pickle_in_the_model_s_place_is_refused(folder: Path) -> None:
    tampering.replace(folder, ONNX, pickle.dumps({"weights": [1.0, 2.0], "cls": Path("x")}))
    assert "is a pickle; reading a pickle runs code" in told_by(folder, "model")


def test_a_pickle_beside_the_model_is_refused(folder: Path) -> None:
    tampering.replace(folder, "model/extra/state.bin", pickle.dumps(Path("x")))
    assert "`extra/state.bin` is a pickle" in told_by(folder, "model")


def test_a_pickle_as_the_file_of_a_step_is_refused(folder: Path) -> None:
    data = pickle.dumps(Path("x"))
    tampering.replace(folder, f"transform/{digest_bytes(data)}.onnx", data)
    assert f"`transform/{digest_bytes(data)}.onnx` is a pickle" in told_by(folder, "parts")


def _other_model(
    *, element: int = TensorProto.FLOAT, rows: int | None = None, name: str = "features", outputs: int = 2
) -> bytes:
    """A model that gives each row its first columns, with one thing about its tensors otherwise."""
    nodes = [
        helper.make_node("Cast", [name], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Slice", ["cast", "starts", "ends", "axes"], ["probabilities"]),
    ]
    constants = [
        helper.make_tensor(key, TensorProto.INT64, [1], [value])
        for key, value in {"starts": 0, "ends": outputs, "axes": 1}.items()
    ]
    graph = helper.make_graph(
        nodes,
        "other",
        [helper.make_tensor_value_info(name, element, [rows, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [rows, outputs])],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = made.SerializeToString()
    return data


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"element": TensorProto.DOUBLE}, "the input `features` of `model.onnx` is double of shape [any, 8]"),
        ({"rows": 1}, "the input `features` of `model.onnx` has the shape [1, 8], which fixes the number of rows"),
        ({"name": "x"}, "the model has input `x` of 8 columns"),
        ({"outputs": 3}, "output `probabilities` of 3 columns; the bundle declares"),
    ],
)
def test_a_model_with_other_tensors_is_refused(folder: Path, changed: dict[str, Any], told: str) -> None:
    tampering.replace(folder, ONNX, _other_model(**changed))
    refusals = {check.name: check for check in admit(folder, None, everything()).refusals}
    assert told in refusals["signature"].message
    assert refusals["signature"].hint


def test_a_format_that_cannot_be_run_here_is_left_to_the_model_server(built: Path) -> None:
    checks = {check.name: check for check in admit(built, None, everything(model=ModelTools())).checks}
    assert checks["model"].result is Result.PASSED
    for name in ("signature", "outputs"):
        assert checks[name].result is Result.SKIPPED
        assert "model server" in checks[name].message


def test_a_score_that_is_no_number_is_refused_when_it_is_given() -> None:
    post = PostProcessing(content().post.labels)
    outputs = np.array([[0.5, 0.5], [0.5, np.nan]], dtype=np.float32)
    with pytest.raises(BundleRefused, match="the model gave nan for row 1"):
        post.apply({"probabilities": outputs})
