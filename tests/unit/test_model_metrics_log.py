"""Metrics kept up with a log: aligned on the time asked about, again only where something came."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from harness.logged_rows import ENDPOINT, NOW, a_batch, new_id, spool, told, told_of
from harness.shipped_logs import ship
from skewless.adapters import model_metrics_log
from skewless.adapters.log_reader import open_log
from skewless.adapters.log_tables import day_of
from skewless.adapters.model_metrics_log import Counted, LogOutcomes, look_at_outcomes
from skewless.adapters.spool import SPOOL, sealed_segments
from skewless.canonical_json import digest
from skewless.errors import InvalidDefinition
from skewless.model_metrics.compute import Progress, Subject, keep_up
from skewless.model_metrics.records import MetricRecord
from skewless.registry import database
from skewless.registry.model_metrics import ModelMetrics
from skewless.registry.repository import system_clock
from skewless.serving.monitoring_policy import MetricsPolicy
from skewless.serving.outcome_terms import OutcomeTerms
from skewless.serving.records import AnsweredBatch
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, Micros
from skewless.training.definition import BinaryLabels
from skewless.training.evaluation import auroc

DAY = NOW // DAY_US * DAY_US
LABELS = BinaryLabels("on_time", "late", threshold=0.5)


@pytest.fixture
def store(tmp_path: Path, sqlite_registry: Path) -> Iterator[ModelMetrics]:
    """Metrics in a registry of its own."""
    file = shutil.copy(sqlite_registry, tmp_path / "registry.db")
    made = ModelMetrics(database.engine(f"sqlite:///{file}"))
    yield made
    made.close()


def batch(
    scores: Sequence[float], *, as_of: int = NOW, made: int | None = None, keys: Sequence[object] = (), **changes: Any
) -> AnsweredBatch:
    """Predictions with these scores, labelled by the threshold of LABELS."""
    plain = a_batch(list(keys) or ["EWR"] * len(scores), as_of=as_of, ids=[new_id(made) for _ in scores])
    return replace(
        plain,
        labels=["late" if each >= LABELS.threshold else "on_time" for each in scores],
        probabilities=np.array(scores, np.float32),
        **changes,
    )


def subject(policy: MetricsPolicy | None = None, **terms: int) -> Subject:
    return Subject(ENDPOINT, policy or MetricsPolicy(), OutcomeTerms(**terms), lambda _bundle: LABELS)


def kept_up(
    folder: Path,
    store: ModelMetrics,
    about: Subject | None = None,
    *,
    now: Micros | None = None,
    periods_max: int = 100,
    rest_us: int = 0,
) -> Progress:
    about = about or subject()

    def run(look: LogOutcomes) -> Progress:
        return keep_up(about, look, store, now=now or system_clock(), periods_max=periods_max, rest_us=rest_us)

    with open_log(folder) as log:
        return look_at_outcomes(log, ENDPOINT, about.terms, run)


def values(store: ModelMetrics, **where: object) -> dict[str, float | None]:
    """Metrics of the only period, bundle and role, without estimates."""
    found = [each for each in store.metrics(ENDPOINT, **where) if not each.is_estimate]  # type: ignore[arg-type]  # as named
    assert len({(each.period_start, each.bundle, each.role, each.slice) for each in found}) == 1
    return {each.metric: each.value for each in found}


def plain(records: Sequence[MetricRecord]) -> list[Mapping[str, object]]:
    """Without the moment of computing."""
    return [{name: value for name, value in each.to_json().items() if name != "computed_time"} for each in records]


def test_metrics_are_of_the_period_that_was_asked_about_whenever_outcomes_came(
    tmp_path: Path, store: ModelMetrics
) -> None:
    first = batch([0.9, 0.8, 0.3, 0.2], as_of=DAY)
    second = batch([0.7, 0.6, 0.4], as_of=DAY + DAY_US - 1)
    third = batch([0.7], as_of=DAY + DAY_US)
    spool(tmp_path, first, second, third, seal=True)
    ship(tmp_path)
    outcomes = ["late", "on_time", "late", "on_time", "late", "late", "on_time"]
    ids = [*first.prediction_ids, *second.prediction_ids]
    spool(tmp_path, [told(each, label) for each, label in zip(ids, outcomes, strict=True)])
    assert kept_up(tmp_path, store, subject(label_horizon_us=DAY_US)) == Progress(2, 0)
    found = values(store, end=DAY + DAY_US)
    scores = np.array([0.9, 0.8, 0.3, 0.2, 0.7, 0.6, 0.4], np.float32)
    truth = np.array([each == "late" for each in outcomes])
    assert found["auroc"] == auroc(truth, scores)
    assert found["accuracy"] == pytest.approx(5 / 7)
    later = store.metrics(ENDPOINT, start=DAY + DAY_US)
    assert {(each.labelled, each.rows, each.mature) for each in later} == {(0, 1, False)}
    assert {each.value for each in later if not each.is_estimate} == {None}
    assert all(each.reason for each in later)


def test_only_what_changed_is_computed_again_and_a_restart_changes_nothing(tmp_path: Path, store: ModelMetrics) -> None:
    days = [batch([0.9, 0.2, 0.6], as_of=DAY + day * DAY_US) for day in range(4)]
    spool(tmp_path, *days)
    assert kept_up(tmp_path, store, periods_max=3) == Progress(3, 1)
    assert kept_up(tmp_path, store) == Progress(1, 0)
    assert kept_up(tmp_path, store) == Progress(0, 0)
    spool(tmp_path, [told(days[2].prediction_ids[0])])
    assert kept_up(tmp_path, store, periods_max=0) == Progress(0, 1)
    assert kept_up(tmp_path, store) == Progress(1, 0), "what was noted and not done is done by the next process"
    ship(tmp_path)
    assert kept_up(tmp_path, store) == Progress(0, 0), "shipping is nothing new"
    before = store.metrics(ENDPOINT)
    assert {each.labelled for each in before if each.period_start == DAY + 2 * DAY_US} == {1}
    spool(tmp_path, batch([0.5], as_of=DAY + 1))
    assert kept_up(tmp_path, store) == Progress(1, 0)
    changed = store.metrics(ENDPOINT)
    assert plain(changed)[-1] == plain(before)[-1]
    assert {each.rows for each in changed if each.period_start == DAY} == {4}


def test_what_goes_on_filling_is_computed_again_after_a_rest(tmp_path: Path, store: ModelMetrics) -> None:
    spool(tmp_path, batch([0.9]))
    now = system_clock()
    assert kept_up(tmp_path, store, now=now, rest_us=HOUR_US) == Progress(1, 0)
    spool(tmp_path, batch([0.8]))
    assert kept_up(tmp_path, store, now=Micros(now + HOUR_US - 1), rest_us=HOUR_US) == Progress(0, 0)
    assert kept_up(tmp_path, store, now=Micros(now + HOUR_US), rest_us=HOUR_US) == Progress(1, 0)


def test_a_period_that_is_not_over_is_not_judged(tmp_path: Path, store: ModelMetrics) -> None:
    made = batch([0.9] * 4)
    spool(tmp_path, made, [told(each) for each in made.prediction_ids])
    kept_up(tmp_path, store, now=Micros(DAY + DAY_US - 1))
    assert {each.mature for each in store.metrics(ENDPOINT)} == {False}
    assert kept_up(tmp_path, store, now=Micros(DAY + DAY_US)) == Progress(1, 0)
    assert {each.mature for each in store.metrics(ENDPOINT)} == {True}


def test_corrections_count_and_duplicates_do_not(tmp_path: Path, store: ModelMetrics) -> None:
    made = batch([0.9, 0.9, 0.1, 0.1])
    ids = made.prediction_ids
    spool(tmp_path, made, [told(each, "late") for each in ids])
    kept_up(tmp_path, store)
    assert values(store)["accuracy"] == 0.5
    spool(tmp_path, [told(ids[0], "late", after_us=MINUTE_US)], [told(new_id(), "late")])
    kept_up(tmp_path, store)
    assert values(store)["accuracy"] == 0.5
    assert {each.labelled for each in store.metrics(ENDPOINT)} == {4}
    spool(tmp_path, [told(each, "on_time", after_us=30 * DAY_US) for each in ids[2:]])
    assert kept_up(tmp_path, store) == Progress(1, 0)
    assert values(store)["accuracy"] == 1.0


def test_outcomes_told_by_entity_count_by_the_endpoints_window(tmp_path: Path, store: ModelMetrics) -> None:
    made = batch([0.9, 0.1], keys=["EWR", "JFK"])
    spool(tmp_path, made, [told_of('{"origin":"JFK"}', NOW + HOUR_US, "late")])
    kept_up(tmp_path, store, subject(outcome_window_us=MINUTE_US))
    assert {each.labelled for each in store.metrics(ENDPOINT)} == {0}
    assert kept_up(tmp_path, store, subject(outcome_window_us=DAY_US)) == Progress(1, 0), "the terms have changed"
    assert values(store)["accuracy"] == 0.0


def test_shadows_are_judged_by_what_turned_out_for_live_and_count_nothing(tmp_path: Path, store: ModelMetrics) -> None:
    live = batch([0.9, 0.1])
    shadow = replace(batch([0.1, 0.9], bundle=digest("two"), role="shadow"), twins=live.prediction_ids)
    spool(tmp_path, live, shadow, [told(each, "late") for each in live.prediction_ids[:1]])
    kept_up(tmp_path, store, subject(MetricsPolicy(counters={"lates": ("late",)})))
    by_role = {(each.role, each.metric): each.value for each in store.metrics(ENDPOINT) if not each.is_estimate}
    assert (by_role["live", "accuracy"], by_role["shadow", "accuracy"]) == (1.0, 0.0)
    assert by_role["live", "counter_lates"] == 0.5
    assert ("shadow", "counter_lates") not in by_role


def test_slices_are_the_commonest_values_and_the_rest(tmp_path: Path, store: ModelMetrics) -> None:
    keys = [f"P{place // 2:03d}" for place in range(140)] + [None, "'; DROP TABLE predictions; --"]
    made = batch([0.9] * len(keys), keys=keys)
    spool(tmp_path, made, [told(each, "late") for each in made.prediction_ids])
    kept_up(tmp_path, store, subject(MetricsPolicy(slices=("origin",))))
    rows = {each.slice: each.rows for each in store.metrics(ENDPOINT, slice_called=None)}
    assert rows.pop("") == 142
    assert rows.pop("origin=(other)") == 142 - 64 * 2
    assert list(rows) == [f"origin=P{place:03d}" for place in range(64)]
    with pytest.raises(InvalidDefinition, match=r"slices of `carrier`.*Columns: distance, origin, view__temp"):
        kept_up(tmp_path, store, subject(MetricsPolicy(slices=("carrier",))))


def test_a_slices_value_is_kept_as_every_database_can_hold_it(tmp_path: Path, store: ModelMetrics) -> None:
    """PostgreSQL's text has no NUL."""
    made = batch([0.9] * 3, keys=["a\0b", "a\0b", "a" * 79 + "\0"])
    spool(tmp_path, made, [told(each, "late") for each in made.prediction_ids])
    kept_up(tmp_path, store, subject(MetricsPolicy(slices=("origin",))))
    rows = {each.slice: each.rows for each in store.metrics(ENDPOINT, slice_called=None)}
    assert rows == {"": 3, "origin=a\\x00b": 2, f"origin={'a' * 79}\\": 1}


