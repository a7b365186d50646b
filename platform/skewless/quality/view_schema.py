"""The columns that a batch of a view's rows must have: what Feast's definitions say, under the source's names."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from skewless.dtypes import Dtype
from skewless.features.contract import LogMark, ViewRead
from skewless.features.point_in_time import OfflineSource


class Role(StrEnum):
    """What a column is to its view."""

    KEY = "join key"
    FEATURE = "feature"
    EVENT_TIME = "event time"
    CREATED_TIME = "created time"


@dataclass(frozen=True, slots=True)
class SchemaColumn:
    """One column of a view's source. `told` is False where its values are marked to stay out of logs."""

    name: str
    dtype: Dtype
    role: Role
    told: bool = True
    served_as: str = ""
    """The join key or feature that it is, where the source calls it otherwise."""

    @property
    def served_name(self) -> str:
        """What the online store knows it as."""
        return self.served_as or self.name


@dataclass(frozen=True)
class ViewSchema:
    """A view's columns: join keys, features, then times."""

    view: str
    columns: tuple[SchemaColumn, ...]

    @cached_property
    def by_name(self) -> Mapping[str, SchemaColumn]:
        """Every column by its name in the source."""
        return {each.name: each for each in self.columns}

    def names(self, *roles: Role) -> tuple[str, ...]:
        """Names of the columns with these roles, in order; of all where none is given."""
        return tuple(each.name for each in self.columns if not roles or each.role in roles)

    @property
    def identity(self) -> tuple[str, ...]:
        """Columns that together name one row of the source: join keys and times."""
        return self.names(Role.KEY, Role.EVENT_TIME, Role.CREATED_TIME)

    @property
    def times(self) -> frozenset[str]:
        """Columns of times, features among them."""
        return frozenset(each.name for each in self.columns if each.dtype is Dtype.TIMESTAMP)


def schema_of(view: ViewRead, source: OfflineSource) -> ViewSchema:
    """The columns of a view's source; `view` has all features of the view under its own join keys.

    Values of what is marked to stay out of the prediction log are not told either.
    """
    keys = [(each.key_name, each.dtype, Role.KEY, each.log) for each in view.join_keys]
    features = [(each.name, each.dtype, Role.FEATURE, each.log) for each in view.features]
    columns = [
        SchemaColumn(source.column(name), dtype, role, mark is LogMark.KEEP, name)
        for name, dtype, role, mark in [*keys, *features]
    ]
    columns.append(SchemaColumn(source.event_time, Dtype.TIMESTAMP, Role.EVENT_TIME))
    if source.created_time:
        columns.append(SchemaColumn(source.created_time, Dtype.TIMESTAMP, Role.CREATED_TIME))
    return ViewSchema(view.view, tuple(columns))


@dataclass(frozen=True, slots=True)
class SchemaFault:
    """A column that a batch lacks (then `found` is empty), or has in another type than the declared one."""

    column: SchemaColumn
    found: str
    reason: str = ""

    @property
    def message(self) -> str:
        """What is wrong and what was expected."""
        if not self.found:
            return f"column `{self.column.name}` ({self.column.role}, {self.column.dtype}) is missing"
        told = f": {self.reason}" if self.reason else ""
        return f"column `{self.column.name}` ({self.column.role}) is {self.found}, declared {self.column.dtype}{told}"

    @property
    def hint(self) -> str:
        """What a data engineer does about it."""
        if not self.found:
            return (
                f"have the job that writes the table write `{self.column.name}` again; if it was renamed, give the"
                " source a field_mapping; if it is gone for good, remove it from the view and train anew"
            )
        return (
            f"cast `{self.column.name}` to {self.column.dtype} where the table is written; if the new type is meant,"
            " declare it in features.py, which makes a new contract, and train anew"
        )
