"""Cron expressions, in UTC: the one importer of cronsim.

Five fields as Debian's cron has them (minute, hour, day of the month, month, day of the week), with names, ranges,
steps, `L` and `#`. Where both days are restricted either suffices, as there. UTC has no hour that comes twice or never.
"""

from typing import Final

from cronsim import CronSim, CronSimError

from skewless.errors import InvalidDefinition
from skewless.ingest_limits import CRON_CHARACTERS_MAX
from skewless.timestamps import SECOND_US, Micros, from_micros, to_micros

_FIELDS: Final = 5
_HINT = "five fields in UTC: minute, hour, day of the month, month, day of the week; `15 * * * *` is 15 past each hour"


class CronTimes:
    """The due times of one expression; implements `features.schedule.DueTimes`.

    Raises InvalidDefinition for an expression that is wrong, and for one whose time never comes.
    """

    def __init__(self, expression: str) -> None:
        self.expression = expression
        problem = schedule_problem(expression)
        if problem is not None:
            raise InvalidDefinition(problem[0], hint=problem[1])

    def next_after(self, moment: int) -> Micros | None:
        """The first due time after a moment (µs); None where none comes within fifty years."""
        return _first(CronSim(self.expression, from_micros(moment)))

    def last_until(self, moment: int) -> Micros | None:
        """The last due time at or before a moment (µs); None where there was none for fifty years."""
        # It looks for what lies before the second that it is given.
        whole_second = moment // SECOND_US * SECOND_US + SECOND_US
        return _first(CronSim(self.expression, from_micros(whole_second), reverse=True))

    @property
    def described(self) -> str:
        """What it says, in words.

        >>> CronTimes("0 5 * * *").described
        'At 05:00 every day'
        """
        return CronSim(self.expression, from_micros(0)).explain()


def schedule_problem(expression: str) -> tuple[str, str] | None:
    """What is wrong with a cron expression, and what to do; None where nothing is.

    >>> schedule_problem("0 25 * * *")[0]
    'schedule `0 25 * * *` is no cron expression: Bad hour'
    >>> schedule_problem("15 * * * *") is None
    True
    """
    shown = expression if len(expression) <= CRON_CHARACTERS_MAX else f"{expression[:CRON_CHARACTERS_MAX]}…"
    if len(expression) > CRON_CHARACTERS_MAX:
        return f"schedule `{shown}` is longer than {CRON_CHARACTERS_MAX} characters", _HINT
    if len(expression.split()) != _FIELDS:
        return f"schedule `{shown}` has {len(expression.split())} fields, not {_FIELDS}", _HINT
    try:
        moment = _first(CronSim(expression, from_micros(0)))
    except (CronSimError, ValueError, AssertionError, TypeError) as error:
        return f"schedule `{shown}` is no cron expression: {str(error) or type(error).__name__}", _HINT
    if moment is None:
        return f"schedule `{shown}` never comes", _HINT
    return None


def _first(times: CronSim) -> Micros | None:
    found = next(times, None)
    return None if found is None else to_micros(found)
