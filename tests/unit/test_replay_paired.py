"""Two scores of the same rows: their metrics, and intervals of their difference that are as sure as they say."""

from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from skewless.replays.paired import PairedMetric, auroc_difference_interval, paired_metrics
from skewless.training.evaluation import auroc, brier, log_loss

ROUNDS = 300


def _world(
    random: np.random.Generator, rows: int, *, gap: float
) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]:
    """Labels, and two scores that share most of their noise; the second knows `gap` more."""
    labels = random.random(rows) < 0.3
    shared = random.normal(size=rows)
    first = shared + random.normal(size=rows) * 0.5 + labels
    second = shared + random.normal(size=rows) * 0.5 + labels * (1.0 + gap)
    return labels, _share(first), _share(second)


def _share(odds: NDArray[np.float64]) -> NDArray[np.float32]:
    return (1 / (1 + np.exp(-odds))).astype(np.float32)


def _metrics(
    labels: NDArray[np.bool_], first: NDArray[np.float32], second: NDArray[np.float32]
) -> dict[str, PairedMetric]:
    found = paired_metrics(labels, first, second, first_positive=first >= 0.5, second_positive=second >= 0.5)
    return {each.name: each for each in found}


def test_metrics_are_those_that_training_reports() -> None:
    labels, first, second = _world(np.random.default_rng(1), 500, gap=0.5)
    found = _metrics(labels, first, second)
    assert list(found) == ["auroc", "log_loss", "brier", "accuracy"]
    for name, oracle in (("auroc", auroc), ("log_loss", log_loss), ("brier", brier)):
        metric = found[name]
        assert (metric.first, metric.second) == pytest.approx((oracle(labels, first), oracle(labels, second)))
        assert metric.difference == pytest.approx((metric.second or 0) - (metric.first or 0))
        assert metric.interval is not None
        assert metric.interval.low < metric.difference < metric.interval.high  # type: ignore[operator]  # not None
    assert found["accuracy"].first == pytest.approx(np.mean((first >= 0.5) == labels))


def test_equal_scores_differ_by_nothing_and_neither_is_better() -> None:
    labels, first, _ = _world(np.random.default_rng(2), 200, gap=0.0)
    for metric in _metrics(labels, first, first).values():
        assert metric.difference == 0.0
        assert metric.better is None


def test_the_interval_of_an_auroc_difference_is_delongs_from_every_pair() -> None:
    labels, first, second = _world(np.random.default_rng(3), 60, gap=0.4)
    found = auroc_difference_interval(labels, first, second)
    assert found is not None
    kernels = []
    for scores in (first, second):
        apart = scores[labels][:, np.newaxis] - scores[~labels][np.newaxis]
        kernels.append(np.where(apart > 0, 1.0, np.where(apart == 0, 0.5, 0.0)))
    difference = kernels[1] - kernels[0]
    by_positive, by_negative = difference.mean(axis=1), difference.mean(axis=0)
    error = np.sqrt(by_positive.var(ddof=1) / len(by_positive) + by_negative.var(ddof=1) / len(by_negative))
    reach = NormalDist().inv_cdf(0.975) * error
    assert (found.low, found.high) == pytest.approx((difference.mean() - reach, difference.mean() + reach))


def test_two_scores_that_are_as_good_are_told_apart_about_as_rarely_as_stated() -> None:
    random = np.random.default_rng(4)
    wrong = dict.fromkeys(("auroc", "log_loss", "brier", "accuracy"), 0)
    for _ in range(ROUNDS):
        for metric in _metrics(*_world(random, 400, gap=0.0)).values():
            wrong[metric.name] += metric.better is not None
    # Of 300 rounds at 5 % 15 are expected; more than 30 have a chance below 1 in 5,000.
    assert all(2 <= count <= 30 for count in wrong.values()), wrong


def test_a_score_that_knows_more_is_better_by_every_metric() -> None:
    found = _metrics(*_world(np.random.default_rng(5), 4_000, gap=1.0))
    assert [metric.better for metric in found.values()] == [True, True, True, True]
    labels, first, second = _world(np.random.default_rng(5), 4_000, gap=1.0)
    assert [metric.better for metric in _metrics(labels, second, first).values()] == [False] * 4


def test_one_class_and_no_rows_have_no_auroc_and_no_metrics() -> None:
    scores = np.array([0.25, 0.75], dtype=np.float32)
    found = _metrics(np.array([True, True]), scores, scores)
    assert (found["auroc"].first, found["auroc"].interval, found["auroc"].better) == (None, None, None)
    assert found["brier"].first is not None
    assert _metrics(np.zeros(0, np.bool_), scores[:0], scores[:0]) == {}
    assert _metrics(np.array([True]), scores[:1], scores[:1])["brier"].interval is None
