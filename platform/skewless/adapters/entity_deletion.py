"""Deletion of all that the log store has about one entity: its predictions, in every role, and their outcomes."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from skewless.adapters.arrow_columns import ARROW_TYPES
from skewless.adapters.log_store import LogStore, StoredTable
from skewless.adapters.log_tables import OUTCOMES, PREDICTIONS, TIMESTAMP
from skewless.adapters.log_upkeep import Matching, delete_rows
from skewless.dtypes import Dtype
from skewless.errors import InvalidRequest, NotFound
from skewless.serving.instances import InstanceField
from skewless.serving.log_privacy import LogPrivacy
from skewless.serving.outcome_entity import EntityForm
from skewless.timestamps import Micros

_KEY = "key."
_HASHED = re.compile("[0-9a-f]{64}")
"""What `LogPrivacy.hashed` gives."""


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
    the store has no predictions of, InvalidRequest for a key that it has not, a value that is none of its type, or
    hashes that were made with an unknown key; Unavailable, and Conflict. What was stopped half-way is done by doing it
    again, and counts what is left then.
    """
    sought = _sought(_tables(store, entity), entity)
    columns = _columns(entity)
    matching = _predictions(entity, sought)
    # Outcomes are found through their predictions, which therefore go last: whatever stops this, it can be done again.
    ids = delete_rows(store, PREDICTIONS, entity.endpoint, matching, columns=columns, dry_run=True)
    predicted = pa.chunked_array(ids, pa.string()).combine_chunks() if ids else pa.array([], pa.string())
    told = ["outcome_id", "prediction_id", "endpoint", "entity", "received_time"]
    outcomes = delete_rows(store, OUTCOMES, None, _outcomes(entity, sought, predicted), columns=told, dry_run=dry_run)
    if not dry_run:
        delete_rows(store, PREDICTIONS, entity.endpoint, matching, columns=columns, dry_run=False)
    return DeletedRows(len(predicted), sum(len(each) for each in outcomes))


def predictions_of(store: LogStore, entity: Entity) -> list[Any]:
    """Ids of the predictions about an entity, a list per file that has any. Raises as `delete_entity`."""
    matching = _predictions(entity, _sought(_tables(store, entity), entity))
    return delete_rows(store, PREDICTIONS, entity.endpoint, matching, columns=_columns(entity), dry_run=True)


def last_id(moment: Micros) -> str:
    """A text that is not smaller than any id that was made until a moment (µs).

    >>> last_id(Micros(0))
    '00000000-0000-8'
    """
    digits = f"{moment // 1_000:012x}"
    return f"{digits[:8]}-{digits[8:]}-8"


@dataclass(frozen=True, slots=True)
class _Sought:
    """One value of a join key, in each form in which it may stand in the log."""

    text: str
    stored: Mapping[Dtype, list[object]]
    """What a column of a dtype holds for it; a text column also its hashes. No entry where the dtype has no such."""
    told: tuple[object, ...]
    """What the JSON of an outcome's entity holds for it."""
    knows_hashes: bool

    def is_in(self, column: Any) -> Any:
        """Which rows of a column hold it (bool, no nulls)."""
        dtype = _dtype_of(column.type)
        column = column.cast(ARROW_TYPES[dtype])
        if dtype is Dtype.STRING and pc.any(pc.match_substring_regex(column, f"^{_HASHED.pattern}$")).as_py():
            self._refuse_hashes()
        return pc.is_in(column, value_set=pa.array(self.stored.get(dtype, []), ARROW_TYPES[dtype]))

    def is_told(self, value: object) -> bool:
        """Whether a value of an outcome's entity is it."""
        if isinstance(value, str) and _HASHED.fullmatch(value):
            self._refuse_hashes()
        # JSON's true is no 1, and Python's is.
        return any(value == each and isinstance(value, bool) is isinstance(each, bool) for each in self.told)

    def _refuse_hashes(self) -> None:
        if self.knows_hashes or _HASHED.fullmatch(self.text):
            return
        raise InvalidRequest(
            "the log holds hashes of this join key, and without the key that they were made with none can be found",
            path="--key",
            allowed="a value as the log holds it, 64 hexadecimal digits",
            hint="set SKEWLESS_SHIPPER_LOG_HASH_KEY to the SKEWLESS_GATEWAY_LOG_HASH_KEY of the gateways",
        )


def _columns(entity: Entity) -> list[str]:
    """What of a prediction says whose it is, its id first."""
    return ["prediction_id", *(f"{_KEY}{name}" for name in entity.keys)]


