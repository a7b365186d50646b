"""How good a model probably is before outcomes come, from its own probabilities (confidence-based, CBPE).

If a score p is right, the row turns out positive with probability p; so expected counts stand in for counts, and every
metric is computed from them as from real ones. Scores are recalibrated by the last period that had matured before the
one in question. What this cannot see is a change of what turns out given the features: then the scores themselves are
wrong, and the estimate says that all is well. So it stands beside how far it was off before.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from skewless.model_metrics.calibration import LogOddsFit
from skewless.model_metrics.cell import Cell
from skewless.model_metrics.metric import Metric
from skewless.model_metrics.score_table import Counts, ScoreTable

BLIND_SPOT = "blind to a change of the outcome given the features"


def estimates(cell: Cell, fit: LogOddsFit | None) -> Iterator[Metric]:
    """The expected metrics of all rows of a cell, labelled or not; `fit` None: scores are taken at their word."""
    table = cell.table
    rows, scores = table.rows, table.scores
    kept = rows > 0
    if not kept.any():
        return
    likely = (LogOddsFit() if fit is None else fit).apply(scores)
    told = "not recalibrated: no period had matured before" if fit is None else "recalibrated"
    reason = f"{BLIND_SPOT}; {told}"
    expected = replace(table, positives=rows * likely, negatives=rows * (1.0 - likely), unlabelled=np.zeros(len(rows)))
    for name, value in (
        ("accuracy", _accuracy(table, likely)),
        ("auroc", expected.auroc()),
        ("log_loss", _log_loss(expected, scores)),
        ("brier", _brier(expected, scores)),
    ):
        yield Metric(name, value, None, reason, is_estimate=True)


def _accuracy(table: ScoreTable, likely: Counts) -> float:
    rows = table.rows
    right = table.flagged * likely + (rows - table.flagged) * (1.0 - likely)
    return float(right.sum() / rows.sum())


def _brier(expected: ScoreTable, scores: Counts) -> float:
    losses = expected.positives * np.square(1.0 - scores) + expected.negatives * np.square(scores)
    return float(losses.sum() / expected.rows.sum())


def _log_loss(expected: ScoreTable, scores: Counts) -> float:
    epsilon = float(np.finfo(np.float32).eps)
    kept = np.clip(scores, epsilon, 1.0 - epsilon)
    losses = expected.positives * -np.log(kept) + expected.negatives * -np.log1p(-kept)
    return float(losses.sum() / expected.rows.sum())
