"""Column expressions: how a transform is declared in Python.

::

    temp = column("origin_weather__temp", Dtype.FLOAT32)
    outputs = {"temp": temp.impute_median().standardise(), "temp_missing": temp.is_null()}

An expression is immutable and computes nothing. It is checked where it is written: a wrong operand or setting
raises InvalidDefinition with the expression and the file and line that wrote it. What each method means (its
nulls, NaN and unseen values) is stated at its operation in the families' modules. Selecting and renaming are the
transform's outputs themselves: `{"new_name": column("old_name", …)}`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb
from typing import Any

from skewless.dtypes import NUMERIC, Dtype
from skewless.errors import InvalidDefinition
from skewless.transforms import arithmetic_operations as arithmetic
from skewless.transforms import cast_operations as casts
from skewless.transforms import category_operations as categorical
from skewless.transforms import number_operations as number
from skewless.transforms import statistic_operations as statistic
from skewless.transforms import text_operations as words
from skewless.transforms import time_operations as times
from skewless.transforms.catalogue import COLUMN
from skewless.transforms.checks import OUTPUTS_MAX
from skewless.transforms.declaration import check_operands, check_settings, expression_text, source_location
from skewless.transforms.nulls import can_be_null
from skewless.transforms.operation import Kind, Operation, Settings
from skewless.transforms.timezones import load_zone


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
            hint="use where(condition, a, b); join conditions by `&` and `|` in parentheses, turn one round with `~`",
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
        """The most frequent value of the training rows where null; of numbers alike in that, the smallest."""
        text = self.kind is Kind.STRING
        return _build(words.IMPUTE_MOST_FREQUENT if text else statistic.IMPUTE_MOST_FREQUENT_NUMBER, self)

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

    def robust(self) -> "Expression":
        """Distance from the training median in training interquartile ranges (0 counts as 1)."""
        return _build(statistic.ROBUST, self)

    def clip_quantiles(self, low_share: float = 0.01, high_share: float = 0.99) -> "Expression":
        """`clip` with bounds learned so that these shares of the training values lie at or below them."""
        return _build(statistic.CLIP_QUANTILES, self, low_share=low_share, high_share=high_share)

    def abs(self) -> "Expression":
        """The absolute value."""
        return _build(arithmetic.ABSOLUTE, self)

    def floor(self) -> "Expression":
        """The largest whole number that is not above."""
        return _build(arithmetic.FLOOR, self)

    def ceil(self) -> "Expression":
        """The smallest whole number that is not below."""
        return _build(arithmetic.CEILING, self)

    def round(self) -> "Expression":
        """The nearest whole number; of two equally near the even one."""
        return _build(arithmetic.ROUND, self)

    def sqrt(self) -> "Expression":
        """The square root; NaN below 0."""
        return _build(arithmetic.SQUARE_ROOT, self)

    def power(self, exponent: float) -> "Expression":
        """The value to this power; NaN for a negative value and a fractional exponent."""
        return _build(arithmetic.POWER, self, exponent=exponent)

    def exp(self) -> "Expression":
        """e to the value."""
        return _build(arithmetic.EXPONENTIAL, self)

    def log(self) -> "Expression":
        """Natural logarithm: -infinity at 0, NaN below."""
        return _build(arithmetic.LOGARITHM, self)

    def minimum(self, other: "Expression | float") -> "Expression":
        """The smaller of both; null where either is null, NaN where either is NaN."""
        return _build(arithmetic.MINIMUM, self, other)

    def maximum(self, other: "Expression | float") -> "Expression":
        """The larger of both; null where either is null, NaN where either is NaN."""
        return _build(arithmetic.MAXIMUM, self, other)

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

    def upper(self) -> "Expression":
        """Upper case, as Python's `str.upper`."""
        return _build(words.UPPER, self)

    def replace(self, old: str, new: str) -> "Expression":
        """With every occurrence of `old` replaced."""
        return _build(words.REPLACE, self, old=old, new=new)

    def contains(self, text: str) -> "Expression":
        """1 where the string contains `text`, else 0."""
        return _build(words.CONTAINS, self, text=text)

    def starts_with(self, text: str) -> "Expression":
        """1 where the string begins with `text`, else 0."""
        return _build(words.STARTS_WITH, self, text=text)

    def ends_with(self, text: str) -> "Expression":
        """1 where the string ends with `text`, else 0."""
        return _build(words.ENDS_WITH, self, text=text)

    def is_in(self, items: Sequence[str]) -> "Expression":
        """1 where the string is one of `items`, else 0."""
        return _build(categorical.IS_IN, self, items=items)

    def cross(self, *others: "Expression | str") -> "Expression":
        """This string and others as one category, such as `JFK|AA`; null where any of them is null."""
        return _build(categorical.CROSS, self, *others, count=1 + len(others))

    def hash_bucket(self, buckets: int, *, seed: int = 0) -> "Expression":
        """A number from 0 to `buckets` - 1 by hash: a vocabulary without learning, with collisions."""
        return _build(categorical.HASH_BUCKET, self, buckets=buckets, seed=seed)

    def target_encode(self, *, smoothing: float = 20.0, folds: int = 5) -> "Expression":
        """The smoothed mean of the training target over rows of the same string; see `TargetEncode`.

        Fitting takes the target. A model trains on the tensor of `out_of_fold`, which keeps from each row's
        encoding what that row's fold taught.
        """
        return _build(categorical.TARGET_ENCODE, self, smoothing=smoothing, folds=folds)

    def length(self) -> "Expression":
        """Number of code points."""
        return _build(words.LENGTH, self)

    def one_hot(
        self, *, top_k: int | None = None, categories: Sequence[str] | None = None, oov: bool = True
    ) -> "Expression":
        """A 0/1 output per category, `[category]`, then `[oov]` for any other string; all zeros for null.

        Categories are given, or learned as the `top_k` most frequent (ties in order of code points). Without
        `oov` there is no such output, and any other string gives all zeros.
        """
        return _build(words.ONE_HOT if oov else categorical.ONE_HOT_KNOWN, self, top_k=top_k, categories=categories)

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

    def minute(self, tz: str) -> "Expression":
        """Minute of the hour, 0 to 59."""
        return _build(times.MINUTE, self._local(tz))

    def second(self, tz: str) -> "Expression":
        """Second of the minute, 0 to 59."""
        return _build(times.SECOND, self._local(tz))

    def day_of_month(self, tz: str) -> "Expression":
        """1 to 31."""
        return _build(times.DAY_OF_MONTH, self._local(tz))

    def day_of_year(self, tz: str) -> "Expression":
        """1 to 366."""
        return _build(times.DAY_OF_YEAR, self._local(tz))

    def week_of_year(self, tz: str) -> "Expression":
        """ISO 8601 week, 1 to 53: that of the week's Thursday."""
        return _build(times.WEEK_OF_YEAR, self._local(tz))

    def quarter(self, tz: str) -> "Expression":
        """1 to 4."""
        return _build(times.QUARTER, self._local(tz))

    def is_weekend(self, tz: str) -> "Expression":
        """1 on Saturday and Sunday, else 0."""
        return self.day_of_week(tz) >= 5

    def month(self, tz: str) -> "Expression":
        """1 to 12."""
        return _build(times.MONTH, self._local(tz))

    def year(self, tz: str) -> "Expression":
        """The calendar year."""
        return _build(times.YEAR, self._local(tz))

    def epoch_seconds(self) -> "Expression":
        """Seconds since 1970-01-01T00:00Z."""
        return _build(casts.EPOCH_SECONDS, self)

    def seconds_since(self, earlier: "Expression") -> "Expression":
        """Seconds from another moment to this one; below zero where the other is the later one."""
        return _build(casts.SECONDS_BETWEEN, self, earlier)

    # Casts.
    def cast(self, dtype: Dtype) -> "Expression":
        """The value as it would be had it been of that dtype. A value that has no such form becomes null.

        Numbers to integers drop the fraction; to BOOL give 1 where not zero; to FLOAT32 round; to STRING write
        `3` for 3.0. Strings to numbers read ASCII digits. Timestamps to numbers are seconds since 1970.
        """
        if self.kind is Kind.STRING:
            return self if dtype is Dtype.STRING else _build(casts.TO_NUMBER, self).cast(dtype)
        if self.kind is Kind.TIMESTAMP:
            return self if dtype is Dtype.TIMESTAMP else self.epoch_seconds().cast(dtype)
        if dtype is Dtype.STRING:
            return _build(casts.TO_TEXT, self)
        if dtype not in NUMERIC:
            raise InvalidDefinition(f"`{self.text}` at {source_location()}: a {self.kind} cannot be cast to {dtype}")
        if dtype in (Dtype.INT32, Dtype.INT64):
            return _build(casts.TO_INTEGER, self, dtype=dtype)
        if dtype is Dtype.FLOAT32:
            return _build(casts.TO_FLOAT32, self)
        return self != 0.0 if dtype is Dtype.BOOL else self

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

    def __mod__(self, other: "Expression | float") -> "Expression":
        return _build(arithmetic.MODULO, self, other)

    def __rmod__(self, other: float) -> "Expression":
        return _build(arithmetic.MODULO, other, self)

    def __floordiv__(self, other: "Expression | float") -> "Expression":
        return _build(arithmetic.FLOOR_DIVIDE, self, other)

    def __rfloordiv__(self, other: float) -> "Expression":
        return _build(arithmetic.FLOOR_DIVIDE, other, self)

    def __pow__(self, exponent: float) -> "Expression":
        return self.power(exponent)

    def __abs__(self) -> "Expression":
        return self.abs()

    # Conditions: 1 where both, either or not, a value that is not zero counting as true.
    def __and__(self, other: "Expression | float") -> "Expression":
        return _build(arithmetic.AND, self, other)

    def __or__(self, other: "Expression | float") -> "Expression":
        return _build(arithmetic.OR, self, other)

    def __invert__(self) -> "Expression":
        return _build(arithmetic.NOT, self)

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
    """`chosen` where the condition is not zero, else `otherwise`; null where the condition is null.

    A condition on `is_null()` or on being zero guards its sides: `where(x.is_null(), 0, x)` is never null.
    """
    return _build(number.WHERE, condition, chosen, otherwise)


