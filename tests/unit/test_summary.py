"""The summary of a replay, as plain data."""

import json

import numpy as np

from skewless.parity.causes import Cause
from skewless.parity.compare import Comparison, Difference
from skewless.simulation.summary import DIFFERENCES_SHOWN, Summary, latency_percentiles
from skewless.training.evaluation import evaluate


def _summary(differences: tuple[Difference, ...]) -> Summary:
    rows = 100
    return Summary(
        endpoint="flight-delay",
        bundle="b" * 64,
        period="two weeks",
        predictions=rows,
        outcomes=90,
        refusals=3,
        feature_rows=1_000,
        latency_ms={"p50": 1.0},
        live=evaluate(np.array([True, False]), np.array([0.9, 0.2], dtype=np.float32)),
        held_out={"auroc": 0.5},
        comparison=Comparison(rows, rows - len(differences), rows, rows, differences),
        replays_equal=99,
        replay_wall_s=1.5,
        sample={"origin": "EWR"},
        sample_id="id",
    )


def test_a_summary_is_plain_data_with_every_count() -> None:
    plain = _summary(()).to_json()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert (plain["predictions"], plain["outcomes"], plain["refusals_retried"]) == (100, 90, 3)
    assert plain["parity"]["predictions_bit_equal"] == plain["parity"]["rows"] == 100
    assert plain["replays_bit_equal"] == 99
    assert plain["parity"]["causes"] == {}


def test_causes_are_counted_over_all_differences_and_only_some_are_shown() -> None:
    late = tuple(
        Difference(f"id-{each}", Cause.MATERIALIZATION_LAG, "v__f", "1", "2") for each in range(DIFFERENCES_SHOWN + 5)
    )
    parity = _summary((*late, Difference("last", Cause.MODEL, "", "[1]", "[2]"))).to_json()["parity"]
    assert parity["causes"] == {"materialization_lag": DIFFERENCES_SHOWN + 5, "model": 1}
    assert len(parity["differences"]) == DIFFERENCES_SHOWN
    assert parity["differences"][0] == {
        "prediction_id": "id-0",
        "cause": "materialization_lag",
        "column": "v__f",
        "served": "1",
        "offline": "2",
    }


def test_percentiles_are_in_milliseconds_and_need_rows() -> None:
    assert latency_percentiles(np.arange(1, 1001) / 1_000) == {"p50": 500.5, "p99": 990.01, "p99.9": 999.001}
    assert latency_percentiles(np.array([0.25])) == {"p50": 250.0, "p99": 250.0, "p99.9": 250.0}
    assert latency_percentiles(np.array([])) == {}
