"""Runs the point-in-time SQL of `features/point_in_time.py` in DuckDB: training sets and offline truth."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skewless.adapters.arrow_columns import column_from_arrow, column_to_arrow
from skewless.adapters.duckdb_connection import connected, reading_sources
from skewless.adapters.duckdb_examples import example_parts, read_examples
from skewless.adapters.offline_sources import opened, opened_all
from skewless.dtypes import ELEMENTS, Column, Dtype, array_of, column_of
from skewless.features.contract import FeatureContract, FeatureField, JoinKey, ViewRead, column_name
from skewless.features.frame import NO_EVENT_TIME, STATUS_CODE, FeatureFrame
from skewless.features.on_demand import OnDemandPlan
from skewless.features.point_in_time import (
    AVAILABLE_US,
    CREATED_US,
    EVENT_US,
    RAW_PREFIX,
    Known,
    OfflineSource,
    entities_sql,
    event_time_column,
    identifier,
    point_in_time_sql,
    rows_sql,
    status_column,
    timeline_sql,
    versions_sql,
    watermark_sql,
)
from skewless.features.policies import stand_in
from skewless.features.visibility import Status
from skewless.limits import POINT_IN_TIME_MEMORY
from skewless.monitor_limits import PARITY_VERSIONS_MAX
from skewless.parity.evidence import Versions, Watermark, take
from skewless.training.definition import ExampleTable, Period
from skewless.training.examples import Examples

_ROW_ID = "skewless_row_id"
_AS_OF_US = "skewless_as_of_us"
_EVENT_US = "skewless_asked_event_us"
_FEW_ROWS = 5_000
"""Questions for which timelines are made of the entities asked for alone, where there are none yet of all."""


def _arrow(connection: Any, sql: str) -> pa.Table:
    return connection.sql(sql).to_arrow_table()


def features_at(
    contract: FeatureContract,
    sources: Mapping[str, OfflineSource],
    keys: Mapping[str, Column],
    as_of: NDArray[np.int64],
    known: Known = Known.THEN,
) -> FeatureFrame:
    """Every feature of the contract for each row's keys at its `as_of` (µs), in the order of the rows.

    On-demand features are computed from the joined ones by the functions that serve online; then `keys` has the
    request fields as well. Raises InvalidDefinition where a function is not the one the contract pins, or fails.
    """
    found = {view.name: opened(sources[view.name]) for view in contract.views}
    sql = point_in_time_sql(contract, found, questions="questions", row_id=_ROW_ID, as_of_us=_AS_OF_US, known=known)
    with connected() as connection:
        connection.register("questions", _questions(contract.join_keys, keys, as_of))
        result = _arrow(connection, sql)
    plan = OnDemandPlan.compile(contract, importlib.import_module)
    return plan.extend(_frame(contract, result), keys)


class OfflineSession:
    """Point-in-time questions about one contract, in as many parts as a caller likes, over timelines made once.

    A context manager; one thread at a time. Memory is bounded by POINT_IN_TIME_MEMORY and one part's answer. Whatever
    is asked raises Unavailable where a source cannot be read.
    """

    def __init__(
        self,
        contract: FeatureContract,
        sources: Mapping[str, OfflineSource],
        *,
        memory: str = POINT_IN_TIME_MEMORY,
    ) -> None:
        """Nothing is read yet; `memory` bounds the joins. Raises InvalidDefinition as `features_at` does."""
        self._contract = contract
        self._sources = {view.name: sources[view.name] for view in contract.views}
        self._plan = OnDemandPlan.compile(contract, importlib.import_module)
        self._memory = memory
        self._exit = ExitStack()
        self._timelines: dict[Known, dict[str, str]] = {}

    def __enter__(self) -> Self:
        """Sources are read as they are now: of a Delta table, a folder or a glob the files that it has."""
        self._sources = opened_all(self._sources)
        self._connection = self._exit.enter_context(connected(self._memory))
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    @reading_sources()
    def features_at(
        self, keys: Mapping[str, Column], as_of: NDArray[np.int64], known: Known = Known.THEN
    ) -> FeatureFrame:
        """As the function `features_at`."""
        sql = point_in_time_sql(
            self._contract,
            self._sources,
            questions="questions",
            row_id=_ROW_ID,
            as_of_us=_AS_OF_US,
            known=known,
            timelines=self._timelines_of(known, len(as_of)),
        )
        with self._registered("questions", _questions(self._contract.join_keys, keys, as_of)):
            result = _arrow(self._connection, sql)
        return self._plan.extend(_frame(self._contract, result), keys)

    @reading_sources()
    def versions(
        self, view: ViewRead, keys: Mapping[str, Column], rows: NDArray[np.int64], event_times: NDArray[np.int64]
    ) -> Versions:
        """Every version of the source rows with some event times: (questions,) row numbers and event times (µs).

        `keys` has a Column of all rows per join key, of which `rows` are indexes. At most PARITY_VERSIONS_MAX of each.
        """
        pairs = np.unique(np.stack([rows, event_times], axis=1), axis=0)
        asked = pa.table(
            {
                _ROW_ID: pa.array(pairs[:, 0]),
                _EVENT_US: pa.array(pairs[:, 1]),
                **{key.name: column_to_arrow(take(keys[key.name], pairs[:, 0])) for key in view.join_keys},
            }
        )
        sql = versions_sql(
            view,
            self._sources[view.name],
            questions="versions_asked",
            row_id=_ROW_ID,
            event_us=_EVENT_US,
            versions_max=PARITY_VERSIONS_MAX,
        )
        with self._registered("versions_asked", asked):
            return _versions(view, _arrow(self._connection, sql))

    @reading_sources()
    def watermarks(self) -> Mapping[str, Watermark]:
        """How far each view's source reaches, by view."""
        found = {}
        for view, source in self._sources.items():
            event, created = self._connection.sql(watermark_sql(source)).fetchall()[0]
            found[view] = Watermark(
                NO_EVENT_TIME if event is None else event, NO_EVENT_TIME if created is None else created
            )
        return found

    @contextmanager
    def newest(self, view: ViewRead, as_of: int) -> Iterator["NewestRows"]:
        """The newest visible row of every entity of a view's source at a moment (µs), kept while the block lasts.

        It is what the online store should hold then. In memory is what POINT_IN_TIME_MEMORY allows, the rest on disk.
        """
        alone = replace(self._contract, views=(view,), on_demand=())
        asked = entities_sql(view, self._sources[view.name], as_of, row_id=_ROW_ID, as_of_us=_AS_OF_US)
        answers = point_in_time_sql(alone, self._sources, questions="newest_asked", row_id=_ROW_ID, as_of_us=_AS_OF_US)
        keys = "".join(f", q.{identifier(key.name)}" for key in view.join_keys)
        try:
            with reading_sources():
                self._connection.execute(f"CREATE TEMP TABLE newest_asked AS {asked}")
                self._connection.execute(
                    f"CREATE TEMP TABLE newest_rows AS SELECT a.*{keys} FROM ({answers}) a "
                    f"JOIN newest_asked q ON a.row_id = q.{_ROW_ID} ORDER BY a.row_id"
                )
            yield NewestRows(alone, self._connection)
        finally:
            self._connection.execute("DROP TABLE IF EXISTS newest_rows; DROP TABLE IF EXISTS newest_asked")

    def _timelines_of(self, known: Known, questions: int) -> Mapping[str, str] | None:
        """Tables with the views' timelines, made when they are first worth it; None for a few questions before."""
        if known not in self._timelines:
            if questions < _FEW_ROWS:
                return None
            names = {view.name: f"{known}_{number}" for number, view in enumerate(self._contract.views)}
            for view in self._contract.views:
                timeline = timeline_sql(view, self._sources[view.name], known)
                self._connection.execute(f"CREATE TEMP TABLE {names[view.name]} AS {timeline}")
            self._timelines[known] = names
        return self._timelines[known]

    @contextmanager
    def _registered(self, name: str, table: pa.Table) -> Iterator[None]:
        self._connection.register(name, table)
        try:
            yield
        finally:
            self._connection.unregister(name)


