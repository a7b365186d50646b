"""Writes boosted trees as ONNX: one TreeEnsembleClassifier, float32, with nothing in it that varies from run to run."""

from dataclasses import fields
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from skewless.adapters.onnx_runtime import OnnxModel
from skewless.errors import InvalidDefinition
from skewless.training.learner import CLASSES, INPUT_NAME, OUTPUT_NAME
from skewless.training.tree_ensemble import LEAF, Tree, TreeEnsemble

CONVERSION_ERROR_MAX = 1e-5
"""Largest difference allowed between a probability of the library (float64) and of the written model (float32)."""
_OPSET = 17
_ML_OPSET = 1
"""Old enough for every ONNX Runtime of the last years, Triton's included."""
_IR_VERSION = 8


def tree_onnx(ensemble: TreeEnsemble) -> bytes:
    """The ensemble as an ONNX model: `features` float32 (rows, columns) to `probabilities` float32 (rows, 2).

    Decisions are exact; leaves are rounded to float32 and added in float32, in the order of the trees.
    """
    node = helper.make_node(
        "TreeEnsembleClassifier",
        [INPUT_NAME],
        ["label", OUTPUT_NAME],
        domain="ai.onnx.ml",
        classlabels_int64s=list(range(CLASSES)),
        post_transform="LOGISTIC",
        base_values=[ensemble.base],
        **_attributes(ensemble),
    )
    graph = helper.make_graph(
        [node],
        "boosted_trees",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, [None, ensemble.columns])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, [None, CLASSES])],
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
    model = helper.make_model(graph, producer_name="skewless", ir_version=_IR_VERSION, opset_imports=opsets)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def conversion_error(
    data: bytes, tensor: NDArray[np.float32], expected: NDArray[np.floating], *, library: str
) -> float:
    """The largest difference of a converted model's probabilities (rows, 2) from those expected of the library.

    Raises InvalidDefinition, with the row, above CONVERSION_ERROR_MAX.
    """
    difference = np.abs(OnnxModel(data).run(tensor).astype(np.float64) - expected)
    error_max = float(difference.max(initial=0.0))
    if not error_max <= CONVERSION_ERROR_MAX:
        row = int(difference.max(axis=1).argmax())
        raise InvalidDefinition(
            f"the exported model differs from {library} by {error_max:.2e} in row {row};"
            f" at most {CONVERSION_ERROR_MAX:.0e} is allowed",
            hint="the export is wrong for this model; report it with the learner's parameters and library versions",
        )
    return error_max


def _attributes(ensemble: TreeEnsemble) -> dict[str, Any]:
    trees = list(ensemble.trees)
    modes = ["BRANCH_LEQ" if ensemble.less_or_equal else "BRANCH_LT"] * len(trees)
    if not any((tree.value < 0.0).any() for tree in trees):
        trees.append(_NEGATIVE)
        modes.append("BRANCH_LEQ")
    tree_ids = np.concatenate([np.full(len(tree), number) for number, tree in enumerate(trees)])
    node_ids = np.concatenate([np.arange(len(tree)) for tree in trees])
    column, threshold, left, right, missing_left, value = (
        np.concatenate([getattr(tree, each.name) for tree in trees]) for each in fields(Tree)
    )
    leaf = column == LEAF
    return {
        "nodes_treeids": tree_ids.tolist(),
        "nodes_nodeids": node_ids.tolist(),
        "nodes_modes": [
            "LEAF" if end else modes[tree] for end, tree in zip(leaf.tolist(), tree_ids.tolist(), strict=True)
        ],
        "nodes_featureids": np.where(leaf, 0, column).tolist(),
        "nodes_values": threshold.tolist(),
        "nodes_truenodeids": left.tolist(),
        "nodes_falsenodeids": right.tolist(),
        "nodes_missing_value_tracks_true": missing_left.astype(np.int64).tolist(),
        "class_treeids": tree_ids[leaf].tolist(),
        "class_nodeids": node_ids[leaf].tolist(),
        "class_ids": np.zeros(int(leaf.sum()), dtype=np.int64).tolist(),
        "class_weights": value[leaf].astype(np.float32).tolist(),
    }


_NEGATIVE = Tree(
    column=np.array([0, LEAF, LEAF]),
    threshold=np.array([np.inf, 0.0, 0.0], dtype=np.float32),
    left=np.array([1, 0, 0]),
    right=np.array([2, 0, 0]),
    missing_left=np.array([True, False, False]),
    value=np.array([0.0, 0.0, -1.0]),
)
"""A tree that adds 0 to every row. ONNX Runtime takes an ensemble without a weight below 0 for one of probabilities and
leaves its sigmoid out; this one's second leaf, which no row reaches, keeps it from that."""
