"""Counts the words of a column: one look-up for each, whether or not training knew it."""

import numpy as np
from numpy.typing import NDArray

from skewless.statistics.variable import LISTED, OTHER, UNSEEN
from skewless.statistics.words import Vocabulary, fingerprint


class WordIndex(dict[str, int]):
    """The place of each listed word's count. A word that is not listed is looked at anew each time, never kept."""

    __slots__ = ("_rest", "_size", "_unknown")

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__({word: place for place, word in enumerate(vocabulary.listed, start=LISTED)})
        self._rest = frozenset(vocabulary.rest)
        self._unknown = UNSEEN if vocabulary.closed else OTHER
        self._size = LISTED + len(vocabulary.listed)

    def __missing__(self, word: str) -> int:
        return OTHER if self._rest and fingerprint(word) in self._rest else self._unknown

    def counts(self, words: NDArray[np.object_], known: NDArray[np.bool_]) -> NDArray[np.intp]:
        """How often each place was hit by words (rows,), of which those are null where `known` is False."""
        places = np.fromiter(map(self.__getitem__, words.tolist()), np.intp, len(words))
        places *= known
        return np.bincount(places, minlength=self._size)
