"""Which entities a check looks at: whole entities, chosen by a hash of their keys, so that a sample keeps histories."""

from collections.abc import Callable, Mapping

import mmh3
import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column
from skewless.parity.equality import Mask

_digest: Callable[[bytes], bytes] = mmh3.mmh3_x64_128_digest
_NULL = b"\xfe"  # neither byte occurs in UTF-8, so that no text is taken for a null or for two keys
_BETWEEN = b"\xff"
_WHOLE = 2**64


def entity_hashes(keys: Mapping[str, Column], rows: int) -> NDArray[np.uint64]:
    """A hash (rows,) of each row's join keys, whatever their order; equal for equal entities, everywhere and always.

    >>> from skewless.dtypes import Dtype, column_of
    >>> one = entity_hashes({"station": column_of(Dtype.STRING, ["north"])}, 1)
    >>> int(one[0]) == int(entity_hashes({"station": column_of(Dtype.STRING, ["süd", "north"])}, 2)[1])
    True
    """
    parts = [b""] * rows
    for name in sorted(keys):
        column = keys[name]
        for row, (item, known) in enumerate(zip(column.values.tolist(), column.valid.tolist(), strict=True)):
            parts[row] += (str(item).encode() if known else _NULL) + _BETWEEN
    return np.frombuffer(b"".join(_digest(part)[:8] for part in parts), dtype="<u8")


def chosen(hashes: NDArray[np.uint64], share: float) -> Mask:
    """Which rows (rows,) a sample of `share` of all entities has; a larger share keeps those of a smaller one."""
    if share >= 1.0:
        return np.ones(len(hashes), dtype=np.bool_)
    return np.asarray(hashes < np.uint64(int(share * _WHOLE)), dtype=np.bool_)
