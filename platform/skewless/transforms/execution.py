"""Running a fitted transform: the one code for a training table, a batch and a single row.

`compile_plan` turns the graph into steps over a workspace, a matrix with one line per number and one column
per row. Nodes of the same stackable operation and depth become one step over a stack of lines, because for
one row the count of NumPy calls is the cost: 44 inputs and 60 outputs run in about a dozen steps.

A row's result must not depend on what is computed beside it. NumPy's float64 arithmetic is exact IEEE 754, and
log1p, sin and cos were compared for single values, slices of 2 to 7, offset and strided arrays on kernels for
SSE4.2, AVX2 and AVX-512 without a differing bit (NumPy 2.4.6, x86-64, 240,000 values). Kernels make their
input contiguous before these three all the same, since NumPy does not promise it. Between CPUs log1p is another
matter: its AVX-512 kernel differed from the others in the last bit of 8 % of 200,000 float64 results, and in none
after rounding to float32. A bundle's golden vectors are what checks an unlike machine.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import TABLE, Column
from skewless.errors import InvalidDefinition
from skewless.transforms.catalogue import COLUMN
from skewless.transforms.graph import Graph, InputColumn
from skewless.transforms.number_operations import CONSTANT
from skewless.transforms.operation import ALL_VALID, Kernel, Kind, Settings, StackableOperation, Vector
from skewless.transforms.text_operations import TEXT_CONSTANT

_CHUNK_ROWS = 4_096
"""Rows computed at once: keeps the workspace of 200 lines in a few MiB, near the caches, for a table of any size."""
_LINES = frozenset({Kind.NUMBER, Kind.SEVERAL})

Rows = slice | NDArray[np.intp]
"""Lines of the workspace: a slice where they are neighbours, which reads without copying."""


class Frame:
    """The workspace of one chunk: numbers as lines of a matrix, everything else as vectors by node."""

    __slots__ = ("others", "valid", "values")

    def __init__(self, lines: int, rows: int) -> None:
        self.values: NDArray[np.float64] = np.empty((lines, rows), dtype=np.float64)
        self.valid: NDArray[np.bool_] = np.ones((lines, rows), dtype=np.bool_)
        self.others: dict[int, Vector] = {}


Step = Callable[[Frame], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything of a transform that can be resolved before rows are known."""

    inputs: tuple[InputColumn, ...]
    number_inputs: tuple[tuple[str, int], ...]
    """(column, line)."""
    other_inputs: tuple[tuple[str, int], ...]
    """(column, node)."""
    constants: tuple[tuple[int, float], ...]
    """(line, value)."""
    steps: tuple[Step, ...]
    lines: int
    output_lines: Rows
    output_names: tuple[str, ...]


class PreparedTransform:
    """A fitted transform, ready to run. Holds no state between calls, so threads may share it."""

    __slots__ = ("_plan", "inputs", "output_names")

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.inputs = tuple((each.name, each.dtype) for each in plan.inputs)
        self.output_names = plan.output_names

    def apply(self, columns: Mapping[str, Column], rows: int) -> NDArray[np.float32]:
        """The tensor (rows, outputs), float32, C-contiguous; columns that the transform does not read are ignored.

        A row's numbers depend on that row alone, bit for bit, whatever batch it comes in. A number too large for
        float32 becomes infinite; NaN and infinities that reach an output are handed on (NaN in its one usual bit
        pattern), as a model must stand them: `clean()` and `clip()` keep them out. Raises InvalidDefinition for a
        column that is missing, of another dtype or length, or null where it is declared not to be.
        """
        plan = self._plan
        check_columns(plan.inputs, columns, rows)
        tensor = np.empty((rows, len(plan.output_names)), dtype=np.float32)
        with np.errstate(all="ignore"):
            for start in range(0, rows, _CHUNK_ROWS):
                stop = min(start + _CHUNK_ROWS, rows)
                tensor[start:stop] = _run(plan, columns, start, stop)
        np.copyto(tensor, np.float32(np.nan), where=np.isnan(tensor))
        return tensor


