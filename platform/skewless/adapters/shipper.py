"""The shipper of one prediction log's folder: takes over what dead writers left, and hands sealed segments to sinks.

    adopt     an unlocked open segment is of a dead writer: it is sealed
    take      each sink that is due gets what it has not taken; one that is away keeps its segments and stops no other
    remove    a segment that every sink has taken is deleted; one with something unreadable in it is set aside

A sink that fails is left alone for a while, which doubles. Whoever uses a Shipper holds the folder's lock.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from skewless.adapters.segment_sinks import SealedSegment, SegmentSink, cut, file_size
from skewless.adapters.spool import SPOOL, SpoolFile, begun_us, open_segments, read_segment, sealed_segments
from skewless.errors import Unavailable
from skewless.limits import LOG_SINK_RETRY_S, LOG_SINK_RETRY_S_MAX
from skewless.timestamps import SECOND_US

DAMAGED = "damaged"
"""The folder, beside the segments, of those that something of could not be read."""
_LOGGER = logging.getLogger(__name__)


def pause_s(failing: int) -> float:
    """Seconds to leave alone what has failed `failing` times in a row; doubles up to a bound."""
    return min(LOG_SINK_RETRY_S_MAX, LOG_SINK_RETRY_S * 2.0 ** min(failing - 1, 16))


@dataclass(slots=True)
class Supply:
    """One sink, when it is next supplied, and how it does. Times are of the monotonic clock, in seconds."""

    sink: SegmentSink
    every_s: float = 0.0
    """Segments wait for so long, for others to be taken with, unless `bytes_min` of them wait."""
    bytes_min: int = 0
    taken: set[str] = field(default_factory=set)
    """Segments that it has, of those that are there."""
    failures: int = 0
    """Since the start."""
    failing: int = 0
    """In a row."""
    problem: str = ""
    """Of the last failure, empty when all is well."""
    retry_at_s: float = 0.0
    waiting_since_s: float | None = None

    def is_due(self, waiting_bytes: int, now_s: float) -> bool:
        """Whether it is to be supplied now."""
        if now_s < self.retry_at_s:
            return False
        if self.waiting_since_s is None:
            self.waiting_since_s = now_s
        return waiting_bytes >= self.bytes_min or now_s - self.waiting_since_s >= self.every_s

    def failed(self, error: Unavailable, now_s: float) -> None:
        """Leave it alone for a while."""
        self.failures += 1
        self.failing += 1
        self.retry_at_s = now_s + pause_s(self.failing)
        if self.problem != error.message:
            _LOGGER.warning("segments wait for the sink `%s`: %s", self.sink.name, error)
        self.problem = error.message

    def did_well(self) -> None:
        """It has all that there is."""
        if self.failing:
            _LOGGER.info("the sink `%s` takes segments again", self.sink.name)
        self.failing, self.problem, self.retry_at_s, self.waiting_since_s = 0, "", 0.0, None


@dataclass(slots=True)
class ShipperCounts:
    """What a shipper did since its start."""

    adopted: int = 0
    """Segments of dead writers."""
    removed: int = 0
    damaged: int = 0
    """Segments that were set aside."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Sealed segments that are not with every sink: how many, their bytes, and the age of the oldest in seconds."""

    segments: int
    bytes: int
    oldest_s: float


