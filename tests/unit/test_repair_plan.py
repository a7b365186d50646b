"""What a repair may touch and what a dry run says, by rule; test_online_repair.py makes the faults in a real store."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.adapters.duckdb_point_in_time import OfflineSession, features_at
from skewless.adapters.entity_files import entity_parts
from skewless.canonical_json import Digest
from skewless.dtypes import Dtype, column_of, to_python
from skewless.errors import BundleRefused, InvalidRequest, Unavailable
from skewless.features.contract import FeatureContract, FeatureField, JoinKey, ViewRead
from skewless.features.frame import NO_EVENT_TIME, STATUS_CODE, FeatureFrame
from skewless.features.point_in_time import OfflineSource
from skewless.features.redis_layout import KeyTemplate, feature_field, project_of, stored_key, timestamp_field
from skewless.features.stored_hashes import Fields, KnownHashes, Leftover
from skewless.features.visibility import Status
from skewless.parity.causes import ACCOUNTS, CAUSES, Cause, Kind
from skewless.parity.dry_run import DryRun, Result, judge, moment_of
from skewless.parity.evidence import Versions, Watermark, Written
from skewless.parity.repair_plan import (
    ANY,
    PENDING_REASON,
    REASONS,
    REMEDIES,
    Action,
    chosen_reasons,
    explain,
    questions,
)
from skewless.parity.stored_causes import ViewState
from skewless.timestamps import DAY_US, HOUR_US

STATION, LINE = JoinKey("station", Dtype.STRING), JoinKey("line", Dtype.INT64)
WEATHER = ViewRead("weather", (STATION,), 5, (FeatureField("temp", Dtype.FLOAT32),))
LEG = ViewRead("leg", (STATION, LINE), 0, (FeatureField("late", Dtype.FLOAT64),))
MICROS = pa.timestamp("us", tz="UTC")
NOW = 10**15


# --- what may be touched ---------------------------------------------------------------------------------------------


def _key(view: ViewRead, entity: object, project: str = "prod") -> Any:
    (key,) = KeyTemplate.compile(view.join_keys, project).keys([entity])
    told = stored_key(key)
    assert told is not None
    return told


def test_a_key_is_taken_apart_into_what_it_was_made_of() -> None:
    told = _key(LEG, (-7, "süd"))
    assert (told.names, told.project) == (("line", "station"), "prod")
    assert told.entity(LEG.join_keys) == {"station": "süd", "line": -7}
    assert told.told == {"line": "-7", "station": "süd"}
    assert stored_key(b"\xff\xff\xff\xff") is None
    assert project_of(b"short") is None


def test_only_fields_of_feasts_making_that_nobody_reads_are_orphans() -> None:
    known = KnownHashes([Fields.of(WEATHER), Fields.named("old", ["gone"], WEATHER.join_keys)], [b"vect"])
    read = [timestamp_field("weather"), feature_field("weather", "temp"), feature_field("old", "gone"), b"vect"]
    held = [*read, feature_field("weather", "wind"), timestamp_field("dropped"), b"a field of somebody's own"]
    key = _key(WEATHER, "north")
    assert known.why_unread(key) is None
    assert known.orphans(key, held) == [feature_field("weather", "wind"), timestamp_field("dropped")]


def test_a_hash_under_other_keys_is_nobodys_and_one_under_other_types_is_looked_for_elsewhere() -> None:
    known = KnownHashes([Fields.of(LEG)])
    narrow = ViewRead("leg", (STATION, JoinKey("line", Dtype.INT32)), 0, LEG.features)
    assert known.why_unread(_key(narrow, (7, "north"))) is Leftover.KEY_TYPE
    assert known.why_unread(_key(WEATHER, "north")) is Leftover.ENTITY
    held = [timestamp_field("leg"), b"a field of somebody's own"]
    assert known.orphans(_key(WEATHER, "north"), held) == [timestamp_field("leg")]


def test_what_passes_by_itself_is_left_alone_unless_it_is_named() -> None:
    default = chosen_reasons(())
    timing = {cause for cause in CAUSES if cause in REMEDIES and ACCOUNTS[cause].kind is Kind.TIMING}
    assert timing == {Cause.MATERIALIZATION_LAG, Cause.RESTATED_ROW}
    assert default.isdisjoint(timing | {Cause.UNKNOWN})
    assert default | timing | {Cause.UNKNOWN} == chosen_reasons([ANY]) == set(REMEDIES)
    assert chosen_reasons(["late_row", "ttl"]) == {"late_row", "ttl"}
    assert default - chosen_reasons((), of_now=False) == {Cause.FUTURE_LEAK}, "of another moment it may be right today"
    assert chosen_reasons(["future_leak"], of_now=False) == {"future_leak"}
    with pytest.raises(InvalidRequest, match="`transform` is nothing that can be repaired"):
        chosen_reasons(["transform"])


def _frame(value: float | None, status: Status, event_time: int) -> FeatureFrame:
    """One station's weather."""
    return FeatureFrame(
        1,
        {"weather__temp": column_of(Dtype.FLOAT32, [value])},
        {"weather__temp": np.array([STATUS_CODE[status]], dtype=np.uint8)},
        {"weather": np.array([event_time], dtype=np.int64)},
    )


