"""How old a view's features are, where on their way they age, and whether that is as its owner wants it.

    source ──────────▶ online store ──────────▶ callers
    newest event,      newest event,            ages that they really got
    newest arrival     ages of a sample

All ages are `as_of` less an event time: when something happened, never when a job ran. The target is the owner's
(`freshness` of the view) and bounds the age of the newest row in the online store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from skewless.features.arrivals import Cadence
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, SECOND_US

QUANTILES = (0.5, 0.9, 1.0)
"""Of the ages of sampled entities; the last is the oldest."""


class Standing(StrEnum):
    """How a view stands; the worst that is true of it."""

    FRESH = "fresh"
    LATE = "late"
    """Its newest row is older than its target."""
    STOPPED = "stopped"
    """Its source is silent for longer than it ever is."""
    NO_TARGET = "no_target"
    """Nobody said how old it may be."""
    UNKNOWN = "unknown"
    """What its age would be told by could not be read."""


class Clock(StrEnum):
    """What `as_of` is."""

    WALL = "wall"
    REPLAY = "replay"
    """The greatest `as_of` of traffic that replays a past, and of nothing else that reads the view."""
    GIVEN = "given"


@dataclass(frozen=True, slots=True)
class SourceAges:
    """What a source holds that was known at `as_of`. Moments are µs, None where there is none.

    `cadence` is None where too little arrived to have one. `problem` is why the source could not be read, empty where
    it was; `note` what was left out.
    """

    newest_event: int | None = None
    newest_created: int | None = None
    rows: int | None = None
    cadence: Cadence | None = None
    problem: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class OnlineAges:
    """What the online store holds. `newest_event` (µs) is the newest that is known to be in it.

    Of `asked` entities out of the source, evenly taken, `found` have a row; `ages_us` has their ages by quantile.
    """

    newest_event: int | None = None
    asked: int = 0
    found: int = 0
    ages_us: Mapping[float, int] | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ServedAges:
    """Ages that callers got of a view, over `rows` predictions that had a row of it."""

    rows: int
    median_us: int
    p99_us: int


@dataclass(frozen=True, slots=True)
class ViewFreshness:
    """Everything about one view at `as_of` (µs). `target_us` is None where there is none, `served` without traffic."""

    view: str
    as_of: int
    clock: Clock
    target_us: int | None
    path: str
    source: SourceAges
    online: OnlineAges
    served: ServedAges | None
    is_online: bool = True

    @property
    def source_age_us(self) -> int | None:
        """How long ago the newest event of the source happened."""
        return None if self.source.newest_event is None else self.as_of - self.source.newest_event

    @property
    def arrival_age_us(self) -> int | None:
        """How long ago the newest row of the source became known."""
        return None if self.source.newest_created is None else self.as_of - self.source.newest_created

    @property
    def online_age_us(self) -> int | None:
        """How long ago the newest event in the online store happened."""
        return None if self.online.newest_event is None else self.as_of - self.online.newest_event

    @property
    def judged_age_us(self) -> int | None:
        """The age that the target bounds: of the store, or of the source of a view that is not kept online."""
        return self.online_age_us if self.is_online else self.source_age_us

    @property
    def is_missing_online(self) -> bool:
        """Whether none of some entities of the source has a row in the store."""
        return self.is_online and self.online.asked > 0 and self.online.found == 0

    @property
    def misses_target(self) -> bool | None:
        """Whether it is older than its owner allows; None where nobody said, or where its age is not known."""
        if self.target_us is None:
            return None
        if self.is_missing_online:
            return True
        if self.judged_age_us is not None:
            return self.judged_age_us > self.target_us
        # The store cannot be newer than what it is filled from.
        return True if self.source_age_us is not None and self.source_age_us > self.target_us else None

    @property
    def standing(self) -> Standing:
        """The worst that is true; a source that has stopped explains that the view is late."""
        if self.source.cadence is not None and self.source.cadence.is_stopped:
            return Standing.STOPPED
        if self.target_us is None:
            return Standing.NO_TARGET
        if self.misses_target is None:
            return Standing.UNKNOWN
        return Standing.LATE if self.misses_target else Standing.FRESH

    @property
    def advice(self) -> str:
        """What is wrong and what to do, in a sentence or two; empty where nothing is to be done."""
        return _ADVICE[self.standing](self)


def newest(moments: Sequence[int | None]) -> int | None:
    """The latest of some moments; None where there is none.

    >>> newest([3, None, 5])
    5
    """
    known = [each for each in moments if each is not None]
    return max(known, default=None)


def quantiles_of(ages_us: NDArray[np.int64]) -> dict[float, int]:
    """Quantiles (QUANTILES) of ages (entities,); each is the age of one of them, and none is below 0.

    >>> quantiles_of(np.arange(1, 11))
    {0.5: 5, 0.9: 9, 1.0: 10}
    """
    found = np.quantile(np.maximum(ages_us, 0), QUANTILES, method="inverted_cdf")
    return {share: int(age) for share, age in zip(QUANTILES, found, strict=True)}


def binned_quantile(edges: Sequence[float], counts: NDArray[np.int64], share: float) -> float | None:
    """The value below which a share of counted values lies, evenly within their bins; None without any.

    `counts` (edges + 1,) are of values below the first edge, between two, and from the last one on; the bins at both
    ends are open, and their values are taken to lie at their edge.

    >>> binned_quantile([0.0, 10.0, 20.0], np.array([0, 2, 2, 0]), 0.75)
    15.0
    """
    if not counts.sum() or not len(edges):
        return None
    ends = np.array([edges[0], *edges, edges[-1]])
    below = np.concatenate(([0], np.cumsum(counts)))
    return float(np.interp(below[-1] * share, below, ends))


def told_span(span_us: float) -> str:
    """A span of time in its largest unit, with one decimal below ten.

    >>> told_span(90 * 1_000_000), told_span(26 * 3_600_000_000), told_span(400_000)
    ('1.5 min', '26 h', '0.4 s')
    """
    for unit_us, unit, units_max in ((SECOND_US, "s", 60), (MINUTE_US, "min", 60), (HOUR_US, "h", 48)):
        if span_us < units_max * unit_us:
            return _in_unit(span_us / unit_us, unit)
    return _in_unit(span_us / DAY_US, "d")


def _in_unit(amount: float, unit: str) -> str:
    # Cut and not rounded, so that 59.9 minutes are no hour of sixty minutes.
    shown = f"{int(amount * 10) / 10:g}" if amount < 10 else f"{int(amount):,}"
    return f"{shown} {unit}"


def _stopped(each: ViewFreshness) -> str:
    cadence = each.source.cadence
    assert cadence is not None, "it is what says so"
    return (
        f"nothing new in {each.path} for {told_span(cadence.silent_us)}, in which {cadence.missing:,.0f} arrivals "
        f"usually come (one each {told_span(cadence.typical_us)}): see that the job which writes it still runs"
    )


def _late(each: ViewFreshness) -> str:
    assert each.target_us is not None, "it is what is missed"
    if each.is_missing_online:
        return (
            f"none of {each.online.asked:,} of its entities is in the online store: `skewless materialize {each.view}`"
        )
    source_us, target = each.source_age_us, told_span(each.target_us)
    if source_us is not None and source_us > each.target_us:
        return (
            f"its source {each.path} is {told_span(source_us)} old itself, and may be {target}: whoever writes it is "
            "late; materializing does not help"
        )
    if source_us is None:
        return f"older than {target}, and its source cannot be read: {each.source.problem or 'it holds no row'}"
    age = each.judged_age_us
    told = "" if age is None else f"the store is {told_span(age)} old and "
    return f"{told}its source {told_span(source_us)}: `skewless materialize {each.view}`, or schedule it more often"


def _unknown(each: ViewFreshness) -> str:
    told = (each.online.problem, each.source.problem, each.source.note)
    return "; ".join(filter(None, told)) or "neither source nor store holds a row of it yet"


_ADVICE = {
    Standing.FRESH: lambda _: "",
    Standing.LATE: _late,
    Standing.STOPPED: _stopped,
    Standing.NO_TARGET: lambda _: 'give the view a target, such as the tag {"freshness": "2h"}',
    Standing.UNKNOWN: _unknown,
}
