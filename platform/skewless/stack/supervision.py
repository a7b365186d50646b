"""When a watched process is started, counts as hung, is restarted or is given up. Pure: no process, no clock.

::

    waiting ──dependencies healthy──▶ starting ──probe──▶ healthy ◀──probe──▶ failing
                                        ▲  │                 │                   │
                         delay is over  │  └──── exited ◀────┴── condemned ◀─────┘ too many missed probes
                                        │          │
                                   backing_off ◀───┴───▶ given_up     too many failures in a row

Times are seconds of one monotonic clock that the caller reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum


class Health(StrEnum):
    """Where a process stands."""

    WAITING = "waiting"
    STARTING = "starting"
    HEALTHY = "healthy"
    FAILING = "failing"
    """It runs, but missed its last health check."""
    BACKING_OFF = "backing_off"
    GIVEN_UP = "given_up"


RUNNING = frozenset({Health.STARTING, Health.HEALTHY, Health.FAILING})


class Phase(StrEnum):
    """Where the stack stands."""

    STARTING = "starting"
    UP = "up"
    DEGRADED = "degraded"
    """Every process was healthy once, and not every one is now."""
    FAILED = "failed"
    """A process was given up before it was ever healthy: this stack cannot start."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of supervision. `first_failures_max` holds until a process was healthy once.

    A process that never came up is wrong in itself, so it is given up sooner than one that did.
    """

    start_timeout_s: float = 90.0
    probe_failures_max: int = 5
    restart_delay_s: float = 0.5
    restart_delay_max_s: float = 15.0
    failures_max: int = 6
    first_failures_max: int = 1
    stable_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Watched:
    """One process as supervision sees it. `since_s` is when it came to this health."""

    name: str
    depends_on: tuple[str, ...] = ()
    health: Health = Health.WAITING
    since_s: float = 0.0
    was_healthy: bool = False
    failures: int = 0
    """Failures in a row, forgotten after `stable_s` of good health."""
    restarts: int = 0
    missed_probes: int = 0
    condemned: str = ""
    """Why it is being killed, until it has exited."""
    last_failure: str = ""


def restart_delay_s(failures: int, bounds: Bounds) -> float:
    """Seconds to wait before a start after so many failures in a row.

    >>> [restart_delay_s(failures, Bounds()) for failures in (0, 1, 2, 3, 9)]
    [0.0, 0.5, 1.0, 2.0, 15.0]
    """
    if failures == 0:
        return 0.0
    # The exponent is capped because the power of a large count overflows long after the delay is at its bound.
    doublings = min(failures - 1, 62)
    return min(bounds.restart_delay_max_s, bounds.restart_delay_s * 2.0**doublings)


def may_start(watched: Watched, everyone: Sequence[Watched], *, now_s: float, bounds: Bounds) -> bool:
    """Whether to start a process now.

    Dependencies count for the first start only: what runs already finds a restarted dependency again by itself.
    """
    if watched.health is Health.WAITING:
        healthy = {each.name for each in everyone if each.health is Health.HEALTHY}
        return healthy.issuperset(watched.depends_on)
    delay_s = restart_delay_s(watched.failures, bounds)
    return watched.health is Health.BACKING_OFF and now_s >= watched.since_s + delay_s


def started(watched: Watched, *, now_s: float) -> Watched:
    """After its process was started."""
    return replace(
        watched,
        health=Health.STARTING,
        since_s=now_s,
        missed_probes=0,
        condemned="",
        restarts=watched.restarts + (watched.health is Health.BACKING_OFF),
    )


def probe_passed(watched: Watched, *, now_s: float, bounds: Bounds) -> Watched:
    """After it answered a health check."""
    if watched.health is not Health.HEALTHY:
        return replace(watched, health=Health.HEALTHY, since_s=now_s, was_healthy=True, missed_probes=0)
    if watched.failures and now_s - watched.since_s >= bounds.stable_s:
        return replace(watched, failures=0)
    return watched


def probe_missed(watched: Watched, reason: str, *, now_s: float, bounds: Bounds) -> Watched:
    """After it failed a health check; `condemned` is set when it is to be killed."""
    missed = watched.missed_probes + 1
    if watched.health is Health.STARTING:
        late = now_s - watched.since_s >= bounds.start_timeout_s
        verdict = f"not healthy {bounds.start_timeout_s:g} s after its start: {reason}" if late else ""
        return replace(watched, missed_probes=missed, condemned=verdict)
    hung = missed >= bounds.probe_failures_max
    verdict = f"hung, it missed {missed} health checks in a row: {reason}" if hung else ""
    since_s = watched.since_s if watched.health is Health.FAILING else now_s
    return replace(watched, health=Health.FAILING, since_s=since_s, missed_probes=missed, condemned=verdict)


def exited(watched: Watched, reason: str, *, now_s: float, bounds: Bounds) -> Watched:
    """After its process ended without being asked to by the stack's own stop; `reason` says how."""
    stable = watched.health is Health.HEALTHY and now_s - watched.since_s >= bounds.stable_s
    failures = 1 if stable else watched.failures + 1
    allowed = bounds.failures_max if watched.was_healthy else bounds.first_failures_max
    return replace(
        watched,
        health=Health.BACKING_OFF if failures <= allowed else Health.GIVEN_UP,
        since_s=now_s,
        failures=failures,
        condemned="",
        last_failure=f"{watched.condemned} ({reason})" if watched.condemned else reason,
    )


def phase_of(everyone: Sequence[Watched]) -> Phase:
    """Where the stack of these processes stands."""
    if any(each.health is Health.GIVEN_UP and not each.was_healthy for each in everyone):
        return Phase.FAILED
    if all(each.health is Health.HEALTHY for each in everyone):
        return Phase.UP
    return Phase.DEGRADED if all(each.was_healthy for each in everyone) else Phase.STARTING
