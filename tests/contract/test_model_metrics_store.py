"""What keeps model metrics, over SQLite and PostgreSQL alike: a period as a whole, marks with what they are made of."""

from collections.abc import Iterator

import pytest

from skewless.canonical_json import digest
from skewless.model_metrics.calibration import LogOddsFit
from skewless.model_metrics.compute import Computed
from skewless.model_metrics.records import MetricRecord
from skewless.registry import database
from skewless.registry.model_metrics import ModelMetrics
from skewless.timestamps import DAY_US, Micros

KEY = (digest("one"), "live")
SETTINGS = digest("settings")
START = Micros(20_000 * DAY_US)


@pytest.fixture
def store(registry_url: str) -> Iterator[ModelMetrics]:
    made = ModelMetrics(database.engine(registry_url), clock=lambda: Micros(7))
    yield made
    made.close()


def record(metric: str, value: float | None, *, day: int = 0, **changes: object) -> MetricRecord:
    fields = {
        "endpoint": "shop", "bundle": KEY[0], "role": KEY[1], "slice": "", "period_start": Micros(START + day * DAY_US),
        "period_us": DAY_US, "metric": metric, "is_estimate": False, "value": value, "low": 0.1, "high": 0.9,
        "bounds": "always", "reason": None, "rows": 10, "labelled": 9, "effective": 8.5, "expected": 0.5,
        "mature": True, "computed_time": Micros(5), **changes,
    }  # fmt: skip
    return MetricRecord(**fields)  # type: ignore[arg-type]  # of the types above


def computed(**changes: object) -> Computed:
    return Computed(**{"predictions": 10, "stale": False, "due_us": None, "computed_time": Micros(3), **changes})  # type: ignore[arg-type]  # as above


def test_a_period_is_replaced_as_a_whole_and_read_back_as_it_was(store: ModelMetrics) -> None:
    first = (record("accuracy", 0.5), record("auroc", None, reason="one class", low=None, high=None, bounds=None))
    store.replace_period("shop", START, computed(), first)
    other = record("accuracy", 0.25, day=1, slice="origin=EWR", is_estimate=True)
    store.replace_period("shop", other.period_start, computed(), (other,))
    assert store.metrics("shop") == first
    assert store.metrics("shop", slice_called=None) == (*first, other)
    again = (record("brier", 0.125),)
    store.replace_period("shop", START, computed(due_us=9), again)
    store.replace_period("shop", START, computed(due_us=9), again)
    assert store.metrics("shop") == again
    assert store.periods("shop") == {START: computed(due_us=9), other.period_start: computed()}
    assert store.metrics("shop", bundle=KEY[0][:8], start=START, end=START + 1) == again
    assert store.metrics("shop", bundle="%") == ()
    assert store.metrics("another") == ()


def test_what_is_gone_is_forgotten(store: ModelMetrics) -> None:
    store.replace_period("shop", START, computed(), (record("accuracy", 0.5),))
    store.replace_period("shop", START, computed(predictions=0), ())
    assert store.metrics("shop") == ()
    assert store.periods("shop") == {}


def test_marks_are_kept_with_the_outcomes_that_they_are_about(store: ModelMetrics) -> None:
    assert store.outcome_days("shop", SETTINGS) is None
    store.note_outcomes("shop", SETTINGS, {"2024-10-04": 3}, frozenset(), afresh=True)
    store.replace_period("shop", START, computed(), (record("accuracy", 0.5),))
    store.note_outcomes("shop", SETTINGS, {"2024-10-04": 5}, frozenset({START, Micros(0)}), afresh=False)
    assert store.outcome_days("shop", SETTINGS) == {"2024-10-04": 5}
    assert store.periods("shop") == {START: computed(stale=True)}
    assert store.outcome_days("shop", digest("others")) is None, "metrics of other settings are others"
    store.note_outcomes("shop", digest("others"), {}, frozenset(), afresh=True)
    assert store.metrics("shop") == ()
    assert store.periods("shop") == {}


def test_the_calibration_is_that_of_the_last_mature_period_that_had_ended(store: ModelMetrics) -> None:
    def fitted(day: int, slope: float | None, *, mature: bool = True) -> None:
        found = (
            record("calibration_slope", slope, day=day, mature=mature),
            record("calibration_intercept", slope, day=day, mature=mature),
            record("calibration_slope", 9.0, day=day, slice="origin=EWR"),
        )
        store.replace_period("shop", found[0].period_start, computed(), found)

    fitted(0, 0.5)
    fitted(1, 0.75)
    fitted(2, None)
    fitted(3, 2.0, mature=False)
    assert store.log_odds_fit("shop", KEY, ended_by=Micros(START + 9 * DAY_US)) == LogOddsFit(0.75, 0.75)
    assert store.log_odds_fit("shop", KEY, ended_by=Micros(START + 2 * DAY_US - 1)) == LogOddsFit(0.5, 0.5)
    assert store.log_odds_fit("shop", KEY, ended_by=Micros(START)) is None
    assert store.log_odds_fit("shop", (KEY[0], "shadow"), ended_by=Micros(START + 9 * DAY_US)) is None
    assert store.newest_periods("shop") == (Micros(START + 3 * DAY_US), Micros(START + 2 * DAY_US))
