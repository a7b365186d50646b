"""Bounds hold as often as they say: at every look together, with entities whose rows are alike, between two bundles."""

import numpy as np
import pytest
from numpy.typing import NDArray

from skewless.canonical_json import digest
from skewless.model_metrics.bounds import Loss, Validity, average_precision_bounds, clustered_auroc_bounds, rate
from skewless.model_metrics.cell import LOG_LOSS_MAX, cell_of
from skewless.model_metrics.history import compare_counters, counter_totals, estimate_errors, wilson
from skewless.model_metrics.judged import JudgedRows
from skewless.model_metrics.measures import measures
from skewless.model_metrics.records import MetricRecord
from skewless.monitor_limits import MODEL_METRIC_CLUSTERS
from skewless.timestamps import DAY_US, Micros

WORLDS = 80
LOOKS = (20, 100, 500, 2_500)
OUTSIDE_MAX = 10
"""Of WORLDS at a promised 5 %: four are expected, and eleven or more come twice in a thousand."""


def rows_of(
    scores: NDArray[np.float64], outcomes: NDArray[np.bool_], clusters: NDArray[np.intp] | None = None
) -> JudgedRows:
    return JudgedRows(
        scores.astype(np.float32),
        scores >= 0.5,
        outcomes.astype(np.int8),
        np.full(len(scores), np.nan),
        np.ones(len(scores), np.bool_),
        np.arange(len(scores)) % MODEL_METRIC_CLUSTERS if clusters is None else clusters,
    )


def test_means_are_within_their_bounds_at_all_looks_together_as_often_as_promised() -> None:
    grid = np.linspace(0.0005, 0.9995, 20_001)
    true = {
        "accuracy": np.maximum(grid, 1 - grid).mean(),
        "brier": (grid * (1 - grid)).mean(),
        "log_loss": -(grid * np.log(grid) + (1 - grid) * np.log1p(-grid)).mean(),
    }
    wrong = dict.fromkeys(true, 0)
    for world in range(WORLDS):
        random = np.random.default_rng(world)
        scores = random.choice(grid, LOOKS[-1])
        outcomes = random.random(len(scores)) < scores
        missed = set()
        for look in LOOKS:
            cell = cell_of(rows_of(scores[:look], outcomes[:look]))
            told = {
                "accuracy": rate(cell.right.total, cell.right.rows, design=cell.right.design),
                "brier": cell.brier.bounds(highest=1.0),
                "log_loss": cell.log_loss.bounds(highest=LOG_LOSS_MAX),
            }
            missed |= {name for name, each in told.items() if each and not each.low <= true[name] <= each.high}
        for name in missed:
            wrong[name] += 1
    assert max(wrong.values()) <= OUTSIDE_MAX, wrong


def test_bounds_say_in_which_sense_they_hold() -> None:
    random = np.random.default_rng(1)
    scores = random.random(500)
    told = measures(cell_of(rows_of(scores, random.random(500) < scores)), classed=True, ranked=False, counters=False)
    senses = {each.name: each.validity for each in told}
    assert {name for name, each in senses.items() if each is Validity.ALWAYS} == {
        "accuracy", "brier", "log_loss", "precision", "recall", "positive_share",
    }  # fmt: skip
    assert senses["auroc"] is senses["average_precision"] is Validity.POINTWISE
    assert senses["ece"] is None


def test_bounds_close_in_as_rows_come() -> None:
    widths = [each.high - each.low for rows in (100, 10_000, 1_000_000) if (each := rate(rows * 0.3, rows))]
    assert widths[0] > 4 * widths[1] > 16 * widths[2]
    losses = [Loss(rows, rows * 0.2, rows * 0.01).bounds(highest=1.0) for rows in (100.0, 10_000.0, 1_000_000.0)]
    widths = [each.high - each.low for each in losses if each is not None]
    assert widths[0] > 4 * widths[1] > 16 * widths[2]


def worlds_of_entities(world: int) -> tuple[JudgedRows, JudgedRows]:
    """Rows of 120 entities with 25 rows each, which share their luck; and the same rows, taken for independent."""
    random = np.random.default_rng(world)
    luck = random.beta(2.0, 2.0, 120)
    entity = np.repeat(np.arange(120), 25)
    outcomes = random.random(len(entity)) < luck[entity]
    scores = np.clip(0.5 + random.normal(0, 0.2, 120)[entity], 0.01, 0.99)
    return rows_of(scores, outcomes, entity), rows_of(scores, outcomes)


def test_rows_of_one_entity_count_for_fewer_and_auroc_bounds_then_hold() -> None:
    """Scores say nothing here, so every AUROC is 0.5 in truth; rows taken for independent are far too sure of it."""
    wrong, wrong_alone = 0, 0
    for world in range(WORLDS):
        alike, alone = worlds_of_entities(world)
        for rows in (alike, alone):
            labels = rows.outcomes == 1
            told = cell_of(rows).table.auroc()
            assert told is not None
            bounds = clustered_auroc_bounds(labels, rows.scores, rows.clusters, told)
            assert bounds is not None
            miss = not bounds.low <= 0.5 <= bounds.high
            wrong, wrong_alone = wrong + (miss and rows is alike), wrong_alone + (miss and rows is alone)
    assert wrong <= OUTSIDE_MAX
    assert wrong_alone > 2 * OUTSIDE_MAX
    cell = cell_of(worlds_of_entities(0)[0])
    assert 4.0 < cell.right.design < 9.0
    assert cell_of(worlds_of_entities(0)[1]).right.design < 1.2


