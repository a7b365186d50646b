"""Runs the point-in-time SQL of `features/point_in_time.py` in DuckDB: training sets and offline truth."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skewless.adapters.arrow_columns import column_from_arrow, column_to_arrow
from skewless.dtypes import ELEMENTS, Column, Dtype, array_of, column_of
from skewless.features.contract import FeatureContract, FeatureField, ViewRead, column_name
from skewless.features.frame import NO_EVENT_TIME, STATUS_CODE, FeatureFrame
from skewless.features.on_demand import OnDemandPlan
from skewless.features.point_in_time import (
    AVAILABLE_US,
    CREATED_US,
    EVENT_US,
    OfflineSource,
    event_time_column,
    identifier,
    literal,
    point_in_time_sql,
    rows_sql,
    status_column,
)
from skewless.features.policies import stand_in
from skewless.features.visibility import Status
from skewless.training.definition import ExampleTable, Period
from skewless.training.examples import NO_OUTCOME, Examples

_ROW_ID = "skewless_row_id"
_AS_OF_US = "skewless_as_of_us"


def connect(memory_limit: str = "2GB") -> duckdb.DuckDBPyConnection:
    """A private in-memory DuckDB with bounded memory that never looks for extensions on a network."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory_limit,
        "autoinstall_known_extensions": False,
    }
    return duckdb.connect(config=config)


