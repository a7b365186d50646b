"""Deletion of all that the log store has about one entity: its predictions, in every role, and their outcomes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from skewless.adapters.log_store import LogStore
from skewless.adapters.log_tables import OUTCOMES, PREDICTIONS, TIMESTAMP
from skewless.adapters.log_upkeep import delete_rows
from skewless.dtypes import Dtype
from skewless.errors import InvalidRequest, NotFound
from skewless.serving.log_privacy import LogPrivacy
from skewless.timestamps import Micros

_KEY = "key."


@dataclass(frozen=True, slots=True)
class Entity:
    """Whose records: an endpoint, and values of some or all of its join keys as texts.

    `before` (µs): only what was predicted, or told, until then. `privacy` has the key under which gateways hash.
    """

    endpoint: str
    keys: Mapping[str, str]
    before: Micros
    privacy: LogPrivacy = field(default_factory=LogPrivacy)


@dataclass(frozen=True, slots=True)
class DeletedRows:
    """How many records there were."""

    predictions: int
    outcomes: int


def delete_entity(store: LogStore, entity: Entity, *, dry_run: bool = False) -> DeletedRows:
    """Delete an entity's records from the tables and from the disk, or with `dry_run` count them.

    A value also matches what gateways keep in place of it where a key is hashed. Raises NotFound for an endpoint that
    the store has no predictions of, InvalidRequest for a key that it has not or a value that is none of its type,
    Unavailable, and Conflict.
    """
    _check(store, entity)
    columns = ["prediction_id", *(f"{_KEY}{name}" for name in entity.keys)]
    ids = delete_rows(store, PREDICTIONS, entity.endpoint, _predictions(entity), columns=columns, dry_run=dry_run)
    predicted = pa.chunked_array(ids, pa.string()).combine_chunks() if ids else pa.array([], pa.string())
    told = ["outcome_id", "prediction_id", "endpoint", "entity", "received_time"]
    outcomes = delete_rows(store, OUTCOMES, None, _outcomes(entity, predicted), columns=told, dry_run=dry_run)
    return DeletedRows(len(predicted), sum(len(each) for each in outcomes))


def last_id(moment: Micros) -> str:
    """A text that is not smaller than any id that was made until a moment (µs).

    >>> last_id(Micros(0))
    '00000000-0000-8'
    """
    digits = f"{moment // 1_000:012x}"
    return f"{digits[:8]}-{digits[8:]}-8"


def _check(store: LogStore, entity: Entity) -> None:
    tables = store.tables(PREDICTIONS, entity.endpoint)
    if not tables:
        known = tuple(sorted({each.endpoint for each in store.tables(PREDICTIONS)}))
        raise NotFound("endpoint", entity.endpoint, known=known, hint="the log store has no predictions of it")
    names = {name.removeprefix(_KEY) for table in tables for name in table.schema.names if name.startswith(_KEY)}
    for name in entity.keys:
        if name not in names:
            raise InvalidRequest(
                f"`{entity.endpoint}` has no join key `{name}` in the log",
                path="--key",
                allowed=", ".join(sorted(names)) or "none: its bundles have no join keys",
            )


def _predictions(entity: Entity) -> Any:
    """Which of some predictions are the entity's."""
    newest = last_id(entity.before)

    def matching(rows: Any) -> Any:
        found = pc.less_equal(rows.column("prediction_id"), newest)
        for name, text in entity.keys.items():
            column = f"{_KEY}{name}"
            if column not in rows.column_names:
                return pa.chunked_array([pa.array([False] * rows.num_rows)])
            found = pc.and_(found, pc.fill_null(_is(rows.column(column), text, entity.privacy, name), False))
        return found

    return matching


def _outcomes(entity: Entity, predicted: Any) -> Any:
    """Which of some outcomes are about those predictions, or were told of the entity."""
    before = pa.scalar(entity.before, pa.int64()).cast(TIMESTAMP)
    texts = {name: _texts(text, entity.privacy) for name, text in entity.keys.items()}

    def matching(rows: Any) -> Any:
        of_prediction = pc.is_in(rows.column("prediction_id"), value_set=predicted)
        told_of = pc.fill_null(pc.equal(rows.column("endpoint").cast(pa.string()), entity.endpoint), False)
        entities = rows.column("entity").cast(pa.string())
        meant = [each for each in pc.unique(entities.filter(told_of)).to_pylist() if each and _says(each, texts)]
        of_entity = pc.and_(told_of, pc.is_in(entities, value_set=pa.array(meant, pa.string())))
        in_time = pc.less_equal(rows.column("received_time"), before)
        return pc.and_(in_time, pc.or_(of_prediction, of_entity))

    return matching


def _is(column: Any, text: str, privacy: LogPrivacy, name: str) -> Any:
    if pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    if pa.types.is_string(column.type):
        return pc.is_in(column, value_set=pa.array(_texts(text, privacy), pa.string()))
    try:
        return pc.equal(column, pa.scalar(text).cast(column.type))
    except pa.ArrowInvalid as error:
        raise InvalidRequest(
            f"`{text}` is no value of join key `{name}`", path="--key", allowed=f"a value of type {column.type}"
        ) from error


def _texts(text: str, privacy: LogPrivacy) -> list[str]:
    """How a value may stand in the log: as it is, and hashed where there is a key to hash with."""
    return [text, privacy.hashed(Dtype.STRING, text)] if privacy.can_hash else [text]


def _says(entity: str, texts: Mapping[str, list[str]]) -> bool:
    """Whether an outcome's entity, a JSON object of join keys, has these values."""
    told = json.loads(entity)
    values = {name: value if isinstance(value, str) else json.dumps(value) for name, value in told.items()}
    return all(values.get(name) in allowed for name, allowed in texts.items())
