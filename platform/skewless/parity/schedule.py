"""Which sampled predictions are compared when: steps of PARITY_STEP_S whose views' sources have got past them.

step       predictions with `as_of` in so many seconds; the least that is compared and noted, so that a restart
           repeats or skips none
portion    steps of one hour that are compared at once, and noted in one transaction with what was found
then       the first pass over a step, as soon as every source has passed it, or has been quiet for too long
finally    the second, over a whole hour, once late data has had its time; it replaces what was found before
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from skewless.canonical_json import Digest
from skewless.features.frame import NO_EVENT_TIME
from skewless.monitor_limits import PARITY_CHUNK_ROWS, PARITY_LIVE_S, PARITY_SETTLE_S, PARITY_STEP_S
from skewless.parity.evidence import Watermark, Written
from skewless.timestamps import HOUR_US, SECOND_US

STEP_US = int(PARITY_STEP_S * SECOND_US)
SETTLE_US = int(PARITY_SETTLE_S * SECOND_US)
LIVE_US = int(PARITY_LIVE_S * SECOND_US)
PERIOD_US = HOUR_US
"""Results are added up by the hour of `as_of`."""
assert PERIOD_US % STEP_US == 0, "no step lies in two hours"


class Pass(StrEnum):
    """The two times that a prediction is compared."""

    THEN = "then"
    FINALLY = "finally"


@dataclass(frozen=True, slots=True)
class Step:
    """Sampled predictions of one endpoint with `start` <= as_of < `start` + STEP_US, counted by bundle."""

    start: int
    rows: Mapping[Digest, int]

    @property
    def end(self) -> int:
        """The first moment after it (µs)."""
        return self.start + STEP_US

    @property
    def total(self) -> int:
        """Predictions."""
        return sum(self.rows.values())


@dataclass(frozen=True, slots=True)
class Portion:
    """Steps of one hour, ascending, compared at once."""

    steps: tuple[Step, ...]

    @property
    def period(self) -> int:
        """The hour's beginning (µs)."""
        return period_of(self.steps[0].start)

    @property
    def start(self) -> int:
        """Of the first step (µs)."""
        return self.steps[0].start

    @property
    def end(self) -> int:
        """Of the last step (µs)."""
        return self.steps[-1].end


@dataclass(frozen=True, slots=True)
class Moment:
    """What the time is for an endpoint: `now`, when the wall clock said `wall`; both in µs.

    Traffic of the present has the wall clock. Traffic that replays a past has a clock of its own: its newest
    prediction, from where time goes on as everywhere while nothing new comes. It never goes back.
    """

    now: int
    wall: int

    def then(self, wall: int, newest: int) -> "Moment":
        """The time later, when the wall clock says `wall`, and `newest` is the newest prediction."""
        seen = wall if wall - newest < LIVE_US else newest
        return Moment(min(wall, max(seen, self.now + max(0, wall - self.wall))), wall)


def period_of(moment: int) -> int:
    """The beginning of the hour of a moment (µs)."""
    return moment - moment % PERIOD_US


def passed_until(watermark: Watermark | None, written: Written | None) -> int:
    """Up to which moment a view's offline rows are there (µs): its newest row, or the newest run that read them."""
    known = NO_EVENT_TIME if watermark is None else max(watermark.event_time, watermark.created_time)
    runs = NO_EVENT_TIME if written is None or not len(written.ends) else int(written.ends[-1])
    return max(known, runs)


def is_ready(step: Step, passed: Mapping[Digest, int], *, now: int, quiet_us: int) -> bool:
    """Whether a step can be compared: it is in the log as a whole, and sources have passed it or said long nothing.

    `passed` has by bundle the least of `passed_until` of the views that it reads; one that is not in it is ready.
    """
    if now < step.end + SETTLE_US:
        return False
    if now >= step.end + max(quiet_us, SETTLE_US):
        return True
    return all(passed.get(bundle, step.end) >= step.end for bundle in step.rows)


def portions(steps: Sequence[Step], rows_max: int = PARITY_CHUNK_ROWS) -> Iterator[Portion]:
    """The steps, oldest first, in portions of one hour and, but for a step that has more alone, `rows_max` rows."""
    taken: list[Step] = []
    for step in sorted(steps, key=lambda each: each.start):
        if taken and (
            period_of(step.start) != period_of(taken[0].start)
            or sum(each.total for each in taken) + step.total > rows_max
        ):
            yield Portion(tuple(taken))
            taken = []
        taken.append(step)
    if taken:
        yield Portion(tuple(taken))
