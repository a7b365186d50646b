"""How often each caller may ask: one number per caller, in a file that all workers of a machine map into memory.

The generic cell rate algorithm (ATM Forum TM 4.0, appendix C) needs one number, the theoretical arrival time: the
moment at which the caller's burst is whole again. With an interval of 1 / rate and a tolerance of burst intervals:

    arrival = max(arrival, now) + cost * interval        let in where arrival - now <= tolerance, else nothing changes

Numbers are integer nanoseconds of the machine's monotonic clock, which all its processes share and no one can set.
A slot is 16 bytes (caller's fingerprint, arrival time), found by hashing and probing. One whose arrival time has
passed says nothing that an empty one does not, so anybody may have it: idle callers need no clean-up.

A slot is changed under a lock of its own on the file (fcntl), which the kernel takes back from a process that dies.
One that is stopped keeps it: after RATE_LOCK_TRIES the slot is changed without. Should that worker go on later, what it
writes may be old, which at worst gives the caller its burst once more.
"""

import fcntl
import logging
import math
import mmap
import os
import struct
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Final, Self

from skewless.errors import RateLimited
from skewless.limits import RATE_DEBT_MAX, RATE_LOCK_TRIES, RATE_SLOTS
from skewless.registry.api_scopes import ApiRate
from skewless_http.security.callers import Caller

FILE: Final = "rates.v1.bin"
BUCKETS_REMEMBERED_MAX: Final = RATE_SLOTS
"""Callers of which one worker remembers where their slot is."""
PROBES_MAX: Final = 16
"""Slots that a caller may be found in; where all of them are in use, the one with the least to remember is taken."""
CLAIMS_MAX: Final = 8
"""Tries at a slot that other callers take as soon as it is had: so many ask at once only where slots run out."""
_EXCLUSIVE: Final = fcntl.LOCK_EX | fcntl.LOCK_NB
_SLOT: Final = struct.Struct("<Qq")
_LOGGER = logging.getLogger(__name__)
_SECOND_NS: Final = 1_000_000_000


