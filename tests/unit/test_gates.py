"""Gates decide by facts alone, say why in words, and never pass what they cannot decide."""

import json
from typing import Any

import pytest

from skewless.canonical_json import Digest
from skewless.errors import InvalidDefinition
from skewless.training.facts import NO_DATASET, EvaluationFacts, Latency, Metrics, facts_of
from skewless.training.gates import (
    AgainstLive,
    CalibrationGate,
    Gate,
    LatencyGate,
    MetricGate,
    Outcome,
    SliceGate,
    check_gates,
    gate_from_json,
    gate_json,
    gates_of,
)

APRIL, MAY = Digest("a" * 64), Digest("b" * 64)
GATES: tuple[Gate, ...] = (
    MetricGate("auroc", at_least=0.7),
    MetricGate("brier", at_most=0.2),
    AgainstLive("auroc", tolerance=0.002),
    SliceGate("carrier", "auroc", no_worse_than=0.02),
    CalibrationGate(ece=0.05),
    LatencyGate(p99_ms=5.0, rows=64, ratio_to_live=1.5),
)


def metrics(**changes: float | None) -> Metrics:
    return {"rows": 1_000, "auroc": 0.75, "brier": 0.15, "ece": 0.03, **changes}


def facts(
    *,
    dataset: Digest = APRIL,
    overall: Metrics | None = None,
    carriers: dict[str, Metrics] | None = None,
    p99_ms: float | None = 2.0,
) -> EvaluationFacts:
    return EvaluationFacts(
        dataset=dataset,
        metrics=metrics() if overall is None else overall,
        slices={"carrier": {"AA": metrics(), "DL": metrics(auroc=0.7)} if carriers is None else carriers},
        latencies=() if p99_ms is None else (Latency(64, 1.0, p99_ms, 400),),
    )


def outcomes(gate: Gate, candidate: EvaluationFacts, live: EvaluationFacts | None = None) -> list[Outcome]:
    return [line.outcome for line in check_gates([gate], candidate, live).lines]


def said(gate: Gate, candidate: EvaluationFacts, live: EvaluationFacts | None = None) -> str:
    return check_gates([gate], candidate, live).text()


def test_a_candidate_as_good_as_the_live_bundle_passes_every_gate() -> None:
    report = check_gates(GATES, facts(), facts())
    assert report.passed, report.text()
    assert len(report.lines) == len(GATES) + 1


def test_the_first_bundle_has_nothing_to_be_compared_with_and_passes() -> None:
    assert check_gates(GATES, facts(), None).passed


def test_without_gates_everything_passes_and_the_report_says_so() -> None:
    report = check_gates([], facts(), None)
    assert report.passed
    assert report.text() == "no gate is declared"


@pytest.mark.parametrize(
    ("gate", "candidate"),
    [
        (MetricGate("auroc", at_least=0.7), facts(overall=metrics(auroc=0.699))),
        (MetricGate("brier", at_most=0.2), facts(overall=metrics(brier=0.201))),
        (AgainstLive("auroc", tolerance=0.002), facts(overall=metrics(auroc=0.7479))),
        (AgainstLive("brier", tolerance=0.01), facts(overall=metrics(brier=0.17))),
        (SliceGate("carrier", "auroc", 0.02), facts(carriers={"AA": metrics(), "DL": metrics(auroc=0.67)})),
        (CalibrationGate(0.05), facts(overall=metrics(ece=0.06))),
        (LatencyGate(5.0), facts(p99_ms=5.1)),
    ],
)
def test_what_is_worse_than_allowed_fails_and_its_numbers_are_told(gate: Gate, candidate: EvaluationFacts) -> None:
    report = check_gates([gate], candidate, facts())
    assert [line.outcome for line in report.lines] == [Outcome.FAILED]
    assert not report.passed
    assert any(character.isdigit() for character in report.lines[0].text)


def test_a_bound_itself_is_allowed() -> None:
    assert outcomes(MetricGate("auroc", at_least=0.75), facts()) == [Outcome.PASSED]
    assert outcomes(AgainstLive("auroc", 0.25), facts(overall=metrics(auroc=0.5)), facts()) == [Outcome.PASSED]
    assert outcomes(LatencyGate(2.0), facts()) == [Outcome.PASSED]


def test_a_worse_part_of_a_slice_is_named_with_both_numbers() -> None:
    candidate = facts(carriers={"AA": metrics(auroc=0.6), "DL": metrics(auroc=0.65), "B6": metrics()})
    told = said(SliceGate("carrier", "auroc", 0.02), candidate, facts())
    assert "`AA` went from 0.7500 to 0.6000; `DL` went from 0.7000 to 0.6500" in told


def test_small_parts_and_the_rest_of_the_rare_values_do_not_decide() -> None:
    carriers = {"AA": metrics(), "HA": metrics(auroc=0.2, rows=40), "(other)": metrics(auroc=0.2)}
    gate = SliceGate("carrier", "auroc", 0.02, rows_min=100)
    assert outcomes(gate, facts(carriers=carriers), facts(carriers={**carriers, "HA": metrics()})) == [Outcome.PASSED]
    assert outcomes(gate, facts(carriers={"HA": carriers["HA"]}), facts()) == [Outcome.UNDECIDED]


