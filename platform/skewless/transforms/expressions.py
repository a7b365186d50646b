"""Column expressions: how a transform is declared in Python.

::

    temp = column("origin_weather__temp", Dtype.FLOAT32)
    outputs = {"temp": temp.impute_median().standardise(), "temp_missing": temp.is_null()}

An expression is immutable and computes nothing. It is checked where it is written: a wrong operand or setting
raises InvalidDefinition with the expression and the file and line that wrote it. What each method means (its
nulls, NaN and unseen values) is stated at its operation in the families' modules.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from skewless.dtypes import Dtype
from skewless.errors import InvalidDefinition
from skewless.transforms import number_operations as number
from skewless.transforms import text_operations as words
from skewless.transforms import time_operations as times
from skewless.transforms.catalogue import COLUMN
from skewless.transforms.operation import Kind, OperandFacts, Operation, Settings
from skewless.transforms.timezones import load_zone

_PACKAGE = str(Path(__file__).parent)
_TEXT_MAX = 160


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Expression:
    """One value per row, computed from columns. Make one with `column` and the methods here.

    `==` and the other comparisons build expressions, so expressions are compared and hashed by identity.
    """

    operation: Operation
    operands: "tuple[Expression, ...]"
    settings: Settings
    kind: Kind
    nullable: bool
    text: str
    location: str
    """`file:line` that wrote it; empty for one read from JSON."""

    def __repr__(self) -> str:
        return f"<{self.kind} expression {self.text}>"

    def __bool__(self) -> bool:
        raise InvalidDefinition(
            f"`{self.text}` at {source_location()} is used as a truth value, but it stands for a whole column",
            hint="use where(condition, a, b); multiply conditions for `and`, and write `a < b` apart from `b < c`",
        )

    __hash__ = object.__hash__

    # Nulls.
    def impute(self, value: float | str) -> "Expression":
        """`value` where null: a number for numbers, a string for strings."""
        return _build(words.IMPUTE_TEXT if self.kind is Kind.STRING else number.IMPUTE, self, value=value)

    def impute_mean(self) -> "Expression":
        """The mean of the training values where null."""
        return _build(number.IMPUTE_MEAN, self)

    def impute_median(self) -> "Expression":
        """The median of the training values where null."""
        return _build(number.IMPUTE_MEDIAN, self)

    def impute_most_frequent(self) -> "Expression":
        """The most frequent string of the training rows where null."""
        return _build(words.IMPUTE_MOST_FREQUENT, self)

    def is_null(self) -> "Expression":
        """1 where null, else 0; itself never null."""
        return _build(number.IS_NULL, self)

    # Numbers.
    def clip(self, low: float | None, high: float | None) -> "Expression":
        """At least `low` and at most `high`; None is no bound. NaN stays NaN."""
        return _build(number.CLIP, self, low=low, high=high)

    def clean(self, low: float | None = None, high: float | None = None) -> "Expression":
        """Null where below `low`, above `high`, NaN or infinite."""
        return _build(number.CLEAN, self, low=low, high=high)

    def standardise(self) -> "Expression":
        """Distance from the training mean in training standard deviations (population; 0 counts as 1)."""
        return _build(number.STANDARDISE, self)

    def min_max(self) -> "Expression":
        """0 at the training minimum, 1 at the training maximum, beyond them where a value is."""
        return _build(number.MIN_MAX, self)

    def log1p(self) -> "Expression":
        """log(1 + value); -infinity at -1 and NaN below: clip or clean first where that occurs."""
        return _build(number.LOG1P, self)

    def cyclical(self, period: float) -> "Expression":
        """Two outputs, `[sin]` and `[cos]`, of the value's place on a circle of `period`."""
        return _build(number.CYCLICAL, self, period=period)

    def bucket(self, edges: Sequence[float]) -> "Expression":
        """How many of the ascending `edges` are at or below the value. NaN sorts last."""
        return _build(number.BUCKET, self, edges=edges)

    def quantile_bucket(self, count: int) -> "Expression":
        """`bucket` with edges learned so that up to `count` buckets hold like shares of the training rows."""
        return _build(number.QUANTILE_BUCKET, self, count=count)

    # Strings.
    def lower(self) -> "Expression":
        """Lower case, as Python's `str.lower`."""
        return _build(words.LOWER, self)

    def strip(self) -> "Expression":
        """Without white space at both ends, as Python's `str.strip`."""
        return _build(words.STRIP, self)

    def length(self) -> "Expression":
        """Number of code points."""
        return _build(words.LENGTH, self)

    def one_hot(self, *, top_k: int | None = None, categories: Sequence[str] | None = None) -> "Expression":
        """A 0/1 output per category, `[category]`, then `[oov]` for any other string; all zeros for null.

        Categories are given, or learned as the `top_k` most frequent (ties in order of code points).
        """
        return _build(words.ONE_HOT, self, top_k=top_k, categories=categories)

    def index(self, *, top_k: int) -> "Expression":
        """Place among the `top_k` most frequent training strings, from 0; -1 for any other, -2 for null."""
        return _build(words.INDEX, self, top_k=top_k)

    # Timestamps, in the local time of an IANA zone.
    def hour(self, tz: str) -> "Expression":
        """Hour of the day, 0 to 23."""
        return _build(times.HOUR, self._local(tz))

    def minute_of_day(self, tz: str) -> "Expression":
        """Minute of the wall clock's day, 0 to 1439."""
        return _build(times.MINUTE_OF_DAY, self._local(tz))

    def day_of_week(self, tz: str) -> "Expression":
        """0 for Monday to 6 for Sunday."""
        return _build(times.DAY_OF_WEEK, self._local(tz))

    def month(self, tz: str) -> "Expression":
        """1 to 12."""
        return _build(times.MONTH, self._local(tz))

    def year(self, tz: str) -> "Expression":
        """The calendar year."""
        return _build(times.YEAR, self._local(tz))

    def _local(self, tz: str) -> "Expression":
        local = _build(times.LOCAL_TIME_OF_ZONE, self, zone=tz)
        try:
            load_zone(tz)
        except ValueError as error:
            raise InvalidDefinition(f"`{local.text}` at {source_location()}: {error}") from error
        return local

    # Arithmetic and comparisons, with expressions and numbers (== and != with strings as well).
    def __add__(self, other: "Expression | float") -> "Expression":
        return _build(number.ADD, self, other)

    def __radd__(self, other: float) -> "Expression":
        return _build(number.ADD, other, self)

    def __sub__(self, other: "Expression | float") -> "Expression":
        return _build(number.SUBTRACT, self, other)

    def __rsub__(self, other: float) -> "Expression":
        return _build(number.SUBTRACT, other, self)

    def __mul__(self, other: "Expression | float") -> "Expression":
        return _build(number.MULTIPLY, self, other)

    def __rmul__(self, other: float) -> "Expression":
        return _build(number.MULTIPLY, other, self)

    def __truediv__(self, other: "Expression | float") -> "Expression":
        return _build(number.DIVIDE, self, other)

    def __rtruediv__(self, other: float) -> "Expression":
        return _build(number.DIVIDE, other, self)

    def __neg__(self) -> "Expression":
        return _build(number.MULTIPLY, self, -1.0)

    def __lt__(self, other: "Expression | float") -> "Expression":
        return _build(number.LESS, self, other)

    def __le__(self, other: "Expression | float") -> "Expression":
        return _build(number.LESS_EQUAL, self, other)

    def __gt__(self, other: "Expression | float") -> "Expression":
        return _build(number.GREATER, self, other)

    def __ge__(self, other: "Expression | float") -> "Expression":
        return _build(number.GREATER_EQUAL, self, other)

    def __eq__(self, other: object) -> "Expression":  # type: ignore[override]  # builds a comparison of columns
        return _build(words.TEXT_EQUAL if self.kind is Kind.STRING else number.EQUAL, self, other)

    def __ne__(self, other: object) -> "Expression":  # type: ignore[override]  # as above
        return _build(words.TEXT_NOT_EQUAL if self.kind is Kind.STRING else number.NOT_EQUAL, self, other)


