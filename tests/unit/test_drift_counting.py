"""What the monitor counts and keeps: bytes of tallies, places of counts, slices, words, policies, calibrations."""

import json
from collections import Counter as Words
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from bench.drift_worlds import Change, history_and_after, world
from harness.bundles import content, contract, transform
from harness.replays import flights
from skewless.cli.monitoring_file import read_policy
from skewless.drift.batch_counts import BatchCounts, LoggedPart
from skewless.drift.calibration import WATCHED, calibrate
from skewless.drift.calibration_form import Calibrated, from_bytes, to_bytes
from skewless.drift.contract_breaks import ContractRules, Rule
from skewless.drift.history import Lookback, series_of
from skewless.drift.season import Grade
from skewless.drift.slicing import NAMED_MAX, Slicing, slicings_of
from skewless.drift.tally_form import added, packed, unpacked
from skewless.drift.traffic import ALL
from skewless.drift.unseen_words import SeenWord, printable, together
from skewless.drift.watch import calibrated_watch, first_watch, recalibrated_watch, restored_watch
from skewless.drift.watched_bundle import Placement, WatchedBundle
from skewless.dtypes import Dtype, column_of
from skewless.errors import InvalidDefinition, InvalidRequest
from skewless.features.contract import FeatureContract, LogMark
from skewless.monitor_limits import DRIFT_WORDS_KEPT_MAX
from skewless.rollout.routes import Route
from skewless.serving.monitoring_policy import DriftPolicy, MetricsPolicy, MonitoringPolicy, ParityPolicy
from skewless.statistics.bins import column_bins
from skewless.statistics.counter import Counter
from skewless.statistics.observed import Observed
from skewless.statistics.tally import Tally
from skewless.statistics.variable import Part
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US

WINDOW_US = HOUR_US
START_US = 1_000_000 * HOUR_US
DIGEST = "ab" * 32


def watched(given: FeatureContract | None = None) -> WatchedBundle:
    made = content(fitted=transform(), columns=flights(400, seed=1))
    outputs = made.signature.outputs
    return WatchedBundle(made.contract.digest, given or contract(), made.baseline, tuple(outputs))


def observed(rows: int, seed: int) -> Observed:
    columns = flights(rows, seed=seed)
    served = [name for name, _ in contract().columns if "__" in name]
    random = np.random.default_rng(seed)
    return Observed(
        rows,
        columns,
        {name: random.integers(0, 4, rows).astype(np.uint8) for name in served},
        {view: random.integers(0, DAY_US, rows) for view in ("weather", "aircraft", "noise")},
        transform().prepare().apply(columns, rows),
        {"score": random.random(rows).astype(np.float32)},
    )


def counted(bundle: WatchedBundle, part: Observed) -> Tally:
    counter = Counter(bundle.baseline.variables)
    tally = counter.empty()
    counter.add(part, tally)
    return tally


def assert_equal(found: Tally, expected: Tally) -> None:
    assert found.layout == expected.layout
    assert found.counts.tolist() == expected.counts.tolist()
    assert found.lows.tolist() == expected.lows.tolist()
    assert found.highs.tolist() == expected.highs.tolist()


def test_a_tally_comes_back_from_its_bytes_and_adds_up_without_its_layout() -> None:
    bundle = watched()
    first, second = counted(bundle, observed(90, 2)), counted(bundle, observed(40, 3))
    assert_equal(unpacked(bundle.layout, packed(first)), first)
    assert packed(unpacked(bundle.layout, packed(first))) == packed(first)
    assert_equal(unpacked(bundle.layout, added([packed(first), packed(second)])), first.merged(second))
    assert_equal(unpacked(bundle.layout, packed(bundle.layout.empty())), bundle.layout.empty())


def test_bytes_of_another_layout_or_none_are_refused() -> None:
    bundle = watched()
    data = packed(counted(bundle, observed(9, 2)))
    other = Counter(bundle.baseline.variables[:-1]).layout
    for layout, wrong in ((other, data), (bundle.layout, data[:-3]), (bundle.layout, b""), (bundle.layout, data[:12])):
        with pytest.raises(InvalidDefinition, match="no counts of"):
            unpacked(layout, wrong)
    with pytest.raises(InvalidDefinition, match="one layout"):
        added([data, packed(other.empty())])


