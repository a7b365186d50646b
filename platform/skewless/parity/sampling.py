"""Which entities a check looks at: whole entities, chosen by a hash of their keys, so that a sample keeps histories."""

from collections.abc import Callable, Mapping

import mmh3
import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column, Dtype

Mask = NDArray[np.bool_]

_digest: Callable[[bytes], bytes] = mmh3.mmh3_x64_128_digest
_NULL = b"\xfe"  # neither byte occurs in UTF-8, so that no text is taken for a null or for two keys
_BETWEEN = b"\xff"
_WHOLE = 2**64


def entity_hashes(keys: Mapping[str, Column], rows: int) -> NDArray[np.uint64]:
    """A hash (rows,) of each row's join keys, whatever their order; equal for equal entities, everywhere and always.

    >>> from skewless.dtypes import column_of
    >>> one = entity_hashes({"station": column_of(Dtype.STRING, ["north"])}, 1)
    >>> int(one[0]) == int(entity_hashes({"station": column_of(Dtype.STRING, ["süd", "north"])}, 2)[1])
    True
    """
    named = [_texts(keys[name]) for name in sorted(keys)]
    # Every prediction that is logged comes by here, so what is done for each row is done by as few calls as there are.
    joined = (
        [_BETWEEN.join(texts) for texts in zip(*named, strict=True)] if len(named) > 1 else named[0] if named else []
    )
    parts = [text + _BETWEEN for text in joined] if named else [b""] * rows
    halves = np.frombuffer(b"".join(map(_digest, parts)), dtype="<u8")
    return np.ascontiguousarray(halves[::2])


def _texts(column: Column) -> list[bytes]:
    values = column.values.tolist()
    if column.valid.all():
        if column.values.dtype.kind == "i":
            return [b"%d" % item for item in values]
        if column.dtype is Dtype.STRING:
            return [item.encode("utf-8", "surrogatepass") for item in values]
    return [
        str(item).encode("utf-8", "surrogatepass") if known else _NULL
        for item, known in zip(values, column.valid.tolist(), strict=True)
    ]


def chosen(hashes: NDArray[np.uint64], share: float) -> Mask:
    """Which rows (rows,) a sample of `share` of all entities has; a larger share keeps those of a smaller one."""
    if share >= 1.0:
        return np.ones(len(hashes), dtype=np.bool_)
    return np.asarray(hashes < np.uint64(int(share * _WHOLE)), dtype=np.bool_)