@pytest.mark.parametrize(
    ("online_time", "read_at", "offline_there", "reason"),
    [
        (1_005, 1_005, True, PENDING_REASON),
        (1_005, 1_005, False, PENDING_REASON),
        (1_005, 1_004, True, Cause.FUTURE_LEAK),
        (1_005, 1_004, False, Cause.FUTURE_LEAK),
        (1_005, 0, True, Cause.FUTURE_LEAK),  # a clock that was set back
    ],
)
@pytest.mark.parametrize("reaches", [900, 2_000])
def test_only_what_is_of_the_future_when_it_is_read_is_a_leak(
    online_time: int, read_at: int, offline_there: bool, reason: str, reaches: int
) -> None:
    """The source `reaches` that far: also where it has later rows of others, this one may be on its way."""
    online = _frame(None, Status.MISSING, online_time)
    offline = _frame(1.0, Status.OK, 900) if offline_there else _frame(None, Status.MISSING, NO_EVENT_TIME)
    times = np.array([900] * offline_there, dtype=np.int64)
    temps = {"temp": column_of(Dtype.FLOAT32, [1.0] * offline_there)}
    nowhere = np.zeros(1, dtype=np.bool_)
    difference = explain(
        WEATHER,
        questions(WEATHER, online, offline),
        (online, offline),
        1_000,
        read_at=read_at,
        versions=Versions(np.zeros(len(times), dtype=np.int64), times, times, temps, {}),
        state=ViewState(False, None, Watermark(reaches, reaches), nowhere, nowhere),
    )
    assert [REASONS[code] for code in difference.reasons] == [reason]
    action = Action.LEAVE if reason == PENDING_REASON else Action.WRITE if offline_there else Action.REMOVE
    assert difference.actions(offline, "weather", chosen_reasons(())) == [action]


# --- which rows are compared -----------------------------------------------------------------------------------------


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, OfflineSource]:
    """Weather of eleven stations, of which the last is known only at 50; one row without a station."""
    stations: list[str | None] = [f"s{number}" for number in range(10)]
    rows = [(name, 1, 1, 1.5) for name in (*stations, None)] + [("s3", 4, 9, 2.5), ("s3", 20, 60, 9.0)]
    rows += [("s4", 4, 4, 3.5), ("s4", 4, 6, 4.5), ("new", 40, 50, 5.5)]
    names = ("station", "event", "known", "temp")
    table = pa.table(
        {name: pa.array([row[place] for row in rows]) for place, name in enumerate(names)},
        schema=pa.schema([("station", pa.string()), ("event", MICROS), ("known", MICROS), ("temp", pa.float32())]),
    )
    pq.write_table(table, tmp_path / "weather.parquet")
    return {"weather": OfflineSource("weather", str(tmp_path / "weather.parquet"), "event", "known")}


