"""Work for the processes of a replay, in a module that they can import."""

import os
from collections.abc import Callable

from skewless.errors import BundleRefused, Forbidden


def squares() -> Callable[[int], tuple[int, int]]:
    """Gives the square of a number, and the process that computed it."""
    return lambda number: (number * number, os.getpid())


def refuses_three() -> Callable[[int], int]:
    """Refuses one number."""

    def work(number: int) -> int:
        if number == 3:
            raise BundleRefused("three is not possible", hint="take another number")
        return number

    return work


def forbids_three() -> Callable[[int], int]:
    """Refuses one number by an error of a class that takes more than a message."""

    def work(number: int) -> int:
        if number == 3:
            raise Forbidden("three is not possible", path="$", hint="take another number")
        return number

    return work