def test_a_request_is_a_ranking_however_its_rows_are_read(
    tmp_path: Path, store: ModelMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_metrics_log, "LOG_READ_BATCH_ROWS", 1)
    first = batch([0.9, 0.5, 0.1], request_id="first")
    second = batch([0.3, 0.8], request_id="second")
    single = batch([0.3], request_id="single")
    spool(tmp_path, second, first, single)
    gains = dict(zip([*first.prediction_ids, *second.prediction_ids], "12001", strict=True))
    spool(tmp_path, [told(each, gain) for each, gain in gains.items()], [told(single.prediction_ids[0], "1")])
    about = replace(subject(MetricsPolicy(ranking_k=2)), labels=lambda _bundle: None)
    kept_up(tmp_path, store, about)
    found = values(store)
    first_ndcg = (1 + 2 / np.log2(3)) / (2 + 1 / np.log2(3))
    assert found["ndcg"] == pytest.approx((first_ndcg + 1) / 2)
    assert found["map"] == pytest.approx(1.0)
    assert found["mae"] is not None


def test_requests_are_whole_however_their_rows_are_read() -> None:
    requests = [f"r{number:02d}" for number in range(12) for _ in range(number % 4 + 1)]
    read = pa.table({"request_id": requests, "place": list(range(len(requests)))})
    for rows in (1, 2, 3, 7, 100):
        parts = list(model_metrics_log._whole_requests(read.slice(at, rows) for at in range(0, len(requests), rows)))
        assert pa.concat_tables(parts).column("place").to_pylist() == list(range(len(requests)))
        seen = [name for part in parts for name in set(part.column("request_id").to_pylist())]
        assert len(seen) == len(set(seen)), rows
    endless = pa.table({"request_id": ["one"] * 600})
    held = [part.num_rows for part in model_metrics_log._whole_requests(endless for _ in range(5))]
    assert max(held) <= 2 * 600, "what is held is bounded"


