"""A fitted transform as an ONNX graph, without the `onnx` package (`adapters/onnx_export.py` writes the file).

    inputs:  one per column, (rows, 1), of the column's own element type; for a nullable column a second one, bool,
             named `<column>__valid`, False where the row is null
    inside:  float64, in the steps of the prepared plan: a step's like operations run side by side, (rows, stack)
    output:  `tensor`, float32 (rows, outputs), in the order of the transform's outputs

`onnx_operations.py` holds what each operation becomes, and by how much it may round otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column, Dtype
from skewless.errors import InvalidDefinition
from skewless.transforms.catalogue import COLUMN
from skewless.transforms.graph import InputColumn
from skewless.transforms.onnx_builder import BOOL, DOUBLE, FLOAT, INT32, INT64, STRING, Builder, OnnxNode, Operand
from skewless.transforms.onnx_operations import OPERATIONS, Parameters, refusals
from skewless.transforms.operation import Kind, StackableOperation
from skewless.transforms.plan import Plan, compile_plan
from skewless.transforms.spec import FittedTransform

OUTPUT = "tensor"
VALID_SUFFIX = "__valid"
_ELEMENTS = {
    Dtype.BOOL: BOOL,
    Dtype.INT32: INT32,
    Dtype.INT64: INT64,
    Dtype.FLOAT32: FLOAT,
    Dtype.FLOAT64: DOUBLE,
    Dtype.STRING: STRING,
    Dtype.TIMESTAMP: INT64,
}

Ref = tuple[str, int]
"""(value, column of it)."""


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """What an ONNX file of the transform says. Nodes are in an order in which each comes after what it reads."""

    inputs: tuple[tuple[str, str], ...]
    """(name, element type) of each input, all of shape (rows, 1)."""
    constants: Mapping[str, NDArray[Any]]
    nodes: tuple[OnnxNode, ...]
    opset: int
    """The version of ONNX's own operators that it needs."""
    output_names: tuple[str, ...]
    """Names of the columns of the output `tensor`."""


def export(fitted: FittedTransform) -> OnnxGraph:
    """The graph of a fitted transform.

    Raises InvalidDefinition naming every operation that cannot be exported, with the reason, or every name that two
    inputs would have.
    """
    refused = refusals(fitted.graph)
    if refused:
        raise InvalidDefinition(
            "this transform cannot be exported to ONNX: " + "; ".join(refused),
            hint="compute these outputs before the model, or serve the transform in the gateway as it is",
        )
    _check_names(fitted.graph.inputs)
    return _Exporter(compile_plan(fitted.graph, fitted.learned)).graph()


def exported_inputs(inputs: Sequence[InputColumn], columns: Mapping[str, Column], rows: int) -> dict[str, NDArray[Any]]:
    """What an exported graph is fed, by input name, each (rows, 1); columns as `check_columns` takes them."""
    fed: dict[str, NDArray[Any]] = {}
    for each in inputs:
        column = columns[each.name]
        fed[each.name] = column.values.reshape(rows, 1)
        if each.nullable:
            fed[each.name + VALID_SUFFIX] = column.valid.reshape(rows, 1)
    return fed


