"""Fits gradient-boosted trees with scikit-learn and exports them to ONNX with skl2onnx."""

import warnings
from importlib.metadata import version
from typing import Any

from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

from skewless.adapters.tree_onnx import conversion_error
from skewless.bundles.model_files import ModelFiles
from skewless.errors import InvalidDefinition
from skewless.training.definition import BoostedTrees
from skewless.training.learner import INPUT_NAME, OUTPUT_NAME, TrainedModel, TrainingData, classifier_signature
from skewless.training.tree_ensemble import floor_to_float32

_OPSET = {"": 17, "ai.onnx.ml": 1}
"""Old enough for every ONNX Runtime of the last years, Triton's included."""


_SHAPING_LIBRARIES = ("numpy", "onnx", "onnxruntime", "scikit-learn", "skl2onnx")


def train(data: TrainingData, parameters: BoostedTrees) -> TrainedModel:
    """Fit on training data; the same bytes for the same input, on any number of cores.

    Raises InvalidDefinition for parameters that scikit-learn refuses, and where the exported model does not give its
    probabilities within `CONVERSION_ERROR_MAX` on every training row. About 5 s for 110,000 rows of 60 columns.
    """
    data.progress(f"fitting boosted trees on {data.rows:,} rows of {len(data.output_names)} columns")
    classifier = _fit(data, parameters)
    return to_onnx(classifier, data)


def to_onnx(classifier: Any, data: TrainingData) -> TrainedModel:
    """A fitted HistGradientBoostingClassifier as ONNX, compared with it on every training row.

    Its thresholds are rounded down to float32 in place. Raises InvalidDefinition as `train`.
    """
    _floor_thresholds(classifier)
    data.progress("exporting to ONNX")
    onnx = _export(classifier, len(data.output_names))
    data.progress("comparing the exported model with scikit-learn on every training row")
    error_max = conversion_error(onnx, data.tensor, classifier.predict_proba(data.tensor), library="scikit-learn")
    return TrainedModel(
        files=ModelFiles.onnx(onnx),
        signature=classifier_signature(len(data.output_names)),
        notes={"library": "scikit-learn", "conversion_error_max": error_max},
        versions={name: version(name) for name in _SHAPING_LIBRARIES},
    )


def _fit(data: TrainingData, parameters: BoostedTrees) -> Any:
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
            classifier.fit(data.tensor, data.labels, sample_weight=data.weights if data.is_weighted else None)
        except ValueError as error:
            raise InvalidDefinition(f"scikit-learn refuses the learner {parameters}: {error}") from error
    return classifier


def _floor_thresholds(classifier: Any) -> None:
    """Round every threshold down to float32, which changes no prediction of a float32 input.

    ONNX stores thresholds as float32 and would round to nearest: between two neighbouring float32 values the
    threshold can become the upper one, and `value <= threshold` then sends that value the other way.
    """
    for (predictor,) in classifier._predictors:  # noqa: SLF001  # the trees have no public form
        # A category or a leaf has 0 here; "everything but missing goes left" is infinity, and stays so.
        predictor.nodes["num_threshold"] = floor_to_float32(predictor.nodes["num_threshold"])


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