def test_a_bundle_whose_classes_nobody_knows_is_judged_by_the_policys(tmp_path: Path, store: ModelMetrics) -> None:
    made = batch([0.9, 0.1])
    spool(tmp_path, made, [told(made.prediction_ids[0], "late"), told(made.prediction_ids[1], "diverted")])
    unknown = replace(subject(), labels=lambda _bundle: None)
    kept_up(tmp_path, store, unknown)
    assert store.metrics(ENDPOINT) == ()
    kept_up(tmp_path, store, replace(unknown, policy=MetricsPolicy(positive="late")))
    assert values(store)["accuracy"] == 1.0
    kept_up(tmp_path, store, subject(MetricsPolicy(positive="on_time")))
    assert values(store)["accuracy"] == 1.0
    assert values(store)["auroc"] is None


def test_the_other_class_can_be_the_one_that_is_asked_about(tmp_path: Path, store: ModelMetrics) -> None:
    made = batch([0.9, 0.8, 0.3, 0.2])
    came = ("late", "on_time", "late", "on_time")
    spool(tmp_path, made, [told(each, label) for each, label in zip(made.prediction_ids, came, strict=True)])
    kept_up(tmp_path, store)
    late = values(store)
    kept_up(tmp_path, store, subject(MetricsPolicy(positive="on_time")))
    on_time = values(store)
    for name in ("auroc", "brier", "log_loss", "accuracy"):
        assert on_time[name] == pytest.approx(late[name], abs=1e-6)
    assert late["auroc"] == 0.75


