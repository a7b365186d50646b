"""Vocabularies: frequent words by name, others by fingerprint, and nobody's name out of a column of identifiers."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from skewless.statistics.variable import OTHER, UNSEEN
from skewless.statistics.word_index import WordIndex
from skewless.statistics.words import (
    KNOWN_MAX,
    LISTED_BYTES_MAX,
    LISTED_MAX,
    OPEN_SHARE,
    WORD_BYTES_MAX,
    fingerprint,
    vocabulary_of,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=90), st.integers(1, 50), max_size=150))
def test_a_closed_vocabulary_knows_every_word_of_training(counts: dict[str, int]) -> None:
    vocabulary = vocabulary_of(Counter(counts))
    assert vocabulary.closed
    assert len(vocabulary.listed) <= LISTED_MAX
    assert sum(len(word.encode()) for word in vocabulary.listed) <= LISTED_BYTES_MAX
    assert list(vocabulary.rest) == sorted(set(vocabulary.rest))
    assert all(word in vocabulary.listed or fingerprint(word) in vocabulary.rest for word in counts)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.integers(1, 50), max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_show(counts: dict[str, int], random: object) -> None:
    items = list(counts.items())
    random.shuffle(items)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    assert vocabulary_of(Counter(dict(items))) == vocabulary_of(Counter(counts))


def test_identifiers_are_not_named() -> None:
    counts = Counter({f"customer-{number}": 3 for number in range(KNOWN_MAX + 1)})
    vocabulary = vocabulary_of(counts)
    assert not vocabulary.closed
    assert vocabulary.rest == ()
    everyone = dict.fromkeys(counts, 1)
    assert vocabulary_of(Counter(everyone | {"guest": OPEN_SHARE})).listed == ("guest",)


def test_a_long_word_is_known_by_its_fingerprint() -> None:
    long = "å" * WORD_BYTES_MAX
    vocabulary = vocabulary_of(Counter({long: 9, "short": 1}))
    assert vocabulary.listed == ("short",)
    assert vocabulary.rest == (fingerprint(long),)


def test_half_of_a_surrogate_pair_is_known_and_never_listed() -> None:
    vocabulary = vocabulary_of(Counter({"\ud800": 9}))
    assert vocabulary.listed == ()
    assert WordIndex(vocabulary)["\ud800"] == OTHER


def test_an_unseen_word_is_told_only_where_all_words_are_known() -> None:
    closed = WordIndex(vocabulary_of(Counter(["a", "b"])))
    opened = WordIndex(vocabulary_of(Counter(["a", "b", "c"]), known_max=2))
    assert closed["new"] == UNSEEN
    assert opened["new"] == OTHER


def test_words_that_are_not_listed_are_never_kept() -> None:
    index = WordIndex(vocabulary_of(Counter(["a"])))
    words = np.array([f"new-{number}" for number in range(100)], dtype=object)
    assert index.counts(words, np.ones(100, dtype=np.bool_))[UNSEEN] == 100
    assert len(index) == 1
