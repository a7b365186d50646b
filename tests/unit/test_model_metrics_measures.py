"""Metrics equal scikit-learn's on random rows, with ties and one class; bins stay within the bound that is told."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as oracle
from sklearn.linear_model import LogisticRegression

from skewless.errors import InvalidDefinition
from skewless.model_metrics.bounds import auroc_bounds, clustered_auroc_bounds
from skewless.model_metrics.calibration import fit_log_odds, log_odds, reliability
from skewless.model_metrics.cell import Cell, added, cell_of, coarse
from skewless.model_metrics.estimate import BLIND_SPOT, estimates
from skewless.model_metrics.judged import ALL, JudgedRows
from skewless.model_metrics.measures import measures
from skewless.model_metrics.metric import Metric
from skewless.model_metrics.period_counts import PeriodCounts
from skewless.model_metrics.ranking import NO_RANKING, ranking_sums
from skewless.training.evaluation import auroc
from skewless.training.intervals import auroc_interval
from skewless.training.reliability import reliability_table

SEEDS = range(12)


def some_rows(seed: int, rows: int = 400, *, digits: int = 2, told: float = 0.8) -> JudgedRows:
    """Scores with ties, outcomes that follow them, some not told yet; `digits` decides how many ties there are."""
    random = np.random.default_rng(seed)
    scores = np.clip(random.beta(2, 5, rows).round(digits), 0, 1).astype(np.float32)
    outcomes = (random.random(rows) < scores).astype(np.int8)
    is_told = random.random(rows) < told
    outcomes[~is_told] = -1
    return JudgedRows(
        scores=scores,
        flagged=scores >= 0.4,
        outcomes=outcomes,
        numbers=np.full(rows, np.nan),
        told=is_told,
        clusters=np.arange(rows),
        parts={"origin": random.choice(np.array(["EWR", "JFK", "LGA"]), rows)},
        successes={"ctr": outcomes == 1},
    )


def found(cell: Cell, *, classed: bool = True, ranked: bool = False, counters: bool = True) -> dict[str, Metric]:
    return {each.name: each for each in measures(cell, classed=classed, ranked=ranked, counters=counters)}


def values(cell: Cell) -> dict[str, float | None]:
    return {name: each.value for name, each in found(cell).items()}


@pytest.mark.parametrize("seed", SEEDS)
def test_metrics_of_classes_are_those_of_scikit_learn(seed: int) -> None:
    rows = some_rows(seed, digits=seed % 3 + 1)
    told = values(cell_of(rows))
    judged = rows.outcomes >= 0
    labels, scores = rows.outcomes[judged] == 1, rows.scores[judged].astype(np.float64)
    flagged = rows.flagged[judged]
    wanted = {
        "accuracy": oracle.accuracy_score(labels, flagged),
        "auroc": oracle.roc_auc_score(labels, scores),
        "average_precision": oracle.average_precision_score(labels, scores),
        "log_loss": oracle.log_loss(labels, np.clip(scores, np.finfo(np.float32).eps, 1 - np.finfo(np.float32).eps)),
        "brier": oracle.brier_score_loss(labels, scores),
        "precision": oracle.precision_score(labels, flagged, zero_division=0),
        "recall": oracle.recall_score(labels, flagged),
        "f1": oracle.f1_score(labels, flagged),
        "positive_share": labels.mean(),
        "observed_expected": labels.sum() / scores.sum(),
        "counter_ctr": labels.sum() / len(rows),
    }
    assert {name: told[name] for name in wanted} == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_calibration_is_logistic_regression_on_log_odds_and_groups_are_those_of_training(seed: int) -> None:
    rows = some_rows(seed, told=1.0)
    table = cell_of(rows).table
    labels = rows.outcomes == 1
    features = log_odds(rows.scores.astype(np.float64))[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn, about how to say that nothing is penalised
        fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1_000).fit(features, labels)
    fit = fit_log_odds(table)
    assert fit is not None
    assert (fit.slope, fit.intercept) == pytest.approx((fitted.coef_[0][0], fitted.intercept_[0]), abs=1e-4)
    told, wanted = reliability(table), reliability_table(labels, rows.scores)
    assert [each.rows for each in told] == [each.rows for each in wanted]
    for one, other in zip(told, wanted, strict=True):
        assert (one.mean_score, one.positive_share, one.low) == pytest.approx(
            (other.mean_score, other.positive_share, other.low)
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_bins_are_within_the_bound_that_is_told_and_sums_stay_exact(seed: int) -> None:
    rows = some_rows(seed, 2_000, digits=6)
    cell = cell_of(rows)
    binned = coarse(cell)
    exact, told = values(cell), values(binned)
    assert abs(told["auroc"] - exact["auroc"]) <= binned.table.auroc_within() + 1e-12  # type: ignore[operator]  # both there
    away = abs(told["average_precision"] - exact["average_precision"])  # type: ignore[operator]  # both there
    assert away <= binned.table.average_precision_within() + 1e-12
    for name in ("accuracy", "brier", "log_loss", "precision", "recall", "f1", "positive_share", "counter_ctr"):
        assert told[name] == exact[name]
    for name in ("ece", "calibration_slope", "calibration_intercept", "observed_expected"):
        assert told[name] == pytest.approx(exact[name], rel=0.02, abs=0.006)


def test_bounds_of_bins_are_small_where_scores_are_spread_and_hold_in_the_worst_case() -> None:
    table = coarse(cell_of(some_rows(1, 50_000, digits=6))).table
    assert table.auroc_within() < 0.0005
    assert table.average_precision_within() < 0.01
    bad = coarse(cell_of(replace_scores(some_rows(2, 500), np.linspace(0.5, 0.5001, 500)))).table
    assert bad.auroc_within() > 0.1


def replace_scores(rows: JudgedRows, scores: NDArray[np.float64]) -> JudgedRows:
    return replace(rows, scores=scores.astype(np.float32))


def test_halves_of_a_period_add_up_to_the_whole() -> None:
    rows = some_rows(5, 3_000, digits=6)
    half = len(rows) // 2
    parts = [coarse(cell_of(rows.taken(each))) for each in (np.arange(half), np.arange(half, len(rows)))]
    whole, together = coarse(cell_of(rows)), added(*parts)
    for name in ("auroc", "average_precision", "accuracy", "brier", "recall", "calibration_slope"):
        assert values(together)[name] == pytest.approx(values(whole)[name], rel=1e-6)
    assert (together.rows, together.told) == (whole.rows, whole.told)


def test_a_period_too_large_to_hold_is_judged_from_bins_of_the_same_rows_and_slices() -> None:
    rows = some_rows(6, 3_000, digits=6)
    held, folded = PeriodCounts(), PeriodCounts(rows_exact=500)
    for places in np.split(np.arange(len(rows)), 10):
        held.add(rows.taken(places))
        folded.add(rows.taken(places))
    exact, coarsened = dict(held.cells()), dict(folded.cells())
    assert list(exact) == [ALL, "origin=EWR", "origin=JFK", "origin=LGA"]
    assert exact.keys() == coarsened.keys()
    assert all(each.exact for each in exact.values())
    assert not any(each.exact for each in coarsened.values())
    for name, cell in exact.items():
        assert coarsened[name].rows == cell.rows
        assert values(coarsened[name])["auroc"] == pytest.approx(values(cell)["auroc"], abs=0.001)
        assert values(coarsened[name])["accuracy"] == pytest.approx(values(cell)["accuracy"])
    assert "within" in str(found(coarsened[ALL])["auroc"].reason)


@pytest.mark.parametrize("outcome", [0, 1])
def test_one_class_has_no_ranking_metric_and_says_so(outcome: int) -> None:
    rows = some_rows(3, told=1.0)
    told = found(cell_of(replace(rows, outcomes=np.full(len(rows), outcome, np.int8))))
    assert told["auroc"].value is None
    assert ("none of the" if outcome == 0 else "all") in str(told["auroc"].reason)
    assert told["calibration_slope"].value is None
    assert told["brier"].value is not None
    for each in told.values():
        assert (each.value is None) == (each.reason is not None), each.name
        assert each.value is None or np.isfinite(each.value)


def test_nothing_told_has_reasons_and_no_numbers() -> None:
    rows = some_rows(3, told=0.0)
    told = found(cell_of(rows), counters=False)
    assert {each.value for each in told.values()} == {None}
    assert all(each.reason for each in told.values())
    empty = rows.taken(np.arange(0))
    assert {each.value for each in found(cell_of(empty), counters=False).values()} == {None}


@pytest.mark.parametrize("wrong", [np.nan, -0.1, 1.5])
def test_a_score_that_is_no_probability_is_refused(wrong: float) -> None:
    rows = some_rows(1)
    rows.scores[17] = wrong
    with pytest.raises(InvalidDefinition, match="are no probabilities"):
        cell_of(rows)


def test_outcomes_that_are_numbers_have_errors_and_a_bias() -> None:
    random = np.random.default_rng(9)
    rows = some_rows(9, told=0.0)
    numbers = np.where(random.random(len(rows)) < 0.7, random.normal(0.3, 0.2, len(rows)), np.nan)
    told = found(cell_of(replace(rows, numbers=numbers, told=~np.isnan(numbers))), counters=False)
    known = ~np.isnan(numbers)
    scores = rows.scores[known].astype(np.float64)
    assert told["mae"].value == pytest.approx(oracle.mean_absolute_error(numbers[known], scores))
    assert told["rmse"].value == pytest.approx(oracle.root_mean_squared_error(numbers[known], scores))
    assert told["bias"].value == pytest.approx((scores - numbers[known]).mean())
    assert set(told) == {"mae", "rmse", "bias"}


@pytest.mark.parametrize("seed", SEEDS)
def test_rankings_are_those_of_scikit_learn_with_ties_shared(seed: int) -> None:
    random = np.random.default_rng(seed)
    queries = np.repeat(np.arange(40), random.integers(1, 9, 40))
    scores = random.random(len(queries)).round(1).astype(np.float32)
    gains = np.where(random.random(len(queries)) < 0.4, random.integers(1, 4, len(queries)), 0).astype(float)
    gains[random.random(len(queries)) < 0.02] = np.nan
    k = int(random.integers(1, 6))
    ndcg, precision, left = [], [], {"undefined": 0, "incomplete": 0}
    for query in range(40):
        own = queries == query
        if np.isnan(gains[own]).any():
            left["incomplete"] += 1
        elif own.sum() < 2 or not gains[own].any():
            left["undefined"] += 1
        else:
            ndcg.append(oracle.ndcg_score([gains[own]], [scores[own]], k=k))
            precision.append(oracle.average_precision_score(gains[own] > 0, scores[own]))
    shuffled = random.permutation(len(queries))
    sums = ranking_sums(queries[shuffled], scores[shuffled], gains[shuffled], k=k)
    assert sums.requests == len(ndcg)
    assert (sums.undefined, sums.incomplete) == (left["undefined"], left["incomplete"])
    assert sums.ndcg / sums.requests == pytest.approx(np.mean(ndcg))
    assert sums.average_precision / sums.requests == pytest.approx(np.mean(precision))


def test_rankings_without_a_request_to_judge_say_why() -> None:
    cell = replace(cell_of(some_rows(1)), ranking=replace(NO_RANKING, undefined=3, incomplete=2))
    told = found(cell, ranked=True)
    assert told["ndcg"].value is None
    assert "3 have a single row" in str(told["map"].reason)


@pytest.mark.parametrize("seed", SEEDS)
def test_auroc_bounds_of_independent_rows_are_delongs(seed: int) -> None:
    rows = some_rows(seed, 600, told=1.0)
    labels, table = rows.outcomes == 1, cell_of(rows).table
    value, wanted = auroc(labels, rows.scores), auroc_interval(labels, rows.scores)
    assert value is not None
    assert wanted is not None
    from_counts = auroc_bounds(table, value, design=1.0)
    clustered = clustered_auroc_bounds(labels, rows.scores, rows.clusters, value)
    assert from_counts is not None
    assert clustered is not None
    assert (from_counts.low, from_counts.high) == pytest.approx((wanted.low, wanted.high), rel=1e-9)
    assert (clustered.low, clustered.high) == pytest.approx((wanted.low, wanted.high), abs=2e-3)


def test_estimates_are_right_for_honest_scores_and_blind_to_changed_outcomes() -> None:
    rows = some_rows(8, 40_000, digits=6, told=1.0)
    rows = replace(rows, outcomes=(np.random.default_rng(1).random(len(rows)) < rows.scores).astype(np.int8))
    cell = cell_of(rows)
    before = {each.name: each for each in estimates(cell, None)}
    came = values(cell)
    for name, each in before.items():
        assert each.value == pytest.approx(came[name], abs=0.01), name
        assert each.is_estimate
        assert BLIND_SPOT in str(each.reason)
    flipped = cell_of(replace(rows, outcomes=(1 - rows.outcomes).astype(np.int8)))
    after = {each.name: each.value for each in estimates(flipped, None)}
    assert after == pytest.approx({name: each.value for name, each in before.items()})
    assert values(flipped)["auroc"] < 0.3  # type: ignore[operator]  # both classes are there


def test_estimates_are_recalibrated_by_what_a_period_before_taught() -> None:
    rows = some_rows(8, 40_000, digits=6, told=1.0)
    likely = rows.scores.astype(np.float64) ** 2  # overconfident on the high side
    rows = replace(rows, outcomes=(np.random.default_rng(1).random(len(rows)) < likely).astype(np.int8))
    first, second = (cell_of(rows.taken(each)) for each in np.split(np.arange(len(rows)), 2))
    came = values(second)
    naive = {each.name: each.value for each in estimates(second, None)}
    taught = {each.name: each.value for each in estimates(second, fit_log_odds(first.table))}
    for name in ("log_loss", "brier", "accuracy"):
        assert abs(taught[name] - came[name]) < 0.01  # type: ignore[operator]  # both are there
        assert abs(naive[name] - came[name]) > 0.03  # type: ignore[operator]  # both are there
