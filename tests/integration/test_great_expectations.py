"""Suites in the real Great Expectations, kept warm in its process: it means what the catalogue says, row by row.

The one file of the quality gates that pays for importing it, and Feast, whose materialization the gate stands before.
"""

import math
import random
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from redis import Redis

from feature_repo import features
from feature_repo.sources import build_tables, package_folder
from harness.feature_repository import FEAST_WARNS, SERVICE, START_US, STATIONS, small_repository
from harness.naive_suites import NaiveRunner, failing_rows, is_null
from harness.quality_views import AS_OF, SCHEMA, SUITE, sensor_rows
from harness.servers import ValkeyServer
from skewless.adapters.feast_repository import Connections, FeatureRepository, JudgedSource
from skewless.adapters.known_rows import KnownRows
from skewless.adapters.quality_files import load_suites
from skewless.adapters.quality_gate import Batch, Judgement, QualityGate, judge
from skewless.adapters.quality_worker import SuiteWorker
from skewless.adapters.quarantine import Quarantine
from skewless.adapters.tabular import columns_of
from skewless.cli.quality_gate import schemas_of
from skewless.dtypes import Dtype
from skewless.errors import BatchRefused, InvalidDefinition, Unavailable
from skewless.features.point_in_time import OfflineSource
from skewless.quality.binding import bound_to
from skewless.quality.catalogue import BETWEEN, CATALOGUE, IN_SET, LATER, NOT_NULL, ROW_COUNT, UNIQUE, Judged
from skewless.quality.suggestion import suggested
from skewless.quality.suite import Expectation, OnFailure, Suite
from skewless.quality.training_suite import of_training
from skewless.quality.verdict import Decision
from skewless.quality.view_schema import ViewSchema
from skewless.registry import database
from skewless.registry.quality_results import QualityResults
from skewless.timestamps import HOUR_US, parse_timestamp

pytestmark = FEAST_WARNS

ROOT = Path(__file__).parents[2]
SEED = 11
ROWS = 400
DAYS = 5
FEBRUARY = parse_timestamp("2013-02-01")
ASIDE = OnFailure.QUARANTINE


@pytest.fixture(scope="module")
def worker() -> Iterator[SuiteWorker]:
    with SuiteWorker() as made:
        made.start()
        yield made


def mixed_rows() -> pa.Table:
    """Columns of every kind with nulls, NaN, ties and edges of what is asked."""
    drawn = random.Random(SEED)

    def column(choices: list[Any], kind: pa.DataType) -> pa.Array:
        return pa.array([drawn.choice(choices) for _ in range(ROWS)], kind, from_pandas=False)

    times = [None, *(datetime(2024, 1, day, tzinfo=UTC) for day in range(1, 9))]
    time = pa.timestamp("us", tz="UTC")
    return pa.table(
        {
            "single": column([None, math.nan, 0.1, -0.0, 5.0, 5.5, math.inf], pa.float32()),
            "double": column([None, math.nan, 0.1, 1e300, -math.inf, 5.0], pa.float64()),
            "small": column([None, -1, 0, 2**31 - 1], pa.int32()),
            "large": column([None, 2**53, 2**53 + 1, 2**53 + 2, 0], pa.int64()),
            "whole": column([1, 2, 3], pa.int64()),
            "word": column([None, "", "a", "ab", "süd", "a1"], pa.string()),
            "flag": column([None, True, False], pa.bool_()),
            "first": column(times, time),
            "second": column(times, time),
        }
    )


