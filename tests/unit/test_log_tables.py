"""Tables of the log: their documented columns, and every value as it was logged."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from harness.log_batches import NOW, a_batch
from harness.stored_logs import an_outcome, schema_of, tables_of
from skewless.adapters.arrow_columns import column_from_arrow
from skewless.adapters.log_store import open_log_store
from skewless.adapters.log_tables import (
    KINDS,
    OUTCOME_SCHEMA,
    OUTCOMES,
    PREDICTION_SCHEMA,
    PREDICTIONS,
    TALLIES,
    TALLY_SCHEMA,
    LogTable,
    plain,
    segment_tables,
)
from skewless.canonical_json import digest
from skewless.dtypes import Dtype, column_of
from skewless.features.frame import STATUS_CODE
from skewless.features.visibility import Status
from skewless.rollout.role_counts import LATENCY_BINS, RoleCounts
from skewless.rollout.routes import Role
from skewless.serving.log_blocks import blocks
from skewless.serving.records import TallyBatch, tensor_digest
from skewless.serving.role_tally import RoleTally
from skewless.timestamps import DAY_US, SECOND_US, Micros

GUIDE = (Path(__file__).parents[2] / "docs" / "prediction-log.md").read_text()
SCHEMAS = {PREDICTIONS: PREDICTION_SCHEMA, OUTCOMES: OUTCOME_SCHEMA, TALLIES: TALLY_SCHEMA}


def a_tally() -> TallyBatch:
    counts = RoleCounts(requests=3, errors=1, latency=(2, *[0] * (LATENCY_BINS - 1)))
    start = Micros(NOW)
    return TallyBatch.of(
        [RoleTally("flight-delay", Role.LIVE, "", digest("one"), None, start, Micros(NOW + SECOND_US), counts, 7)]
    )


def only(kind: str, *entries: Any) -> LogTable:
    (found,) = [each for each in tables_of("segment", list(entries)) if each.kind == kind]
    return found


def rows_of(*entries: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = plain(only(PREDICTIONS, *entries).table).to_pylist()
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_columns_are_those_of_the_guide_in_memory_and_in_files(kind: str, tmp_path: Path) -> None:
    tables = [re.findall(r"^\| `(\w+)` \| ([^|]+) \|", part, re.MULTILINE) for part in GUIDE.split("\n\n")]
    documented = [each for each in tables if len(each) > 3]
    table = only(kind, a_batch("a"), (an_outcome("a-0", received_time=NOW),), a_tally())
    names = SCHEMAS[kind].names
    told = [(field.name, str(field.type).replace(" ('segment')", "")) for field in plain(table.table).schema][
        : len(names)
    ]
    assert told == documented[KINDS.index(kind)]
    assert plain(table.table).schema.equals(SCHEMAS[kind]) or kind == PREDICTIONS
    store = open_log_store(str(tmp_path))
    store.append("writer", 1, [table])
    (stored,) = store.tables(kind)
    assert stored.schema.names == table.table.schema.names
    written = schema_of(stored)
    assert written.names == [name for name in stored.schema.names if name != "day"]
    assert written.field("segment").type == pa.string(), "plain text, whatever it is in memory"
    assert written.metadata is None or b"ARROW:schema" not in written.metadata


def test_every_value_is_as_it_was_logged() -> None:
    batch = a_batch("a", rows=4)
    table = only(PREDICTIONS, batch).table
    for name, column in {**batch.given, **batch.frame.columns}.items():
        prefix = "feature" if name.startswith("v__") else "key" if name in batch.key_names else "request"
        read = column_from_arrow(table.column(f"{prefix}.{name}"), column.dtype)
        assert np.array_equal(read.valid, column.valid), name
        known = column.valid
        assert read.values[known].tobytes() == column.values[known].tobytes() or list(read.values[known]) == list(
            column.values[known]
        ), name
    rows = plain(table).to_pylist()
    assert [row["tensor"] for row in rows] == [row.tobytes() for row in batch.tensor]
    assert [row["tensor_digest"] for row in rows] == [tensor_digest(row) for row in batch.tensor]
    assert [row["status.v__temp"] for row in rows] == ["ok", "missing", "stale", "ok"]
    assert [row["event_time.v"] is None for row in rows] == [False, True, False, True]
    outputs = np.array([row["output.probabilities"] for row in rows], dtype=np.float32)
    assert outputs.tobytes() == batch.outputs["probabilities"].tobytes()
    assert dict(rows[3]["stage_ms"]) == batch.stage_ms
    assert {row["caller"] for row in rows} == {"key:shop"}
    assert [row["row"] for row in rows] == [0, 1, 2, 3]


def test_requests_of_one_block_keep_what_each_of_them_said() -> None:
    one = replace(a_batch("one", rows=3), caller="key:one", stage_ms={"total": 1.0})
    two = replace(a_batch("two", rows=1, as_of=NOW + DAY_US), rung="nulls", stage_ms={"total": 2.0, "model": 1.0})
    arm = replace(a_batch("arm"), role="arm", experiment="size", arm="larger", positions=np.array([1, 4]))
    rows = {row["prediction_id"]: row for row in rows_of(one, two, arm)}
    assert len(rows) == 6
    assert [(rows[each]["caller"], rows[each]["day"]) for each in ("one-2", "two-0")] == [
        ("key:one", "2013-05-01"),
        ("key:shop", "2013-05-02"),
    ]
    assert [dict(rows[each]["stage_ms"]) for each in ("one-1", "two-0")] == [one.stage_ms, two.stage_ms]
    assert [rows["arm-1"][name] for name in ("role", "experiment", "arm", "row")] == ["arm", "size", "larger", 4]
    assert [rows["two-0"][name] for name in ("experiment", "arm", "rung")] == [None, None, "nulls"]


def test_twins_stand_beside_their_live_predictions_and_others_beside_none() -> None:
    shadow = replace(a_batch("shadow"), role="shadow", twins=["live-0", "live-1"])
    rows = {row["prediction_id"]: row["live_prediction_id"] for row in rows_of(a_batch("live"), shadow)}
    assert rows == {"live-0": None, "live-1": None, "shadow-0": "live-0", "shadow-1": "live-1"}


def test_many_blocks_give_the_rows_of_each_alone_in_order() -> None:
    batches = [a_batch(f"batch{number}", rows=1 + number % 3) for number in range(20)]
    alone = [block for batch in batches for block in blocks([batch])]
    (together,) = segment_tables("segment", alone)
    apart = [segment_tables("segment", [block])[0].table for block in alone]
    assert repr(plain(together.table).to_pylist()) == repr([row for each in apart for row in plain(each).to_pylist()])


def test_a_table_is_named_by_its_columns_and_not_by_its_bundle() -> None:
    one, two = only(PREDICTIONS, a_batch("a")), only(PREDICTIONS, a_batch("b", bundle="two"))
    assert one.columns == two.columns
    other = only(PREDICTIONS, a_batch("c", dtype=Dtype.INT64))
    assert other.columns != one.columns, "another dtype is another column"
    both = [
        each for each in tables_of("segment", [a_batch("a"), a_batch("b", bundle="two")]) if each.kind == PREDICTIONS
    ]
    assert [each.table.num_rows for each in both] == [4]


def test_a_column_that_is_hashed_is_text_and_its_tensor_null() -> None:
    batch = a_batch("a")
    (block,) = blocks([batch])
    hidden = replace(
        block,  # type: ignore[type-var]  # blocks of batches are blocks of answers
        given={**batch.given, "origin": column_of(Dtype.STRING, ["f" * 64, None])},
        tensor=None,
        kept_digests=["0" * 64, "1" * 64],
    )
    (table,) = segment_tables("segment", [hidden])
    rows = plain(table.table).to_pylist()
    assert [row["tensor"] for row in rows] == [None, None]
    assert [row["tensor_digest"] for row in rows] == ["0" * 64, "1" * 64]
    assert [row["key.origin"] for row in rows] == ["f" * 64, None]


def test_outcomes_told_by_entity_have_no_prediction(tmp_path: Path) -> None:
    told = (
        an_outcome(None, received_time=NOW, endpoint="flight-delay", entity='{"origin":"JFK"}', at=NOW - 1),
        an_outcome("a-0", received_time=NOW + DAY_US, outcome_time=NOW),
    )
    rows = plain(only(OUTCOMES, told).table).to_pylist()
    assert [(row["prediction_id"], row["endpoint"], row["day"]) for row in rows] == [
        (None, "flight-delay", "2013-05-01"),
        ("a-0", None, "2013-05-02"),
    ]
    assert rows[0]["outcome_time"] is None


def test_every_status_has_its_name() -> None:
    batch = a_batch("a", rows=len(STATUS_CODE))
    codes = np.arange(len(STATUS_CODE), dtype=np.uint8)
    frame = replace(batch.frame, statuses={**batch.frame.statuses, "v__temp": codes})
    names = [row["status.v__temp"] for row in rows_of(replace(batch, frame=frame))]
    assert [STATUS_CODE[Status(name)] for name in names] == codes.tolist()


def test_a_segment_without_entries_has_no_tables() -> None:
    assert segment_tables("segment", []) == []
