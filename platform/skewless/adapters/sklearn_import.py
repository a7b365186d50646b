"""Takes over fitted scikit-learn preprocessing: a Pipeline or ColumnTransformer becomes a FittedTransform.

Every step is written as expressions of our catalogue, with the parameters that scikit-learn has learned; nothing is
refitted, and no pickle is kept. Then both compute the given data, and a difference beyond the tolerance refuses the
import. A step that has no counterpart is refused by name, all of them at once.

    channel    one feature in scikit-learn's sense: its name, and the expression that computes it
    step       channels in, channels out; `sklearn_steps` has one function for each class of scikit-learn
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skewless.adapters.sklearn_steps import Channel, Importer, MappedStep
from skewless.dtypes import NUMERIC, TABLE, Column, Dtype
from skewless.errors import InvalidDefinition
from skewless.transforms import Expression, FittedTransform, column
from skewless.transforms.fitting import check_learned
from skewless.transforms.graph import Graph

TOLERANCE = 1e-5
"""Largest difference allowed, relative to numbers beyond 1: scikit-learn computes float32 data in float32."""
_ALLOWED = (*sorted(NUMERIC), Dtype.STRING)


@dataclass(frozen=True, slots=True)
class OutputComparison:
    """One output beside scikit-learn's: its name there, and the largest difference seen."""

    output: str
    sklearn_name: str
    error_max: float


@dataclass(frozen=True, slots=True)
class SklearnImport:
    """What was imported, how each step was mapped, and how its outputs compare over `rows` rows."""

    transform: FittedTransform
    mapped: tuple[MappedStep, ...]
    outputs: tuple[OutputComparison, ...]
    rows: int

    @property
    def report(self) -> str:
        """The report as text: a line per step, then a line per output."""
        lines = [f"{each.step} on {', '.join(each.columns)}: {each.became}" for each in self.mapped]
        lines += [f"note: {note}" for each in self.mapped for note in each.notes]
        lines += [f"{each.output} = {each.sklearn_name}, within {each.error_max:.1e}" for each in self.outputs]
        return "\n".join([*lines, f"compared on {self.rows:,} rows"])


def import_sklearn(
    estimator: Any,
    dtypes: Mapping[str, Dtype],
    data: pd.DataFrame,
    *,
    not_null: Collection[str] = (),
    tolerance: float = TOLERANCE,
) -> SklearnImport:
    """The fitted transformer as a FittedTransform, compared with it on `data`.

    `dtypes` gives each column that it was fitted on its dtype, in that order. A column may be null unless it is named
    in `not_null`; NaN in a float column is a null, as scikit-learn's imputers see it. Raises InvalidDefinition for
    steps that cannot be imported, for a null that can reach an output, and where outputs differ by more than
    `tolerance` (absolute below 1, relative above).
    """
    _check_columns(estimator, dtypes, not_null)
    importer = Importer()
    inputs = [
        Channel(name, column(name, dtype, nullable=name not in not_null), dtype) for name, dtype in dtypes.items()
    ]
    channels = importer.apply(estimator, inputs, type(estimator).__name__)
    importer.refuse_what_was_not_mapped()
    names = _sklearn_names(estimator, len(channels))
    graph = Graph.of(_outputs(channels, names))
    learned = {
        index: check_learned(node, importer.learned[node])
        for index, node in enumerate(graph.nodes)
        if node.operation.learned
    }
    fitted = FittedTransform(graph, learned)
    errors = _compare(estimator, fitted, dtypes, data, tolerance)
    compared = zip(fitted.output_names, names, errors, strict=True)
    return SklearnImport(fitted, tuple(importer.mapped), tuple(OutputComparison(*each) for each in compared), len(data))


def columns_of(data: pd.DataFrame, dtypes: Mapping[str, Dtype], *, not_null: Collection[str] = ()) -> dict[str, Column]:
    """Columns (rows,) of a frame; what pandas calls missing is null, but NaN of a `not_null` column stays NaN."""
    columns: dict[str, Column] = {}
    for name, dtype in dtypes.items():
        row, series = TABLE[dtype], data[name]
        missing = series.isna().to_numpy(dtype=np.bool_)
        if name in not_null and dtype in (Dtype.FLOAT32, Dtype.FLOAT64):
            values: NDArray[Any] = series.to_numpy(dtype=row.numpy, na_value=np.nan)
            missing = np.zeros(len(data), dtype=np.bool_)
        else:
            values = np.full(len(data), row.zero, dtype=row.numpy)
            values[~missing] = series[~missing].to_numpy(dtype=row.numpy)
        columns[name] = Column(dtype, np.ascontiguousarray(values), ~missing)
    return columns


