"""Sets of row numbers as ascending ranges that neither overlap nor touch, each a pair (first, end)."""

from collections.abc import Iterator, Sequence

RowRange = tuple[int, int]
"""Rows from the first on, without the end."""


def without(ranges: Sequence[RowRange], first: int, end: int) -> Iterator[RowRange]:
    """What is left of rows `first` to `end` once the ranges are taken out, ascending.

    >>> list(without([(0, 2), (4, 5)], 1, 7))
    [(2, 4), (5, 7)]
    """
    at = first
    for known_first, known_end in ranges:
        if known_first >= end:
            break
        if at < known_first:
            yield at, known_first
        at = max(at, known_end)
    if at < end:
        yield at, end


def joined(ranges: Sequence[RowRange], first: int, end: int) -> list[RowRange]:
    """The ranges together with rows `first` to `end`.

    >>> joined([(0, 2), (4, 5)], 2, 4)
    [(0, 5)]
    """
    before = [each for each in ranges if each[1] < first]
    after = [each for each in ranges if each[0] > end]
    touched = ranges[len(before) : len(ranges) - len(after)]
    if touched:
        first, end = min(first, touched[0][0]), max(end, touched[-1][1])
    return [*before, (first, end), *after]


def rows_in(ranges: Sequence[RowRange]) -> int:
    """How many rows the ranges hold."""
    return sum(end - first for first, end in ranges)
