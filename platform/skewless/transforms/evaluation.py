"""Nodes of a graph computed one by one, by the kernels that serve: for fitting, and to see which branches rows take."""

from collections.abc import Iterable, Mapping

import numpy as np

from skewless.dtypes import Column
from skewless.transforms.catalogue import COLUMN
from skewless.transforms.graph import Graph
from skewless.transforms.operation import Kernel, Kind, Settings, Vector


class Evaluation:
    """Computes the nodes `wanted` and all below them, of which everything must be learned."""

    def __init__(self, graph: Graph, learned: Mapping[int, Settings], wanted: Iterable[int]) -> None:
        self._graph = graph
        self._needed = sorted({each for index in wanted for each in graph.ancestors(index)})
        self._kernels = {index: self._kernel(index, learned) for index in self._needed if graph.operands[index]}

    def vectors(self, columns: Mapping[str, Column], rows: int) -> dict[int, Vector]:
        """The vectors of every node needed, by node, operands first: (rows,), or (parts, rows) for SEVERAL."""
        vectors: dict[int, Vector] = {}
        for index in self._needed:
            if index not in self._kernels:
                vectors[index] = self._leaf(index, columns, rows)
                continue
            result = self._kernels[index](*(vectors[operand] for operand in self._graph.operands[index]))
            vectors[index] = Vector(result.values, np.broadcast_to(result.valid, result.values.shape))
        return vectors

    def _kernel(self, index: int, learned: Mapping[int, Settings]) -> Kernel:
        node = self._graph.nodes[index]
        return node.operation.kernel({**node.settings, **learned.get(index, {})})

    def _leaf(self, index: int, columns: Mapping[str, Column], rows: int) -> Vector:
        node = self._graph.nodes[index]
        if node.operation is COLUMN:
            column = columns[node.settings["name"]]
            is_number = node.kind is Kind.NUMBER
            return Vector(column.values.astype(np.float64, copy=False) if is_number else column.values, column.valid)
        element = np.float64 if node.kind is Kind.NUMBER else np.object_
        constant = np.full(rows, node.settings["value"], dtype=element)
        return Vector(constant, np.ones(rows, dtype=np.bool_))
