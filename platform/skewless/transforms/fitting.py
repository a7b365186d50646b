"""Learning a graph's parameters from training rows, and checking learned parameters that were stored."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column
from skewless.errors import InvalidDefinition
from skewless.transforms.catalogue import COLUMN
from skewless.transforms.expressions import Expression, at
from skewless.transforms.graph import Graph
from skewless.transforms.number_operations import CONSTANT
from skewless.transforms.operation import Kind, Settings, Vector
from skewless.transforms.text_operations import TEXT_CONSTANT


def learn(graph: Graph, columns: Mapping[str, Column], rows: int) -> dict[int, Settings]:
    """What each node that learns has learned, by node; from checked columns with a row or more.

    Raises InvalidDefinition, naming the expression. Each learning node computes its operands anew and lets them
    go: of a wide table only one node's columns are in memory as float64 at a time.
    """
    learned: dict[int, Settings] = {}
    for index, node in enumerate(graph.nodes):
        if node.operation.learned:
            learned[index] = _fit_node(graph, learned, columns, rows, index)
    return learned


def check_learned(node: Expression, entry: object) -> Settings:
    """Learned parameters in their stored form. Raises InvalidDefinition."""
    operation = node.operation
    if not isinstance(entry, Mapping) or entry.keys() != operation.learned.keys():
        raise InvalidDefinition(
            f"`{node.text}` has the learned parameters {entry!r}; it must have {sorted(operation.learned)}"
        )
    try:
        checked = {name: check(entry[name]) for name, check in operation.learned.items()}
        operation.check_together({**node.settings, **checked})
    except ValueError as error:
        raise InvalidDefinition(f"`{node.text}` has learned parameters that are wrong: {error}") from error
    return checked


def _fit_node(
    graph: Graph, learned: Mapping[int, Settings], columns: Mapping[str, Column], rows: int, index: int
) -> Settings:
    node = graph.nodes[index]
    try:
        with np.errstate(all="ignore"):
            operands = [_evaluate(graph, learned, columns, rows, operand) for operand in graph.operands[index]]
            found = node.operation.fit(node.settings, *operands)
        return check_learned(node, found)
    except ValueError as error:
        raise InvalidDefinition(
            f"`{node.text}`{at(node.location)} cannot be fitted: {error}",
            hint="check that the training rows hold this column, or leave the expression out",
        ) from error


def _evaluate(
    graph: Graph, learned: Mapping[int, Settings], columns: Mapping[str, Column], rows: int, index: int
) -> Vector:
    """One node over all rows; everything below it is already learned. The kernels are those that serve."""
    vectors: dict[int, Vector] = {}
    for each in graph.ancestors(index):
        node = graph.nodes[each]
        if node.operation is COLUMN:
            column = columns[node.settings["name"]]
            values: NDArray[Any] = column.values.astype(np.float64) if node.kind is Kind.NUMBER else column.values
            vectors[each] = Vector(values, column.valid)
        elif node.operation in (CONSTANT, TEXT_CONSTANT):
            element = np.float64 if node.kind is Kind.NUMBER else np.object_
            constant: NDArray[Any] = np.full(rows, node.settings["value"], dtype=element)
            vectors[each] = Vector(constant, np.ones(rows, dtype=np.bool_))
        else:
            kernel = node.operation.kernel({**node.settings, **learned.get(each, {})})
            result = kernel(*(vectors[operand] for operand in graph.operands[each]))
            vectors[each] = Vector(result.values, np.broadcast_to(result.valid, (rows,)))
    return vectors[index]
