"""What a caller asks with, checked and turned into columns: join keys, request fields and a moment."""

import difflib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from skewless.dtypes import Column, Dtype
from skewless.errors import InvalidRequest, LimitExceeded
from skewless.features.contract import FeatureContract
from skewless.features.function_values import WrongValue, column_from
from skewless.limits import ROWS_MAX
from skewless.timestamps import parse_timestamp, to_micros

Moment = datetime | str
"""An aware datetime, or an RFC 3339 text."""

_MISSING_VALUES = frozenset({"NAType", "NaTType"})
"""Names of pandas' types for what is missing; pandas itself is not needed to know them."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: entities, request fields and the moment."""

    keys: Mapping[str, Column]
    """A Column (rows,) per join key."""
    request: Mapping[str, Column]
    rows: int
    as_of: int


@dataclass(frozen=True, slots=True)
class QuestionReader:
    """Checks what callers give against a contract."""

    keys: Mapping[str, Dtype]
    request: Mapping[str, Dtype]
    needed: frozenset[str]
    """Request fields that an on-demand view reads; the others of the contract may be left out."""

    @classmethod
    def compile(cls, contract: FeatureContract) -> "QuestionReader":
        """The reader of a contract's questions."""
        request = {field.name: field.dtype for field in contract.request_fields}
        read = {column for view in contract.on_demand for _, column in view.inputs}
        return cls({key.name: key.dtype for key in contract.join_keys}, request, frozenset(read & request.keys()))

    def question(self, keys: Mapping[str, Any], request: Mapping[str, Any] | None, as_of: Moment | None) -> Question:
        """The question of one read. Raises InvalidRequest, naming the path and what is allowed, and LimitExceeded."""
        _check_names(keys, self.keys, self.keys.keys(), "keys")
        given = request or {}
        _check_names(given, self.request, self.needed, "request")
        items = {("keys", name): _items(values, f"$.keys.{name}") for name, values in keys.items()}
        items |= {("request", name): _items(values, f"$.request.{name}") for name, values in given.items()}
        rows = _rows({f"$.{part}.{name}": len(listed) for (part, name), listed in items.items()})
        return Question(
            keys={name: _column(items["keys", name], dtype, f"$.keys.{name}") for name, dtype in self.keys.items()},
            request={name: _column(items["request", name], self.request[name], f"$.request.{name}") for name in given},
            rows=rows,
            as_of=_moment(as_of),
        )


def _check_names(given: Mapping[str, Any], known: Mapping[str, Dtype], needed: Collection[str], part: str) -> None:
    allowed = ", ".join(f"`{name}`" for name in known) or "none"
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise InvalidRequest(
                f"$.{part}.{name} is not among the {part} of the contract",
                path=f"$.{part}.{name}",
                allowed=allowed,
                hint=f"did you mean `{close[0]}`?" if close else f"allowed: {allowed}",
            )
    for name in needed:
        if name not in given:
            raise InvalidRequest(
                f"$.{part}.{name} is not given", path=f"$.{part}.{name}", allowed=allowed, hint="one value per row"
            )


def _items(values: Any, path: str) -> list[Any]:
    """One Python value per row out of a list, a NumPy array, a pandas Series or an Arrow array."""
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind == "M":
        raise InvalidRequest(
            f"{path} is an array of datetime64, which has no time zone",
            path=path,
            allowed="aware datetimes or RFC 3339 texts",
            hint='with pandas: `series.dt.tz_localize("UTC")`',
        )
    for method in ("to_pylist", "tolist"):
        if hasattr(values, method):
            values = getattr(values, method)()
            break
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise InvalidRequest(
            f"{path} is a {type(values).__name__}",
            path=path,
            allowed="a list, a NumPy array, a pandas Series or an Arrow array with one value per row",
            hint="one row is a list with one value",
        )
    return [None if type(item).__name__ in _MISSING_VALUES else item for item in values]


def _rows(counts: Mapping[str, int]) -> int:
    """How many rows are asked for: as many as each thing given has; one where nothing is."""
    rows = next(iter(counts.values()), 1)
    for path, count in counts.items():
        if count != rows:
            first = next(iter(counts))
            raise InvalidRequest(
                f"{path} has {count} values, {first} has {rows}", path=path, allowed="as many values everywhere"
            )
    if rows > ROWS_MAX:
        raise LimitExceeded(
            f"{rows} rows are asked for", path="$.keys", allowed=f"at most {ROWS_MAX} rows", hint="read them in slices"
        )
    return rows


def _column(items: Sequence[Any], dtype: Dtype, path: str) -> Column:
    try:
        if dtype is Dtype.TIMESTAMP:
            items = [_datetime(item) if isinstance(item, str) else item for item in items]
        if dtype is Dtype.STRING:
            for item in items:
                if isinstance(item, str):
                    item.encode()  # a lone surrogate is no text that a key could be made of
        return column_from(items, dtype)
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{path} is not text: {error}", path=path, allowed="Unicode text") from error
    except WrongValue as error:
        raise InvalidRequest(f"{path} {error}", path=path, allowed=f"`{dtype}` values, None for none") from error


def _datetime(text: str) -> datetime:
    """The aware datetime of an RFC 3339 text. Raises WrongValue."""
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise WrongValue(f"has {text!r}, which is no timestamp: {error}") from error


def _moment(as_of: Moment | None) -> int:
    if as_of is None:
        return time.time_ns() // 1_000
    try:
        return parse_timestamp(as_of) if isinstance(as_of, str) else to_micros(as_of)
    except ValueError as error:
        raise InvalidRequest(
            f"as_of is no moment: {error}", path="$.as_of", allowed="an aware datetime or an RFC 3339 text"
        ) from error
