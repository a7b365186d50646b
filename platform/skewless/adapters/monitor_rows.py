"""Answers of the monitors: dataclasses to go through, and the same rows as a table."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Generic, TypeVar, get_args, get_type_hints

import pyarrow as pa

from skewless.adapters.log_rows import LogRows

RowT = TypeVar("RowT")
_TYPES: dict[object, Any] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    datetime: pa.timestamp("us", tz="UTC"),
}


class MonitorRows(Generic[RowT]):
    """Rows of one kind, all of them in memory; to be gone through as often as wanted. As a table they have a column for
    each field of `kind`, also where there is no row."""

    def __init__(self, kind: type[RowT], rows: Sequence[RowT]) -> None:
        self.kind = kind
        self._rows = tuple(rows)

    def __iter__(self) -> Iterator[RowT]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> RowT:
        return self._rows[place]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(each.name for each in fields(self.kind))  # type: ignore[arg-type]  # kinds are dataclasses

    def arrow(self) -> Any:
        """All rows as a `pyarrow.Table`."""
        hints = get_type_hints(self.kind)
        return pa.table(
            {
                name: pa.array([_plain(getattr(row, name)) for row in self._rows], _arrow_type(hints[name]))
                for name in self.columns
            }
        )

    def pandas(self) -> Any:
        """All rows as a `pandas.DataFrame`; needs pandas."""
        return self._table(LogRows.pandas)

    def polars(self) -> Any:
        """All rows as a `polars.DataFrame`; needs polars."""
        return self._table(LogRows.polars)

    def plain(self) -> Iterator[dict[str, Any]]:
        """Rows as JSON has them: times as RFC 3339 text, NaN and infinities as null."""
        return LogRows(self.arrow()).plain()

    def write_parquet(self, path: Path) -> int:
        """Write a Parquet file, whole or not at all; returns the number of rows. Raises InvalidRequest."""
        return LogRows(self.arrow()).write_parquet(path)

    def _table(self, form: Callable[[LogRows], Any]) -> Any:
        return form(LogRows(self.arrow()))


def _arrow_type(hint: Any) -> Any:
    """The Arrow type of a field's; a tuple of strings is a list of them, whatever else is said by its text."""
    if isinstance(hint, UnionType):
        (hint,) = (each for each in get_args(hint) if each is not NoneType)
    if get_args(hint)[:1] == (str,):
        return pa.list_(pa.string())
    return next((_TYPES[each] for each in getattr(hint, "__mro__", ()) if each in _TYPES), pa.string())


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
