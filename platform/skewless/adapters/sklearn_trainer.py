"""Fits gradient-boosted trees with scikit-learn and exports them to ONNX with skl2onnx."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

from skewless.adapters.onnx_runtime import OnnxModel
from skewless.errors import InvalidDefinition
from skewless.training.definition import BoostedTrees

INPUT_NAME = "features"
OUTPUT_NAME = "probabilities"
CONVERSION_ERROR_MAX = 1e-5
"""Largest difference allowed between a probability of scikit-learn (float64) and of the exported model (float32)."""
_OPSET = {"": 17, "ai.onnx.ml": 1}
"""Old enough for every ONNX Runtime of the last years, Triton's included."""


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A fitted model as ONNX: FP32 input (rows, columns), FP32 output (rows, 2), the second column the positive class.

    `conversion_error_max` is the largest difference to scikit-learn's probability seen on any training row.
    """

    onnx: bytes
    input_name: str
    output_name: str
    conversion_error_max: float


def train(
    tensor: NDArray[np.float32],
    labels: NDArray[np.bool_],
    parameters: BoostedTrees,
    progress: Callable[[str], None],
) -> TrainedModel:
    """Fit on a tensor (rows, columns) and labels (rows,); the same bytes for the same input, on any number of cores.

    Raises InvalidDefinition for input or parameters that cannot be fitted, and where the exported model does not
    give scikit-learn's probabilities within `CONVERSION_ERROR_MAX`. About 5 s for 110,000 rows of 60 columns.
    """
    _check(tensor, labels)
    progress(f"fitting boosted trees on {len(tensor):,} rows of {tensor.shape[1]} columns")
    classifier = _fit(tensor, labels, parameters)
    progress("exporting to ONNX")
    onnx = _export(classifier, tensor.shape[1])
    progress("comparing the exported model with scikit-learn on every training row")
    difference = np.abs(OnnxModel(onnx).run(tensor) - classifier.predict_proba(tensor))
    error_max = float(difference.max())
    if not error_max <= CONVERSION_ERROR_MAX:
        row = int(difference.max(axis=1).argmax())
        raise InvalidDefinition(
            f"the exported model differs from scikit-learn by {error_max:.2e} in training row {row};"
            f" at most {CONVERSION_ERROR_MAX:.0e} is allowed",
            hint="the export is wrong for this model; report it with the learner's parameters and library versions",
        )
    return TrainedModel(onnx, INPUT_NAME, OUTPUT_NAME, error_max)


def _check(tensor: NDArray[np.float32], labels: NDArray[np.bool_]) -> None:
    if tensor.dtype != np.float32 or tensor.ndim != 2 or labels.dtype != np.bool_ or labels.shape != tensor.shape[:1]:
        raise InvalidDefinition(
            f"training takes float32 (rows, columns) and bool (rows,), got {tensor.dtype} {tensor.shape}"
            f" and {labels.dtype} {labels.shape}"
        )
    positives = int(labels.sum())
    if not 0 < positives < len(labels):
        raise InvalidDefinition(
            f"{positives:,} of {len(labels):,} training labels are positive; both classes must occur",
            hint="check the training period and the label column of the examples",
        )
    if not np.isfinite(tensor).all():
        row, place = (int(each[0]) for each in np.nonzero(~np.isfinite(tensor)))
        raise InvalidDefinition(f"column {place} of training row {row} is {tensor[row, place]}; it must be finite")


def _fit(tensor: NDArray[np.float32], labels: NDArray[np.bool_], parameters: BoostedTrees) -> Any:
    classifier = HistGradientBoostingClassifier(
        max_iter=parameters.max_iter,
        learning_rate=parameters.learning_rate,
        max_leaf_nodes=parameters.max_leaf_nodes,
        min_samples_leaf=parameters.min_samples_leaf,
        l2_regularization=parameters.l2_regularization,
        random_state=parameters.seed,
        early_stopping=False,
    )
    # Threads add gradients in an order of their own, so the model would depend on the count of cores. One thread
    # took 4.8 s against 3.1 s on two (110,000 x 60, 150 trees): little for bytes that anyone can reproduce.
    with threadpool_limits(limits=1, user_api="openmp"):
        try:
            classifier.fit(tensor, labels)
        except ValueError as error:
            raise InvalidDefinition(f"scikit-learn refuses the learner {parameters}: {error}") from error
    _floor_thresholds(classifier)
    return classifier


def _floor_thresholds(classifier: Any) -> None:
    """Round every threshold down to float32, which changes no prediction of a float32 input.

    ONNX stores thresholds as float32 and would round to nearest: between two neighbouring float32 values the
    threshold can become the upper one, and `value <= threshold` then sends that value the other way.
    """
    for (predictor,) in classifier._predictors:  # noqa: SLF001  # the trees have no public form
        exact = predictor.nodes["num_threshold"]
        # A category or a leaf has 0 here; "everything but missing goes left" is infinity, and stays so.
        with np.errstate(over="ignore"):
            nearest = exact.astype(np.float32)
        lower = np.nextafter(nearest, np.float32(-np.inf))
        predictor.nodes["num_threshold"] = np.where(nearest > exact, lower, nearest)


def _export(classifier: Any, columns: int) -> bytes:
    """ONNX bytes with the probabilities as the only output and nothing in them that varies from run to run."""
    with warnings.catch_warnings():
        # skl2onnx 1.20 hands booleans to integer fields, of which protobuf warns until it refuses them in 7.34.
        warnings.filterwarnings("ignore", "Field onnx.AttributeProto.ints", DeprecationWarning)
        model = convert_sklearn(
            classifier,
            name="boosted_trees",
            initial_types=[(INPUT_NAME, FloatTensorType([None, columns]))],
            options={"zipmap": False},
            target_opset=_OPSET,
        )
    graph = model.graph
    graph.name = "boosted_trees"  # skl2onnx puts a random name where it has to rebuild the graph
    (output,) = (each for each in graph.output if each.name == OUTPUT_NAME)
    kept = type(output)()
    kept.CopyFrom(output)
    del graph.output[:]
    graph.output.append(kept)
    onnx: bytes = model.SerializeToString(deterministic=True)
    return onnx
