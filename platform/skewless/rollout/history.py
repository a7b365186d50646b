"""What an endpoint's past says: which bundle a rollback returns to."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from skewless.canonical_json import Digest


class RouteAction(StrEnum):
    """Why a live bundle changed. A rollback undoes the latest change that is not yet undone."""

    CREATE = "create"
    PROMOTE = "promote"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True)
class LiveChange:
    """One change of an endpoint's live bundle: what was done and which bundle was live after it."""

    action: RouteAction
    bundle: Digest


def rollback_target(changes: Iterable[LiveChange]) -> Digest | None:
    """The bundle that a rollback makes live, None where there is nothing to go back to.

    `changes` are an endpoint's own, oldest first. They are read as a stack, so rolling back twice goes back
    two promotions rather than returning to the bundle that was just left.

    >>> first, second = Digest("1" * 64), Digest("2" * 64)
    >>> made, promoted = LiveChange(RouteAction.CREATE, first), LiveChange(RouteAction.PROMOTE, second)
    >>> rollback_target([made, promoted]) == first
    True
    >>> rollback_target([made, promoted, LiveChange(RouteAction.ROLLBACK, first)]) is None
    True
    """
    lived: list[Digest] = []
    for change in changes:
        if change.action is RouteAction.ROLLBACK:
            lived.pop()
        else:
            lived.append(change.bundle)
    return lived[-2] if len(lived) > 1 else None
