"""Has whoever writes rows of some views wait while they are deleted: by the leases that writers work under."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from skewless.adapters.lease_keeper import kept_leases
from skewless.errors import Conflict
from skewless.ingest_limits import ERASURE_LEASE_WAIT_S
from skewless.registry.leases import Leases, owner_text

_POLL_S = 0.05
"""A lane that has work gives its lease back for a quarter of a second every few seconds."""


@contextmanager
def writers_waiting(
    leases: Leases, names: Sequence[str], *, wait_s: float = ERASURE_LEASE_WAIT_S
) -> Iterator[tuple[str, ...]]:
    """Hold leases while the block runs, and give it what was not to be had within `wait_s` seconds in all, as told.

    One by one and in order of their names: lanes give theirs back at moments of their own. Raises Unavailable.
    """
    deadline_s = time.monotonic() + wait_s
    owner = f"deletion by {owner_text()}"
    missed: list[str] = []
    with ExitStack() as held:
        for name in sorted(set(names)):
            while True:
                try:
                    held.enter_context(kept_leases(leases, (name,), owner))
                except Conflict as error:
                    if time.monotonic() < deadline_s:
                        time.sleep(_POLL_S)
                        continue
                    missed.append(error.message)
                break
        yield tuple(missed)
