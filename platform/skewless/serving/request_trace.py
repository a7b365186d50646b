"""What is noted of a request that is traced. Spans are made of it when the request is over, away from its path.

A call of a server is shared by requests that wait together, so it is noted once, and each of them knows of it:

    request A ──validate──admission──features──transform──model──log──▶
                                       │                    │
    request B ──validate──admission──features──transform────┤ model ──log──▶
                                                            └─ call of the model, child of A, linked with B
"""

import random
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

from skewless.coalescing import ASKERS
from skewless.limits import TRACE_CALLS_MAX
from skewless.serving.deadline import Deadline, MonotonicClock
from skewless.serving.trace_context import TRACEPARENT, TRACESTATE, TraceContext, written

OUTGOING: ContextVar[tuple[tuple[bytes, bytes], ...]] = ContextVar("outgoing trace headers", default=())
"""Headers by which a server that is called now can join the trace; none where the call is not traced."""
ADMISSION = "admission"
"""The wait for a turn, as spans call it; the times of a receipt count it as part of `validate`."""
AttributeValue = str | int | float | bool | tuple[str, ...]
Stage = tuple[str, int, int]
"""Name, and when it began and ended on the gateway's clock."""


def new_id(bits: int) -> int:
    """A random identifier that is not 0, which would mean none."""
    return random.getrandbits(bits) or 1  # unique, not secret


@dataclass(slots=True, eq=False)
class TracedCall:
    """One call of a server for some requests. `ended_ns` is 0 while it runs."""

    name: str
    askers: tuple["RequestTrace", ...]
    """Whoever shares it and is traced; it is part of the first one's trace."""
    started_ns: int
    span_id: int = field(default_factory=lambda: new_id(64))
    ended_ns: int = 0
    error: str = ""
    attributes: dict[str, AttributeValue] = field(default_factory=dict)

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What the server is told."""
        asker = self.askers[0]
        parent = (TRACEPARENT, written(asker.trace_id, self.span_id))
        return (parent, (TRACESTATE, asker.state)) if asker.state else (parent,)


class TracedDeadline(Deadline):
    """A deadline that also remembers when each stage began and ended; branches note theirs in the same list."""

    __slots__ = ("_name", "_seen_ns", "stages")

    def __init__(
        self, clock: MonotonicClock, *, started_ns: int, deadline_ms: int, stages: list[Stage] | None = None
    ) -> None:
        super().__init__(clock, started_ns=started_ns, deadline_ms=deadline_ms)
        self.stages: list[Stage] = [] if stages is None else stages
        self._seen_ns = started_ns
        self._name = ""

    def waits(self) -> None:
        """What went before was the first stage; from here to the next lap it is the wait for a turn."""
        now_ns = self._clock()
        self.stages.append(("validate", self._seen_ns, now_ns))
        self._seen_ns = now_ns
        self._name = ADMISSION

    def lap(self, stage: str) -> None:
        """See `Deadline.lap`."""
        super().lap(stage)
        self.stages.append((self._name or stage, self._seen_ns, self._lap_ns))
        self._seen_ns = self._lap_ns
        self._name = ""

    def give_up(self, now_ns: int) -> None:
        """The request ended: a wait that was not over ends with it."""
        if self._name:
            self.stages.append((self._name, self._seen_ns, now_ns))
            self._name = ""

    def branch(self) -> Deadline:
        """See `Deadline.branch`."""
        deadline_ms = self._deadline_ms
        other = TracedDeadline(self._clock, started_ns=self._started_ns, deadline_ms=deadline_ms, stages=self.stages)
        other._lap_ns = other._seen_ns = self._lap_ns
        other.laps_ms = dict(self.laps_ms)
        return other


@dataclass(slots=True, eq=False)
class RequestTrace:
    """A request of which spans are made. `parent_id` is 0 where it began the trace."""

    trace_id: int
    parent_id: int
    state: bytes
    started_ns: int
    """On the gateway's clock."""
    offset_ns: int
    """What turns that clock into nanoseconds since 1970."""
    span_id: int = field(default_factory=lambda: new_id(64))
    name: str = ""
    ended_ns: int = 0
    error: str = ""
    """What the request was refused with, as a stable code; empty where it was answered."""
    is_fault: bool = False
    """Whether the error is ours, not the caller's."""
    attributes: dict[str, AttributeValue] = field(default_factory=dict)
    calls: list[TracedCall] = field(default_factory=list)
    deadline: TracedDeadline | None = None

    @classmethod
    def of(cls, parent: TraceContext | None, *, started_ns: int, offset_ns: int) -> "RequestTrace":
        """A trace that goes on where the caller's is, or a new one."""
        if parent is None:
            return cls(new_id(128), 0, b"", started_ns, offset_ns)
        return cls(parent.trace_id, parent.span_id, parent.state, started_ns, offset_ns)

    @property
    def stages(self) -> list[Stage]:
        """As far as the request came."""
        return [] if self.deadline is None else self.deadline.stages

    def enter(self) -> None:
        """From here on, calls that this task makes are made for this request."""
        ASKERS.set((self,))

    def timed(self, clock: MonotonicClock, *, deadline_ms: int) -> TracedDeadline:
        """The deadline of the request, which notes its stages here. What was so far was validating."""
        self.deadline = TracedDeadline(clock, started_ns=self.started_ns, deadline_ms=deadline_ms)
        self.deadline.waits()
        return self.deadline

    def answered(
        self, *, rows: int, rung: str, bundles: tuple[str, ...], version: int, statuses: Mapping[str, int]
    ) -> None:
        """Note what was answered; `statuses` counts feature values by status. No value of any kind is noted."""
        noted = self.attributes
        noted["skewless.rows"] = rows
        noted["skewless.rung"] = rung
        noted["skewless.bundles"] = bundles
        noted["skewless.route_version"] = version
        for status, count in statuses.items():
            noted[f"skewless.statuses.{status}"] = count

    def end(self, now_ns: int) -> None:
        """The request is over, and its task may take another: a stream of requests has one."""
        ASKERS.set(())
        self.ended_ns = now_ns
        if self.deadline is not None:
            self.deadline.give_up(now_ns)


def begin_call(name: str, now_ns: int) -> TracedCall | None:
    """A call made now for the requests of this task; None where none of them is traced."""
    askers = tuple(each for each in ASKERS.get() if isinstance(each, RequestTrace))
    if not askers:
        return None
    call = TracedCall(name, askers, now_ns)
    for asker in askers:
        if len(asker.calls) < TRACE_CALLS_MAX:
            asker.calls.append(call)
    return call
