"""What comparisons found, as counts that add up: over portions, hours and days, in any order and after any restart.

    key      bundle, stratum, level, view, cause; what does not apply is empty
    count    units compared and mismatches among them, and both by group of entities where bounds are wanted

A level of its own says what the units are: values, statuses and ages, model inputs and predictions are counted singly;
`views` and `causes` count predictions by view, with their groups, so that bounds know how mismatches cluster.
"""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from skewless.canonical_json import Digest
from skewless.monitor_limits import PARITY_CLUSTERS, PARITY_GROUPS
from skewless.parity.rates import ClusterCounts, Rate, clustered_rate

assert PARITY_CLUSTERS % PARITY_GROUPS == 0, "bins of a check fold into those that are stored"


class Stratum(StrEnum):
    """Which of the two samples rows are of; what is in both counts in each."""

    ENTITY = "entity"
    """Whole entities: what causes, examples and rates by entity are told from."""
    UNIFORM = "uniform"
    """Single predictions: whose rates are those of the traffic, however unequal entities are."""


class Level(StrEnum):
    """What a count is of."""

    VALUES = "values"
    STATUSES = "statuses_and_ages"
    MODEL_INPUTS = "model_inputs"
    PREDICTIONS = "predictions"
    VIEWS = "views"
    """Predictions in which anything of a view differs."""
    CAUSES = "causes"
    """Predictions in which anything of a view differs for one cause."""
    KNOWN_LATER = "known_later"
    """Predictions whose offline row arrived late, or was corrected, after the moment asked for."""
    PENDING = "pending"
    """Values of rows that the source had not got yet."""
    GIVEN = "given"
    """Values that requests gave themselves."""
    NOT_COMPARABLE = "not_comparable"
    """Values of which the log keeps nothing that could be compared."""
    UNCHECKED = "unchecked"
    """Predictions of bundles that cannot be computed again here."""


LEVELS = (Level.VALUES, Level.STATUSES, Level.MODEL_INPUTS, Level.PREDICTIONS)
"""The four levels of a comparison, in order."""


@dataclass(frozen=True, slots=True, order=True)
class TallyKey:
    """What is counted together. `view` and `cause` are empty where a level has none."""

    bundle: Digest
    stratum: Stratum
    level: Level
    view: str = ""
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Count:
    """`mismatches` of `units`. Groups are (PARITY_GROUPS,) counts by entity, None where units are counted singly.

    A cause has the groups of its mismatches alone: those of its units stand with its view.
    """

    units: int
    mismatches: int
    unit_groups: NDArray[np.int64] | None = None
    mismatch_groups: NDArray[np.int64] | None = None

    def plus(self, other: "Count") -> "Count":
        """Both together."""
        return Count(
            self.units + other.units,
            self.mismatches + other.mismatches,
            _added(self.unit_groups, other.unit_groups),
            _added(self.mismatch_groups, other.mismatch_groups),
        )

    def rate(self, unit_groups: NDArray[np.int64] | None = None) -> Rate:
        """The rate with its bounds; `unit_groups` are those of a cause's view. Of single units there are no bounds."""
        groups = self.unit_groups if self.unit_groups is not None else unit_groups
        if groups is None:
            each = ClusterCounts(np.array([self.units - self.mismatches, self.mismatches], dtype=np.int64))
            return Rate(self.mismatches, self.units, int(np.count_nonzero(each.counts)), 0.0, 1.0)
        hits = None if self.mismatch_groups is None else ClusterCounts(self.mismatch_groups)
        return clustered_rate(hits, ClusterCounts(groups))


Tally = Mapping[TallyKey, Count]


def merged(tallies: Iterable[Tally]) -> dict[TallyKey, Count]:
    """The counts of all of them, by key."""
    found: dict[TallyKey, Count] = {}
    for tally in tallies:
        for key, count in tally.items():
            found[key] = found[key].plus(count) if key in found else count
    return found


def groups_of(counts: ClusterCounts) -> NDArray[np.int64]:
    """Counts by entity in as many bins as are stored."""
    return counts.folded(PARITY_GROUPS).counts


def packed(groups: NDArray[np.int64] | None) -> bytes | None:
    """Groups as bytes: little-endian 32 bits each, compressed; they are mostly zeros."""
    return None if groups is None else zlib.compress(groups.astype("<u4").tobytes(), 1)


def unpacked(data: bytes | None) -> NDArray[np.int64] | None:
    """The inverse of `packed`."""
    return None if data is None else np.frombuffer(zlib.decompress(data), dtype="<u4").astype(np.int64)


def _added(one: NDArray[np.int64] | None, other: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    if one is None or other is None:
        return one if other is None else other
    return one + other
