"""Every metric of one cell. A metric that the outcomes cannot say is None with the reason, never 0 and never NaN."""

from collections.abc import Iterator

import numpy as np

from skewless.model_metrics.bounds import (
    Bounded,
    Loss,
    auroc_bounds,
    average_precision_bounds,
    clustered_auroc_bounds,
    mean_pointwise,
    rate,
)
from skewless.model_metrics.calibration import fit_log_odds, reliability
from skewless.model_metrics.cell import LOG_LOSS_MAX, Cell
from skewless.model_metrics.judged import NO_OUTCOME
from skewless.model_metrics.metric import COUNTER, Metric
from skewless.training.reliability import expected_calibration_error

NO_CLASS = "no outcome is a class yet"
NO_FIT = "no finite slope is likeliest: one class, one score, or scores that part the classes"


def measures(cell: Cell, *, classed: bool, ranked: bool, counters: bool) -> Iterator[Metric]:
    """The metrics that apply: of classes where any are known, of numbers where any came, of rankings, and counters.

    `classed`: the bundle's classes are known. `counters`: its answers reached callers.
    """
    if classed and not (cell.errors.rows and not cell.right.rows):
        yield from _of_classes(cell)
    if cell.errors.rows:
        yield from _of_numbers(cell)
    if ranked:
        yield from _of_rankings(cell)
    if counters:
        for name, hits in sorted(cell.hits.items()):
            bounds = rate(hits.hits, cell.rows, design=hits.design)
            value = hits.hits / cell.rows
            yield Metric(f"{COUNTER}{name}", value, bounds, effective=cell.rows / hits.design)


def _of_classes(cell: Cell) -> Iterator[Metric]:
    rows = cell.right.rows
    if not rows:
        for name in ("accuracy", "auroc", "average_precision", "log_loss", "brier"):
            yield Metric(name, None, reason=NO_CLASS)
        return
    right = cell.right
    bounds = rate(right.total, rows, design=right.design)
    yield Metric("accuracy", right.total / rows, bounds, effective=rows / right.design)
    yield _auroc(cell)
    yield _average_precision(cell)
    yield Metric("log_loss", cell.log_loss.total / rows, cell.log_loss.bounds(highest=LOG_LOSS_MAX))
    yield Metric("brier", cell.brier.total / rows, cell.brier.bounds(highest=1.0))
    yield from _of_threshold(cell)
    yield from _of_calibration(cell)


def _auroc(cell: Cell) -> Metric:
    table = cell.table
    value = table.auroc()
    if value is None:
        return Metric("auroc", None, reason=_one_class(cell))
    held = cell.rows_held
    if held is None:
        reason = f"from score bins: within {table.auroc_within():.2g} of the rows' own"
        return Metric("auroc", value, auroc_bounds(table, value, design=cell.brier.design), reason)
    judged = held.outcomes != NO_OUTCOME
    return Metric(
        "auroc",
        value,
        clustered_auroc_bounds(held.outcomes[judged] == 1, held.scores[judged], held.clusters[judged], value),
    )


def _average_precision(cell: Cell) -> Metric:
    value = cell.table.average_precision()
    if value is None:
        return Metric("average_precision", None, reason=_one_class(cell))
    reason = (
        None if cell.exact else f"from score bins: within {cell.table.average_precision_within():.2g} of the rows' own"
    )
    bounds = average_precision_bounds(cell.table, value, design=cell.brier.design)
    return Metric("average_precision", value, bounds, reason)


def _of_threshold(cell: Cell) -> Iterator[Metric]:
    (_, missed), (false, found) = cell.confusion.tolist()
    design = cell.right.design
    if found + false:
        yield Metric("precision", found / (found + false), rate(found, found + false, design=design))
    else:
        yield Metric("precision", None, reason="nothing was predicted positive")
    if found + missed:
        yield Metric("recall", found / (found + missed), rate(found, found + missed, design=design))
        yield Metric("f1", 2.0 * found / (2.0 * found + false + missed))
    else:
        yield Metric("recall", None, reason=_one_class(cell))
        yield Metric("f1", None, reason=_one_class(cell))


def _of_calibration(cell: Cell) -> Iterator[Metric]:
    table = cell.table.judged()
    rows, positives = cell.right.rows, float(table.positives.sum())
    yield Metric("positive_share", positives / rows, rate(positives, rows, design=cell.right.design))
    yield Metric("ece", expected_calibration_error(reliability(table)))
    fit = fit_log_odds(table)
    yield Metric("calibration_slope", None if fit is None else fit.slope, reason=NO_FIT if fit is None else None)
    yield Metric(
        "calibration_intercept", None if fit is None else fit.intercept, reason=NO_FIT if fit is None else None
    )
    expected = float((table.scores * (table.positives + table.negatives)).sum())
    if expected:
        yield Metric("observed_expected", positives / expected)
    else:
        yield Metric("observed_expected", None, reason="every score is 0")


def _of_numbers(cell: Cell) -> Iterator[Metric]:
    errors = cell.errors
    rows, design = errors.rows, errors.design
    mean, size, square = errors.total / rows, errors.sizes / rows, errors.squares / rows
    enough = rows > 1
    yield Metric("mae", size, mean_pointwise(size, max(square - size**2, 0.0) * design / rows) if enough else None)
    yield Metric("rmse", float(np.sqrt(square)))
    yield Metric("bias", mean, mean_pointwise(mean, max(square - mean**2, 0.0) * design / rows) if enough else None)


def _of_rankings(cell: Cell) -> Iterator[Metric]:
    sums = cell.ranking
    if not sums.requests:
        reason = (
            f"no request can be judged: {sums.undefined:,} have a single row or nothing relevant, "
            f"{sums.incomplete:,} lack an outcome"
        )
        yield Metric("ndcg", None, reason=reason)
        yield Metric("map", None, reason=reason)
        return
    left = sums.undefined + sums.incomplete
    note = None if not left else f"{left:,} of {left + sums.requests:,} requests are undefined or incomplete"
    for name, total, spread in (
        ("ndcg", sums.ndcg, sums.ndcg_spread),
        ("map", sums.average_precision, sums.average_precision_spread),
    ):
        loss = Loss(float(sums.requests), total, spread)
        yield Metric(name, total / sums.requests, _bounds_of(loss), note)


def _bounds_of(loss: Loss) -> Bounded | None:
    return loss.bounds(highest=1.0)


def _one_class(cell: Cell) -> str:
    (true_negatives, missed), (false, found) = cell.confusion.tolist()
    if not found + missed:
        return f"none of the {int(true_negatives + false):,} outcomes is positive"
    return f"all {int(found + missed):,} outcomes are positive"