def _tables(store: LogStore, entity: Entity) -> list[StoredTable]:
    tables = store.tables(PREDICTIONS, entity.endpoint)
    if not tables:
        known = tuple(sorted({each.endpoint for each in store.tables(PREDICTIONS)}))
        raise NotFound("endpoint", entity.endpoint, known=known, hint="the log store has no predictions of it")
    return tables


def _sought(tables: Sequence[StoredTable], entity: Entity) -> dict[str, _Sought]:
    """Each value as the types of its columns have it: those of several contracts, where the endpoint had several."""
    dtypes: dict[str, set[Dtype]] = {}
    for field_ in chain.from_iterable(table.schema for table in tables):
        if field_.name.startswith(_KEY):
            dtypes.setdefault(field_.name.removeprefix(_KEY), set()).add(_dtype_of(field_.type))
    for name in entity.keys:
        if name not in dtypes:
            raise InvalidRequest(
                f"`{entity.endpoint}` has no join key `{name}` in the log",
                path="--key",
                allowed=", ".join(sorted(dtypes)) or "none: its bundles have no join keys",
            )
    return {name: _forms(name, text, dtypes[name], entity.privacy) for name, text in entity.keys.items()}


def _forms(name: str, text: str, dtypes: Iterable[Dtype], privacy: LogPrivacy) -> _Sought:
    stored: dict[Dtype, list[object]] = {}
    told: list[object] = []
    hashes: list[object] = []
    for dtype in dtypes:
        form = EntityForm((InstanceField(name, dtype, nullable=False, role="join key"),))
        try:
            values = form.read({name: _given(dtype, text)}, "--key")
        except InvalidRequest:
            continue
        stored[dtype] = [values[name]]
        told.append(json.loads(form.kept(values, privacy))[name])
        hashes += [privacy.hashed(dtype, values[name])] if privacy.can_hash else []
    if not stored:
        allowed = " or ".join(sorted(f"`{dtype}`" for dtype in dtypes))
        raise InvalidRequest(
            f"`{text}` is no value of join key `{name}`: allowed is a value of {allowed}", path="--key"
        )
    if Dtype.STRING in stored:
        stored[Dtype.STRING] += hashes
    return _Sought(text, stored, (*told, *hashes), privacy.can_hash)


def _given(dtype: Dtype, text: str) -> object:
    """A text of the command line as the JSON of a request would have it."""
    if dtype in (Dtype.STRING, Dtype.BYTES, Dtype.TIMESTAMP):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _dtype_of(arrow_type: Any) -> Dtype:
    """The dtype of a stored join key; texts have several types in Arrow."""
    return next((dtype for dtype, each in ARROW_TYPES.items() if each == arrow_type), Dtype.STRING)


def _predictions(entity: Entity, sought: Mapping[str, _Sought]) -> Matching:
    """Which of some predictions are the entity's."""
    newest = last_id(entity.before)

    def matching(rows: Any) -> Any:
        found = pc.less_equal(rows.column("prediction_id"), newest)
        for name, value in sought.items():
            column = f"{_KEY}{name}"
            if column not in rows.column_names:
                return pa.chunked_array([pa.array([False] * rows.num_rows)])
            found = pc.and_(found, value.is_in(rows.column(column)))
        return found

    return matching


def _outcomes(entity: Entity, sought: Mapping[str, _Sought], predicted: Any) -> Matching:
    """Which of some outcomes are about those predictions, or were told of the entity."""
    before = pa.scalar(entity.before, pa.int64()).cast(TIMESTAMP)

    def matching(rows: Any) -> Any:
        of_prediction = pc.is_in(rows.column("prediction_id"), value_set=predicted)
        told_of = pc.fill_null(pc.equal(rows.column("endpoint").cast(pa.string()), entity.endpoint), False)
        entities = rows.column("entity").cast(pa.string())
        meant = [each for each in pc.unique(entities.filter(told_of)).to_pylist() if each and _says(each, sought)]
        of_entity = pc.and_(told_of, pc.is_in(entities, value_set=pa.array(meant, pa.string())))
        in_time = pc.less_equal(rows.column("received_time"), before)
        return pc.and_(in_time, pc.or_(of_prediction, of_entity))

    return matching


def _says(entity: str, sought: Mapping[str, _Sought]) -> bool:
    """Whether an outcome's entity, a JSON object of join keys, has these values."""
    told = json.loads(entity)
    return all(value.is_told(told.get(name)) for name, value in sought.items())
