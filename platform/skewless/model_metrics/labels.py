"""What the text of an outcome means for a bundle: a class, a number, or nothing that it can be judged by."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.model_metrics.judged import NO_OUTCOME
from skewless.training.definition import BinaryLabels


@dataclass(frozen=True, slots=True)
class Classes:
    """`positive` is the class that is asked about; every outcome but `negative` is unclear, or, where that is None,
    every other outcome is negative. `flagged` is the label that a bundle gives what it takes for positive; `turned`:
    logged scores are of the other class."""

    positive: str
    negative: str | None
    flagged: str
    turned: bool = False


def classes_of(wanted: str | None, labels: BinaryLabels | None) -> Classes | None:
    """By the policy's positive label and the bundle's own; None where neither is known.

    >>> classes_of("on_time", BinaryLabels("on_time", "late")).turned
    True
    """
    if labels is None:
        return None if wanted is None else Classes(wanted, None, wanted)
    if wanted == labels.negative:
        return Classes(labels.negative, labels.positive, labels.negative, turned=True)
    if wanted is None or wanted == labels.positive:
        return Classes(labels.positive, labels.negative, labels.positive)
    return Classes(wanted, None, labels.positive)


def outcome_meanings(
    texts: list[str | None], classes: Classes | None
) -> tuple[NDArray[np.int8], NDArray[np.float64], NDArray[np.bool_]]:
    """Class (1, 0, NO_OUTCOME), number (NaN for none) and whether there is anything, of distinct outcomes (texts,)."""
    codes = np.full(len(texts), NO_OUTCOME, dtype=np.int8)
    numbers = np.full(len(texts), np.nan)
    for place, text in enumerate(texts):
        if text is None:
            continue
        if classes is not None and text == classes.positive:
            codes[place] = 1
        elif classes is not None and classes.negative in (None, text):
            codes[place] = 0
        else:
            numbers[place] = _number(text)
    return codes, numbers, np.array([text is not None for text in texts], dtype=np.bool_)


def _number(text: str) -> float:
    """A finite number, else NaN."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
