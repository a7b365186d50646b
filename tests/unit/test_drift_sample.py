"""Rows for reports: a sample out of the log, uniform and the same again, and rows made of a baseline's counts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.logged_rows import ENDPOINT, NOW, a_batch, spool
from harness.shipped_logs import ship
from skewless.adapters.drift_sample import LogSample, apportioned, pseudo_sample, sample_log
from skewless.adapters.log_reader import LogReader, open_log
from skewless.canonical_json import digest
from skewless.dtypes import Column, Dtype, column_of
from skewless.statistics.ages import NO_AGE
from skewless.statistics.bins import age_bins, column_bins
from skewless.statistics.counter import Counter
from skewless.statistics.observed import Observed
from skewless.statistics.variable import Variable
from skewless.timestamps import DAY_US, HOUR_US

ONE = digest("one")
LATER = NOW + 7 * DAY_US


def ids(sample: LogSample) -> list[str]:
    return list(sample.table.column("prediction_id").to_pylist())


def the(log: LogReader, rows_max: int = 40, **changes: Any) -> LogSample:
    asked: dict[str, Any] = {"bundle": ONE, "role": "live", "spans": [(NOW, NOW + HOUR_US)], **changes}
    return sample_log(
        log, ENDPOINT, asked.pop("bundle"), asked.pop("role"), asked.pop("spans"), rows_max=rows_max, **asked
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """400 rows of one bundle, live, in two segments; and others around them."""
    for part in range(2):
        batches = [a_batch(["EWR"] * 100, as_of=NOW + (2 * part + each) * 1_000_000) for each in range(2)]
        spool(tmp_path, *batches, seal=True)
    others = [
        a_batch(["JFK"] * 50, role="shadow", twins=["live"] * 50),
        a_batch(["JFK"] * 50, role="canary", bundle="two"),
        a_batch(["JFK"] * 50, as_of=LATER),
        a_batch(["JFK"] * 50, endpoint="another"),
        a_batch([7] * 50, bundle="three", key="station", dtype=Dtype.INT64),
    ]
    spool(tmp_path, *others, seal=True)
    return tmp_path


def test_a_sample_has_rows_of_one_bundle_in_one_role_and_time_and_says_of_how_many(folder: Path) -> None:
    with open_log(folder) as log:
        sample = the(log)
        assert (sample.table.num_rows, sample.rows_of) == (40, 400)
        assert set(sample.table.column("bundle_digest").to_pylist()) == {ONE}
        assert set(sample.table.column("role").to_pylist()) == {"live"}
        assert "key.station" not in sample.table.column_names
        assert the(log, role="shadow").rows_of == 50
        assert the(log, bundle=digest("two"), role="canary").rows_of == 50
        assert the(log, spans=[(NOW, NOW + HOUR_US), (LATER, LATER + 1)]).rows_of == 450


def test_the_same_seed_gives_the_same_rows_wherever_they_lie_and_another_seed_others(folder: Path) -> None:
    with open_log(folder) as log:
        first, other = ids(the(log)), ids(the(log, seed=1))
    assert first != other
    ship(folder)
    with open_log(folder) as log:
        assert ids(the(log)) == first
        assert ids(the(log, rows_max=1_000)) == ids(the(log, rows_max=400))


def test_every_row_is_as_likely_as_any_other(tmp_path: Path) -> None:
    rows, kept, seeds = 60, 20, 24
    names = [[f"013e5fd9-0000-7000-8000-{30 * part + each:012x}" for each in range(30)] for part in range(2)]
    spool(tmp_path, *[a_batch(["EWR"] * 30, ids=each) for each in names], seal=True)
    with open_log(tmp_path) as log:
        every = ids(the(log, rows_max=rows))
        taken = [each for seed in range(seeds) for each in ids(the(log, rows_max=kept, seed=seed))]
    counts = np.array([taken.count(each) for each in every])
    expected = seeds * kept / rows
    statistic = float(((counts - expected) ** 2).sum() / (expected * (1 - kept / rows)))
    # Chi-square with 59 degrees of freedom is below 98.3 with a chance of 0.999.
    assert statistic < 98.3, counts
    assert counts.min() > 0


def test_where_nothing_is_there_the_sample_is_empty(tmp_path: Path, folder: Path) -> None:
    with open_log(folder) as log:
        assert (the(log, spans=[]).rows_of, the(log, spans=[]).table.num_rows) == (0, 0)
        assert the(log, spans=[(0, 1)]).table.num_rows == 0
    with open_log(tmp_path / "none") as nothing:
        assert the(nothing).table.num_rows == 0


def counted(bins: Variable, column: Column | None = None, ages: np.ndarray[Any, Any] | None = None) -> Variable:
    counter = Counter([bins])
    tally = counter.empty()
    if column is not None:
        counter.add(Observed(len(column), {bins.name: column}), tally)
    elif ages is not None:
        counter.add(Observed(len(ages), ages_us={bins.name: ages}), tally)
    return counter.layout.counted(tally)[0]


def columns() -> dict[str, Column]:
    random = np.random.default_rng(3)
    numbers = random.lognormal(size=2_000)
    numbers[:300] = 0.0
    words: list[object] = [f"w{each}" for each in random.zipf(1.6, 2_000).clip(max=40).tolist()]
    words[:100] = [None] * 100
    return {
        "heavy": column_of(Dtype.FLOAT64, [None, *numbers.tolist()]),
        "single": column_of(Dtype.FLOAT32, random.normal(size=2_000).astype(np.float32).tolist()),
        "whole": column_of(Dtype.INT64, random.integers(-5, 500, 2_000).tolist()),
        "flag": column_of(Dtype.BOOL, (random.random(500) < 0.2).tolist()),
        "constant": column_of(Dtype.FLOAT32, [2.5] * 50),
        "nothing": column_of(Dtype.FLOAT32, [None] * 50),
        "word": column_of(Dtype.STRING, words),
    }


@pytest.mark.parametrize("name", columns())
def test_rows_made_of_counts_fall_into_the_bins_as_often_as_the_counts_say(name: str) -> None:
    column = columns()[name]
    bins = column_bins(name, column, served=False, known_max=512)
    training = counted(bins, column)
    training = replace(training, moments=bins.moments)  # as a baseline has them
    made = pseudo_sample(training, 700)
    assert (made.dtype, len(made)) == (column.dtype, 700)
    expected = apportioned(np.array(training.counts, dtype=np.float64), 700)
    assert list(counted(bins, made).counts) == expected.tolist()


def test_ages_are_made_of_counts_too() -> None:
    ages = np.array([NO_AGE, *range(0, 10 * HOUR_US, HOUR_US)], dtype=np.int64)
    bins = age_bins("weather", ages)
    training = replace(counted(bins, ages=ages), moments=bins.moments)
    made = pseudo_sample(training, 110)
    assert made.valid.sum() == 100
    assert list(counted(bins, ages=np.where(made.valid, made.values.astype(np.int64), NO_AGE)).counts) == [
        10 * each for each in training.counts
    ]


def test_shares_are_rounded_to_whole_rows_that_add_up() -> None:
    random = np.random.default_rng(5)
    for _ in range(50):
        counts = random.integers(0, 50, 12).astype(np.float64)
        found = apportioned(counts, 97)
        assert found.sum() == 97
        if counts.sum():
            assert np.abs(found - counts / counts.sum() * 97).max() < 1
