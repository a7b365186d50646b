"""Keeps leases while a block of work runs: a thread renews them, and says when one was lost."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from skewless.errors import Conflict, Unavailable
from skewless.ingest_limits import LEASE_RENEW_S, LEASE_S, LEASE_STOP_S
from skewless.registry.leases import Lease, Leases


class LeaseKeeper:
    """Leases that are held and renewed; see `kept_leases`."""

    def __init__(
        self, leases: Leases, held: Iterable[Lease], *, lease_s: float, monotonic: Callable[[], float]
    ) -> None:
        self._leases = leases
        self._held = {each.name: each for each in held}
        self._lease_s = lease_s
        self._monotonic = monotonic
        self._renewed_s = monotonic()
        self._lost: Conflict | None = None

    @property
    def held(self) -> Mapping[str, Lease]:
        """The leases by name; also one that was lost since."""
        return self._held

    def require(self) -> None:
        """Return while all leases are held. Raises Conflict once one is not."""
        if self._lost is not None:
            raise Conflict(self._lost.message, hint=self._lost.hint)

    def renew(self) -> None:
        """Renew every lease once; a database that does not answer is asked again, for as long as the leases last."""
        begun_s = self._monotonic()
        try:
            for name, lease in self._held.items():
                self._held[name] = self._leases.renew(lease, lease_s=self._lease_s)
        except Conflict as error:
            self._lost = error
        except Unavailable as error:
            if begun_s - self._renewed_s > self._lease_s:
                self._lost = Conflict(f"leases could not be renewed: {error.message}", hint=error.hint)
        else:
            self._renewed_s = begun_s

    def release(self) -> None:
        """Give every lease back; what cannot be given back ends by itself."""
        for lease in self._held.values():
            with suppress(Unavailable):
                self._leases.release(lease)


@contextmanager
def kept_leases(
    leases: Leases,
    names: Iterable[str],
    owner: str,
    *,
    lease_s: float = LEASE_S,
    renew_s: float = LEASE_RENEW_S,
) -> Iterator[LeaseKeeper]:
    """Take leases, all or none, and keep them while the block runs. Raises Conflict where one is held by another.

    Names are taken in order of their names, so that two who want some of the same never wait for each other.
    """
    wanted = sorted(set(names))
    keeper = LeaseKeeper(
        leases, leases.take_all(wanted, owner, lease_s=lease_s), lease_s=lease_s, monotonic=time.monotonic
    )
    stop = threading.Event()

    def renewing() -> None:
        while not stop.wait(renew_s):
            keeper.renew()

    thread = threading.Thread(target=renewing, name="leases", daemon=True)
    thread.start()
    try:
        yield keeper
    finally:
        stop.set()
        thread.join(LEASE_STOP_S)
        keeper.release()
