"""What callers of a gateway know, and what its prediction log must therefore hold.

The model sees nothing of the log's inside. Callers write down what they asked and what they were answered, whoever
breaks things writes down when; from the two follows what has to be in the log, what may be, and what must not.

    answered    the caller has ids: each is in the log once; of a gateway with a flush time, unless it was killed within
    unanswered  refused, or the connection broke: may be in the log, once, and as it was asked
    never asked must not be there
"""

import json
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from skewless.timestamps import Micros

SLACK_S = 1.0
"""How late a flush may begin or end on a machine that others use too."""


class Said(NamedTuple):
    """What tells an outcome from others: whom it is about, by id or by entity, its label and its time."""

    prediction_id: str
    tailnum: str
    label: str
    outcome_time: int


@dataclass(slots=True)
class AskedPredictions:
    """One request for predictions; a row of the log is known by the id of its request and its place in it."""

    request_id: str
    gateway: str
    as_of: Micros
    tailnums: tuple[str, ...]
    ids: tuple[str, ...] = ()
    """As answered, by row; empty where no answer came."""
    probabilities: tuple[float, ...] = ()
    answered_s: float = 0.0
    """Monotonic; 0 where no answer came."""

    @property
    def is_answered(self) -> bool:
        """Whether the caller has its answer."""
        return bool(self.ids)


@dataclass(slots=True)
class ToldOutcome:
    """One outcome as a caller told it: of a prediction by its id, or of an entity at a moment."""

    gateway: str
    label: str
    outcome_time: Micros
    """Another one for each outcome, but of a duplicate, which is told as it was told before."""
    prediction_id: str = ""
    """Empty where told by entity."""
    tailnum: str = ""
    """Empty where told by id."""
    at: Micros | None = None
    accepted_s: float = 0.0
    """Monotonic; 0 where no answer came."""

    @property
    def said(self) -> Said:
        """What tells it from others."""
        return Said(self.prediction_id, self.tailnum, self.label, self.outcome_time)

    @property
    def is_accepted(self) -> bool:
        """Whether the caller was told that it is kept."""
        return self.accepted_s > 0


@dataclass(slots=True)
class Outage:
    """A gateway that did not run from a moment to a later one (monotonic); killed, or only stopped."""

    gateway: str
    since_s: float
    until_s: float
    killed: bool


@dataclass
class CrashModel:
    """Everything that was asked and broken. Callers of many threads write into it."""

    flush_s: dict[str, float]
    """Of each gateway: how long what it answered may be in its memory only."""
    asked: dict[str, AskedPredictions] = field(default_factory=dict)
    told: list[ToldOutcome] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    """How often each status and code came."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, asked: AskedPredictions) -> None:
        """Write down a request before it is sent."""
        with self._lock:
            self.asked[asked.request_id] = asked

    def tell(self, outcomes: Iterable[ToldOutcome]) -> None:
        """Write down outcomes before they are sent."""
        with self._lock:
            self.told += outcomes

    def broke(self, outage: Outage) -> None:
        """Write down that a gateway did not run."""
        with self._lock:
            self.outages.append(outage)

    def refused(self, status: int, body: bytes) -> None:
        """Write down an answer that is none."""
        code = json.loads(body or b"{}").get("code", "")
        with self._lock:
            self.refusals[f"{status} {code}"] += 1

    def answered(self) -> list[AskedPredictions]:
        """Requests whose callers have their answers, at this moment."""
        with self._lock:
            return [each for each in self.asked.values() if each.is_answered]

    def has_answered(self, gateway: str, *, since_s: float) -> bool:
        """Whether a gateway has answered anything since a moment."""
        return any(each.gateway == gateway and each.answered_s > since_s for each in self.answered())

    def safe_ids(self) -> frozenset[str]:
        """Predictions that a reader must find from now on: those of gateways that flush before they answer."""
        return frozenset(id_ for each in self.answered() if not self.flush_s[each.gateway] for id_ in each.ids)

    def may_be_lost(self, gateway: str, answered_s: float) -> bool:
        """Whether what a gateway answered at a moment may have been in its memory only when it was killed."""
        flush_s = self.flush_s[gateway]
        return bool(flush_s) and any(
            self._ran_s(gateway, answered_s, kill.since_s) <= flush_s + SLACK_S
            for kill in self.outages
            if kill.killed and kill.gateway == gateway and kill.since_s >= answered_s - SLACK_S
        )

    def _ran_s(self, gateway: str, since_s: float, until_s: float) -> float:
        """How long a gateway ran between two moments, apart from when it was stopped: then it flushed nothing."""
        stopped_s = sum(
            max(0.0, min(until_s, each.until_s) - max(since_s, each.since_s))
            for each in self.outages
            if each.gateway == gateway and not each.killed
        )
        return until_s - since_s - stopped_s
