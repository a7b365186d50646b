"""A bundle as the monitor knows it: the bins of its baseline, and which of its variables some logged rows have.

The log leaves out or hashes what is marked, does not keep every tensor, and an older one may lack a column. So rows are
counted in a layout of what they have, and their counts are put where they belong in the layout of all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from skewless.canonical_json import Digest
from skewless.features.contract import FeatureContract
from skewless.features.visibility import STATUS_CODES
from skewless.serving.log_privacy import log_marks
from skewless.statistics.baseline import Baseline
from skewless.statistics.counter import Counter
from skewless.statistics.tally import ROWS, Tally, TallyLayout
from skewless.statistics.variable import Part, Variable

VariableKey = tuple[Part, str]
_NARROW_MAX = 16
"""Sets of variables that a bundle's rows have; one for rows with a tensor, and one for those without, are usual."""


class Placement:
    """Where the counts of some of a layout's variables are in the layout of all of them."""

    def __init__(self, whole: TallyLayout, chosen: Sequence[Variable]) -> None:
        self.whole = whole
        self.layout = TallyLayout(tuple(chosen))
        place_of = {variable.key: place for place, variable in enumerate(whole.variables)}
        places = [place_of[variable.key] for variable in chosen]
        cells = [np.array([ROWS], dtype=np.intp)]
        cells += [whole.starts[place] + np.arange(whole.variables[place].size) for place in places]
        starts = [whole.status_starts[place] for place in places]
        cells += [start + np.arange(len(STATUS_CODES)) for start in starts if start is not None]
        lines = [line for place in places if (line := whole.number_lines[place]) is not None]
        self._lines = np.array(lines, dtype=np.intp)
        cells += [whole.sums_start + self._lines, whole.sums_start + whole.numbers + self._lines]
        self._cells = np.concatenate(cells).astype(np.intp)
        assert len(self._cells) == self.layout.size, "every count has its place"

    def widened(self, tally: Tally) -> Tally:
        """A tally of the layout as one of the whole: what it lacks was counted of no row."""
        wide = self.whole.empty()
        wide.counts[self._cells] = tally.counts
        wide.lows[self._lines] = tally.lows
        wide.highs[self._lines] = tally.highs
        return wide

    def narrowed(
        self, counts: NDArray[np.int64], lows: NDArray[np.float64], highs: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Counts (…, whole.size) and ends (…, whole.numbers) of the layout's variables alone."""
        return counts[..., self._cells], lows[..., self._lines], highs[..., self._lines]


@dataclass(frozen=True, slots=True)
class Counting:
    """Counts rows that have some of a bundle's variables."""

    counter: Counter
    placement: Placement


@dataclass(frozen=True, slots=True, eq=False)
class WatchedBundle:
    """See the module. `outputs` are the model's, with their columns; `kept` those of its variables that a log can have
    as they were. One for each bundle, prepared once."""

    digest: Digest
    contract: FeatureContract
    baseline: Baseline
    outputs: tuple[tuple[str, int], ...]
    layout: TallyLayout = field(init=False)
    kept: tuple[Variable, ...] = field(init=False)
    _countings: dict[frozenset[VariableKey], Counting] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        marked = set(log_marks(self.contract))
        variables = self.baseline.variables
        kept = tuple(each for each in variables if not (each.part is Part.COLUMN and each.name in marked))
        object.__setattr__(self, "layout", TallyLayout(variables))
        object.__setattr__(self, "kept", kept)

    def of(self, part: Part) -> tuple[Variable, ...]:
        """The kept variables of a part."""
        return tuple(each for each in self.kept if each.part is part)

    def counting(self, absent: Iterable[VariableKey] = ()) -> Counting:
        """What counts rows that lack some of the kept variables."""
        lacking = frozenset(absent)
        if (found := self._countings.get(lacking)) is None:
            chosen = [each for each in self.kept if each.key not in lacking]
            placement = Placement(self.layout, chosen)
            if len(self._countings) >= _NARROW_MAX:
                self._countings.clear()
            found = self._countings[lacking] = Counting(Counter(chosen), placement)
        return found
