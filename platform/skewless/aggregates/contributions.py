"""From columns of events to what each contributes to the aggregates: conditions, nulls and zeros are settled here."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skewless.aggregates.compiled import CompiledAggregates, Input
from skewless.aggregates.distinct_values import value_hash
from skewless.dtypes import Column, to_python

Contribution = Any
"""A value, or None where the event has none for the input."""


def contributed(compiled: CompiledAggregates, columns: Mapping[str, Column], rows: int) -> list[list[Contribution]]:
    """For each input the values of all events (rows,), None where an event contributes none.

    Floats are never -0.0, and NaN is Python's one; values that are counted apart are their hashes.
    """
    holds = [condition.apply(columns, rows)[:, 0] != 0 for condition in compiled.conditions]
    return [_values(each, columns, rows, holds) for each in compiled.inputs]


def by_event(contributions: Sequence[Sequence[Contribution]], rows: int) -> list[tuple[Contribution, ...]]:
    """The same turned around: per event its values, in the order of the inputs."""
    return list(zip(*contributions, strict=True)) if contributions else [()] * rows


def event_ids(column: Column | None, rows: int) -> list[int]:
    """A hash of what names each event, 0 where nothing does."""
    if column is None:
        return [0] * rows
    return [value_hash(value) or 1 for value in column.values.tolist()]


def _values(
    given: Input, columns: Mapping[str, Column], rows: int, holds: Sequence[np.ndarray[Any, np.dtype[np.bool_]]]
) -> list[Contribution]:
    counts = np.ones(rows, dtype=np.bool_) if given.where < 0 else holds[given.where]
    if not given.column:
        return [1 if each else None for each in counts.tolist()]
    values = [value if each else None for value, each in zip(to_python(columns[given.column]), counts, strict=True)]
    if given.is_hashed:
        hashes = {value: value_hash(value) for value in set(values) - {None}}
        return [None if value is None else hashes[value] for value in values]
    if columns[given.column].values.dtype.kind == "f":
        return [_usual(value) for value in values]
    return values


def _usual(value: Any) -> Contribution:
    """A float without -0.0, and with one NaN."""
    return value if value is None else math.nan if value != value else value + 0.0