def _run(plan: Plan, columns: Mapping[str, Column], start: int, stop: int) -> NDArray[np.float64]:
    frame = Frame(plan.lines, stop - start)
    values, valid = frame.values, frame.valid
    for name, line in plan.number_inputs:
        column = columns[name]
        values[line] = column.values[start:stop]
        valid[line] = column.valid[start:stop]
    for name, node in plan.other_inputs:
        column = columns[name]
        frame.others[node] = Vector(column.values[start:stop], column.valid[start:stop])
    for line, value in plan.constants:
        values[line] = value
    for step in plan.steps:
        step(frame)
    return values[plan.output_lines].T


def check_columns(inputs: tuple[InputColumn, ...], columns: Mapping[str, Column], rows: int) -> None:
    """Raise InvalidDefinition, naming the column, unless every input is there, of its dtype, with `rows` rows."""
    for each in inputs:
        column = columns.get(each.name)
        if column is None:
            raise InvalidDefinition(
                f"column `{each.name}` is missing; the transform reads {', '.join(f'`{i.name}`' for i in inputs)}"
            )
        if column.dtype is not each.dtype or column.values.dtype != TABLE[each.dtype].numpy:
            raise InvalidDefinition(
                f"column `{each.name}` is {column.dtype} in an array of {column.values.dtype};"
                f" the transform reads it as {each.dtype} in an array of {TABLE[each.dtype].numpy}"
            )
        if column.values.shape != (rows,) or column.valid.shape != (rows,):
            raise InvalidDefinition(
                f"column `{each.name}` has values of shape {column.values.shape} and validity of shape"
                f" {column.valid.shape}; both must be ({rows},)"
            )
        if not each.nullable and not column.valid.all():
            raise InvalidDefinition(
                f"column `{each.name}` is null in row {int(column.valid.argmin())}, but is declared not nullable",
                hint="declare it nullable and impute it, or have the field refused where it enters",
            )


def compile_plan(graph: Graph, learned: Mapping[int, Settings]) -> Plan:
    """The plan of a graph with everything learned, by node."""
    parameters = [{**node.settings, **learned.get(index, {})} for index, node in enumerate(graph.nodes)]
    groups = _groups(graph)
    line_of, lines = _lay_out(graph, groups, parameters)
    inputs = [(index, node) for index, node in enumerate(graph.nodes) if node.operation is COLUMN]
    output_lines: list[int] = []
    output_names: list[str] = []
    for name, index in graph.outputs:
        suffixes = _suffixes(graph, index, parameters)
        output_names += [name] if suffixes is None else [f"{name}[{suffix}]" for suffix in suffixes]
        output_lines += range(line_of[index], line_of[index] + (1 if suffixes is None else len(suffixes)))
    return Plan(
        inputs=graph.inputs,
        number_inputs=tuple((node.settings["name"], line_of[at]) for at, node in inputs if at in line_of),
        other_inputs=tuple((node.settings["name"], at) for at, node in inputs if at not in line_of),
        constants=tuple(
            (line_of[at], node.settings["value"]) for at, node in enumerate(graph.nodes) if node.operation is CONSTANT
        ),
        steps=tuple(_step(graph, group, parameters, line_of) for group in groups),
        lines=lines,
        output_lines=_rows(output_lines),
        output_names=tuple(output_names),
    )


def _groups(graph: Graph) -> list[tuple[int, ...]]:
    """Nodes to compute, in steps: by depth, and within a depth the like stackable ones together."""
    depths: list[int] = []
    groups: dict[tuple[int, object], list[int]] = {}
    for index, (node, operands) in enumerate(zip(graph.nodes, graph.operands, strict=True)):
        depths.append(1 + max((depths[operand] for operand in operands), default=-1))
        if node.operation in (COLUMN, CONSTANT):
            continue
        stackable = _is_stackable(graph, index)
        groups.setdefault((depths[index], node.operation if stackable else index), []).append(index)
    return [tuple(groups[key]) for key in sorted(groups, key=lambda key: key[0])]


def _is_stackable(graph: Graph, index: int) -> bool:
    numbers = all(graph.nodes[operand].kind is Kind.NUMBER for operand in graph.operands[index])
    return numbers and isinstance(graph.nodes[index].operation, StackableOperation)


