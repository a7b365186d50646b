"""What an operation is: the contract between the catalogue of operations and everything that walks a graph.

An operation is written once, as one class: its name, what it takes and gives, when its result can be null,
what it learns, and its kernel. Expressions, fitting, execution and JSON know operations only through this
class, so that a new one is a class in its family's module plus its method on `Expression`.

Numbers are float64 inside. A null is a False in `Vector.valid`; what `values` holds there has no meaning.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from skewless.transforms.checks import Checks


class Kind(StrEnum):
    """What an expression's values are, whatever dtype the column behind it is stored in."""

    NUMBER = "number"
    STRING = "string"
    TIMESTAMP = "timestamp"
    LOCAL_TIME = "local time"
    """Microseconds of a wall clock since its own 1970-01-01T00:00, as int64."""
    SEVERAL = "several numbers"
    """Several outputs at once; nothing can be computed from it."""


class Vector(NamedTuple):
    """Values of one expression, or of a stack of them.

    `values` is (rows,) or, for a stack and for SEVERAL, (stack, rows); its element type follows from the kind:
    float64, object (str) or int64. `valid` has the same shape for a kernel's operands; a kernel may return one
    that broadcasts to it, such as `ALL_VALID`.
    """

    values: NDArray[Any]
    valid: NDArray[np.bool_]


ALL_VALID: NDArray[np.bool_] = np.ones((), dtype=np.bool_)
ALL_VALID.flags.writeable = False

Kernel = Callable[..., Vector]
"""Takes one vector per operand; may return views of them, never writes into them."""
Settings = Mapping[str, Any]
"""Plain data: what is declared (settings), learned, or both together (parameters), by name."""


class OperandFacts(NamedTuple):
    """What is known of an operand before any data: `constant` is its value where it is a literal number."""

    kind: Kind
    nullable: bool
    constant: float | None


class Coding(NamedTuple):
    """A look-up of strings: a code for each known one, for every other, and for null; so the result is never null."""

    places: Mapping[str, float]
    unseen: float
    null: float
    parts: int | None
    """None where the code is the result; n for n outputs, 1 in the one whose number is the code and 0 elsewhere."""


class Statistic(Protocol):
    """Learns from batches of rows, in one pass or several; the same for any order and batching of the rows."""

    def add(self, *operands: Vector) -> None:
        """One batch: the operands' vectors (rows,), and the training target's where the operation needs it."""
        ...

    def end_pass(self) -> bool:
        """After the last batch: True where it must be given all the same rows once more."""
        ...

    def learned(self) -> Settings:
        """What was learned, after the last pass. Raises ValueError, saying why, where these rows cannot teach it."""
        ...


class Operation:
    """One operation. Instances hold no state of a transform and are shared."""

    name: str
    operands: ClassVar[tuple[frozenset[Kind], ...]]
    result: ClassVar[Kind]
    settings: ClassVar[Checks] = {}
    """Name and check of every declared setting. All of them are required in JSON."""
    learned: ClassVar[Checks] = {}
    """Name and check of everything its statistic learns. An operation without any is not fitted."""
    needs_target: ClassVar[bool] = False
    """Whether its statistic takes the training target as one vector more, after the operands: float64 (rows,)."""

    def operand_kinds(self, settings: Settings) -> tuple[frozenset[Kind], ...]:  # noqa: ARG002  # most take a fixed count
        """The kinds allowed for each operand, in order. Overridden where the settings decide how many there are."""
        return self.operands

    def check_together(self, parameters: Settings) -> None:
        """Raise ValueError where settings, each right by itself, contradict one another."""

    def result_kind(self, settings: Settings) -> Kind:  # noqa: ARG002  # a column's kind follows from its dtype
        """Kind of the result."""
        return self.result

    def nullable(self, operands: Sequence[OperandFacts], settings: Settings) -> bool:  # noqa: ARG002
        """Whether the result can be null. Unless an operation says otherwise, null in gives null out."""
        return any(operand.nullable for operand in operands)

    def statistic(self, settings: Settings) -> Statistic:
        """What learns the parameters named in `learned` from training rows."""
        raise NotImplementedError(f"`{self.name}` learns nothing")

    def suffixes(self, parameters: Settings) -> tuple[str, ...]:
        """Names of the outputs of a SEVERAL result, in order."""
        raise NotImplementedError(f"`{self.name}` has one result")

    def kernel(self, parameters: Settings) -> Kernel:
        """The computation with all parameters resolved. A row's result depends on that row alone, bit for bit."""
        raise NotImplementedError

    def coding(self, parameters: Settings) -> Coding | None:  # noqa: ARG002  # most operations are none
        """The look-up that the operation is, of one string operand; None where it is none."""
        return None

    def text(self, operands: Sequence[str], settings: Settings) -> str:
        """How an expression of this operation is written in errors."""
        arguments = [*operands[1:], *(f"{name}={value!r}" for name, value in settings.items() if value is not None)]
        return f"{operands[0]}.{self.name}({', '.join(arguments)})"


class StackableOperation(Operation):
    """Numbers in, numbers out, element by element, with parameters that are single numbers.

    Many expressions of such an operation run as one NumPy call over a (stack, rows) matrix: for one row, the
    number of calls is what a transform costs. A SEVERAL result has its parts on the axis before the rows:
    (parts, rows) for an operand (rows,), (stack, parts, rows) for a stack.
    """

    result = Kind.NUMBER

    def stack_key(self) -> object:
        """Operations with equal keys may share a stack: their stacked kernels are one function of the scalars."""
        return self

    def scalars(self, parameters: Settings) -> tuple[float, ...]:  # noqa: ARG002  # most operations have none
        """The parameters as numbers, in the order `stacked_kernel` takes them."""
        return ()

    def stacked_kernel(self, *scalars: NDArray[np.float64]) -> Kernel:
        """The computation, with each scalar of a shape that broadcasts: () for one, (stack, 1) for a stack."""
        raise NotImplementedError

    def kernel(self, parameters: Settings) -> Kernel:
        return self.stacked_kernel(*(np.asarray(scalar, dtype=np.float64) for scalar in self.scalars(parameters)))


NUMBER = frozenset({Kind.NUMBER})
STRING = frozenset({Kind.STRING})
TIMESTAMP = frozenset({Kind.TIMESTAMP})
LOCAL_TIME = frozenset({Kind.LOCAL_TIME})
ANY = NUMBER | STRING | TIMESTAMP
