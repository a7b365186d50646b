"""When a source counts as stopped: soon after it does, and never because it rests at night or comes irregularly."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from skewless.features.arrivals import BUCKET_US, Cadence, arrivals_of, cadence_of
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, parse_timestamp

START = int(parse_timestamp("2026-01-05"))  # a Monday
DAYS = 50
Moments = NDArray[np.int64]


def each(step_us: int, *, jitter_us: int = 1, seed: int = 1) -> Moments:
    moments = START + np.arange(0, DAYS * DAY_US, step_us)
    return np.sort(moments + np.random.default_rng(seed).integers(0, jitter_us, len(moments)))


def at_random(mean_us: int, seed: int = 1) -> Moments:
    """Arrivals of a Poisson process: the time between two has no memory."""
    gaps = np.random.default_rng(seed).exponential(mean_us, 2 * DAYS * DAY_US // mean_us)
    moments = START + np.cumsum(gaps).astype(np.int64)
    return moments[moments < START + DAYS * DAY_US]


def in_office_hours(moments: Moments) -> Moments:
    days, within = np.divmod(moments - START, DAY_US)
    return moments[(days % 7 < 5) & (within >= 6 * HOUR_US) & (within < 20 * HOUR_US)]


SOURCES: dict[str, tuple[Callable[[], Moments], float]] = {
    "hourly": (lambda: each(HOUR_US, jitter_us=10 * MINUTE_US), 5),
    "quarters": (lambda: each(15 * MINUTE_US, jitter_us=3 * MINUTE_US), 2),
    "each second": (lambda: each(MINUTE_US), 1),
    "daily": (lambda: each(DAY_US, jitter_us=HOUR_US) + 9 * HOUR_US, 24 * 6),
    "weekly": (lambda: each(7 * DAY_US), 24 * 7 * 4),
    "office hours": (lambda: in_office_hours(each(HOUR_US, jitter_us=10 * MINUTE_US)), 5),
    "at random": (lambda: at_random(20 * MINUTE_US), 8),
    "at random in office hours": (lambda: in_office_hours(at_random(20 * MINUTE_US)), 8),
}
"""How moments come, and within how many hours in which something usually comes a stop is to be noticed."""
each_source = pytest.mark.parametrize("name", SOURCES)


def at(arrivals: Moments, now: int) -> Cadence:
    found = cadence_of(arrivals, now)
    assert found is not None
    return found


@each_source
def test_a_source_that_goes_on_is_never_taken_for_stopped(name: str) -> None:
    """Looked at each quarter of an hour through its last two weeks, nights and weekends among them."""
    arrivals = arrivals_of(SOURCES[name][0]())
    end = int(arrivals[-1])
    looks = range(end - 14 * DAY_US, end, 15 * MINUTE_US)
    assert [now for now in looks if at(arrivals, now).is_stopped] == []


@each_source
@pytest.mark.parametrize("seed", range(3))
def test_a_source_that_stops_is_noticed_after_few_of_its_arrivals_are_missing(name: str, seed: int) -> None:
    moments, within_h = SOURCES[name][0](), SOURCES[name][1]
    arrivals = arrivals_of(moments)
    stop = int(np.random.default_rng(seed).integers(len(arrivals) * 3 // 4, len(arrivals) - 1))
    before = arrivals[: stop + 1]
    noticed = next(
        now
        for now in range(int(before[-1]), int(before[-1]) + 40 * DAY_US, 15 * MINUTE_US)
        if at(before, now).is_stopped
    )
    silent = noticed - int(before[-1])
    # Hours in which nothing came anyway do not count: only those with an arrival in the same hour of other weeks.
    busy = np.unique(arrivals % (7 * DAY_US) // HOUR_US)
    hours = (int(before[-1]) + np.arange(0, silent, HOUR_US)) % (7 * DAY_US) // HOUR_US
    awake_h = np.isin(hours, busy).sum() if name not in ("daily", "weekly") else silent / HOUR_US
    assert awake_h <= within_h + 1
    assert silent > 2 * at(before, noticed).typical_us, "one that is late is no stop"


def test_a_source_that_came_back_counts_as_running_and_its_outage_does_not_become_usual() -> None:
    hourly = each(HOUR_US)
    outage = hourly[(hourly < START + 30 * DAY_US) | (hourly >= START + 33 * DAY_US)]
    arrivals = arrivals_of(outage)
    assert not at(arrivals, START + 33 * DAY_US + MINUTE_US).is_stopped
    assert at(arrivals, START + 33 * DAY_US - MINUTE_US).is_stopped
    later = at(arrivals, int(arrivals[-1]))
    assert later.allowed == pytest.approx(at(arrivals_of(hourly), int(hourly[-1])).allowed)


def test_hours_that_history_has_not_seen_expect_nothing() -> None:
    first_days = arrivals_of(each(HOUR_US)[: 4 * 24])  # Monday to Thursday
    assert not at(first_days, START + 7 * DAY_US - MINUTE_US).is_stopped
    assert at(first_days, START + 7 * DAY_US + 6 * HOUR_US).is_stopped


@pytest.mark.parametrize("count", range(5))
def test_too_few_arrivals_have_no_cadence(count: int) -> None:
    assert cadence_of(arrivals_of(each(DAY_US)[:count]), START + 90 * DAY_US) is None


def test_what_comes_within_five_minutes_is_one_arrival() -> None:
    moments = START + np.array([0, BUCKET_US - 1, BUCKET_US, 2 * BUCKET_US - 1])
    assert arrivals_of(moments).tolist() == [START, START + BUCKET_US]


def test_a_silence_is_measured_whatever_the_hour_it_began() -> None:
    found = at(arrivals_of(each(HOUR_US)), START + DAYS * DAY_US + 2 * HOUR_US)
    assert found.silent_us == 3 * HOUR_US
    assert found.missing == pytest.approx(3.0)
    assert found.typical_us == HOUR_US
