"""Predictions beside what turned out, as arrays: some rows of one bundle in one role."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALL = ""
"""The slice of all rows."""
NO_OUTCOME = -1


@dataclass(frozen=True, slots=True, eq=False)
class JudgedRows:
    """Rows of one bundle in one role, each array (rows,).

    `scores` are of the positive class, `flagged` says which rows were predicted to be of it. `outcomes` are 1, 0, or
    NO_OUTCOME, also where what was told is no class; `numbers` are outcomes that are numbers, NaN elsewhere. `told`
    says whether any outcome has come. `clusters` are bins of entities. `parts` has the slice's part of each row by the
    slice's name, `successes` which rows each counter counts.
    """

    scores: NDArray[np.float32]
    flagged: NDArray[np.bool_]
    outcomes: NDArray[np.int8]
    numbers: NDArray[np.float64]
    told: NDArray[np.bool_]
    clusters: NDArray[np.intp]
    parts: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    successes: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.scores)

    def taken(self, places: NDArray[np.intp]) -> "JudgedRows":
        """The rows at some places."""
        return _changed([self], lambda parts: parts[0][places])

    @staticmethod
    def joined(chunks: Sequence["JudgedRows"]) -> "JudgedRows":
        """Chunks of one bundle end to end."""
        return chunks[0] if len(chunks) == 1 else _changed(chunks, np.concatenate)


def _changed(chunks: Sequence[JudgedRows], change: Callable[[list[NDArray[Any]]], NDArray[Any]]) -> JudgedRows:
    """What a change makes of each array of the chunks."""
    first = chunks[0]
    return JudgedRows(
        scores=change([each.scores for each in chunks]),
        flagged=change([each.flagged for each in chunks]),
        outcomes=change([each.outcomes for each in chunks]),
        numbers=change([each.numbers for each in chunks]),
        told=change([each.told for each in chunks]),
        clusters=change([each.clusters for each in chunks]),
        parts={name: change([each.parts[name] for each in chunks]) for name in first.parts},
        successes={name: change([each.successes[name] for each in chunks]) for name in first.successes},
    )
