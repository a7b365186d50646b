"""Rates and their bounds, samples of entities, rules between pipelines, and what makes a check fail."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import beta

from skewless.dtypes import Dtype, column_of
from skewless.errors import InvalidRequest
from skewless.parity.causes import ACCOUNTS, CAUSES, Kind
from skewless.parity.rates import ClusterCounts, clopper_pearson, clustered_rate
from skewless.parity.relation import relation
from skewless.parity.sampling import chosen, entity_hashes
from skewless.parity.verdict import Condition, failures

GOLDEN = ["9950a32a50a6ab59", "d6bca3938dec3c5a"]


@pytest.mark.parametrize(
    ("hits", "rows"),
    [(0, 1), (1, 1), (0, 20_000), (7, 20_000), (3, 10), (2.5, 33.3), (999_999, 1_000_000), (500, 10**6), (50, 100)],
)
def test_bounds_are_those_of_scipys_beta_distribution(hits: float, rows: float) -> None:
    low = 0.0 if hits == 0 else beta.ppf(0.025, hits, rows - hits + 1)
    high = 1.0 if hits == rows else beta.ppf(0.975, hits + 1, rows - hits)
    assert clopper_pearson(hits, rows) == pytest.approx((low, high), rel=1e-6, abs=1e-12)


def _counts(hashes: Any) -> ClusterCounts:
    counts = ClusterCounts()
    counts.add(np.asarray(hashes, dtype=np.uint64))
    return counts


def test_bounds_hold_the_true_rate_of_clustered_mismatches_and_those_of_independent_rows_do_not() -> None:
    """300 worlds of 200 entities with 20 rows each, of which an entity is wrong as a whole or not at all."""
    random = np.random.default_rng(5)
    true, held, naive = 0.05, 0, 0
    for _ in range(300):
        entities = np.repeat(np.arange(200), 20)
        wrong = np.repeat(random.random(200) < true, 20)
        found = clustered_rate(_counts(entities[wrong]) if wrong.any() else None, _counts(entities))
        held += found.low <= true <= found.high
        low, high = clopper_pearson(int(wrong.sum()), len(wrong))
        naive += low <= true <= high
    assert held / 300 > 0.93
    assert naive / 300 < 0.6


def test_independent_rows_are_hardly_widened() -> None:
    entities = np.arange(20_000)
    found = clustered_rate(_counts(entities[:7]), _counts(entities))
    assert (found.hits, found.rows, found.entities) == (7, 20_000, len({each % 65_536 for each in range(20_000)}))
    assert (found.low, found.high) == pytest.approx(clopper_pearson(7, 20_000), rel=0.05)


def test_without_a_mismatch_each_entity_counts_as_one_row() -> None:
    found = clustered_rate(None, _counts(np.repeat(np.arange(100), 50)))
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(clopper_pearson(0, 100)[1])
    assert clustered_rate(None, ClusterCounts()).high == 1.0


def test_a_sample_holds_its_share_of_entities_and_all_of_a_smaller_one() -> None:
    keys = {"name": column_of(Dtype.STRING, [f"entity {number}" for number in range(20_000)])}
    hashes = entity_hashes(keys, 20_000)
    tenth, third = chosen(hashes, 0.1), chosen(hashes, 0.3)
    assert tenth.mean() == pytest.approx(0.1, abs=0.01)
    assert not (tenth & ~third).any()
    assert chosen(hashes, 1.0).all()


def test_entities_are_told_apart_by_every_key_and_by_nulls() -> None:
    def hashed(**keys: Any) -> int:
        columns = {
            name: column_of(Dtype.STRING if isinstance(item, str | None) else Dtype.INT64, [item])
            for name, item in keys.items()
        }
        return int(entity_hashes(columns, 1)[0])

    different: list[dict[str, Any]] = [
        {"a": "x", "b": "y"},
        {"a": "xy", "b": ""},
        {"a": "", "b": "xy"},
        {"a": None, "b": "xy"},
        {"a": "x"},
    ]
    assert len({hashed(**each) for each in different}) == len(different)
    assert hashed(a="x", b="y") == hashed(b="y", a="x")
    assert hashed(a=7) == hashed(a="7"), "an entity keeps its hash where only the type of its key is mistaken"


def test_golden_hashes_stay_as_they_are() -> None:
    """A sample of today is a sample of tomorrow's rows of the same entities."""
    keys = {"station": column_of(Dtype.STRING, ["north", None]), "line": column_of(Dtype.INT64, [-3, 7])}
    assert [f"{each:016x}" for each in entity_hashes(keys, 2).tolist()] == GOLDEN


@pytest.mark.parametrize(
    ("served", "offline", "told"),
    [
        ([1.609344, 3.218688, 4.828032], [1.0, 2.0, 3.0], "served = 1.60934 * offline"),
        ([0.0, 10.0, 100.0], [32.0, 50.0, 212.0], "served = 0.555556 * offline - 17.7778"),
        ([1.0, 2.0, 3.5], [1.0, 2.0, 3.0], ""),
        ([1.0, 2.0], [2.0, 4.0], ""),
        ([5.0, 5.0, 5.0], [1.0, 2.0, 3.0], ""),
        ([], [], ""),
    ],
)
def test_a_rule_between_two_pipelines_is_found_where_there_is_one(
    served: list[float], offline: list[float], told: str
) -> None:
    assert relation(np.array(served, dtype=np.float64), np.array(offline, dtype=np.float64)) == told


def _report(**rates: float) -> dict[str, Any]:
    return {
        "causes": [
            {"view": "v", "cause": cause, "differing": 1, "units": 100, "rate": rate} for cause, rate in rates.items()
        ]
    }


def test_conditions_name_causes_faults_or_anything_above_a_rate() -> None:
    found = _report(materialization_lag=0.02, transform=0.01)
    assert failures(found, [Condition.parse("transform")]) == [
        "v: transform in 1 of 100 (1.0000%), --fail-on transform"
    ]
    assert failures(found, [Condition.parse("transform=0.01")]) == []
    assert len(failures(found, [Condition.parse("any")])) == 2
    (fault,) = failures(found, [Condition.parse("fault")])
    assert "transform" in fault
    assert failures(_report(), [Condition.parse("any")]) == []


@pytest.mark.parametrize("text", ["", "weather", "transform=", "transform=x", "any=1", "any=-0.1", "any=nan"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    if text == "transform=":
        assert Condition.parse(text).rate == 0.0
        return
    with pytest.raises(InvalidRequest, match="is no condition"):
        Condition.parse(text)


def test_what_passes_by_itself_is_timing_and_everything_else_a_fault() -> None:
    assert [each for each in CAUSES if ACCOUNTS[each].kind is Kind.TIMING] == [
        "stale_serving",
        "restated_row",
        "materialization_lag",
    ]
