"""Which slice a row is in: the most frequent values of a column in training by name, all others as one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from skewless.drift.unseen_words import printable
from skewless.dtypes import Column, Dtype
from skewless.errors import InvalidDefinition
from skewless.monitor_limits import DRIFT_SLICES_MAX
from skewless.statistics.edges import next_number
from skewless.statistics.variable import BELOW, Variable

NAMED_MAX = DRIFT_SLICES_MAX - 2
"""Values of a column with a slice of their own; beside them are `null` and `others`."""
_WHOLE = (Dtype.INT32, Dtype.INT64)


class _Names(dict[Any, str]):
    """The slice of each value; a value that has none is looked at anew each time, never kept."""

    def __init__(self, names: dict[Any, str], others: str) -> None:
        super().__init__(names)
        self._others = others

    def __missing__(self, _value: object) -> str:
        return self._others


@dataclass(frozen=True, slots=True, eq=False)
class Slicing:
    """Slices by the values of one column."""

    column: str
    _names: _Names
    _null: str

    @classmethod
    def of(cls, variable: Variable) -> "Slicing":
        """Slices by a column of a baseline. Raises InvalidDefinition for one whose values are no names."""
        column = variable.name
        values = _values(variable)
        if not values:
            raise InvalidDefinition(
                f"`{column}` is of dtype `{variable.dtype}` and has no frequent values to make slices of",
                hint="slice by text, true or false, or whole numbers that stand for kinds",
            )
        names = {value: slice_name(column, write(value)) for value, write in values}
        return cls(column, _Names(names, slice_name(column, "others")), slice_name(column, "null"))

    @property
    def names(self) -> tuple[str, ...]:
        """Every slice that there can be."""
        return (*self._names.values(), slice_name(self.column, "others"), self._null)

    def slices_of(self, column: Column) -> list[str]:
        """The slice of each row (rows,)."""
        found = list(map(self._names.__getitem__, column.values.tolist()))
        if not column.valid.all():
            for row in (~column.valid).nonzero()[0].tolist():
                found[row] = self._null
        return found


def slicings_of(variables: Iterable[Variable], columns: Iterable[str]) -> tuple[tuple[Slicing, ...], str | None]:
    """Slices by some columns, and why one of them makes none; the others are sliced all the same.

    `variables` are the columns of a baseline that the log keeps as they are.
    """
    known = {each.name: each for each in variables}
    found, problem = [], None
    for name in columns:
        try:
            if name in known:
                found.append(Slicing.of(known[name]))
            else:
                problem = f"`{name}` is no column of the bundle that the log keeps as it is"
        except InvalidDefinition as error:
            problem = error.message
    return tuple(found), problem


def slice_name(column: str, value: str) -> str:
    """What a slice is called.

    >>> slice_name("origin", "JFK")
    'origin=JFK'
    """
    return f"{column}={value}"


def _values(variable: Variable) -> Sequence[tuple[Any, Callable[[Any], str]]]:
    """The most frequent values of training, the most frequent first, each with how it is written."""
    if variable.vocabulary is not None:
        return [(word, printable) for word in variable.vocabulary.listed[:NAMED_MAX]]
    if variable.dtype is Dtype.BOOL:
        return [(True, lambda _: "true"), (False, lambda _: "false")]
    if variable.dtype not in _WHOLE:
        return ()
    # Bins that hold one whole number only, by how often training hit them.
    single = [
        (variable.counts[BELOW + 1 + place], int(left))
        for place, (left, right) in enumerate(pairwise(variable.edges))
        if next_number(left, variable.dtype) == right
    ]
    ordered = sorted(single, key=lambda each: (-each[0], each[1]))
    return [(value, str) for count, value in ordered[:NAMED_MAX] if count]
