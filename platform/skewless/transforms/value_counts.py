"""The most frequent of more distinct values than fit in memory: exact, in as many passes as that takes.

All values are counted in one dictionary. Where it outgrows its bound, the values are split in two halves by a bit of
their hash, the half that is not looked at is dropped, and so on; what a pass has counted is complete for its share
of the values. Each share's most frequent values are kept, the next pass counts the next share, and the most frequent
of all shares together are the most frequent of all.

    share     (bits, residue): the values whose hash, modulo 2**bits, is the residue
    pass      one share, counted entirely; halved as often as it needs to fit
"""

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

COUNTED_MAX = 1_000_000
"""Distinct values counted at once: a dictionary of about 100 MB."""
PASSES_MAX = 64

Value = TypeVar("Value", bound=str | float)


class ValueCounts(Generic[Value]):
    """Counts values, and keeps the `most` most frequent ones. Use: `add` all, `end_pass`, and again while that is True.

    `hash_of` gives the same bits, evenly spread, for a value in every process (Python's hash of a string does not).
    """

    def __init__(self, most: int, hash_of: Callable[[Value], int], *, counted_max: int = COUNTED_MAX) -> None:
        self._most = most
        self._hash_of = hash_of
        self._counted_max = max(counted_max, most)
        self._counts: Counter[Value] = Counter()
        self._bits, self._residue = 0, 0
        self._waiting: list[tuple[int, int]] = []
        self._best: list[tuple[int, Value]] = []
        self._passes = 0

    def add(self, values: Sequence[Value]) -> None:
        """Count values."""
        self._counts.update(values if not self._bits else [value for value in values if self._has(value)])
        while len(self._counts) > self._counted_max:
            self._halve()

    def end_pass(self) -> bool:
        """True where all values must be added once more. Raises ValueError where that would go on for too long."""
        counted = [(-count, value) for value, count in self._counts.items()]
        self._best = heapq.nsmallest(self._most, [*self._best, *counted])
        self._counts = Counter()
        self._passes += 1
        if not self._waiting:
            return False
        if self._passes >= PASSES_MAX:
            raise ValueError(
                f"the column has more than about {PASSES_MAX * self._counted_max // 2:,} distinct values, too many to"
                " count; leave it out, or make fewer of them first"
            )
        self._bits, self._residue = self._waiting.pop()
        return True

    def most_frequent(self) -> list[Value]:
        """The most frequent values, the most frequent first; ties in ascending order."""
        return [value for _, value in self._best]

    def _halve(self) -> None:
        self._waiting.append((self._bits + 1, self._residue | 1 << self._bits))
        self._bits += 1
        self._counts = Counter({value: count for value, count in self._counts.items() if self._has(value)})

    def _has(self, value: Value) -> bool:
        return self._hash_of(value) & ((1 << self._bits) - 1) == self._residue
