"""The differential check: every way in which a transform can run, on the same rows, must give the same outputs.

The reference is one prepared call over all rows. Against it run those of `executions.py`, which must give the same
bits: each row alone, batches of several sizes, tables of blocks, the transform stored and read again, and others. An
ONNX export must give the same numbers where it computes exactly; where an output depends on an operation that ONNX
Runtime rounds otherwise, it may be off by as much as `OnnxTolerance` says.

A difference is told by the smallest row that shows it: values that do not matter are made null, or plain.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.canonical_json import Digest
from skewless.dtypes import TABLE, Column, Dtype, column_of, to_python
from skewless.transforms.executions import Execution, executions_of, in_batches, part
from skewless.transforms.graph import InputColumn
from skewless.transforms.onnx_tolerance import OnnxTolerance
from skewless.transforms.row_generator import generate_rows
from skewless.transforms.spec import FittedTransform

ROWS_DEFAULT = 512
DIFFERENCES_MAX = 3
"""Outputs told of one execution; each takes a search for its smallest row."""
ONNX, ONNX_ALONE = "ONNX", "ONNX, row alone"
ONNX_ALONE_ROWS = 64
"""Rows that the export runs one by one: for each of them a session starts anew."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One output of one row on which an execution does not agree with the prepared transform."""

    execution: str
    output: str
    row: Mapping[str, object]
    """The smallest row that shows it, as Python values by column, None for null."""
    expected: float
    found: float
    allowed: float
    """The largest distance that would have been right; 0 where it must be equal."""

    def text(self) -> str:
        """One line for a terminal."""
        told = [f"{name}={value!r}" for name, value in self.row.items() if value is not None]
        values = ", ".join([*told, *(["null in all other columns"] if len(told) < len(self.row) else [])])
        bound = f" (±{self.allowed:.3g} is allowed)" if self.allowed else ""
        return f"{self.execution}: `{self.output}` is {self.found!r}, not {self.expected!r}{bound}, for {values}"


@dataclass(frozen=True, slots=True)
class Report:
    """What was compared, and every difference found. The same transform, rows and seed give the same report."""

    transform: Digest
    rows: int
    seed: int
    executions: tuple[str, ...]
    """Names of all that ran."""
    differences: tuple[Difference, ...]

    @property
    def equal(self) -> bool:
        """Whether every execution agreed."""
        return not self.differences

    def text(self) -> str:
        """Some lines for a terminal: what ran, and each difference with its smallest row."""
        ran = f"{len(self.executions)} executions of transform {self.transform[:12]} on {self.rows:,} rows"
        if self.equal:
            return f"{ran} (seed {self.seed}) agree: {', '.join(self.executions)}"
        return "\n".join([f"{ran} (seed {self.seed}) differ:", *(f"  {each.text()}" for each in self.differences)])

    def to_json(self) -> dict[str, Any]:
        """Plain data; numbers that JSON lacks are the texts `nan`, `inf` and `-inf`."""
        return {
            "transform": self.transform,
            "rows": self.rows,
            "seed": self.seed,
            "executions": list(self.executions),
            "equal": self.equal,
            "differences": [
                {
                    "execution": each.execution,
                    "output": each.output,
                    "row": {name: _plain(value) for name, value in each.row.items()},
                    "expected": _plain(each.expected),
                    "found": _plain(each.found),
                    "allowed": _plain(each.allowed),
                }
                for each in self.differences
            ],
        }


def verify(
    fitted: FittedTransform,
    *,
    rows: int = ROWS_DEFAULT,
    seed: int = 0,
    samples: Mapping[str, Sequence[object]] | None = None,
    onnx: Execution | None = None,
) -> Report:
    """Run every execution on `rows` generated rows and report where they differ.

    `samples` are typical values by column (see `row_generator.generate_rows`). `onnx` runs the transform's ONNX
    export, such as `adapters.onnx_transform.OnnxTransform(fitted).apply`; without it none is compared. What an
    execution raises is raised.
    """
    columns = generate_rows(fitted, rows=rows, seed=seed, samples=samples)
    return compare(fitted, columns, rows, seed=seed, onnx=onnx)


def compare(
    fitted: FittedTransform, columns: Mapping[str, Column], rows: int, *, seed: int = 0, onnx: Execution | None = None
) -> Report:
    """As `verify`, on given rows; `seed` is only told."""
    reference = fitted.prepare().apply
    found: list[Difference] = []
    executions = executions_of(fitted)
    for name, run in executions.items():
        found += _Comparison(name, fitted, reference, run, None).differences(columns, rows)
    if onnx is not None:
        tolerance = OnnxTolerance(fitted)
        found += _Comparison(ONNX, fitted, reference, onnx, tolerance).differences(columns, rows)
        few = min(rows, ONNX_ALONE_ROWS)
        alone = _Comparison(ONNX_ALONE, fitted, reference, in_batches(onnx, 1), tolerance)
        found += alone.differences(part(columns, slice(few)), few)
    names = (*executions, *((ONNX, ONNX_ALONE) if onnx is not None else ()))
    return Report(fitted.digest, rows, seed, names, tuple(found))