def test_counts_of_some_variables_are_where_those_of_all_would_be() -> None:
    bundle, rows = watched(), observed(60, 4)
    whole = counted(bundle, rows)
    for chosen in (bundle.kept[::2], bundle.kept[1:4], [each for each in bundle.kept if each.part in WATCHED]):
        placement = Placement(bundle.layout, chosen)
        narrow = Tally(placement.layout.digest, *placement.narrowed(whole.counts, whole.lows, whole.highs))
        wide = placement.widened(narrow)
        names = {each.key for each in chosen}
        for found, expected in zip(bundle.layout.counted(wide), bundle.layout.counted(whole), strict=True):
            if expected.key in names:
                assert found == expected
            else:
                assert not any(found.counts)
                assert found.moments is None


def test_batches_add_up_to_what_all_rows_do_and_lack_what_rows_lack() -> None:
    bundle, rows = watched(), observed(60, 5)
    times = START_US + np.arange(60) * 5 * MINUTE_US
    whole = BatchCounts(bundle, WINDOW_US)
    whole.add(LoggedPart(rows, times))
    assert [start for _, start in whole.places] == [START_US + hour * HOUR_US for hour in range(5)]
    total = bundle.layout.empty()
    for _, _, tally in whole.tallies():
        total = total.merged(tally)
    assert_equal(total, counted(bundle, rows))
    outputs = frozenset(each.key for each in bundle.of(Part.OUTPUT))
    lacking = BatchCounts(bundle, WINDOW_US)
    lacking.add(LoggedPart(replace(rows, tensor=None), times, outputs))
    (_, _, first), *_ = lacking.tallies()
    by_key = {each.key: each for each in bundle.layout.counted(first)}
    assert all(not any(by_key[key].counts) for key in outputs)
    assert by_key[Part.COLUMN, "party"].total == 12


def test_tallies_that_were_packed_meanwhile_go_on_where_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.drift.batch_counts.OPEN_TALLIES_MAX", 2)
    bundle, rows = watched(), observed(60, 6)
    times = START_US + np.arange(60) % 6 * HOUR_US
    few = BatchCounts(bundle, WINDOW_US)
    for _ in range(3):
        few.add(LoggedPart(rows, times))
    total = bundle.layout.empty()
    for _, _, tally in few.tallies():
        total = total.merged(tally)
    assert total.rows == 180
    assert total.counts.tolist() == (3 * counted(bundle, rows).counts).tolist()


def test_nothing_is_counted_or_named_of_what_the_log_hides() -> None:
    given = contract()
    view = given.views[0]
    hidden = replace(view, features=tuple(replace(each, log=LogMark.HASH) for each in view.features))
    bundle = watched(replace(given, views=(hidden, *given.views[1:])))
    names = {each.name for each in bundle.of(Part.COLUMN)}
    assert "weather__temp" not in names
    assert "aircraft__seats" in names
    assert {each.name for each in bundle.of(Part.AGE)} == {"weather", "aircraft", "noise"}
    slicings, problem = slicings_of(bundle.of(Part.COLUMN), ["weather__wind_dir", "origin"])
    assert [each.column for each in slicings] == ["origin"]
    assert problem is not None
    assert "weather__wind_dir" in problem


def test_slices_are_the_frequent_values_null_and_all_others() -> None:
    words = [f"w{place}" for place in range(30) for _ in range(place + 1)]
    text = column_bins("kind", column_of(Dtype.STRING, list(words)), served=True, known_max=512)
    slicing = Slicing.of(text)
    assert len(slicing.names) == NAMED_MAX + 2
    asked = column_of(Dtype.STRING, ["w29", "w0", None, "new"])
    assert slicing.slices_of(asked) == ["kind=w29", "kind=others", "kind=null", "kind=others"]
    flag = column_bins("flag", column_of(Dtype.BOOL, [True, False]), served=True, known_max=512)
    assert Slicing.of(flag).slices_of(column_of(Dtype.BOOL, [True, None])) == ["flag=true", "flag=null"]
    gates = column_of(Dtype.INT64, [1, 1, 5, 5, 5, 7])
    counter = Counter([column_bins("gate", gates, served=False, known_max=512)])
    tally = counter.empty()
    counter.add(Observed(6, {"gate": gates}), tally)
    (whole,) = counter.layout.counted(tally)
    assert Slicing.of(whole).slices_of(column_of(Dtype.INT64, [5, 6])) == ["gate=5", "gate=others"]
    number = column_bins("temp", column_of(Dtype.FLOAT32, [1.5, 2.5]), served=True, known_max=512)
    with pytest.raises(InvalidDefinition, match="no frequent values"):
        Slicing.of(number)


