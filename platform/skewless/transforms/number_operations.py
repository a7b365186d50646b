"""Operations on numbers, in float64.

Null in gives null out unless a class says otherwise. NaN and infinities are values and follow IEEE 754:
they pass through arithmetic, a comparison with NaN is 0 (`!=` is 1), and `log1p` is -infinity at -1 and NaN
below. The one exception is a division by zero, which is null. `Clean` turns all of them into nulls; nothing
is learned from them.
"""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from skewless.transforms import checks
from skewless.transforms.learning import Extremes, Mean, MeanAndDeviation, Median, QuantileEdges
from skewless.transforms.operation import (
    ALL_VALID,
    ANY,
    NUMBER,
    Kernel,
    Kind,
    OperandFacts,
    Operation,
    Settings,
    StackableOperation,
    Statistic,
    Vector,
)

_TAU = np.array(math.tau)
"""An array: NumPy takes a microsecond to turn a Python number into one, at every call."""


class Constant(Operation):
    """A literal number."""

    name = "constant"
    operands = ()
    result = Kind.NUMBER
    settings: ClassVar[checks.Checks] = {"value": checks.finite}

    def text(self, operands: Sequence[str], settings: Settings) -> str:  # noqa: ARG002
        return repr(settings["value"])


class Binary(StackableOperation):
    """Two numbers to one: arithmetic, and comparisons, which give 1 or 0."""

    operands = (NUMBER, NUMBER)

    def __init__(self, name: str, symbol: str, compute: np.ufunc) -> None:
        self.name = name
        self.symbol = symbol
        self.compute = compute

    def stacked_kernel(self, *scalars: NDArray[np.float64]) -> Kernel:  # noqa: ARG002
        compute = self.compute

        def binary(left: Vector, right: Vector) -> Vector:
            result = compute(left.values, right.values).astype(np.float64, copy=False)
            return Vector(result, left.valid & right.valid)

        return binary

    def text(self, operands: Sequence[str], settings: Settings) -> str:  # noqa: ARG002
        return f"({operands[0]} {self.symbol} {operands[1]})"


class Divide(Binary):
    """Quotient; null where the divisor is zero, so nullable unless the divisor is a literal."""

    def nullable(self, operands: Sequence[OperandFacts], settings: Settings) -> bool:
        divisor = operands[1].constant
        return divisor is None or divisor == 0.0 or super().nullable(operands, settings)

    def stacked_kernel(self, *scalars: NDArray[np.float64]) -> Kernel:  # noqa: ARG002
        def divide(left: Vector, right: Vector) -> Vector:
            return Vector(left.values / right.values, left.valid & right.valid & (right.values != 0.0))

        return divide


class Where(StackableOperation):
    """The second operand where the first is not zero (NaN is not), else the third; null where the first is null.

    Only the chosen one's null counts.
    """

    name = "where"
    operands = (NUMBER, NUMBER, NUMBER)

    def stacked_kernel(self, *scalars: NDArray[np.float64]) -> Kernel:  # noqa: ARG002
        def where(condition: Vector, chosen: Vector, otherwise: Vector) -> Vector:
            holds = condition.values != 0.0
            valid = condition.valid & np.where(holds, chosen.valid, otherwise.valid)
            return Vector(np.where(holds, chosen.values, otherwise.values), valid)

        return where

    def text(self, operands: Sequence[str], settings: Settings) -> str:  # noqa: ARG002
        return f"where({', '.join(operands)})"


class IsNull(StackableOperation):
    """1 where null, else 0; never null. NaN is not null."""

    name = "is_null"
    operands = (ANY,)

    def nullable(self, operands: Sequence[OperandFacts], settings: Settings) -> bool:  # noqa: ARG002
        return False

    def stacked_kernel(self, *scalars: NDArray[np.float64]) -> Kernel:  # noqa: ARG002
        def is_null(operand: Vector) -> Vector:
            return Vector((~operand.valid).astype(np.float64), ALL_VALID)

        return is_null


