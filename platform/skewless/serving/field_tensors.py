"""Tensors by name ↔ the columns of a request: an endpoint as a model of the Open Inference Protocol (OIP).

    tensors:  {"origin": BYTES [rows, 1], "distance": FP32 [rows, 1], "distance__valid": BOOL [rows, 1], …}
    columns:  {"origin": Column (rows,), "distance": Column (rows,), …}

An input is a field of an instance, in the datatype that the one table of dtypes gives it; nothing is cast. Tensors have
no null, so a field that may be null takes a second input, `<field>__valid`: False says that the row is null. It may be
left out where no row is. NaN is refused as in JSON requests: whether it means null is not ours to guess.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import TABLE, Column, Dtype
from skewless.errors import InvalidRequest, LimitExceeded
from skewless.limits import ROWS_MAX
from skewless.serving.answer_tensors import TensorSpec
from skewless.serving.field_types import shown
from skewless.serving.instances import InstanceField, InstanceValidator, unknown_name
from skewless.serving.tensor_values import WrongContents, WrongElement, column_of_list, column_of_raw

VALID_SUFFIX = "__valid"
"""Ends the name of the input that says which rows of a field are not null."""


@dataclass(frozen=True, slots=True)
class GivenTensor:
    """An input as a caller sent it, unchecked. Either `data` or `raw` holds its elements, in row-major order.

    `data` has Python values, flat or one list per row; elements of BYTES are `str` or `bytes`. `raw` is little-endian;
    each element of BYTES is preceded by its length in four bytes. `path` says where it stands, as `$.inputs[2]`.
    """

    name: str
    datatype: str
    shape: Sequence[int]
    path: str
    data: Sequence[object] | None = None
    raw: bytes | memoryview | None = None


@dataclass(frozen=True, slots=True)
class FieldTensors:
    """Turns named tensors into the columns of a request, for the fields of one validator."""

    inputs: tuple[TensorSpec, ...]
    """Every field, then what says which rows of those that may be null are valid."""
    _fields: tuple[InstanceField, ...]
    _datatypes: Mapping[str, str]
    _companions: frozenset[str]

    @classmethod
    def compile(cls, validator: InstanceValidator) -> "FieldTensors":
        """The tensors of a validator's fields. A field whose name says the validity of another one stays a field."""
        fields = tuple(TensorSpec(field.name, TABLE[field.dtype].triton) for field in validator.fields)
        names = {field.name for field in validator.fields}
        companions = tuple(
            TensorSpec(field.name + VALID_SUFFIX, TABLE[Dtype.BOOL].triton, optional=True)
            for field in validator.fields
            if field.nullable and field.name + VALID_SUFFIX not in names
        )
        return cls(
            (*fields, *companions),
            validator.fields,
            {spec.name: spec.datatype for spec in (*fields, *companions)},
            frozenset(spec.name for spec in companions),
        )

    def columns(self, tensors: Sequence[GivenTensor]) -> tuple[dict[str, Column], int]:
        """A Column (rows,) per field, in the order of the fields, and the number of rows.

        Raises InvalidRequest at the first wrong place, LimitExceeded for more than ROWS_MAX rows.
        """
        given = self._by_name(tensors)
        for field in self._fields:
            if field.name not in given:
                raise self._missing(field)
        rows = _rows_of(given[self._fields[0].name]) if self._fields else 0
        for tensor in given.values():
            self._check(tensor, rows)
        every = np.ones(rows, dtype=np.bool_)
        return {field.name: self._column(field, given, every) for field in self._fields}, rows

    def _by_name(self, tensors: Sequence[GivenTensor]) -> dict[str, GivenTensor]:
        given: dict[str, GivenTensor] = {}
        for tensor in tensors:
            if tensor.name not in self._datatypes:
                raise unknown_name(tensor.name, tuple(self._datatypes), path="$.inputs", what="input")
            if tensor.name in given:
                raise _wrong(tensor, f"input `{tensor.name}` is given twice", allowed="each input once", part="name")
            given[tensor.name] = tensor
        return given

    def _missing(self, field: InstanceField) -> InvalidRequest:
        nulls = field.name + VALID_SUFFIX in self._companions
        return InvalidRequest(
            f"there is no input for {field.role} `{field.name}`",
            path=f"$.inputs.{field.name}",
            allowed=f"{self._datatypes[field.name]} of shape [rows, 1] or [rows]",
            hint=f"where rows are null, say so by the BOOL input `{field.name}{VALID_SUFFIX}`" if nulls else "",
            code="missing_field",
        )

    def _check(self, tensor: GivenTensor, rows: int) -> None:
        datatype = self._datatypes[tensor.name]
        if tensor.datatype != datatype:
            raise InvalidRequest(
                f"input `{tensor.name}` has the datatype {shown(tensor.datatype)}",
                path=f"{tensor.path}.datatype",
                allowed=f"`{datatype}`",
                hint="nothing is cast here; cast it where you know what it means",
                code="mistyped_field",
            )
        if (found := _rows_of(tensor)) != rows:
            raise _wrong(
                tensor,
                f"input `{tensor.name}` has {found} rows, `{self._fields[0].name}` has {rows}",
                allowed="the same number of rows in every input",
            )

    def _column(self, field: InstanceField, given: Mapping[str, GivenTensor], every: NDArray[np.bool_]) -> Column:
        valid: NDArray[np.bool_] | None = None
        if field.nullable:
            companion = field.name + VALID_SUFFIX
            if companion in self._companions and companion in given:
                told = _read(given[companion], _flag(companion), every, None)
                valid = told.values.astype(np.bool_, copy=False)
        return _read(given[field.name], field, every, valid)


