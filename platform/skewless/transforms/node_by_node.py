"""The plainest execution: every expression by itself, over all rows at once, without a workspace, stacks or chunks.

It is what the prepared execution is compared with, and the only one in which the result of a single operation can be
moved a little, to see how far the outputs follow.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column
from skewless.transforms.catalogue import COLUMN
from skewless.transforms.graph import Graph
from skewless.transforms.operation import Kernel, Kind, Settings, Vector


class NodeByNode:
    """A graph with everything learned, by node, ready to be computed plainly."""

    def __init__(self, graph: Graph, learned: Mapping[int, Settings]) -> None:
        self._graph = graph
        self._kernels: dict[int, Kernel] = {
            index: node.operation.kernel({**node.settings, **learned.get(index, {})})
            for index, node in enumerate(graph.nodes)
            if node.operands
        }

    def outputs(
        self, columns: Mapping[str, Column], rows: int, *, moved: Mapping[int, NDArray[np.float64]] | None = None
    ) -> NDArray[np.float64]:
        """The outputs (rows, outputs) as float64, before they are rounded to float32, of checked columns.

        `moved` has results to go on with instead of a node's own, of their shape.
        """
        return self.tensor(self.results(columns, rows, moved=moved))

    def tensor(self, results: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """The outputs (rows, outputs) among the results of all nodes."""
        return np.concatenate([np.atleast_2d(results[index]) for _, index in self._graph.outputs]).T

    def results(
        self, columns: Mapping[str, Column], rows: int, *, moved: Mapping[int, NDArray[np.float64]] | None = None
    ) -> list[NDArray[np.float64]]:
        """The values of every node, with no meaning where null: of a number float64, (rows,) or (parts, rows)."""
        vectors: list[Vector] = []
        with np.errstate(all="ignore"):
            for index in range(len(self._graph.nodes)):
                vector = self._vector(columns, rows, index, vectors)
                if moved and index in moved:
                    vector = Vector(moved[index], vector.valid)
                vectors.append(vector)
        return [vector.values for vector in vectors]

    def _vector(self, columns: Mapping[str, Column], rows: int, index: int, done: list[Vector]) -> Vector:
        node = self._graph.nodes[index]
        if node.operation is COLUMN:
            column = columns[node.settings["name"]]
            is_number = node.kind is Kind.NUMBER
            return Vector(column.values.astype(np.float64) if is_number else column.values, column.valid)
        if not node.operands:
            element = np.float64 if node.kind is Kind.NUMBER else np.object_
            return Vector(np.full(rows, node.settings["value"], dtype=element), np.ones(rows, dtype=np.bool_))
        result = self._kernels[index](*(done[operand] for operand in self._graph.operands[index]))
        return Vector(result.values, np.broadcast_to(result.valid, result.values.shape))
