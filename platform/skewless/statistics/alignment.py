"""Two variables' counts in the same bins, the first one's, where they were counted in bins of their own."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from skewless.statistics.edges import next_number
from skewless.statistics.variable import BELOW, LISTED, NULL, Measure, Variable, counted_dtype
from skewless.statistics.words import Vocabulary, fingerprint

Counts = NDArray[np.float64]


def aligned(first: Variable, second: Variable) -> tuple[Counts, Counts]:
    """Counts of both in the first one's bins; as they are where the bins are the same.

    Numbers lie evenly within a bin of the second (a heavy value is a bin of its own and stays whole). Words are matched
    by name: those that one side lists and the other certainly counted too, and all others as one bin.
    """
    if first.edges == second.edges and first.vocabulary == second.vocabulary:
        return _array(first.counts), _array(second.counts)
    if first.measure is Measure.WORD:
        return _by_name(first, second)
    counts = _array(second.counts)
    return _array(first.counts), np.concatenate((counts[:BELOW], _finite_in(first, second), counts[-1:]))


def ends(first: Variable, second: Variable) -> Counts | None:
    """Both ends of each of the first one's bins of finite numbers, wide enough for all of both; None without edges."""
    known = [each.moments for each in (first, second) if each.moments]
    if not first.edges or not known:
        return None
    low = min(first.edges[0], *(each.minimum for each in known))
    high = max(first.edges[-1], *(each.maximum for each in known))
    return np.array([low, *first.edges, high])


def single_valued(variable: Variable) -> NDArray[np.bool_]:
    """Which bins (edges + 1,) hold one number only: those of heavy values, and of neighbouring whole numbers."""
    dtype = counted_dtype(variable.dtype)
    inner = [next_number(left, dtype) == right for left, right in pairwise(variable.edges)]
    return np.array([False, *inner, False] if variable.edges else [False])


def new_words(first: Variable, second: Variable) -> tuple[str, ...]:
    """Words that the second lists and the first certainly never saw."""
    known = first.vocabulary
    if known is None or second.vocabulary is None or not known.closed:
        return ()
    return tuple(word for word in second.vocabulary.listed if not _is_known(word, known))


def _finite_in(first: Variable, second: Variable) -> Counts:
    """The second one's finite counts in the first one's bins (edges + 1,)."""
    counts = second.finite_counts.astype(np.float64)
    if not first.edges or second.moments is None:
        return np.concatenate((counts.sum(keepdims=True), np.zeros(len(first.edges))))
    inner = second.edges
    if not inner:
        inner = (second.moments.minimum, second.moments.maximum)
        counts = np.array([0.0, counts.sum(), 0.0])
    low, high = min(inner[0], second.moments.minimum), max(inner[-1], second.moments.maximum)
    below = np.concatenate(([0.0], np.cumsum(counts)))
    at_edges = np.interp(first.edges, [low, *inner, high], below)
    return np.diff(at_edges, prepend=0.0, append=below[-1])


def _by_name(first: Variable, second: Variable) -> tuple[Counts, Counts]:
    """Counts of nulls, of each word that both sides tell of, and of all others."""
    ours, theirs = first.vocabulary, second.vocabulary
    assert ours is not None
    assert theirs is not None
    candidates = dict.fromkeys((*ours.listed, *theirs.listed))
    words = [word for word in candidates if _tells_of(word, ours) and _tells_of(word, theirs)]
    return _named(first, ours, words), _named(second, theirs, words)


def _tells_of(word: str, vocabulary: Vocabulary) -> bool:
    """Whether the count of a word is known: it is listed, or was certainly never seen."""
    return word in vocabulary.listed or (vocabulary.closed and not _is_known(word, vocabulary))


def _is_known(word: str, vocabulary: Vocabulary) -> bool:
    return word in vocabulary.listed or fingerprint(word) in vocabulary.rest


def _named(variable: Variable, vocabulary: Vocabulary, words: list[str]) -> Counts:
    counts = dict(zip(vocabulary.listed, variable.counts[LISTED:], strict=True))
    named = [counts.get(word, 0) for word in words]
    return _array((variable.counts[NULL], *named, variable.total - variable.counts[NULL] - sum(named)))


def _array(counts: tuple[int, ...]) -> Counts:
    return np.array(counts, dtype=np.float64)
