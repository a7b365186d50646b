"""A view of sensor rows with a suite, tables of them, and what is wrong with them when asked for."""

from pathlib import Path

import pyarrow as pa

from skewless.dtypes import Dtype
from skewless.quality.catalogue import BETWEEN, LATER, NOT_NULL, ROW_COUNT, UNIQUE
from skewless.quality.suite import Expectation, OnFailure, Severity, Suite
from skewless.quality.view_schema import Role, SchemaColumn, ViewSchema
from skewless.timestamps import HOUR_US, MINUTE_US, from_micros, parse_timestamp

START_US = parse_timestamp("2024-01-01")
AS_OF = START_US + 100 * HOUR_US
TIME = pa.timestamp("us", tz="UTC")
SCHEMA = ViewSchema(
    "sensors",
    (
        SchemaColumn("station", Dtype.STRING, Role.KEY),
        SchemaColumn("temp", Dtype.FLOAT32, Role.FEATURE),
        SchemaColumn("count", Dtype.INT64, Role.FEATURE),
        SchemaColumn("event_time", Dtype.TIMESTAMP, Role.EVENT_TIME),
        SchemaColumn("created_time", Dtype.TIMESTAMP, Role.CREATED_TIME),
    ),
)
ASIDE = OnFailure.QUARANTINE
SUITE = Suite(
    "sensors",
    "sensors",
    (
        Expectation(ROW_COUNT, {"min_value": 1}),
        Expectation(NOT_NULL, {"column": "station"}, on_failure=ASIDE),
        Expectation(NOT_NULL, {"column": "event_time"}, on_failure=ASIDE),
        Expectation(BETWEEN, {"column": "event_time", "max_value": {"as_of": "+5m"}}, on_failure=ASIDE),
        Expectation(LATER, {"column_A": "created_time", "column_B": "event_time", "or_equal": True}, on_failure=ASIDE),
        Expectation(UNIQUE, {"column_list": ["station", "event_time", "created_time"]}, on_failure=ASIDE),
        Expectation(BETWEEN, {"column": "temp", "min_value": -50, "max_value": 60}, on_failure=ASIDE),
        Expectation(NOT_NULL, {"column": "temp", "mostly": 0.9}, Severity.WARNING, OnFailure.WARN),
        Expectation(NOT_NULL, {"column": "count"}, Severity.WARNING, OnFailure.WARN),
    ),
    owner="tests",
    reviewed="2024-01-01",
)
TEXT = """\
name: sensors
view: sensors
meta: {owner: tests, reviewed: 2024-01-01}
expectations:
  - type: expect_table_row_count_to_be_between
    kwargs: {min_value: 1}
  - type: expect_column_values_to_not_be_null
    kwargs: {column: station}
    on_failure: quarantine
  - type: expect_column_values_to_not_be_null
    kwargs: {column: event_time}
    on_failure: quarantine
  - type: expect_column_values_to_be_between
    kwargs: {column: temp, min_value: -50, max_value: 60}
    on_failure: quarantine
  - type: expect_column_values_to_not_be_null
    kwargs: {column: temp, mostly: 0.9}
    severity: warning
  - type: expect_column_values_to_not_be_null
    kwargs: {column: count}
    severity: warning
"""
"""A suite file of the same view."""


def sensor_rows(rows: int = 40) -> pa.Table:
    """Rows that meet the suite: two stations, a row an hour, known five minutes later."""
    times = [from_micros(START_US + row // 2 * HOUR_US) for row in range(rows)]
    return pa.table(
        {
            "station": pa.array([("north", "south")[row % 2] for row in range(rows)], pa.string()),
            "temp": pa.array([row % 30 - 5.5 for row in range(rows)], pa.float32()),
            "count": pa.array(range(rows), pa.int64()),
            "event_time": pa.array(times, TIME),
            "created_time": pa.array(
                [from_micros(START_US + row // 2 * HOUR_US + 5 * MINUTE_US) for row in range(rows)], TIME
            ),
        }
    )


def with_values(table: pa.Table, column: str, values: dict[int, object]) -> pa.Table:
    """The table with other values in some rows of a column."""
    given = table.column(column).to_pylist()
    for row, value in values.items():
        given[row] = value
    place = table.schema.get_field_index(column)
    return table.set_column(place, column, pa.array(given, table.schema.field(column).type, from_pandas=False))


def suite_file(folder: Path, text: str = TEXT, name: str = "sensors") -> Path:
    """A suite file in a folder."""
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path