def row_expectations() -> list[Expectation]:
    between: list[dict[str, Any]] = [
        {"column": "single", "min_value": 0.1, "max_value": 5.0},
        {"column": "single", "min_value": 0.1, "strict_min": True},
        {"column": "single", "max_value": 5, "strict_max": True},
        {"column": "double", "min_value": 0, "max_value": 1e300},
        {"column": "small", "min_value": 0},
        {"column": "large", "max_value": 2**52},
        {"column": "large", "min_value": 2**52, "strict_min": True},
        {"column": "whole", "min_value": 2, "max_value": 2},
        {"column": "first", "max_value": "2024-01-05T00:00:00Z"},
        {"column": "first", "min_value": {"as_of": "-2d"}, "strict_min": True},
    ]
    sets: list[dict[str, Any]] = [
        {"column": "word", "value_set": ["a", "süd"]},
        {"column": "whole", "value_set": [1, 3]},
        {"column": "large", "value_set": [2**53 + 1]},
        {"column": "double", "value_set": [5.0, 0.1]},
        {"column": "single", "value_set": [5.0, 0.1]},
        {"column": "flag", "value_set": [True]},
    ]
    words: list[tuple[str, dict[str, Any]]] = [
        ("expect_column_values_to_match_regex", {"column": "word", "regex": "^a"}),
        ("expect_column_values_to_not_match_regex", {"column": "word", "regex": "[0-9]"}),
        ("expect_column_value_lengths_to_be_between", {"column": "word", "min_value": 1, "max_value": 2}),
    ]
    pairs: list[dict[str, Any]] = [
        {"column_A": "first", "column_B": "second", "or_equal": True},
        {"column_A": "first", "column_B": "second"},
        {"column_A": "single", "column_B": "double", "or_equal": True},
    ]
    names = mixed_rows().column_names
    found: list[tuple[str, dict[str, Any]]] = [
        *((NOT_NULL, {"column": name}) for name in names),
        ("expect_column_values_to_be_null", {"column": "single"}),
        *((BETWEEN, kwargs) for kwargs in between),
        *((IN_SET, kwargs) for kwargs in sets),
        *(("expect_column_values_to_not_be_in_set", kwargs) for kwargs in sets),
        *words,
        *((LATER, kwargs) for kwargs in pairs),
        ("expect_column_values_to_be_unique", {"column": "large"}),
        (UNIQUE, {"column_list": ["word", "small", "first"]}),
        (UNIQUE, {"column_list": ["single", "whole"]}),
    ]
    return [Expectation(name, kwargs, on_failure=ASIDE) for name, kwargs in found]


def test_rows_fail_that_fail_by_the_plain_meaning_and_no_others(worker: SuiteWorker) -> None:
    table, as_of = mixed_rows(), parse_timestamp("2024-01-08")
    expectations = row_expectations()
    judged = {each.type for each in expectations}
    assert judged == {name for name, kind in CATALOGUE.items() if kind.judged is Judged.ROWS}
    suite = Suite("mixed", "mixed", tuple(expectations))
    times = frozenset({"first", "second"})
    found = worker.run(suite, table, as_of=as_of, times=times)
    assert [each.position for each in found] == list(range(len(expectations)))
    for expectation, result in zip(bound_to(suite, as_of, times).expectations, found, strict=True):
        assert result.error == ""
        assert result.failing_rows is not None
        assert result.failing_rows.tolist() == failing_rows(expectation, table), expectation
        assert result.unexpected == len(result.failing_rows)
        assert result.success is (result.unexpected == 0)


def test_every_expectation_of_the_catalogue_is_known_with_all_its_arguments(worker: SuiteWorker) -> None:
    given: dict[str, Any] = {
        "column": "whole",
        "column_A": "whole",
        "column_B": "small",
        "column_list": ["whole", "word"],
        "or_equal": True,
        "mostly": 0.5,
        "strictly": False,
        "min_value": 0,
        "max_value": 10**12,
        "strict_min": False,
        "strict_max": False,
        "value_set": [1, 2, 3],
        "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[1, 3]]},
        "regex": "",
    }
    share = {"min_value": 0.0, "max_value": 1.0}
    expectations = []
    for name, kind in CATALOGUE.items():
        kwargs = {each: given[each] for each in kind.arguments} | (share if "proportion" in name else {})
        if Dtype.INT64 not in kind.dtypes:
            kwargs["column"] = "word"
        expectations.append(Expectation(name, kwargs, on_failure=OnFailure.WARN))
    found = worker.run(Suite("all", "all", tuple(expectations)), mixed_rows(), as_of=0, times=frozenset())
    errors = [(expectations[each.position].type, each.error) for each in found if each.error]
    assert errors == []
    assert all(type(each.success) is bool for each in found), "a quantile's answer would be NumPy's own"
    assert all(each.failing_rows is None for each in found), "nobody asked"


def test_what_great_expectations_would_pass_over_is_told(worker: SuiteWorker) -> None:
    suite = Suite("odd", "odd", (Expectation(NOT_NULL, {"column": "gone"}), Expectation(ROW_COUNT, {"min_value": 1})))
    missing, counted = worker.run(suite, mixed_rows(), as_of=0, times=frozenset())
    assert not missing.success
    assert "gone" in missing.error
    assert counted.success
    with pytest.raises(InvalidDefinition, match="unknown expectation `expect_nothing`"):
        worker.run(Suite("odd", "odd", (Expectation("expect_nothing", {}),)), mixed_rows(), as_of=0, times=frozenset())
    wrong = Suite("odd", "odd", (Expectation(NOT_NULL, {"column": "word", "mostli": 1}),))
    with pytest.raises(InvalidDefinition, match="refuses suite `odd`"):
        worker.run(wrong, mixed_rows(), as_of=0, times=frozenset())