def polynomial(
    columns: Mapping[str, Expression], degree: int, *, interactions_only: bool = False
) -> dict[str, Expression]:
    """Every product of up to `degree` of the columns, by name: of a and b to degree 2 `a`, `b`, `a^2`, `a b`, `b^2`.

    In scikit-learn's order and names, without its constant 1. `interactions_only` leaves powers out.
    """
    names = list(columns)
    if degree < 1 or not names or comb(len(names) + degree, degree) > OUTPUTS_MAX:
        raise InvalidDefinition(
            f"polynomial of {len(names)} columns to degree {degree} at {source_location()}: there must be a column or"
            f" more, a degree of 1 or more, and at most {OUTPUTS_MAX:,} products"
        )
    products: dict[str, Expression] = {}
    for factors in range(1, degree + 1):
        for chosen in combinations_with_replacement(range(len(names)), factors):
            if interactions_only and len(set(chosen)) < factors:
                continue
            powers = [(names[place], chosen.count(place)) for place in sorted(set(chosen))]
            product = columns[names[chosen[0]]]
            for place in chosen[1:]:
                product = product * columns[names[place]]
            products[" ".join(name if power == 1 else f"{name}^{power}" for name, power in powers)] = product
    return products


def expression_of(
    operation: Operation, operands: tuple[Expression, ...], settings: Mapping[str, Any], *, location: str
) -> Expression:
    """An expression whose operands and settings are checked. Raises InvalidDefinition."""
    texts = tuple(operand.text for operand in operands)
    checked = check_settings(operation, settings, texts, location)
    text = expression_text(operation, texts, checked)
    check_operands(operation, operands, checked, text, location)
    nullable = can_be_null(operation, operands, checked)
    return Expression(operation, operands, checked, operation.result_kind(checked), nullable, text, location)


def declare(operation: Operation, *operands: Expression, **settings: object) -> Expression:
    """An expression of an operation that has no method of its own, such as a step from outside the catalogue."""
    return _build(operation, *operands, **settings)


def _build(operation: Operation, *operands: object, **settings: object) -> Expression:
    location = source_location()
    return expression_of(operation, tuple(_operand(each, location) for each in operands), settings, location=location)


def _operand(value: object, location: str) -> Expression:
    """The expression itself, or a literal as one."""
    if isinstance(value, Expression):
        return value
    constant = words.TEXT_CONSTANT if isinstance(value, str) else number.CONSTANT
    return expression_of(constant, (), {"value": value}, location=location)
