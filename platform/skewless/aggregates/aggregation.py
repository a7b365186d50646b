"""What can be computed over a window: the seven aggregates as they are declared.

    mean("arr_delay", sliding("1h", every="5m"), where=column("cancelled", Dtype.BOOL) == 0)

Nulls are left out by all of them. A window without values counts 0, has 0 different values and the sum 0; its mean,
min, max and last are null. NaN is a value: a window with one has NaN for its sum, mean, min and max. Infinities add up
as in IEEE 754. -0.0 is taken for 0.0 throughout.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from skewless.aggregates.distinct_values import HASHED
from skewless.aggregates.windows import Window, duration
from skewless.dtypes import ELEMENTS, NUMERIC, Dtype
from skewless.errors import InvalidDefinition
from skewless.ingest_limits import AGGREGATE_DISTINCT_MAX
from skewless.transforms import Expression, Transform

DISTINCT_EXACT = 1_024
"""Different values that are counted exactly where a declaration does not say."""
_FLOATS = frozenset({Dtype.FLOAT32, Dtype.FLOAT64})
_ORDERED = (NUMERIC | {Dtype.TIMESTAMP}) - {Dtype.BOOL}


class Kind(StrEnum):
    """An aggregate."""

    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    DISTINCT = "distinct"
    LAST = "last"


_TAKES: Mapping[Kind, frozenset[Dtype]] = {
    Kind.COUNT: frozenset(Dtype),
    Kind.SUM: NUMERIC,
    Kind.MEAN: NUMERIC,
    Kind.MIN: _ORDERED,
    Kind.MAX: _ORDERED,
    Kind.DISTINCT: HASHED,
    Kind.LAST: frozenset(Dtype) - frozenset(ELEMENTS),
}


@dataclass(frozen=True, slots=True, eq=False)
class Aggregate:
    """One feature: `kind` of `column` (empty: of events) over `window`, of those events that `where` holds for."""

    kind: Kind
    column: str
    window: Window
    name: str
    where: Transform | None = None
    """One output, whose value is not zero where an event counts; nothing that is learned."""
    dtype: Dtype | None = None
    """FLOAT32 in place of FLOAT64 for a sum or a mean; None: as `feature_dtype` says."""
    exact: int = DISTINCT_EXACT
    """Of `distinct`: how many different values are counted exactly."""

    def feature_dtype(self, column: Dtype | None) -> Dtype:
        """The feature's dtype, where its column has this one."""
        if self.kind in (Kind.COUNT, Kind.DISTINCT):
            return Dtype.INT64
        assert column is not None
        if self.kind is Kind.MEAN or (self.kind is Kind.SUM and column in _FLOATS):
            return self.dtype or Dtype.FLOAT64
        return Dtype.INT64 if self.kind is Kind.SUM else column

    def check(self, columns: Mapping[str, Dtype], where: str) -> None:
        """Raise InvalidDefinition where the events' columns do not allow it; `where` names the declaration."""
        said = f"{where}: aggregate `{self.name}`"
        if self.column and self.column not in columns:
            raise InvalidDefinition(
                f"{said} is of `{self.column}`, which is no field of the stream. Fields: {_listed(columns)}",
                hint="add it to `fields`, or correct the name",
            )
        dtype = columns.get(self.column)
        if dtype is not None and dtype not in _TAKES[self.kind]:
            raise InvalidDefinition(
                f"{said}: {self.kind} cannot be taken of `{self.column}`, which is {dtype}. "
                f"Allowed: {_listed(_TAKES[self.kind])}",
                hint="take another aggregate, or another column",
            )
        if self.dtype is not None and self.feature_dtype(dtype) is not self.dtype:
            raise InvalidDefinition(f"{said} cannot be {self.dtype}; only sums and means of floats can be chosen")
        for name, read in self.where.inputs if self.where is not None else ():
            if columns.get(name) is not read:
                known = f"is {columns[name]}" if name in columns else "is no field of the stream"
                raise InvalidDefinition(
                    f"{said}: its condition reads `{name}` as {read}, which {known}",
                    hint="declare the column in the condition as in `fields`",
                )

    def to_json(self) -> dict[str, Any]:
        """Plain data; all that changes what it means."""
        return {
            "column": self.column,
            "complete": self.window.is_complete,
            "dtype": None if self.dtype is None else str(self.dtype),
            "every_us": self.window.every_us,
            "exact": self.exact,
            "kind": str(self.kind),
            "name": self.name,
            "size_us": self.window.size_us,
            "where": None if self.where is None else self.where.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(
            Kind(data["kind"]),
            data["column"],
            Window(data["size_us"], data["every_us"], data["complete"]),
            data["name"],
            None if data["where"] is None else Transform.from_json(data["where"]),
            None if data["dtype"] is None else Dtype(data["dtype"]),
            data["exact"],
        )


def count(window: Window, column: str = "", *, where: Expression | None = None, name: str = "") -> Aggregate:
    """How many events there are, or how many that have a value of `column`. INT64."""
    return _aggregate(Kind.COUNT, column, window, where, name)


def total(
    column: str, window: Window, *, where: Expression | None = None, name: str = "", dtype: Dtype | None = None
) -> Aggregate:
    """The sum (kind `sum`), exact and rounded once: INT64 of integers (null beyond its range), else FLOAT64.

    `dtype` FLOAT32 rounds it once more.
    """
    return _aggregate(Kind.SUM, column, window, where, name, dtype)


def mean(
    column: str, window: Window, *, where: Expression | None = None, name: str = "", dtype: Dtype | None = None
) -> Aggregate:
    """The sum as a FLOAT64, divided by how many values there are; FLOAT32 where `dtype` says so."""
    return _aggregate(Kind.MEAN, column, window, where, name, dtype)


def minimum(column: str, window: Window, *, where: Expression | None = None, name: str = "") -> Aggregate:
    """The smallest value (kind `min`), in the column's dtype."""
    return _aggregate(Kind.MIN, column, window, where, name)


def maximum(column: str, window: Window, *, where: Expression | None = None, name: str = "") -> Aggregate:
    """The largest value (kind `max`), in the column's dtype."""
    return _aggregate(Kind.MAX, column, window, where, name)


def distinct(
    column: str, window: Window, *, where: Expression | None = None, name: str = "", exact: int = DISTINCT_EXACT
) -> Aggregate:
    """How many different values there are, INT64: exact up to `exact`, beyond it within 1 / sqrt(exact) (1 sigma)."""
    if not 1 <= exact <= AGGREGATE_DISTINCT_MAX:
        raise InvalidDefinition(f"distinct counts {exact} values exactly. Allowed: 1 to {AGGREGATE_DISTINCT_MAX}")
    return _aggregate(Kind.DISTINCT, column, window, where, name, exact=exact)


def last(column: str, window: Window, *, where: Expression | None = None, name: str = "") -> Aggregate:
    """The value of the event that happened last, then of the one that was known last, then of the last in its batch."""
    return _aggregate(Kind.LAST, column, window, where, name)


def _aggregate(
    kind: Kind,
    column: str,
    window: Window,
    where: Expression | None,
    name: str,
    dtype: Dtype | None = None,
    exact: int = DISTINCT_EXACT,
) -> Aggregate:
    if where is not None and not name:
        raise InvalidDefinition(
            f"{kind} of `{column or 'events'}` over {duration(window.size_us)} has a condition and no name",
            hint='give it one: name="late_arrivals_1h"',
        )
    named = name or "_".join(filter(None, (kind, column, window.name)))
    return Aggregate(kind, column, window, named, None if where is None else _condition(where, named), dtype, exact)


def _condition(where: Expression, name: str) -> Transform:
    condition = Transform({"where": where.impute(0)})  # where it is null, the event does not count
    learned = [node for node in condition.graph.nodes if node.operation.learned]
    if learned:
        raise InvalidDefinition(
            f"the condition of aggregate `{name}` learns from training rows: {learned[0]!r}",
            hint="compare with numbers that are written down",
        )
    return condition


def _listed(names: object) -> str:
    return ", ".join(sorted(f"`{each}`" for each in names))  # type: ignore[attr-defined]  # any collection of names