def test_word_counts_are_never_too_low_and_too_high_by_no_more_than_they_say() -> None:
    random = np.random.default_rng(20261122)
    truth: Words[str] = Words()
    kept: dict[str, SeenWord] = {}
    for batch in range(40):
        words = Words(f"w{min(int(each), 999)}" for each in random.zipf(1.3, 200))
        truth.update(words)
        kept = together(kept, {word: SeenWord(count, 0, batch, batch) for word, count in words.items()})
        assert len(kept) <= DRIFT_WORDS_KEPT_MAX
    for word, seen in kept.items():
        assert seen.rows - seen.over <= truth[word] <= seen.rows
    assert [word for word, _ in truth.most_common(5)] == list(kept)[:5]
    halves = together(kept, together({}, {"w0": SeenWord(1, 0, 50, 50)}))
    assert halves["w0"].last_us == 50 if "w0" in halves else True


def test_words_of_any_kind_become_text_that_databases_hold() -> None:
    assert printable("\ud800x") == "\\ud800x"
    assert "\0" not in printable("\0" * 100)
    assert len(printable("ä" * 200)) == 64


def test_a_policy_is_its_document_and_the_other_way_round(tmp_path: Path) -> None:
    policy = MonitoringPolicy(
        DriftPolicy(15 * MINUTE_US, HOUR_US, ("origin",), 7.0, ("2026-12-25",)),
        MetricsPolicy("late", ("origin",), HOUR_US, 10, {"ctr": ("click",)}),
        ParityPolicy(0.5, 0.25),
    )
    assert MonitoringPolicy.from_json(json.loads(json.dumps(policy.to_json()))) == policy
    assert MonitoringPolicy.from_json({}) == MonitoringPolicy()
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(policy.to_json()))
    assert read_policy(file) == policy
    file.write_text("drift: {excluded_days: [2026-12-25], window: 15m}")
    assert read_policy(file).drift.excluded_days == ("2026-12-25",)
    route = Route("flight-delay", "", DIGEST, monitoring=policy)  # type: ignore[arg-type]  # any digest
    assert Route.from_json(json.loads(json.dumps(route.to_json()))) == route
    assert Route("flight-delay", "", DIGEST).to_json()["monitoring"] is None  # type: ignore[arg-type]  # any digest


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], r"\$ is list; allowed: an object"),
        ({"drfit": {}}, r"\$ has no field 'drfit'. Allowed: drift, metrics, parity"),
        ({"drift": {"widow": "5m"}}, r"\$.drift has no field 'widow'. Allowed: window, lateness"),
        ({"drift": {"window": 300}}, r"\$.drift.window is 300; allowed: a whole number and"),
        ({"drift": {"window": "7m"}}, "a window of 7 minutes is not allowed"),
        ({"drift": {"slices": "origin"}}, r"\$.drift.slices is 'origin'; allowed: a list"),
        ({"drift": {"slices": ["a", "b", "c", "d", "e"]}}, "at most 4, each once"),
        ({"drift": {"slices": ["a", "a"]}}, "at most 4, each once"),
        ({"drift": {"promise_days": True}}, r"\$.drift.promise_days is True; allowed: a number"),
        ({"drift": {"promise_days": 0}}, "1 to 365"),
        ({"drift": {"excluded_days": ["25.12."]}}, "days such as 2026-12-25"),
        ({"drift": {"lateness": "500d"}}, "whole seconds from 0s to 400d"),
        ({"metrics": {"positive": 1}}, r"\$.metrics.positive is 1; allowed: text"),
        ({"metrics": {"period": "7h"}}, "whole parts of a day"),
        ({"metrics": {"ranking_k": 0}}, "1 to 1,000"),
        ({"metrics": {"counters": {"CTR": ["click"]}}}, "first a letter"),
        ({"metrics": {"counters": {"ctr": []}}}, "the labels that count as success"),
        ({"parity": {"entity_share": 1.5}}, "0 to 1"),
    ],
)
def test_a_policy_that_cannot_be_says_where_and_what_is_allowed(document: object, words: str) -> None:
    with pytest.raises(InvalidDefinition, match=words):
        MonitoringPolicy.from_json(document)


def test_a_file_that_is_no_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_policy(tmp_path / "absent.yaml")
    (tmp_path / "wrong.yaml").write_text("drift: [")
    with pytest.raises(InvalidRequest, match="neither YAML nor JSON"):
        read_policy(tmp_path / "wrong.yaml")
    (tmp_path / "large.yaml").write_text("#" * 70_000)
    with pytest.raises(InvalidRequest, match="too large"):
        read_policy(tmp_path / "large.yaml")


