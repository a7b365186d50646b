"""The SQL that makes a log's files and tables into views: predictions, outcomes, and what became of each outcome.

    predictions, outcomes, tallies    every record once, whatever set of columns it was written with
    every_prediction                  id and endpoint of each, where `predictions` has only some
    outcome_targets                   which prediction each outcome that was told by entity is about
    outcomes_told                     outcomes, with that prediction's id in the place of none
    outcomes_classed                  each outcome with its prediction, what it did, and whether it was late
    outcomes_final                    the outcome in force of each prediction: last received, then last made
    predictions_with_outcomes         predictions beside their outcome; a shadow has that of its live twin

Names and literals are quoted here; whatever else stands in the text is written in this module.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from skewless.adapters.log_sources import Source
from skewless.adapters.log_tables import OUTCOME_SCHEMA, PREDICTION_SCHEMA, TALLY_SCHEMA
from skewless.features.point_in_time import identifier, literal
from skewless.serving.outcome_terms import OutcomeTerms

CLASSES = ("first", "duplicate", "corrected", "unknown")
KEY_PREFIX = "key."
_NO_DAY = ("day",)
_TYPE_NAMES = {
    "string": "VARCHAR",
    "binary": "BLOB",
    "bool": "BOOLEAN",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
}
"""DuckDB's name of each Arrow type that a join key can have."""


@dataclass(frozen=True, slots=True)
class Scan:
    """One source as SQL can read it: `relations` are tables and functions to select from."""

    source: Source
    relations: tuple[str, ...]

    @property
    def types(self) -> dict[str, str]:
        """Arrow type by column."""
        return {each.name: str(each.type) for each in self.source.schema}

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """(join key, Arrow type), by name."""
        types = self.types
        return tuple(
            sorted((name.removeprefix(KEY_PREFIX), types[name]) for name in types if name.startswith(KEY_PREFIX))
        )


def records_schema(kind: str) -> Any:
    """The columns that every record of a kind has."""
    schema = {"predictions": PREDICTION_SCHEMA, "outcomes": OUTCOME_SCHEMA, "tallies": TALLY_SCHEMA}[kind]
    return pa.schema([each for each in schema if each.name not in _NO_DAY])


def columns_of(scans: Sequence[Scan], kind: str) -> dict[str, frozenset[str]]:
    """Every column of the scans in order, those of every record first, with the types that it has."""
    types: dict[str, set[str]] = {each.name: {str(each.type)} for each in records_schema(kind)}
    for scan in scans:
        for name, arrow_type in scan.types.items():
            types.setdefault(name, set()).add(arrow_type)
    return {name: frozenset(found) for name, found in types.items()}


def records_sql(scans: Sequence[Scan], kind: str, *, where: str = "", only: Sequence[str] | None = None) -> str:
    """Records of one kind under one set of columns; `only` has the columns wanted, None: all.

    A column that a source lacks is null there; one that sources have with several types is text.
    """
    columns = columns_of(scans, kind)
    names = list(columns) if only is None else list(only)
    if not any(scan.relations for scan in scans):
        return _empty_sql(kind, names)
    selects = []
    for scan in scans:
        known = scan.types
        listed = ", ".join(_column(name, known, columns[name]) for name in names)
        selects += [f"SELECT {listed} FROM {relation}{_where(where)}" for relation in scan.relations]
    return " UNION ALL ".join(selects)


def targets_sql(scans: Sequence[Scan], terms: Mapping[str, OutcomeTerms]) -> str:
    """outcome_id, prediction_id: for outcomes told by entity, of the predictions of any entity with the same keys
    that answered a caller, the latest at the moment asked about, and not older than the endpoint's outcome window."""
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[Scan]] = {}
    for scan in scans:
        if scan.keys:
            groups.setdefault((scan.source.endpoint, scan.keys), []).append(scan)
    if not groups:
        return "SELECT NULL::VARCHAR AS outcome_id, NULL::VARCHAR AS prediction_id WHERE false"
    parts = " UNION ALL ".join(
        _nearest_sql(endpoint, keys, of_keys, terms.get(endpoint, OutcomeTerms()))
        for (endpoint, keys), of_keys in groups.items()
    )
    return (
        "SELECT outcome_id, arg_max(prediction_id, (as_of, prediction_id)) AS prediction_id "
        f"FROM ({parts}) GROUP BY outcome_id"
    )


