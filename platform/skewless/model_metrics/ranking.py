"""Rankings judged by what turned out: the rows of one request are a ranking, in order of their scores.

NDCG has linear gains and a discount of log2 (Järvelin and Kekäläinen 2002); rows of equal score share their places, as
in scikit-learn. mAP is the mean over requests of each one's average precision, where a gain above 0 is relevant. Both
take what was shown for all there was: rows that were shown higher were seen more, and are told of more (exposure bias).
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RankingSums:
    """Sums over requests, which add up. `undefined` ones have a single row, or nothing that is relevant;
    `incomplete` ones lack an outcome."""

    requests: int = 0
    undefined: int = 0
    incomplete: int = 0
    ndcg: float = 0.0
    ndcg_spread: float = 0.0
    average_precision: float = 0.0
    average_precision_spread: float = 0.0

    def __add__(self, other: "RankingSums") -> "RankingSums":
        return RankingSums(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


NO_RANKING = RankingSums()
GUESS = 0.5
"""What a request's value is guessed to be before it is known, see `rollout.confidence_sequences.mean_bounds`."""


def ranking_sums(
    queries: NDArray[np.int64], scores: NDArray[np.float32], gains: NDArray[np.float64], *, k: int
) -> RankingSums:
    """Of rows (rows,) in any order: the request, the score, and the gain of each, NaN where no outcome has come.

    Gains are 0 or more; a negative one makes its request incomplete.

    >>> ranking_sums(np.int64([1, 1, 2]), np.float32([0.9, 0.1, 0.5]), np.array([1.0, 0.0, 1.0]), k=5).undefined
    1
    """
    if not len(queries):
        return RankingSums()
    order = np.lexsort((-scores, queries))
    queries, scores, gains = queries[order], scores[order], gains[order]
    begins = np.flatnonzero(np.diff(queries, prepend=queries[0] - 1))
    sizes = np.diff(np.append(begins, len(queries)))
    told = np.logical_and.reduceat(gains >= 0.0, begins)  # NaN is not
    defined = told & (sizes > 1) & (np.maximum.reduceat(np.where(gains > 0.0, 1, 0), begins) > 0)
    kept = np.repeat(defined, sizes)
    counts = {"undefined": int((told & ~defined).sum()), "incomplete": int((~told).sum())}
    if not kept.any():
        return RankingSums(**counts)
    ndcg, precision = _per_request(queries[kept], scores[kept], gains[kept], sizes[defined], k)
    return RankingSums(
        requests=int(defined.sum()),
        ndcg=float(ndcg.sum()),
        ndcg_spread=float(np.square(ndcg - GUESS).sum()),
        average_precision=float(precision.sum()),
        average_precision_spread=float(np.square(precision - GUESS).sum()),
        **counts,
    )


def _per_request(
    queries: NDArray[np.int64], scores: NDArray[np.float32], gains: NDArray[np.float64], sizes: NDArray[np.intp], k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """NDCG@k and average precision of each request (requests,) from rows in order of request and falling score.

    A tie is a run of rows of one request and score. Its rows share the discounts of its places, and its precision is
    that at its end.
    """
    begins = np.append(0, np.cumsum(sizes)[:-1])
    places = np.arange(len(queries)) - np.repeat(begins, sizes)
    discounts = np.where(places < k, 1.0 / np.log2(places + 2.0), 0.0)
    starts_tie = np.append(True, (queries[1:] != queries[:-1]) | (scores[1:] != scores[:-1]))
    ties = np.flatnonzero(starts_tie)
    rows_of_tie = np.diff(np.append(ties, len(queries)))
    request_of_tie = np.searchsorted(begins, ties, side="right") - 1
    tie_gains, tie_discounts = np.add.reduceat(gains, ties), np.add.reduceat(discounts, ties)
    gained = np.bincount(request_of_tie, tie_gains / rows_of_tie * tie_discounts)
    best = np.lexsort((-gains, queries))
    ideal = np.bincount(np.repeat(np.arange(len(sizes)), sizes), gains[best] * discounts)
    relevant = np.add.reduceat(np.where(gains > 0.0, 1.0, 0.0), ties)
    total = np.cumsum(relevant)
    before = np.append(0.0, total)[np.searchsorted(ties, begins)]
    found = total - before[request_of_tie]
    precision = found / (places[ties] + rows_of_tie)
    summed = np.bincount(request_of_tie, precision * relevant)
    return gained / ideal, summed / np.bincount(request_of_tie, relevant)
