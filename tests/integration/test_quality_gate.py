"""The gate: what each kind of bad batch comes to, quarantine and replay, and what is left where it is killed."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uuid_utils

from harness.killed_forks import forked
from harness.naive_suites import NaiveRunner
from harness.quality_views import AS_OF, SCHEMA, SUITE, sensor_rows, with_values
from skewless.adapters.feast_stored_views import StoredView
from skewless.adapters.known_rows import KnownRows
from skewless.adapters.quality_gate import Batch, GateOutcome, QualityGate
from skewless.adapters.quarantine import REASONS, ROW, Quarantine
from skewless.adapters.quarantine_replay import Replay
from skewless.dtypes import Dtype
from skewless.errors import BatchRefused, BundleRefused, Conflict, InvalidDefinition, NotFound
from skewless.features.contract import FeatureField, JoinKey, ViewRead
from skewless.features.point_in_time import OfflineSource
from skewless.monitor_settings import MonitorSettings
from skewless.quality.suite import OnFailure
from skewless.quality.verdict import Decision
from skewless.registry import database
from skewless.registry.quality_results import QualityResults, QuarantineState, RunRecord
from skewless.timestamps import DAY_US, HOUR_US, from_micros
from skewless_monitor.jobs import Job
from skewless_monitor.quality_job import open_job

VIEW = ViewRead(
    "sensors",
    (JoinKey("station", Dtype.STRING),),
    0,
    (FeatureField("temp", Dtype.FLOAT32), FeatureField("count", Dtype.INT64)),
)
BATCH = Batch(AS_OF, "tests", "rows of a test")
KILLS_MAX = 60


@pytest.fixture
def results(registry_url: str) -> Iterator[QualityResults]:
    kept = QualityResults(database.engine(registry_url))
    yield kept
    kept.close()


@pytest.fixture
def sqlite_results(sqlite_registry: Path, tmp_path: Path) -> Iterator[QualityResults]:
    kept = QualityResults(database.engine(_copy(sqlite_registry, tmp_path / "registry.db")))
    yield kept
    kept.close()


def _copy(registry: Path, to: Path) -> str:
    to.write_bytes(registry.read_bytes())
    return f"sqlite:///{to}"


def gate_of(results: QualityResults, folder: Path, **options: bool) -> QualityGate:
    return QualityGate({"sensors": SUITE}, NaiveRunner(), results, Quarantine(folder / "quarantine"), **options)


def gated(results: QualityResults, folder: Path, rows: pa.Table) -> GateOutcome:
    return gate_of(results, folder).gate_batch(SCHEMA, rows, BATCH)


def test_a_batch_that_meets_its_suite_goes_on_whole_and_is_recorded(results: QualityResults, tmp_path: Path) -> None:
    outcome = gated(results, tmp_path, sensor_rows())
    assert (outcome.decision, outcome.held) == (Decision.PASS, None)
    assert outcome.accepted.equals(sensor_rows())
    (run,) = results.last_runs()
    assert (run.view, run.rows, run.set_aside, run.decision) == ("sensors", 40, 0, Decision.PASS)
    assert run.suite_digest == SUITE.digest
    assert [each.success for each in run.results] == [True] * len(SUITE.expectations)


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        ("station", {3: None}, "`station` is expected to not be null"),
        ("temp", {3: 451.0}, "`temp` is expected to be between (min_value -50, max_value 60)"),
        ("event_time", {3: from_micros(AS_OF + DAY_US)}, "`event_time` is expected to be between"),
        ("created_time", {3: from_micros(AS_OF - 300 * DAY_US)}, "expected to be above or equal to `event_time`"),
    ],
)
def test_rows_that_fail_are_set_aside_with_their_reason_and_the_others_go_on(
    sqlite_results: QualityResults, tmp_path: Path, column: str, values: dict[int, object], reason: str
) -> None:
    outcome = gated(sqlite_results, tmp_path, with_values(sensor_rows(), column, values))
    assert outcome.decision is Decision.QUARANTINE
    assert outcome.accepted.column("count").to_pylist() == [row for row in range(40) if row != 3]
    assert outcome.held is not None
    held = Quarantine(tmp_path / "quarantine").read(outcome.held.file)
    assert held.column("count").to_pylist() == [3]
    assert any(reason in each for each in held.column(REASONS)[0].as_py())
    assert sqlite_results.quarantined("sensors") == (outcome.held,)


def test_duplicated_keys_are_all_set_aside_because_nobody_knows_which_is_right(
    sqlite_results: QualityResults, tmp_path: Path
) -> None:
    rows = pa.concat_tables([sensor_rows(), with_values(sensor_rows().slice(0, 1), "temp", {0: 1.0})])
    outcome = gated(sqlite_results, tmp_path, rows)
    assert outcome.accepted.num_rows == 39
    assert outcome.held is not None
    assert outcome.held.rows == 2


def test_too_many_failing_rows_stop_the_batch_because_the_batch_is_wrong(
    results: QualityResults, tmp_path: Path
) -> None:
    fahrenheit = with_values(sensor_rows(), "temp", dict.fromkeys(range(20), 75.0))
    with pytest.raises(BatchRefused, match="too large a share") as refused:
        gated(results, tmp_path, fahrenheit)
    assert "compare the unit of the values" in refused.value.hint
    (run,) = results.last_runs()
    assert (run.decision, run.set_aside) == (Decision.STOP, 0)
    assert results.quarantined() == ()
    assert not list((tmp_path / "quarantine").rglob("*.parquet"))


@pytest.mark.parametrize(
    ("spoiled", "told", "hint"),
    [
        (sensor_rows().drop_columns(["temp"]), "column `temp` (feature, float32) is missing", "if it was renamed"),
        (
            with_values(sensor_rows(), "temp", {}).set_column(1, "temp", pa.array([str(row) for row in range(40)])),
            "column `temp` (feature) is string, declared float32",
            "cast `temp` to float32",
        ),
        (
            sensor_rows().set_column(2, "count", pa.array([row + 0.5 for row in range(40)])),
            "column `count` (feature) is double, declared int64: values such as 0.5 are no whole numbers",
            "cast `count` to int64",
        ),
        (sensor_rows().slice(0, 0), "the batch is expected row count to be between (min_value 1)", "whether the job"),
    ],
)
def test_a_batch_of_another_shape_stops_and_says_what_to_do(
    sqlite_results: QualityResults, tmp_path: Path, spoiled: pa.Table, told: str, hint: str
) -> None:
    with pytest.raises(BatchRefused) as refused:
        gated(sqlite_results, tmp_path, spoiled)
    assert told in refused.value.message
    assert hint in refused.value.hint


def test_nulls_within_what_the_suite_allows_pass_and_beyond_it_warn(
    sqlite_results: QualityResults, tmp_path: Path
) -> None:
    some = with_values(sensor_rows(), "temp", dict.fromkeys(range(4)))
    assert gated(sqlite_results, tmp_path, some).decision is Decision.PASS
    many = with_values(sensor_rows(), "temp", dict.fromkeys(range(5), float("nan")))
    outcome = gated(sqlite_results, tmp_path, many)
    assert outcome.decision is Decision.WARN
    assert outcome.accepted.num_rows == 40
    assert "5 of 40 rows (12.50%)" in "\n".join(outcome.judgement.lines())


def test_numbers_of_another_width_are_the_declared_ones(sqlite_results: QualityResults, tmp_path: Path) -> None:
    counts = pa.array([None, *map(float, range(1, 40))], pa.float64())  # what pandas makes of whole numbers and a null
    rows = sensor_rows().set_column(2, "count", counts)
    rows = rows.set_column(1, "temp", rows.column("temp").cast(pa.float64()))
    assert gated(sqlite_results, tmp_path, rows).decision is Decision.WARN, "of the null alone"


def test_a_draft_is_not_relied_on_unless_told(sqlite_results: QualityResults, tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "quarantine")
    draft = {"sensors": replace(SUITE, reviewed=None)}
    with pytest.raises(InvalidDefinition, match="nobody has reviewed"):
        QualityGate(draft, NaiveRunner(), sqlite_results, quarantine).gate_batch(SCHEMA, sensor_rows(), BATCH)
    told = QualityGate(draft, NaiveRunner(), sqlite_results, quarantine, allow_unreviewed=True)
    assert told.gate_batch(SCHEMA, sensor_rows(), BATCH).decision is Decision.PASS


def test_values_that_stay_out_of_logs_are_not_told(sqlite_results: QualityResults, tmp_path: Path) -> None:
    hidden = replace(SCHEMA, columns=tuple(replace(each, told=each.name != "temp") for each in SCHEMA.columns))
    rows = with_values(sensor_rows(), "temp", {3: 451.0})
    outcome = gate_of(sqlite_results, tmp_path).gate_batch(hidden, rows, BATCH)
    assert "451" not in "".join(each.told for each in outcome.run.results)


def test_the_same_rows_are_held_once_however_often_they_come(results: QualityResults, tmp_path: Path) -> None:
    spoiled = with_values(sensor_rows(), "temp", {3: 451.0})
    first = gated(results, tmp_path, spoiled)
    again = gated(results, tmp_path, spoiled)
    assert first.held is not None
    assert again.held is None
    assert again.accepted.equals(first.accepted)
    more = gated(results, tmp_path, with_values(spoiled, "temp", {7: 452.0}))
    assert more.held is not None
    assert [each.rows for each in results.quarantined()] == [1, 1]


def test_a_gate_that_is_killed_anywhere_leaves_all_or_nothing(sqlite_registry: Path, tmp_path: Path) -> None:
    rows = with_values(sensor_rows(), "temp", {3: 451.0, 8: -90.0})
    for kill_at in range(KILLS_MAX):
        folder = tmp_path / str(kill_at)
        folder.mkdir()
        url = _copy(sqlite_registry, folder / "registry.db")

        def act(url: str = url, folder: Path = folder) -> None:
            results = QualityResults(database.engine(url))
            outcome = gated(results, folder, rows)
            (folder / "went_on").write_text(str(outcome.accepted.num_rows))
            results.close()

        finished = forked(act, root=folder, kill_at=kill_at)
        _holds_all_or_nothing(url, folder)
        act()  # whoever runs it again gets what was to be
        assert (folder / "went_on").read_text() == "38"
        _holds_all_or_nothing(url, folder, rows=2)
        if finished:
            assert kill_at > 8, "it was killed at opening, writing, renaming and storing"
            return
    pytest.fail(f"more than {KILLS_MAX} steps")


def _holds_all_or_nothing(url: str, folder: Path, *, rows: int | None = None) -> None:
    results = QualityResults(database.engine(url))
    held, runs = results.quarantined(), results.runs()
    results.close()
    quarantine = Quarantine(folder / "quarantine")
    found = [quarantine.read(each.file).num_rows for each in held]
    assert found == [each.rows for each in held]
    assert sum(found) in ((0, 2) if rows is None else (rows,))
    if rows is None:
        assert bool(runs) is bool(held), "a run is recorded with what it set aside"
    if (folder / "went_on").exists():
        assert held, "rows go on only after the others are held"


def test_files_that_a_dead_gate_left_are_removed_later(sqlite_results: QualityResults, tmp_path: Path) -> None:
    kept = gated(sqlite_results, tmp_path, with_values(sensor_rows(), "temp", {3: 451.0})).held
    assert kept is not None
    left = tmp_path / "quarantine" / "sensors" / "left.parquet"
    partial = left.with_name("other.parquet.partial")
    for each in (left, partial):
        each.write_bytes(b"")
        os.utime(each, (time.time() - 7200, time.time() - 7200))
    (young := left.with_name("young.parquet")).write_bytes(b"")
    gated(sqlite_results, tmp_path, with_values(sensor_rows(), "temp", {4: 452.0}))
    assert not left.exists()
    assert not partial.exists()
    assert young.exists(), "somebody may be about to name it"
    assert Quarantine(tmp_path / "quarantine").read(kept.file).num_rows == 1


def replay_of(results: QualityResults, folder: Path, written: list[pa.RecordBatch], high: float = 60) -> Replay:
    expectations = tuple(
        replace(each, kwargs={**each.kwargs, "max_value": high})
        if each.kwargs.get("column") == "temp" and "min_value" in each.kwargs
        else each
        for each in SUITE.expectations
    )
    suite = replace(SUITE, expectations=expectations)
    return Replay(suite, SCHEMA, NaiveRunner(), results, Quarantine(folder / "quarantine"), written.append)


def test_a_replay_after_a_fix_writes_what_passes_and_keeps_the_rest(results: QualityResults, tmp_path: Path) -> None:
    held = gated(results, tmp_path, with_values(sensor_rows(), "temp", {3: 70.0, 2: 65.0, 9: 451.0})).held
    assert held is not None
    written: list[pa.RecordBatch] = []
    with pytest.raises(BatchRefused, match="none of the rows passes"):
        replay_of(results, tmp_path, written).run(held, AS_OF, mended=None, actor="ann")
    assert results.quarantined() == (held,)
    done = replay_of(results, tmp_path, written, high=80).run(held, AS_OF, mended=None, actor="ann")
    assert done.released == 2
    (batch,) = written
    assert batch.column("count").to_pylist() == [2, 3], "in the order in which they became known"
    assert batch.schema.names == ["station", "temp", "count", "event_time", "created_time"]
    (still,) = results.quarantined()
    assert (still.rows, still.id) == (1, done.held.id if done.held else "")
    closed = next(each for each in results.quarantined(state=QuarantineState.REPLAYED))
    assert (closed.id, closed.released) == (held.id, 2)
    with pytest.raises(Conflict, match="is replayed already"):
        results.drop(held.id, actor="ann", reason="again")
    with pytest.raises(NotFound):
        Quarantine(tmp_path / "quarantine").read(held.file)


def test_rows_can_be_mended_and_replayed(sqlite_results: QualityResults, tmp_path: Path) -> None:
    held = gated(sqlite_results, tmp_path, with_values(sensor_rows(), "temp", {3: 451.0})).held
    assert held is not None
    mended = Quarantine(tmp_path / "quarantine").read(held.file).drop_columns([REASONS, ROW])
    pq.write_table(with_values(mended, "temp", {0: 45.1}), tmp_path / "mended.parquet")
    written: list[pa.RecordBatch] = []
    replay = replay_of(sqlite_results, tmp_path, written)
    assert replay.run(held, AS_OF, mended=tmp_path / "mended.parquet", actor="ann").released == 1
    assert written[0].column("temp").to_pylist() == [np.float32(45.1)]
    assert sqlite_results.quarantined() == ()


def test_a_dropped_batch_is_closed_and_audited(results: QualityResults, tmp_path: Path) -> None:
    held = gated(results, tmp_path, with_values(sensor_rows(), "temp", {3: 451.0})).held
    assert held is not None
    results.drop(held.id, actor="ann", reason="mended at the source")
    assert results.quarantined() == ()
    assert results.quarantined_batch(held.id[-12:]).state is QuarantineState.DROPPED


def test_a_quarantine_file_that_was_cut_is_refused(tmp_path: Path, sqlite_results: QualityResults) -> None:
    held = gated(sqlite_results, tmp_path, with_values(sensor_rows(), "temp", {3: 451.0})).held
    assert held is not None
    file = tmp_path / "quarantine" / held.file
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(BundleRefused, match="cannot be read"):
        Quarantine(tmp_path / "quarantine").read(held.file)


def source_of(folder: Path, rows: pa.Table) -> StoredView:
    pq.write_table(rows, folder / "sensors.parquet", row_group_size=7)
    source = OfflineSource("sensors", str(folder / "sensors.parquet"), "event_time", "created_time")
    return StoredView(VIEW, source, ())


def test_a_source_is_judged_as_far_as_it_is_known(sqlite_results: QualityResults, tmp_path: Path) -> None:
    gate = gate_of(sqlite_results, tmp_path)
    early = AS_OF - 90 * HOUR_US
    rows = with_values(sensor_rows(), "event_time", {3: from_micros(AS_OF + 2 * DAY_US)})
    rows = with_values(rows, "temp", {39: 451.0})  # known later
    with gate.judged(source_of(tmp_path, rows), early) as judged:
        assert judged is not None
        passed = pq.read_table(judged)
    assert passed.schema.equals(rows.schema)
    assert passed.column("count").to_pylist() == [row for row in range(20) if row != 3]
    assert [(each.run.rows, each.run.set_aside) for each in gate.outcomes] == [(20, 1)]
    assert not judged.exists()


def test_no_part_of_a_source_is_acted_on_where_one_stops(sqlite_results: QualityResults, tmp_path: Path) -> None:
    rows = with_values(sensor_rows(), "temp", {3: 451.0, **dict.fromkeys(range(30, 40), 452.0)})
    view = source_of(tmp_path, rows)
    parts = [part.rows.num_rows for part in KnownRows(view.source, AS_OF, part_rows_max=15).parts()]
    assert parts == [14, 14, 12]
    quarantine = Quarantine(tmp_path / "quarantine")
    gate = QualityGate({"sensors": SUITE}, NaiveRunner(), sqlite_results, quarantine, part_rows_max=15)
    with pytest.raises(BatchRefused), gate.judged(view, AS_OF):
        pytest.fail("nothing goes on")
    assert [each.decision for each in gate.outcomes] == [Decision.QUARANTINE, Decision.PASS, Decision.STOP]
    assert sqlite_results.quarantined() == ()


def test_a_batch_in_parts_stands_as_its_worst_part_and_not_as_its_last(results: QualityResults, tmp_path: Path) -> None:
    def judged(spoiled: dict[int, object]) -> RunRecord:
        view = source_of(tmp_path, with_values(sensor_rows(), "temp", spoiled))
        quarantine = Quarantine(tmp_path / "quarantine")
        gate = QualityGate({"sensors": SUITE}, NaiveRunner(), results, quarantine, part_rows_max=15)
        with suppress(BatchRefused), gate.judged(view, AS_OF):
            pass
        (standing,) = results.standing()
        assert standing.run.rows == 40
        return standing.run

    stopped = judged({**dict.fromkeys(range(10), 451.0), 16: 452.0})
    assert (stopped.decision, stopped.set_aside) == (Decision.STOP, 0)
    assert results.run(stopped.id).batch.endswith("rows 0 to 13 of 40"), "it names the part that stops"
    (temp,) = [each for each in stopped.results if not each.success]
    assert (temp.unexpected, temp.unexpected_share) == (11, 11 / 40)
    assert [each.position for each in stopped.results] == list(range(len(SUITE.expectations)))
    aside = judged({0: 451.0, 16: 452.0})
    assert (aside.decision, aside.set_aside) == (Decision.QUARANTINE, 2)
    passed = judged({})
    assert (passed.decision, passed.set_aside) == (Decision.PASS, 0), "of the same moment, and another batch"


def test_a_view_without_a_suite_is_named_and_read_from_its_source(
    sqlite_results: QualityResults, tmp_path: Path
) -> None:
    gate = QualityGate({}, NaiveRunner(), sqlite_results, None)
    with gate.judged(source_of(tmp_path, sensor_rows()), AS_OF) as judged:
        assert judged is None
    assert gate.ungated == ["sensors"]


def test_the_oldest_runs_go(results: QualityResults, tmp_path: Path) -> None:
    record = gated(results, tmp_path, sensor_rows(4)).run
    for _ in range(4):
        results.add(replace(record, id=str(uuid_utils.uuid7())), runs_kept=3)
    kept = results.runs("sensors")
    assert len(kept) == 3
    assert [each.id for each in kept] == sorted((each.id for each in kept), reverse=True)
    assert len(results.run(kept[0].id).results) == len(SUITE.expectations)


def test_how_views_stand_is_told_by_their_last_batch_and_not_by_replays(
    results: QualityResults, tmp_path: Path
) -> None:
    held = gated(results, tmp_path, with_values(sensor_rows(), "temp", {3: 70.0, 9: 451.0})).held
    assert held is not None
    replay_of(results, tmp_path, [], high=80).run(held, AS_OF, mended=None, actor="ann")
    (standing,) = results.standing()
    assert standing.run.decision is Decision.QUARANTINE
    assert (standing.run.origin, standing.runs) == ("tests", {"quarantine": 2})
    assert (standing.held_rows, standing.held_batches) == (1, 1)
    assert standing.oldest_held_time is not None


def test_the_monitor_tells_what_the_database_holds(sqlite_registry: Path, tmp_path: Path) -> None:
    url = _copy(sqlite_registry, tmp_path / "registry.db")
    job = open_job(MonitorSettings(database_url=url, artifacts=str(tmp_path), log_store=str(tmp_path)))
    assert list(_told(job)) == []
    results = QualityResults(database.engine(url))
    gated(results, tmp_path, with_values(sensor_rows(), "temp", {3: 451.0}))
    results.close()
    assert job.run_once(threading.Event()) is False
    job.close()
    told = dict(_told(job))
    assert told["skewless_quality_decision", "quarantine"] == 1
    assert told["skewless_quality_quarantined_rows", ""] == 1


def _told(job: Job) -> Iterator[tuple[tuple[str, str], float]]:
    for family in job.collect():
        for sample in family.samples:
            yield (sample.name, sample.labels.get("decision", "")), sample.value


def test_an_expectation_that_cannot_be_judged_never_passes(sqlite_results: QualityResults, tmp_path: Path) -> None:
    class Broken(NaiveRunner):
        """Cannot judge the row count."""

        def run(self, suite, table, *, as_of, times):  # type: ignore[no-untyped-def]  # as the class that it extends
            first, *others = super().run(suite, table, as_of=as_of, times=times)
            return (replace(first, success=True, error="no such metric"), *others)

    results = sqlite_results
    gate = QualityGate({"sensors": SUITE}, Broken(), results, None)
    with pytest.raises(BatchRefused, match="cannot be judged by expect_table_row_count_to_be_between: no such metric"):
        gate.gate_batch(SCHEMA, sensor_rows(), BATCH)
    assert results.last_runs()[0].results[0].follows == OnFailure.STOP.value