class NewestRows:
    """The newest visible row of each entity of one view, by number from 0 on; see `OfflineSession.newest`."""

    def __init__(self, contract: FeatureContract, connection: Any) -> None:
        self._contract = contract
        self._keys = contract.views[0].join_keys
        self._connection = connection
        ((self.count,),) = connection.sql("SELECT count(*) FROM newest_rows").fetchall()

    def part(self, start: int, stop: int) -> tuple[dict[str, Column], FeatureFrame]:
        """Join keys and features of the rows `start` to before `stop`."""
        # Rows were written by their number, so that DuckDB skips the blocks of all others.
        found = _arrow(
            self._connection,
            f"SELECT * FROM newest_rows WHERE row_id >= {start} AND row_id < {stop} ORDER BY row_id",
        )
        keys = {key.name: column_from_arrow(found.column(key.name), key.dtype) for key in self._keys}
        return keys, _frame(self._contract, found)

    def lacks(self, keys: Mapping[str, Column]) -> NDArray[np.bool_]:
        """Which of some entities (asked,) have no visible row."""
        rows = len(next(iter(keys.values())))
        asked = {_ROW_ID: pa.array(np.arange(rows)), **{name: column_to_arrow(each) for name, each in keys.items()}}
        names = ", ".join(identifier(key.name) for key in self._keys)
        self._connection.register("entities_asked", pa.table(asked))
        try:
            known = _arrow(
                self._connection,
                f"SELECT {_ROW_ID} FROM entities_asked SEMI JOIN newest_asked USING ({names})",
            )
        finally:
            self._connection.unregister("entities_asked")
        lacking = np.ones(rows, dtype=np.bool_)
        lacking[known.column(_ROW_ID).to_numpy()] = False
        return lacking


