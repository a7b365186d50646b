"""How a view stands, by which age, and what it is told to do about it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.features.arrivals import Cadence
from skewless.features.freshness import (
    Clock,
    OnlineAges,
    ServedAges,
    SourceAges,
    Standing,
    ViewFreshness,
    binned_quantile,
    quantiles_of,
    told_span,
)
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, SECOND_US

NOW = 1_000 * DAY_US
RUNNING = Cadence(HOUR_US, HOUR_US // 2, missing=0.5, allowed=3.0, history_us=30 * DAY_US)
STOPPED = Cadence(HOUR_US, 9 * HOUR_US, missing=9.0, allowed=3.0, history_us=30 * DAY_US)


def view(
    *, target: int | None = 2 * HOUR_US, source: int | None = HOUR_US, online: int | None = HOUR_US
) -> ViewFreshness:
    """One whose source and store are so old (µs), None where nothing is known of them."""
    return ViewFreshness(
        view="weather",
        as_of=NOW,
        clock=Clock.WALL,
        target_us=target,
        path="weather.parquet",
        source=SourceAges(None if source is None else NOW - source, None, 5, RUNNING),
        online=OnlineAges(None if online is None else NOW - online, asked=100, found=90),
        served=ServedAges(10, HOUR_US, 5 * HOUR_US),
    )


@pytest.mark.parametrize(
    ("given_view", "standing", "told"),
    [
        (view(), Standing.FRESH, ""),
        (view(online=2 * HOUR_US), Standing.FRESH, ""),
        (view(online=2 * HOUR_US + 1), Standing.LATE, "the store is 2 h old and its source 1 h: `skewless materialize"),
        (view(online=5 * HOUR_US, source=4 * HOUR_US), Standing.LATE, "is 4 h old itself, and may be 2 h"),
        (view(online=None, source=4 * HOUR_US), Standing.LATE, "materializing does not help"),
        (view(online=None), Standing.UNKNOWN, "neither source nor store"),
        (view(source=None), Standing.FRESH, ""),
        (view(target=None, online=400 * DAY_US), Standing.NO_TARGET, '{"freshness": "2h"}'),
    ],
)
def test_the_age_in_the_store_is_judged_and_the_advice_says_where_it_aged(
    given_view: ViewFreshness, standing: Standing, told: str
) -> None:
    assert given_view.standing is standing
    assert told in given_view.advice
    assert bool(told) == bool(given_view.advice)


def test_a_source_that_stopped_is_told_before_anything_else_and_without_a_target() -> None:
    for each, misses in ((view(), False), (view(target=None), None), (view(online=9 * HOUR_US), True)):
        stopped = replace(each, source=replace(each.source, cadence=STOPPED))
        assert stopped.standing is Standing.STOPPED
        assert stopped.misses_target is misses, "which alerts are raised by, whatever explains it"
        assert "for 9 h, in which 9 arrivals usually come (one each 1 h)" in stopped.advice


def test_a_view_that_the_store_does_not_hold_is_late_whatever_was_written_once() -> None:
    emptied = replace(view(online=None), online=OnlineAges(asked=200, found=0))
    assert emptied.standing is Standing.LATE
    assert "none of 200 of its entities is in the online store: `skewless materialize weather`" in emptied.advice


def test_a_view_that_is_not_kept_online_is_judged_by_its_source() -> None:
    offline = replace(view(source=3 * HOUR_US), is_online=False, online=OnlineAges())
    assert offline.standing is Standing.LATE
    assert replace(offline, target_us=4 * HOUR_US).standing is Standing.FRESH


def test_what_cannot_be_read_is_told() -> None:
    unknown = replace(view(online=None, source=None), online=OnlineAges(problem="online store is unavailable"))
    assert (unknown.standing, unknown.advice) == (Standing.UNKNOWN, "online store is unavailable")


@given(st.lists(st.integers(-10, 10**9), min_size=1, max_size=50))
def test_quantiles_are_ages_that_entities_have(ages: list[int]) -> None:
    found = quantiles_of(np.array(ages))
    at_least_0 = [max(each, 0) for each in ages]
    assert set(found.values()) <= set(at_least_0)
    assert found[1.0] == max(at_least_0)
    assert sum(each <= found[0.5] for each in at_least_0) * 2 >= len(ages)


@given(st.lists(st.integers(0, 50), min_size=4, max_size=4), st.floats(0, 1))
def test_quantiles_of_bins_grow_and_stay_within_their_bin(counts: list[int], share: float) -> None:
    edges = [0.0, 10.0, 30.0]
    found = binned_quantile(edges, np.array(counts), share)
    if not sum(counts):
        assert found is None
        return
    assert found is not None
    assert 0.0 <= found <= 30.0
    below = sum(count for count, end in zip(counts, [0.0, 10.0, 30.0, 30.0], strict=True) if end <= found)
    assert below <= share * sum(counts) + 1e-9 or found in edges


def test_spans_are_told_in_the_largest_unit_that_fits() -> None:
    spans = [0, SECOND_US, 59 * SECOND_US, 90 * SECOND_US, 36 * MINUTE_US, HOUR_US, 47 * HOUR_US, 400 * DAY_US]
    assert [told_span(each) for each in spans] == ["0 s", "1 s", "59 s", "1.5 min", "36 min", "1 h", "47 h", "400 d"]
