"""Operations on strings as categories: membership, hashing, crosses, one-hot without a rest, target encoding."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import mmh3
import numpy as np

from skewless.transforms import checks
from skewless.transforms.learning import GroupedSums, Total
from skewless.transforms.operation import (
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
from skewless.transforms.text_operations import OneHot, category_suffix, coded_kernel

_UINT32_MAX = 2**32 - 1
_CROSSED_MAX = 16
"""Strings in one cross: more distinct combinations than rows teach nothing."""


class IsIn(Operation):
    """1 where the string is one of the given ones, else 0. Null gives null."""

    name = "is_in"
    operands = (STRING,)
    result = Kind.NUMBER
    settings: ClassVar[checks.Checks] = {"items": checks.vocabulary}

    def kernel(self, parameters: Settings) -> Kernel:
        contains = frozenset(parameters["items"]).__contains__

        def is_in(words: Vector) -> Vector:
            return Vector(np.fromiter(map(contains, words.values.tolist()), np.float64, len(words.values)), words.valid)

        return is_in


class HashBucket(Operation):
    """A bucket, 0 to `buckets` - 1, of the string's 32-bit MurmurHash3 (x86) over UTF-8. Null gives null."""

    name = "hash_bucket"
    operands = (STRING,)
    result = Kind.NUMBER
    settings: ClassVar[checks.Checks] = {
        "buckets": checks.count_up_to(_UINT32_MAX),
        "seed": checks.count_from_zero,
    }

    def check_together(self, parameters: Settings) -> None:
        if parameters["seed"] > _UINT32_MAX:
            raise ValueError(f"seed must be at most {_UINT32_MAX}, got {parameters['seed']}")

    def kernel(self, parameters: Settings) -> Kernel:
        bucket = _bucket(parameters["buckets"], parameters["seed"])

        def hash_bucket(words: Vector) -> Vector:
            return Vector(np.fromiter(map(bucket, words.values.tolist()), np.float64, len(words.values)), words.valid)

        return hash_bucket


class Cross(Operation):
    """Several strings as one, joined by `|`; a `|` or backslash within one is escaped, so no two rows collide.

    Null where any of them is null.
    """

    name = "cross"
    operands = (STRING, STRING)
    result = Kind.STRING
    settings: ClassVar[checks.Checks] = {"count": checks.count_up_to(_CROSSED_MAX)}

    def operand_kinds(self, settings: Settings) -> tuple[frozenset[Kind], ...]:
        return (STRING,) * int(settings["count"])

    def check_together(self, parameters: Settings) -> None:
        if parameters["count"] < 2:
            raise ValueError("takes at least two strings")

    def kernel(self, parameters: Settings) -> Kernel:  # noqa: ARG002
        def cross(*operands: Vector) -> Vector:
            rows = zip(*(map(_escaped, words.values.tolist()) for words in operands), strict=True)
            crossed = np.empty(operands[0].values.shape, dtype=object)
            crossed[:] = ["|".join(row) for row in rows]
            return Vector(crossed, np.logical_and.reduce([words.valid for words in operands]))

        return cross

    def text(self, operands: Sequence[str], settings: Settings) -> str:  # noqa: ARG002
        return f"{operands[0]}.cross({', '.join(operands[1:])})"


class OneHotKnown(OneHot):
    """`OneHot` without its last output: a string outside of the categories gives all zeros, as null does."""

    name = "one_hot_known"

    def suffixes(self, parameters: Settings) -> tuple[str, ...]:
        return tuple(map(category_suffix, parameters["vocabulary"]))

    def check_together(self, parameters: Settings) -> None:
        super().check_together(parameters)
        if not parameters.get("vocabulary", True):
            raise ValueError("the training rows hold no category, so that there would be no output")

    def coding(self, parameters: Settings) -> Coding:
        return super().coding(parameters)._replace(parts=len(parameters["vocabulary"]))


class TargetEncode(Operation):
    """The mean of the training target over the rows of the same string, drawn towards the mean of all.

    `(sum of the category + smoothing * mean of all) / (rows of the category + smoothing)`: the m-estimate of
    Micci-Barreca (2001), equations 3 and 4 with a weight of n / (n + m). An unseen string and null give the mean of
    all; impute a string first where null is a category. Rows without a finite target teach nothing.

    A row must not learn from its own target: a model's training tensor comes from `out_of_fold`, with `folds`.
    """

    name = "target_encode"
    operands = (STRING,)
    result = Kind.NUMBER
    settings: ClassVar[checks.Checks] = {"smoothing": checks.not_negative, "folds": checks.count_up_to(100)}
    learned: ClassVar[checks.Checks] = {
        "categories": checks.vocabulary,
        "values": checks.numbers,
        "prior": checks.finite,
    }
    needs_target = True

    def check_together(self, parameters: Settings) -> None:
        if parameters["folds"] < 2:
            raise ValueError("folds must be at least 2")
        if "values" in parameters and len(parameters["values"]) != len(parameters["categories"]):
            raise ValueError("must have one value for each category")

    def nullable(self, operands: Sequence[OperandFacts], settings: Settings) -> bool:  # noqa: ARG002
        return False

    def statistic(self, settings: Settings) -> Statistic:
        def learned(whole: Total, of_words: Mapping[str, Total]) -> Settings:
            prior, smoothing = whole.sum / whole.rows, settings["smoothing"]
            return {
                "categories": list(of_words),
                "values": [(each.sum + smoothing * prior) / (each.rows + smoothing) for each in of_words.values()],
                "prior": prior,
            }

        return GroupedSums(learned)

    def coding(self, parameters: Settings) -> Coding:
        values = dict(zip(parameters["categories"], parameters["values"], strict=True))
        return Coding(values, parameters["prior"], parameters["prior"], None)

    def kernel(self, parameters: Settings) -> Kernel:
        return coded_kernel(self.coding(parameters))


def _bucket(buckets: int, seed: int) -> Callable[[str], int]:
    digest = mmh3.hash

    def bucket(word: str) -> int:
        # Half of a surrogate pair has no UTF-8 of its own, but a caller can send one in JSON.
        hashed: int = digest(word.encode("utf-8", "surrogatepass"), seed, signed=False)
        return hashed % buckets

    return bucket


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace("|", "\\|") if "|" in word or "\\" in word else word


IS_IN = IsIn()
HASH_BUCKET = HashBucket()
CROSS = Cross()
ONE_HOT_KNOWN = OneHotKnown()
TARGET_ENCODE = TargetEncode()

OPERATIONS: tuple[Operation, ...] = (IS_IN, HASH_BUCKET, CROSS, ONE_HOT_KNOWN, TARGET_ENCODE)
