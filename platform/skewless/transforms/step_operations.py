"""Steps from outside the catalogue: an ONNX model as a part of the graph, and a function of an installed package.

The graph holds what identifies a step (a digest, a version), never its code, so a transform's digest covers it and
JSON can run nothing by itself. The computation is bound to the operation of the expression that declares it, or, for
a stored transform, by a `StepLoader`; an operation that is not bound can be read, compared and shown, but not run.

A step sees only rows in which none of its operands is null, and its result is null in all others. What is promised:
an `onnx` step runs row by row unless declared `rows_together`, so that a row cannot depend on its batch. A step that
gets its rows together, as every `python` step does, is checked for it when it is fitted: on up to `CHECKED_ROWS`
training rows it must give the same bits for all of them at once, for parts of them and for each alone. That is
evidence, not proof; the differential check of a fitted transform looks again, on generated rows.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from skewless.errors import InvalidDefinition
from skewless.transforms import checks
from skewless.transforms.operation import Kernel, Kind, Operation, Settings, Statistic, Vector

CHECKED_ROWS = 256
"""Training rows on which a step is checked to give the same bits for a row alone and for rows together."""
_OPERANDS_MAX = 1_024
_KINDS = (Kind.NUMBER, Kind.STRING, Kind.TIMESTAMP)
ELEMENTS = {"float32": Kind.NUMBER, "float64": Kind.NUMBER, "string": Kind.STRING}
"""Element types of an ONNX input, and the kind of operand that fills it."""

StepRun = Callable[[Sequence[NDArray[Any]]], NDArray[np.float64]]
"""Operands (rows,), one row or more, read-only, none of them null: float64 for numbers, object (str) for strings, int64
microseconds for timestamps. Gives float64 (outputs, rows). Raises InvalidDefinition where the step fails."""


class StepLoader(Protocol):
    """Makes the steps of a stored transform runnable. Raises InvalidDefinition where one is not what it was."""

    def onnx(self, settings: Settings) -> "OnnxModelBytes":
        """The model with the digest `settings["sha256"]`."""
        ...

    def python(self, settings: Settings) -> StepRun:
        """The function, of the version and source that the settings pin."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class OnnxModelBytes:
    """A model's file and how it runs here."""

    data: bytes
    run: StepRun


class OnnxInput(NamedTuple):
    """One input of a model: `columns` operands side by side, shape (rows, columns)."""

    name: str
    element: str
    columns: int


class Step(Operation):
    """What both kinds of step share."""

    operands = ()
    learned: ClassVar[checks.Checks] = {"rows_checked": checks.count_from_zero}

    def __init__(self, run: StepRun | None = None) -> None:
        self.run = run

    def bound(self, settings: Settings, steps: StepLoader) -> Self:
        """The operation with its computation, for settings that were checked."""
        raise NotImplementedError

    def result_kind(self, settings: Settings) -> Kind:
        return Kind.NUMBER if settings["outputs"] is None else Kind.SEVERAL

    def suffixes(self, parameters: Settings) -> tuple[str, ...]:
        return tuple(parameters["outputs"])

    def runs_row_by_row(self, settings: Settings) -> bool:  # noqa: ARG002
        """Whether each row is run by itself."""
        return False

    def statistic(self, settings: Settings) -> Statistic:
        return _RowsCheck(self.run_rows(settings))

    def run_rows(self, settings: Settings) -> StepRun:
        """The computation over rows, of the shape that the settings declare; by itself each, where they say so."""
        if self.run is None:
            return _refusal(self.name, settings)
        run = _shaped(self.run, 1 if settings["outputs"] is None else len(settings["outputs"]), self.name)
        return _row_by_row(run) if self.runs_row_by_row(settings) else run

    def kernel(self, parameters: Settings) -> Kernel:
        run = self.run_rows(parameters)
        outputs = parameters["outputs"]
        width = 1 if outputs is None else len(outputs)

        def step(*operands: Vector) -> Vector:
            valid = np.logical_and.reduce([each.valid for each in operands])
            values = np.zeros((width, len(valid)))
            if valid.any():
                values[:, valid] = run([_read_only(each.values[valid]) for each in operands])
            return Vector(values[0] if outputs is None else values, valid)

        return step

    def text(self, operands: Sequence[str], settings: Settings) -> str:
        return f"{self.name} step {self.title(settings)} of ({', '.join(operands)})"

    def title(self, settings: Settings) -> str:
        """What identifies the step, in a few words."""
        raise NotImplementedError


class OnnxStep(Step):
    """An ONNX model with inputs (rows, columns) of float32, float64 or string, and one output, as one operation.

    `inputs` say in order which input takes how many of the operands; `sha256` is the digest of the model's file.
    """

    name = "onnx"

    def __init__(self, model: OnnxModelBytes | None = None) -> None:
        super().__init__(None if model is None else model.run)
        self.model = model

    def operand_kinds(self, settings: Settings) -> tuple[frozenset[Kind], ...]:
        inputs = [OnnxInput(*each) for each in settings["inputs"]]
        return tuple(frozenset({ELEMENTS[each.element]}) for each in inputs for _ in range(each.columns))

    def bound(self, settings: Settings, steps: StepLoader) -> Self:
        return type(self)(steps.onnx(settings))

    def runs_row_by_row(self, settings: Settings) -> bool:
        return not settings["rows_together"]

    def title(self, settings: Settings) -> str:
        return str(settings["sha256"])[:12]

    settings: ClassVar[checks.Checks] = {
        "sha256": checks.sha256,
        "inputs": checks.list_of(
            checks.fixed_list(
                name=checks.name, element=checks.one_of(*ELEMENTS), columns=checks.count_up_to(_OPERANDS_MAX)
            ),
            most=_OPERANDS_MAX,
        ),
        "output": checks.name,
        "outputs": checks.optional(checks.names),
        "rows_together": checks.flag,
    }