def _check_columns(estimator: Any, dtypes: Mapping[str, Dtype], not_null: Collection[str]) -> None:
    fitted_on = getattr(estimator, "feature_names_in_", None)
    if fitted_on is not None and list(fitted_on) != list(dtypes):
        raise InvalidDefinition(
            f"the estimator was fitted on the columns {list(fitted_on)}, dtypes are given for {list(dtypes)}",
            hint="give a dtype for each of its columns, in its order",
        )
    unknown = sorted(set(not_null) - dtypes.keys())
    if unknown:
        raise InvalidDefinition(f"not_null names `{unknown[0]}`, which is no column; columns: {', '.join(dtypes)}")
    for name, dtype in dtypes.items():
        if dtype not in _ALLOWED:
            raise InvalidDefinition(f"column `{name}` is {dtype}; scikit-learn's steps take {', '.join(_ALLOWED)}")


def _sklearn_names(estimator: Any, count: int) -> list[str]:
    """scikit-learn's names of the outputs; numbers where a step cannot tell them."""
    try:
        names = [str(name) for name in estimator.get_feature_names_out()]
    except (AttributeError, ValueError):
        names = []
    return names if len(names) == count and len(set(names)) == count else [f"x{place}" for place in range(count)]


def _outputs(channels: Sequence[Channel], names: Sequence[str]) -> dict[str, Expression]:
    """Named outputs: a channel each, or, where the parts of one encoding stand together, the encoding itself."""
    outputs: dict[str, Expression] = {}
    place = 0
    while place < len(channels):
        parts = channels[place].parts
        together = channels[place : place + len(parts)]
        if parts and [id(each.expression) for each in together] == [id(each) for each in parts]:
            several = channels[place].several
            assert several is not None, "a channel with parts has the encoding that they are of"
            suffix = f"_{several.settings['categories'][0]}"
            outputs[_free(outputs, names[place].removesuffix(suffix))] = several
            place += len(parts)
        else:
            outputs[_free(outputs, names[place])] = channels[place].expression
            place += 1
    return outputs


def _free(outputs: Mapping[str, Expression], name: str) -> str:
    """The name, or the name with a number where it is taken."""
    tried, number = name, 2
    while tried in outputs:
        tried, number = f"{name}_{number}", number + 1
    return tried


def _compare(
    estimator: Any, fitted: FittedTransform, dtypes: Mapping[str, Dtype], data: pd.DataFrame, tolerance: float
) -> list[float]:
    """The largest difference of each output. Raises InvalidDefinition where one is beyond the tolerance."""
    columns = columns_of(data, dtypes, not_null=fitted.not_null_inputs)
    actual = fitted.prepare().apply({name: columns[name] for name, _ in fitted.inputs}, len(data))
    expected = _dense(estimator.transform(data[list(dtypes)]))
    if expected.shape != actual.shape:
        raise InvalidDefinition(f"scikit-learn gives a table of shape {expected.shape}, the import {actual.shape}")
    with np.errstate(invalid="ignore"):
        errors = np.abs(actual - expected) / np.maximum(np.abs(expected), 1.0)
    errors[(np.isnan(actual) & np.isnan(expected)) | (actual == expected)] = 0.0
    if len(data) and not (errors <= tolerance).all():
        row, place = (int(each[0]) for each in np.nonzero(~(errors <= tolerance)))
        raise InvalidDefinition(
            f"output `{fitted.output_names[place]}` is {actual[row, place]!r} in row {row}, scikit-learn gives"
            f" {expected[row, place]!r}; at most {tolerance:g} is allowed",
            hint="compare on rows that scikit-learn was fitted for; give the dtypes that the frame has",
        )
    return [float(each) for each in errors.max(axis=0, initial=0.0)]


def _dense(table: Any) -> NDArray[np.float64]:
    """scikit-learn's result (rows, outputs), whatever container it comes in."""
    dense = table.toarray() if hasattr(table, "toarray") else np.asarray(table)
    try:
        numbers: NDArray[np.float64] = dense.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidDefinition(f"scikit-learn gives outputs that are not numbers: {error}") from error
    return numbers
