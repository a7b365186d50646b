"""Whether columns are what a transform was declared to read."""

from collections.abc import Mapping

from skewless.column_table import ColumnLayout
from skewless.dtypes import TABLE, Column
from skewless.errors import InvalidDefinition
from skewless.transforms.graph import InputColumn


def check_columns(inputs: tuple[InputColumn, ...], columns: Mapping[str, Column], rows: int) -> None:
    """Raise InvalidDefinition, naming the column, unless every input is there, of its dtype, with `rows` rows."""
    for each in inputs:
        column = columns.get(each.name)
        if column is None:
            raise _missing(inputs, each)
        if column.dtype is not each.dtype or column.values.dtype != TABLE[each.dtype].numpy:
            raise InvalidDefinition(
                f"column `{each.name}` is {column.dtype} in an array of {column.values.dtype};"
                f" the transform reads it as {each.dtype} in an array of {TABLE[each.dtype].numpy}"
            )
        if column.values.shape != (rows,) or column.valid.shape != (rows,):
            raise InvalidDefinition(
                f"column `{each.name}` has values of shape {column.values.shape} and validity of shape"
                f" {column.valid.shape}; both must be ({rows},)"
            )
        if not each.nullable and not column.valid.all():
            raise InvalidDefinition(
                f"column `{each.name}` is null in row {int(column.valid.argmin())}, but is declared not nullable",
                hint="declare it nullable and impute it, or have the field refused where it enters",
            )


def check_layout(inputs: tuple[InputColumn, ...], layout: ColumnLayout) -> None:
    """Raise InvalidDefinition, naming the column, unless every input is in the layout with its dtype."""
    for each in inputs:
        place = layout.place.get(each.name)
        if place is None:
            raise _missing(inputs, each)
        dtype = layout.blocks[place[0]][0]
        if dtype is not each.dtype:
            raise InvalidDefinition(f"column `{each.name}` is {dtype}; the transform reads it as {each.dtype}")


def _missing(inputs: tuple[InputColumn, ...], missing: InputColumn) -> InvalidDefinition:
    read = ", ".join(f"`{each.name}`" for each in inputs)
    return InvalidDefinition(f"column `{missing.name}` is missing; the transform reads {read}")
