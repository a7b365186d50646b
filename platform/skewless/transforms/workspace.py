"""Where a transform is computed: a matrix with one line per number and one column per row, and steps bound to it.

    values:  (lines, rows) float64     inputs first, then literals, then the results of each step side by side
    valid:   (lines, rows) bool        written only where a null can be
    others:  one vector per node that is no number: strings, timestamps, wall clocks

For one row a transform costs what its NumPy calls cost, not its arithmetic: about half a microsecond each, whatever
they compute. So a step finds its operands and its place as views or buffers that were made when it was bound, and a
workspace is used again for as many rows as before. Whoever runs the steps has it alone.

What was measured and left out (2 cores at 2.6 GHz, NumPy 2.4, 40 columns to 101 outputs, 100,000 rows at 1.05 µs a
row): chunks of 120, 250 and 500 rows instead of 1,000 (2.0, 1.5, 1.2 µs: calls outweigh the caches); rounding to
float32 before turning lines into rows, and turning them in tiles (nothing to gain once a line's length is no power
of two); a dict that answers for unseen strings by `__missing__` (44 instead of 34 ns a string); lists instead of
`np.fromiter` for codes (twice the time at 1,000 rows).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from skewless.transforms.operation import ALL_VALID, Coding, Kernel, Vector

Lines = slice | NDArray[np.intp]
"""Lines of the workspace: a slice where they are neighbours, which are read without copying."""
Run = Callable[[], None]


def lines_of(lines: list[int]) -> Lines:
    """The lines, as a slice where they are neighbours in ascending order.

    >>> lines_of([3, 4, 5])
    slice(3, 6, None)
    """
    first = lines[0]
    if lines == list(range(first, first + len(lines))):
        return slice(first, first + len(lines))
    return np.array(lines, dtype=np.intp)


class Step(Protocol):
    """A part of a plan, without rows."""

    def bind(self, workspace: "Workspace") -> Run:
        """The step as a function that reads and writes this workspace."""
        ...


class Workspace:
    """Memory for so many rows, with steps bound to it."""

    __slots__ = ("_kept", "_runs", "others", "rows", "valid", "values")

    def __init__(self, lines: int, rows: int, others: int) -> None:
        self.rows = rows
        self.values: NDArray[np.float64] = np.empty((lines, rows), dtype=np.float64)
        self.valid: NDArray[np.bool_] = np.ones((lines, rows), dtype=np.bool_)
        self.others: list[Vector] = [_NOTHING] * others
        self._kept: list[Vector] = self.others
        self._runs: tuple[Run, ...] = ()

    def bind(self, steps: tuple[Step, ...]) -> None:
        """Make the steps ready to run here. What `others` holds now, literal strings, stays through `forget`."""
        self._kept = list(self.others)
        self._runs = tuple(step.bind(self) for step in steps)

    def run(self) -> None:
        """Compute, once the inputs are in."""
        for run in self._runs:
            run()

    def forget(self) -> None:
        """Let go of the rows' strings and moments."""
        self.others[:] = self._kept


_NOTHING = Vector(np.empty(0), np.empty(0, dtype=np.bool_))


@dataclass(frozen=True, slots=True)
class Read:
    """An operand of a stack: its lines, and whether one of them can be null."""

    lines: Lines
    nullable: bool


@dataclass(frozen=True, slots=True)
class StackStep:
    """Like operations side by side, as one call over (stack, rows); each with `parts` results, or one where None."""

    kernel: Kernel
    reads: tuple[Read, ...]
    first: int
    count: int
    parts: int | None
    nullable: bool

    def bind(self, workspace: Workspace) -> Run:
        """See `Step.bind`."""
        values, valid, rows = workspace.values, workspace.valid, workspace.rows
        operands: list[Vector] = []
        gathers: list[tuple[NDArray[Any], NDArray[np.intp], NDArray[Any]]] = []
        for read in self.reads:
            if isinstance(read.lines, slice):
                operands.append(Vector(values[read.lines], valid[read.lines]))
                continue
            operand = Vector(np.empty((len(read.lines), rows)), np.ones((len(read.lines), rows), dtype=np.bool_))
            operands.append(operand)
            gathers.append((values, read.lines, operand.values))
            if read.nullable:
                gathers.append((valid, read.lines, operand.valid))
        lines = slice(self.first, self.first + self.count * (self.parts or 1))
        shape = (self.count, rows) if self.parts is None else (self.count, self.parts, rows)
        target, known = values[lines].reshape(shape), valid[lines].reshape(shape)
        kernel, nullable = self.kernel, self.nullable

        def run() -> None:
            for source, chosen, buffer in gathers:
                source.take(chosen, 0, buffer, "clip")  # the one mode that writes into `buffer` directly
            result = kernel(*operands)
            target[...] = result.values
            if nullable:
                known[...] = result.valid

        return run


