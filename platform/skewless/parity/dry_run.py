"""A dry parity run: would a bundle be given online what it is given offline, before it answers anybody?

questions   the newest predictions' or examples' join keys and request fields     (rows,)
online      read by the gateway's reader at one moment, transformed and scored     (rows,)
offline     point in time at that moment                                           (rows,)
verdict     a parity check's findings; faults above a rate refuse the bundle

What passes by itself (a materialization that is due, a source that has not got so far) refuses nothing. Where there is
nothing to compare, the verdict says so and is no pass.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from skewless.canonical_json import Digest
from skewless.errors import BundleRefused
from skewless.features.frame import NO_EVENT_TIME, FeatureFrame
from skewless.monitor_limits import PARITY_GATE_HISTORIC_S
from skewless.parity.causes import Kind
from skewless.parity.evidence import Watermark, Written
from skewless.parity.repair_plan import REMEDIES
from skewless.timestamps import SECOND_US, format_timestamp

_SHORT = 12
_HISTORIC_US = int(PARITY_GATE_HISTORIC_S * SECOND_US)


class Result(StrEnum):
    """How a dry run ended."""

    PASSED = "passed"
    REFUSED = "refused"
    NOT_CHECKED = "not_checked"
    """There was nothing to compare, or nothing to compare it with."""
    SKIPPED = "skipped"
    """Somebody said not to look."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A cause that somebody has to mend, in one view: `differing` of `rows`, an example in words and what mends it."""

    view: str
    cause: str
    differing: int
    rows: int
    example: str
    repair: str

    @property
    def rate(self) -> float:
        """Share of the questions."""
        return self.differing / self.rows if self.rows else 0.0

    @property
    def text(self) -> str:
        """One line, or two where there is an example."""
        told = f"{self.view}: {self.cause} in {self.differing:,} of {self.rows:,} ({self.rate:.2%})"
        return f"{told}\n  e.g. {self.example}" if self.example else told

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "view": self.view,
            "cause": self.cause,
            "differing": self.differing,
            "rows": self.rows,
            "example": self.example,
            "repair": self.repair,
        }


@dataclass(frozen=True, slots=True)
class DryRun:
    """The verdict. `words` say why nothing was checked, or what was looked at; `as_of` (µs) is None where nothing was.

    `faults` are those above the rate, the most frequent first; `passing` counts, by cause, what passes by itself or is
    below it.
    """

    result: Result
    words: str
    as_of: int | None = None
    rows: int = 0
    entities: int = 0
    faults: tuple[Fault, ...] = ()
    passing: Mapping[str, int] | None = None

    @classmethod
    def not_checked(cls, words: str) -> "DryRun":
        """Nothing was compared, for a reason."""
        return cls(Result.NOT_CHECKED, words)

    @classmethod
    def skipped(cls, reason: str) -> "DryRun":
        """Nothing was compared, because somebody said so."""
        return cls(Result.SKIPPED, reason)

    @property
    def summary(self) -> str:
        """A line for people."""
        if self.result in (Result.NOT_CHECKED, Result.SKIPPED):
            return f"{self.result.value.replace('_', ' ')}: {self.words}"
        waiting = "".join(f", {count:,} {cause}" for cause, count in sorted((self.passing or {}).items()))
        return f"{self.result.value}: {self.words}{waiting}"

    def require(self, bundle: Digest) -> None:
        """Raise BundleRefused where faults refuse the bundle, with each, an example and what mends it."""
        if self.result is not Result.REFUSED:
            return
        told = "\n".join(each.text for each in self.faults)
        repairs = dict.fromkeys(each.repair for each in self.faults if each.repair)
        mend = f"mend it ({'; '.join(f'`{each}`' for each in repairs)})" if repairs else "mend it"
        raise BundleRefused(
            f"bundle {bundle[:_SHORT]} would be given other features online than offline ({self.words}):\n{told}",
            hint=f"{mend}, or pass --skip-parity REASON, which is kept in the audit trail",
        )

    def to_json(self) -> dict[str, Any]:
        """What an audit event keeps."""
        return {
            "result": self.result.value,
            "words": self.words,
            "as_of": None if self.as_of is None else format_timestamp(self.as_of),
            "rows": self.rows,
            "entities": self.entities,
            "faults": [each.to_json() for each in self.faults],
            "passing": dict(self.passing or {}),
        }


def moment_of(now: int, watermarks: Iterable[Watermark], written: Iterable[Written], logged: int | None) -> int:
    """The moment (µs) at which a dry run asks: now, unless the sources are historic and a simulated clock has served.

    Sources that end PARITY_GATE_HISTORIC_S before now are those of an example or a back-test: there the store is as of
    the newest prediction logged, or of the newest materialization.

    >>> moment_of(10**15, [Watermark(9 * 10**14, 9 * 10**14)], [Written.of(((0, 5 * 10**14),))], None)
    500000000000000
    """
    reached = [max(each.event_time, each.created_time) for each in watermarks]
    if not reached or now - max(reached) <= _HISTORIC_US:
        return now
    ends = [int(each.ends[-1]) for each in written if len(each.ends)]
    moments = [each for each in (logged, max(ends, default=None)) if each is not None]
    return min(max(moments), now) if moments else now


def holds_nothing(online: FeatureFrame) -> bool:
    """Whether the store has no row of any view for any question."""
    times = online.event_times.values()
    return bool(times) and all(bool(np.all(each == NO_EVENT_TIME)) for each in times)


def judge(report: Mapping[str, Any], as_of: int, *, faults_max: float, asked: str) -> DryRun:
    """The verdict on a parity check's report; `asked` says in words where the questions came from."""
    causes: Sequence[Mapping[str, Any]] = report["causes"]
    found = [_fault(each) for each in causes if each["kind"] == Kind.FAULT.value]
    faults = sorted((each for each in found if each.rate > faults_max), key=lambda each: -each.rate)
    refused = {(each.view, each.cause) for each in faults}
    passing: dict[str, int] = {}
    for each in causes:
        if (each["view"], each["cause"]) not in refused:
            passing[each["cause"]] = passing.get(each["cause"], 0) + int(each["differing"])
    rows, entities = int(report["predictions"]), int(report["entities"])
    words = f"{rows:,} questions of {entities:,} entities from {asked}, as of {format_timestamp(as_of)}"
    result = Result.REFUSED if faults else Result.PASSED
    return DryRun(result, words, as_of, rows, entities, tuple(faults), passing)


def _fault(each: Mapping[str, Any]) -> Fault:
    examples = each["examples"]
    repair = (
        f"skewless features repair --view {each['view']} --dry-run" if each["cause"] in REMEDIES else each["repair"]
    )
    return Fault(
        view=each["view"],
        cause=each["cause"],
        differing=int(each["differing"]),
        rows=int(each["units"]),
        example=str(examples[0].get("words", "")) if examples else "",
        repair=repair,
    )