def column(name: str, dtype: Dtype, *, nullable: bool = True) -> Expression:
    """An input column. Stored features are always nullable: an entity can be unknown or its value stale.

    A column that is declared `nullable=False` refuses a null when the transform is applied.
    """
    return _build(COLUMN, name=name, dtype=dtype, nullable=nullable)


def where(condition: Expression, chosen: Expression | float, otherwise: Expression | float) -> Expression:
    """`chosen` where the condition is not zero, else `otherwise`; null where the condition is null."""
    return _build(number.WHERE, condition, chosen, otherwise)


def expression_of(
    operation: Operation, operands: tuple[Expression, ...], settings: Mapping[str, Any], *, location: str
) -> Expression:
    """An expression whose operands and settings are checked. Raises InvalidDefinition."""
    texts = tuple(operand.text for operand in operands)
    checked = _check_settings(operation, settings, texts, location)
    try:
        text = _shortened(operation.text(texts, checked))
    except IndexError:
        text = operation.name  # too few operands, refused just below
    _check_operands(operation, operands, text, location)
    facts = tuple(_facts(operand) for operand in operands)
    kind, nullable = operation.result_kind(checked), operation.nullable(facts, checked)
    return Expression(operation, operands, checked, kind, nullable, text, location)


def source_location() -> str:
    """`file:line` of the nearest caller outside this package."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return "an unknown line" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def at(location: str) -> str:
    """` at file:line`, or nothing for an expression without a location."""
    return f" at {location}" if location else ""


def _build(operation: Operation, *operands: object, **settings: object) -> Expression:
    location = source_location()
    return expression_of(operation, tuple(_operand(each, location) for each in operands), settings, location=location)


def _operand(value: object, location: str) -> Expression:
    """The expression itself, or a literal as one."""
    if isinstance(value, Expression):
        return value
    constant = words.TEXT_CONSTANT if isinstance(value, str) else number.CONSTANT
    return expression_of(constant, (), {"value": value}, location=location)


def _check_settings(
    operation: Operation, settings: Mapping[str, Any], operands: Sequence[str], location: str
) -> dict[str, Any]:
    where_text = f"`{operation.name}` of {', '.join(f'`{each}`' for each in operands) or 'a transform'}{at(location)}"
    if settings.keys() != operation.settings.keys():
        raise InvalidDefinition(f"{where_text} has settings {sorted(settings)}, it takes {sorted(operation.settings)}")
    checked: dict[str, Any] = {}
    for name, check in operation.settings.items():
        try:
            checked[name] = check(settings[name])
        except ValueError as error:
            raise InvalidDefinition(f"{where_text}: {name} {error}") from error
    try:
        operation.check_together(checked)
    except ValueError as error:
        raise InvalidDefinition(f"{where_text}: {error}") from error
    return checked


def _check_operands(operation: Operation, operands: Sequence[Expression], text: str, location: str) -> None:
    if len(operands) != len(operation.operands):
        raise InvalidDefinition(
            f"`{operation.name}`{at(location)} takes {len(operation.operands)} operands, got {len(operands)}"
        )
    for operand, allowed in zip(operands, operation.operands, strict=True):
        if operand.kind not in allowed:
            takes = " or ".join(f"a {kind}" for kind in sorted(allowed))
            raise InvalidDefinition(
                f"`{text}`{at(location)}: `{operation.name}` takes {takes}, but `{operand.text}` is"
                f" {'' if operand.kind is Kind.SEVERAL else 'a '}{operand.kind}",
                hint="give an output of several numbers a name of its own in the transform's outputs"
                if operand.kind is Kind.SEVERAL
                else "",
            )


def _facts(operand: Expression) -> OperandFacts:
    constant = operand.settings["value"] if operand.operation is number.CONSTANT else None
    return OperandFacts(operand.kind, operand.nullable, constant)


def _shortened(text: str) -> str:
    """A middle cut out of a long text: shared sub-expressions would otherwise double it at every step."""
    return text if len(text) <= _TEXT_MAX else f"{text[: _TEXT_MAX // 2]} … {text[-_TEXT_MAX // 2 :]}"
