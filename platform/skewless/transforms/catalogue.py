"""Every operation by its name, as stored transforms call them. Each family lists its own."""

from typing import ClassVar

from skewless.dtypes import NUMERIC, Dtype
from skewless.errors import InvalidDefinition
from skewless.transforms import (
    arithmetic_operations,
    cast_operations,
    category_operations,
    checks,
    number_operations,
    statistic_operations,
    step_operations,
    text_operations,
    time_operations,
)
from skewless.transforms.operation import Kind, Operation, Settings


class ReadColumn(Operation):
    """A column of the input, of its declared dtype; every number is read as float64 (int64 beyond 2**53 rounds)."""

    name = "column"
    operands = ()
    settings: ClassVar[checks.Checks] = {"name": checks.name, "dtype": checks.column_dtype, "nullable": checks.flag}

    def result_kind(self, settings: Settings) -> Kind:
        dtype = Dtype(settings["dtype"])
        if dtype in NUMERIC:
            return Kind.NUMBER
        return Kind.STRING if dtype is Dtype.STRING else Kind.TIMESTAMP

    def nullable(self, operands: object, settings: Settings) -> bool:  # noqa: ARG002
        return bool(settings["nullable"])

    def text(self, operands: object, settings: Settings) -> str:  # noqa: ARG002
        return str(settings["name"])


COLUMN = ReadColumn()

CATALOGUE: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        COLUMN,
        *number_operations.OPERATIONS,
        *arithmetic_operations.OPERATIONS,
        *statistic_operations.OPERATIONS,
        *cast_operations.OPERATIONS,
        *text_operations.OPERATIONS,
        *category_operations.OPERATIONS,
        *time_operations.OPERATIONS,
        *step_operations.OPERATIONS,
    )
}


def operation_named(name: object) -> Operation:
    """The operation of that name. Raises InvalidDefinition where this version has none."""
    operation = CATALOGUE.get(name) if isinstance(name, str) else None
    if operation is None:
        raise InvalidDefinition(
            f"a transform uses the operation {name!r}, which this version does not have."
            f" It has: {', '.join(sorted(CATALOGUE))}",
            hint="serve it with the version of Skewless that wrote it, or fit it again with this one",
        )
    return operation