def _lay_out(
    graph: Graph, groups: list[tuple[int, ...]], parameters: list[dict[str, Any]]
) -> tuple[dict[int, int], int]:
    """The first line of each node with numbers, and the count of lines; a group's lines are neighbours."""
    loaded = [index for index, node in enumerate(graph.nodes) if node.operation in (COLUMN, CONSTANT)]
    line_of: dict[int, int] = {}
    lines = 0
    for index in [*loaded, *(index for group in groups for index in group)]:
        if graph.nodes[index].kind in _LINES:
            line_of[index] = lines
            suffixes = _suffixes(graph, index, parameters)
            lines += 1 if suffixes is None else len(suffixes)
    return line_of, lines


def _suffixes(graph: Graph, index: int, parameters: list[dict[str, Any]]) -> tuple[str, ...] | None:
    """Names of the parts of a node with several numbers; None for a node with one."""
    node = graph.nodes[index]
    return node.operation.suffixes(parameters[index]) if node.kind is Kind.SEVERAL else None


def _step(graph: Graph, group: tuple[int, ...], parameters: list[dict[str, Any]], line_of: Mapping[int, int]) -> Step:
    index = group[0]
    operation = graph.nodes[index].operation
    if operation is TEXT_CONSTANT:
        return _text_constant_step(index, parameters[index]["value"])
    if isinstance(operation, StackableOperation) and _is_stackable(graph, index):
        table = np.array([operation.scalars(parameters[each]) for each in group], dtype=np.float64)
        kernel = operation.stacked_kernel(*np.ascontiguousarray(table.T)[:, :, np.newaxis])
        operands = zip(*(graph.operands[each] for each in group), strict=True)
        reads = tuple(_rows([line_of[operand] for operand in place]) for place in operands)
        return _stack_step(kernel, reads, line_of[index], len(group))
    kernel = operation.kernel(parameters[index])
    sources = tuple((operand, line_of.get(operand)) for operand in graph.operands[index])
    if index not in line_of:
        return _other_step(kernel, sources, index)
    suffixes = _suffixes(graph, index, parameters)
    return _single_step(kernel, sources, line_of[index], None if suffixes is None else len(suffixes))


def _stack_step(kernel: Kernel, reads: tuple[Rows, ...], line: int, count: int) -> Step:
    lines = slice(line, line + count)

    def step(frame: Frame) -> None:
        values, valid = frame.values, frame.valid
        result = kernel(*[Vector(values[rows], valid[rows]) for rows in reads])
        values[lines] = result.values
        if result.valid is not ALL_VALID:
            valid[lines] = result.valid

    return step


def _single_step(kernel: Kernel, sources: tuple[tuple[int, int | None], ...], line: int, count: int | None) -> Step:
    target: int | slice = line if count is None else slice(line, line + count)

    def step(frame: Frame) -> None:
        result = kernel(*[_operand(frame, node, at) for node, at in sources])
        frame.values[target] = result.values
        frame.valid[target] = result.valid

    return step


def _other_step(kernel: Kernel, sources: tuple[tuple[int, int | None], ...], index: int) -> Step:
    def step(frame: Frame) -> None:
        result = kernel(*[_operand(frame, node, at) for node, at in sources])
        valid = np.broadcast_to(result.valid, result.values.shape)
        frame.others[index] = Vector(result.values, valid)

    return step


def _text_constant_step(index: int, value: str) -> Step:
    def step(frame: Frame) -> None:
        rows = frame.values.shape[1]
        frame.others[index] = Vector(np.full(rows, value, dtype=object), np.ones(rows, dtype=np.bool_))

    return step


def _operand(frame: Frame, node: int, line: int | None) -> Vector:
    return frame.others[node] if line is None else Vector(frame.values[line], frame.valid[line])


def _rows(lines: list[int]) -> Rows:
    first = lines[0]
    if lines == list(range(first, first + len(lines))):
        return slice(first, first + len(lines))
    return np.array(lines, dtype=np.intp)
