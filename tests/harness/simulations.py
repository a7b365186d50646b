"""How much a simulation runs: little in every test run, more where somebody wants to be sure."""

import os

from scipy.stats import binom

MORE = int(os.environ.get("SKEWLESS_TEST_SIMULATIONS", "1"))
"""`make simulate` sets it: how many times as many paths each simulation runs."""


def paths(count: int) -> int:
    """How many paths to simulate where every test run has `count`."""
    return count * MORE


def alarms_max(count: int, alpha: float) -> int:
    """How many of `count` independent paths may raise an alarm of probability `alpha`: exceeded once in 10,000 runs."""
    return int(binom.ppf(1.0 - 1e-4, count, alpha))
