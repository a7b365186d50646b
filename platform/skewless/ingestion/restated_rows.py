"""Which rows of a batch are taken by later rows of the same batch, because nothing but their order tells them apart."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray


def last_of_equal(
    entities: Sequence[Hashable], event_times: NDArray[np.int64], created_times: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which rows (rows,) stay: of those of one entity with equal event and created times the last one.

    By the order of rows nothing could choose between them later, and stores could choose differently.

    >>> last_of_equal(["a", "b", "a"], np.array([1, 1, 1]), np.array([9, 9, 9])).tolist()
    [False, True, True]
    """
    numbers: dict[Hashable, int] = {}
    group = np.array([numbers.setdefault(each, len(numbers)) for each in entities], dtype=np.int64)
    order = np.lexsort((np.arange(len(group)), created_times, event_times, group))
    same = np.ones(max(len(order) - 1, 0), dtype=np.bool_)
    for values in (group, event_times, created_times):
        ordered = values[order]
        same &= ordered[1:] == ordered[:-1]
    stays = np.ones(len(order), dtype=np.bool_)
    stays[order[:-1][same]] = False
    return stays