@dataclass(frozen=True, slots=True)
class _Compared:
    """Both tensors, how far they may be apart, and where they are further; all (rows, outputs)."""

    expected: NDArray[np.float32]
    found: NDArray[np.float32]
    allowed: NDArray[np.float64]
    wrong: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Comparison:
    """One execution against the reference; without a tolerance, bit for bit."""

    name: str
    fitted: FittedTransform
    reference: Execution
    run: Execution
    tolerance: OnnxTolerance | None

    def differences(self, columns: Mapping[str, Column], rows: int) -> list[Difference]:
        """The first outputs that differ, each with its smallest row."""
        compared = self._compare(columns, rows)
        outputs = np.flatnonzero(compared.wrong.any(axis=0))[:DIFFERENCES_MAX].tolist()
        return [self._smallest(columns, rows, int(compared.wrong[:, output].argmax()), output) for output in outputs]

    def _compare(self, columns: Mapping[str, Column], rows: int) -> _Compared:
        expected, found = self.reference(columns, rows), self.run(columns, rows)
        assert found.shape == expected.shape, f"{self.name} gave {found.shape}, not {expected.shape}"
        assert found.dtype == np.float32, f"{self.name} gave {found.dtype}"
        if self.tolerance is None:
            wrong = np.ascontiguousarray(expected).view(np.uint32) != np.ascontiguousarray(found).view(np.uint32)
            return _Compared(expected, found, np.zeros(expected.shape), wrong)
        allowed = self.tolerance.allowed(columns, rows, expected)
        return _Compared(expected, found, allowed, ~_within(expected, found, allowed))

    def _smallest(self, columns: Mapping[str, Column], rows: int, row: int, output: int) -> Difference:
        """The difference at (row, output), with the row made as plain as it can be and still differ there."""
        alone = part(columns, slice(row, row + 1))
        if self._compare(alone, 1).wrong[0, output]:
            columns, rows, row = alone, 1, 0  # it does not take other rows to show it

        def differs(changed: Mapping[str, Column]) -> bool:
            return bool(self._compare(changed, rows).wrong[row, output])

        columns = _smaller(self.fitted.graph.inputs, columns, row, differs)
        compared = self._compare(columns, rows)
        return Difference(
            execution=self.name,
            output=self.fitted.output_names[output],
            row={each.name: to_python(columns[each.name])[row] for each in self.fitted.graph.inputs},
            expected=float(compared.expected[row, output]),
            found=float(compared.found[row, output]),
            allowed=float(compared.allowed[row, output]),
        )


def _smaller(
    inputs: Sequence[InputColumn],
    columns: Mapping[str, Column],
    row: int,
    differs: Callable[[Mapping[str, Column]], bool],
) -> Mapping[str, Column]:
    """The columns with as many plain values in one row as leave the difference there."""
    plain = {
        each.name: _exchanged(columns[each.name], row, _plainer(each.dtype, nullable=each.nullable)[0])
        for each in inputs
    }
    for each in inputs:  # most often it takes one column
        changed = {**columns, **plain, each.name: columns[each.name]}
        if differs(changed):
            columns = changed
            break
    for each in inputs:
        for value in _plainer(each.dtype, nullable=each.nullable):
            changed = {**columns, each.name: _exchanged(columns[each.name], row, value)}
            if _same(changed[each.name], columns[each.name]) or differs(changed):
                columns = changed
                break
    return columns


def _same(left: Column, right: Column) -> bool:
    return to_python(left) == to_python(right)


def _within(
    expected: NDArray[np.float32], found: NDArray[np.float32], allowed: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Where the two are equal (0.0 and -0.0 are, and NaN and NaN), or no further apart than allowed."""
    with np.errstate(all="ignore"):
        near = np.abs(expected.astype(np.float64) - found) <= allowed
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    within: NDArray[np.bool_] = same | near | np.isposinf(allowed)
    return within


def _plainer(dtype: Dtype, *, nullable: bool) -> list[object]:
    """Values that say nothing, the plainest first."""
    one: dict[Dtype, object] = {Dtype.STRING: "a", Dtype.BOOL: True}
    return [*([None] if nullable else []), TABLE[dtype].zero, one.get(dtype, 1)]


def _exchanged(column: Column, row: int, value: object) -> Column:
    """The column with another value (None for null) in one row."""
    changed = column_of(column.dtype, [value])
    values, valid = column.values.copy(), column.valid.copy()
    values[row], valid[row] = changed.values[0], changed.valid[0]
    return Column(column.dtype, values, valid)


def _plain(value: object) -> object:
    return value if not isinstance(value, float) or math.isfinite(value) else repr(value)
