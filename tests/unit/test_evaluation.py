"""Metrics equal scikit-learn's, and say None where labels cannot say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from skewless.errors import InvalidDefinition
from skewless.training.evaluation import auroc, average_precision, brier, evaluate, log_loss

SCORED = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0.0, 1.0, width=32)),
    min_size=2,
    max_size=60,
).filter(lambda rows: len({label for label, _ in rows}) == 2)


@given(SCORED)
def test_metrics_are_those_of_scikit_learn(rows: list[tuple[bool, float]]) -> None:
    labels = np.array([label for label, _ in rows])
    scores = np.array([score for _, score in rows], dtype=np.float32)
    found = evaluate(labels, scores)
    assert found.auroc == pytest.approx(metrics.roc_auc_score(labels, scores))
    assert found.average_precision == pytest.approx(metrics.average_precision_score(labels, scores))
    assert found.brier == pytest.approx(metrics.brier_score_loss(labels, scores.astype(np.float64)))
    assert found.log_loss == pytest.approx(metrics.log_loss(labels, scores), rel=1e-4, abs=1e-6)
    assert (found.rows, found.positives) == (len(rows), int(labels.sum()))


def test_one_class_has_no_auroc_and_no_positive_no_average_precision() -> None:
    scores = np.array([0.1, 0.2], dtype=np.float32)
    negative = evaluate(np.zeros(2, dtype=np.bool_), scores)
    positive = evaluate(np.ones(2, dtype=np.bool_), scores)
    assert (negative.auroc, negative.average_precision) == (None, None)
    assert (positive.auroc, positive.average_precision) == (None, 1.0)


def test_equal_scores_count_half_for_auroc() -> None:
    labels = np.array([True, False, True, False])
    assert auroc(labels, np.full(4, 0.5)) == 0.5


def test_a_certain_and_wrong_score_costs_a_finite_log_loss() -> None:
    labels, scores = np.array([True, False]), np.array([0.0, 1.0], dtype=np.float32)
    assert 10 < log_loss(labels, scores) < 20
    assert brier(labels, scores) == 1.0
    assert average_precision(labels, scores) == 0.5


def test_an_evaluation_is_plain_data() -> None:
    data = evaluate(np.array([True, False]), np.array([0.75, 0.25], dtype=np.float32)).to_json()
    assert list(data) == ["rows", "positives", "auroc", "brier", "log_loss", "average_precision"]
    assert data["brier"] == 0.0625


@pytest.mark.parametrize(
    ("labels", "scores", "said"),
    [
        ([], [], "a row or more"),
        ([True], [0.1, 0.2], "shapes"),
        ([True, False], [0.1, 1.5], "score 1.5 of row 1"),
        ([True, False], [np.nan, 0.5], "score nan of row 0"),
    ],
)
def test_scores_that_are_none_are_refused(labels: list[bool], scores: list[float], said: str) -> None:
    with pytest.raises(InvalidDefinition, match=said):
        evaluate(np.array(labels, dtype=np.bool_), np.array(scores, dtype=np.float32))
