"""Which rows of an Arrow table are those of chosen entities, whatever types its columns have.

Declared types are not asked: rows that a gate set aside may be of others, and a table may keep numbers as texts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skewless.dtypes import Dtype
from skewless.features.chosen_entities import ChosenEntities

Matching = Callable[[pa.Table], Any]
"""Which rows of a table (bool, no nulls)."""


@dataclass(frozen=True, slots=True)
class EntityRows:
    """Rows of chosen entities that were known until `before` (µs).

    `columns` names the column of each join key. A row is known at its `created_time`, or where that is null, absent or
    no time, at its `event_time`; a row that has neither is meant as well. Where nobody named a time leave `event_time`
    empty: a row without a created time is there now, however far ahead it is dated.
    """

    entities: ChosenEntities
    columns: Mapping[str, str]
    before: int
    event_time: str = ""
    created_time: str = ""

    @property
    def read(self) -> list[str]:
        """The columns that decide."""
        named = [*self.columns.values(), self.event_time, self.created_time]
        return list(dict.fromkeys(each for each in named if each))

    def matching(self, table: pa.Table) -> Any:
        """Which rows of a table are meant (bool, no nulls); none where it lacks the column of a join key."""
        found: Any = pa.chunked_array([np.ones(table.num_rows, dtype=np.bool_)])
        for name, column in self.columns.items():
            if column not in table.column_names:
                return pc.and_(found, False)
            found = pc.and_(found, self._is(table.column(column), name))
        return pc.and_(found, pc.less_equal(self._known(table), self.before)).combine_chunks()

    def is_named(self, name: str, text: str) -> bool:
        """Whether a text, as the names of folders have it, is the value of a join key in any of its dtypes."""
        told = ChosenEntities({name: text}).forms(name)
        return any(told.get(dtype) == value for dtype, value in self.entities.forms(name).items())

    def _is(self, column: pa.ChunkedArray, name: str) -> Any:
        forms = self.entities.forms(name)
        kind = column.type
        if pa.types.is_dictionary(kind):
            column, kind = column.cast(kind.value_type), kind.value_type
        if pa.types.is_integer(kind):
            return _any_of(column, [forms.get(Dtype.INT64)], pa.int64())
        if pa.types.is_floating(kind):
            number = forms.get(Dtype.INT64)
            return _any_of(column, [None if number is None else float(str(number))], pa.float64())
        if pa.types.is_timestamp(kind):
            moment = forms.get(Dtype.TIMESTAMP)
            return _any_of(_micros(column), [moment], pa.int64())
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
            return _any_of(column, [forms.get(Dtype.BYTES), self.entities.keys[name].encode()], pa.binary())
        if pa.types.is_nested(kind):
            return pc.and_(pc.is_null(column), False)
        return _any_of(column, [self.entities.keys[name]], pa.string())

    def _known(self, table: pa.Table) -> Any:
        """When each row became known (µs, no nulls)."""
        known: Any = pa.nulls(table.num_rows, pa.int64())
        for name in (self.created_time, self.event_time):
            if name in table.column_names and pa.types.is_timestamp(table.column(name).type):
                known = pc.coalesce(known, _micros(table.column(name)))
        return pc.fill_null(known, self.before)


def _any_of(column: Any, values: list[object], kind: Any) -> Any:
    """Which rows of a column hold one of some values, none of which is None."""
    wanted = pa.array([each for each in values if each is not None], kind)
    return pc.is_in(column.cast(kind), value_set=wanted)


def _micros(column: Any) -> Any:
    """Times as µs since 1970; a time without a zone is UTC."""
    return pc.cast(pc.cast(column, pa.timestamp("us", column.type.tz), safe=False), pa.int64())
