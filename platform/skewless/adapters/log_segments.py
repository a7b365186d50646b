"""What one process writes of the prediction log: entries into frames, frames into segments, segments sealed in time.

Used by the log's one writing thread. Whatever fails leaves every entry either in a segment or with the caller, never in
both and never in neither.
"""

import errno
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from skewless.adapters.spool import SEALED, SUFFIX, SpoolFile, remove_leftovers
from skewless.limits import LOG_LEFTOVER_AGE_S, LOG_SPOOL_LOOK_S, LOG_SPOOL_LOOK_SHARE
from skewless.serving.log_blocks import block, encode, groups
from skewless.serving.log_privacy import LogPrivacy
from skewless.serving.log_sampling import NO_SAMPLING, LogSampling
from skewless.serving.records import LogEntry, entry_rows

_LOGGER = logging.getLogger(__name__)
UNENCODABLE = "unencodable"


@dataclass(slots=True)
class LogCounts:
    """What a log has done since its process began; read by whoever tells metrics."""

    rows: int = 0
    """Records in frames."""
    frames: int = 0
    bytes: int = 0
    """Of frames' payloads."""
    segments_sealed: int = 0
    spool_bytes: int = 0
    """Of all segments in the folder, of every process, when last looked at and what was written since."""
    dropped_rows: dict[str, int] = field(default_factory=dict)
    """Records given up, by reason."""

    def drop(self, reason: str, rows: int) -> None:
        """Count records that are given up."""
        self.dropped_rows[reason] = self.dropped_rows.get(reason, 0) + rows


class SpoolFull(OSError):
    """The folder holds as much as it may that was not shipped."""