class Impute(StackableOperation):
    """The given number where null. NaN is not null and stays: `clean()` first."""

    name = "impute"
    operands = (NUMBER,)
    settings: ClassVar[checks.Checks] = {"value": checks.finite}

    def nullable(self, operands: Sequence[OperandFacts], settings: Settings) -> bool:  # noqa: ARG002
        return False

    def scalars(self, parameters: Settings) -> tuple[float, ...]:
        return (parameters["value"],)

    def stack_key(self) -> object:
        return Impute

    def stacked_kernel(self, *scalars: NDArray[np.float64]) -> Kernel:
        (value,) = scalars
        return lambda operand: Vector(np.where(operand.valid, operand.values, value), ALL_VALID)


class ImputeLearned(Impute):
    """A statistic of the training values where null."""

    settings: ClassVar[checks.Checks] = {}
    learned: ClassVar[checks.Checks] = {"value": checks.finite}

    def __init__(self, name: str, learner: Callable[[Callable[[float], Settings]], Statistic]) -> None:
        self.name = name
        self.learner = learner

    def statistic(self, settings: Settings) -> Statistic:  # noqa: ARG002
        return self.learner(lambda value: {"value": value})


class Bounded(StackableOperation):
    """An operation with an optional lower and an optional upper bound."""

    operands = (NUMBER,)
    settings: ClassVar[checks.Checks] = {"low": checks.finite_or_none, "high": checks.finite_or_none}

    def check_together(self, parameters: Settings) -> None:
        low, high = parameters["low"], parameters["high"]
        if low is not None and high is not None and low > high:
            raise ValueError(f"low={low!r} is above high={high!r}")

    def scalars(self, parameters: Settings) -> tuple[float, ...]:
        low, high = parameters["low"], parameters["high"]
        return (-math.inf if low is None else low, math.inf if high is None else high)


class Clip(Bounded):
    """The value, or the bound that it is beyond. NaN stays NaN."""

    name = "clip"

    def stack_key(self) -> object:
        return Clip

    def stacked_kernel(self, *scalars: NDArray[np.float64]) -> Kernel:
        low, high = scalars

        def clip(operand: Vector) -> Vector:
            # Not np.clip: of 0.0 and -0.0, which are equal, it may return either, depending on the SIMD path.
            values = operand.values
            return Vector(np.where(values < low, low, np.where(values > high, high, values)), operand.valid)

        return clip


class Clean(Bounded):
    """Null where the value is beyond a bound, NaN or infinite."""

    name = "clean"

    def nullable(self, operands: Sequence[OperandFacts], settings: Settings) -> bool:  # noqa: ARG002
        return True

    def stacked_kernel(self, *scalars: NDArray[np.float64]) -> Kernel:
        low, high = scalars

        def clean(operand: Vector) -> Vector:
            values = operand.values
            return Vector(values, operand.valid & np.isfinite(values) & (values >= low) & (values <= high))

        return clean


class Rescale(StackableOperation):
    """(value - offset) / scale with learned offset and scale; a scale of zero counts as one."""

    operands = (NUMBER,)
    learned: ClassVar[checks.Checks] = {"offset": checks.finite, "scale": checks.positive}

    def __init__(self, name: str, learner: Callable[[Callable[[float, float], Settings]], Statistic]) -> None:
        self.name = name
        self.learner = learner

    def statistic(self, settings: Settings) -> Statistic:  # noqa: ARG002
        return self.learner(_offset_and_scale)

    def stack_key(self) -> object:
        return Rescale

    def scalars(self, parameters: Settings) -> tuple[float, ...]:
        return (parameters["offset"], parameters["scale"])

    def stacked_kernel(self, *scalars: NDArray[np.float64]) -> Kernel:
        offset, scale = scalars
        return lambda operand: Vector((operand.values - offset) / scale, operand.valid)


class Log1p(StackableOperation):
    """Natural logarithm of one plus the value: -infinity at -1, NaN below."""

    name = "log1p"
    operands = (NUMBER,)

    def stacked_kernel(self, *scalars: NDArray[np.float64]) -> Kernel:  # noqa: ARG002
        return lambda operand: Vector(np.log1p(np.ascontiguousarray(operand.values)), operand.valid)


