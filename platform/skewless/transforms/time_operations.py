"""Operations on timestamps: local time in a zone, and the parts of it. Null in gives null out."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from skewless.transforms.checks import Checks, seconds
from skewless.transforms.learning import Given
from skewless.transforms.operation import LOCAL_TIME, TIMESTAMP, Kernel, Kind, Operation, Settings, Statistic, Vector
from skewless.transforms.timezones import check_zone, offsets_of

# Arrays, since NumPy takes a microsecond to turn a Python number into one at every call, much of what a part costs.
_DAY, _HOUR, _MINUTE, _SECOND, _MINUTES_OF_DAY, _SIXTY, _HOURS, _WEEK, _YEAR_MONTHS, _QUARTER_MONTHS, _ONE = (
    np.array(number, dtype=np.int64) for number in (DAY_US, HOUR_US, MINUTE_US, SECOND_US, 24 * 60, 60, 24, 7, 12, 3, 1)
)
_EPOCH_YEAR = np.array(1970, dtype=np.int64)
_THURSDAY = np.array(3, dtype=np.int64)
"""Day of the week of 1970-01-01, Monday being 0."""


class LocalTime(Operation):
    """The wall clock of a zone, summer time included; the zone's offsets are learned when fitting."""

    name = "local_time"
    operands = (TIMESTAMP,)
    result = Kind.LOCAL_TIME
    settings: ClassVar[Checks] = {"zone": check_zone}
    learned: ClassVar[Checks] = {"transitions": seconds, "offsets": seconds}

    def check_together(self, parameters: Settings) -> None:
        transitions, offsets = parameters.get("transitions"), parameters.get("offsets")
        if transitions is not None and offsets is not None and len(offsets) != len(transitions) + 1:
            raise ValueError("offsets must be one more than transitions")

    def statistic(self, settings: Settings) -> Statistic:
        transitions, offsets = offsets_of(settings["zone"])
        return Given({"transitions": list(transitions), "offsets": list(offsets)})

    def kernel(self, parameters: Settings) -> Kernel:
        transitions = np.array(parameters["transitions"], dtype=np.int64) * SECOND_US
        offsets = np.array(parameters["offsets"], dtype=np.int64) * SECOND_US

        def local_time(moment: Vector) -> Vector:
            return Vector(moment.values + offsets[transitions.searchsorted(moment.values, "right")], moment.valid)

        return local_time


class LocalPart(Operation):
    """A part of local time, as a number."""

    operands = (LOCAL_TIME,)
    result = Kind.NUMBER

    def __init__(self, name: str, part: Callable[[NDArray[np.int64]], NDArray[Any]]) -> None:
        self.name = name
        self.part = part

    def kernel(self, parameters: Settings) -> Kernel:  # noqa: ARG002
        part = self.part
        return lambda local: Vector(part(local.values).astype(np.float64), local.valid)


def _days(local: NDArray[np.int64]) -> NDArray[np.int64]:
    """Days since 1970-01-01 of the wall clock."""
    return local // _DAY


def _since_start_of(unit: str, days: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole days since the month ("M") or year ("Y") of each day began."""
    start = days.astype("datetime64[D]").astype(f"datetime64[{unit}]").astype("datetime64[D]")
    return days - start.view(np.int64)


def _iso_week(days: NDArray[np.int64]) -> NDArray[np.int64]:
    """ISO 8601: a week belongs to the year of its Thursday, and week 1 is the one with the year's first."""
    thursday = days - (days + _THURSDAY) % _WEEK + _THURSDAY
    return _since_start_of("Y", thursday) // _WEEK + _ONE


def _months(local: NDArray[np.int64]) -> NDArray[np.int64]:
    return local.view("datetime64[us]").astype("datetime64[M]").view(np.int64)


LOCAL_TIME_OF_ZONE = LocalTime()
HOUR = LocalPart("hour", lambda local: local // _HOUR % _HOURS)
MINUTE_OF_DAY = LocalPart("minute_of_day", lambda local: local // _MINUTE % _MINUTES_OF_DAY)
DAY_OF_WEEK = LocalPart("day_of_week", lambda local: (_days(local) + _THURSDAY) % _WEEK)
MONTH = LocalPart("month", lambda local: _months(local) % _YEAR_MONTHS + _ONE)
YEAR = LocalPart("year", lambda local: _months(local) // _YEAR_MONTHS + _EPOCH_YEAR)
MINUTE = LocalPart("minute", lambda local: local // _MINUTE % _SIXTY)
SECOND = LocalPart("second", lambda local: local // _SECOND % _SIXTY)
DAY_OF_MONTH = LocalPart("day_of_month", lambda local: _since_start_of("M", _days(local)) + _ONE)
DAY_OF_YEAR = LocalPart("day_of_year", lambda local: _since_start_of("Y", _days(local)) + _ONE)
WEEK_OF_YEAR = LocalPart("week_of_year", lambda local: _iso_week(_days(local)))
QUARTER = LocalPart("quarter", lambda local: _months(local) % _YEAR_MONTHS // _QUARTER_MONTHS + _ONE)

OPERATIONS: tuple[Operation, ...] = (
    LOCAL_TIME_OF_ZONE, HOUR, MINUTE_OF_DAY, DAY_OF_WEEK, MONTH, YEAR, MINUTE, SECOND, DAY_OF_MONTH, DAY_OF_YEAR,
    WEEK_OF_YEAR, QUARTER,
)  # fmt: skip