class SpoolUsage:
    """Bytes of all segments in a folder. Looking costs a call per file, so it is done about once a second, and never
    takes more than a small share of the time."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._bytes = 0
        self._look_at_s = 0.0

    def bytes(self, *, bytes_max: int) -> int:
        """As of about a second ago, and what this process wrote since; looked at anew where that is beyond the bound,
        so that whoever waits for room finds it soon."""
        now_s = self._clock()
        if now_s >= self._look_at_s or (self._bytes >= bytes_max and now_s >= self._look_at_s - LOG_SPOOL_LOOK_S):
            with suppress(OSError):  # without file descriptors, say: what is known already has to do
                self._bytes = _bytes_in(self._folder)
            took_s = self._clock() - now_s
            self._look_at_s = now_s + LOG_SPOOL_LOOK_S + took_s / LOG_SPOOL_LOOK_SHARE
        return self._bytes

    def add(self, written: int) -> None:
        """Bytes that this process has written since."""
        self._bytes += written


class SegmentWriter:
    """Writes into one segment at a time. Belongs to one thread."""

    def __init__(
        self,
        folder: Path,
        *,
        fsync: bool,
        segment_bytes_max: int,
        segment_age_s: float,
        spool_bytes_max: int,
        privacy: LogPrivacy,
        sampling: LogSampling = NO_SAMPLING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes the folder. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder, age_s=LOG_LEFTOVER_AGE_S)
        self.counts = LogCounts()
        self._folder = folder
        self._fsync = fsync
        self._segment_bytes_max = segment_bytes_max
        self._segment_age_s = segment_age_s
        self._spool_bytes_max = spool_bytes_max
        self._privacy = privacy
        self._sampling = sampling
        self._clock = clock
        self._usage = SpoolUsage(folder, clock)
        self._spool: SpoolFile | None = None
        self._spool_since_s = 0.0
        self._spare = _SpareDescriptor()

    def write(self, entries: Sequence[LogEntry], *, heed_bound: bool = True) -> tuple[list[LogEntry], OSError | None]:
        """Write entries, and sync them where that is wanted. Returns what is not written and must be given again, and
        why; nothing and None where all is as safe as it gets. Raises nothing.

        Where syncing failed nothing is left, though there is an error: the entries are in a segment and may survive.
        """
        pending = deque(_grouped(entries))
        try:
            if heed_bound:
                self._refuse_beyond_bound()
            while pending:
                group = pending[0]
                frame = self._frame(group)
                if frame is not None:
                    self._append(frame)
                pending.popleft()
                if frame is not None:
                    self.counts.rows += sum(map(entry_rows, group))
                elif len(group) > 1:
                    pending.extendleft([entry] for entry in reversed(group))
            return [], self._sync() if entries else None
        except OSError as error:
            failure = error
        except Exception as error:  # a thread's boundary: without it, waiting requests would wait for ever
            _LOGGER.exception("the prediction log cannot be written")
            failure = OSError(f"{type(error).__name__}: {error}")
        return [entry for group in pending for entry in group], failure

    def seal_if_due(self) -> None:
        """Seal the segment where it is large or old enough."""
        if self._spool is None:
            return
        is_old = self._clock() - self._spool_since_s >= self._segment_age_s
        if is_old or self._spool.size >= self._segment_bytes_max:
            self.seal()

    def due_in_s(self) -> float:
        """When there may be something to seal, in seconds from now."""
        if self._spool is None:
            return self._segment_age_s
        return max(0.0, self._spool_since_s + self._segment_age_s - self._clock())

    def seal(self) -> None:
        """Seal the segment, where there is one. A failure leaves it to whoever takes over such files."""
        spool, self._spool = self._spool, None
        if spool is None:
            return
        try:
            if spool.seal(fsync=self._fsync) is not None:
                self.counts.segments_sealed += 1
        except OSError as error:
            _LOGGER.warning("segment %s of the prediction log cannot be sealed: %s", spool.path.name, error.strerror)
        self._spare.take()

    def close(self) -> None:
        """Seal, and give back what is held."""
        self.seal()
        self._spare.give_back()

    def _refuse_beyond_bound(self) -> None:
        used = self.counts.spool_bytes = self._usage.bytes(bytes_max=self._spool_bytes_max)
        if used >= self._spool_bytes_max:
            raise SpoolFull(
                errno.EDQUOT,
                f"{used} bytes of it wait to be shipped; allowed are {self._spool_bytes_max} "
                "(SKEWLESS_GATEWAY_LOG_SPOOL_BYTES_MAX)",
            )

    def _frame(self, group: Sequence[LogEntry]) -> bytes | None:
        """The bytes of a group; None where that cannot be done, which for one entry alone means that it is dropped."""
        try:
            return encode(block(group, self._privacy, self._sampling))
        except Exception:  # a boundary: one strange value must not keep all that comes later out of the log
            if len(group) == 1:
                rows = entry_rows(group[0])
                self.counts.drop(UNENCODABLE, rows)
                _LOGGER.exception("%d records cannot be encoded, and are not in the prediction log", rows)
            return None

    def _append(self, frame: bytes) -> None:
        if self._spool is None:
            self._spare.give_back()
            try:
                self._spool = SpoolFile.create(self._folder, fsync=self._fsync)
            except OSError:
                self._spare.take()
                raise
            self._spool_since_s = self._clock()
        before = self._spool.size
        self._spool.append(frame)
        self._usage.add(self._spool.size - before)
        self.counts.frames += 1
        self.counts.bytes += len(frame)

    def _sync(self) -> OSError | None:
        if not self._fsync or self._spool is None:
            return None
        try:
            self._spool.sync()
        except OSError as error:
            # The kernel may tell a second sync that all is well, though it has forgotten what it could not write.
            self.seal()
            return error
        return None


class _SpareDescriptor:
    """A file descriptor held between one segment and the next, so that connections do not take it meanwhile: a gateway
    that runs out of them still answers whoever is connected, and keeps what it answered."""

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self.take()

    def take(self) -> None:
        """Hold one, where there is one."""
        if self._descriptor is None:
            with suppress(OSError):
                self._descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def give_back(self) -> None:
        """Let somebody else have it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _grouped(entries: Sequence[LogEntry]) -> list[list[LogEntry]]:
    """The entries in groups; each by itself where one of them makes that fail, so that it alone is dropped later."""
    try:
        return groups(entries)
    except Exception:  # a boundary: one strange value must not keep all that comes later out of the log
        _LOGGER.exception("records cannot be put into groups, and are written one by one")
        return [[entry] for entry in entries]


def _bytes_in(folder: Path) -> int:
    found = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((SUFFIX, SEALED)):
                with suppress(FileNotFoundError):
                    found += entry.stat().st_size
    return found
