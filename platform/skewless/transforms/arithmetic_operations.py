"""Elementwise operations on numbers beyond the four: roots, exponents, rounding, extremes, remainders and logic.

Null in gives null out. NaN and infinities are values and follow IEEE 754. What is computed by more than one
rounding (exp, log, power) runs over contiguous memory, as the module `execution` explains; every other one is
exact or correctly rounded, so that no kernel of NumPy can give another bit.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from skewless.transforms import checks
from skewless.transforms.number_operations import Binary
from skewless.transforms.operation import (
    NUMBER,
    Kernel,
    Kind,
    OperandFacts,
    Operation,
    Settings,
    StackableOperation,
    Vector,
)

Numbers = NDArray[np.float64]


class Unary(StackableOperation):
    """A function of each number."""

    operands = (NUMBER,)

    def __init__(self, name: str, compute: Callable[[Numbers], NDArray[np.float64] | NDArray[np.bool_]]) -> None:
        self.name = name
        self.compute = compute

    def stacked_kernel(self, *scalars: Numbers) -> Kernel:  # noqa: ARG002
        compute = self.compute
        return lambda operand: Vector(compute(operand.values).astype(np.float64, copy=False), operand.valid)


class Extreme(StackableOperation):
    """The smaller (or larger) of two numbers; NaN where either is NaN; of 0.0 and -0.0, which are equal, the second."""

    operands = (NUMBER, NUMBER)

    def __init__(self, name: str, first_wins: np.ufunc) -> None:
        self.name = name
        self.first_wins = first_wins

    def stacked_kernel(self, *scalars: Numbers) -> Kernel:  # noqa: ARG002
        first_wins = self.first_wins

        def extreme(left: Vector, right: Vector) -> Vector:
            # Not np.minimum: of 0.0 and -0.0 it may return either, depending on the SIMD path.
            takes_left = first_wins(left.values, right.values) | np.isnan(left.values)
            return Vector(np.where(takes_left, left.values, right.values), left.valid & right.valid)

        return extreme


class Remainder(Binary):
    """Floored division and its remainder, which has the divisor's sign. Null where the divisor is zero."""

    def nullable(self, operands: Sequence[OperandFacts], settings: Settings) -> bool:
        divisor = operands[1].constant
        return divisor is None or divisor == 0.0 or super().nullable(operands, settings)

    def stacked_kernel(self, *scalars: Numbers) -> Kernel:  # noqa: ARG002
        compute = self.compute

        def remainder(left: Vector, right: Vector) -> Vector:
            valid = left.valid & right.valid & (right.values != 0.0)
            return Vector(compute(left.values, right.values), valid)

        return remainder


class Power(Operation):
    """The value to a given power: 0.5 is the square root, 1, 2, 3 and -1 are products and a quotient.

    NaN for a negative value and a fractional exponent, infinity for zero and a negative exponent.
    """

    name = "power"
    operands = (NUMBER,)
    result = Kind.NUMBER
    settings: ClassVar[checks.Checks] = {"exponent": checks.finite}

    def kernel(self, parameters: Settings) -> Kernel:
        compute = _power(parameters["exponent"])
        return lambda operand: Vector(compute(operand.values), operand.valid)

    def text(self, operands: Sequence[str], settings: Settings) -> str:
        return f"({operands[0]} ** {settings['exponent']!r})"


def _power(exponent: float) -> Callable[[Numbers], Numbers]:
    """The computation for one exponent.

    The common exponents are products, which are the same on every machine. np.power has a path of its own for an
    exponent that does not advance in memory, as that of a single row never does, so these must not reach it.
    """
    exact: dict[float, Callable[[Numbers], Numbers]] = {
        -1.0: lambda values: 1.0 / values,
        0.5: np.sqrt,
        1.0: lambda values: values,
        2.0: lambda values: values * values,
        3.0: lambda values: values * values * values,
    }
    known = exact.get(exponent)
    return known or (lambda values: np.power(np.ascontiguousarray(values), np.full(values.shape, exponent)))


ABSOLUTE = Unary("abs", np.abs)
FLOOR = Unary("floor", np.floor)
CEILING = Unary("ceil", np.ceil)
ROUND = Unary("round", np.rint)
SQUARE_ROOT = Unary("sqrt", np.sqrt)
EXPONENTIAL = Unary("exp", lambda values: np.exp(np.ascontiguousarray(values)))
LOGARITHM = Unary("log", lambda values: np.log(np.ascontiguousarray(values)))
NOT = Unary("not", lambda values: values == 0.0)
POWER = Power()
MINIMUM = Extreme("minimum", np.less)
MAXIMUM = Extreme("maximum", np.greater)
MODULO = Remainder("modulo", "%", np.remainder)
FLOOR_DIVIDE = Remainder("floor_divide", "//", np.floor_divide)
AND = Binary("and", "&", np.logical_and)
OR = Binary("or", "|", np.logical_or)

OPERATIONS: tuple[Operation, ...] = (
    ABSOLUTE, FLOOR, CEILING, ROUND, SQUARE_ROOT, EXPONENTIAL, LOGARITHM, NOT, POWER, MINIMUM, MAXIMUM, MODULO,
    FLOOR_DIVIDE, AND, OR,
)  # fmt: skip
