"""What the rows of one slice and period add up to: all that their metrics need, in counts and sums that add up."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skewless.model_metrics.bounds import Loss
from skewless.model_metrics.judged import NO_OUTCOME, JudgedRows
from skewless.model_metrics.ranking import NO_RANKING, RankingSums
from skewless.model_metrics.score_table import ScoreTable
from skewless.monitor_limits import MODEL_METRIC_CLUSTERS
from skewless.parity.rates import effective_rows

_EPSILON = float(np.finfo(np.float32).eps)
LOG_LOSS_MAX = -float(np.log(_EPSILON))
"""Of one row whose score is kept from 0 and 1, as in `training.evaluation.log_loss`."""


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """What the rows of one slice add up to. `confusion` is rows by (predicted positive, turned out positive).

    `exact`: the table has a line per distinct score, and is of the rows in `rows_held`. `hits` are rows by counter.
    """

    rows: int
    told: int
    table: ScoreTable
    confusion: NDArray[np.float64]
    right: Loss
    brier: Loss
    log_loss: Loss
    errors: "NumberErrors"
    hits: Mapping[str, "Hits"]
    ranking: RankingSums = NO_RANKING
    rows_held: JudgedRows | None = None

    @property
    def exact(self) -> bool:
        """Whether the metrics are of the rows themselves."""
        return self.rows_held is not None


@dataclass(frozen=True, slots=True)
class NumberErrors:
    """Score minus outcome where outcomes are numbers: rows, sum, sum of sizes, of squares and of fourth powers."""

    rows: float = 0.0
    total: float = 0.0
    sizes: float = 0.0
    squares: float = 0.0
    design: float = 1.0


@dataclass(frozen=True, slots=True)
class Hits:
    """Rows that a counter counts, and by how much fewer rows all of them count for."""

    hits: float
    design: float = 1.0


def cell_of(rows: JudgedRows) -> Cell:
    """The exact cell of rows. Raises InvalidDefinition for scores that are no probabilities."""
    judged = rows.outcomes != NO_OUTCOME
    flagged, actual = rows.flagged[judged], rows.outcomes[judged] == 1
    scores, clusters = rows.scores[judged].astype(np.float64), rows.clusters[judged]
    right = (flagged == actual).astype(np.float64)
    brier = np.square(scores - actual)
    kept = np.clip(scores, _EPSILON, 1.0 - _EPSILON)
    log_loss = -np.log(np.where(actual, kept, 1.0 - kept))
    entropy = -(kept * np.log(kept) + (1.0 - kept) * np.log1p(-kept))
    return Cell(
        rows=len(rows),
        told=int(rows.told.sum()),
        table=ScoreTable.of(rows.scores, rows.outcomes, rows.flagged),
        confusion=np.array(
            [[float((sign == flagged)[actual == turned].sum()) for turned in (False, True)] for sign in (False, True)]
        ),
        right=_loss(right, np.full(len(right), 0.5), clusters),
        brier=_loss(brier, scores * (1.0 - scores), clusters),
        log_loss=_loss(log_loss, entropy, clusters),
        errors=_number_errors(rows),
        hits={
            name: Hits(float(each.sum()), _design(each.astype(np.float64), rows.clusters))
            for name, each in rows.successes.items()
        },
        rows_held=rows,
    )


def coarse(cell: Cell) -> Cell:
    """The same sums without the rows, and scores in bins: of any memory, and to be added to others."""
    return replace(cell, table=cell.table.binned(), rows_held=None)


def added(one: Cell, other: Cell) -> Cell:
    """Two coarse cells together. Design effects are averaged by rows: each was estimated from many."""
    return Cell(
        rows=one.rows + other.rows,
        told=one.told + other.told,
        table=one.table + other.table,
        confusion=one.confusion + other.confusion,
        right=_sum_losses(one.right, other.right),
        brier=_sum_losses(one.brier, other.brier),
        log_loss=_sum_losses(one.log_loss, other.log_loss),
        errors=NumberErrors(
            one.errors.rows + other.errors.rows,
            one.errors.total + other.errors.total,
            one.errors.sizes + other.errors.sizes,
            one.errors.squares + other.errors.squares,
            _mean((one.errors.design, one.errors.rows), (other.errors.design, other.errors.rows)),
        ),
        hits={
            name: Hits(
                each.hits + other.hits[name].hits, _mean((each.design, one.rows), (other.hits[name].design, other.rows))
            )
            for name, each in one.hits.items()
        },
    )


def _sum_losses(one: Loss, other: Loss) -> Loss:
    return Loss(
        one.rows + other.rows,
        one.total + other.total,
        one.spread + other.spread,
        _mean((one.design, one.rows), (other.design, other.rows)),
    )


def _mean(one: tuple[float, float], other: tuple[float, float]) -> float:
    weight = one[1] + other[1]
    return (one[0] * one[1] + other[0] * other[1]) / weight if weight else 1.0


def _loss(values: NDArray[np.float64], guesses: NDArray[np.float64], clusters: NDArray[np.intp]) -> Loss:
    spread = float(np.square(values - guesses).sum())
    return Loss(float(len(values)), float(values.sum()), spread, _design(values, clusters))


def _number_errors(rows: JudgedRows) -> NumberErrors:
    known = ~np.isnan(rows.numbers)
    errors = rows.scores[known].astype(np.float64) - rows.numbers[known]
    return NumberErrors(
        float(len(errors)),
        float(errors.sum()),
        float(np.abs(errors).sum()),
        float(np.square(errors).sum()),
        _design(errors, rows.clusters[known]),
    )


def _design(values: NDArray[np.float64], clusters: NDArray[np.intp]) -> float:
    """By how much fewer independent rows the rows of some entities count for, 1 or more."""
    if not len(values):
        return 1.0
    rows = np.bincount(clusters, minlength=MODEL_METRIC_CLUSTERS)
    used = rows > 0
    totals = np.bincount(clusters, values, MODEL_METRIC_CLUSTERS)[used]
    return len(values) / effective_rows(totals, rows[used], float(values.var()))
