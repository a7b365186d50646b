"""What an endpoint's past says: which bundle a rollback returns to."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from skewless.canonical_json import Digest


class RouteAction(StrEnum):
    """What changed a route. A rollback undoes the latest change of the live bundle that is not yet undone."""

    CREATE = "create"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    START_CANARY = "start_canary"
    SET_CANARY_SHARE = "set_canary_share"
    START_SHADOW = "start_shadow"
    START_EXPERIMENT = "start_experiment"
    SET_ARM_SHARES = "set_arm_shares"
    ABORT = "abort"
    """A canary, shadow or experiment ended without becoming live."""
    SET_MONITORING = "set_monitoring"


LIVE_ACTIONS = frozenset({RouteAction.CREATE, RouteAction.PROMOTE, RouteAction.ROLLBACK})
"""The actions that can change the live bundle."""


@dataclass(frozen=True, slots=True)
class LiveChange:
    """One change of an endpoint's live bundle: what was done and which bundle was live after it."""

    action: RouteAction
    bundle: Digest


def rollback_target(changes: Iterable[LiveChange]) -> Digest | None:
    """The bundle that a rollback makes live, None where there is nothing to go back to.

    `changes` are an endpoint's own, oldest first. They are read as a stack, so rolling back twice goes back
    two promotions rather than returning to the bundle that was just left. A promotion of what was live already (the
    winner of an experiment may be its control) and changes of canary, shadow or experiment count as nothing.

    >>> first, second = Digest("1" * 64), Digest("2" * 64)
    >>> made, promoted = LiveChange(RouteAction.CREATE, first), LiveChange(RouteAction.PROMOTE, second)
    >>> rollback_target([made, promoted]) == first
    True
    >>> rollback_target([made, promoted, LiveChange(RouteAction.ROLLBACK, first)]) is None
    True
    """
    lived = _lived(changes)
    return lived[-2] if len(lived) > 1 else None


def target_after_rollback(changes: Iterable[LiveChange]) -> Digest | None:
    """The bundle that a second rollback would make live, None where there is none."""
    lived = _lived(changes)
    return lived[-3] if len(lived) > 2 else None


def _lived(changes: Iterable[LiveChange]) -> list[Digest]:
    """The bundles that were live and are not rolled back, oldest first; the last one is live now."""
    lived: list[Digest] = []
    for change in changes:
        if change.action is RouteAction.ROLLBACK:
            lived.pop()
        elif change.action in LIVE_ACTIONS and lived[-1:] != [change.bundle]:
            lived.append(change.bundle)
    return lived
