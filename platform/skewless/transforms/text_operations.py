"""Operations on strings. Each distinct meaning of null and of an unseen string is stated at its class."""

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from skewless.transforms import checks
from skewless.transforms.learning import by_frequency, known
from skewless.transforms.operation import ALL_VALID, STRING, Kernel, Kind, OperandFacts, Operation, Settings, Vector

OUT_OF_VOCABULARY = -1.0
NULL_CODE = -2.0


class TextMap(Operation):
    """A function of each string. Null gives null. An empty string is a value."""

    operands = (STRING,)

    def __init__(self, name: str, function: Callable[[str], Any], result: Kind) -> None:
        self.name = name
        self.function = function
        self._result = result

    def result_kind(self, settings: Settings) -> Kind:  # noqa: ARG002
        return self._result

    def kernel(self, parameters: Settings) -> Kernel:  # noqa: ARG002
        function = self.function
        element = np.float64 if self._result is Kind.NUMBER else np.object_

        def mapped(words: Vector) -> Vector:
            return Vector(np.array(list(map(function, words.values.tolist())), dtype=element), words.valid)

        return mapped


class TextComparison(Operation):
    """1 where two strings are equal code point by code point (or differ), else 0; null with a null."""

    operands = (STRING, STRING)
    result = Kind.NUMBER

    def __init__(self, name: str, symbol: str, compare: np.ufunc) -> None:
        self.name = name
        self.symbol = symbol
        self.compare = compare

    def kernel(self, parameters: Settings) -> Kernel:  # noqa: ARG002
        compare = self.compare

        def compared(left: Vector, right: Vector) -> Vector:
            return Vector(compare(left.values, right.values).astype(np.float64), left.valid & right.valid)

        return compared

    def text(self, operands: Sequence[str], settings: Settings) -> str:  # noqa: ARG002
        return f"({operands[0]} {self.symbol} {operands[1]})"


class TextConstant(Operation):
    """A literal string of a comparison."""

    name = "text_constant"
    operands = ()
    result = Kind.STRING
    settings: ClassVar[checks.Checks] = {"value": checks.text}

    def text(self, operands: Sequence[str], settings: Settings) -> str:  # noqa: ARG002
        return repr(settings["value"])


class ImputeText(Operation):
    """The given string where null."""

    name = "impute_text"
    operands = (STRING,)
    result = Kind.STRING
    settings: ClassVar[checks.Checks] = {"value": checks.text}

    def nullable(self, operands: Sequence[OperandFacts], settings: Settings) -> bool:  # noqa: ARG002
        return False

    def kernel(self, parameters: Settings) -> Kernel:
        value = np.array(parameters["value"], dtype=object)
        return lambda words: Vector(np.where(words.valid, words.values, value), ALL_VALID)


class ImputeMostFrequent(ImputeText):
    """The most frequent string of the training rows where null; of equally frequent ones the first by code point."""

    name = "impute_most_frequent"
    settings: ClassVar[checks.Checks] = {}
    learned: ClassVar[checks.Checks] = {"value": checks.text}

    def fit(self, settings: Settings, *operands: Vector) -> Settings:  # noqa: ARG002
        words = known(operands[0])
        if not words:
            raise ValueError(f"all {len(operands[0].values):,} training rows are null")
        return {"value": by_frequency(words, 1)[0]}


class VocabularyIndex(Operation):
    """Place of the string in the vocabulary, 0 being the most frequent; -1 out of vocabulary, -2 null.

    The vocabulary is the `top_k` most frequent strings of the training rows, ties in order of code points.
    """

    name = "index"
    operands = (STRING,)
    result = Kind.NUMBER
    settings: ClassVar[checks.Checks] = {"top_k": checks.count_up_to(checks.VOCABULARY_MAX)}
    learned: ClassVar[checks.Checks] = {"vocabulary": checks.vocabulary}

    def nullable(self, operands: Sequence[OperandFacts], settings: Settings) -> bool:  # noqa: ARG002
        return False

    def fit(self, settings: Settings, *operands: Vector) -> Settings:
        return {"vocabulary": by_frequency(known(operands[0]), settings["top_k"])}

    def kernel(self, parameters: Settings) -> Kernel:
        codes_of = _coder(parameters["vocabulary"], OUT_OF_VOCABULARY)
        return lambda words: Vector(np.where(words.valid, codes_of(words.values), NULL_CODE), ALL_VALID)


