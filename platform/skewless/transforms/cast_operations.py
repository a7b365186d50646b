"""Casts: from one kind of value to another, or to a narrower range of numbers. Null in gives null out."""

import re
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from skewless.dtypes import Dtype
from skewless.timestamps import SECOND_US
from skewless.transforms import checks
from skewless.transforms.operation import (
    NUMBER,
    STRING,
    TIMESTAMP,
    Kernel,
    Kind,
    OperandFacts,
    Operation,
    Settings,
    StackableOperation,
    Vector,
)

_NUMBER_TEXT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WHOLE_MAX = 2.0**53


class ToInteger(StackableOperation):
    """The number without its fraction (towards zero); null where NaN, infinite or outside of the integer type."""

    name = "to_integer"
    operands = (NUMBER,)
    settings: ClassVar[checks.Checks] = {"dtype": checks.one_of(Dtype.INT32, Dtype.INT64)}

    def nullable(self, operands: Sequence[OperandFacts], settings: Settings) -> bool:  # noqa: ARG002
        return True

    def scalars(self, parameters: Settings) -> tuple[float, ...]:
        return (2.0**31 if parameters["dtype"] == Dtype.INT32 else 2.0**63,)

    def stacked_kernel(self, *scalars: np.typing.NDArray[np.float64]) -> Kernel:
        (limit,) = scalars

        def to_integer(operand: Vector) -> Vector:
            whole = np.trunc(operand.values)
            # NaN compares as False with both bounds, so it is null like whatever lies outside.
            return Vector(whole, operand.valid & (whole >= -limit) & (whole < limit))

        return to_integer


class ToFloat32(StackableOperation):
    """The nearest float32, as what follows would see it had it been stored so; infinite beyond its range."""

    name = "to_float32"
    operands = (NUMBER,)

    def stacked_kernel(self, *scalars: np.typing.NDArray[np.float64]) -> Kernel:  # noqa: ARG002
        return lambda operand: Vector(operand.values.astype(np.float32).astype(np.float64), operand.valid)


class ToText(Operation):
    """The number as text: `3` for a whole one, else the shortest text that reads back as it; `nan`, `inf`, `-inf`."""

    name = "to_text"
    operands = (NUMBER,)
    result = Kind.STRING

    def kernel(self, parameters: Settings) -> Kernel:  # noqa: ARG002
        def to_text(operand: Vector) -> Vector:
            texts = np.empty(operand.values.shape, dtype=object)
            texts[:] = [number_text(value) for value in operand.values.tolist()]
            return Vector(texts, operand.valid)

        return to_text


class ToNumber(Operation):
    """The number that a string writes in ASCII digits (`-1.5e3`); null where it writes none, or one beyond float64.

    White space is not skipped (`strip()` does) and `nan`, `inf`, `1_000` and `0x10` are not numbers.
    """

    name = "to_number"
    operands = (STRING,)
    result = Kind.NUMBER

    def nullable(self, operands: Sequence[OperandFacts], settings: Settings) -> bool:  # noqa: ARG002
        return True

    def kernel(self, parameters: Settings) -> Kernel:  # noqa: ARG002
        def to_number(words: Vector) -> Vector:
            values = np.array([_parsed(word) for word in words.values.tolist()], dtype=np.float64)
            return Vector(values, words.valid & np.isfinite(values))

        return to_number


class EpochSeconds(Operation):
    """Seconds since 1970-01-01T00:00Z, with their fraction."""

    name = "epoch_seconds"
    operands = (TIMESTAMP,)
    result = Kind.NUMBER

    def kernel(self, parameters: Settings) -> Kernel:  # noqa: ARG002
        return lambda moment: Vector(moment.values / SECOND_US, moment.valid)


class SecondsBetween(Operation):
    """Seconds from the second moment to the first: above zero where the first is the later one."""

    name = "seconds_between"
    operands = (TIMESTAMP, TIMESTAMP)
    result = Kind.NUMBER

    def kernel(self, parameters: Settings) -> Kernel:  # noqa: ARG002
        def seconds_between(later: Vector, earlier: Vector) -> Vector:
            # Whole seconds and the rest apart: their difference cannot overflow an int64, that of the moments can.
            whole = later.values // SECOND_US - earlier.values // SECOND_US
            rest = later.values % SECOND_US - earlier.values % SECOND_US
            return Vector(whole + rest / SECOND_US, later.valid & earlier.valid)

        return seconds_between

    def text(self, operands: Sequence[str], settings: Settings) -> str:  # noqa: ARG002
        return f"{operands[0]}.seconds_since({operands[1]})"


def number_text(value: float) -> str:
    """The text of a number in strings, crosses and categories.

    >>> [number_text(value) for value in (3.0, -0.0, 0.1, 1e300)]
    ['3', '0', '0.1', '1e+300']
    """
    return str(int(value)) if -_WHOLE_MAX <= value <= _WHOLE_MAX and value == int(value) else repr(value)


def _parsed(word: str) -> float:
    return float(word) if _NUMBER_TEXT.fullmatch(word) else np.nan


TO_INTEGER = ToInteger()
TO_FLOAT32 = ToFloat32()
TO_TEXT = ToText()
TO_NUMBER = ToNumber()
EPOCH_SECONDS = EpochSeconds()
SECONDS_BETWEEN = SecondsBetween()

OPERATIONS: tuple[Operation, ...] = (TO_INTEGER, TO_FLOAT32, TO_TEXT, TO_NUMBER, EPOCH_SECONDS, SECONDS_BETWEEN)
