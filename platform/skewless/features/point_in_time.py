"""The offline side of the visibility rule, as SQL: for each question the feature row that was visible at its `as_of`.

Feature rows of one view become its *timeline*: only rows that win at the moment they become available are kept.

    rows:      (key, event_us, created_us, features)          as stored
    available: (key, available_us = greatest(event, created)) when a row can first be seen
    timeline:  rows whose event_us is at least that of every row available before them

At any `as_of` the visible row with the latest event time, then the latest created time, is the last row of the
timeline that is available. So one ASOF join answers a question exactly, in O(n log n), late rows included: a late row
that is older than what is known never enters the timeline, and a late correction of the same event time replaces it.

The same question can be asked as things are *finally known*: then a row counts as available from its event time on,
however late it became known, and what differs from the answer above is what arrived or was corrected afterwards.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from skewless.dtypes import ELEMENTS, TABLE, Dtype
from skewless.features.contract import FeatureContract, FeatureField, ViewRead, column_name
from skewless.features.row_order import newest_first_sql
from skewless.features.visibility import Status, available_sql, stale_sql
from skewless.timestamps import SECOND_US

EVENT_US = "skewless_event_us"
CREATED_US = "skewless_created_us"
AVAILABLE_US = "skewless_available_us"
"""Columns of `rows_sql` in microseconds; named so that no feature is called the same."""
RAW_PREFIX = "skewless_raw__"
"""Before a feature's name: the source's own number, before the cast to an integer dtype."""


class Known(StrEnum):
    """Whose knowledge a point-in-time question is answered with."""

    THEN = "then"
    """What was known at the moment asked for: what serving can have had, and what training uses."""
    FINALLY = "finally"
    """All that the source holds by now of what had happened by that moment."""


class SourceForm(StrEnum):
    """What lies at a source's path."""

    PARQUET = "parquet"
    """A file, a folder or a glob of Parquet files."""
    DELTA = "delta"
    """A Delta table: the files that its newest commit names."""


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """The Parquet files of a source as they were when somebody looked; `version` is a Delta table's, else None.

    No files are no rows. `is_partitioned`: some columns are in the names of folders (`day=2013-05-01/`) alone.
    """

    paths: tuple[str, ...]
    version: int | None = None
    is_partitioned: bool = False


@dataclass(frozen=True, slots=True)
class OfflineSource:
    """Where the rows of a view lie. `created_time` None means that a row is known at its event time.

    `view` is the name that the view is used under, which may be an alias. `columns` maps join keys and features to the
    source's column names where those differ. `files` None: `path` is one Parquet file, or nobody has looked yet.
    """

    view: str
    path: str
    event_time: str
    created_time: str | None
    columns: tuple[tuple[str, str], ...] = ()
    form: SourceForm = SourceForm.PARQUET
    files: SourceFiles | None = None

    def column(self, name: str) -> str:
        """The source's name of a join key or feature."""
        return dict(self.columns).get(name, name)


def identifier(name: str) -> str:
    """A quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A quoted SQL string."""
    return "'" + text.replace("'", "''") + "'"


def rows_sql(view: ViewRead, source: OfflineSource, known: Known = Known.THEN, *, raw: bool = False) -> str:
    """Rows of a view, typed and as stored online: join keys, EVENT_US, CREATED_US, AVAILABLE_US, features.

    `raw` adds RAW_PREFIX + name of each integer feature, the source's value as a DOUBLE.
    """
    event = f"epoch_us({identifier(source.event_time)})"
    created = f"epoch_us({identifier(source.created_time)})" if source.created_time else event
    available = available_sql(event_time=event, created_time=created) if known is Known.THEN else event
    selected = [_cast(source.column(key.key_name), key.name, TABLE[key.dtype].duckdb) for key in view.join_keys]
    selected += [f"{event} AS {EVENT_US}", f"{created} AS {CREATED_US}", f"{available} AS {AVAILABLE_US}"]
    selected += [_as_stored(source.column(feature.name), feature) for feature in view.features]
    for feature in _integers(view) if raw else ():
        original = f"TRY_CAST({identifier(source.column(feature.name))} AS DOUBLE)"
        selected.append(f"{original} AS {identifier(RAW_PREFIX + feature.name)}")
    listed = ",\n    ".join(selected)
    return f"SELECT {listed}\n  FROM {_relation(source, view)}"


