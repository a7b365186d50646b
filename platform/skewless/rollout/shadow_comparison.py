"""What a shadow would have answered, compared with what live answered for the same rows and features.

A comparison is a handful of sums: gateways add rows to sums of their own, and sums add up in any order. Its reading
holds at any moment and at all of them together, see `rollout/confidence_sequences.py`. Squared errors of both, once
outcomes are known, are compared in the same way.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from skewless.errors import InvalidDefinition
from skewless.rollout.confidence_sequences import mean_bounds, rate_bounds
from skewless.rollout.fields import read_fields

ALPHA = 0.05
TOLERANCE = 0.005
"""A shift of all probabilities by half a percentage point: less is rarely worth a decision."""


class Verdict(StrEnum):
    """What the rows so far say about the mean difference of the scores."""

    UNDECIDED = "undecided"
    """More rows are needed to say which of the other two."""
    ALIKE = "alike"
    """Within the tolerance. Single rows may differ all the same: see the labels that changed."""
    DIFFERENT = "different"
    """Beyond the tolerance."""


@dataclass(frozen=True, slots=True)
class ShadowReading:
    """A comparison as it stands: shadow minus live, in units of the score, over `rows` pairs.

    `low` to `high` contains the true mean difference, and `flip_low` to `flip_high` the true share of rows whose label
    differs, both at every moment with probability 1 - alpha together. With no rows, `mean` and `flip_rate` are 0.
    """

    rows: int
    mean: float
    low: float
    high: float
    deviation: float
    """Standard deviation of the difference between rows."""
    largest: float
    """Largest absolute difference of a row."""
    equal: int
    """Rows with exactly the same score."""
    failed: int
    """Rows beside these for which one of the two gave no score."""
    flip_rate: float
    flip_low: float
    flip_high: float
    verdict: Verdict
    words: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"verdict": self.verdict.value}


@dataclass(frozen=True, slots=True)
class ShadowComparison:
    """Sums over pairs of scores, each 0 to 1: of differences, of their squares, and of squares about guesses."""

    rows: int = 0
    total: float = 0.0
    squares: float = 0.0
    spread: float = 0.0
    """Sum of (difference - guess)²; a guess is the mean of what these sums held before the row came."""
    largest: float = 0.0
    equal: int = 0
    flips: int = 0
    failed: int = 0
    """Rows that are in none of the sums, because one of the two gave no score."""

    def __post_init__(self) -> None:
        counts_fit = 0 <= self.equal <= self.rows and 0 <= self.flips <= self.rows and self.failed >= 0
        if not (counts_fit and abs(self.total) <= self.rows and min(self.squares, self.spread) >= 0.0):
            raise InvalidDefinition(f"these sums are of no rows of scores from 0 to 1: {self!r}")

    def added(
        self, live: NDArray[np.float32], shadow: NDArray[np.float32], flips: NDArray[np.bool_]
    ) -> "ShadowComparison":
        """With more pairs: scores of the live bundle and of the shadow, each (rows,) from 0 to 1, and whether the
        label differs, (rows,). A score is NaN where the bundle gave none."""
        difference = shadow.astype(np.float64) - live
        known = ~np.isnan(difference)
        failed = len(known) - int(np.count_nonzero(known))
        difference = np.clip(difference[known], -1.0, 1.0)
        guess = self.total / self.rows if self.rows else 0.0
        return self.merged(
            ShadowComparison(
                rows=len(difference),
                total=float(difference.sum()),
                squares=float(np.square(difference).sum()),
                spread=float(np.square(difference - guess).sum()),
                largest=float(np.abs(difference).max(initial=0.0)),
                equal=int(np.count_nonzero(difference == 0.0)),
                flips=int(np.count_nonzero(flips[known])),
                failed=failed,
            )
        )

    def merged(self, other: "ShadowComparison") -> "ShadowComparison":
        """The sums over the pairs of both."""
        return ShadowComparison(
            self.rows + other.rows,
            self.total + other.total,
            self.squares + other.squares,
            self.spread + other.spread,
            max(self.largest, other.largest),
            self.equal + other.equal,
            self.flips + other.flips,
            self.failed + other.failed,
        )

    def reading(self, *, alpha: float = ALPHA, tolerance: float = TOLERANCE) -> ShadowReading:
        """What the pairs say, wrong with probability `alpha` at most over all readings ever made of them.

        `tolerance` is the mean difference, either way, up to which scores count as alike.
        """
        bounds = mean_bounds(self.rows, self.total, self.spread, lowest=-1.0, highest=1.0, alpha=alpha / 2)
        flipped = rate_bounds(self.flips, self.rows, alpha=alpha / 2)
        mean = self.total / self.rows if self.rows else 0.0
        variance = max(self.squares / self.rows - mean**2, 0.0) if self.rows else 0.0
        verdict = _verdict(bounds.low, bounds.high, tolerance)
        return ShadowReading(
            rows=self.rows,
            mean=mean,
            low=bounds.low,
            high=bounds.high,
            deviation=variance**0.5,
            largest=self.largest,
            equal=self.equal,
            failed=self.failed,
            flip_rate=self.flips / self.rows if self.rows else 0.0,
            flip_low=flipped.low,
            flip_high=flipped.high,
            verdict=verdict,
            words=_words(verdict, self.rows, bounds.low, bounds.high, tolerance, flipped.high),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Raises InvalidDefinition."""
        counts = {"rows": int, "equal": int, "flips": int, "failed": int}
        sums = {"total": float, "squares": float, "spread": float, "largest": float}
        return cls(**read_fields(data, "$", {**counts, **sums}))


def _verdict(low: float, high: float, tolerance: float) -> Verdict:
    if low > tolerance or high < -tolerance:
        return Verdict.DIFFERENT
    return Verdict.ALIKE if -tolerance <= low and high <= tolerance else Verdict.UNDECIDED


def _words(verdict: Verdict, rows: int, low: float, high: float, tolerance: float, flips: float) -> str:
    """The reading as a sentence."""
    if rows == 0:
        return "no rows are compared yet"
    between = f"the shadow's scores differ by {low:+.4f} to {high:+.4f} in the mean over {rows:,} rows"
    labels = f"at most {flips:.2%} of labels differ"
    match verdict:
        case Verdict.ALIKE:
            return f"alike: {between}, within ±{tolerance:g}; {labels}"
        case Verdict.DIFFERENT:
            side = "higher" if low > 0 else "lower"
            return f"different: {between}, {side} by more than {tolerance:g}; {labels}"
        case Verdict.UNDECIDED:
            return f"undecided: {between}; more rows are needed to say whether that is within ±{tolerance:g}; {labels}"
