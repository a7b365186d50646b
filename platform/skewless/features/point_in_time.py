"""The offline side of the visibility rule, as SQL: for each question the feature row that was visible at its `as_of`.

Feature rows of one view become its *timeline*: only rows that win at the moment they become available are kept.

    rows:      (key, event_us, created_us, features)          as stored
    available: (key, available_us = greatest(event, created)) when a row can first be seen
    timeline:  rows whose event_us is at least that of every row available before them

At any `as_of` the visible row with the latest event time, then the latest created time, is the last row of the
timeline that is available. So one ASOF join answers a question exactly, in O(n log n), late rows included: a late row
that is older than what is known never enters the timeline, and a late correction of the same event time replaces it.
"""

from dataclasses import dataclass

from skewless.dtypes import ELEMENTS, TABLE, Dtype
from skewless.features.contract import FeatureContract, FeatureField, ViewRead, column_name
from skewless.features.visibility import Status, available_sql, stale_sql
from skewless.timestamps import SECOND_US

EVENT_US = "skewless_event_us"
CREATED_US = "skewless_created_us"
AVAILABLE_US = "skewless_available_us"
"""Columns of `rows_sql` in microseconds; named so that no feature is called the same."""


@dataclass(frozen=True, slots=True)
class OfflineSource:
    """Where the rows of a view lie. `created_time` None means that a row is known at its event time.

    `view` is the name that the view is used under, which may be an alias. `columns` maps join keys and features to the
    source's column names where those differ.
    """

    view: str
    path: str
    event_time: str
    created_time: str | None
    columns: tuple[tuple[str, str], ...] = ()

    def column(self, name: str) -> str:
        """The source's name of a join key or feature."""
        return dict(self.columns).get(name, name)


def identifier(name: str) -> str:
    """A quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A quoted SQL string."""
    return "'" + text.replace("'", "''") + "'"


def rows_sql(view: ViewRead, source: OfflineSource) -> str:
    """Rows of a view, typed and as stored online: join keys, EVENT_US, CREATED_US, AVAILABLE_US, features."""
    event = f"epoch_us({identifier(source.event_time)})"
    created = f"epoch_us({identifier(source.created_time)})" if source.created_time else event
    keys = [_cast(source.column(key.key_name), key.name, TABLE[key.dtype].duckdb) for key in view.join_keys]
    features = [_as_stored(source.column(feature.name), feature) for feature in view.features]
    selected = ",\n    ".join(
        [
            *keys,
            f"{event} AS {EVENT_US}",
            f"{created} AS {CREATED_US}",
            f"{available_sql(event_time=event, created_time=created)} AS {AVAILABLE_US}",
            *features,
        ]
    )
    return f"SELECT {selected}\n  FROM read_parquet({literal(source.path)})"


def timeline_sql(view: ViewRead, source: OfflineSource) -> str:
    """The view's timeline, as described at the top of this module."""
    keys = _partition(view)
    # The features themselves end the order so that exact ties are settled the same way on every run.
    tie_break = ", ".join(identifier(feature.name) for feature in view.features)
    return (
        f"SELECT * FROM (\n  SELECT *, max({EVENT_US}) OVER (PARTITION BY {keys} ORDER BY {AVAILABLE_US}\n"
        f"    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS newest_before_us\n  FROM (\n"
        f"  {rows_sql(view, source)}\n"
        f"  QUALIFY row_number() OVER (PARTITION BY {keys}, {AVAILABLE_US}\n"
        f"    ORDER BY {EVENT_US} DESC, {CREATED_US} DESC, {tie_break}) = 1))\n"
        f"WHERE newest_before_us IS NULL OR {EVENT_US} >= newest_before_us"
    )


