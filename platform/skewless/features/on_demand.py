"""On-demand feature views: features that a function computes from whole columns, online and offline alike.

A contract names the function and pins its source (`function_source.py`); `OnDemandPlan.compile` loads it, checks it on
generated rows, and from then on only columns go in and columns come out.

    inputs:  (rows,) of each contract column that the view's sources name, after policies
    call:    one call for all rows, a dict of lists or a DataFrame        `function_values.py`
    outputs: (rows,) of each declared feature, cast to its dtype; `ok` or `null`
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.column_table import ColumnLayout, ColumnTable
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidDefinition
from skewless.features.contract import FeatureContract, Mode, OnDemandView, column_name
from skewless.features.frame import FeatureFrame, Lines
from skewless.features.function_rows import ordinary_rows, rows_with_nulls
from skewless.features.function_source import load_function
from skewless.features.function_values import WrongValue, column_from, for_pandas, for_python, items_of
from skewless.features.visibility import NO_EVENT_TIME, STATUS_CODE, Status

Load = Callable[[str], ModuleType]
"""Imports a module by its name, as `importlib.import_module` does."""


def oldest_event_times(event_times: NDArray[np.int64]) -> NDArray[np.int64]:
    """When the oldest of several rows happened (rows,), from the event times (views, rows) of what is read.

    Views without a row do not count; NO_EVENT_TIME where none has one.

    >>> oldest_event_times(np.array([[5, -1, -1], [3, 4, -1]])).tolist()
    [3, 4, -1]
    """
    if not len(event_times):
        return np.full(event_times.shape[1:], NO_EVENT_TIME, dtype=np.int64)
    never = np.iinfo(np.int64).max
    oldest: NDArray[np.int64] = np.where(event_times == NO_EVENT_TIME, never, event_times).min(axis=0)
    return np.where(oldest == never, NO_EVENT_TIME, oldest)


@dataclass(frozen=True, slots=True)
class PreparedFunction:
    """One on-demand view, ready to be called."""

    view: OnDemandView
    call: Callable[[Any], Any]
    pandas: Any
    """The module, for a function that is given a DataFrame; None otherwise."""
    dtypes: Mapping[str, Dtype]
    """Of each contract column that is read."""
    nullable: frozenset[str]
    """Contract columns in which a null can occur."""
    stored_views: tuple[str, ...]
    """Names of the stored views that are read."""

    def compute(self, columns: Mapping[str, Column], rows: int) -> list[Column]:
        """A column (rows,) per feature of the view, in order. Raises InvalidDefinition for whatever goes wrong."""
        if not rows:
            return [column_of(feature.dtype, []) for feature in self.view.features]
        inputs = self._inputs(columns, rows)
        try:
            returned = self.call(inputs)
        except Exception as error:  # the boundary to someone else's code: it may raise anything
            raise InvalidDefinition(
                f"{self._where} raised {type(error).__name__}: {error}",
                hint="the function must take every value that its inputs can have, nulls included",
            ) from error
        return [self._result(returned, inputs, feature.name, feature.dtype, rows) for feature in self.view.features]

    def _inputs(self, columns: Mapping[str, Column], rows: int) -> Any:
        if self.view.mode is Mode.PYTHON:
            lists = {name: for_python(columns[name]) for name in self.dtypes}
            return {argument: lists[name] for argument, name in self.view.inputs}
        arrays = {name: for_pandas(self.pandas, columns[name], nullable=name in self.nullable) for name in self.dtypes}
        named = {argument: arrays[name] for argument, name in self.view.inputs}
        return self.pandas.DataFrame(named, index=self.pandas.RangeIndex(rows))

    def _result(self, returned: Any, inputs: Any, feature: str, dtype: Dtype, rows: int) -> Column:
        index = None if self.view.mode is Mode.PYTHON else inputs.index
        try:
            items = items_of(returned, feature, rows=rows, index=index)
            return column_from(items, dtype)
        except WrongValue as error:
            raise InvalidDefinition(
                f"{self._where}: feature `{feature}` {error}",
                hint=f"return one value of dtype `{dtype}` per row, None where there is none",
            ) from error

    @property
    def _where(self) -> str:
        return f"on-demand view `{self.view.name}`: function `{self.view.function}`"

    def check(self) -> None:
        """Refuse a function whose result for a row depends on other rows, or which cannot take a null.

        Raises InvalidDefinition. Rows that the function refuses for other values than nulls prove nothing.
        """
        alone: list[tuple[Mapping[str, object], list[Column]]] = []
        refused = None
        for row in ordinary_rows(self.dtypes, seed=self.view.name):
            try:
                alone.append((row, self._compute_one(row)))
            except InvalidDefinition as error:
                refused = error
        if not alone:
            assert refused is not None, "no rows were generated"
            raise refused
        for emptied, row in rows_with_nulls(alone[0][0], self.nullable):
            try:
                alone.append((row, self._compute_one(row)))
            except InvalidDefinition as error:
                raise InvalidDefinition(
                    f"{self._where} cannot take a null in {emptied}, where one can occur ({error.message})",
                    hint="handle None (pandas: missing values): a stored feature is null where there is no row",
                ) from error
        self._compare(alone)

    def _compute_one(self, row: Mapping[str, object]) -> list[Column]:
        return self.compute({name: column_of(dtype, [row[name]]) for name, dtype in self.dtypes.items()}, 1)

    def _compare(self, alone: list[tuple[Mapping[str, object], list[Column]]]) -> None:
        together = {name: column_of(dtype, [row[name] for row, _ in alone]) for name, dtype in self.dtypes.items()}
        batch = self.compute(together, len(alone))
        for number, (row, expected) in enumerate(alone):
            for feature, single, many in zip(self.view.features, expected, batch, strict=True):
                if not _same(single, many, number):
                    raise InvalidDefinition(
                        f"{self._where}: feature `{feature.name}` of the row {dict(row)!r} is "
                        f"{single.values[0]!r} alone and {many.values[number]!r} among {len(alone)} rows",
                        hint="compute each row from that row alone, without clock, random numbers or state; what looks "
                        "over all rows (a mean, a rank, a shift) belongs into the source table",
                    )


def _same(single: Column, many: Column, number: int) -> bool:
    if single.valid[0] != many.valid[number]:
        return False
    if single.values.dtype.hasobject:
        return bool(single.values[0] == many.values[number])
    return single.values[:1].tobytes() == many.values[number : number + 1].tobytes()


@dataclass(frozen=True, slots=True)
class OnDemandPlan:
    """A contract's on-demand views, loaded and checked once per bundle."""

    functions: tuple[PreparedFunction, ...]

    @classmethod
    def compile(cls, contract: FeatureContract, load: Load) -> "OnDemandPlan":
        """The plan of a contract. Imports the functions' modules through `load`, and pandas only where it is used.

        Raises InvalidDefinition where a function is away, has another source than the contract pins, cannot take a
        null, or gives a row another result alone than among others.
        """
        functions = tuple(_prepare(view, contract, load) for view in contract.on_demand)
        for function in functions:
            function.check()
        return cls(functions)

    def extend(self, frame: FeatureFrame, given: Mapping[str, Column]) -> FeatureFrame:
        """The frame with the on-demand features behind the stored ones; `given` has join keys and request fields.

        The event time of an on-demand view is that of the oldest stored row it reads. Raises InvalidDefinition.
        """
        if not self.functions:
            return frame
        columns: dict[str, Column] = {}
        event_times: dict[str, NDArray[np.int64]] = {}
        for function in self.functions:
            inputs = {name: given[name] if name in given else frame.columns[name] for name in function.dtypes}
            computed = function.compute(inputs, frame.rows)
            for feature, column in zip(function.view.features, computed, strict=True):
                columns[column_name(function.view.name, feature.name)] = column
            read = [frame.event_times[view] for view in function.stored_views]
            stacked = np.array(read, dtype=np.int64).reshape(len(read), frame.rows)
            event_times[function.view.name] = oldest_event_times(stacked)
        statuses = {
            name: np.where(column.valid, STATUS_CODE[Status.OK], STATUS_CODE[Status.NULL]).astype(np.uint8)
            for name, column in columns.items()
        }
        return replace(
            frame,
            columns=_more_columns(frame.columns, columns, frame.rows),
            statuses=_more_lines(frame.statuses, statuses),
            event_times=_more_lines(frame.event_times, event_times),
        )


