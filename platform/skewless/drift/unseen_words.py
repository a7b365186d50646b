"""The names of what training never saw, within a bound: the most frequent words of each feature, by space-saving.

Metwally, Agrawal and El Abbadi, "Efficient computation of frequent and top-k elements in data streams" (2005): a word
that comes when there is no place takes that of the rarest one, and is said to have come as often as that one too. So a
word's count is never too low, and too high by no more than it says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from skewless.monitor_limits import DRIFT_WORDS_KEPT_MAX

WORD_CHARACTERS_MAX = 64
"""Of a word that is kept; longer ones are cut, and may become one."""


@dataclass(frozen=True, slots=True)
class SeenWord:
    """Came at most `rows` times, and at least `rows - over` times, between two moments (µs)."""

    rows: int
    over: int
    first_us: int
    last_us: int

    def joined(self, other: "SeenWord") -> "SeenWord":
        """Both together."""
        return SeenWord(
            self.rows + other.rows,
            self.over + other.over,
            min(self.first_us, other.first_us),
            max(self.last_us, other.last_us),
        )


def together(kept: Mapping[str, SeenWord], found: Mapping[str, SeenWord]) -> dict[str, SeenWord]:
    """What is kept of one feature once some more rows were looked at: at most DRIFT_WORDS_KEPT_MAX words.

    >>> once = SeenWord(1, 0, 5, 5)
    >>> together({"a": once}, {"a": once, "b": once})["a"]
    SeenWord(rows=2, over=0, first_us=5, last_us=5)
    """
    # What has no place in a full summary may have had one before, and came no more often than the rarest that is kept.
    of_kept, of_found = _forgotten(kept), _forgotten(found)
    whole = {word: seen if word in found else _with(seen, of_found) for word, seen in kept.items()}
    for word, seen in found.items():
        whole[word] = whole[word].joined(seen) if word in whole else _with(seen, of_kept)
    ordered = sorted(whole.items(), key=lambda each: (-each[1].rows, each[0]))
    return dict(ordered[:DRIFT_WORDS_KEPT_MAX])


def _forgotten(summary: Mapping[str, SeenWord]) -> int:
    """How often a word that is not in a summary may have come. More words than are kept are all there were."""
    return min(each.rows for each in summary.values()) if len(summary) == DRIFT_WORDS_KEPT_MAX else 0


def _with(seen: SeenWord, forgotten: int) -> SeenWord:
    return replace(seen, rows=seen.rows + forgotten, over=seen.over + forgotten) if forgotten else seen


def printable(word: str) -> str:
    """A word as every database can hold it, at most WORD_CHARACTERS_MAX characters of it.

    >>> printable("a\\0b")
    'a\\\\x00b'
    """
    text = word[:WORD_CHARACTERS_MAX].encode("utf-8", "backslashreplace").decode()
    return text.replace("\0", "\\x00")[:WORD_CHARACTERS_MAX]