def test_a_table_without_rows_is_judged(worker: SuiteWorker) -> None:
    found = judge(SUITE, SCHEMA, sensor_rows(0), Batch(AS_OF, "tests", ""), worker)
    assert found.verdict.decision is Decision.STOP
    assert [each.result.position for each in found.verdict.failed] == [0], "all else holds of no rows"


def test_the_fake_of_tests_decides_as_great_expectations_does(worker: SuiteWorker) -> None:
    rows = sensor_rows()
    batch = Batch(AS_OF, "tests", "")
    real, naive = (judge(SUITE, SCHEMA, rows, batch, runner).verdict for runner in (worker, NaiveRunner()))
    assert real.decision is naive.decision is Decision.PASS


def test_a_child_that_takes_too_long_is_ended() -> None:
    with SuiteWorker(start_s_max=0.0) as hurried, pytest.raises(Unavailable, match="did not answer within 0 s"):
        hurried.run(SUITE, sensor_rows(), as_of=AS_OF, times=frozenset())


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's tables of the first days of January: the whole year takes as long as all other tests here."""
    folder = tmp_path_factory.mktemp("flights")
    with zipfile.ZipFile(package_folder() / "flights.csv.zip") as archive:
        lines = archive.read("flights.csv").decode().splitlines()
    files = {"flights": _first_days(lines, folder / "flights.csv")}
    weather = (package_folder() / "weather.csv").read_text().splitlines()
    files["weather"] = _first_days(weather, folder / "weather.csv")
    files |= {name: package_folder() / f"{name}.csv" for name in ("planes", "airports")}
    build_tables(files, folder, lambda _: None)
    return folder


def _first_days(lines: list[str], to: Path) -> Path:
    names = lines[0].split(",")
    month, day = names.index("month"), names.index("day")
    cells = ((line, line.split(",")) for line in lines[1:])
    kept = [line for line, each in cells if each[month] == "1" and int(each[day]) <= DAYS]
    to.write_text("\n".join([lines[0], *kept]) + "\n")
    return to


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ViewSchema]:
    """The source columns of the example's views."""
    registry = tmp_path_factory.mktemp("registry") / "feast.db"
    repository = FeatureRepository(ROOT / "feature_repo", Connections("127.0.0.1:1", f"sqlite:///{registry}"))
    repository.apply(features)
    return dict(schemas_of(repository))


@pytest.fixture(scope="module")
def suites(schemas: dict[str, ViewSchema]) -> dict[str, Suite]:
    """The example's suites by view, checked against its definitions."""
    return load_suites(ROOT / "feature_repo", schemas)


def judged_flights(
    flights: Path, suite: Suite, schema: ViewSchema, worker: SuiteWorker, rows: pa.Table | None = None
) -> Judgement:
    view = schema.view
    if rows is None:
        source = OfflineSource(view, str(flights / f"{view}.parquet"), "event_time", "created_time")
        (part,) = KnownRows(source, FEBRUARY).parts()
        rows = part.rows
    return judge(suite, schema, rows, Batch(FEBRUARY, "tests", view), worker)


def test_every_view_of_the_example_has_a_reviewed_suite_that_its_data_passes(
    flights: Path, schemas: dict[str, ViewSchema], suites: dict[str, Suite], worker: SuiteWorker
) -> None:
    assert suites.keys() == schemas.keys()
    for view, suite in suites.items():
        assert suite.reviewed is not None
        verdict = judged_flights(flights, suite, schemas[view], worker).verdict
        assert verdict.decision is Decision.PASS, (view, [each.expectation for each in verdict.failed])


def test_weather_in_other_units_is_stopped_with_what_to_do(
    flights: Path, schemas: dict[str, ViewSchema], suites: dict[str, Suite], worker: SuiteWorker
) -> None:
    view = "origin_weather"
    rows = pq.read_table(flights / f"{view}.parquet")
    place = rows.schema.get_field_index("temp")
    celsius = pc.cast(pc.divide(pc.subtract(rows.column("temp"), 32), 1.8), pa.float32())
    rows = rows.set_column(place, "temp", celsius)
    found = judged_flights(flights, suites[view], schemas[view], worker, rows)
    assert found.verdict.decision is Decision.STOP
    assert found.verdict.too_many
    assert "if one of the two came as °C, most rows fail here" in "\n".join(found.lines())


