"""Operations on timestamps: local time in a zone, and the parts of it. Null in gives null out."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from skewless.transforms.checks import Checks, seconds
from skewless.transforms.operation import LOCAL_TIME, TIMESTAMP, Kernel, Kind, Operation, Settings, Vector
from skewless.transforms.timezones import check_zone, offsets_of

_THURSDAY = 3
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

    def fit(self, settings: Settings, *operands: Vector) -> Settings:  # noqa: ARG002  # rows do not matter
        transitions, offsets = offsets_of(settings["zone"])
        return {"transitions": list(transitions), "offsets": list(offsets)}

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


def _months(local: NDArray[np.int64]) -> NDArray[np.int64]:
    return local.view("datetime64[us]").astype("datetime64[M]").view(np.int64)


LOCAL_TIME_OF_ZONE = LocalTime()
HOUR = LocalPart("hour", lambda local: local // HOUR_US % 24)
MINUTE_OF_DAY = LocalPart("minute_of_day", lambda local: local // MINUTE_US % (24 * 60))
DAY_OF_WEEK = LocalPart("day_of_week", lambda local: (local // DAY_US + _THURSDAY) % 7)
MONTH = LocalPart("month", lambda local: _months(local) % 12 + 1)
YEAR = LocalPart("year", lambda local: _months(local) // 12 + 1970)

OPERATIONS: tuple[Operation, ...] = (LOCAL_TIME_OF_ZONE, HOUR, MINUTE_OF_DAY, DAY_OF_WEEK, MONTH, YEAR)
