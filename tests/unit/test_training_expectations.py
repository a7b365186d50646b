"""What training lets expect: a suite that names what training had, and nothing that cannot fail."""

import numpy as np
import pytest

from harness.bundles import content, contract, transform
from harness.replays import flights
from skewless.dtypes import Dtype, column_of
from skewless.monitors.expectations import age_column, training_suite
from skewless.quality.catalogue import BETWEEN, CATALOGUE, IN_SET, NOT_NULL, ROW_COUNT
from skewless.quality.suite import Expectation, OnFailure, Severity, Suite
from skewless.statistics.baseline import Baseline, baseline_of
from skewless.statistics.variable import Part

ROWS = 400


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return content(fitted=transform(), columns=flights(ROWS)).baseline


def of(suite: Suite, name: str) -> dict[str, Expectation]:
    return {each.type: each for each in suite.expectations if each.columns == (name,)}


def test_every_column_age_and_score_is_expected_to_have_values(baseline: Baseline) -> None:
    suite = training_suite("flight-delay", baseline)
    named = {each.name for each in baseline.of(Part.COLUMN)} | {each.name for each in baseline.of(Part.SCORE)}
    named |= {age_column(each.name) for each in baseline.of(Part.AGE)}
    assert {each.columns[0] for each in suite.expectations if each.type == NOT_NULL} == named
    assert [each.kwargs for each in suite.expectations if each.type == ROW_COUNT] == [{"min_value": 20}]


def test_an_expectation_is_one_that_great_expectations_knows_and_stops_nothing(baseline: Baseline) -> None:
    for each in training_suite("flight-delay", baseline).expectations:
        assert set(each.kwargs) <= set(CATALOGUE[each.type].arguments)
        assert CATALOGUE[each.type].required <= set(each.kwargs)
        assert each.on_failure is OnFailure.PASS
        assert each.meta["reason"]


def test_ranges_words_and_nulls_are_those_of_the_training_rows(baseline: Baseline) -> None:
    suite, columns = training_suite("flight-delay", baseline), flights(ROWS)
    temp = columns["weather__temp"]
    known = temp.values[temp.valid].astype(np.float64)
    expected = of(suite, "weather__temp")
    assert expected[BETWEEN].kwargs["min_value"] == known.min()
    assert expected[BETWEEN].kwargs["max_value"] == known.max()
    assert expected[NOT_NULL].kwargs["mostly"] == pytest.approx(temp.valid.mean() - 0.05, abs=1e-4)
    assert expected[NOT_NULL].severity is Severity.WARNING
    assert sorted(of(suite, "origin")[IN_SET].kwargs["value_set"]) == ["EWR", "JFK", "LGA"]
    assert of(suite, "origin")[NOT_NULL].severity is Severity.CRITICAL


def test_columns_that_must_not_be_told_are_expected_nothing_of(baseline: Baseline) -> None:
    suite = training_suite("flight-delay", baseline, without=frozenset({"origin"}))
    assert not of(suite, "origin")
    assert "JFK" not in str(suite.to_json())


def test_a_column_without_any_value_in_training_is_expected_nothing_of() -> None:
    columns = flights(ROWS)
    columns["noise__level"] = column_of(Dtype.FLOAT32, [None] * ROWS)
    suite = training_suite("flight-delay", content(fitted=transform(), columns=columns).baseline)
    assert not of(suite, "noise__level")


def test_rare_words_of_a_closed_vocabulary_do_not_count_as_unknown() -> None:
    columns = flights(ROWS)
    words: list[object] = [f"N{each}" for each in range(ROWS)]
    columns["tailnum"] = column_of(Dtype.STRING, words)
    given = contract()
    fitted = transform()
    tensor = np.zeros((ROWS, len(fitted.output_names)), dtype=np.float32)
    baseline = baseline_of(given, fitted, columns, tensor, {}, {}, ROWS)
    vocabulary = next(each for each in baseline.variables if each.name == "tailnum").vocabulary
    assert vocabulary is not None
    assert vocabulary.rest, "more words than are listed"
    expected = of(training_suite("flight-delay", baseline), "tailnum").get(IN_SET)
    assert expected is None or expected.kwargs["mostly"] <= len(vocabulary.listed) / ROWS