class PythonStep(Step):
    """A function of an installed package, pinned by the package's version and the digest of its Python sources."""

    name = "python"
    settings: ClassVar[checks.Checks] = {
        "package": checks.name,
        "version": checks.name,
        "function": checks.name,
        "source_sha256": checks.sha256,
        "operands": checks.list_of(checks.one_of(*_KINDS), most=_OPERANDS_MAX),
        "outputs": checks.optional(checks.names),
    }

    def check_together(self, parameters: Settings) -> None:
        module, _, function = parameters["function"].partition(":")
        if not module or not function or not all(part.isidentifier() for part in (*module.split("."), function)):
            raise ValueError(f"function must be `module:name`, got {parameters['function']!r}")

    def operand_kinds(self, settings: Settings) -> tuple[frozenset[Kind], ...]:
        return tuple(frozenset({Kind(each)}) for each in settings["operands"])

    def bound(self, settings: Settings, steps: StepLoader) -> Self:
        return type(self)(steps.python(settings))

    def title(self, settings: Settings) -> str:
        return f"{settings['function']} ({settings['package']} {settings['version']})"


class _RowsCheck:
    """The statistic of a step: keeps up to `CHECKED_ROWS` rows, the same for any order, and compares runs of them."""

    def __init__(self, run: StepRun) -> None:
        self._run = run
        self._kept: dict[bytes, tuple[Any, ...]] = {}

    def add(self, *operands: Vector) -> None:
        """One batch; rows with a null are left out, as the step never sees them."""
        valid = np.logical_and.reduce([each.valid for each in operands])
        for row in zip(*(each.values[valid].tolist() for each in operands), strict=True):
            self._kept[hashlib.blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=16).digest()] = row
        if len(self._kept) > CHECKED_ROWS:
            self._kept = {key: self._kept[key] for key in sorted(self._kept)[:CHECKED_ROWS]}

    def end_pass(self) -> bool:
        return False

    def learned(self) -> Settings:
        rows = [self._kept[key] for key in sorted(self._kept)]
        if rows:
            self._check([_array(column) for column in zip(*rows, strict=True)], len(rows))
        return {"rows_checked": len(rows)}

    def _check(self, columns: list[NDArray[Any]], rows: int) -> None:
        together = _bits(self._run(columns))
        middle = rows // 2
        for start, stop in ((0, rows), (middle, rows), *((row, row + 1) for row in range(rows))):
            part = _bits(self._run([_read_only(column[start:stop]) for column in columns]))
            differing = np.flatnonzero((part != together[:, start:stop]).any(axis=0))
            if len(differing):
                row = [column[start + int(differing[0])] for column in columns]
                raise ValueError(
                    f"it gives other bits for {stop - start} of {rows} rows than for all of them at once, first for the"
                    f" row {row!r}; a row's result must depend on that row alone"
                )


def _refusal(name: str, settings: Settings) -> StepRun:
    """Stands where nothing is bound: what is read from JSON alone must not run anything."""
    digest = settings.get("sha256") or settings.get("source_sha256")

    def refuse(operands: Sequence[NDArray[Any]]) -> NDArray[np.float64]:  # noqa: ARG001
        raise InvalidDefinition(
            f"the `{name}` step {str(digest)[:12]} was read without what it runs, so it cannot run",
            hint="read the transform with a loader for its steps: FittedTransform.from_json(data, steps=…)",
        )

    return refuse


def _shaped(run: StepRun, width: int, name: str) -> StepRun:
    def shaped(operands: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        result = run(operands)
        if result.shape != (width, len(operands[0])) or result.dtype != np.float64:
            raise InvalidDefinition(
                f"the `{name}` step gave {result.dtype} of shape {result.shape} for {len(operands[0])} rows;"
                f" it is declared to give float64 of shape ({width}, {len(operands[0])})"
            )
        return result

    return shaped


def _row_by_row(run: StepRun) -> StepRun:
    def one_by_one(operands: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        rows = (run([each[row : row + 1] for each in operands]) for row in range(len(operands[0])))
        return np.concatenate(list(rows), axis=1)

    return one_by_one


def _read_only(values: NDArray[Any]) -> NDArray[Any]:
    view = np.ascontiguousarray(values).view()
    view.flags.writeable = False
    return view


def _array(items: Sequence[Any]) -> NDArray[Any]:
    """Values of one operand as kernels get them; the element type follows from the first."""
    element = {float: np.float64, int: np.int64}.get(type(items[0]), np.object_)
    array = np.empty(len(items), dtype=element)
    array[:] = items
    return _read_only(array)


def _bits(values: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Bits to compare, all NaN alike: they leave a transform in one bit pattern."""
    return np.ascontiguousarray(np.where(np.isnan(values), np.nan, values)).view(np.uint64)


ONNX = OnnxStep()
PYTHON = PythonStep()

OPERATIONS: tuple[Operation, ...] = (ONNX, PYTHON)