def test_a_bootstrap_of_an_average_precision_is_repeatable_and_holds() -> None:
    random = np.random.default_rng(5)
    scores = random.beta(2, 5, 400_000)
    true = cell_of(rows_of(scores, random.random(len(scores)) < scores)).table.average_precision()
    assert true is not None
    wrong = 0
    for world in range(40):
        random = np.random.default_rng(world)
        scores = random.beta(2, 5, 500)
        table = cell_of(rows_of(scores, random.random(500) < scores)).table
        told = table.average_precision()
        assert told is not None
        bounds = average_precision_bounds(table, told, design=1.0)
        assert bounds is not None
        assert bounds == average_precision_bounds(table, told, design=1.0)
        wrong += not bounds.low <= true <= bounds.high
    assert wrong <= 7


def test_rows_that_are_copies_of_one_another_say_no_more_of_an_average_precision_than_one_of_them() -> None:
    random = np.random.default_rng(11)
    scores = random.beta(2, 5, 500)
    rows = rows_of(scores, random.random(500) < scores)
    once = cell_of(rows).table
    copied = cell_of(rows.taken(np.repeat(np.arange(500), 9))).table
    told = once.average_precision()
    assert told is not None
    assert copied.average_precision() == pytest.approx(told)
    wanted, found = average_precision_bounds(once, told, design=1.0), average_precision_bounds(copied, told, design=9.0)
    assert wanted is not None
    assert found is not None
    assert found.high - found.low == pytest.approx(wanted.high - wanted.low, rel=0.3)
    assert found.low < told < found.high


@pytest.mark.parametrize("design", [1.0, 50.0, 1_000.0, 1e9])
def test_bounds_of_an_average_precision_hold_its_value_however_few_rows_count(design: float) -> None:
    scores = np.random.default_rng(0).random(1_000)
    outcomes = np.zeros(1_000, np.bool_)
    outcomes[[1, 500]] = True
    table = cell_of(rows_of(scores, outcomes)).table
    told = table.average_precision()
    assert told is not None
    bounds = average_precision_bounds(table, told, design=design)
    assert bounds is not None
    assert 0.0 <= bounds.low < told < bounds.high <= 1.0
    narrow = average_precision_bounds(table, told, design=1.0)
    assert narrow is not None
    assert bounds.low <= narrow.low < narrow.high <= bounds.high


def record(metric: str, value: float, **changes: object) -> MetricRecord:
    fields = {
        "endpoint": "shop", "bundle": digest("one"), "role": "live", "slice": "", "period_start": Micros(0),
        "period_us": DAY_US, "metric": metric, "is_estimate": False, "value": value, "low": None, "high": None,
        "bounds": None, "reason": None, "rows": 1_000, "labelled": 1_000, "effective": 1_000.0, "expected": None,
        "mature": True, "computed_time": Micros(0), **changes,
    }  # fmt: skip
    return MetricRecord(**fields)  # type: ignore[arg-type]  # of the types above


def test_bundles_are_compared_over_their_mature_periods_only() -> None:
    records = [
        *(record("counter_ctr", 0.10, period_start=Micros(day * DAY_US)) for day in range(9)),
        *(record("counter_ctr", 0.15, bundle=digest("two"), period_start=Micros(day * DAY_US)) for day in range(9)),
        record("counter_ctr", 0.99, mature=False),
        record("counter_ctr", 0.99, slice="origin=EWR"),
    ]
    totals = counter_totals(records)
    assert {each.bundle: (round(each.value, 6), each.rows) for each in totals} == {
        digest("one"): (0.1, 9_000.0),
        digest("two"): (0.15, 9_000.0),
    }
    assert all(each.low < each.wilson_low < each.value < each.wilson_high < each.high for each in totals)
    (found,) = compare_counters(totals)
    assert found.better == digest("two")
    assert abs(found.difference) == pytest.approx(0.05)
    assert found.high - found.low > sum(each.high - each.low for each in totals), "both bounds must hold together"


def test_equal_bundles_are_told_apart_no_more_often_than_promised_however_often_one_looks() -> None:
    wrong = 0
    for world in range(WORLDS):
        clicks = np.random.default_rng(world).random((2, LOOKS[-1])) < 0.1
        named = False
        for look in LOOKS:
            shares = [float(each[:look].mean()) for each in clicks]
            totals = counter_totals(
                [
                    record("counter_ctr", shares[0], effective=float(look)),
                    record("counter_ctr", shares[1], effective=float(look), bundle=digest("two")),
                ]
            )
            named |= compare_counters(totals)[0].better is not None
        wrong += named
    assert wrong <= OUTSIDE_MAX


@pytest.mark.parametrize(("hits", "rows"), [(0, 10), (10, 10), (3, 17), (500, 9_000)])
def test_wilsons_interval_is_where_the_score_test_does_not_refuse(hits: int, rows: int) -> None:
    low, high = wilson(hits, rows)
    for edge in (low, high):
        if 1e-9 < edge < 1.0 - 1e-9:
            assert abs(hits / rows - edge) / np.sqrt(edge * (1 - edge) / rows) == pytest.approx(1.959964, rel=1e-4)
    assert 0.0 <= low <= hits / rows <= high <= 1.0


def test_an_estimate_is_held_against_what_came_in_mature_periods() -> None:
    def day(number: int, estimate: float, came: float, *, mature: bool = True) -> list[MetricRecord]:
        start = Micros(number * DAY_US)
        return [
            record("auroc", estimate, is_estimate=True, period_start=start, mature=mature),
            record("auroc", came, period_start=start, mature=mature),
        ]

    records = [*day(0, 0.8, 0.7), *day(1, 0.8, 0.6), *day(2, 0.8, 0.1, mature=False)]
    assert estimate_errors(records) == {(digest("one"), "live", "auroc"): pytest.approx(0.15)}
    assert estimate_errors([record("auroc", 0.7)]) == {}