class _Bucket:
    """Where one caller's slot is, and its rate in nanoseconds."""

    __slots__ = ("debt_ns", "fingerprint", "interval_ns", "offset", "rate", "tolerance_ns")

    def __init__(self, caller_id: str, rate: ApiRate) -> None:
        digest = blake2b(caller_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self.fingerprint: int = int.from_bytes(digest, "little") | 1
        self.rate = rate
        self.interval_ns = max(1, round(_SECOND_NS / rate.per_s))
        self.tolerance_ns = self.interval_ns * rate.burst
        self.debt_ns = self.tolerance_ns + self.interval_ns * RATE_DEBT_MAX
        self.offset = -1


class SharedRates:
    """The rates of all callers. Synchronous and quick: a check takes some microseconds, most of them in the kernel."""

    def __init__(
        self,
        slots: mmap.mmap,
        descriptor: int,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        lock_tries: int = RATE_LOCK_TRIES,
    ) -> None:
        """`descriptor` is of the file behind `slots`; -1 where only this process has them, and needs no lock.

        `lock_tries`: how often a slot's lock is asked for before the slot is changed without it.
        """
        self._slots = slots
        self._descriptor = descriptor
        self._clock = clock
        self._lock_tries = lock_tries
        self._buckets: dict[str, _Bucket] = {}

    @classmethod
    def open(
        cls, folder: Path, *, clock: Callable[[], int] = time.monotonic_ns, lock_tries: int = RATE_LOCK_TRIES
    ) -> Self:
        """The rates kept in a folder, which gateways of one machine share and which outlive them.

        Where the file cannot be had, that is logged, and each worker counts for itself.
        """
        size = RATE_SLOTS * _SLOT.size
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            _LOGGER.warning("rates are counted by each worker for itself: %s", error)
            return cls(mmap.mmap(-1, size), -1, clock=clock)
        try:
            _take_space(descriptor, size)
            return cls(mmap.mmap(descriptor, size), descriptor, clock=clock, lock_tries=lock_tries)
        except OSError as error:
            os.close(descriptor)
            _LOGGER.warning("rates are counted by each worker for itself: %s", error)
            return cls(mmap.mmap(-1, size), -1, clock=clock)

    def check(self, caller: Caller, cost: int = 1) -> None:
        """Take `cost` of what the caller may ask for. Raises RateLimited, and takes nothing, where it is used up."""
        if caller.rate is None:
            return
        bucket = self._bucket(caller.id, caller.rate)
        now = self._clock()
        wait_ns = self._take(bucket, now, min(cost, bucket.rate.burst), most_ns=bucket.tolerance_ns, is_charge=False)
        if wait_ns > 0:
            raise rate_limited(caller, bucket.rate, wait_ns / _SECOND_NS)

    def charge(self, caller: Caller, cost: int) -> None:
        """Take `cost` also where it is used up: what is missing is debt, up to RATE_DEBT_MAX."""
        if caller.rate is None or cost <= 0:
            return
        bucket = self._bucket(caller.id, caller.rate)
        self._take(bucket, self._clock(), cost, most_ns=bucket.debt_ns, is_charge=True)

    def close(self) -> None:
        """Let go of the file. What it says stays."""
        self._slots.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _bucket(self, caller_id: str, rate: ApiRate) -> _Bucket:
        bucket = self._buckets.get(caller_id)
        if bucket is None or bucket.rate is not rate:
            if len(self._buckets) >= BUCKETS_REMEMBERED_MAX:
                self._buckets.clear()
            self._buckets[caller_id] = bucket = _Bucket(caller_id, rate)
        return bucket

    def _take(self, bucket: _Bucket, now: int, cost: int, *, most_ns: int, is_charge: bool) -> int:
        """Move the arrival time on. Returns 0, or how many ns are missing; a charge is cut to what is left."""
        offset, arrival, is_locked = self._held(bucket, now)
        try:
            # Beyond the debt it cannot be: it was written before the machine, and its clock, started anew.
            if arrival < now or arrival - now > bucket.debt_ns:
                arrival = now
            after = arrival + cost * bucket.interval_ns
            over_ns: int = after - now - most_ns
            if over_ns > 0:
                if not is_charge:
                    return over_ns
                after = now + most_ns
            _SLOT.pack_into(self._slots, offset, bucket.fingerprint, after)
            return 0
        finally:
            if is_locked:
                self._unlock(offset)

    def _held(self, bucket: _Bucket, now: int) -> tuple[int, int, bool]:
        """The caller's slot under its lock, its arrival time, and whether the lock could be had.

        A slot that another caller took while this one was idle is claimed anew: this one's burst is whole then, or what
        another worker has left of it.
        """
        for _ in range(CLAIMS_MAX):
            offset = bucket.offset if bucket.offset >= 0 else self._claim(bucket, now)
            is_locked = self._lock(offset)
            fingerprint, arrival = _SLOT.unpack_from(self._slots, offset)
            if fingerprint == bucket.fingerprint:
                return offset, arrival, is_locked
            bucket.offset = -1
            if is_locked:
                self._unlock(offset)
        # More callers ask at once than there are slots, and take them from each other: nothing is known of this one.
        offset = self._claim(bucket, now)
        return offset, 0, self._lock(offset)

    def _claim(self, bucket: _Bucket, now: int) -> int:
        """Find the caller's slot, or make a free one its own: the first that is idle, else the one that is so soonest.

        It is taken under its lock, and only while it is still what was found there: a worker that lost its processor in
        between would otherwise make the caller's burst whole again after another worker has let some of it in.
        """
        for _ in range(CLAIMS_MAX):
            offset, found = self._found(bucket, now)
            if found[0] == bucket.fingerprint or self._occupied(offset, found, bucket, now):
                break
        bucket.offset = offset
        return offset

    def _found(self, bucket: _Bucket, now: int) -> tuple[int, tuple[int, int]]:
        """The caller's slot, or the one to be taken, with what it holds."""
        start = bucket.fingerprint % RATE_SLOTS
        soonest, held, soonest_arrival = -1, (0, 0), 0
        for probe in range(PROBES_MAX):
            offset = (start + probe) % RATE_SLOTS * _SLOT.size
            fingerprint, stored = _SLOT.unpack_from(self._slots, offset)
            if fingerprint == bucket.fingerprint:
                return offset, (fingerprint, stored)
            arrival = max(stored, now)
            if soonest < 0 or arrival < soonest_arrival:
                soonest, held, soonest_arrival = offset, (fingerprint, stored), arrival
        return soonest, held

    def _occupied(self, offset: int, found: tuple[int, int], bucket: _Bucket, now: int) -> bool:
        """Make a slot the caller's where it still holds what was found there; whether it is."""
        is_locked = self._lock(offset)
        try:
            if _SLOT.unpack_from(self._slots, offset) != found:
                return False
            _SLOT.pack_into(self._slots, offset, bucket.fingerprint, now)
            return True
        finally:
            if is_locked:
                self._unlock(offset)

    def _lock(self, offset: int) -> bool:
        if self._descriptor < 0:
            return False
        for _ in range(self._lock_tries):
            try:
                fcntl.lockf(self._descriptor, _EXCLUSIVE, 1, offset)
            except OSError:  # another worker has it, and may be waiting for a processor
                os.sched_yield()
                continue
            return True
        return False

    def _unlock(self, offset: int) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, offset)


def _take_space(descriptor: int, size: int) -> None:
    """Space is taken now: a full disk would otherwise kill whoever writes to a page that has none."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    elif (missing := size - os.fstat(descriptor).st_size) > 0:  # macOS has no such call
        os.pwrite(descriptor, bytes(missing), size - missing)


def rate_limited(caller: Caller, rate: ApiRate, wait_s: float) -> RateLimited:
    """The refusal of a caller that has to wait `wait_s` seconds."""
    return RateLimited(
        caller.id, retry_after_s=math.ceil(wait_s * 1_000) / 1_000, quota=rate.burst, window_s=rate.burst / rate.per_s
    )