def _relation(source: OfflineSource, view: ViewRead | None = None) -> str:
    """The source's rows as a table expression; of a source without files an empty one with the columns of `view`."""
    if source.files is None:
        return f"read_parquet({literal(source.path)})"
    if source.files.paths:
        listed = ", ".join(literal(path) for path in source.files.paths)
        partitioned = str(source.files.is_partitioned).lower()
        return f"read_parquet([{listed}], union_by_name = true, hive_partitioning = {partitioned})"
    columns = dict.fromkeys(filter(None, (source.event_time, source.created_time)), TABLE[Dtype.TIMESTAMP].duckdb)
    if view is not None:
        columns |= {source.column(key.key_name): TABLE[key.dtype].duckdb for key in view.join_keys}
        columns |= {source.column(feature.name): TABLE[feature.dtype].duckdb for feature in view.features}
    selected = ", ".join(f"CAST(NULL AS {kind}) AS {identifier(name)}" for name, kind in columns.items())
    return f"(SELECT {selected} WHERE false)"


def timeline_sql(view: ViewRead, source: OfflineSource, known: Known = Known.THEN, *, asked: str = "") -> str:
    """The view's timeline, as described at the top of this module.

    `asked` names a table with the join keys of the entities it is made for; empty: every entity of the source.
    """
    keys = _partition(view)
    rows = _of_entities(view, rows_sql(view, source, known), asked)
    # The features themselves end the order so that exact ties are settled the same way on every run.
    tie_break = ", ".join(identifier(feature.name) for feature in view.features)
    return (
        f"SELECT * FROM (\n  SELECT *, max({EVENT_US}) OVER (PARTITION BY {keys} ORDER BY {AVAILABLE_US}\n"
        f"    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS newest_before_us\n  FROM (\n"
        f"  {rows}\n"
        f"  QUALIFY row_number() OVER (PARTITION BY {keys}, {AVAILABLE_US}\n"
        f"    ORDER BY {newest_first_sql(event_time=EVENT_US, created_time=CREATED_US)}, {tie_break}) = 1))\n"
        f"WHERE newest_before_us IS NULL OR {EVENT_US} >= newest_before_us"
    )


def _of_entities(view: ViewRead, rows: str, asked: str) -> str:
    """`rows` of the entities in table `asked`; all of them where it is empty or the view has no entity."""
    if not asked or not view.join_keys:
        return f"SELECT * FROM ({rows})"
    keys = ", ".join(identifier(key.name) for key in view.join_keys)
    return f"SELECT * FROM ({rows}) SEMI JOIN {asked} USING ({keys})"


def entities_sql(view: ViewRead, source: OfflineSource, as_of: int, *, row_id: str, as_of_us: str) -> str:
    """A question about each entity that has a visible row at a moment (µs): `row_id` from 0 on, `as_of_us`, join keys.

    A view without an entity has one question, whether it has rows or not.
    """
    moment = f"CAST({as_of} AS BIGINT) AS {identifier(as_of_us)}"
    if not view.join_keys:
        return f"SELECT CAST(0 AS BIGINT) AS {identifier(row_id)}, {moment}"
    keys = _partition(view)
    known = " AND ".join(f"{identifier(key.name)} IS NOT NULL" for key in view.join_keys)
    rows = f"SELECT DISTINCT {keys} FROM ({rows_sql(view, source)}) WHERE {AVAILABLE_US} <= {as_of} AND {known}"
    return f"SELECT row_number() OVER () - 1 AS {identifier(row_id)}, {moment}, * FROM ({rows})"


