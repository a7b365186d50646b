"""Admission in tests: everything that it can check with, what it refused, and golden vectors to tamper with."""

import dataclasses
import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from harness import tampering
from harness.bundles import contract, sample_columns
from skewless.adapters.onnx_scorer import onnx_scorer
from skewless.adapters.onnx_signature import onnx_signature
from skewless.adapters.onnx_steps import onnx_step
from skewless.adapters.onnx_transform import OnnxTransform
from skewless.adapters.step_loader import TransformSteps
from skewless.bundles.admission import Check, ModelTools, Surroundings, admit
from skewless.bundles.golden import GoldenVectors
from skewless.bundles.model_files import ModelFormat
from skewless.canonical_json import encode
from skewless.dtypes import Column, Dtype
from skewless.errors import BundleRefused
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import FeatureContract
from skewless.transforms import FittedTransform, Transform, column


def registry_of(*services: FeatureContract) -> CompiledRegistry:
    """What is registered, where these are the feature services."""
    return CompiledRegistry("demo", {f"service-{number}": each for number, each in enumerate(services)}, {}, {})


def everything(**changes: Any) -> Surroundings:
    """What the command line checks with, on fewer rows, with changes."""
    whole = Surroundings(
        clock=time.monotonic_ns,
        steps=TransformSteps,
        import_module=importlib.import_module,
        export=lambda fitted: OnnxTransform(fitted).apply,
        model=ModelTools(signature={ModelFormat.ONNX: onnx_signature}, run={ModelFormat.ONNX: onnx_scorer}),
        registered=lambda _: registry_of(contract()),
        differential_rows=32,
    )
    return dataclasses.replace(whole, **changes)


def refusal_by(folder: Path, by: str, **changes: Any) -> Check:
    """The only refusal of a bundle, which says what to do."""
    admission = admit(folder, None, everything(**changes))
    refusals = {check.name: check for check in admission.refusals}
    assert list(refusals) == [by], {name: check.message for name, check in refusals.items()}
    with pytest.raises(BundleRefused, match=f"is refused by the check `{by}`"):
        admission.require()
    assert refusals[by].hint, f"what should a person do? {refusals[by].message}"
    return refusals[by]


def told_by(folder: Path, by: str, **changes: Any) -> str:
    """The message of the only refusal."""
    return refusal_by(folder, by, **changes).message


def transform_with_step() -> FittedTransform:
    """A transform whose only output takes the mean of a batch away, which row by row is nothing."""
    level = column("noise__level", Dtype.FLOAT32).impute(0.0)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["numbers"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["numbers", "mean"], ["result"]),
        ],
        "step",
        [helper.make_tensor_value_info("numbers", TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, [None, 1])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    step = onnx_step(made.SerializeToString(), {"numbers": level})
    return Transform({"level": step}).fit(sample_columns(), 4)


def edit_golden(folder: Path, change: Callable[[GoldenVectors], GoldenVectors]) -> None:
    """Change a bundle's golden vectors, and put the manifest right."""
    golden = GoldenVectors.from_json(json.loads((folder / "golden.json").read_bytes()))
    tampering.replace(folder, "golden.json", encode(change(golden).to_json()))


def flipped_bit(values: NDArray[np.float32], row: int, column: int) -> NDArray[np.float32]:
    """A copy with the least bit of one value flipped."""
    changed = values.copy()
    changed.view(np.uint32)[row, column] ^= 1
    return changed


def first_rows(golden: GoldenVectors, rows: int) -> GoldenVectors:
    """Golden vectors of fewer rows."""
    assert golden.scores is not None
    return dataclasses.replace(
        golden,
        columns={
            name: Column(each.dtype, each.values[:rows], each.valid[:rows]) for name, each in golden.columns.items()
        },
        tensor=golden.tensor[:rows],
        outputs={name: each[:rows] for name, each in golden.outputs.items()},
        scores=golden.scores[:rows],
    )
