"""How long a window may be."""

from skewless.errors import InvalidDefinition
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US


def check_window(window_us: int) -> int:
    """The length itself. Raises InvalidDefinition unless a day is a whole number of windows of a minute or more, and
    hours and windows fit into each other."""
    fits = window_us >= MINUTE_US and DAY_US % window_us == 0
    if not fits or (HOUR_US % window_us and window_us % HOUR_US):
        raise InvalidDefinition(
            f"a window of {window_us / MINUTE_US:g} minutes is not allowed; allowed: whole parts of an hour from a"
            " minute on, and whole hours that divide a day",
            hint="for example 5 minutes, 1 hour or 1 day",
        )
    return window_us