class OneHot(Operation):
    """A 0/1 output per category and one, last, that is 1 for a string outside of them. Null gives all zeros.

    Categories are given, or learned as the `top_k` most frequent strings of the training rows.
    """

    name = "one_hot"
    operands = (STRING,)
    result = Kind.SEVERAL
    settings: ClassVar[checks.Checks] = {
        "top_k": checks.optional(checks.count_up_to(checks.OUTPUTS_MAX)),
        "categories": checks.optional(checks.vocabulary),
    }
    learned: ClassVar[checks.Checks] = {"vocabulary": checks.vocabulary}

    def check_together(self, parameters: Settings) -> None:
        top_k, categories = parameters["top_k"], parameters["categories"]
        if (top_k is None) == (categories is None):
            raise ValueError("takes either top_k=… (categories are learned) or categories=[…], and exactly one of them")
        if categories is not None and not 1 <= len(categories) <= checks.OUTPUTS_MAX:
            raise ValueError(f"categories must be 1 to {checks.OUTPUTS_MAX:,} strings, got {len(categories):,}")

    def nullable(self, operands: Sequence[OperandFacts], settings: Settings) -> bool:  # noqa: ARG002
        return False

    def fit(self, settings: Settings, *operands: Vector) -> Settings:
        given = settings["categories"]
        return {"vocabulary": by_frequency(known(operands[0]), settings["top_k"]) if given is None else given}

    def suffixes(self, parameters: Settings) -> tuple[str, ...]:
        return (*map(_suffix, parameters["vocabulary"]), "oov")

    def kernel(self, parameters: Settings) -> Kernel:
        vocabulary = parameters["vocabulary"]
        codes_of = _coder(vocabulary, float(len(vocabulary)))
        codes = np.arange(len(vocabulary) + 1, dtype=np.float64)[:, np.newaxis]

        def one_hot(words: Vector) -> Vector:
            return Vector(
                (np.where(words.valid, codes_of(words.values), NULL_CODE) == codes).astype(np.float64), ALL_VALID
            )

        return one_hot


def _suffix(category: str) -> str:
    """The category itself; quoted where it could be taken for the out-of-vocabulary output, or is quoted already."""
    return f'"{category}"' if category == "oov" or category.startswith('"') else category


def _coder(vocabulary: list[str], unseen: float) -> Callable[[NDArray[Any]], NDArray[np.float64]]:
    """A function from strings (rows,) to their places in the vocabulary, `unseen` for one that is not in it."""
    place = {word: float(index) for index, word in enumerate(vocabulary)}.get

    def codes_of(words: NDArray[Any]) -> NDArray[np.float64]:
        return np.fromiter(map(place, words.tolist(), repeat(unseen)), np.float64, len(words))

    return codes_of


LOWER = TextMap("lower", str.lower, Kind.STRING)
STRIP = TextMap("strip", str.strip, Kind.STRING)
LENGTH = TextMap("length", len, Kind.NUMBER)
TEXT_EQUAL = TextComparison("text_equal", "==", np.equal)
TEXT_NOT_EQUAL = TextComparison("text_not_equal", "!=", np.not_equal)
TEXT_CONSTANT = TextConstant()
IMPUTE_TEXT = ImputeText()
IMPUTE_MOST_FREQUENT = ImputeMostFrequent()
INDEX = VocabularyIndex()
ONE_HOT = OneHot()

OPERATIONS: tuple[Operation, ...] = (
    LOWER, STRIP, LENGTH, TEXT_EQUAL, TEXT_NOT_EQUAL, TEXT_CONSTANT, IMPUTE_TEXT, IMPUTE_MOST_FREQUENT, INDEX, ONE_HOT,
)  # fmt: skip
