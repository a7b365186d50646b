"""A declaration compiled: which values events contribute, what panes keep of them, when windows change.

Aggregates that keep the same of the same values in panes of one length share it: a count, a sum and a mean over an
hour and over a day, both moving every five minutes, are one number each per pane.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from skewless.aggregates.accumulators import Accumulator, Add, Family, Merge, adder, merger, result
from skewless.aggregates.aggregation import Aggregate, Kind
from skewless.aggregates.declaration import StreamAggregates
from skewless.aggregates.windows import Window
from skewless.dtypes import Dtype
from skewless.transforms.execution import PreparedTransform
from skewless.transforms.spec import FittedTransform

_FLOATS = frozenset({Dtype.FLOAT32, Dtype.FLOAT64})
_FAMILIES = {
    Kind.COUNT: Family.COUNT,
    Kind.MIN: Family.LOW,
    Kind.MAX: Family.HIGH,
    Kind.DISTINCT: Family.DISTINCT,
    Kind.LAST: Family.LAST,
}


@dataclass(frozen=True, slots=True)
class Input:
    """What an event contributes: its value of `column` (1 where empty; a hash of it), where condition `where` holds."""

    column: str
    where: int
    """Index of a condition; -1 for none."""
    is_hashed: bool


@dataclass(frozen=True, slots=True)
class Slot:
    """What a pane keeps of one input."""

    family: Family
    input: int
    kept: int
    add: Add
    merge: Merge


@dataclass(frozen=True, slots=True)
class Series:
    """Panes of one length. `edges` are in panes after a pane's own: when it comes into a window or leaves one."""

    every_us: int
    slots: tuple[Slot, ...]
    edges: tuple[int, ...]

    @property
    def last_edge(self) -> int:
        """After so many panes a pane has left every window."""
        return self.edges[-1]


@dataclass(frozen=True, slots=True)
class Output:
    """One feature: the slot of a series that it is told from, over a window."""

    name: str
    dtype: Dtype
    kind: Kind
    window: Window
    place: int
    """Of its window among `CompiledAggregates.windows`."""
    series: int
    slot: int
    kept: int

    def result(self, held: Accumulator | None) -> Any:
        """What is told; None is null."""
        return result(self.kind, self.kept, held)


@dataclass(frozen=True, slots=True)
class CompiledAggregates:
    """See the module. Immutable; threads may share it."""

    declaration: StreamAggregates
    conditions: tuple[PreparedTransform, ...]
    inputs: tuple[Input, ...]
    windows: tuple[Window, ...]
    series: tuple[Series, ...]
    outputs: tuple[Output, ...]

    @classmethod
    def of(cls, declaration: StreamAggregates) -> Self:
        """Compile a declaration."""
        draft = _Draft(declaration)
        outputs = tuple(draft.output(each) for each in declaration.aggregates)
        series = tuple(
            Series(every_us, tuple(slots), _edges(outputs, number))
            for number, (every_us, slots) in enumerate(draft.series.items())
        )
        return cls(declaration, tuple(draft.conditions.values()), tuple(draft.inputs), draft.windows, series, outputs)

    def last_leave(self, event_time: int) -> int:
        """When an event of that time (µs) has left every window."""
        return max((event_time // each.every_us + each.last_edge) * each.every_us for each in self.series)


def _edges(outputs: Iterable[Output], series: int) -> tuple[int, ...]:
    windows = {each.window for each in outputs if each.series == series}
    return tuple(sorted({edge // window.every_us for window in windows for edge in window.edges(0)}))


class _Draft:
    def __init__(self, declaration: StreamAggregates) -> None:
        self._declaration = declaration
        self.conditions: dict[str, PreparedTransform] = {}
        self.inputs: list[Input] = []
        self.windows = tuple(dict.fromkeys(each.window for each in declaration.aggregates))
        self.series: dict[int, list[Slot]] = {}

    def output(self, aggregate: Aggregate) -> Output:
        dtype = self._declaration.columns.get(aggregate.column)
        family = _FAMILIES.get(aggregate.kind) or (Family.REAL if dtype in _FLOATS else Family.WHOLE)
        kept = aggregate.exact if family is Family.DISTINCT else 0
        given = Input(aggregate.column, self._condition(aggregate), family is Family.DISTINCT)
        if given not in self.inputs:
            self.inputs.append(given)
        place = self.inputs.index(given)
        slots = self.series.setdefault(aggregate.window.every_us, [])
        found = [
            number for number, each in enumerate(slots) if (each.family, each.input, each.kept) == (family, place, kept)
        ]
        if not found:
            found = [len(slots)]
            slots.append(Slot(family, place, kept, adder(family, kept), merger(family, kept)))
        return Output(
            aggregate.name,
            aggregate.feature_dtype(dtype),
            aggregate.kind,
            aggregate.window,
            self.windows.index(aggregate.window),
            list(self.series).index(aggregate.window.every_us),
            found[0],
            kept,
        )

    def _condition(self, aggregate: Aggregate) -> int:
        if aggregate.where is None:
            return -1
        if aggregate.where.digest not in self.conditions:
            self.conditions[aggregate.where.digest] = FittedTransform(aggregate.where.graph, {}).prepare()
        return list(self.conditions).index(aggregate.where.digest)