def _questions(join_keys: Sequence[JoinKey], keys: Mapping[str, Column], as_of: NDArray[np.int64]) -> pa.Table:
    return pa.table(
        {
            _ROW_ID: pa.array(np.arange(len(as_of), dtype=np.int64)),
            _AS_OF_US: pa.array(as_of),
            **{key.name: column_to_arrow(keys[key.name]) for key in join_keys},
        }
    )


def _versions(view: ViewRead, result: pa.Table) -> Versions:
    columns = {
        each.name: _without_negative_zero(column_from_arrow(result.column(each.name), each.dtype))
        for each in view.features
    }
    raw = {
        name.removeprefix(RAW_PREFIX): column_from_arrow(result.column(name), Dtype.FLOAT64)
        for name in result.column_names
        if name.startswith(RAW_PREFIX)
    }
    row, event_time, created_time = (
        result.column(name).to_numpy().astype(np.int64) for name in ("row_id", EVENT_US, CREATED_US)
    )
    return Versions(row, event_time, created_time, columns, raw)


def rows_available_between(view: ViewRead, source: OfflineSource, period: Period) -> pa.Table:
    """A view's source rows that become visible in `period`, ordered by that moment, event and created time.

    Columns: the view's join keys and features, EVENT_US, CREATED_US and AVAILABLE_US (int64 µs).
    """
    sql = (
        f"SELECT * FROM ({rows_sql(view, opened(source))}) "
        f"WHERE {AVAILABLE_US} >= {period.start} AND {AVAILABLE_US} < {period.end} "
        f"ORDER BY {AVAILABLE_US}, {EVENT_US}, {CREATED_US}"
    )
    with connected() as connection:
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
    """The offline store of a repository of Parquet files or Delta tables; see `training.train.OfflineFeatures`."""

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

    def training_parts(
        self, table: ExampleTable, contract: FeatureContract, period: Period
    ) -> Iterator[tuple[Examples, FeatureFrame]]:
        """The examples of a period with their features, in parts that fit into memory, in the order of `examples`."""
        with OfflineSession(contract, self.sources) as session:
            for examples in example_parts(table, self.data_folder, contract, period):
                yield examples, session.features_at(examples.keys, examples.as_of)
