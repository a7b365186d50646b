"""The season of traffic: which hour of the week, or of the day, a window belongs to. All in UTC."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from skewless.drift.window_length import check_window
from skewless.timestamps import DAY_US, HOUR_US

WEEK_US = 7 * DAY_US
WEEKS_MIN = 4
"""Weeks of history from which each hour of the week is its own: fewer tell little of one hour's ordinary spread."""
DAYS_MIN = 7
"""Days of history from which hours of the day are told apart."""


class Grade(StrEnum):
    """What a detector compares with, and so what its alarms are worth."""

    HOUR_OF_WEEK = "hour of week"
    """The same hour of four or more recent weeks: calibrated, with a promised rate of false alarms."""
    HOUR_OF_DAY = "hour of day"
    """Less history than that: weekends are not told apart, so no rate is promised."""
    TRAINING = "training"
    """Hardly any history: the training baseline, by rules of thumb."""

    @property
    def calibrated(self) -> bool:
        """Whether alarms come with a promised rate."""
        return self is Grade.HOUR_OF_WEEK


@dataclass(frozen=True, slots=True)
class Season:
    """Windows of `window_us` in a period of a week, a day, or none (one slot for all)."""

    window_us: int
    period_us: int

    @classmethod
    def of(cls, grade: Grade, window_us: int) -> "Season":
        """The season that a grade tells apart."""
        period = {Grade.HOUR_OF_WEEK: WEEK_US, Grade.HOUR_OF_DAY: DAY_US, Grade.TRAINING: 0}[grade]
        return cls(check_window(window_us), period)

    @property
    def slot_us(self) -> int:
        """How long a slot is: an hour, or a window where that is longer; 0 without a season."""
        return max(HOUR_US, self.window_us) if self.period_us else 0

    @property
    def slots(self) -> int:
        return self.period_us // self.slot_us if self.period_us else 1

    def slots_of(self, windows: NDArray[np.int64]) -> NDArray[np.intp]:
        """The slot of each window, given by its number (event time // window_us)."""
        if not self.period_us:
            return np.zeros(len(windows), dtype=np.intp)
        return (windows * self.window_us % self.period_us // self.slot_us).astype(np.intp)

    def smoothed(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums (slots, cells) with those of the hours before and after added. Longer slots stay as they are:
        a day's neighbours are other days."""
        if self.slots < 3 or self.slot_us > HOUR_US:
            return sums
        return sums + np.roll(sums, 1, axis=0) + np.roll(sums, -1, axis=0)


def grade_of(history_us: int) -> Grade:
    """The grade that so long a history allows."""
    if history_us >= WEEKS_MIN * WEEK_US:
        return Grade.HOUR_OF_WEEK
    return Grade.HOUR_OF_DAY if history_us >= DAYS_MIN * DAY_US else Grade.TRAINING
