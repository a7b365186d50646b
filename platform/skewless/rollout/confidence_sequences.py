"""Bounds of a rate or a mean that hold at every moment at once, however often and whenever somebody looks.

An interval of fixed size is right 95 % of the time at one look that was planned; looked at after every hundred rows it
is wrong far more often. A confidence sequence contains the truth at all moments together with probability 1 - alpha, so
it may be read at any time and acted on at once. These are discrete mixtures of exponential supermartingales (Howard,
Ramdas, McAuliffe and Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences", section 3.3),
bounded by Ville's inequality, and need sums alone. The bound holds for the average of what each row's expectation was,
given the rows before it: what goes up and down over the day is allowed.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Bets of sizes that suit a handful of rows to billions, √2 apart and of one weight each.
_RATE_BETS = 2.0 ** np.arange(-12.0, 4.5, 0.5)
_MEAN_BETS = 2.0 ** np.arange(-13.0, 0.0, 0.5)
_MEAN_COSTS = -np.log1p(-_MEAN_BETS) - _MEAN_BETS
_HALVINGS = 50


@dataclass(frozen=True, slots=True)
class Bounds:
    """From `low` to `high`, both included."""

    low: float
    high: float


def rate_bounds(successes: int, trials: int, *, alpha: float) -> Bounds:
    """Bounds of the rate of successes that hold at all moments together with probability 1 - alpha.

    >>> bounds = rate_bounds(30, 1_000, alpha=0.05)
    >>> round(bounds.low, 3), round(bounds.high, 3)
    (0.014, 0.053)
    """
    return Bounds(
        rate_low(successes, trials, alpha=alpha / 2), 1.0 - rate_low(trials - successes, trials, alpha=alpha / 2)
    )


def rate_low(successes: int, trials: int, *, alpha: float) -> float:
    """A rate that the true one is above at all moments together with probability 1 - alpha; 0 without trials.

    The mixture bets on more successes than a rate p makes; the bound is the largest p against which it won 1 / alpha.
    """
    if successes == 0:
        return 0.0
    wanted = math.log(len(_RATE_BETS) / alpha)
    won, per_rate = _RATE_BETS * successes, np.expm1(_RATE_BETS)
    low, high = 0.0, successes / trials
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _log_sum(won - trials * np.log1p(middle * per_rate)) > wanted:
            low = middle
        else:
            high = middle
    return low


def mean_bounds(rows: int, total: float, spread: float, *, lowest: float, highest: float, alpha: float) -> Bounds:
    """Bounds of the mean of values from `lowest` to `highest` that hold at all moments with probability 1 - alpha.

    `total` is the sum of the values. `spread` is the sum of (value - guess)² over the rows, where each guess, from
    `lowest` to `highest`, was made before its value was known; the better the guesses, the closer the bounds
    (an empirical Bernstein bound: theorem 4 of the paper).
    """
    if rows == 0:
        return Bounds(lowest, highest)
    width = highest - lowest
    off = _deviation(spread / width**2, math.log(2 * len(_MEAN_BETS) / alpha)) * width / rows
    mean = total / rows
    return Bounds(max(mean - off, lowest), min(mean + off, highest))


def _deviation(spread: float, wanted: float) -> float:
    """How far a sum of values of width 1 may be from its expectation before the mixture has won exp(`wanted`)."""
    costs = _MEAN_COSTS * spread
    low, high = 0.0, float(np.min((wanted + costs) / _MEAN_BETS))  # the best single bet alone would have won
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _log_sum(_MEAN_BETS * middle - costs) > wanted:
            high = middle
        else:
            low = middle
    return high


def _log_sum(logs: NDArray[np.float64]) -> float:
    """The logarithm of the sum of exp(logs), without overflow."""
    largest = float(np.max(logs))
    return largest + math.log(float(np.sum(np.exp(logs - largest))))
