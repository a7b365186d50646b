"""Baselines beside each other, and traffic beside its baseline, variable by variable.

Traffic was counted in the baseline's own bins, so that comparison is exact. Two baselines have bins of their own: the
second one's counts are then brought into the first one's, numbers evenly within each bin (a heavy value is a bin of
its own and stays whole), words by name, with all that only one of them lists as one bin.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from skewless.features.visibility import Status
from skewless.statistics.alignment import aligned, ends, new_words, single_valued
from skewless.statistics.baseline import Baseline
from skewless.statistics.divergence import (
    Within,
    jensen_shannon,
    kolmogorov_smirnov,
    population_stability,
    rank_distance,
    stability_floor,
    stability_limit,
    wasserstein,
)
from skewless.statistics.tally import Tally
from skewless.statistics.variable import BELOW, Measure, Part, Variable

NEW_WORDS_MAX = 10


@dataclass(frozen=True, slots=True)
class Pair:
    """A number of the first (the reference) and of the second; None where one has none."""

    first: float | None
    second: float | None

    @property
    def change(self) -> float | None:
        """Second less first."""
        return None if self.first is None or self.second is None else self.second - self.first


@dataclass(frozen=True, slots=True)
class Difference:
    """One variable of two. Distances are over all bins, those for null and the like included, where not said otherwise.

    All of them are None where one side counted nothing, or where a column changed what is counted of it.
    """

    part: Part
    name: str
    same_bins: bool
    """False where counts had to be brought into other bins, so that distances are approximate."""
    null_share: Pair
    unseen_share: Pair
    mean: Pair
    deviation: Pair
    psi: float | None = None
    psi_floor: float | None = None
    """What chance alone gives on average."""
    psi_limit: float | None = None
    """What chance alone exceeds once in a thousand times, for independent rows in the same bins."""
    jensen_shannon: float | None = None
    kolmogorov_smirnov: Within | None = None
    """Of finite numbers, as are the two that follow."""
    rank_distance: float | None = None
    wasserstein: Within | None = None
    """In the unit of the column; µs for ages, hours for timestamps."""
    status_shares: Mapping[str, Pair] = field(default_factory=dict)
    """Of a stored feature, by the name of each status that occurred on either side."""
    new_words: tuple[str, ...] = ()
    """Words that the second lists and the first certainly never saw, the most frequent first."""

    def to_json(self) -> dict[str, Any]:
        """Plain data by field name."""
        return {**asdict(self), "part": self.part.value}


@dataclass(frozen=True, slots=True)
class BaselineComparison:
    """Every variable that both have, in the first one's order, and those that only one has."""

    rows: tuple[int, int]
    differences: tuple[Difference, ...]
    only_in_first: tuple[tuple[Part, str], ...]
    only_in_second: tuple[tuple[Part, str], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "rows": list(self.rows),
            "differences": [each.to_json() for each in self.differences],
            "only_in_first": [[part.value, name] for part, name in self.only_in_first],
            "only_in_second": [[part.value, name] for part, name in self.only_in_second],
        }


def compare_baselines(first: Baseline, second: Baseline) -> BaselineComparison:
    """What changed from one training to another."""
    return _compared((first.rows, second.rows), first.variables, second.variables)


def compare_traffic(baseline: Baseline, tally: Tally) -> BaselineComparison:
    """How traffic that was counted in a baseline's bins differs from training. Raises InvalidDefinition for others."""
    return _compared((baseline.rows, tally.rows), baseline.variables, baseline.counter().layout.counted(tally))


def compare_variables(first: Variable, second: Variable) -> Difference:
    """The difference of two variables that have one part and name."""
    same_bins = first.edges == second.edges and first.vocabulary == second.vocabulary
    both = (first, second)
    difference = Difference(
        part=first.part,
        name=first.name,
        same_bins=same_bins,
        null_share=Pair(*(_share(each.nulls, each) for each in both)),
        unseen_share=Pair(*(_share(each.unseen, each) for each in both)),
        mean=Pair(*(None if each.moments is None else each.moments.mean for each in both)),
        deviation=Pair(*(None if each.moments is None else each.moments.deviation for each in both)),
        status_shares=_status_shares(first, second),
        new_words=new_words(first, second)[:NEW_WORDS_MAX],
    )
    return difference if first.measure is not second.measure else _with_distances(difference, first, second)


def _with_distances(difference: Difference, first: Variable, second: Variable) -> Difference:
    counts = aligned(first, second)
    difference = replace(
        difference,
        psi=population_stability(*counts),
        psi_floor=stability_floor(*counts),
        psi_limit=stability_limit(*counts),
        jensen_shannon=jensen_shannon(*counts),
    )
    if first.measure is Measure.WORD:
        return difference
    reference, current = (each[BELOW:-1] for each in counts)
    wide_ends, single = ends(first, second), single_valued(first)
    return replace(
        difference,
        kolmogorov_smirnov=kolmogorov_smirnov(reference, current, single),
        rank_distance=rank_distance(reference, current),
        wasserstein=None if wide_ends is None else wasserstein(reference, current, wide_ends, single),
    )


def _compared(rows: tuple[int, int], first: Sequence[Variable], second: Sequence[Variable]) -> BaselineComparison:
    ours, theirs = ({variable.key: variable for variable in each} for each in (first, second))
    return BaselineComparison(
        rows,
        tuple(compare_variables(variable, theirs[key]) for key, variable in ours.items() if key in theirs),
        tuple(key for key in ours if key not in theirs),
        tuple(key for key in theirs if key not in ours),
    )


def _status_shares(first: Variable, second: Variable) -> dict[str, Pair]:
    names = [status.value for status in Status if status.value in {*(first.statuses or ()), *(second.statuses or ())}]
    return {name: Pair(_status_share(name, first), _status_share(name, second)) for name in names}


def _status_share(name: str, variable: Variable) -> float | None:
    return variable.statuses.get(name, 0) / variable.total if variable.statuses and variable.total else None


def _share(count: int | None, variable: Variable) -> float | None:
    return count / variable.total if count is not None and variable.total else None
