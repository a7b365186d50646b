"""What becomes of rows that come late or from the future, as their view declares it.

    late     "accept" (default) | "7d:drop" | "7d:quarantine"     older than that when they come
    future   "5m:refuse" (default) | "1h:quarantine"               later than now by more than that

A late row is a restatement: it takes its place in the order of rows by its event time, and training sees it from its
created time on. So it is welcome unless the view says otherwise. A row from the future would be served to everybody
who asks from now on, long before it happens; clocks of producers differ, so some tolerance is needed.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from skewless.errors import InvalidDefinition
from skewless.features.definition_metadata import read_duration
from skewless.timestamps import MINUTE_US, Micros

_ACCEPT = "accept"


class Treatment(StrEnum):
    """What is done with rows that are too late or too early."""

    DROP = "drop"
    QUARANTINE = "quarantine"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class LatePolicy:
    """`age_us` None: rows of any age are accepted."""

    age_us: int | None = None
    treatment: Treatment = Treatment.DROP

    def __str__(self) -> str:
        return _ACCEPT if self.age_us is None else f"{_text(self.age_us)}:{self.treatment}"


@dataclass(frozen=True, slots=True)
class FuturePolicy:
    """How far ahead of the server's clock an event time may be, in µs, and what is done beyond."""

    tolerance_us: int = 5 * MINUTE_US
    treatment: Treatment = Treatment.REFUSE

    def __str__(self) -> str:
        return f"{_text(self.tolerance_us)}:{self.treatment}"


@dataclass(frozen=True, slots=True)
class EventTimePolicy:
    """Both policies of a view."""

    late: LatePolicy = LatePolicy()
    future: FuturePolicy = FuturePolicy()


@dataclass(frozen=True, slots=True, eq=False)
class TimeVerdict:
    """Which rows (rows,) are late, and which are of the future, by their view's policy; none is both."""

    late: NDArray[np.bool_]
    future: NDArray[np.bool_]


def judge(policy: EventTimePolicy, event_times: NDArray[np.int64], now: Micros) -> TimeVerdict:
    """Which of some event times (rows,) in µs are too early or too late for a clock that says `now`.

    >>> verdict = judge(EventTimePolicy(LatePolicy(10)), np.array([0, 5, 1_000_000_000]), Micros(11))
    >>> verdict.late.tolist(), verdict.future.tolist()
    ([True, False, False], [False, False, True])
    """
    age = policy.late.age_us
    late = np.zeros(len(event_times), dtype=np.bool_) if age is None else event_times < now - age
    return TimeVerdict(late, event_times > now + policy.future.tolerance_us)


def parse_late(text: str) -> LatePolicy:
    """The policy of a view's tag `late`; the default of an empty one. Raises InvalidDefinition.

    >>> parse_late("7d:quarantine")
    LatePolicy(age_us=604800000000, treatment=<Treatment.QUARANTINE: 'quarantine'>)
    """
    if text.strip() in ("", _ACCEPT):
        return LatePolicy()
    age_us, treatment = _parsed("late", text, (Treatment.DROP, Treatment.QUARANTINE), f"`{_ACCEPT}`, or ")
    return LatePolicy(age_us, treatment)


def parse_future(text: str) -> FuturePolicy:
    """The policy of a view's tag `future`; the default of an empty one. Raises InvalidDefinition."""
    if not text.strip():
        return FuturePolicy()
    return FuturePolicy(*_parsed("future", text, (Treatment.REFUSE, Treatment.QUARANTINE), ""))


def _parsed(tag: str, text: str, allowed: tuple[Treatment, ...], also: str) -> tuple[int, Treatment]:
    length, _, treatment = text.strip().partition(":")
    length_us = read_duration(length)
    if length_us is None or treatment not in allowed:
        forms = " or ".join(f"`<length>:{each}`" for each in allowed)
        raise InvalidDefinition(
            f"the tag `{tag}` is `{text}`. Allowed: {also}{forms}, where a length is such as `5m`, `2h` or `7d`",
            hint="docs/ingestion.md says what each does with a row",
        )
    return length_us, Treatment(treatment)


def _text(length_us: int) -> str:
    """A length as a tag has it.

    >>> _text(7 * 86_400_000_000), _text(90_000_000)
    ('7d', '90s')
    """
    seconds = length_us // 1_000_000
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
