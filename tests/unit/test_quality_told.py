"""What is told of quality gates: pages without a network, lines for a terminal, bounded metrics."""

import re
from dataclasses import replace

import numpy as np
import pytest

from harness.naive_suites import NaiveRunner
from harness.quality_views import AS_OF, SCHEMA, SUITE, sensor_rows, with_values
from skewless.adapters.quality_gate import Batch, judge, run_record
from skewless.cli.quality_page import page
from skewless.cli.quality_views import run_json, run_lines
from skewless.dtypes import Dtype, column_of
from skewless.quality import wording
from skewless.quality.catalogue import BETWEEN, CATALOGUE, NON_NULL_SHARE, Judged
from skewless.quality.loading import Document, suite_of
from skewless.quality.results import ExpectationResult
from skewless.quality.suggestion import suggested
from skewless.quality.suite import Expectation, OnFailure, Suite
from skewless.quality.verdict import Decision, decide
from skewless.registry.quality_results import QuarantineRecord, ResultRecord, RunRecord, ViewQuality
from skewless_monitor.quality_collector import families

SERIES_PER_VIEW_MAX = 38


def run_of(values: dict[int, object], column: str = "temp") -> RunRecord:
    rows = with_values(sensor_rows(), column, values)
    return run_record(judge(SUITE, SCHEMA, rows, Batch(AS_OF, "tests", "<rows> of a test"), NaiveRunner()))


def test_a_report_needs_no_network_and_escapes_what_it_tells() -> None:
    held = QuarantineRecord("batch", "run", "<b>", "file", "digest", 3, AS_OF, AS_OF)
    text = page([run_of({3: 451.0}), run_of({})], [held])
    assert not re.search(r"https?://|<script|<link|@import|url\(", text)
    assert "&lt;rows&gt; of a test" in text
    assert "<b>" not in text.replace("<b>sensors</b>", "")
    assert text.index(">quarantine</span>") < text.index(">pass</span>"), "worst first"


def test_a_report_of_nothing_says_what_to_do() -> None:
    assert "skewless quality run" in page([])


def test_a_terminal_is_told_what_is_wrong_and_what_to_do() -> None:
    text = "\n".join(run_lines(run_of({3: 451.0})))
    assert "`temp` is expected to be between (min_value -50, max_value 60); not so: 1 of 40 rows (2.50%)" in text
    assert "compare the unit of the values" in text
    stopped = run_of(dict.fromkeys(range(20), 451.0))
    assert "quarantine_share_max" in "\n".join(run_lines(stopped))
    assert run_json(stopped)["decision"] == "stop"


def test_a_suite_says_what_to_do_in_its_own_words() -> None:
    own = Expectation(BETWEEN, {"column": "temp", "max_value": 1}, meta={"hint": "ask the weather office"})
    assert wording.hint(own) == "ask the weather office"


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_expectation_can_be_told_in_words(name: str) -> None:
    kwargs: dict[str, object] = {"column": "temp", "min_value": 0.123456789}
    if "pair" in name:
        kwargs = {"column_A": "temp", "column_B": "count"}
    expectation = Expectation(name, kwargs)
    told = wording.told(expectation, ExpectationResult(0, success=False, rows=4, unexpected=1, examples=(1.23456789,)))
    assert "1 of 4 rows (25.00%), such as 1.23457" in told
    assert wording.hint(expectation)


def test_metrics_of_a_view_are_bounded_however_many_features_fail() -> None:
    results = tuple(
        ResultRecord(
            place, BETWEEN, {"column": f"f{place}"}, "critical", "quarantine", False, 1, place / 500, None, "", ""
        )
        for place in range(500)
    )
    run = replace(run_of({}), results=results, decision=Decision.QUARANTINE)
    told = list(families([ViewQuality(run, {"quarantine": 7}, 5, 2, AS_OF)]))
    samples = [sample for family in told for sample in family.samples]
    assert len(samples) <= SERIES_PER_VIEW_MAX
    value = {(each.name, *sorted(each.labels.values())): each.value for each in samples}
    assert value["skewless_quality_decision", "quarantine", "sensors"] == 1
    assert value["skewless_quality_decision", "sensors", "stop"] == 0
    assert value["skewless_quality_runs", "quarantine", "sensors"] == 7
    assert value["skewless_quality_failed_expectations", "critical", "sensors"] == 500
    assert value["skewless_quality_unexpected_share", "f499", "sensors"] == pytest.approx(0.998)
    assert value["skewless_quality_quarantined_rows", "sensors"] == 5


