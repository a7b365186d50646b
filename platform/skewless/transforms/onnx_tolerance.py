"""How far an output of the ONNX export may be from the prepared transform's: as far as its inexact operations take it.

`onnx_operations.py` states for each operation how far ONNX Runtime's result may be from ours; for most it is the same
number. What that means for an output depends on what is computed from the result: a difference near it can be
enlarged, and a comparison can come out the other way. So each inexact result is moved by its bound, up and down, and
the outputs may differ by what they move: summed over the operations, doubled since two together move a little more
than each alone, and one unit of float32 for rounding. An output of exact operations only must be equal.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column
from skewless.transforms.node_by_node import NodeByNode
from skewless.transforms.onnx_operations import OPERATIONS, Export
from skewless.transforms.spec import FittedTransform

_SECOND_ORDER = 2.0


class OnnxTolerance:
    """The tolerance of one transform's export."""

    def __init__(self, fitted: FittedTransform) -> None:
        self._plain = NodeByNode(fitted.graph, fitted.learned)
        self._inexact = {
            index: export
            for index, node in enumerate(fitted.graph.nodes)
            if (export := OPERATIONS.get(node.operation.name)) is not None and not export.exact
        }

    def allowed(self, columns: Mapping[str, Column], rows: int, expected: NDArray[np.float32]) -> NDArray[np.float64]:
        """The largest right distance from each of the `expected` outputs, (rows, outputs), infinite where any is."""
        total = np.zeros(expected.shape)
        if not self._inexact or not rows:
            return total
        results = self._plain.results(columns, rows)
        middle = self._plain.tensor(results)
        with np.errstate(all="ignore"):
            for index, export in self._inexact.items():
                ways = [{index: moved} for moved in _extremes(export, results[index])]
                total += np.maximum(*(self._distance(columns, rows, middle, way) for way in ways))
            rounding = np.spacing(np.abs(expected)).astype(np.float64)
            allowed: NDArray[np.float64] = np.where(total > 0.0, _SECOND_ORDER * total + rounding, 0.0)
        return np.where(np.isnan(allowed), np.inf, allowed)

    def _distance(
        self,
        columns: Mapping[str, Column],
        rows: int,
        middle: NDArray[np.float64],
        moved: Mapping[int, NDArray[np.float64]],
    ) -> NDArray[np.float64]:
        """How far the outputs are from `middle` with one result off; NaN against NaN is no distance."""
        outputs = self._plain.outputs(columns, rows, moved=moved)
        same = (outputs == middle) | (np.isnan(outputs) & np.isnan(middle))
        return np.where(same, 0.0, np.abs(outputs - middle))


def _extremes(export: Export, results: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Results as far down and as far up as they may be."""
    step = bound(export, results)
    if export.reads_sign_of_zero:
        results = np.where(np.isinf(results), -results, results)
    return results - step, results + step


def bound(export: Export, results: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far ONNX Runtime may be from each result; 0 for those that are not finite."""
    finite = np.isfinite(results)
    size = np.abs(np.where(finite, results, 0.0))
    # Towards zero: the largest number has no next one.
    unit = np.maximum(size - np.nextafter(size, 0.0), np.finfo(np.float64).smallest_subnormal)
    return np.where(finite, export.ulps * unit + export.absolute, 0.0)
