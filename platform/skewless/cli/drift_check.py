"""Composes a comparison of two files: opens both, chooses bins, slices and windows, counts and compares."""

from dataclasses import dataclass, replace
from pathlib import Path

from skewless.adapters.drift_files import (
    Inputs,
    Split,
    TableFile,
    agreed,
    counted,
    counter_of,
    open_table,
    slices_of,
    time_span,
    window_for,
)
from skewless.cli.output import say, step
from skewless.drift.check import CheckReport, compare, follow
from skewless.errors import InvalidDefinition
from skewless.statistics.counter import Counter
from skewless.timestamps import DAY_US


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be compared, and how. `window_us` None lets the reference choose."""

    reference: Path
    current: Path
    time_column: str | None
    by: str | None
    window_us: int | None
    promise_days: float


def checked(asked: Asked) -> CheckReport:
    """The comparison. Raises NotFound and InvalidDefinition."""
    reference, current = open_table(asked.reference), open_table(asked.current)
    apart: frozenset[str] = frozenset() if asked.time_column is None else frozenset({asked.time_column})
    inputs, columns = agreed(reference, current, apart)
    _require_something(reference, current, inputs)
    split = Split() if asked.by is None else slices_of(reference, asked.by, inputs)
    split = split._replace(time=asked.time_column)
    with step("Choosing bins") as progress:
        counter = counter_of(reference, inputs)
        progress.note(f"{len(inputs)} columns of {reference.rows:,} rows")
    window_us = _window_us(asked, reference, split, counter)
    with step("Counting"):
        (before, lost), (after, lost_after) = (
            counted(each, inputs, counter, split, window_us) for each in (reference, current)
        )
    if lost or lost_after:
        say(f"without a time, and left out: {lost:,} rows of the reference, {lost_after:,} of the current file")
    report = compare(before, after, columns)
    if asked.time_column is None:
        return report
    with step("Following windows"):
        return replace(report, timeline=follow(before, after, promise_days=asked.promise_days))


def _window_us(asked: Asked, reference: TableFile, split: Split, counter: Counter) -> int:
    if asked.time_column is None:
        return DAY_US  # all rows are in one window
    if asked.window_us is not None:
        return asked.window_us
    span = time_span(reference, asked.time_column)
    return window_for(reference, span, 1 if split.slices is None else len(split.slices), counter.layout.size)


def _require_something(reference: TableFile, current: TableFile, inputs: Inputs) -> None:
    for each in (reference, current):
        if not each.rows:
            raise InvalidDefinition(f"`{each.path}` has no rows")
    if not inputs:
        raise InvalidDefinition(
            f"`{reference.path}` and `{current.path}` have no column in common that can be compared"
        )
