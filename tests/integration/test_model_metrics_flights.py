"""The flights' year, judged from a prediction log: a model trained on winter loses AUROC as the year goes on.

Here with some of the flights; `python -m bench.model_drift run` takes all of them, and its results are tested as text.
"""

from pathlib import Path

import numpy as np
import pytest

from bench.model_drift import WINTER, judged_by_log, result_of, stored, table_lines
from skewless.model_metrics.records import MetricRecord

GUIDE = Path(__file__).parents[2] / "docs" / "model-metrics.md"
LAST_OF_WINTER = "2013-03-16"
"""The last period that is all of months that were trained on."""


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> tuple[MetricRecord, ...]:
    return judged_by_log(tmp_path_factory.mktemp("year"), 60_000, rounds=30)


def lost(result: dict[str, list[dict[str, dict[str, float]]]], *, winter: bool) -> float:
    """How much more AUROC a model trained on all seasons has, on average over periods."""
    told = [
        each["auroc"]["year"] - each["auroc"]["winter"]
        for each in result["periods"]
        if (str(each["start"]) <= LAST_OF_WINTER) is winter
    ]
    return float(np.mean(told))


def test_a_model_trained_on_winter_falls_behind_when_winter_is_over(records: tuple[MetricRecord, ...]) -> None:
    result = result_of(records)
    assert len(result["periods"]) == 13
    assert lost(result, winter=True) < 0.0, "other flights of the same months are no harder"
    assert lost(result, winter=False) > lost(result, winter=True) + 0.01
    assert all(each["maturity"] == 1.0 for each in result["periods"])


def test_every_origin_is_judged_by_itself(records: tuple[MetricRecord, ...]) -> None:
    parts = {each.slice for each in records}
    assert parts == {"", "origin=EWR", "origin=JFK", "origin=LGA"}
    rows = {
        name: sum(
            each.rows for each in records if each.slice == name and each.metric == "brier" and each.bundle == WINTER
        )
        for name in parts
    }
    assert rows.pop("") == sum(rows.values())


def test_the_whole_year_shows_it_beyond_doubt() -> None:
    result = stored()
    assert lost(result, winter=True) < 0.0
    assert lost(result, winter=False) > 0.03
    winter, after = (
        [each for each in result["periods"] if (each["start"] <= LAST_OF_WINTER) is of_winter]
        for of_winter in (True, False)
    )
    lowest = min(each["low"] for each in winter[1:])
    assert sum(each["high"] < lowest for each in after) >= 3, "not by chance"
    assert abs(result["estimate_errors"]["auroc"]) < 0.03


def test_the_guide_shows_the_last_run() -> None:
    assert "\n".join(table_lines(stored())) in GUIDE.read_text(), (
        "paste what `python -m bench.model_drift table` prints into docs/model-metrics.md"
    )
