"""A transform as one straight Python function of one row, for the smallest batches.

For one row NumPy's calls cost what they cost for a hundred: a transform of 40 columns and 120 outputs took 90 µs in
26 of them, nearly all of it overhead. The same arithmetic on Python's floats, which are float64 too, takes some 40 ns
an operation. So for few rows the graph becomes a function whose body is one assignment per node, from the forms of
`row_forms.py`; operations without a form run their kernels on arrays of one row, those of a step together.

The source holds numbered names and text of `row_forms.py` and nothing of a stored transform: parameters, literals and
names of columns are values in the function's namespace.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.column_table import ColumnLayout
from skewless.dtypes import NUMERIC, Dtype
from skewless.transforms.catalogue import COLUMN
from skewless.transforms.operation import Kernel, Kind, StackableOperation, Vector
from skewless.transforms.plan import Plan
from skewless.transforms.row_forms import FORMS, NAMES, RowForm

ROWS_MAX = 3
"""From four rows on the workspace is faster."""

RowFunction = Callable[[Sequence[NDArray[Any]], Sequence[NDArray[np.bool_]], int], list[float] | None]
"""(value blocks, valid blocks, place of the row) to its outputs; None where a column is null that may not be."""

_PYTHON_NUMBERS = frozenset({Dtype.FLOAT32, Dtype.FLOAT64})
"""Dtypes whose `tolist` gives float64 numbers as they are."""


def row_function(plan: Plan, layout: ColumnLayout) -> RowFunction:
    """The function for tables of one layout, which holds every input (`check_layout`)."""
    program = _Program(plan)
    program.load(layout)
    for group in plan.groups:
        program.compute(group)
    return program.finish()


class _Program:
    def __init__(self, plan: Plan) -> None:
        self.graph = plan.graph
        self.parameters = plan.parameters
        self.codings = plan.codings
        self.names: dict[str, object] = dict(NAMES)
        self.lines: list[str] = []

    def load(self, layout: ColumnLayout) -> None:
        """One list per block that is read, and a name per column."""
        read: dict[int, list[int]] = {}
        for at, node in enumerate(self.graph.nodes):
            if node.operation is COLUMN:
                read.setdefault(layout.place[node.settings["name"]][0], []).append(at)
            elif not node.operands:
                self.names[f"v{at}"] = node.settings["value"]
        for block, nodes in read.items():
            dtype = layout.blocks[block][0]
            convert = ".astype(float64)" if dtype in NUMERIC and dtype not in _PYTHON_NUMBERS else ""
            self.lines.append(f"b = values[{block}][:, row]{convert}.tolist()")
            self.lines.append(f"k = valid[{block}][:, row].tolist()")
            for at in nodes:
                line = layout.place[self.graph.nodes[at].settings["name"]][1]
                if self.graph.nodes[at].settings["nullable"]:
                    self.lines.append(f"v{at} = b[{line}] if k[{line}] else None")
                else:
                    self.lines.append(f"if not k[{line}]: return None")
                    self.lines.append(f"v{at} = b[{line}]")

    def compute(self, group: Sequence[int]) -> None:
        """One step of the plan: a line for each node with a form, a call of the kernel for all others together."""
        others: list[int] = []
        for at in group:
            form = self._form(at)
            if form is None:
                others.append(at)
            else:
                self.lines.append(f"v{at} = {self._source(at, form)}")
        if others:
            self._call(others)

    def finish(self) -> RowFunction:
        """Compile what was written."""
        several = {at for _, at in self.graph.outputs if self.graph.nodes[at].kind is Kind.SEVERAL}
        outputs = ", ".join(f"{'*' if at in several else ''}v{at}" for _, at in self.graph.outputs)
        body = "\n    ".join([*self.lines, f"return [{outputs}]"])
        source = f"def row_of(values, valid, row):\n    {body}\n"
        exec(compile(source, "<transform of one row>", "exec"), self.names)  # noqa: S102  # see the module's docstring
        function: Any = self.names["row_of"]
        row_of: RowFunction = function
        return row_of

    def _form(self, at: int) -> RowForm | None:
        coding = self.codings[at]
        if coding is None:
            return FORMS.get(self.graph.nodes[at].operation.name)
        look_up = "{null} if {0} is None else {code_of}({0}, {unseen})"
        return RowForm(look_up if coding.parts is None else f"one_of({look_up}, {{parts}})", nulls=True)

    def _source(self, at: int, form: RowForm) -> str:
        operands = [f"v{operand}" for operand in self.graph.operands[at]]
        expression = form.source.format(*operands, **self._named(at, form))
        nullable = [f"v{each} is None" for each in self.graph.operands[at] if self.graph.nodes[each].nullable]
        if form.nulls or not nullable:
            return expression
        return f"None if {' or '.join(dict.fromkeys(nullable))} else ({expression})"

    def _named(self, at: int, form: RowForm) -> dict[str, str]:
        """Names for a form's parameters, whose values go into the namespace."""
        operation, coding = self.graph.nodes[at].operation, self.codings[at]
        values: dict[str, object] = dict(self.parameters[at])
        if isinstance(operation, StackableOperation):
            values |= {f"s{place}": scalar for place, scalar in enumerate(operation.scalars(self.parameters[at]))}
        if coding is not None:
            values = {"code_of": coding.places.get, "unseen": coding.unseen, "null": coding.null, "parts": coding.parts}
        used = {name: value for name, value in values.items() if f"{{{name}}}" in form.source}
        for name, value in used.items():
            self.names[f"p{at}_{name}"] = value
        return {name: f"p{at}_{name}" for name in used}

    def _call(self, group: list[int]) -> None:
        """A call of one kernel for all nodes of a stack, or of its own for a single node."""
        at = group[0]
        operation = self.graph.nodes[at].operation
        columns = list(zip(*(self.graph.operands[each] for each in group), strict=True))
        kinds = [self.graph.nodes[column[0]].kind for column in columns]
        shape: tuple[int, ...]
        if isinstance(operation, StackableOperation) and all(kind is Kind.NUMBER for kind in kinds):
            table = np.array([self._scalars(each) for each in group], dtype=np.float64)
            kernel = operation.stacked_kernel(*np.ascontiguousarray(table.T)[:, :, np.newaxis])
            shape = (len(group), 1)
        else:
            assert len(group) == 1, "only stackable operations share a step"
            kernel, shape = operation.kernel(self.parameters[at]), (1,)
        self.names[f"call{at}"] = _row_call(kernel, kinds, shape, self.graph.nodes[at].kind)
        operands = ", ".join(f"({''.join(f'v{each}, ' for each in column)})" for column in columns)
        self.lines.append(f"{''.join(f'v{each}, ' for each in group)}= call{at}({operands})")

    def _scalars(self, at: int) -> tuple[float, ...]:
        operation = self.graph.nodes[at].operation
        assert isinstance(operation, StackableOperation), "operations of one stack are stackable"
        return operation.scalars(self.parameters[at])


