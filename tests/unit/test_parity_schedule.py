"""When sampled predictions are compared, and counts that add up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.canonical_json import Digest
from skewless.features.frame import NO_EVENT_TIME
from skewless.parity.evidence import Watermark, Written
from skewless.parity.rates import ClusterCounts, clustered_rate
from skewless.parity.schedule import (
    LIVE_US,
    PERIOD_US,
    SETTLE_US,
    STEP_US,
    Moment,
    Step,
    is_ready,
    passed_until,
    period_of,
    portions,
)
from skewless.parity.tally import Count, Level, Stratum, TallyKey, groups_of, merged, packed, unpacked
from skewless.timestamps import DAY_US, MINUTE_US, SECOND_US, parse_timestamp

START = parse_timestamp("2026-05-01T10:00:00Z")
ONE, TWO = Digest("1" * 64), Digest("2" * 64)
QUIET = 15 * MINUTE_US


def a_step(number: int, rows: int = 1, bundle: Digest = ONE) -> Step:
    return Step(START + number * STEP_US, {bundle: rows})


def test_a_step_waits_until_the_log_has_it_and_its_sources_have_passed_it() -> None:
    step = a_step(0)
    assert not is_ready(step, {ONE: step.end + DAY_US}, now=step.end + SETTLE_US - 1, quiet_us=QUIET)
    assert is_ready(step, {ONE: step.end}, now=step.end + SETTLE_US, quiet_us=QUIET)
    assert not is_ready(step, {ONE: step.end - 1}, now=step.end + SETTLE_US, quiet_us=QUIET)
    assert not is_ready(step, {ONE: step.end - 1}, now=step.end + QUIET - 1, quiet_us=QUIET)
    assert is_ready(step, {ONE: step.end - 1}, now=step.end + QUIET, quiet_us=QUIET)


def test_a_step_of_two_bundles_waits_for_the_sources_of_both_and_for_none_of_a_bundle_that_is_gone() -> None:
    step = Step(START, {ONE: 1, TWO: 1})
    now = step.end + SETTLE_US
    assert not is_ready(step, {ONE: step.end, TWO: step.end - 1}, now=now, quiet_us=QUIET)
    assert is_ready(step, {ONE: step.end}, now=now, quiet_us=QUIET)


def test_a_source_has_got_as_far_as_its_newest_row_or_the_newest_run_that_read_it() -> None:
    runs = Written.of(((0, 500), (0, 900)))
    assert passed_until(None, None) == NO_EVENT_TIME
    assert passed_until(Watermark(100, 200), None) == 200
    assert passed_until(Watermark(300, 200), None) == 300
    assert passed_until(Watermark(NO_EVENT_TIME, NO_EVENT_TIME), runs) == 900
    assert passed_until(Watermark(1_000, 1_000), runs) == 1_000


@given(st.lists(st.tuples(st.integers(0, 2_000), st.integers(1, 400)), unique_by=lambda pair: pair[0], max_size=60))
def test_portions_hold_every_step_once_in_order_and_none_lies_in_two_hours(drawn: list[tuple[int, int]]) -> None:
    steps = [a_step(number, rows) for number, rows in drawn]
    found = list(portions(steps, rows_max=300))
    assert [step for portion in found for step in portion.steps] == sorted(steps, key=lambda each: each.start)
    for portion in found:
        assert {period_of(step.start) for step in portion.steps} == {portion.period}
        assert sum(step.total for step in portion.steps) <= 300 or len(portion.steps) == 1
        assert portion.start == portion.steps[0].start
        assert portion.end == portion.steps[-1].end <= portion.period + PERIOD_US


def test_traffic_of_the_present_has_the_wall_clock_also_after_hours_without_any() -> None:
    first = Moment(-1, START).then(START, START - 10 * SECOND_US)
    assert first.now == START
    later = first.then(START + DAY_US, START - 10 * SECOND_US)
    assert later.now == START + DAY_US


def test_a_replayed_past_has_its_newest_prediction_for_a_clock_and_goes_on_from_there() -> None:
    newest = START - 1_000 * DAY_US
    first = Moment(-1, START).then(START, newest)
    assert first.now == newest
    faster = first.then(START + SECOND_US, newest + DAY_US)
    assert faster.now == newest + DAY_US
    quiet = faster.then(START + 61 * SECOND_US, newest + DAY_US)
    assert quiet.now == newest + DAY_US + MINUTE_US
    again = quiet.then(START + 62 * SECOND_US, newest + DAY_US)  # a second replay: time never goes back
    assert again.now == quiet.now + SECOND_US


@given(st.lists(st.tuples(st.integers(0, 10 * LIVE_US), st.integers(-5 * LIVE_US, 2 * LIVE_US)), max_size=20))
def test_time_never_goes_back_and_is_never_ahead_of_the_wall(looks: list[tuple[int, int]]) -> None:
    moment, newest, wall = Moment(-1, START), -1, int(START)
    for forward, behind in looks:
        wall += forward
        newest = max(newest, min(wall, wall + behind))
        later = moment.then(wall, newest)
        assert moment.now <= later.now <= wall
        assert later.now >= min(newest, wall)
        moment = later


def _counted(seed: int, rows: int) -> tuple[Count, ClusterCounts, ClusterCounts]:
    generator = np.random.default_rng(seed)
    hashes = generator.integers(0, 2**64, size=40, dtype=np.uint64)[generator.integers(0, 40, size=rows)]
    units, hits = ClusterCounts(), ClusterCounts()
    units.add(hashes)
    hits.add(hashes[: rows // 10])
    return Count(rows, rows // 10, groups_of(units), groups_of(hits)), units, hits


def test_counts_add_up_and_survive_being_stored() -> None:
    key = TallyKey(ONE, Stratum.ENTITY, Level.VIEWS, "weather")
    parts = [_counted(seed, 200)[0] for seed in range(4)]
    whole = merged({key: part} for part in parts)[key]
    assert (whole.units, whole.mismatches) == (800, 80)
    again = merged([{key: parts[0].plus(parts[1])}, {key: parts[2].plus(parts[3])}])[key]
    assert whole.rate() == again.rate()
    assert whole.unit_groups is not None
    stored = unpacked(packed(whole.unit_groups))
    assert stored is not None
    assert np.array_equal(stored, whole.unit_groups)
    assert unpacked(packed(None)) is None


@pytest.mark.parametrize("seed", range(3))
def test_stored_groups_give_the_bounds_of_a_check_but_for_entities_that_share_a_group(seed: int) -> None:
    count, units, hits = _counted(seed, 300)
    assert count.rate() == clustered_rate(hits, units)


def test_a_cause_without_groups_of_its_own_has_those_of_its_view() -> None:
    view, units, hits = _counted(1, 300)
    cause = Count(300, 30, None, groups_of(hits))
    assert cause.rate(view.unit_groups) == clustered_rate(hits, units)
    assert cause.plus(Count(0, 0)).rate(view.unit_groups) == cause.rate(view.unit_groups)
