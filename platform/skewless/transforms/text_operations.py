"""Operations on strings. Each distinct meaning of null and of an unseen string is stated at its class."""

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, ClassVar

import numpy as np

from skewless.transforms import checks
from skewless.transforms.learning import Frequencies, Given
from skewless.transforms.operation import (
    ALL_VALID,
    STRING,
    Coding,
    Kernel,
    Kind,
    OperandFacts,
    Operation,
    Settings,
    Statistic,
    Vector,
)

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


class TextSearch(Operation):
    """1 where the string contains (or starts or ends with) the given one, code point by code point, else 0."""

    operands = (STRING,)
    result = Kind.NUMBER
    settings: ClassVar[checks.Checks] = {"text": checks.name}

    def __init__(self, name: str, search: Callable[[str, str], bool]) -> None:
        self.name = name
        self.search = search

    def kernel(self, parameters: Settings) -> Kernel:
        search, text = self.search, parameters["text"]

        def searched(words: Vector) -> Vector:
            found = (search(word, text) for word in words.values.tolist())
            return Vector(np.fromiter(found, np.float64, len(words.values)), words.valid)

        return searched


class TextReplace(Operation):
    """The string with every occurrence of `old` replaced by `new`, from left to right, without overlap."""

    name = "replace"
    operands = (STRING,)
    result = Kind.STRING
    settings: ClassVar[checks.Checks] = {"old": checks.name, "new": checks.text}

    def kernel(self, parameters: Settings) -> Kernel:
        old, new = parameters["old"], parameters["new"]

        def replaced(words: Vector) -> Vector:
            values = np.empty(words.values.shape, dtype=object)
            values[:] = [word.replace(old, new) for word in words.values.tolist()]
            return Vector(values, words.valid)

        return replaced


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

    def statistic(self, settings: Settings) -> Statistic:  # noqa: ARG002
        def learned(words: list[str], rows: int) -> Settings:
            if not words:
                raise ValueError(f"all {rows:,} training rows are null")
            return {"value": words[0]}

        return Frequencies(1, learned)


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

    def statistic(self, settings: Settings) -> Statistic:
        return Frequencies(settings["top_k"], lambda words, _: {"vocabulary": words})

    def coding(self, parameters: Settings) -> Coding:
        return Coding(places(parameters["vocabulary"]), OUT_OF_VOCABULARY, NULL_CODE, None)

    def kernel(self, parameters: Settings) -> Kernel:
        return coded_kernel(self.coding(parameters))


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

    def statistic(self, settings: Settings) -> Statistic:
        given = settings["categories"]
        if given is not None:
            return Given({"vocabulary": given})
        return Frequencies(settings["top_k"], lambda words, _: {"vocabulary": words})

    def suffixes(self, parameters: Settings) -> tuple[str, ...]:
        return (*map(category_suffix, parameters["vocabulary"]), "oov")

    def coding(self, parameters: Settings) -> Coding:
        vocabulary = parameters["vocabulary"]
        return Coding(places(vocabulary), float(len(vocabulary)), NULL_CODE, len(vocabulary) + 1)

    def kernel(self, parameters: Settings) -> Kernel:
        return coded_kernel(self.coding(parameters))


def category_suffix(category: str) -> str:
    """The category itself; quoted where it could be taken for the out-of-vocabulary output, or is quoted already."""
    return f'"{category}"' if category == "oov" or category.startswith('"') else category


def places(vocabulary: Sequence[str]) -> dict[str, float]:
    """The place of each word, from 0."""
    return {word: float(index) for index, word in enumerate(vocabulary)}


def coded_kernel(coding: Coding) -> Kernel:
    """The kernel of a look-up: one result per row, or `parts` of 0 and 1."""
    place, unseen, null = coding.places.get, coding.unseen, np.array(coding.null)
    numbers = None if coding.parts is None else np.arange(coding.parts, dtype=np.float64)[:, np.newaxis]

    def coded(words: Vector) -> Vector:
        found = np.fromiter(map(place, words.values.tolist(), repeat(unseen)), np.float64, len(words.values))
        codes = np.where(words.valid, found, null)
        return Vector(codes if numbers is None else (codes == numbers).astype(np.float64), ALL_VALID)

    return coded


LOWER = TextMap("lower", str.lower, Kind.STRING)
UPPER = TextMap("upper", str.upper, Kind.STRING)
STRIP = TextMap("strip", str.strip, Kind.STRING)
LENGTH = TextMap("length", len, Kind.NUMBER)
CONTAINS = TextSearch("contains", str.__contains__)
STARTS_WITH = TextSearch("starts_with", str.startswith)
ENDS_WITH = TextSearch("ends_with", str.endswith)
REPLACE = TextReplace()
TEXT_EQUAL = TextComparison("text_equal", "==", np.equal)
TEXT_NOT_EQUAL = TextComparison("text_not_equal", "!=", np.not_equal)
TEXT_CONSTANT = TextConstant()
IMPUTE_TEXT = ImputeText()
IMPUTE_MOST_FREQUENT = ImputeMostFrequent()
INDEX = VocabularyIndex()
ONE_HOT = OneHot()

OPERATIONS: tuple[Operation, ...] = (
    LOWER, UPPER, STRIP, LENGTH, CONTAINS, STARTS_WITH, ENDS_WITH, REPLACE, TEXT_EQUAL, TEXT_NOT_EQUAL, TEXT_CONSTANT,
    IMPUTE_TEXT, IMPUTE_MOST_FREQUENT, INDEX, ONE_HOT,
)  # fmt: skip