class Cyclical(StackableOperation):
    """Sine and cosine of the value as a place on a circle of the given period."""

    name = "cyclical"
    operands = (NUMBER,)
    result = Kind.SEVERAL
    settings: ClassVar[checks.Checks] = {"period": checks.positive}

    def suffixes(self, parameters: Settings) -> tuple[str, ...]:  # noqa: ARG002
        return ("sin", "cos")

    def scalars(self, parameters: Settings) -> tuple[float, ...]:
        return (parameters["period"],)

    def stacked_kernel(self, *scalars: NDArray[np.float64]) -> Kernel:
        (period,) = scalars

        def cyclical(operand: Vector) -> Vector:
            turns = operand.values / period
            # Whole turns go before multiplying by 2π, which is not exact: a late year stays as precise.
            angle = np.ascontiguousarray((turns - np.floor(turns)) * _TAU)
            return Vector(np.stack((np.sin(angle), np.cos(angle)), axis=-2), operand.valid[..., np.newaxis, :])

        return cyclical


class Bucket(Operation):
    """How many of the edges are at or below the value: 0 to their count. NaN sorts last."""

    name = "bucket"
    operands = (NUMBER,)
    result = Kind.NUMBER
    settings: ClassVar[checks.Checks] = {"edges": checks.edges}

    def kernel(self, parameters: Settings) -> Kernel:
        edges = np.array(parameters["edges"], dtype=np.float64)
        return lambda operand: Vector(edges.searchsorted(operand.values, "right").astype(np.float64), operand.valid)


class QuantileBucket(Bucket):
    """`Bucket` with edges that cut the training values into up to `count` buckets of like size."""

    name = "quantile_bucket"
    settings: ClassVar[checks.Checks] = {"count": checks.count_up_to(checks.OUTPUTS_MAX)}
    learned: ClassVar[checks.Checks] = {"edges": checks.edges}

    def check_together(self, parameters: Settings) -> None:
        if parameters["count"] < 2:
            raise ValueError("count must be at least 2")

    def statistic(self, settings: Settings) -> Statistic:
        return QuantileEdges(settings["count"], lambda edges: {"edges": edges})


def _offset_and_scale(offset: float, scale: float) -> Settings:
    if not math.isfinite(scale):
        raise ValueError("the training values span more than a float64 can hold; clip() or clean() them first")
    return {"offset": offset, "scale": scale or 1.0}


def _minimum_and_range(then: Callable[[float, float], Settings]) -> Statistic:
    return Extremes(lambda low, high: then(low, high - low))


CONSTANT = Constant()
ADD = Binary("add", "+", np.add)
SUBTRACT = Binary("subtract", "-", np.subtract)
MULTIPLY = Binary("multiply", "*", np.multiply)
DIVIDE = Divide("divide", "/", np.divide)
LESS = Binary("less", "<", np.less)
LESS_EQUAL = Binary("less_equal", "<=", np.less_equal)
GREATER = Binary("greater", ">", np.greater)
GREATER_EQUAL = Binary("greater_equal", ">=", np.greater_equal)
EQUAL = Binary("equal", "==", np.equal)
NOT_EQUAL = Binary("not_equal", "!=", np.not_equal)
WHERE = Where()
IS_NULL = IsNull()
IMPUTE = Impute()
IMPUTE_MEAN = ImputeLearned("impute_mean", Mean)
IMPUTE_MEDIAN = ImputeLearned("impute_median", Median)
CLIP = Clip()
CLEAN = Clean()
STANDARDISE = Rescale("standardise", MeanAndDeviation)
MIN_MAX = Rescale("min_max", _minimum_and_range)
LOG1P = Log1p()
CYCLICAL = Cyclical()
BUCKET = Bucket()
QUANTILE_BUCKET = QuantileBucket()

OPERATIONS: tuple[Operation, ...] = (
    CONSTANT, ADD, SUBTRACT, MULTIPLY, DIVIDE, LESS, LESS_EQUAL, GREATER, GREATER_EQUAL, EQUAL, NOT_EQUAL, WHERE,
    IS_NULL, IMPUTE, IMPUTE_MEAN, IMPUTE_MEDIAN, CLIP, CLEAN, STANDARDISE, MIN_MAX, LOG1P, CYCLICAL, BUCKET,
    QUANTILE_BUCKET,
)  # fmt: skip
