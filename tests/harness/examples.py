"""How many examples property-based tests try: a share of what each asks for, and all of it where there is time."""

import os

from hypothesis import settings

SHARE = float(os.environ.get("SKEWLESS_TEST_EXAMPLES", "0.4"))
"""1 tries as many as a test names, 10 ten times as many; `make examples` does."""
BY_DEFAULT = 100
LEAST = 5


def examples(count: int) -> int:
    """The share of `count` that this run tries.

    >>> LEAST <= examples(LEAST)
    True
    """
    return max(LEAST, round(count * SHARE))


def load_profile() -> None:
    """For tests that name no count. No test has a time limit: an example takes as long as the machine is busy."""
    settings.register_profile("suite", max_examples=examples(BY_DEFAULT), deadline=None)
    settings.load_profile("suite")