def test_the_newest_rows_are_the_engines_own_answers_each_entity_once(sources: dict[str, OfflineSource]) -> None:
    ageless = ViewRead("weather", WEATHER.join_keys, 0, WEATHER.features)
    contract = FeatureContract("p", (ageless,), (), Digest("0" * 64))
    with OfflineSession(contract, sources) as session, session.newest(ageless, 10) as newest:
        parts = [newest.part(start, start + 4) for start in range(0, newest.count, 4)]
        lacks = newest.lacks({"station": column_of(Dtype.STRING, ["s0", "new", "nobody", "s9"])})
    assert lacks.tolist() == [False, True, True, False]
    assert [frame.rows for _, frame in parts] == [4, 4, 2]
    found: dict[object, tuple[object, object]] = {}
    for keys, frame in parts:
        again = features_at(contract, sources, keys, np.full(frame.rows, 10, dtype=np.int64))
        assert to_python(frame.columns["weather__temp"]) == to_python(again.columns["weather__temp"])
        times = frame.event_times["weather"].tolist()
        assert times == again.event_times["weather"].tolist()
        rows = zip(to_python(keys["station"]), times, to_python(frame.columns["weather__temp"]), strict=True)
        found |= {station: (time, temp) for station, time, temp in rows}
    assert len(found) == 10
    assert (found["s0"], found["s3"], found["s4"]) == ((1, 1.5), (4, 2.5), (4, 4.5))


@pytest.mark.parametrize("damage", ["gone", "half written", "without a column"])
def test_a_source_that_cannot_be_read_is_unavailable_whatever_is_asked(
    sources: dict[str, OfflineSource], damage: str
) -> None:
    path = Path(sources["weather"].path)
    ageless = ViewRead("weather", WEATHER.join_keys, 0, WEATHER.features)
    keys = {"station": column_of(Dtype.STRING, ["s1"])}
    once = np.array([1], dtype=np.int64)
    with OfflineSession(FeatureContract("p", (ageless,), (), Digest("0" * 64)), sources) as session:
        session.features_at(keys, once)
        if damage == "gone":
            path.unlink()
        elif damage == "half written":
            path.write_bytes(path.read_bytes()[:200])
        else:
            pq.write_table(pq.read_table(path).drop_columns(["known", "temp"]), path)
        for ask in (
            session.watermarks,
            lambda: session.features_at(keys, once),
            lambda: session.versions(ageless, keys, np.array([0]), once),
            lambda: session.newest(ageless, 10).__enter__(),
        ):
            with pytest.raises(Unavailable, match="offline store is unavailable: a source cannot be read"):
                ask()


def test_a_view_without_an_entity_has_one_row_or_none(tmp_path: Path) -> None:
    view = ViewRead("network", (), 0, (FeatureField("load", Dtype.FLOAT32),))
    table = pa.table({"at": pa.array([5], MICROS), "load": pa.array([0.5], pa.float32())})
    pq.write_table(table, tmp_path / "network.parquet")
    source = OfflineSource("network", str(tmp_path / "network.parquet"), "at", None)
    with OfflineSession(FeatureContract("p", (view,), (), Digest("0" * 64)), {"network": source}) as session:
        for as_of, expected in ((4, NO_EVENT_TIME), (5, 5)):
            with session.newest(view, as_of) as newest:
                keys, frame = newest.part(0, 10)
            assert (newest.count, keys, frame.event_times["network"].tolist()) == (1, {}, [expected])


# --- files of entities -----------------------------------------------------------------------------------------------

DTYPES = {"station": Dtype.STRING, "line": Dtype.INT64, "crew": Dtype.BYTES, "since": Dtype.TIMESTAMP}