def test_a_period_matures_by_age_or_by_being_complete(tmp_path: Path, store: ModelMetrics) -> None:
    now = system_clock()
    old = batch([0.9] * 20, as_of=DAY, made=now - 3 * HOUR_US)
    young = batch([0.9] * 20, as_of=DAY + DAY_US, made=now - HOUR_US)
    full = batch([0.9] * 20, as_of=DAY + 2 * DAY_US, made=now - MINUTE_US)
    ids = [*old.prediction_ids[:15], *young.prediction_ids[:18], *full.prediction_ids[:19]]
    spool(tmp_path, old, young, full, [told(each, after_us=MINUTE_US) for each in ids])
    about = subject(label_horizon_us=2 * HOUR_US)

    def mature() -> list[bool]:
        return [next(each.mature for each in store.metrics(ENDPOINT, start=DAY + day * DAY_US)) for day in range(3)]

    kept_up(tmp_path, store, about, now=now)
    assert mature() == [True, False, True]
    oldest = store.metrics(ENDPOINT)[0]
    assert oldest.maturity == 0.75
    assert oldest.expected == pytest.approx(33 / 40), "of the predictions an hour old and older"
    assert kept_up(tmp_path, store, about, now=Micros(now + HOUR_US - 1_000_000)) == Progress(0, 0)
    assert kept_up(tmp_path, store, about, now=Micros(now + HOUR_US)) == Progress(1, 0), "time alone has made it so"
    assert mature() == [True, True, True]


