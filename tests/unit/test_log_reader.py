"""The log read back: every record once wherever it lies, by id, by time, in SQL, and beside its outcomes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.logged_rows import ENDPOINT, NOW, a_batch, new_id, spool, told, told_of
from harness.shipped_logs import ship
from skewless.adapters import log_sources
from skewless.adapters.log_reader import LogReader, open_log
from skewless.adapters.log_session import FilesGone, LogSession
from skewless.adapters.log_sources import ALL_DAYS, Wanted
from skewless.adapters.spool import SPOOL, SpoolFile
from skewless.dtypes import Dtype
from skewless.errors import InvalidRequest, NotFound, Unavailable
from skewless.limits import LOG_READ_TRIES
from skewless.serving.log_blocks import AnsweredBlock, blocks, encode
from skewless.serving.outcome_terms import OutcomeTerms
from skewless.serving.records import AnsweredBatch, Outcome
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US

SECOND_ENDPOINT = "delay-minutes"


def shipped(folder: Path) -> None:
    ship(folder)


def shipped_and_kept(folder: Path) -> None:
    ship(folder, keep=True)


def left(_folder: Path) -> None:
    """Nothing is shipped."""


WHEREVER = pytest.mark.parametrize("place", [left, shipped_and_kept, shipped])


def ids(table: Any) -> list[str]:
    return table.column("prediction_id").to_pylist()  # type: ignore[no-any-return]  # pyarrow is untyped


def classes(log: LogReader, endpoint: str | None = ENDPOINT) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in log.outcome_counts(endpoint).to_pylist():
        found[row["class"]] = found.get(row["class"], 0) + row["outcomes"]
        found["late"] = found.get("late", 0) + row["outcomes"] * row["is_late"]
    return {name: count for name, count in found.items() if count}


@WHEREVER
def test_each_record_is_read_once_wherever_it_lies(tmp_path: Path, place: Callable[[Path], None]) -> None:
    first, second = a_batch(("EWR", None, "JFK")), a_batch(("LGA",), as_of=NOW + 1)
    spool(tmp_path, first, (told(first.prediction_ids[0]),), seal=True)
    place(tmp_path)
    spool(tmp_path, second)
    with open_log(tmp_path) as log:
        assert ids(log.predictions(ENDPOINT)) == [*first.prediction_ids, *second.prediction_ids]
        assert log.find(first.prediction_ids[1]).column("key.origin").to_pylist() == [None]
        assert log.find(second.prediction_ids[0]).num_rows == 1
        assert log.outcomes().num_rows == 1
        assert log.endpoints() == (ENDPOINT,)
        assert log.sql("SELECT count(*) AS n FROM predictions").read_all().to_pylist() == [{"n": 4}]


def test_what_the_spool_holds_beyond_memory_goes_to_files_and_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [a_batch(("EWR", "JFK"), as_of=NOW + place) for place in range(5)]
    for batch in batches:
        spool(tmp_path, batch)
    monkeypatch.setattr(log_sources, "LOG_READ_SPOOL_BYTES", 1)
    with open_log(tmp_path) as log:
        assert ids(log.predictions(ENDPOINT)) == [each for batch in batches for each in batch.prediction_ids]


def test_a_period_has_its_first_moment_and_not_its_last(tmp_path: Path) -> None:
    batches = [a_batch(as_of=moment) for moment in (NOW - DAY_US, NOW, NOW + 1, NOW + DAY_US)]
    spool(tmp_path, *batches[:2], seal=True)
    ship(tmp_path)
    spool(tmp_path, *batches[2:])
    with open_log(tmp_path) as log:
        assert ids(log.predictions(ENDPOINT, NOW, NOW + DAY_US)) == [
            batches[1].prediction_ids[0], batches[2].prediction_ids[0],
        ]  # fmt: skip
        assert log.predictions(ENDPOINT, NOW, NOW).num_rows == 0
        assert log.predictions(ENDPOINT, 0, 1 << 60).num_rows == 4
        assert log.predictions("another").num_rows == 0


def test_batches_have_the_rows_of_the_table_in_its_order(tmp_path: Path) -> None:
    batches = [a_batch(("a", "b", "c"), as_of=NOW - place) for place in range(9)]
    spool(tmp_path, *batches)
    with open_log(tmp_path) as log:
        whole = log.predictions(ENDPOINT)
        parts = list(log.prediction_batches(ENDPOINT, rows=4))
        assert max(part.num_rows for part in parts) == 4
        assert [each for part in parts for each in ids(part)] == ids(whole)
        assert parts[0].schema.names == whole.schema.names


def test_columns_of_other_bundles_are_null_and_those_that_differ_are_refused_by_name(tmp_path: Path) -> None:
    spool(tmp_path, a_batch(), a_batch((7,), key="flight", dtype=Dtype.INT64, bundle="two", as_of=NOW + 1))
    with open_log(tmp_path) as log:
        table = log.predictions(ENDPOINT)
        assert table.column("key.flight").to_pylist() == [None, 7]
        assert table.column("key.origin").to_pylist() == ["EWR", None]
    spool(tmp_path, a_batch(bundle="three", feature=Dtype.INT64, as_of=NOW + 2))
    with open_log(tmp_path) as log:
        with pytest.raises(InvalidRequest, match=r"declare `feature\.view__temp` with different dtypes: float, int64"):
            log.predictions(ENDPOINT)
        assert log.predictions(ENDPOINT, columns=["prediction_id"]).num_rows == 3
        with pytest.raises(InvalidRequest, match="no column `nope`"):
            log.predictions(ENDPOINT, columns=["nope"])
        texts = log.sql('SELECT "feature.view__temp" AS temp FROM predictions ORDER BY as_of').read_all()
        assert texts.column("temp").to_pylist() == ["1.0", "1.0", "1"]


def test_a_prediction_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    spool(tmp_path, a_batch(), seal=True)
    ship(tmp_path)
    with open_log(tmp_path) as log, pytest.raises(NotFound, match="flush interval"):
        log.find(new_id())
    with open_log(tmp_path / "nowhere") as log:
        assert log.predictions(ENDPOINT).num_rows == log.outcomes().num_rows == log.joined(ENDPOINT).num_rows == 0
        assert log.sql("SELECT count(*) AS n FROM predictions_with_outcomes").read_all().to_pylist() == [{"n": 0}]


def test_an_entry_of_a_later_version_is_unavailable_and_not_left_out(tmp_path: Path) -> None:
    spool(tmp_path, a_batch())
    file = SpoolFile.create(tmp_path / SPOOL)
    file.append(b"\x81\xa6format\x7f")
    file.release()
    with open_log(tmp_path) as log, pytest.raises(Unavailable, match="version of skewless"):
        log.predictions(ENDPOINT)


def test_what_is_damaged_in_the_spool_is_told_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = a_batch(("EWR", "JFK"))
    (whole,) = blocks([good])
    assert isinstance(whole, AnsweredBlock)
    (tmp_path / SPOOL).mkdir()
    file = SpoolFile.create(tmp_path / SPOOL)
    for frame in (b"no document", encode(replace(whole, labels=["late"])), encode(whole)):
        file.append(frame)
    file.release()
    with open_log(tmp_path) as log:
        assert ids(log.predictions(ENDPOINT)) == good.prediction_ids
        assert log.find(good.prediction_ids[1]).num_rows == 1
    assert "frame 0: this is not a log entry" in caplog.text


def test_an_entry_that_makes_no_table_is_told_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = a_batch(("EWR", "JFK"))
    strange = Outcome("p", "late", None, 1 << 63)  # a moment that no column holds
    spool(tmp_path, good, (strange,), (told(good.prediction_ids[0]),))
    with open_log(tmp_path) as log:
        assert ids(log.predictions(ENDPOINT)) == good.prediction_ids
        assert log.outcomes().num_rows == 1
    assert "entry 1 does not fit together" in caplog.text


@WHEREVER
def test_outcomes_are_classed_by_what_they_do(tmp_path: Path, place: Callable[[Path], None]) -> None:
    batch = a_batch(("EWR", "JFK", "LGA"))
    first, second, third = batch.prediction_ids
    spool(
        tmp_path,
        batch,
        [
            told(first), told(first, after_us=10), told(first, "on_time", after_us=20), told(first, after_us=30),
            told(second, after_us=HOUR_US + 1), told(second, after_us=HOUR_US + 2, outcome_time=NOW),
            told(new_id()),
        ],
        seal=True,
    )  # fmt: skip
    place(tmp_path)
    terms = {ENDPOINT: OutcomeTerms(label_horizon_us=HOUR_US)}
    with open_log(tmp_path, terms=terms) as log:
        assert classes(log) == {"first": 2, "duplicate": 1, "corrected": 3, "unknown": 1, "late": 2}
        assert classes(log, "another") == {"unknown": 1}
        final = {row["prediction_id"]: row["label"] for row in log.final_outcomes([first, second, third]).to_pylist()}
        assert final == {first: "late", second: "late"}
        joined = {row["prediction_id"]: row for row in log.joined(ENDPOINT).to_pylist()}
        assert [joined[each]["outcome"] for each in (first, second, third)] == ["late", "late", None]
        assert joined[first]["outcome_caller"] == "key:ops"


def test_the_outcome_in_force_is_the_one_received_last_and_of_two_at_once_the_one_made_last(tmp_path: Path) -> None:
    batch = a_batch(("EWR", "JFK"))
    told_ones, told_twos = (
        [told(each, label, after_us=5) for each in batch.prediction_ids] for label in ("one", "two")
    )
    earlier = [told(each, "earlier", after_us=4) for each in batch.prediction_ids]
    spool(tmp_path, batch, [told_ones[0], told_twos[0], told_twos[1], told_ones[1], *earlier])
    with open_log(tmp_path) as log:
        assert log.joined(ENDPOINT, columns=["prediction_id"]).column("outcome").to_pylist() == ["two", "two"]


def test_files_that_are_replaced_while_they_are_read_are_looked_for_again(tmp_path: Path) -> None:
    spool(tmp_path, a_batch(), seal=True)
    ship(tmp_path)
    asked: list[int] = []

    def question(session: LogSession) -> int:
        asked.append(len(session.scans("predictions")))
        if len(asked) < LOG_READ_TRIES:
            raise FilesGone("compacted")
        return asked[-1]

    with open_log(tmp_path) as log:
        assert log.ask(Wanted({"predictions": ALL_DAYS}), question) == 1
        assert len(asked) == LOG_READ_TRIES
        (file,) = (tmp_path / "store" / "predictions").rglob("*.parquet")
        file.unlink()
        for read in (log.predictions, log.joined, lambda each: list(log.prediction_batches(each))):
            with pytest.raises(Unavailable, match="replaced by others"):
                read(ENDPOINT)


def test_a_shadow_has_the_outcome_of_its_live_twin(tmp_path: Path) -> None:
    live = a_batch(("EWR", "JFK"))
    shadow = a_batch(("EWR", "JFK"), role="shadow", twins=live.prediction_ids, bundle="two")
    spool(tmp_path, live, shadow, [told(live.prediction_ids[1])])
    with open_log(tmp_path) as log:
        rows = log.joined(ENDPOINT).to_pylist()
    told_by_role = sorted((row["role"], row["key.origin"], row["outcome"]) for row in rows)
    assert told_by_role == [
        ("live", "EWR", None), ("live", "JFK", "late"), ("shadow", "EWR", None), ("shadow", "JFK", "late"),
    ]  # fmt: skip


def naive_target(outcome: Outcome, batches: list[AnsweredBatch], window: int) -> str | None:
    """The twin of the SQL, in a loop: the latest prediction that answered about this entity, within the window."""
    best: tuple[int, str] | None = None
    for batch in batches:
        for prediction, key in zip(batch.prediction_ids, batch.given["origin"].values.tolist(), strict=True):
            assert outcome.at is not None
            is_own = f'{{"origin":"{key}"}}' == outcome.entity and batch.endpoint == outcome.endpoint
            if batch.role == "shadow" or not is_own:
                continue
            if batch.as_of <= outcome.at <= batch.as_of + window and (best is None or (batch.as_of, prediction) > best):
                best = (batch.as_of, prediction)
    return None if best is None else best[1]


@WHEREVER
def test_an_outcome_told_by_entity_is_about_the_latest_answer_of_that_moment(
    tmp_path: Path, place: Callable[[Path], None]
) -> None:
    window = 10
    batches = [
        a_batch(("EWR", "JFK", "EWR"), as_of=NOW + at, role=role, endpoint=endpoint)
        for at, role, endpoint in (
            (0, "live", ENDPOINT), (5, "canary", ENDPOINT), (6, "shadow", ENDPOINT), (7, "live", SECOND_ENDPOINT),
            (20, "live", ENDPOINT),
        )
    ]  # fmt: skip
    outcomes = [
        told_of(f'{{"origin":"{key}"}}', NOW + at, f"{key}{at}{endpoint}", endpoint=endpoint)
        for key in ("EWR", "JFK", "LGA")
        for at in (-1, 0, 4, 5, 9, 15, 16, 19, 20, 30, 31)
        for endpoint in (ENDPOINT, SECOND_ENDPOINT)
    ]
    spool(tmp_path, *batches, outcomes, seal=True)
    place(tmp_path)
    terms = {name: OutcomeTerms(outcome_window_us=window) for name in (ENDPOINT, SECOND_ENDPOINT)}
    with open_log(tmp_path, terms=terms) as log:
        rows = log.sql("SELECT outcome_id, prediction_id FROM outcomes_told").read_all().to_pylist()
    assert {row["outcome_id"]: row["prediction_id"] for row in rows} == {
        each.outcome_id: naive_target(each, batches, window) for each in outcomes
    }


@pytest.mark.parametrize(
    ("dtype", "key", "entity"),
    [
        (Dtype.INT64, (1 << 53) + 1, '{"who":9007199254740993}'),
        (Dtype.INT32, -4, '{"who":-4}'),
        (Dtype.FLOAT64, 0.1, '{"who":0.1}'),
        (Dtype.BOOL, True, '{"who":true}'),
        (Dtype.STRING, "Zoë \"\\\n💡'", '{"who":"Zoë \\"\\\\\\n💡\'"}'),
        (Dtype.STRING, None, '{"who":null}'),
        (Dtype.BYTES, b"\x00\xff", '{"who":"AP8="}'),
        (Dtype.TIMESTAMP, NOW, '{"who":"2013-05-01T12:30:00Z"}'),
    ],
)
def test_entities_of_every_dtype_are_found(tmp_path: Path, dtype: Dtype, key: object, entity: str) -> None:
    batch = a_batch((key,), key="who", dtype=dtype)
    spool(tmp_path, batch, [told_of(entity, NOW), told_of('{"other":1}', NOW)])
    with open_log(tmp_path) as log:
        assert log.final_outcomes(batch.prediction_ids).num_rows == 1
        assert classes(log) == {"first": 1, "unknown": 1}


@pytest.mark.parametrize(
    ("query", "refusal"),
    [
        ("SELECT 1; SELECT 2", "2 statements"),
        ("", "0 statements"),
        ("COPY predictions TO 'stolen.csv'", "the kind COPY"),
        ("CREATE TABLE kept AS SELECT 1", "the kind CREATE"),
        ("ATTACH 'other.db'", "the kind ATTACH"),
        ("SET memory_limit = '1TB'", "the kind SET"),
        ("SELEC 1", "syntax error"),
        ("SELECT nope FROM predictions", "nope"),
        ("SELECT * FROM read_csv('pyproject.toml')", "disabled"),
        ("SELECT * FROM read_text('pyproject.toml')", "disabled"),
        ("SELECT * FROM tmp_path", "tmp_path"),
    ],
)
def test_sql_reads_the_log_and_nothing_else(tmp_path: Path, query: str, refusal: str) -> None:
    spool(tmp_path, a_batch(), seal=True)
    ship(tmp_path)
    with open_log(tmp_path) as log, pytest.raises(InvalidRequest, match=refusal):
        log.sql(query).read_all()


def test_sql_takes_parameters_and_an_endpoint_and_a_period(tmp_path: Path) -> None:
    spool(tmp_path, a_batch(), a_batch(as_of=NOW + MINUTE_US), a_batch(endpoint=SECOND_ENDPOINT))
    with open_log(tmp_path) as log:
        query = "SELECT count(*) AS n FROM predictions WHERE role = $1"
        assert log.sql(query, ["live"]).read_all().to_pylist() == [{"n": 3}]
        assert log.sql(query, ["live"], endpoint=ENDPOINT).read_all().to_pylist() == [{"n": 2}]
        assert log.sql(query, ["live"], endpoint=ENDPOINT, start=NOW + 1).read_all().to_pylist() == [{"n": 1}]
        assert log.sql("EXPLAIN SELECT * FROM predictions").read_all().num_rows