@pytest.mark.parametrize("gate", [AgainstLive("auroc"), SliceGate("carrier", "auroc", 0.02)])
def test_other_held_out_rows_decide_nothing_until_the_live_bundle_is_judged_on_the_same(gate: Gate) -> None:
    candidate, live = facts(dataset=MAY), facts(dataset=APRIL)
    report = check_gates([gate], candidate, live)
    assert [line.outcome for line in report.lines] == [Outcome.UNDECIDED]
    assert not report.passed
    assert "`skewless bundle evaluate`" in report.text()
    judged = EvaluationFacts(APRIL, live.metrics, live.slices, evaluated_on={MAY: facts(dataset=MAY)})
    assert outcomes(gate, candidate, judged) == [Outcome.PASSED]


def test_a_live_bundle_without_an_evaluation_leaves_comparisons_undecided() -> None:
    unknown = EvaluationFacts(NO_DATASET, {}, {})
    assert outcomes(AgainstLive("auroc"), facts(), unknown) == [Outcome.UNDECIDED]
    assert outcomes(AgainstLive("auroc"), unknown, unknown) == [Outcome.UNDECIDED]
    assert outcomes(MetricGate("auroc", at_least=0.5), unknown) == [Outcome.UNDECIDED]


@pytest.mark.parametrize(
    ("gate", "candidate", "live"),
    [
        (MetricGate("auroc", at_least=0.7), facts(overall=metrics(auroc=None)), None),
        (AgainstLive("auroc"), facts(overall=metrics(auroc=None)), facts()),
        (SliceGate("origin", "auroc", 0.1), facts(), facts()),
        (SliceGate("carrier", "auroc", 0.1), facts(), EvaluationFacts(APRIL, metrics(), {})),
        (LatencyGate(5.0), facts(p99_ms=None), None),
    ],
)
def test_what_is_not_known_is_undecided(gate: Gate, candidate: EvaluationFacts, live: EvaluationFacts | None) -> None:
    assert outcomes(gate, candidate, live) == [Outcome.UNDECIDED]


def test_latency_is_compared_with_the_live_model_of_the_same_run() -> None:
    gate = LatencyGate(p99_ms=5.0, ratio_to_live=1.5)
    assert outcomes(gate, facts(p99_ms=3.0), facts(p99_ms=2.0)) == [Outcome.PASSED, Outcome.PASSED]
    assert outcomes(gate, facts(p99_ms=3.1), facts(p99_ms=2.0)) == [Outcome.PASSED, Outcome.FAILED]
    assert outcomes(gate, facts(p99_ms=3.1), facts(p99_ms=None)) == [Outcome.PASSED, Outcome.UNDECIDED]
    assert outcomes(gate, facts(p99_ms=3.1), None) == [Outcome.PASSED]


def test_gates_and_facts_survive_the_json_of_a_bundle() -> None:
    provenance: dict[str, Any] = {
        "gates": [gate_json(gate) for gate in GATES],
        "holdout": {**facts().to_json(), "note": "more is in it", "reliability": []},
    }
    stored = json.loads(json.dumps(provenance))
    assert gates_of(stored) == GATES
    assert facts_of(stored) == facts()
    assert gates_of({}) == ()


def test_a_report_is_plain_data_for_the_audit_trail() -> None:
    data = check_gates([MetricGate("auroc", at_least=0.7)], facts(), None).to_json()
    assert data == {
        "passed": True,
        "lines": [{"gate": "auroc ≥ 0.7", "outcome": "passed", "text": "it is 0.7500"}],
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kind": "vibes"}, "is no gate"),
        ({"kind": "metric", "metric": "f1", "at_least": 0.5}, "`f1` is no metric"),
        ({"kind": "metric", "metric": "auroc"}, "needs one bound"),
        ({"kind": "metric", "metric": "auroc", "at_least": 0.5, "at_most": 0.6}, "needs one bound"),
        ({"kind": "against_live"}, "is no gate"),
        ({"kind": "against_live", "metric": "auroc", "tolerance": -0.1}, "tolerance"),
        ({"kind": "slice", "slice": "a", "metric": "auroc", "no_worse_than": float("nan")}, "no_worse_than"),
        ({"kind": "latency", "p99_ms": 0.0}, "above 0"),
    ],
)
def test_what_is_no_gate_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidDefinition, match=message):
        gate_from_json(data)


@pytest.mark.parametrize(
    "holdout", [None, {}, {"dataset": APRIL}, {"dataset": APRIL, "metrics": {"auroc": "0.7"}, "slices": {}}]
)
def test_a_bundle_without_a_held_out_evaluation_has_no_facts(holdout: object) -> None:
    with pytest.raises(InvalidDefinition, match="evaluation"):
        facts_of({"holdout": holdout})
