"""How the arms of an experiment lie on their slots, and the least that has to move when their shares change.

A row falls on one of `SLOTS` slots by the hash of its entity; a layout says which arm owns which slots. Were a layout
computed from the shares alone, a change of shares would move more entities than the shares differ by: no stateless rule
does better than 2d / (1 + d) for a difference d (Bavarian et al. 2020, "Optimality of Correlated Sampling Strategies").
So a route keeps its layout, and a change hands over exactly the slots by which the shares differ.
"""

from collections.abc import Sequence

SLOTS = 10_000
"""A share of an arm is kept to a hundredth of a percent."""

Layout = tuple[tuple[int, int], ...]
"""Runs of slots from the first to the last, each (index of the arm that owns them, how many)."""


def slot_counts(shares: Sequence[float]) -> tuple[int, ...]:
    """How many slots each arm has: its share of `SLOTS`, rounded so that they sum to `SLOTS` (largest remainder).

    `shares` sum to 1.

    >>> slot_counts([1 / 3, 1 / 3, 1 / 3])
    (3334, 3333, 3333)
    """
    exact = [share * SLOTS for share in shares]
    counts = [int(each) for each in exact]
    by_remainder = sorted(range(len(counts)), key=lambda arm: (counts[arm] - exact[arm], arm))
    for arm in by_remainder[: SLOTS - sum(counts)]:
        counts[arm] += 1
    return tuple(counts)


def first_layout(shares: Sequence[float]) -> Layout:
    """One run per arm, in order.

    >>> first_layout([0.75, 0.25])
    ((0, 7500), (1, 2500))
    """
    return tuple((arm, count) for arm, count in enumerate(slot_counts(shares)) if count)


def moved_layout(layout: Layout, shares: Sequence[float]) -> Layout:
    """`layout` with the new shares, where only the slots by which an arm shrank change their owner.

    An arm that shrinks gives its shortest runs first, and cuts at most one: so runs do not splinter.

    >>> moved_layout(((0, 5000), (1, 5000)), [0.6, 0.4])
    ((0, 5000), (1, 4000), (0, 1000))
    """
    owned = owned_slots(layout, len(shares))
    surplus = [have - want for have, want in zip(owned, slot_counts(shares), strict=True)]
    runs = [list(run) for run in layout]
    freed = _freed(runs, surplus)
    wanting = [[arm, -missing] for arm, missing in enumerate(surplus) if missing < 0]
    given = {place: _shared_out(count, wanting) for place, count in sorted(freed.items())}
    laid: list[tuple[int, int]] = []
    for place, (arm, count) in enumerate(runs):
        laid.append((arm, count))
        laid.extend(given.get(place, ()))
    return _merged(laid)


def owned_slots(layout: Layout, arms: int) -> list[int]:
    """How many slots each of `arms` arms owns."""
    owned = [0] * arms
    for arm, count in layout:
        owned[arm] += count
    return owned


def _freed(runs: list[list[int]], surplus: Sequence[int]) -> dict[int, int]:
    """Cut the slots that shrinking arms give from the ends of their runs, in place; how many, by run."""
    freed: dict[int, int] = {}
    left = list(surplus)
    for place in sorted(range(len(runs)), key=lambda each: (runs[each][1], each)):
        arm, count = runs[place]
        given = min(count, left[arm])
        if given > 0:
            runs[place][1] -= given
            left[arm] -= given
            freed[place] = given
    return freed


def _shared_out(count: int, wanting: list[list[int]]) -> list[tuple[int, int]]:
    """`count` freed slots as runs of the arms that still want some, which are counted down in place."""
    runs = []
    while count:
        arm, missing = wanting[0]
        taken = min(count, missing)
        runs.append((arm, taken))
        count -= taken
        wanting[0][1] -= taken
        if not wanting[0][1]:
            wanting.pop(0)
    return runs


def _merged(runs: Sequence[tuple[int, int]]) -> Layout:
    """The same slots without empty runs and with neighbours of one arm as one run."""
    merged: list[tuple[int, int]] = []
    for arm, count in runs:
        if merged and merged[-1][0] == arm:
            merged[-1] = (arm, merged[-1][1] + count)
        elif count:
            merged.append((arm, count))
    return tuple(merged)
