"""A back-test's result: what recorded traffic was answered, beside what another bundle would have answered.

Scored rows come chunk by chunk and are kept as a few bytes each (two scores, two labels, an outcome, a code per slice),
so that every number is exact and the same however the traffic was cut into chunks.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.canonical_json import Digest
from skewless.dtypes import Column
from skewless.errors import LimitExceeded
from skewless.limits import REPLAY_ROWS_MAX
from skewless.replays.paired import PairedMetric, paired_metrics
from skewless.replays.slice_codes import SliceCodes

NO_OUTCOME, NEGATIVE, POSITIVE, OTHER_OUTCOME = -1, 0, 1, 2
"""Outcomes as codes; OTHER_OUTCOME is a label that is neither class, which no metric can use."""
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
SCORE_BINS = 10
_DIFFERENCE_EDGES = (0.0, 1e-6, 1e-4, 1e-3, 0.01, 0.05, 0.1, 0.25, 1.0)
"""Bins of how far apart two scores are, apart from those that are equal."""


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """Rows in order, scored by both. Scores are float32 (rows,), positive flags bool (rows,), outcomes int8 (rows,).

    `left_out` has why a row was not scored by the other bundle, empty where it was; such a row has NaN for `other`.
    """

    prediction_ids: Sequence[str]
    as_of: NDArray[np.int64]
    bundles: Sequence[Digest]
    roles: Sequence[str]
    rungs: Sequence[str]
    recorded: NDArray[np.float32]
    recorded_positive: NDArray[np.bool_]
    other: NDArray[np.float32]
    other_positive: NDArray[np.bool_]
    outcomes: NDArray[np.int8]
    left_out: Sequence[str]
    slices: Mapping[str, Column] = field(default_factory=dict)
    """Per slice the column (rows,) that it is cut by."""

    @property
    def rows(self) -> int:
        """How many rows, those left out included."""
        return len(self.prediction_ids)


@dataclass(frozen=True, slots=True)
class ScoreComparison:
    """Two scores of `rows` rows. Quantiles are by QUANTILES; `histogram` counts rows by SCORE_BINS bins of equal width
    from 0 to 1; `distances` by how far apart the scores are, in words."""

    rows: int
    equal: int
    to_positive: int
    to_negative: int
    recorded_mean: float
    other_mean: float
    mean_distance: float
    correlation: float | None
    quantiles: tuple[float, ...]
    recorded_histogram: tuple[int, ...]
    other_histogram: tuple[int, ...]
    distances: Mapping[str, int]

    @property
    def label_changes(self) -> int:
        """Rows with another label."""
        return self.to_positive + self.to_negative

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "rows": self.rows,
            "equal_bit_for_bit": self.equal,
            "label_changes": {"to_positive": self.to_positive, "to_negative": self.to_negative},
            "mean": {"recorded": self.recorded_mean, "other": self.other_mean},
            "mean_distance": self.mean_distance,
            "correlation": self.correlation,
            "difference_quantiles": {f"{q:g}": value for q, value in zip(QUANTILES, self.quantiles, strict=True)},
            "histogram": {
                "edges": [each / SCORE_BINS for each in range(SCORE_BINS + 1)],
                "recorded": list(self.recorded_histogram),
                "other": list(self.other_histogram),
            },
            "distances": dict(self.distances),
        }


@dataclass(frozen=True, slots=True)
class SlicePart:
    """One part of one slice. `metrics` are of its rows with an outcome; empty where it has none."""

    slice: str
    part: str
    scores: ScoreComparison
    outcomes: int
    metrics: tuple[PairedMetric, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "slice": self.slice,
            "part": self.part,
            "scores": self.scores.to_json(),
            "outcomes": self.outcomes,
            "metrics": [each.to_json() for each in self.metrics],
        }


@dataclass(frozen=True, slots=True)
class BackTestResult:
    """What a back-test found. `scores` is None where no row could be scored by both.

    `left_out` counts rows by why the other bundle did not score them; `bundles`, `roles` and `rungs` count all rows by
    how they were answered. `outcomes` is how many of the rows scored have one, `positives` how many of those;
    `other_outcomes` have a label that is neither class.
    """

    rows: int
    left_out: Mapping[str, int]
    bundles: Mapping[str, int]
    roles: Mapping[str, int]
    rungs: Mapping[str, int]
    scores: ScoreComparison | None
    outcomes: int
    positives: int
    other_outcomes: int
    metrics: tuple[PairedMetric, ...]
    slices: tuple[SlicePart, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "rows": self.rows,
            "left_out": dict(self.left_out),
            "answered_by": {
                "bundles": dict(self.bundles),
                "roles": dict(self.roles),
                "rungs": dict(self.rungs),
            },
            "scores": None if self.scores is None else self.scores.to_json(),
            "outcomes": {"rows": self.outcomes, "positives": self.positives, "other_labels": self.other_outcomes},
            "metrics": [each.to_json() for each in self.metrics],
            "slices": [each.to_json() for each in self.slices],
        }


class BackTest:
    """Takes scored rows, and says in the end what they come to."""

    def __init__(self, slices: Sequence[SliceCodes] = ()) -> None:
        self._slices = slices
        self._chunks: list[ScoredRows] = []
        self._rows = 0
        self._left_out: Counter[str] = Counter()
        self._answered: dict[str, Counter[str]] = {name: Counter() for name in ("bundles", "roles", "rungs")}
        self._parts: dict[str, list[NDArray[Any]]] = {}

    def add(self, rows: ScoredRows) -> None:
        """Take rows. Raises LimitExceeded where they become too many to be held."""
        self._rows += rows.rows
        if self._rows > REPLAY_ROWS_MAX:
            raise LimitExceeded(
                f"more than {REPLAY_ROWS_MAX:,} predictions are recorded in the period",
                path="--since, --until",
                allowed=f"up to {REPLAY_ROWS_MAX:,} predictions in one back-test",
                hint="choose a shorter period, or give --limit",
            )
        for name, values in (("bundles", rows.bundles), ("roles", rows.roles), ("rungs", rows.rungs)):
            self._answered[name].update(values)
        self._left_out.update(reason for reason in rows.left_out if reason)
        scored = np.fromiter((not reason for reason in rows.left_out), dtype=np.bool_, count=rows.rows)
        for name in ("recorded", "recorded_positive", "other", "other_positive", "outcomes"):
            self._parts.setdefault(name, []).append(getattr(rows, name)[scored])
        for each in self._slices:
            codes = each.codes(rows.slices[each.name])
            self._parts.setdefault(f"slice {each.name}", []).append(codes[scored])

    def result(self) -> BackTestResult:
        """What all rows taken come to."""
        whole = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        pairs = _Pairs(
            *(
                whole.get(name, np.empty(0, dtype=dtype))
                for name, dtype in (
                    ("recorded", np.float32),
                    ("recorded_positive", np.bool_),
                    ("other", np.float32),
                    ("other_positive", np.bool_),
                    ("outcomes", np.int8),
                )
            )
        )
        return BackTestResult(
            rows=self._rows,
            left_out=_ordered(self._left_out),
            **{name: _ordered(counts) for name, counts in self._answered.items()},
            scores=pairs.compared() if len(pairs.recorded) else None,
            outcomes=int(pairs.known.sum()),
            positives=int((pairs.outcomes == POSITIVE).sum()),
            other_outcomes=int((pairs.outcomes == OTHER_OUTCOME).sum()),
            metrics=pairs.metrics(),
            slices=tuple(self._slice_parts(pairs, whole)),
        )

    def _slice_parts(self, pairs: "_Pairs", whole: Mapping[str, NDArray[Any]]) -> Iterator[SlicePart]:
        for each in self._slices:
            for part, mask in each.parts(whole.get(f"slice {each.name}", np.empty(0, dtype=np.int32))):
                own = pairs.take(mask)
                yield SlicePart(each.name, part, own.compared(), int(own.known.sum()), own.metrics())


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Rows scored by both, each (rows,)."""

    recorded: NDArray[np.float32]
    recorded_positive: NDArray[np.bool_]
    other: NDArray[np.float32]
    other_positive: NDArray[np.bool_]
    outcomes: NDArray[np.int8]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Rows whose outcome is one of the two classes."""
        found: NDArray[np.bool_] = (self.outcomes == NEGATIVE) | (self.outcomes == POSITIVE)
        return found

    def take(self, mask: NDArray[np.bool_]) -> "_Pairs":
        return _Pairs(
            self.recorded[mask],
            self.recorded_positive[mask],
            self.other[mask],
            self.other_positive[mask],
            self.outcomes[mask],
        )

    def metrics(self) -> tuple[PairedMetric, ...]:
        known = self.take(self.known)
        return paired_metrics(
            known.outcomes == POSITIVE,
            known.recorded,
            known.other,
            first_positive=known.recorded_positive,
            second_positive=known.other_positive,
        )

    def compared(self) -> ScoreComparison:
        first, second = self.recorded.astype(np.float64), self.other.astype(np.float64)
        differences = second - first
        changed = self.recorded_positive != self.other_positive
        return ScoreComparison(
            rows=len(first),
            equal=int((self.recorded.view(np.uint32) == self.other.view(np.uint32)).sum()),
            to_positive=int((changed & self.other_positive).sum()),
            to_negative=int((changed & self.recorded_positive).sum()),
            recorded_mean=float(first.mean()),
            other_mean=float(second.mean()),
            mean_distance=float(np.abs(differences).mean()),
            correlation=_correlation(first, second),
            quantiles=tuple(np.quantile(differences, QUANTILES).tolist()),
            recorded_histogram=_histogram(first),
            other_histogram=_histogram(second),
            distances=_distances(np.abs(differences)),
        )


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Pearson's; None where one of them is constant, or there is one row."""
    if len(first) < 2 or not first.std() or not second.std():
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _histogram(scores: NDArray[np.float64]) -> tuple[int, ...]:
    counts, _ = np.histogram(scores, bins=SCORE_BINS, range=(0.0, 1.0))
    return tuple(counts.tolist())


def _distances(apart: NDArray[np.float64]) -> dict[str, int]:
    """Rows by how far apart their scores are; bounds above are inclusive."""
    found = {"equal": int((apart == 0.0).sum())}
    for low, high in pairwise(_DIFFERENCE_EDGES):
        name = f"up to {high:g}" if high < 1.0 else f"above {low:g}"
        found[name] = int(((apart > low) & (apart <= high)).sum())
    return found


def _ordered(counts: Counter[str]) -> dict[str, int]:
    """The most frequent first, equal ones by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