def test_a_period_whose_outcomes_stay_behind_is_late_and_not_judged(tmp_path: Path, store: ModelMetrics) -> None:
    now = system_clock()
    days = [batch([0.9] * 20, as_of=DAY + day * DAY_US, made=now - 3 * HOUR_US) for day in range(5)]
    spool(tmp_path, *days, [told(each, after_us=MINUTE_US) for made in days[:4] for each in made.prediction_ids])
    spool(tmp_path, [told(each, after_us=MINUTE_US) for each in days[4].prediction_ids[:12]])
    kept_up(tmp_path, store, subject(label_horizon_us=2 * HOUR_US), now=now)
    last = store.metrics(ENDPOINT, start=DAY + 4 * DAY_US)[0]
    assert (last.maturity, last.mature) == (0.6, False)
    assert last.expected == pytest.approx(0.92)
    assert store.periods(ENDPOINT)[last.period_start].due_us is None, "age will not make it mature"


def test_estimates_are_recalibrated_by_the_last_period_that_had_matured(tmp_path: Path, store: ModelMetrics) -> None:
    random = np.random.default_rng(3)
    days = [batch(list(random.beta(2, 2, 400)), as_of=DAY + day * DAY_US) for day in range(3)]
    spool(tmp_path, *days)
    for made in days[:2]:
        came = random.random(400) < made.probabilities**2
        spool(
            tmp_path,
            [told(each, "late" if late else "on_time") for each, late in zip(made.prediction_ids, came, strict=True)],
        )
    kept_up(tmp_path, store)
    found = {(each.period_start, each.metric, each.is_estimate): each for each in store.metrics(ENDPOINT)}
    last, second = found[Micros(DAY + 2 * DAY_US), "brier", True], found[Micros(DAY + DAY_US), "brier", False]
    assert found[Micros(DAY), "brier", True].reason != last.reason
    assert "recalibrated" in str(last.reason)
    assert last.value is not None
    assert second.value is not None
    assert found[Micros(DAY + 2 * DAY_US), "brier", False].value is None
    assert abs(last.value - second.value) < 0.02
    spool(tmp_path, [told(days[0].prediction_ids[0], after_us=MINUTE_US)])
    assert kept_up(tmp_path, store) == Progress(2, 0), "all that was told something on that day"
    again = [each for each in store.metrics(ENDPOINT, end=DAY + DAY_US) if each.is_estimate]
    assert {each.reason for each in again} == {found[Micros(DAY), "brier", True].reason}, (
        "no period knows itself before"
    )


def counts(folder: Path, counted: Counted | None = None) -> tuple[Mapping[Micros, int], Mapping[str, int]]:
    """Predictions by hour and outcomes by day, as one look says."""
    with open_log(folder) as log:
        return look_at_outcomes(
            log,
            ENDPOINT,
            OutcomeTerms(),
            lambda look: (dict(look.predictions_by_period(HOUR_US)), dict(look.outcomes_by_day())),
            counted=counted,
        )


