"""What of a prediction the log must not keep as it is: marks in the contract, and what is kept in place of a value.

A column whose mark is `hash` is kept as text, the HMAC-SHA256 of its value under the gateways' key: equal values stay
equal, whatever endpoint they came through, and nobody without the key can try out which value it was. One whose mark is
`omit` is null in every row. A tensor that was made of a marked column is left out; its digest stays.
"""

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

import msgspec

from skewless.dtypes import ELEMENTS, TABLE, Column, Dtype, array_of, column_of
from skewless.features.contract import FeatureContract, LogMark, column_name

TRUE: Final = b"true"
FALSE: Final = b"false"


def log_marks(contract: FeatureContract) -> dict[str, LogMark]:
    """The marked columns of a contract by name (join keys, request fields, `view__feature`), and no others."""
    marks = {key.name: key.log for key in contract.join_keys}
    marks |= {each.name: each.log for each in contract.request_fields}
    listed = [(view.name, view.features) for view in contract.views]
    listed += [(view.name, view.features) for view in contract.on_demand]
    marks |= {column_name(view, feature.name): feature.log for view, features in listed for feature in features}
    return {name: mark for name, mark in marks.items() if mark is not LogMark.KEEP}


@dataclass(frozen=True, slots=True)
class LogMarks:
    """The marks of one bundle, ready for the log: names of columns, and whether its tensors are kept."""

    hashed: frozenset[str]
    omitted: frozenset[str]
    keeps_tensor: bool

    @classmethod
    def of(cls, contract: FeatureContract, transform_inputs: Iterable[str]) -> Self | None:
        """The marks of a bundle whose transform reads these columns; None where nothing is marked."""
        marks = log_marks(contract)
        if not marks:
            return None
        return cls(
            frozenset(name for name, mark in marks.items() if mark is LogMark.HASH),
            frozenset(name for name, mark in marks.items() if mark is LogMark.OMIT),
            keeps_tensor=marks.keys().isdisjoint(transform_inputs),
        )


@dataclass(frozen=True, slots=True)
class LogPrivacy:
    """Hashes under one key. Without a key (empty) it can hash nothing, and bundles that need it are not loaded."""

    key: bytes = field(default=b"", repr=False)

    @property
    def can_hash(self) -> bool:
        """Whether there is a key."""
        return bool(self.key)

    def hashed(self, dtype: Dtype, value: object) -> str:
        """64 hexadecimal digits in place of a value of a dtype, as `to_python` gives it; not for null.

        >>> LogPrivacy(b"k" * 16).hashed(Dtype.INT64, 42) == LogPrivacy(b"k" * 16).hashed(Dtype.STRING, "42")
        True
        """
        assert self.key, "bundles with hashed columns are not loaded without a key"
        return hmac.digest(self.key, _canonical(dtype, value), "sha256").hex()

    def kept(self, columns: Mapping[str, Column], marks: LogMarks, rows: int) -> Mapping[str, Column]:
        """The columns (rows,) as the log may keep them; those that are not marked are the very same objects."""
        if marks.hashed.isdisjoint(columns) and marks.omitted.isdisjoint(columns):
            return columns
        return {name: self._kept(name, column, marks, rows) for name, column in columns.items()}

    def _kept(self, name: str, column: Column, marks: LogMarks, rows: int) -> Column:
        if name in marks.omitted:
            return column_of(column.dtype, [None] * rows)
        if name not in marks.hashed:
            return column
        pairs = zip(column.values.tolist(), column.valid.tolist(), strict=True)
        texts = [self.hashed(column.dtype, value) if known else TABLE[Dtype.STRING].zero for value, known in pairs]
        return Column(Dtype.STRING, array_of(Dtype.STRING, texts), column.valid)


def _canonical(dtype: Dtype, value: object) -> bytes:
    """One text for one value: strings as UTF-8, bytes as they are, numbers in their shortest decimal form."""
    if isinstance(value, str):
        return value.encode(errors="surrogatepass")
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return TRUE if value else FALSE
    if dtype in ELEMENTS:
        return msgspec.msgpack.encode(value)
    return repr(value).encode()
