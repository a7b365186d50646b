"""The value at a rank, of more numbers than fit in memory: exact, by counting passes over the same numbers.

A float64's bits, read as an integer in the order of the numbers, are its key. Few numbers are simply kept. Of more,
the first pass only counts keys by their first 18 bits (sign, exponent, six bits of mantissa: 64 cells from each power
of two to the next). Each rank asked for then lies in one cell of known rank, and the next pass keeps the numbers of
those cells where they are few enough, or counts them by further bits. Every pass narrows a cell by 8 bits or more, so
seven end at single numbers; ordinary numbers need two.

    pass 1    (rows,) → 262,144 counts by the key's first 18 bits
    pass 2    the numbers of the cells that hold a rank → values; or counts by 8 to 18 further bits
    …
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

KEPT_AT_FIRST = 1 << 18
"""Numbers kept by a search that has not counted yet: 2 MiB, as much as the counts take that follow."""
KEPT_MAX = 1 << 20
"""Numbers kept of the cells that hold a rank, and counts of later passes: 8 MiB."""
_BITS_MAX = 18
_LOW_BITS = np.int64(0x7FFF_FFFF_FFFF_FFFF)

Keys = NDArray[np.int64]
Counts = NDArray[np.int64]


class RankSearch:
    """Finds the numbers at given ranks. Use: `add` everything, `end_pass`, and again while that says True."""

    def __init__(self, *, kept_at_first: int = KEPT_AT_FIRST, kept_max: int = KEPT_MAX) -> None:
        self._kept_at_first = kept_at_first
        self._kept_max = kept_max
        self._kept: list[Keys] = []
        self._kept_rows = 0
        self._cells: _Cells | None = None
        self._gather = True
        self._found: dict[int, float] = {}

    def add(self, values: NDArray[np.float64]) -> None:
        """Count or keep finite numbers (rows,) without -0.0; they are not held on to as they are."""
        keys = _keys(values)
        if self._cells is not None:
            keys = self._cells.members(keys)
        if not self._gather:
            assert self._cells is not None
            self._cells.count(keys)
            return
        self._kept.append(keys)
        self._kept_rows += len(keys)
        if self._cells is None and self._kept_rows > self._kept_at_first:
            self._start_counting()

    def end_pass(self, ranks: Sequence[int]) -> bool:
        """True where all numbers must be added once more. `ranks` (from 0) are the same in every pass."""
        if self._gather:
            self._take(ranks)
            return False
        assert self._cells is not None
        self._cells = self._cells.narrowed([rank for rank in ranks if rank not in self._found], self._kept_max)
        self._found.update(self._cells.single_values())
        self._gather = self._cells.rows <= self._kept_max
        return len(self._found) < len(set(ranks))

    def value(self, rank: int) -> float:
        """The number that `rank` numbers precede in ascending order; after the last pass."""
        return self._found[rank]

    def _start_counting(self) -> None:
        self._gather = False
        self._cells = _Cells.first()
        for keys in self._kept:
            self._cells.count(keys)
        self._kept, self._kept_rows = [], 0

    def _take(self, ranks: Sequence[int]) -> None:
        waiting = [rank for rank in ranks if rank not in self._found]
        cells = self._cells
        places = waiting if cells is None else [cells.place_among_members(rank) for rank in waiting]
        keys = np.concatenate(self._kept)
        self._kept, self._kept_rows = [], 0
        keys.partition(np.unique(places))
        self._found.update(zip(waiting, _values(keys[places]).tolist(), strict=True))


class _Cells:
    """Ranges of keys that hold a rank asked for: `prefixes` are their common high bits, ascending, without `shift`.

    `below[i]` numbers are smaller than all of cell i. The cells' numbers are counted by their next `bits` bits.
    """

    def __init__(self, prefixes: Keys, below: Counts, sizes: Counts, shift: int, bits: int) -> None:
        self.prefixes = prefixes
        self.below = below
        self.sizes = sizes
        self.shift = shift
        self.bits = bits
        self.rows = int(sizes.sum())
        self.ranks: tuple[int, ...] = ()
        self._counts = np.zeros(len(prefixes) << bits, dtype=np.int64)

    @classmethod
    def first(cls) -> "_Cells":
        """All numbers: the negative ones and the others, whose counts are not known yet."""
        zero = np.zeros(2, dtype=np.int64)
        return cls(np.array([-1, 0], dtype=np.int64), zero, zero, 63, _BITS_MAX - 1)

    def members(self, keys: Keys) -> Keys:
        """The keys that lie in one of the cells."""
        prefixes = keys >> self.shift
        places = self.prefixes.searchsorted(prefixes)
        places[places == len(self.prefixes)] = 0
        members: Keys = keys[self.prefixes[places] == prefixes]
        return members

    def count(self, keys: Keys) -> None:
        """Count members."""
        places = self.prefixes.searchsorted(keys >> self.shift) << self.bits
        np.add.at(self._counts, places + ((keys >> (self.shift - self.bits)) & ((1 << self.bits) - 1)), 1)

    def narrowed(self, ranks: Sequence[int], cells_max: int) -> "_Cells":
        """The cells of this one's counts that hold the ranks."""
        width = 1 << self.bits
        counts = self._counts.reshape(-1, width)
        below = self.below if self.rows else np.array([0, counts[0].sum()])  # of all numbers: the negative ones
        before = np.cumsum(counts, axis=1) - counts + below[:, np.newaxis]
        flat_before, flat_counts = before.ravel(), counts.ravel()
        occupied = np.flatnonzero(flat_counts)
        chosen = np.unique(occupied[flat_before[occupied].searchsorted(np.array(ranks), "right") - 1])
        prefixes = (self.prefixes[chosen // width] << self.bits) | (chosen % width)
        shift = self.shift - self.bits
        bits = min(_BITS_MAX, shift, max(8, (cells_max // len(chosen)).bit_length() - 1))
        cells = _Cells(prefixes, flat_before[chosen], flat_counts[chosen], shift, bits)
        cells.ranks = tuple(ranks)
        return cells

    def single_values(self) -> dict[int, float]:
        """The value of each rank, where a cell is down to one key; else nothing."""
        if self.shift:
            return {}
        values = _values(self.prefixes)
        return {rank: float(values[self._cell_of(rank)]) for rank in self.ranks}

    def place_among_members(self, rank: int) -> int:
        """Where the number at a rank stands among the sorted members of all cells."""
        cell = self._cell_of(rank)
        return rank - int(self.below[cell]) + int(self.sizes[:cell].sum())

    def _cell_of(self, rank: int) -> int:
        return int(self.below.searchsorted(rank, "right")) - 1


def _keys(values: NDArray[np.float64]) -> Keys:
    bits = values.view(np.int64)
    return bits ^ ((bits >> 63) & _LOW_BITS)


def _values(keys: Keys) -> NDArray[np.float64]:
    return (keys ^ ((keys >> 63) & _LOW_BITS)).view(np.float64)