def test_a_look_counts_each_stored_file_once_and_says_what_a_first_one_would(tmp_path: Path) -> None:
    counted = Counted()
    for number in range(6):
        made = batch([0.9] * (number + 1), as_of=NOW + number * 5 * HOUR_US)
        spool(tmp_path, made, [told(each, after_us=number * DAY_US) for each in made.prediction_ids], seal=True)
        found = []
        for step in ("in the spool", "in both", "in the store") if number % 2 else ("in the spool",):
            if step == "in both":
                ship(tmp_path, keep=True)
            elif step == "in the store":
                for segment in sealed_segments(tmp_path / SPOOL):
                    segment.unlink()
            found.append(counts(tmp_path, counted))
            assert found[-1] == counts(tmp_path) == found[0], step
        assert [sum(each.values()) for each in found[0]] == [sum(range(number + 2))] * 2
    with open_log(tmp_path) as log:
        days = look_at_outcomes(
            log, ENDPOINT, OutcomeTerms(), lambda look: look.predictions_by_period(DAY_US), counted=counted
        )
    assert sum(days.values()) == 21, "of another period all is counted anew"
    before = counts(tmp_path, counted)
    _, *later = sorted((tmp_path / "store" / "predictions").rglob("*.parquet"))
    for file in later:
        file.chmod(0o644)
        file.write_bytes(b"no Parquet" * file.stat().st_size)
    assert counts(tmp_path, counted) == before, "nothing of them is read"
    with pytest.raises(duckdb.Error):
        counts(tmp_path)


def test_outcomes_of_a_day_are_looked_for_in_the_files_that_they_can_be_about(tmp_path: Path) -> None:
    wanted = []
    for number in range(3):
        start = DAY + number * DAY_US
        made = batch([0.9] * 3, as_of=start, made=start)
        outcomes = [told(each, after_us=number * 10 * DAY_US) for each in made.prediction_ids]
        spool(tmp_path, made, outcomes, seal=True)
        wanted.append(({day_of(each.received_time) for each in outcomes}, start))
    ship(tmp_path)

    def ask(days: frozenset[str]) -> frozenset[Micros]:
        with open_log(tmp_path) as log:
            return look_at_outcomes(log, ENDPOINT, OutcomeTerms(), lambda look: look.periods_told_on(days, DAY_US))

    for days, start in wanted:
        assert ask(frozenset(days)) == {start}
    assert ask(frozenset()) == ask(frozenset({"1999-01-01"})) == frozenset()
    assert ask(frozenset().union(*(days for days, _ in wanted))) == {start for _, start in wanted}
    for file in sorted((tmp_path / "store" / "predictions").rglob("*.parquet"))[:2]:
        file.chmod(0o644)
        held = file.read_bytes()
        footer = len(held) - 8 - int.from_bytes(held[-8:-4], "little")
        file.write_bytes(held[:4] + bytes(footer - 4) + held[footer:])
    days, start = wanted[2]
    assert ask(frozenset(days)) == {start}, "of other days only what their footers say is read"
    with pytest.raises(duckdb.Error):
        ask(frozenset(wanted[0][0]))
    shutil.rmtree(tmp_path / "store" / "predictions")
    assert ask(frozenset(wanted[0][0])) == frozenset(), "of another endpoint's predictions, or of none"


def test_what_is_deleted_from_the_log_is_forgotten(tmp_path: Path, store: ModelMetrics) -> None:
    spool(tmp_path, batch([0.9], as_of=DAY), batch([0.9], as_of=DAY + DAY_US))
    kept_up(tmp_path, store)
    (tmp_path / "spool").rename(tmp_path / "gone")
    assert kept_up(tmp_path, store) == Progress(2, 0)
    assert store.metrics(ENDPOINT) == ()
    assert store.periods(ENDPOINT) == {}
