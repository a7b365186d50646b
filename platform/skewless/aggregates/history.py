"""All rows of a stream's view from its events at once: the offline half of the aggregates, over arrays.

    events      (entity, T, K, row within its batch) and what each contributes, sorted so
    moments     at which rows can be due: events' T, and the edges of their panes, with the K from which each is due
    rows        (entity, T, K): for each event the moments that it changes, from its T to its last edge, at its K;
                and every edge that lies after it was known, at that edge
    values      per row and feature the events of its window that were known at its K

What a row is and what a window holds is said in `entity_state.py` and `windows.py`; here it is computed by sorting and
searching in place of going on step by step, with sums by `math.fsum` in place of exact ones. Both give the same bits.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.aggregates import distinct_values
from skewless.aggregates.accumulators import NOTHING, Family, int64_or_null, real_sum
from skewless.aggregates.aggregation import Kind
from skewless.aggregates.compiled import CompiledAggregates, Output
from skewless.aggregates.entity_state import Event, Verdict
from skewless.dtypes import Column, column_of
from skewless.ingest_limits import AGGREGATE_FUTURE_S, AGGREGATE_HISTORY_PAIRS
from skewless.timestamps import SECOND_US

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class HistoryRows:
    """Rows in order of entity, T and K: all arrays (rows,). `columns` are the outputs', in their order."""

    entities: Int64s
    event_times: Int64s
    created_times: Int64s
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Events:
    """Events that count: all arrays (events,). `entities` are numbers from 0; `values` per input, None: none."""

    entities: Int64s
    event_times: Int64s
    created_times: Int64s
    batch_rows: Int64s
    values: Sequence[Sequence[Any]]

    def sorted(self) -> "Events":
        """In order of entity, T, K and row, which the functions here expect."""
        order = np.lexsort((self.batch_rows, self.created_times, self.event_times, self.entities))
        values = [[each[index] for index in order.tolist()] for each in self.values]
        return Events(
            self.entities[order],
            self.event_times[order],
            self.created_times[order],
            self.batch_rows[order],
            values,
        )


def history(
    compiled: CompiledAggregates, events: Events, *, start: int | None = None, end: int | None = None
) -> HistoryRows:
    """Every row that the online half makes of these events, whatever the batches, ticks and restarts.

    `start` and `end` (µs, half-open) keep only rows with T between them; events from `retention_us` before are needed.
    """
    given = events.sorted()
    entities, moments, known = _rows(compiled, given)
    chosen = np.ones(len(moments), dtype=np.bool_)
    if start is not None:
        chosen &= moments >= start
    if end is not None:
        chosen &= moments < end
    return rows_at(compiled, given, entities[chosen], moments[chosen], known[chosen])


def rows_at(
    compiled: CompiledAggregates, events: Events, entities: Int64s, moments: Int64s, known: Int64s
) -> HistoryRows:
    """What the windows held at moments T by what was known at K, of sorted events; all three (rows,)."""
    finder = _Finder(events)
    columns = []
    for output in compiled.outputs:
        slot = compiled.series[output.series].slots[output.slot]
        told = _told(output, slot.family, events.values[slot.input], events, finder, (entities, moments, known))
        columns.append(output_column(output, told))
    return HistoryRows(entities, moments, known, tuple(columns))


def newest(rows: HistoryRows) -> NDArray[np.int64]:
    """Of each entity the place of its row that wins: the latest T, then the latest K."""
    if not len(rows.entities):
        return np.zeros(0, dtype=np.int64)
    return np.append(np.flatnonzero(np.diff(rows.entities)), len(rows.entities) - 1)


def output_column(output: Output, told: list[Any]) -> Column:
    """Values that were told of a feature, None where null, as a column of its dtype."""
    with np.errstate(over="ignore"):  # a sum beyond float32 is infinite
        return column_of(output.dtype, told)


def verdicts_of(compiled: CompiledAggregates, keys: Sequence[bytes], events: Sequence[Event]) -> list[Verdict]:
    """What becomes of events in the order in which they became known, as `entity_state` says it but for crowds."""
    lateness_us, future_us = compiled.declaration.lateness_us, AGGREGATE_FUTURE_S * SECOND_US
    seen: set[tuple[bytes, int]] = set()
    verdicts = []
    for key, event in zip(keys, events, strict=True):
        moment, known, _ = event.order
        if moment < known - lateness_us:
            verdicts.append(Verdict.LATE)
        elif moment > known + future_us:
            verdicts.append(Verdict.FUTURE)
        elif event.identity and (key, event.identity) in seen:
            verdicts.append(Verdict.DUPLICATE)
        else:
            verdicts.append(Verdict.COUNTED)
            seen.add((key, event.identity))
    return verdicts


class _Finder:
    """Finds places in events sorted by entity and T."""

    def __init__(self, events: Events) -> None:
        self._times = np.unique(events.event_times)
        self._width = len(self._times) + 1
        self._order = events.entities * self._width + np.searchsorted(self._times, events.event_times)

    def first_from(self, entities: Int64s, moments: Int64s) -> NDArray[np.intp]:
        """Of each entity the place of its first event at or after a moment."""
        return np.searchsorted(self._order, entities * self._width + np.searchsorted(self._times, moments))


