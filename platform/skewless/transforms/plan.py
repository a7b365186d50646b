"""From a graph to a plan: which operations run side by side, in which order, and which lines they read and write.

Nodes whose kernels are the same function of their parameters (equal `stack_key`) can run as one step over a stack of
lines. Which of them do depends on the order: a clip behind a division waits for it, and may have the other clips wait
with it. Finding the fewest steps is a hard problem; the rule here takes, of all kinds with a node that is ready, one
of which all that remain are ready, and where there is none the one of which the largest part is. The lines of a step
follow those of its first operand, so that most operands are neighbours and are read in place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from skewless.transforms.catalogue import COLUMN
from skewless.transforms.graph import Graph, InputColumn
from skewless.transforms.operation import Coding, Kind, Settings, StackableOperation
from skewless.transforms.workspace import (
    CodingStep,
    Lines,
    LinesStep,
    Lookup,
    OtherStep,
    Read,
    StackStep,
    Step,
    lines_of,
)

_NUMBERS = frozenset({Kind.NUMBER, Kind.SEVERAL})
_CODING = "look-ups of strings"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything of a transform that can be resolved before rows are known."""

    inputs: tuple[InputColumn, ...]
    number_inputs: tuple[tuple[str, int], ...]
    """(column, line), lines from 0, columns of a dtype side by side."""
    other_inputs: tuple[tuple[str, int], ...]
    """(column, node)."""
    constants: tuple[tuple[int, float], ...]
    """(line, value)."""
    text_constants: tuple[tuple[int, str], ...]
    """(node, value)."""
    steps: tuple[Step, ...]
    lines: int
    nodes: int
    output_lines: Lines
    output_names: tuple[str, ...]
    graph: Graph
    parameters: tuple[Settings, ...]
    """Settings and what was learned, by node."""
    codings: tuple[Coding | None, ...]
    """The look-up that a node is, by node."""
    groups: tuple[tuple[int, ...], ...]
    """Nodes of each step."""


def compile_plan(graph: Graph, learned: Mapping[int, Settings]) -> Plan:
    """The plan of a graph with everything learned, by node."""
    return _Compiler(graph, learned).plan()


