"""A transform's expressions as one graph: every sub-expression once, operands before what uses them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from skewless.canonical_json import encode
from skewless.dtypes import Dtype
from skewless.errors import InvalidDefinition
from skewless.transforms.catalogue import COLUMN, operation_named
from skewless.transforms.declaration import at
from skewless.transforms.expressions import Expression, expression_of
from skewless.transforms.nulls import explain_null, null_path
from skewless.transforms.operation import Kind
from skewless.transforms.step_operations import Step, StepLoader

_OUTPUT_KINDS = frozenset({Kind.NUMBER, Kind.SEVERAL})


@dataclass(frozen=True, slots=True)
class InputColumn:
    """A column that a transform reads."""

    name: str
    dtype: Dtype
    nullable: bool


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Nodes with the indexes of their operands, and outputs in order as (name, index of a node)."""

    nodes: tuple[Expression, ...]
    operands: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[str, int], ...]
    inputs: tuple[InputColumn, ...]
    """In order of first use."""

    @classmethod
    def of(cls, outputs: Mapping[str, Expression]) -> Self:
        """The graph of the outputs. Raises InvalidDefinition for one that is no output."""
        if not outputs:
            raise InvalidDefinition("a transform has no outputs; give it at least one")
        nodes: list[Expression] = []
        operands: list[tuple[int, ...]] = []
        index_of_key: dict[bytes, int] = {}
        index_of: dict[Expression, int] = {}
        for output in outputs.values():
            for node in _in_order(output, index_of):
                indexes = tuple(index_of[operand] for operand in node.operands)
                key = encode([node.operation.name, indexes, dict(node.settings)])
                index_of[node] = index_of_key.setdefault(key, len(nodes))
                if index_of[node] == len(nodes):
                    nodes.append(node)
                    operands.append(indexes)
        named = tuple((name, index_of[output]) for name, output in outputs.items())
        for name, index in named:
            _check_output(name, nodes[index])
        return cls(tuple(nodes), tuple(operands), named, _inputs(nodes))

    def ancestors(self, index: int) -> tuple[int, ...]:
        """Indexes of the node and of all that it is computed from, operands first."""
        return _ancestors(self.operands, index)

    def to_json(self) -> dict[str, Any]:
        """Plain data; the same for the same meaning declared in another way or order of operands' writing."""
        return {
            "nodes": [
                {"operation": node.operation.name, "operands": list(indexes), "settings": dict(node.settings)}
                for node, indexes in zip(self.nodes, self.operands, strict=True)
            ],
            "outputs": [{"name": name, "node": index} for name, index in self.outputs],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], steps: StepLoader | None = None) -> Self:
        """The inverse of `to_json`. Raises InvalidDefinition for anything that `to_json` cannot have written.

        Without `steps`, a graph with steps from outside the catalogue can be looked at but not run.
        """
        try:
            graph = cls.of(_outputs_of(data, steps))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InvalidDefinition(f"this is not the graph of a transform: {error!r}") from error
        if graph.to_json() != {name: data[name] for name in ("nodes", "outputs")}:
            raise InvalidDefinition(
                "this is not the graph of a transform as Skewless writes it: its nodes are in another order,"
                " unused, repeated or have fields that are not known",
                hint="do not edit a stored transform; declare and fit it again",
            )
        return graph


def _outputs_of(data: Mapping[str, Any], steps: StepLoader | None) -> dict[str, Expression]:
    nodes: list[Expression] = []
    for entry in data["nodes"]:
        indexes = entry["operands"]
        if not all(type(index) is int and 0 <= index < len(nodes) for index in indexes):
            raise ValueError(f"node {len(nodes)} has operands {indexes!r}; they must be earlier nodes")
        operands = tuple(nodes[index] for index in indexes)
        node = expression_of(operation_named(entry["operation"]), operands, entry["settings"], location="")
        if steps is not None and isinstance(node.operation, Step):
            node = replace(node, operation=node.operation.bound(node.settings, steps))
        nodes.append(node)
    return {output["name"]: nodes[output["node"]] for output in data["outputs"]}


def _in_order(output: Expression, done: Mapping[Expression, int]) -> list[Expression]:
    """The expressions below an output that are not done yet, operands first; no recursion, graphs can be deep."""
    ordered: dict[Expression, None] = {}
    stack = [(output, False)]
    while stack:
        node, operands_done = stack.pop()
        if operands_done:
            ordered[node] = None
        elif node not in done and node not in ordered:
            stack.append((node, True))
            stack.extend((operand, False) for operand in reversed(node.operands))
    return list(ordered)


def _ancestors(operands: tuple[tuple[int, ...], ...] | list[tuple[int, ...]], index: int) -> tuple[int, ...]:
    needed = {index}
    for current in range(index, -1, -1):
        if current in needed:
            needed.update(operands[current])
    return tuple(sorted(needed))


def _check_output(name: object, node: Expression) -> None:
    if not isinstance(name, str) or not name:
        raise InvalidDefinition(f"an output's name must be a string that is not empty, got {name!r}")
    if node.kind not in _OUTPUT_KINDS:
        raise InvalidDefinition(
            f"output `{name}` is `{node.text}`{at(node.location)}, a {node.kind}; outputs are numbers",
            hint="encode a string with one_hot() or index(), take parts of a timestamp with hour(), year() and so on",
        )
    if node.nullable:
        reason = explain_null(node, is_input=null_path(node)[0].operation is COLUMN)
        raise InvalidDefinition(
            f"output `{name}` is `{node.text}`{at(node.location)}, which can be null: {reason}",
            hint="impute it: .impute(value), .impute_mean() or .impute_median(); add .is_null() as an indicator",
        )


def _inputs(nodes: list[Expression]) -> tuple[InputColumn, ...]:
    seen: dict[str, Expression] = {}
    for node in nodes:
        if node.operation is not COLUMN:
            continue
        first = seen.setdefault(node.settings["name"], node)
        if first is not node:
            raise InvalidDefinition(
                f"column `{node.text}` is declared as {_declared(first)} and as {_declared(node)}",
                hint="declare a column once and use that expression everywhere",
            )
    return tuple(
        InputColumn(name, Dtype(node.settings["dtype"]), node.settings["nullable"]) for name, node in seen.items()
    )


def _declared(node: Expression) -> str:
    nullable = "nullable" if node.settings["nullable"] else "not nullable"
    return f"{node.settings['dtype']}, {nullable},{at(node.location)}".rstrip(",")