def _arrow(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    return connection.sql(sql).to_arrow_table()


def read_examples(table: ExampleTable, data_folder: Path, contract: FeatureContract, period: Period) -> Examples:
    """The example rows asked in a period, ordered by `as_of` then by their place in the file."""
    names = contract.columns[: len(contract.join_keys) + len(contract.request_fields)]
    selected = ", ".join(identifier(name) for name, _ in names)
    as_of = f"epoch_us({identifier(table.as_of)})"
    sql = (
        f"SELECT {selected}, {as_of} AS {_AS_OF_US}, CAST({identifier(table.label)} AS BOOLEAN) AS skewless_label, "
        f"epoch_us({identifier(table.outcome_time)}) AS skewless_outcome_us "
        f"FROM read_parquet({literal(str(data_folder / table.path))}, file_row_number = true) "
        f"WHERE {as_of} >= {period.start} AND {as_of} < {period.end} ORDER BY {_AS_OF_US}, file_row_number"
    )
    with connect() as connection:
        result = _arrow(connection, sql)
    label = result.column("skewless_label")
    outcome = result.column("skewless_outcome_us")
    return Examples(
        rows=result.num_rows,
        keys={name: column_from_arrow(result.column(name), dtype) for name, dtype in names},
        as_of=result.column(_AS_OF_US).to_numpy().astype(np.int64),
        labels=label.fill_null(False).to_numpy().astype(np.bool_),
        labelled=label.is_valid().to_numpy().astype(np.bool_),
        outcome_time=outcome.fill_null(NO_OUTCOME).to_numpy().astype(np.int64),
    )


def features_at(
    contract: FeatureContract,
    sources: Mapping[str, OfflineSource],
    keys: Mapping[str, Column],
    as_of: NDArray[np.int64],
) -> FeatureFrame:
    """Every feature of the contract for each row's keys at its `as_of` (µs), in the order of the rows.

    On-demand features are computed from the joined ones by the functions that serve online; then `keys` has the
    request fields as well. Raises InvalidDefinition where a function is not the one the contract pins, or fails.
    """
    questions = pa.table(
        {
            _ROW_ID: pa.array(np.arange(len(as_of), dtype=np.int64)),
            _AS_OF_US: pa.array(as_of),
            **{key.name: column_to_arrow(keys[key.name]) for key in contract.join_keys},
        }
    )
    sql = point_in_time_sql(contract, dict(sources), questions="questions", row_id=_ROW_ID, as_of_us=_AS_OF_US)
    with connect() as connection:
        connection.register("questions", questions)
        result = _arrow(connection, sql)
    plan = OnDemandPlan.compile(contract, importlib.import_module)
    return plan.extend(_frame(contract, result), keys)


def rows_available_between(view: ViewRead, source: OfflineSource, period: Period) -> pa.Table:
    """A view's source rows that become visible in `period`, ordered by that moment, event and created time.

    Columns: the view's join keys and features, EVENT_US, CREATED_US and AVAILABLE_US (int64 µs).
    """
    sql = (
        f"SELECT * FROM ({rows_sql(view, source)}) "
        f"WHERE {AVAILABLE_US} >= {period.start} AND {AVAILABLE_US} < {period.end} "
        f"ORDER BY {AVAILABLE_US}, {EVENT_US}, {CREATED_US}"
    )
    with connect() as connection:
        return _arrow(connection, sql)


def _frame(contract: FeatureContract, result: pa.Table) -> FeatureFrame:
    columns: dict[str, Column] = {}
    statuses: dict[str, NDArray[np.uint8]] = {}
    event_times: dict[str, NDArray[np.int64]] = {}
    for view in contract.views:
        event_times[view.name] = (
            result.column(event_time_column(view.name)).fill_null(NO_EVENT_TIME).to_numpy().astype(np.int64)
        )
        view_status = np.array([STATUS_CODE[Status(text)] for text in _dictionary(result, view.name)], dtype=np.uint8)
        codes = view_status[result.column(status_column(view.name)).combine_chunks().dictionary_encode().indices]
        for feature in view.features:
            name = column_name(view.name, feature.name)
            column = _without_negative_zero(column_from_arrow(result.column(name), feature.dtype))
            columns[name], statuses[name] = _apply_policies(feature, column, codes)
    return FeatureFrame(result.num_rows, columns, statuses, event_times)


def _without_negative_zero(column: Column) -> Column:
    """The column with 0.0 for -0.0, as the online reader has it: DuckDB 2.0's joins keep the sign only sometimes."""
    if ELEMENTS.get(column.dtype) in (Dtype.FLOAT32, Dtype.FLOAT64):
        values = [tuple(each + 0.0 for each in item) for item in column.values.tolist()]
        return Column(column.dtype, array_of(column.dtype, values), column.valid)
    if column.values.dtype.kind != "f":
        return column
    return Column(column.dtype, np.add(column.values, column.values.dtype.type(0)), column.valid)


def _dictionary(result: pa.Table, view: str) -> list[str]:
    texts: list[str] = result.column(status_column(view)).combine_chunks().dictionary_encode().dictionary.to_pylist()
    return texts


def _apply_policies(
    feature: FeatureField, column: Column, view_codes: NDArray[np.uint8]
) -> tuple[Column, NDArray[np.uint8]]:
    """The column after `stand_in`, and the status of each of its values."""
    codes = np.where(
        (view_codes == STATUS_CODE[Status.OK]) & ~column.valid, STATUS_CODE[Status.NULL], view_codes
    ).astype(np.uint8)
    values, valid = column.values, column.valid
    for status in (Status.MISSING, Status.STALE):
        value, reported = stand_in(feature, status)
        if value is None:
            continue
        rows = codes == STATUS_CODE[status]
        filled = column_of(feature.dtype, [value])
        values, valid = np.where(rows, filled.values, values), valid | rows
        codes = np.where(rows, STATUS_CODE[reported], codes).astype(np.uint8)
    return Column(column.dtype, np.ascontiguousarray(values), valid), codes


@dataclass(frozen=True, slots=True)
class DuckDBOffline:
    """The offline store of a repository whose sources are Parquet files; see `training.train.OfflineFeatures`."""

    data_folder: Path
    sources: Mapping[str, OfflineSource]

    def examples(self, table: ExampleTable, contract: FeatureContract, period: Period) -> Examples:
        """Example rows asked in a period, ordered by `as_of`."""
        return read_examples(table, self.data_folder, contract, period)

    def features_at(
        self, contract: FeatureContract, keys: Mapping[str, Column], as_of: NDArray[np.int64]
    ) -> FeatureFrame:
        """Every feature for each row at its `as_of`, by the visibility rule; `keys` with the request fields."""
        return features_at(contract, self.sources, keys, as_of)