class _Compiler:
    def __init__(self, graph: Graph, learned: Mapping[int, Settings]) -> None:
        self.graph = graph
        self.parameters = [{**node.settings, **learned.get(at, {})} for at, node in enumerate(graph.nodes)]
        self.codings = [
            node.operation.coding(parameters) for node, parameters in zip(graph.nodes, self.parameters, strict=True)
        ]
        self.loaded = [at for at, node in enumerate(graph.nodes) if not node.operands]
        self.line_of: dict[int, int] = {}
        self.lines = 0

    def plan(self) -> Plan:
        nodes = self.graph.nodes
        groups = self._groups()
        numbers = self._place_inputs(groups)
        constants = [at for at in self.loaded if nodes[at].operation is not COLUMN]
        for at in constants:
            if nodes[at].kind is Kind.NUMBER:
                self._place(at, 1)
        steps = tuple(self._step(group) for group in groups)
        names, lines = self._outputs()
        columns = [at for at in self.loaded if nodes[at].operation is COLUMN]
        return Plan(
            inputs=self.graph.inputs,
            number_inputs=tuple((nodes[at].settings["name"], self.line_of[at]) for at in numbers),
            other_inputs=tuple((nodes[at].settings["name"], at) for at in columns if at not in self.line_of),
            constants=tuple((self.line_of[at], nodes[at].settings["value"]) for at in constants if at in self.line_of),
            text_constants=tuple((at, nodes[at].settings["value"]) for at in constants if at not in self.line_of),
            steps=steps,
            lines=self.lines,
            nodes=len(nodes),
            output_lines=lines_of(lines),
            output_names=tuple(names),
            graph=self.graph,
            parameters=tuple(self.parameters),
            codings=tuple(self.codings),
            groups=tuple(map(tuple, groups)),
        )

    def _groups(self) -> list[list[int]]:
        """Nodes to compute, step by step."""
        waiting = [at for at in range(len(self.graph.nodes)) if at not in set(self.loaded)]
        keys = {at: self._key(at) for at in waiting}
        done = set(self.loaded)
        groups: list[list[int]] = []
        while waiting:
            remaining: dict[object, int] = {}
            ready: dict[object, list[int]] = {}
            for at in waiting:
                remaining[keys[at]] = remaining.get(keys[at], 0) + 1
                if done.issuperset(self.graph.operands[at]):
                    ready.setdefault(keys[at], []).append(at)
            best = max(ready, key=lambda key: len(ready[key]) / remaining[key])  # of equals the first in the graph
            groups.append(ready[best])
            done.update(ready[best])
            waiting = [at for at in waiting if at not in done]
        return groups

    def _key(self, at: int) -> object:
        """Nodes with equal keys can run as one step."""
        operation = self.graph.nodes[at].operation
        if self.codings[at] is not None:
            return _CODING
        if isinstance(operation, StackableOperation) and self._reads_numbers(at):
            return (operation.stack_key(), self._parts(at))
        return at

    def _reads_numbers(self, at: int) -> bool:
        return all(self.graph.nodes[operand].kind is Kind.NUMBER for operand in self.graph.operands[at])

    def _parts(self, at: int) -> int | None:
        """How many results a node has; None for one with a single one."""
        suffixes = self._suffixes(at)
        return None if suffixes is None else len(suffixes)

    def _suffixes(self, at: int) -> tuple[str, ...] | None:
        node = self.graph.nodes[at]
        return node.operation.suffixes(self.parameters[at]) if node.kind is Kind.SEVERAL else None

    def _place(self, at: int, lines: int) -> None:
        self.line_of[at] = self.lines
        self.lines += lines

    def _place_inputs(self, groups: Sequence[Sequence[int]]) -> list[int]:
        """Give the columns of numbers their lines: by dtype, as blocks hold them, then by the step that reads them."""
        step_of = {at: step for step, group in enumerate(groups) for at in group}
        reader: dict[int, int] = {}
        for at, operands in enumerate(self.graph.operands):
            for operand in operands:
                reader[operand] = min(step_of[at], reader.get(operand, len(groups)))
        numbers = [
            at
            for at in self.loaded
            if self.graph.nodes[at].operation is COLUMN and self.graph.nodes[at].kind is Kind.NUMBER
        ]
        dtypes = [self.graph.nodes[at].settings["dtype"] for at in numbers]
        first = {dtype: place for place, dtype in reversed(list(enumerate(dtypes)))}
        ordered = sorted(numbers, key=lambda at: (first[self.graph.nodes[at].settings["dtype"]], reader.get(at, 0), at))
        for at in ordered:
            self._place(at, 1)
        return ordered

    def _step(self, group: list[int]) -> Step:
        at = group[0]
        node, parts = self.graph.nodes[at], self._parts(at)
        if self.codings[at] is not None:
            return self._coding_step(group)
        if isinstance(node.operation, StackableOperation) and self._reads_numbers(at):
            return self._stack_step(node.operation, group, parts)
        kernel = node.operation.kernel(self.parameters[at])
        sources = tuple((operand, self.line_of.get(operand)) for operand in self.graph.operands[at])
        if node.kind not in _NUMBERS:
            return OtherStep(kernel, sources, at)
        self._place(at, 1 if parts is None else parts)
        return LinesStep(kernel, sources, self.line_of[at], parts, node.nullable)

    def _stack_step(self, operation: StackableOperation, group: list[int], parts: int | None) -> StackStep:
        nodes, operands = self.graph.nodes, self.graph.operands
        ordered = sorted(group, key=lambda at: [self.line_of[operand] for operand in operands[at]])
        table = np.array([self._scalars(at) for at in ordered], dtype=np.float64)
        kernel = operation.stacked_kernel(*np.ascontiguousarray(table.T)[:, :, np.newaxis])
        reads = tuple(
            Read(
                lines_of([self.line_of[operand] for operand in place]),
                any(nodes[operand].nullable for operand in place),
            )
            for place in zip(*(operands[at] for at in ordered), strict=True)
        )
        for at in ordered:
            self._place(at, parts or 1)
        nullable = any(nodes[at].nullable for at in ordered)
        return StackStep(kernel, reads, self.line_of[ordered[0]], len(ordered), parts, nullable)

    def _scalars(self, at: int) -> tuple[float, ...]:
        operation = self.graph.nodes[at].operation
        assert isinstance(operation, StackableOperation), "operations of one stack are stackable"
        return operation.scalars(self.parameters[at])

    def _coding_step(self, group: list[int]) -> CodingStep:
        lookups: list[Lookup] = []
        for at in sorted(group, key=lambda at: (_coding(self.codings[at]).parts is not None, at)):
            coding = _coding(self.codings[at])
            (source,) = self.graph.operands[at]
            lookups.append(Lookup(source, coding, self.graph.nodes[source].nullable))
            self._place(at, 1 if coding.parts is None else coding.parts)
        return CodingStep(tuple(lookups), self.lines - sum(each.coding.parts or 1 for each in lookups))

    def _outputs(self) -> tuple[list[str], list[int]]:
        names: list[str] = []
        lines: list[int] = []
        for name, at in self.graph.outputs:
            suffixes = self._suffixes(at)
            names += [name] if suffixes is None else [f"{name}[{suffix}]" for suffix in suffixes]
            lines += range(self.line_of[at], self.line_of[at] + (1 if suffixes is None else len(suffixes)))
        return names, lines


def _coding(coding: Coding | None) -> Coding:
    assert coding is not None, "a step of look-ups holds look-ups"
    return coding