@dataclass(frozen=True, slots=True)
class LinesStep:
    """One operation by itself, with numbers as its result: `parts` of them, or one where None."""

    kernel: Kernel
    sources: tuple[tuple[int, int | None], ...]
    """(node, line) of each operand; the line is None for one that is no number."""
    first: int
    parts: int | None
    nullable: bool

    def bind(self, workspace: Workspace) -> Run:
        """See `Step.bind`."""
        target_lines = self.first if self.parts is None else slice(self.first, self.first + self.parts)
        target, known = workspace.values[target_lines], workspace.valid[target_lines]
        kernel, nullable, operands = self.kernel, self.nullable, _operands(workspace, self.sources)

        def run() -> None:
            result = kernel(*operands())
            target[...] = result.values
            if nullable:
                known[...] = result.valid

        return run


@dataclass(frozen=True, slots=True)
class OtherStep:
    """One operation by itself whose result is no number."""

    kernel: Kernel
    sources: tuple[tuple[int, int | None], ...]
    node: int

    def bind(self, workspace: Workspace) -> Run:
        """See `Step.bind`."""
        kernel, node, others, operands = self.kernel, self.node, workspace.others, _operands(workspace, self.sources)
        all_valid = np.ones(workspace.rows, dtype=np.bool_)

        def run() -> None:
            result = kernel(*operands())
            valid = all_valid if result.valid is ALL_VALID else result.valid
            others[node] = Vector(result.values, valid)

        return run


@dataclass(frozen=True, slots=True)
class Lookup:
    """One look-up of a coding step: the strings of `node`, and whether they can be null."""

    node: int
    coding: Coding
    nullable: bool


@dataclass(frozen=True, slots=True)
class CodingStep:
    """Look-ups of strings side by side. Those whose result is the code come first, then those with an output a code."""

    lookups: tuple[Lookup, ...]
    first: int

    def bind(self, workspace: Workspace) -> Run:
        """See `Step.bind`."""
        others, rows, count = workspace.others, workspace.rows, len(self.lookups)
        lookups = tuple((each.node, each.coding.places.get, repeat(each.coding.unseen)) for each in self.lookups)
        nullable = tuple((place, each.node) for place, each in enumerate(self.lookups) if each.nullable)
        known = np.ones((count, rows), dtype=np.bool_)
        nulls = np.array([each.coding.null for each in self.lookups])[:, np.newaxis]
        whole = sum(each.coding.parts is None for each in self.lookups)
        parts = [each.coding.parts or 0 for each in self.lookups[whole:]]
        source = np.repeat(np.arange(whole, count, dtype=np.intp), parts)
        numbers = np.array([number for part in parts for number in range(part)], dtype=np.float64)[:, np.newaxis]
        expanded = np.empty((len(source), rows))
        codes_target = workspace.values[self.first : self.first + whole]
        parts_target = workspace.values[self.first + whole : self.first + whole + len(source)]

        def run() -> None:
            found = (map(place_of, others[node].values.tolist(), unseen) for node, place_of, unseen in lookups)
            codes = np.fromiter(chain.from_iterable(found), np.float64, count * rows).reshape(count, rows)
            if nullable:
                for place, node in nullable:
                    known[place] = others[node].valid
                codes = np.where(known, codes, nulls)
            codes_target[...] = codes[:whole]
            codes.take(source, 0, expanded, "clip")
            parts_target[...] = expanded == numbers

        return run


def _operands(workspace: Workspace, sources: tuple[tuple[int, int | None], ...]) -> Callable[[], list[Vector]]:
    """Reads the operands of a single operation: numbers are always at the same place, others change with the rows."""
    others = workspace.others
    vectors = [
        _NOTHING if line is None else Vector(workspace.values[line], workspace.valid[line]) for _, line in sources
    ]
    changing = tuple((place, node) for place, (node, line) in enumerate(sources) if line is None)
    if not changing:
        return lambda: vectors
    if len(sources) == 1:
        (node, _) = sources[0]
        return lambda: [others[node]]

    def operands() -> list[Vector]:
        return [others[node] if line is None else vectors[place] for place, (node, line) in enumerate(sources)]

    return operands
