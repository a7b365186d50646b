"""Which words have a bin of their own, and what of the others is known.

The most frequent words of training are listed by name. Of a column with up to `KNOWN_MAX` distinct words the others
are kept as fingerprints, so that a word that training never saw is told from a rare one; such a vocabulary is closed.
A column with more (identifiers, free text) is open: whatever is not listed counts as `other`, and only words frequent
enough to say something are listed, since the names of few rows may be names of persons.
"""

import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

LISTED_MAX = 64
WORD_BYTES_MAX = 64
"""UTF-8 bytes of a listed word; longer ones are known by their fingerprint, however frequent."""
LISTED_BYTES_MAX = 1_024
"""UTF-8 bytes of a column's listed words together."""
KNOWN_MAX = 512
KNOWN_TOTAL_MAX = 12_288
"""Words known by all columns of one baseline, so that its size is bounded: many columns of strings share it evenly."""
OPEN_SHARE = 1_000
"""In an open vocabulary a listed word makes up at least one row in so many."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`listed` words in order of frequency, `rest` the fingerprints of the other known ones, ascending.

    `closed` says that every word of training is one of the two; `rest` of an open vocabulary is empty.
    """

    listed: tuple[str, ...]
    rest: tuple[int, ...]
    closed: bool


def vocabulary_of(counts: Counter[str], *, known_max: int = KNOWN_MAX) -> Vocabulary:
    """The vocabulary of training's words and their counts. Equally frequent words are listed in code point order.

    >>> vocabulary_of(Counter({"b": 2, "a": 2, "c": 5})).listed
    ('c', 'a', 'b')
    """
    closed = len(counts) <= known_max
    least = 0 if closed else counts.total() / OPEN_SHARE
    listed = _listed(sorted((-count, word) for word, count in counts.items() if count >= least))
    names = set(listed)
    rest = sorted({fingerprint(word) for word in counts if word not in names}) if closed else []
    return Vocabulary(listed, tuple(rest), closed)


def fingerprint(word: str) -> int:
    """The CRC-32 of a word's UTF-8 bytes. Of 512 known words, one in eight million unseen ones is taken for known."""
    return zlib.crc32(word.encode(errors="surrogatepass"))


def _listed(by_frequency: Iterable[tuple[int, str]]) -> tuple[str, ...]:
    listed: list[str] = []
    left = LISTED_BYTES_MAX
    for _, word in by_frequency:
        size = _stored_bytes(word)
        if size <= min(WORD_BYTES_MAX, left):
            listed.append(word)
            left -= size
        if len(listed) == LISTED_MAX:
            break
    return tuple(listed)


def _stored_bytes(word: str) -> int:
    """UTF-8 bytes of a word; more than is allowed for half of a surrogate pair, which has no UTF-8 form."""
    try:
        return len(word.encode())
    except UnicodeEncodeError:
        return WORD_BYTES_MAX + 1