def test_nothing_is_told_of_what_does_not_wait() -> None:
    told = families([ViewQuality(run_of({}), {}, 0, 0, None)])
    empty = {family.name for family in told if not family.samples}
    assert empty == {"skewless_quality_quarantine_oldest_timestamp_seconds", "skewless_quality_unexpected_share"}


def test_a_draft_is_a_suite_that_loading_accepts_and_its_data_passes() -> None:
    rows = with_values(sensor_rows(), "temp", dict.fromkeys(range(0, 40, 5)))
    columns = {each.name: column_of(each.dtype, _plain(rows, each.name, each.dtype)) for each in SCHEMA.columns}
    draft = suggested(SCHEMA, columns, owner="tests")
    document = Document("draft", {**draft.to_json(), "meta": {"owner": "tests", "reviewed": False}}, {})
    assert suite_of(document, SCHEMA).digest == draft.digest
    known = [each for each in draft.expectations if each.type != "expect_column_values_to_be_increasing"]
    suite = replace(draft, expectations=tuple(known))
    verdict = judge(suite, SCHEMA, rows, Batch(AS_OF, "tests", ""), NaiveRunner()).verdict
    assert verdict.decision is Decision.PASS, [each.expectation for each in verdict.failed]
    (share,) = (each for each in draft.expectations if each.type == NON_NULL_SHARE)
    assert share.kwargs == {"column": "temp", "min_value": 0.7}


def _plain(rows: object, name: str, dtype: Dtype) -> list[object]:
    values: list[object] = rows.column(name).to_pylist()  # type: ignore[attr-defined]  # an Arrow table
    if dtype is not Dtype.TIMESTAMP:
        return values
    return [int(each.timestamp() * 1e6) for each in values]  # type: ignore[attr-defined]  # datetimes


def test_the_worst_of_what_fails_decides() -> None:
    kinds = (OnFailure.PASS, OnFailure.WARN, OnFailure.QUARANTINE, OnFailure.STOP)
    for count, worst in enumerate(Decision, start=1):
        expectations = tuple(
            Expectation(BETWEEN, {"column": "temp", "max_value": place}, on_failure=kind)
            for place, kind in enumerate(kinds[:count])
        )
        suite = Suite("s", "s", expectations, quarantine_share_max=0.5)
        results = [
            ExpectationResult(place, success=False, rows=4, failing_rows=np.array([1]))
            for place in range(len(expectations))
        ]
        verdict = decide(suite, results, 4)
        assert verdict.decision is worst
        assert verdict.set_aside.tolist() == [False, worst is Decision.QUARANTINE, False, False]
    assert verdict.failed[0].follows is OnFailure.STOP


def test_reasons_are_those_of_each_row() -> None:
    expectations = tuple(
        Expectation(BETWEEN, {"column": "temp", "max_value": place}, on_failure=OnFailure.QUARANTINE)
        for place in range(2)
    )
    rows = (np.array([0, 2]), np.array([2, 3]))
    results = [ExpectationResult(place, success=False, rows=4, failing_rows=rows[place]) for place in range(2)]
    verdict = decide(Suite("s", "s", expectations, quarantine_share_max=1.0), results, 4)
    assert verdict.reasons() == [(0,), (0, 1), (1,)]


def test_only_expectations_of_rows_judge_rows() -> None:
    assert {
        name for name, kind in CATALOGUE.items() if kind.judged is Judged.ROWS and "mostly" not in kind.arguments
    } == set()