def _nearest_sql(endpoint: str, keys: tuple[tuple[str, str], ...], scans: Sequence[Scan], terms: OutcomeTerms) -> str:
    names = [name for name, _ in keys]
    told = ", ".join(f"{identifier(name)}: {_from_json(name, arrow_type)}" for name, arrow_type in keys)
    kept = ", ".join(f"{identifier(name)}: {identifier(KEY_PREFIX + name)}" for name in names)
    listed = ", ".join(map(literal, names))
    wanted = ["prediction_id", "as_of", "role", *(KEY_PREFIX + name for name in names)]
    return (
        f"SELECT outcome_id, found.prediction_id, found.as_of FROM ("
        f'SELECT outcome_id, "at" AS asked, {{{told}}} AS entity FROM outcomes '
        f"WHERE endpoint = {literal(endpoint)} AND json_keys(entity) = [{listed}]) AS told "
        f"ASOF JOIN (SELECT {{{kept}}} AS entity, as_of, max(prediction_id) AS prediction_id "
        f"FROM ({records_sql(scans, 'predictions', only=wanted)}) WHERE role <> 'shadow' AND entity IN ("
        f"SELECT {{{told}}} FROM outcomes WHERE endpoint = {literal(endpoint)} AND json_keys(entity) = [{listed}]) "
        f"GROUP BY ALL) AS found ON told.entity = found.entity AND told.asked >= found.as_of "
        f"WHERE found.as_of >= told.asked - to_microseconds({terms.outcome_window_us})"
    )


TOLD_SQL = (
    "SELECT outcomes.* REPLACE (coalesce(outcomes.prediction_id, target.prediction_id) AS prediction_id) "
    "FROM outcomes LEFT JOIN outcome_targets AS target "
    "ON outcomes.outcome_id = target.outcome_id AND outcomes.prediction_id IS NULL"
)


def classed_sql(terms: Mapping[str, OutcomeTerms]) -> str:
    """Every outcome with `predicted_endpoint`, `class`, `delay_us` (from prediction to receipt) and `is_late`."""
    horizons = " ".join(
        f"WHEN {literal(endpoint)} THEN {each.label_horizon_us}"
        for endpoint, each in sorted(terms.items())
        if each.label_horizon_us is not None
    )
    horizon = f"CASE known.endpoint {horizons} END" if horizons else "NULL"
    delay = f"epoch_us(told.received_time) - {made_us('known.prediction_id')}"
    return (
        "SELECT told.*, known.endpoint AS predicted_endpoint, CASE WHEN known.prediction_id IS NULL THEN 'unknown' "
        "WHEN row_number() OVER in_order = 1 THEN 'first' "
        "WHEN label = lag(label) OVER in_order AND outcome_time IS NOT DISTINCT FROM lag(outcome_time) OVER in_order "
        f"THEN 'duplicate' ELSE 'corrected' END AS class, {delay} AS delay_us, "
        f"coalesce({delay} > {horizon}, false) AS is_late "
        "FROM outcomes_told AS told LEFT JOIN every_prediction AS known ON told.prediction_id = known.prediction_id "
        "WINDOW in_order AS (PARTITION BY told.prediction_id ORDER BY received_time, outcome_id)"
    )


FINAL_SQL = (
    "SELECT * FROM outcomes_told WHERE prediction_id IS NOT NULL "
    "QUALIFY row_number() OVER (PARTITION BY prediction_id ORDER BY received_time DESC, outcome_id DESC) = 1"
)

JOINED_SQL = (
    "SELECT predictions.*, told.label AS outcome, told.outcome_id, told.outcome_time, "
    "told.received_time AS outcome_received_time, told.caller AS outcome_caller "
    "FROM predictions LEFT JOIN outcomes_final AS told "
    "ON coalesce(predictions.live_prediction_id, predictions.prediction_id) = told.prediction_id"
)


def made_us(column: str) -> str:
    """When a prediction was made, by its UUIDv7, as µs; null for an id of another form."""
    return f"TRY_CAST('0x' || replace(left({column}, 13), '-', '') AS BIGINT) * 1000"


def since_sql(column: str, start: int | None, end: int | None) -> str:
    """The condition that a time is from `start` to before `end` (µs); empty where neither is given."""
    bounds = [("<=", start), (">", end)]
    return " AND ".join(f"make_timestamptz({moment}) {sign} {column}" for sign, moment in bounds if moment is not None)


def _empty_sql(kind: str, names: Sequence[str]) -> str:
    types = {each.name: each.type for each in records_schema(kind)}
    listed = ", ".join(f"NULL::{_type_name(types.get(name, pa.string()))} AS {identifier(name)}" for name in names)
    return f"SELECT {listed} WHERE false"


def _type_name(arrow_type: Any) -> str:
    if pa.types.is_map(arrow_type):
        return "MAP(VARCHAR, DOUBLE)"
    return _TYPE_NAMES[str(arrow_type)]


def _column(name: str, known: Mapping[str, str], types: frozenset[str]) -> str:
    if name not in known:
        return f"NULL AS {identifier(name)}"
    if len(types) > 1:
        return f"CAST({identifier(name)} AS VARCHAR) AS {identifier(name)}"
    return identifier(name)


def _where(condition: str) -> str:
    return f" WHERE {condition}" if condition else ""


def _from_json(name: str, arrow_type: str) -> str:
    """A join key's value out of an outcome's entity, in the type of the log's column."""
    path = literal('$."' + name.replace('"', '\\"') + '"')
    text = f"json_extract_string(entity, {path})"
    if arrow_type == "string":
        return text
    return f"from_base64({text})" if arrow_type == "binary" else f"TRY_CAST({text} AS {_TYPE_NAMES[arrow_type]})"