def test_a_draft_from_data_passes_that_data_and_notices_what_was_not_in_it(
    flights: Path, schemas: dict[str, ViewSchema], worker: SuiteWorker
) -> None:
    schema = schemas["route_recent"]
    rows = pq.read_table(flights / "route_recent.parquet")
    columns, _ = columns_of(rows, [(each.name, each.dtype) for each in schema.columns])
    draft = suggested(schema, columns, owner="tests")
    assert draft.reviewed is None
    batch = Batch(FEBRUARY, "tests", "")
    assert judge(draft, schema, rows, batch, worker).verdict.decision.rank <= Decision.QUARANTINE.rank
    seconds = pc.cast(pc.multiply(rows.column("last_dep_delay"), 60), pa.float32())
    place = rows.schema.get_field_index("last_dep_delay")
    verdict = judge(draft, schema, rows.set_column(place, "last_dep_delay", seconds), batch, worker).verdict
    assert "last_dep_delay" in {column for each in verdict.failed for column in each.expectation.columns}


def test_a_training_set_is_judged_by_its_features_and_warned_of(
    flights: Path, schemas: dict[str, ViewSchema], suites: dict[str, Suite], worker: SuiteWorker
) -> None:
    milder, schema = of_training(suites["route_recent"], schemas["route_recent"])
    rows = pq.read_table(flights / "route_recent.parquet", columns=["last_arr_delay", "last_dep_delay"])
    rows = rows.append_column("arr_delay_mean_last_5", pa.array([9_999.0] * rows.num_rows, pa.float32()))
    rows = rows.rename_columns([f"route_recent__{name}" for name in rows.column_names])
    verdict = judge(milder, schema, rows, Batch(FEBRUARY, "tests", ""), worker).verdict
    assert verdict.decision is Decision.WARN
    assert [each.expectation.columns for each in verdict.failed] == [("route_recent__arr_delay_mean_last_5",)]


def test_materialize_writes_the_newest_row_that_passes_and_nothing_where_a_batch_stops(
    tmp_path: Path, valkey_server: ValkeyServer, sqlite_registry: Path
) -> None:
    as_of = START_US + 100 * HOUR_US
    (tmp_path / "registry.db").write_bytes(sqlite_registry.read_bytes())
    results = QualityResults(database.engine(f"sqlite:///{tmp_path / 'registry.db'}"))
    online_store = Redis(host=valkey_server.host, port=valkey_server.port)
    online_store.flushdb()
    with small_repository(tmp_path / "made", "small_gated") as small:
        repository = small.open(f"{valkey_server.host}:{valkey_server.port}", small.data / "feast.db")
        repository.apply(small.definitions())
        views = repository.stored().views
        expectations = (
            Expectation(ROW_COUNT, {"min_value": 1}),
            Expectation(BETWEEN, {"column": "temp", "min_value": 0, "max_value": 20}, on_failure=ASIDE),
        )
        suite = Suite("weather", "weather", expectations, reviewed="2024-01-01", quarantine_share_max=1.0)
        gate = QualityGate({"weather": suite}, NaiveRunner(), results, Quarantine(tmp_path / "quarantine"))
        with ExitStack() as kept:
            rows = {name: kept.enter_context(gate.judged(view, as_of)) for name, view in views.items()}
            judged = {
                name: JudgedSource(views[name].source.path, each) for name, each in rows.items() if each is not None
            }
            repository.materialize(as_of, lambda _: None, judged)
        assert sorted(gate.ungated) == ["leg", "network"]
        served = repository.online_features(SERVICE, [{"station": each, "line": 1} for each in STATIONS])
        expected = [_newest_passing(small.data / "weather.parquet", station, as_of) for station in STATIONS]
        assert [_plain(each) for each in served["weather__temp"]] == [_plain(each) for each in expected]
        (held,) = results.quarantined("weather")
        assert held.rows == gate.outcomes[0].run.set_aside > 0

        online_store.flushdb()
        strict = Suite("weather", "weather", (Expectation(ROW_COUNT, {"min_value": 10**6}),), reviewed="2024-01-01")
        stopping = QualityGate({"weather": strict}, NaiveRunner(), results, Quarantine(tmp_path / "quarantine"))
        with pytest.raises(BatchRefused), stopping.judged(views["weather"], as_of):
            pytest.fail("nothing may be written")
    assert online_store.dbsize() == 0
    online_store.close()
    results.close()


def _newest_passing(path: Path, station: str, as_of: int) -> object:
    rows = [
        row
        for row in pq.read_table(path).to_pylist()
        if row["station"] == station
        and max(row["happened"], row["known"]).timestamp() * 1e6 <= as_of
        and (is_null(row["temp"]) or 0 <= row["temp"] <= 20)
    ]
    newest: object = max(rows, key=lambda row: (row["happened"], row["known"]))["temp"]
    return newest


def _plain(value: object) -> object:
    return None if is_null(value) else value