def test_entities_are_read_with_the_types_of_their_keys(tmp_path: Path) -> None:
    line = {"station": "a", "line": -3, "crew": "AP8=", "since": "1970-01-01T00:00:01Z", "other": 1.5}
    (tmp_path / "e.ndjson").write_text(json.dumps(line) + "\n\n" + json.dumps({"station": "b"}) + "\n")
    (part,) = entity_parts(tmp_path / "e.ndjson", DTYPES)
    assert part == [{"station": "a", "line": -3, "crew": b"\x00\xff", "since": 1_000_000}, {"station": "b"}]
    table = pa.table({"line": pa.array([7, 8], pa.int32()), "station": ["a", "b"], "more": [1, 2]})
    pq.write_table(table, tmp_path / "e.parquet")
    (part,) = entity_parts(tmp_path / "e.parquet", DTYPES)
    assert part == [{"line": 7, "station": "a"}, {"line": 8, "station": "b"}]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("e.csv", "station\na\n", "ends in `.csv`"),
        ("e.ndjson", '{"station": "a"}\n{"line": 2.5}\n', "line 2 is no entity: 2.5 is no integer of 64 bits"),
        ("e.ndjson", '{"line": 9223372036854775808}\n', "no integer of 64 bits"),
        ("e.ndjson", '{"line": true}\n', "True is no integer"),
        ("e.ndjson", '{"station": null}\n', "None is no text"),
        ("e.ndjson", '{"crew": "a"}\n', "no base64"),
        ("e.ndjson", "[1]\n", "line 1 is no entity"),
        ("e.ndjson", "{\n", "line 1 is no entity"),
        ("e.parquet", "no Parquet", "cannot be read"),
    ],
)
def test_files_that_are_no_entities_are_refused_with_the_line(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidRequest, match=told):
        list(entity_parts(tmp_path / name, DTYPES))


# --- the verdict of a dry run ----------------------------------------------------------------------------------------


def test_a_dry_run_asks_now_while_its_sources_live() -> None:
    runs = [Written.of(((0, NOW - DAY_US),))]
    assert moment_of(NOW, [Watermark(NOW - DAY_US, NOW - HOUR_US)], runs, None) == NOW
    assert moment_of(NOW, [], [], None) == NOW


def test_a_dry_run_over_historic_sources_asks_when_the_store_was_last_served_or_written() -> None:
    historic = [Watermark(NOW // 2, NOW // 2)]
    runs = [Written.of(((0, 100), (0, 300))), Written.of(((0, 200),))]
    assert moment_of(NOW, historic, runs, None) == 300
    assert moment_of(NOW, historic, runs, 700) == 700
    assert moment_of(NOW, historic, [], None) == NOW


def _report(*causes: tuple[str, str, int]) -> dict[str, Any]:
    return {
        "predictions": 200,
        "entities": 50,
        "causes": [
            {
                "view": view,
                "cause": cause,
                "kind": ACCOUNTS[Cause(cause)].kind.value,
                "differing": differing,
                "units": 200,
                "repair": ACCOUNTS[Cause(cause)].repair,
                "examples": [{"words": f"an example of {cause}"}],
            }
            for view, cause, differing in causes
        ],
    }


def test_what_passes_by_itself_and_a_fault_below_the_rate_refuse_nothing() -> None:
    verdict = judge(
        _report(("weather", "materialization_lag", 200), ("leg", "late_row", 2)), NOW, faults_max=0.01, asked="here"
    )
    assert (verdict.result, verdict.faults) == (Result.PASSED, ())
    assert verdict.passing == {"materialization_lag": 200, "late_row": 2}
    assert verdict.summary.startswith("passed: 200 questions of 50 entities from here, as of ")
    assert verdict.summary.endswith(", 2 late_row, 200 materialization_lag")
    verdict.require(Digest("a" * 64))


def test_faults_above_the_rate_refuse_with_an_example_and_what_mends_them_the_worst_first() -> None:
    report = _report(("weather", "late_row", 3), ("leg", "missing_online", 9), ("(prediction)", "model", 4))
    verdict = judge(report, NOW, faults_max=0.01, asked="here")
    assert [(each.view, each.cause) for each in verdict.faults] == [
        ("leg", "missing_online"),
        ("(prediction)", "model"),
        ("weather", "late_row"),
    ]
    with pytest.raises(BundleRefused) as refused:
        verdict.require(Digest("a" * 64))
    assert "leg: missing_online in 9 of 200 (4.50%)\n  e.g. an example of missing_online" in refused.value.message
    for part in ("`skewless features repair --view leg --dry-run`", "skewless replay", "--skip-parity REASON"):
        assert part in refused.value.hint
    assert verdict.to_json()["faults"][0]["differing"] == 9


def test_nothing_checked_is_no_pass_and_stops_nothing() -> None:
    for verdict in (DryRun.not_checked("no store"), DryRun.skipped("agreed")):
        verdict.require(Digest("a" * 64))
        assert verdict.result is not Result.PASSED
        assert "passed" not in verdict.summary
    assert DryRun.not_checked("no store").summary == "not checked: no store"