def _prepare(view: OnDemandView, contract: FeatureContract, load: Load) -> PreparedFunction:
    known = dict(contract.columns)
    read = dict.fromkeys(column for _, column in view.inputs)
    unknown = [column for column in read if column not in known]
    if unknown:
        raise InvalidDefinition(
            f"on-demand view `{view.name}` reads column `{unknown[0]}`, which its contract does not have"
        )
    computed = {each.name for each in contract.on_demand}
    owners = {column: owner for column, owner in contract.view_of_column.items() if owner not in computed}
    return PreparedFunction(
        view=view,
        call=load_function(view.function, view.source_digest, load),
        pandas=load("pandas") if view.mode is Mode.PANDAS else None,
        dtypes={column: known[column] for column in read},
        nullable=frozenset(read) - contract.not_null_columns,
        stored_views=tuple(dict.fromkeys(owners[column] for column in read if column in owners)),
    )


def _more_columns(columns: Mapping[str, Column], more: Mapping[str, Column], rows: int) -> Mapping[str, Column]:
    if not isinstance(columns, ColumnTable):
        return {**columns, **more}
    added = ColumnTable.from_columns(more, rows)
    return ColumnTable(
        ColumnLayout(columns.layout.blocks + added.layout.blocks),
        [*columns.value_blocks, *added.value_blocks],
        [*columns.valid_blocks, *added.valid_blocks],
        rows,
    )


def _more_lines(lines: Mapping[str, NDArray[Any]], more: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
    if not isinstance(lines, Lines):
        return {**lines, **more}
    first = len(lines.matrix)
    line = {**lines.line, **{name: first + number for number, name in enumerate(more)}}
    return Lines(line, np.concatenate([lines.matrix, np.array(list(more.values()), dtype=lines.matrix.dtype)]))