class Shipper:
    """See the module. Not safe for threads."""

    def __init__(
        self,
        folder: Path,
        supplies: Sequence[Supply],
        *,
        batch_bytes: int,
        clock: Callable[[], float] = time.monotonic,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Segments of `batch_bytes` are in memory at once, or one larger one; between two batches `stop` is asked."""
        self._spool = folder / SPOOL
        self._spool.mkdir(parents=True, exist_ok=True)
        self._supplies = supplies
        self._batch_bytes = batch_bytes
        self._clock = clock
        self._stop = stop
        self.counts = ShipperCounts()
        self._unready: Unavailable | None = None
        """Why a segment could not be read yet when last looked."""
        self._left: set[Path] = set()
        """Segments of dead writers that could not be taken over."""

    @property
    def supplies(self) -> Sequence[Supply]:
        """Its sinks and how they do."""
        return self._supplies

    def look(self, *, at_once: bool = False) -> bool:
        """Ship what is due, with `at_once` all there is; returns whether no segment waits any more. Raises OSError."""
        self._adopt()
        self._unready = None
        for supply in self._supplies if at_once else ():
            supply.retry_at_s = 0.0
        segments = [SealedSegment(path) for path in sealed_segments(self._spool)]
        due = list(self._due(segments, at_once=at_once))
        for batch in self._batches(segments, due):
            for supply, wanted in batch:
                self._take(supply, wanted)
            self._remove({each.name: each for _, wanted in batch for each in wanted}.values())
            if self._stop():
                break
        self._wait_for_unready(due)
        return not self._left and not sealed_segments(self._spool)

    def waiting(self) -> Waiting:
        """What lies in the folder now."""
        paths = sealed_segments(self._spool)
        oldest_s = max(0.0, time.time() - begun_us(paths[0]) / SECOND_US) if paths else 0.0
        return Waiting(len(paths), sum(map(file_size, paths)), oldest_s)

    def begun_before(self, moment: int) -> int:
        """Segments, sealed or being written, that were begun until a moment (µs) and are not with every sink."""
        paths = (*open_segments(self._spool), *sealed_segments(self._spool))
        return sum(begun_us(path) <= moment for path in paths)

    def _adopt(self) -> None:
        """Take over what dead writers left; what cannot be taken over yet stops nothing else."""
        left: set[Path] = set()
        for path in open_segments(self._spool):
            try:
                self._adopt_one(path)
            except OSError as error:
                left.add(path)
                if path not in self._left:
                    _LOGGER.warning("the segment %s of a writer that ended waits: %s", path.stem, error)
        self._left = left

    def _adopt_one(self, path: Path) -> None:
        spool = SpoolFile.take_over(path)
        if spool is None:
            return
        try:
            torn_bytes = read_segment(path).tail_bytes
            if torn_bytes:
                # Nobody was told that it was written. Cut off, it is no damage of the sealed segment.
                spool.size -= torn_bytes
                os.truncate(path, spool.size)
        except OSError:
            spool.release()
            raise
        if spool.seal(fsync=True) is not None:
            self.counts.adopted += 1
            _LOGGER.info(
                "the segment %s of a writer that ended is taken over, without %d bytes of an unfinished frame",
                path.stem,
                torn_bytes,
            )

    def _wait_for_unready(self, due: Iterable[Supply]) -> None:
        """A segment that cannot be read yet is the trouble of every sink that wants it, after it has got all others."""
        now_s = self._clock()
        for supply in due:
            if self._unready is not None and now_s >= supply.retry_at_s:
                supply.failed(self._unready, now_s)

    def _due(self, segments: Sequence[SealedSegment], *, at_once: bool) -> Iterator[Supply]:
        names = {segment.name for segment in segments}
        now_s = self._clock()
        for supply in self._supplies:
            supply.taken &= names
            waiting = sum(each.size for each in segments if each.name not in supply.taken)
            if not waiting:
                supply.waiting_since_s = None
            elif supply.is_due(waiting, now_s) or at_once:
                yield supply

    def _batches(
        self, segments: Sequence[SealedSegment], due: Sequence[Supply]
    ) -> Iterator[list[tuple[Supply, list[SealedSegment]]]]:
        """Segments for each sink that is due, as many at a time as memory is meant to hold."""
        wanted = [each for each in segments if any(each.name not in supply.taken for supply in due)]
        if not wanted:
            # What every sink had taken when an earlier process ended is still to be removed.
            self._remove(segments)
        for some in cut(wanted, self._batch_bytes):
            yield [(supply, [each for each in some if each.name not in supply.taken]) for supply in due]
            for each in some:
                each.forget()

    def _take(self, supply: Supply, segments: list[SealedSegment]) -> None:
        if not segments or self._clock() < supply.retry_at_s:
            return
        ready = list(self._ready(segments))
        try:
            if ready:
                supply.sink.take(ready)
        except Unavailable as error:
            supply.failed(error, self._clock())
        except Exception as error:  # a sink's boundary: what is wrong with one of them must stop no other
            _LOGGER.exception("the sink `%s` failed in a way that it should not", supply.sink.name)
            supply.failed(Unavailable(supply.sink.name, repr(error)), self._clock())
        else:
            supply.taken.update(each.name for each in ready)
            if self._unready is None:
                supply.did_well()

    def _ready(self, segments: Iterable[SealedSegment]) -> Iterator[SealedSegment]:
        """Those that can be read now; the others keep nobody waiting."""
        for segment in segments:
            try:
                segment.entries()
            except FileNotFoundError:  # somebody has taken it away
                continue
            except Unavailable as error:
                self._unready = error
            else:
                yield segment

    def _remove(self, segments: Iterable[SealedSegment]) -> None:
        for segment in segments:
            if all(segment.name in supply.taken for supply in self._supplies):
                self._remove_one(segment)

    def _remove_one(self, segment: SealedSegment) -> None:
        try:
            faults = segment.faults
        except Unavailable as error:
            self._unready = error
            return
        if faults:
            aside = self._spool / DAMAGED
            aside.mkdir(exist_ok=True)
            segment.path.rename(aside / segment.path.name)
            self.counts.damaged += 1
            _LOGGER.error(
                "segment %s is damaged; what can be read of it was shipped, and it is set aside in %s: %s",
                segment.name,
                aside,
                "; ".join(faults),
            )
        else:
            segment.path.unlink(missing_ok=True)
            self.counts.removed += 1
