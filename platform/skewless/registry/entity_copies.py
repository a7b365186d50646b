"""What the registry's database has copied of entities: examples of mismatches, unseen words, values in quality results.

Counts (tallies, metrics) stay: they say how many, not who. Texts of quality results stay as well, with the value taken
out of them.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import String, cast, delete, func, or_, select
from sqlalchemy.orm import Session

from skewless.features.chosen_entities import ChosenEntities
from skewless.ingest_limits import ERASURE_IDS_AT_ONCE
from skewless.registry.drift_tables import DriftWordRow
from skewless.registry.parity_tables import ParityExampleRow
from skewless.registry.quality_tables import QualityResultRow
from skewless.registry.transactions import RegistryPart

EXAMPLES, WORDS, RESULTS = "parity examples", "unseen words", "values in quality results"
DELETED = "(deleted)"
"""What stands in a text in place of a value."""
_WORD_CHARACTERS_MIN = 3
"""Shorter values are words of any sentence; they are taken out where a whole value is named."""


@dataclass(frozen=True, slots=True)
class CopiesOf:
    """Whose: the entities, and ids of their predictions."""

    entities: ChosenEntities
    prediction_ids: Collection[str] = ()


class EntityCopies(RegistryPart):
    """See the module. Threads and processes may share it."""

    def look(self, wanted: CopiesOf) -> dict[str, int]:
        """How many there are, by kind."""
        with self._transactions.read() as session:
            found = {
                EXAMPLES: sum(1 for part in _parts(wanted.prediction_ids) for _ in session.scalars(_examples(part))),
                WORDS: session.scalar(select(func.count()).select_from(DriftWordRow).where(_is_word(wanted))) or 0,
                RESULTS: sum(1 for _ in _results(session, wanted)),
            }
        return {kind: count for kind, count in found.items() if count}

    def erase(self, wanted: CopiesOf) -> None:
        """Take all of them out in one transaction."""
        with self._transactions.write() as session:
            if session.get_bind().dialect.name == "sqlite":
                # What is freed is overwritten with zeros in the file, from here on in this connection.
                session.connection().exec_driver_sql("PRAGMA secure_delete = ON")
            for part in _parts(wanted.prediction_ids):
                session.execute(delete(ParityExampleRow).where(ParityExampleRow.prediction_id.in_(part)))
            session.execute(delete(DriftWordRow).where(_is_word(wanted)))
            for row in list(_results(session, wanted)):
                row.told, row.hint = (_without(wanted, text) for text in (row.told, row.hint))
                row.observed, row.kwargs = (_without_leaves(wanted, each) for each in (row.observed, row.kwargs))

    def forget_history(self) -> str:
        """Have SQLite's files forget what was deleted; why not, or empty. Other databases are their operators'."""
        with self._transactions.read() as session:
            if session.get_bind().dialect.name != "sqlite":
                return ""
            connection = session.connection()
            connection.exec_driver_sql("COMMIT")  # a checkpoint is refused within a transaction, even one that reads
            busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar()
            connection.exec_driver_sql("BEGIN")
        return "somebody reads the database; its write-ahead log goes with the next checkpoint" if busy else ""


def _parts(ids: Collection[str]) -> Iterator[Sequence[str]]:
    listed = sorted(ids)
    for start in range(0, len(listed), ERASURE_IDS_AT_ONCE):
        yield listed[start : start + ERASURE_IDS_AT_ONCE]


def _examples(ids: Sequence[str]) -> Any:
    return select(ParityExampleRow.number).where(ParityExampleRow.prediction_id.in_(ids))


def _is_word(wanted: CopiesOf) -> Any:
    """Which unseen words are values of the entities, of whatever feature: nobody keeps which of them are keys."""
    return DriftWordRow.word.in_(list(wanted.entities.texts))


def _results(session: Session, wanted: CopiesOf) -> Iterator[QualityResultRow]:
    # Plain data is kept as JSON text, in which a value is as it is (PostgreSQL) or escaped (SQLite).
    values = {form for each in wanted.entities.texts for form in (each, json.dumps(each)[1:-1])}
    plain = (cast(each, String) for each in (QualityResultRow.observed, QualityResultRow.kwargs))
    texts = (QualityResultRow.told, QualityResultRow.hint, *plain)
    may_hold = or_(*(text.contains(value, autoescape=True) for text in texts for value in values))
    for row in session.scalars(select(QualityResultRow).where(may_hold)):
        held = [row.told, row.hint, row.observed, row.kwargs]
        if held != [_without_leaves(wanted, each) for each in held]:
            yield row


def _without(wanted: CopiesOf, text: str) -> str:
    """A sentence without the values: as whole words where they can be nothing else, else as it quotes values."""
    for value in wanted.entities.texts:
        is_name = len(value) >= _WORD_CHARACTERS_MIN and not value.isdigit()
        pattern = rf"(?<!\w){re.escape(value)}(?!\w)" if is_name else rf"(?<=`){re.escape(value)}(?=`)"
        text = re.sub(pattern, DELETED, text)
    return text


def _without_leaves(wanted: CopiesOf, value: Any) -> Any:
    """Plain data without the values, which stand in it whole or in sentences."""
    if isinstance(value, Mapping):
        return {name: _without_leaves(wanted, each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_leaves(wanted, each) for each in value]
    if isinstance(value, str):
        return DELETED if value in wanted.entities.texts else _without(wanted, value)
    return value