def test_a_watch_that_is_stored_with_its_calibration_goes_on_bit_for_bit() -> None:
    made = world(5, days=10, numbers=2, words=1)
    history, after = history_and_after(made, 8, 5, Change("shift", 0.8, "number_01"), 8 * 288 + 100)
    calibrated = Calibrated(calibrate(history), ContractRules.of(history[ALL], WATCHED))
    layout = history[ALL].layout
    again = from_bytes(layout, to_bytes(calibrated))
    assert to_bytes(again) == to_bytes(calibrated)
    placement = Placement(layout, layout.variables)
    one, other = calibrated_watch(calibrated), calibrated_watch(calibrated)
    calm = np.zeros(len(after[ALL]), dtype=np.bool_)
    whole = one.advance(after, calm, {})
    first, middle, last = after[ALL].first, after[ALL].first + 150, after[ALL].first + len(calm)
    found = other.advance({ALL: after[ALL].between(first, middle)}, calm[:150], {})
    other = restored_watch(placement, again, json.loads(json.dumps(other.to_json())))
    found += other.advance({ALL: after[ALL].between(middle, last)}, calm[150:], {})
    assert found == whole
    assert other.alarms == one.alarms
    assert one.alarms[0].moved[0].stream.name == "number_01"
    with pytest.raises(InvalidDefinition, match="no calibration that can be gone on with"):
        from_bytes(Placement(layout, layout.variables[:-1]).layout, to_bytes(calibrated))


def test_sums_go_on_over_a_new_calibration_and_windows_left_out_change_nothing() -> None:
    made = world(6, days=10, numbers=2, words=1)
    history, after = history_and_after(made, 8, 6, Change("shift", 0.3, "number_01"), 8 * 288)
    calibrated = Calibrated(calibrate(history), ContractRules.of(history[ALL], WATCHED))
    watch = calibrated_watch(calibrated)
    first = after[ALL].first
    watch.advance({ALL: after[ALL].between(first, first + 30)}, np.zeros(30, dtype=np.bool_), {})
    before = watch.detector.levels
    assert max(before.values()) > 0.2
    skipped = watch.advance({ALL: after[ALL].between(first + 30, first + 33)}, np.ones(3, dtype=np.bool_), {})
    assert skipped == [None] * 3
    assert watch.detector.levels == before
    follower = recalibrated_watch(watch, calibrated)
    assert follower.detector.levels == before
    expected = watch.advance({ALL: after[ALL].between(first + 33, first + 64)}, np.zeros(31, dtype=np.bool_), {})
    assert (
        follower.advance({ALL: after[ALL].between(first + 33, first + 64)}, np.zeros(31, dtype=np.bool_), {})
        == expected
    )


def test_before_there_is_history_a_bundle_is_watched_beside_its_training() -> None:
    bundle = watched()
    placement = Placement(bundle.layout, [each for each in bundle.kept if each.part in WATCHED])
    watch = first_watch(placement)
    assert watch.grade is Grade.TRAINING
    shapes = {START_US: {"tensor": 3}}
    counts = BatchCounts(bundle, WINDOW_US)
    counts.add(LoggedPart(observed(60, 8), np.full(60, START_US)))
    series = series_of(
        placement,
        WINDOW_US,
        (START_US // WINDOW_US, START_US // WINDOW_US + 1),
        [(start, tally) for _, start, tally in counts.tallies()],
    )
    (reading,) = watch.advance({ALL: series}, np.zeros(1, dtype=np.bool_), shapes)
    assert reading is not None
    assert [each.rule for each in reading.breaks] == [Rule.SHAPE]
    assert reading.breaks[0].share == pytest.approx(0.05)
    again = restored_watch(placement, None, json.loads(json.dumps(watch.to_json())))
    assert again.to_json() == watch.to_json()


@pytest.mark.parametrize(
    ("days", "grade", "length"),
    [
        (range(35), Grade.HOUR_OF_WEEK, 35),
        (range(3, 35), Grade.HOUR_OF_WEEK, 28),
        (range(20, 35), Grade.HOUR_OF_DAY, 15),
        (range(30, 35), Grade.TRAINING, 5),
        ([*range(8), *range(30, 35)], Grade.HOUR_OF_DAY, 27),
        ([], Grade.TRAINING, 0),
    ],
)
def test_history_counts_as_long_as_it_had_traffic(days: list[int], grade: Grade, length: int) -> None:
    lookback = Lookback.of(days, HOUR_US, 35 * DAY_US + HOUR_US, 35)
    assert lookback.grade is grade
    assert lookback.stop - lookback.first == 24 * length or grade is Grade.TRAINING