def point_in_time_sql(
    contract: FeatureContract,
    sources: Mapping[str, OfflineSource],
    *,
    questions: str,
    row_id: str,
    as_of_us: str,
    known: Known = Known.THEN,
    timelines: Mapping[str, str] | None = None,
) -> str:
    """Values, statuses and event times of every view at every question, ordered by `row_id`.

    `questions` names a table or view with `row_id`, `as_of_us` (µs) and the join keys; `row_id` must be unique.
    `timelines` names tables that hold the views' timelines already, by view; None: they are made in the query, of the
    entities that are asked for. Result columns: `view__feature`, `status__view` (`ok`, `missing` or `stale`; a null
    value under `ok` is a stored null) and `event_us__view` (NULL where no row is visible).
    """
    asked = f"q.{identifier(as_of_us)}"
    made, joins, selected = [], [], [f"q.{identifier(row_id)} AS row_id"]
    for number, view in enumerate(contract.views):
        name = f"v{number}"
        if timelines is None:
            made.append(f"t{number} AS (\n{timeline_sql(view, sources[view.name], known, asked=questions)}\n)")
        table = f"t{number}" if timelines is None else timelines[view.name]
        equalities = [f"q.{identifier(key.name)} = {name}.{identifier(key.name)}" for key in view.join_keys]
        conditions = " AND ".join([*equalities, f"{asked} >= {name}.{AVAILABLE_US}"])
        joins.append(f"ASOF LEFT JOIN {table} {name} ON {conditions}")
        selected += _answers(view, name, asked)
    return (
        (f"WITH {', '.join(made)}\n" if made else "")
        + f"SELECT {', '.join(selected)}\nFROM {questions} q\n"
        + "\n".join(joins)
        + f"\nORDER BY q.{identifier(row_id)}"
    )


def _answers(view: ViewRead, name: str, asked: str) -> list[str]:
    """What is selected of one view, joined as `name`, at the moments `asked` (an expression)."""
    stale = stale_sql(event_time=f"{name}.{EVENT_US}", as_of=asked, ttl_us=view.ttl_us)
    selected = [
        f"CASE WHEN {stale} THEN NULL ELSE {name}.{identifier(feature.name)} END "
        f"AS {identifier(column_name(view.name, feature.name))}"
        for feature in view.features
    ]
    selected.append(
        f"CASE WHEN {name}.{EVENT_US} IS NULL THEN '{Status.MISSING}' WHEN {stale} THEN '{Status.STALE}' "
        f"ELSE '{Status.OK}' END AS {identifier(status_column(view.name))}"
    )
    selected.append(f"{name}.{EVENT_US} AS {identifier(event_time_column(view.name))}")
    return selected


def versions_sql(
    view: ViewRead, source: OfflineSource, *, questions: str, row_id: str, event_us: str, versions_max: int
) -> str:
    """Every version that the source has of the rows with certain event times, oldest version first.

    `questions` names a table with `row_id`, `event_us` (µs) and the view's join keys, each pair of row and event time
    once. Result columns: row_id, EVENT_US, CREATED_US, the features as stored, and RAW_PREFIX + name of each integer
    feature; of more than `versions_max` versions the newest.
    """
    equalities = [f"q.{identifier(key.name)} = r.{identifier(key.name)}" for key in view.join_keys]
    conditions = " AND ".join([*equalities, f"q.{identifier(event_us)} = r.{EVENT_US}"])
    features = [identifier(feature.name) for feature in view.features]
    raw = [identifier(RAW_PREFIX + feature.name) for feature in _integers(view)]
    selected = ", ".join(f"r.{each}" for each in [EVENT_US, CREATED_US, *features, *raw])
    rows = _of_entities(view, rows_sql(view, source, raw=True), questions)
    newest_first = ", ".join([f"r.{CREATED_US} DESC", *(f"r.{each}" for each in features)])
    return (
        f"SELECT q.{identifier(row_id)} AS row_id, {selected}\nFROM {questions} q JOIN ({rows}) r ON {conditions}\n"
        f"QUALIFY row_number() OVER (PARTITION BY q.{identifier(row_id)}, r.{EVENT_US} ORDER BY {newest_first}) "
        f"<= {versions_max}\nORDER BY row_id, r.{EVENT_US}, r.{CREATED_US}"
    )


def watermark_sql(source: OfflineSource) -> str:
    """The newest event time and the newest created time (µs) of a source, one row; NULL where it has no rows."""
    event = f"epoch_us(max({identifier(source.event_time)}))"
    created = f"epoch_us(max({identifier(source.created_time)}))" if source.created_time else event
    return f"SELECT {event} AS {EVENT_US}, {created} AS {CREATED_US} FROM {_relation(source)}"


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


def _integers(view: ViewRead) -> tuple[FeatureField, ...]:
    return tuple(feature for feature in view.features if feature.dtype in (Dtype.INT32, Dtype.INT64))


def _partition(view: ViewRead) -> str:
    """Partition expression of a view's entity; one constant partition where it has none."""
    return ", ".join(identifier(key.name) for key in view.join_keys) or "1"