def _check_names(inputs: Sequence[InputColumn]) -> None:
    names = [OUTPUT, *(each.name for each in inputs), *(each.name + VALID_SUFFIX for each in inputs if each.nullable)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidDefinition(
            f"this transform cannot be exported to ONNX: two of its values would be named"
            f" {', '.join(f'`{name}`' for name in repeated)}",
            hint=f"rename the column; `{OUTPUT}` is the output, `<column>{VALID_SUFFIX}` says where one is null",
        )


class _Exporter:
    """Walks a plan step by step. Every node of the transform becomes columns of values of the ONNX graph."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.transform = plan.graph
        self.builder = Builder()
        self.values: dict[int, list[Ref]] = {}
        """By node: a column, or one per part."""
        self.valid: dict[int, Ref] = {}
        """By node, where it can be null."""
        self.literals: dict[int, float] = {}

    def graph(self) -> OnnxGraph:
        inputs = self._inputs()
        for group in self.plan.groups:
            operation = self.transform.nodes[group[0]].operation
            if isinstance(operation, StackableOperation) and self._reads_numbers(group[0]):
                self._emit(list(group))
            else:
                for at in group:
                    self._emit([at])
        outputs = [ref for _, at in self.transform.outputs for ref in self.values[at]]
        self.builder.add("Cast", self._columns(outputs), to=FLOAT, name=OUTPUT)
        return OnnxGraph(
            inputs, self.builder.constants, tuple(self.builder.nodes), self.builder.opset, self.plan.output_names
        )

    def _inputs(self) -> tuple[tuple[str, str], ...]:
        inputs: list[tuple[str, str]] = []
        for each in self.transform.inputs:
            inputs.append((each.name, _ELEMENTS[each.dtype]))
            if each.nullable:
                inputs.append((each.name + VALID_SUFFIX, BOOL))
        self.builder.shape_source = inputs[0][0]
        numbers: dict[Dtype, list[int]] = {}
        for at, node in enumerate(self.transform.nodes):
            if node.operation is COLUMN:
                if node.settings["nullable"]:
                    self.valid[at] = (node.settings["name"] + VALID_SUFFIX, 0)
                if node.kind is Kind.NUMBER:
                    numbers.setdefault(Dtype(node.settings["dtype"]), []).append(at)
                else:
                    self.values[at] = [(node.settings["name"], 0)]
            elif not node.operands:
                self._literal(at, node.settings["value"])
        for dtype, nodes in numbers.items():
            together = self._columns([(self.transform.nodes[at].settings["name"], 0) for at in nodes])
            if dtype is not Dtype.FLOAT64:
                together = self.builder.add("Cast", together, to=DOUBLE)
            for column, at in enumerate(nodes):
                self.values[at] = [(together, column)]
        return tuple(inputs)

    def _literal(self, at: int, value: float | str) -> None:
        if isinstance(value, str):
            self.values[at] = [(self.builder.constant(np.array([[value]], dtype=object)), 0)]
        else:
            self.literals[at] = value

    def _reads_numbers(self, at: int) -> bool:
        return all(self.transform.nodes[operand].kind is Kind.NUMBER for operand in self.transform.operands[at])

    def _emit(self, group: list[int]) -> None:
        """One operation, or the operations of one stack."""
        at = group[0]
        node = self.transform.nodes[at]
        self._fill_literals(group)
        operands = [
            self._operand([self.transform.operands[each][place] for each in group])
            for place in range(len(self.transform.operands[at]))
        ]
        parameters = Parameters(self.builder, [self.plan.parameters[each] for each in group], self._scalars(group))
        parts = OPERATIONS[node.operation.name].emit(self.builder, operands, parameters)
        if len(group) == 1 and len(parts) == 1:
            several = node.kind is Kind.SEVERAL
            count = len(node.operation.suffixes(self.plan.parameters[at])) if several else 1
            self.values[at] = [(parts[0].values, column) for column in range(count)]
        else:
            for column, each in enumerate(group):
                self.values[each] = [(part.values, column) for part in parts]
        for column, each in enumerate(group):
            if parts[0].valid is not None and self.transform.nodes[each].nullable:
                self.valid[each] = (parts[0].valid, column)

    def _scalars(self, group: list[int]) -> list[tuple[float, ...]]:
        operation = self.transform.nodes[group[0]].operation
        if not isinstance(operation, StackableOperation):
            return []
        found: list[tuple[float, ...]] = []
        for at in group:
            each = self.transform.nodes[at].operation
            assert isinstance(each, StackableOperation), "operations of one stack are stackable"
            found.append(each.scalars(self.plan.parameters[at]))
        return found

    def _fill_literals(self, group: list[int]) -> None:
        """Give literals a value in every row where nothing else would bring the rows in."""
        operands = [operand for each in group for operand in self.transform.operands[each]]
        if all(at in self.literals for at in operands):
            for at in operands:
                self.values[at] = [(self.builder.filled(np.array([[self.literals.pop(at)]])), 0)]

    def _operand(self, nodes: list[int]) -> Operand:
        """The values of one operand of a stack, (rows, stack); (1, stack) where all of them are literals."""
        if all(at in self.literals for at in nodes):
            return Operand(self.builder.constant(np.array([[self.literals[at] for at in nodes]])), None)
        for at in nodes:
            if at in self.literals:
                self.values[at] = [(self.builder.filled(np.array([[self.literals[at]]])), 0)]
        values = self._columns([self.values[at][0] for at in nodes])
        if not any(at in self.valid for at in nodes):
            return Operand(values, None)
        true = (self.builder.filled(np.array([[True]])), 0) if not all(at in self.valid for at in nodes) else ("", 0)
        return Operand(values, self._columns([self.valid.get(at, true) for at in nodes]))

    def _columns(self, refs: Sequence[Ref]) -> str:
        """One value of these columns, in order: at most one joining and one choosing of columns."""
        sources = list(dict.fromkeys(source for source, _ in refs))
        widths = [self.builder.width(source) for source in sources]
        starts = {source: sum(widths[:place]) for place, source in enumerate(sources)}
        chosen = [starts[source] + column for source, column in refs]
        joined = sources[0] if len(sources) == 1 else self.builder.add("Concat", *sources, axis=1, columns=sum(widths))
        if chosen == list(range(sum(widths))):
            return joined
        places = self.builder.constant(np.array(chosen, dtype=np.int64))
        return self.builder.add("Gather", joined, places, axis=1, columns=len(chosen))
