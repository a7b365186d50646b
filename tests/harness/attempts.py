"""Measurements on a machine that others use too."""

import contextlib
from collections.abc import Callable

ATTEMPTS = 3


def holds_once(measure: Callable[[], None], *, attempts: int = ATTEMPTS) -> None:
    """Measure again where an assertion fails: what others did then has passed, a fault of ours fails each time."""
    for _ in range(attempts - 1):
        with contextlib.suppress(AssertionError):
            measure()
            return
    measure()
