"""The SQL of the visibility rule against twenty obvious lines, on random rows that arrive late and are corrected."""

import random
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.adapters.duckdb_point_in_time import DuckDBOffline, features_at, rows_available_between
from skewless.canonical_json import Digest
from skewless.dtypes import Dtype, column_of, to_python
from skewless.features.contract import Action, FeatureContract, FeatureField, JoinKey, Policy, ViewRead
from skewless.features.frame import NO_EVENT_TIME, STATUS_CODES
from skewless.features.point_in_time import AVAILABLE_US, OfflineSource, identifier, literal
from skewless.features.visibility import Status, is_stale, is_visible, row_statuses
from skewless.timestamps import Micros
from skewless.training.definition import ExampleTable, Period

TTL_US = 40
NULL_POLICY = Policy()
Row = tuple[str, int, int, int | None]
"""entity, event time, created time, value"""


def _contract(ttl_us: int, on_missing: Policy = NULL_POLICY) -> FeatureContract:
    view = ViewRead(
        "v", (JoinKey("entity", Dtype.STRING, nullable=True),), ttl_us, (FeatureField("f", Dtype.INT64, on_missing),)
    )
    return FeatureContract("p", (view,), (), Digest("0" * 64))


def _source(rows: list[Row], folder: Path) -> dict[str, OfflineSource]:
    micros = pa.timestamp("us", tz="UTC")
    table = pa.table(
        {
            "entity": [row[0] for row in rows],
            "happened": pa.array([row[1] for row in rows], micros),
            "known": pa.array([row[2] for row in rows], micros),
            "f": pa.array([row[3] for row in rows], pa.int64()),
        }
    )
    path = folder / "rows.parquet"
    pq.write_table(table, path)
    return {"v": OfflineSource("v", str(path), "happened", "known")}


def _naive(rows: list[Row], entity: str | None, as_of: int, ttl_us: int) -> tuple[int | None, Status, int]:
    """The rule, said again as plainly as possible."""
    seen = [row for row in rows if row[0] == entity and row[1] <= as_of and row[2] <= as_of]
    if not seen:
        return None, Status.MISSING, NO_EVENT_TIME
    _, event_time, _, value = max(seen, key=lambda row: (row[1], row[2]))
    if ttl_us and as_of - event_time > ttl_us:
        return None, Status.STALE, event_time
    return value, Status.NULL if value is None else Status.OK, event_time


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("ttl_us", [0, TTL_US])
def test_point_in_time_answers_equal_the_naive_rule(seed: int, ttl_us: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    rows: list[Row] = []
    for name in ("a", "b", "c"):
        # Few distinct moments, so that late rows, corrections and equal availability all occur; no exact ties,
        # which have no answer.
        pairs = {(rng.randrange(60), rng.randrange(25)) for _ in range(40)}
        rows += [(name, event, event + late, rng.choice([None, rng.randrange(1000)])) for event, late in pairs]
    rng.shuffle(rows)
    entities = [rng.choice(["a", "b", "c", "unknown", None]) for _ in range(400)]
    as_of = np.array([rng.randrange(-5, 160) for _ in entities], dtype=np.int64)

    frame = features_at(
        _contract(ttl_us), _source(rows, tmp_path), {"entity": column_of(Dtype.STRING, list(entities))}, as_of
    )

    for row, (entity, moment) in enumerate(zip(entities, as_of.tolist(), strict=True)):
        value, status, event_time = _naive(rows, entity, moment, ttl_us)
        assert to_python(frame.columns["v__f"])[row] == value
        assert STATUS_CODES[frame.statuses["v__f"][row]] is status
        assert frame.event_times["v"][row] == event_time


def test_an_age_equal_to_the_ttl_is_fresh_and_one_microsecond_more_is_stale(tmp_path: Path) -> None:
    keys = {"entity": column_of(Dtype.STRING, ["a", "a"])}
    moments = np.array([TTL_US, TTL_US + 1], dtype=np.int64)
    frame = features_at(_contract(TTL_US), _source([("a", 0, 0, 7)], tmp_path), keys, moments)
    assert [STATUS_CODES[code] for code in frame.statuses["v__f"]] == [Status.OK, Status.STALE]
    assert not is_stale(event_time=0, as_of=TTL_US, ttl_us=TTL_US)


def test_a_default_fills_missing_values_and_says_so(tmp_path: Path) -> None:
    contract = _contract(0, Policy(Action.DEFAULT, -9))
    keys = {"entity": column_of(Dtype.STRING, ["unknown", "a", "a"])}
    source = _source([("a", 0, 0, None)], tmp_path)
    frame = features_at(contract, source, keys, np.array([5, 5, -1], dtype=np.int64))
    assert to_python(frame.columns["v__f"]) == [-9, None, -9]
    assert [STATUS_CODES[code] for code in frame.statuses["v__f"]] == [Status.DEFAULT, Status.NULL, Status.DEFAULT]


def test_rows_between_come_when_they_become_known_and_in_that_order(tmp_path: Path) -> None:
    source = _source([("a", 1, 30, 1), ("a", 10, 10, 2), ("a", 20, 20, 3), ("a", 29, 31, 4)], tmp_path)
    table = rows_available_between(_contract(0).views[0], source["v"], Period(Micros(10), Micros(31)))
    assert table.column("f").to_pylist() == [2, 3, 1]
    assert table.column(AVAILABLE_US).to_pylist() == [10, 20, 30]


def test_names_and_paths_with_quotes_cannot_leave_their_place() -> None:
    with duckdb.connect() as connection:
        text, name = "'; DROP", 'a" b'
        answer = connection.execute(f"SELECT {literal(text)} AS {identifier(name)}")
        assert answer.fetchall() == [(text,)]
        assert answer.description[0][0] == name


def test_the_online_row_statuses_a_row_agrees_with_visibility() -> None:
    for as_of in range(4):
        visible = is_visible(event_time=2, created_time=2, as_of=as_of)
        (code,) = row_statuses(np.array([[2]]), as_of, np.array([0]))[0]
        assert (STATUS_CODES[code] is Status.OK) == visible


@pytest.mark.parametrize(("until", "rows"), [(1_000, 300), (5, 5), (0, 0)])
def test_a_training_set_in_parts_is_the_training_set(until: int, rows: int, tmp_path: Path) -> None:
    rng = random.Random(4)
    moments = pa.array([min(number, 400) for number in range(300)], pa.timestamp("us", tz="UTC"))
    examples = {
        "entity": [rng.choice(["a", "b", None]) for _ in range(300)],
        "as_of": moments,
        "label": [rng.choice([True, False, None]) for _ in range(300)],
        "outcome_time": moments,
    }
    pq.write_table(pa.table(examples), tmp_path / "examples.parquet")
    source = _source([("a", each, each + each % 3, each) for each in range(0, 200, 2)], tmp_path)
    offline = DuckDBOffline(tmp_path, source)
    table, contract, period = ExampleTable("examples.parquet"), _contract(TTL_US), Period(Micros(-10), Micros(until))
    whole = offline.examples(table, contract, period)
    frame = offline.features_at(contract, whole.keys, whole.as_of)
    found: list[object] = []
    asked = 0
    for part, features in offline.training_parts(table, contract, period):
        asked += part.rows
        found += to_python(features.columns["v__f"])
    assert asked == whole.rows == rows
    assert found == to_python(frame.columns["v__f"])