def _row_call(
    kernel: Kernel, kinds: Sequence[Kind], shape: tuple[int, ...], result_kind: Kind
) -> Callable[..., Iterable[object]]:
    """A function of one tuple per operand, None where null, to the kernel's results for one row.

    `shape` is what the kernel takes: (stack, 1) for a stack, (1,) for an operation by itself; tuples and results are
    one long for each of a stack.
    """
    elements = {Kind.NUMBER: (np.float64, 0.0), Kind.STRING: (np.object_, "")}
    of_operand = [elements.get(kind, (np.int64, 0)) for kind in kinds]
    several = result_kind is Kind.SEVERAL
    all_valid = np.ones(shape, dtype=np.bool_)

    def call(*operands: tuple[object, ...]) -> Iterable[object]:
        vectors: list[Vector] = []
        for (element, zero), values in zip(of_operand, operands, strict=True):
            known = all_valid
            if None in values:
                known = np.array([value is not None for value in values]).reshape(shape)
                values = tuple(zero if value is None else value for value in values)
            vectors.append(Vector(np.array(values, dtype=element).reshape(shape), known))
        result = kernel(*vectors)
        if several:  # (parts, 1) or (stack, parts, 1), never null
            return result.values.reshape(shape[0], -1).tolist()
        found = result.values.ravel().tolist()
        if result.valid.all():
            return found
        valid = np.broadcast_to(result.valid, shape).ravel().tolist()
        return [value if known else None for value, known in zip(found, valid, strict=True)]

    return call