@lru_cache(maxsize=256)
def field_tensors(validator: InstanceValidator) -> FieldTensors:
    """The compiled tensors of a validator, kept."""
    return FieldTensors.compile(validator)


def _flag(name: str) -> InstanceField:
    """What says validity, as a field of its own."""
    return InstanceField(name, Dtype.BOOL, nullable=False, role="input")


def _read(
    tensor: GivenTensor, field: InstanceField, every: NDArray[np.bool_], valid: NDArray[np.bool_] | None
) -> Column:
    """The column of one tensor whose datatype and shape are right; `every` and `valid` as for `column_of_raw`."""
    dtype = field.dtype
    try:
        if tensor.raw is not None:
            return column_of_raw(dtype, tensor.raw, every, valid)
        return column_of_list(dtype, _flat(tensor, len(every)), valid, nullable=field.nullable)
    except WrongContents as wrong:
        raise _wrong(
            tensor, f"the contents of {_named(field)} {wrong.reason}", allowed=wrong.allowed, part="data"
        ) from wrong
    except WrongElement as wrong:
        mismatch = wrong.mismatch
        raise InvalidRequest(
            f"{_named(field)} {mismatch.reason}: {wrong.value}",
            path=f"{tensor.path}.data[{wrong.index}]",
            allowed=mismatch.allowed + (", or null" if field.nullable and tensor.raw is None else ""),
            hint=mismatch.hint,
            code="mistyped_field",
        ) from wrong


def _named(field: InstanceField) -> str:
    return f"{field.role} `{field.name}` (dtype `{field.dtype}`)"


def _rows_of(tensor: GivenTensor) -> int:
    """The rows that its shape says. Raises InvalidRequest, LimitExceeded."""
    shape = tuple(tensor.shape[:3])  # what is longer is refused, and need not be shown
    if not (1 <= len(shape) <= 2 and all(type(each) is int for each in shape) and shape[1:] in ((), (1,))):
        raise _wrong(tensor, f"input `{tensor.name}` has the shape {shown(list(shape))}", allowed="[rows, 1] or [rows]")
    rows: int = shape[0]
    if rows < 1:
        raise _wrong(tensor, f"input `{tensor.name}` has {rows} rows", allowed=f"1 to {ROWS_MAX} rows")
    if rows > ROWS_MAX:
        raise LimitExceeded(
            f"input `{tensor.name}` has {rows} rows",
            path=f"{tensor.path}.shape",
            allowed=f"1 to {ROWS_MAX} rows",
            hint=f"send them in requests of at most {ROWS_MAX}",
        )
    return rows


def _flat(tensor: GivenTensor, rows: int) -> Sequence[object]:
    """The elements, whether they were given flat or as a list per row."""
    data = tensor.data if tensor.data is not None else ()
    if len(data) != rows:
        shape = shown(list(tensor.shape))
        raise _wrong(
            tensor,
            f"`data` of input `{tensor.name}` has {len(data)} elements, its shape {shape} has {rows}",
            allowed=f"{rows} elements",
            part="data",
        )
    if len(tensor.shape) == 1:
        return data
    return [each[0] if type(each) is list and len(each) == 1 else each for each in data]


def _wrong(tensor: GivenTensor, message: str, *, allowed: str, part: str = "shape") -> InvalidRequest:
    return InvalidRequest(message, path=f"{tensor.path}.{part}", allowed=allowed, code="invalid_tensor")