def point_in_time_sql(
    contract: FeatureContract, sources: dict[str, OfflineSource], *, questions: str, row_id: str, as_of_us: str
) -> str:
    """Values, statuses and event times of every view at every question, ordered by `row_id`.

    `questions` names a table or view with `row_id`, `as_of_us` (µs) and the join keys; `row_id` must be unique.
    Result columns: `view__feature`, `status__view` (`ok`, `missing` or `stale`; a null value under `ok` is a stored
    null) and `event_us__view` (NULL where no row is visible).
    """
    asked = f"q.{identifier(as_of_us)}"
    timelines, joins, selected = [], [], [f"q.{identifier(row_id)} AS row_id"]
    for number, view in enumerate(contract.views):
        name = f"v{number}"
        timelines.append(f"{name} AS (\n{timeline_sql(view, sources[view.name])}\n)")
        equalities = [f"q.{identifier(key.name)} = {name}.{identifier(key.name)}" for key in view.join_keys]
        conditions = " AND ".join([*equalities, f"{asked} >= {name}.{AVAILABLE_US}"])
        joins.append(f"ASOF LEFT JOIN {name} ON {conditions}")
        stale = stale_sql(event_time=f"{name}.{EVENT_US}", as_of=asked, ttl_us=view.ttl_us)
        selected += [
            f"CASE WHEN {stale} THEN NULL ELSE {name}.{identifier(feature.name)} END "
            f"AS {identifier(column_name(view.name, feature.name))}"
            for feature in view.features
        ]
        selected.append(
            f"CASE WHEN {name}.{EVENT_US} IS NULL THEN '{Status.MISSING}' WHEN {stale} THEN '{Status.STALE}' "
            f"ELSE '{Status.OK}' END AS {identifier(status_column(view.name))}"
        )
        selected.append(f"{name}.{EVENT_US} AS {identifier(event_time_column(view.name))}")
    return (
        f"WITH {', '.join(timelines)}\nSELECT {', '.join(selected)}\nFROM {questions} q\n"
        + "\n".join(joins)
        + f"\nORDER BY q.{identifier(row_id)}"
    )


def status_column(view: str) -> str:
    """Result column of a view's status in `point_in_time_sql`."""
    return f"status__{view}"


def event_time_column(view: str) -> str:
    """Result column of a view's event time in `point_in_time_sql`."""
    return f"event_us__{view}"


def _cast(column: str, name: str, sql_type: str) -> str:
    return f"CAST({identifier(column)} AS {sql_type}) AS {identifier(name)}"


def _as_stored(column: str, feature: FeatureField) -> str:
    """A feature cast to its dtype, as Feast's online stores keep it: NaN and no bytes are null, times whole seconds."""
    typed = f"CAST({identifier(column)} AS {TABLE[feature.dtype].duckdb})"
    if feature.dtype in (Dtype.FLOAT32, Dtype.FLOAT64):
        typed = f"nullif({typed}, 'NaN')"
    elif feature.dtype is Dtype.BYTES:
        typed = f"nullif({typed}, ''::BLOB)"
    elif feature.dtype is Dtype.TIMESTAMP:
        typed = _whole_seconds(typed)
    elif feature.dtype in ELEMENTS:
        typed = _list_as_stored(typed, ELEMENTS[feature.dtype])
    return f"{typed} AS {identifier(feature.name)}"


def _list_as_stored(typed: str, element: Dtype) -> str:
    """Feast has no null within a list: a number becomes NaN, text and bytes empty, a truth value false.

    A list of times with a null among them cannot be read back, so it is null.
    """
    if element is Dtype.TIMESTAMP:
        return f"CASE WHEN list_count({typed}) = len({typed}) THEN [{_whole_seconds('each')} FOR each IN {typed}] END"
    return f"[coalesce(each, {_NULL_ELEMENTS[element]}) FOR each IN {typed}]"


def _whole_seconds(typed: str) -> str:
    return f"to_timestamp(floor(epoch_us({typed}) / {SECOND_US}))"


_NULL_ELEMENTS = {
    Dtype.BOOL: "false",
    Dtype.INT32: "0",
    Dtype.INT64: "0",
    Dtype.FLOAT32: "'NaN'::FLOAT",
    Dtype.FLOAT64: "'NaN'::DOUBLE",
    Dtype.STRING: "''",
    Dtype.BYTES: "''::BLOB",
}


def _partition(view: ViewRead) -> str:
    """Partition expression of a view's entity; one constant partition where it has none."""
    return ", ".join(identifier(key.name) for key in view.join_keys) or "1"