def _rows(compiled: CompiledAggregates, events: Events) -> tuple[Int64s, Int64s, Int64s]:
    """Entity, T and K of every row, in order, each once."""
    available = np.maximum(events.event_times, events.created_times)
    entities, moments, since = [events.entities], [events.event_times], [available]
    for series in compiled.series:
        pane = events.event_times // series.every_us
        for edge in series.edges:
            entities.append(events.entities)
            moments.append((pane + edge) * series.every_us)
            since.append(available)
    all_entities, all_moments, all_since = (np.concatenate(each) for each in (entities, moments, since))
    after = all_moments > all_since
    told = [np.stack((all_entities[after], all_moments[after], all_moments[after]))]
    told += _changed(compiled, events, available, (all_entities, all_moments, all_since))
    rows = np.unique(np.concatenate(told, axis=1), axis=1)
    return rows[0], rows[1], rows[2]


def _changed(
    compiled: CompiledAggregates, events: Events, available: Int64s, moments: tuple[Int64s, Int64s, Int64s]
) -> Iterator[NDArray[np.int64]]:
    """(entity, T, K) of the moments that each event changes: those known by its K, up to its last edge."""
    order = np.lexsort((moments[2], moments[1], moments[0]))
    nothing = np.zeros(len(order), dtype=np.int64)
    points = Events(moments[0][order], moments[1][order], moments[2][order], nothing, ())
    last = np.max(
        [(events.event_times // each.every_us + each.last_edge) * each.every_us for each in compiled.series], axis=0
    )
    finder = _Finder(points)
    first = finder.first_from(events.entities, events.event_times)
    stop = finder.first_from(events.entities, np.minimum(last, available) + 1)
    for portion, row, pair_point in _pairs(first, stop):
        event = portion.start + row
        due = points.created_times[pair_point] <= available[event]
        yield np.stack((events.entities[event], points.event_times[pair_point], available[event]))[:, due]


def _pairs(
    first: NDArray[np.intp], stop: NDArray[np.intp]
) -> Iterator[tuple[range, NDArray[np.intp], NDArray[np.intp]]]:
    """Each row with each place from its `first` to before its `stop`, in bounded portions.

    Yields which rows a portion is of, and for each pair the row's number within the portion and the place.
    """
    counts = np.maximum(stop - first, 0)
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, done + AGGREGATE_HISTORY_PAIRS, side="right")))
        of_portion = counts[start:end]
        row = np.repeat(np.arange(end - start, dtype=np.intp), of_portion)
        offset = np.arange(len(row), dtype=np.intp) - np.repeat(np.cumsum(of_portion) - of_portion, of_portion)
        yield range(start, end), row, np.repeat(first[start:end], of_portion) + offset
        start = end


def _told(
    output: Output, family: Family, given: Sequence[Any], events: Events, finder: _Finder, asked: tuple[Int64s, ...]
) -> list[Any]:
    """Values of one feature at each row asked for (entities, T, K), None where null."""
    entities, moments, known = asked
    first, last = output.window.pane_range(moments)
    begin, end = first * output.window.every_us, np.minimum((last + 1) * output.window.every_us, moments + 1)
    has_value = np.fromiter((each is not None for each in given), dtype=np.bool_, count=len(given))
    available = np.maximum(events.event_times, events.created_times)
    tell = _teller(output, family, given)
    told: list[Any] = []
    for rows, row, place in _pairs(finder.first_from(entities, begin), finder.first_from(entities, end)):
        counts = has_value[place] & (available[place] <= known[rows.start : rows.stop][row])
        sizes = np.bincount(row[counts], minlength=len(rows))
        stops = np.cumsum(sizes).tolist()
        places = place[counts]
        told += [
            tell(places[stop - size : stop]) if size else NOTHING.get(output.kind)
            for size, stop in zip(sizes.tolist(), stops, strict=True)
        ]
    return told


def _teller(output: Output, family: Family, given: Sequence[Any]) -> Callable[[NDArray[np.intp]], Any]:
    """What tells a feature of the values at some places, one or more, in order of the events."""
    if output.kind is Kind.COUNT:
        return len
    if output.kind is Kind.LAST:
        return lambda places: given[places[-1]]
    if output.kind is Kind.DISTINCT:
        return lambda places: distinct_values.count(
            tuple(sorted({given[each] for each in places.tolist()})[: output.kept + 1]), output.kept
        )
    if family is Family.WHOLE:
        wholes = [0 if each is None else int(each) for each in given]
        return _whole_teller(output, wholes)
    values = np.array([0 if each is None else each for each in given])
    if family is Family.REAL:
        return _real_teller(output, values.astype(np.float64))
    reduced = np.minimum if output.kind is Kind.MIN else np.maximum
    return lambda places: reduced.reduce(values[places]).item()


def _whole_teller(output: Output, values: Sequence[int]) -> Callable[[NDArray[np.intp]], Any]:
    def tell(places: NDArray[np.intp]) -> Any:
        total = sum(values[each] for each in places.tolist())
        return float(total) / len(places) if output.kind is Kind.MEAN else int64_or_null(total)

    return tell


def _real_teller(output: Output, values: NDArray[np.float64]) -> Callable[[NDArray[np.intp]], float]:
    def tell(places: NDArray[np.intp]) -> float:
        some = values[places]
        finite = np.isfinite(some)
        total = _sum_of(some[finite].tolist())
        if not finite.all():
            total = real_sum(
                total,
                has_nan=bool(np.isnan(some).any()),
                has_positive=bool((some == math.inf).any()),
                has_negative=bool((some == -math.inf).any()),
            )
        return total / len(places) if output.kind is Kind.MEAN else total

    return tell


def _sum_of(values: Sequence[float]) -> float:
    """The correctly rounded sum of finite floats, never -0.0."""
    try:
        return math.fsum(values) + 0.0
    except OverflowError:  # on the way, or in the end
        exact = sum(map(Fraction, values))
        try:
            return float(exact)
        except OverflowError:
            return math.inf if exact > 0 else -math.inf
