"""The sink that publishes sealed segments to a stream, each under a number, so that consumers notice what they missed.

The numbers are kept in a file before a segment goes out: a segment that is published again after a crash has the number
that it had, and no number is given twice.

    {"source": "<random, made with the file>", "next": 12, "numbers": {"<segment>": 11}, "published": ["<segment>"]}
"""

import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from skewless.adapters.segment_parts import CutSegment, cut_segment
from skewless.adapters.segment_sinks import SealedSegment
from skewless.adapters.segment_stream import STREAM, SegmentStream, StreamState
from skewless.adapters.shipping import replace_file
from skewless.adapters.spool import sealed_segments, segment_name
from skewless.errors import InvalidDefinition, Unavailable
from skewless.limits import STREAM_NUMBERS_KEPT, STREAM_PARTS_AT_ONCE

_SOURCE_BYTES = 8
_HINT = "move the file away: the next number is then a new source's, and consumers see no gap"


class StreamSink:
    """Implements `SegmentSink`. One process at a time works with a state file. Not safe for threads."""

    name = "stream"

    def __init__(self, stream: SegmentStream, state_file: Path) -> None:
        """Raises InvalidDefinition for a state file that is none, and OSError."""
        self._stream = stream
        self._numbers = _Numbers(state_file)
        self._underway: tuple[str, CutSegment, int] | None = None
        """The segment that is being published, its parts, and how many of them the stream has."""
        self.parts = 0
        self.rows_left_out = 0

    @property
    def trimmed(self) -> int:
        """Parts that made room before every group had read them, since the start."""
        return self._stream.trimmed

    def take(self, segments: Sequence[SealedSegment]) -> None:
        """See `SegmentSink.take`. Raises Overloaded where slow groups have left no room, and are waited for.

        A segment that is half published goes on from there. After a crash some are published twice.
        """
        try:
            self._numbers.assign(segments)
            for segment in segments:
                if not self._numbers.is_published(segment.name):
                    self._publish(segment)
                    self._numbers.published(segment.name)
        except OSError as error:
            raise Unavailable(
                STREAM, f"{error.strerror or error}", hint="check the disk of the prediction log"
            ) from error

    def state(self) -> StreamState:
        """How full the stream is. Raises Unavailable."""
        return self._stream.state()

    def close(self) -> None:
        """Close the stream's connections."""
        self._stream.close()

    def _publish(self, segment: SealedSegment) -> None:
        if self._underway is None or self._underway[0] != segment.name:
            tables = segment.tables()
            source, number = self._numbers.of(segment.name)
            self._underway = (segment.name, cut_segment(segment.name, tables, source=source, sequence=number), 0)
        name, cut, done = self._underway
        while done < len(cut.parts):
            sent = cut.parts[done : done + STREAM_PARTS_AT_ONCE]
            self._stream.publish(sent)
            done += len(sent)
            self.parts += len(sent)
            self._underway = (name, cut, done)
        self.rows_left_out += cut.rows_left_out
        self._underway = None


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: str
    next: int
    numbers: dict[str, int]
    published: set[str]


class _Numbers:
    """The numbers of segments, kept in a file: of those in the spool, and of the newest of those that have left it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._state = _read(file)

    def assign(self, segments: Sequence[SealedSegment]) -> None:
        """Give each segment its number, the one that it has where it has one. Raises OSError."""
        state = self._state
        new = [segment.name for segment in segments if segment.name not in state.numbers]
        if not new:
            return
        numbers = {**state.numbers, **{segment: state.next + index for index, segment in enumerate(new)}}
        following, spooled = state.next + len(new), _spooled(segments)
        kept = {
            segment: number
            for segment, number in numbers.items()
            if segment in spooled or number >= following - STREAM_NUMBERS_KEPT
        }
        changed = _State(state.source, following, kept, state.published & kept.keys())
        replace_file(self._file, msgspec.json.encode(changed))
        self._state = changed

    def of(self, segment: str) -> tuple[str, int]:
        """Source and number of a segment that has one."""
        return self._state.source, self._state.numbers[segment]

    def is_published(self, segment: str) -> bool:
        """Whether the stream has all of a segment."""
        return segment in self._state.published

    def published(self, segment: str) -> None:
        """Note that the stream has all of a segment; it is in the file when the next one gets its number."""
        self._state.published.add(segment)


def _spooled(segments: Sequence[SealedSegment]) -> set[str]:
    """Names of these segments and of those beside them: what another sink still wants comes back after a restart."""
    folders = {segment.path.parent for segment in segments}
    beside = {segment_name(path) for folder in folders for path in sealed_segments(folder)}
    return beside.union(segment.name for segment in segments)


def _read(file: Path) -> _State:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_State)
    except FileNotFoundError:
        return _State(secrets.token_hex(_SOURCE_BYTES), 1, {}, set())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidDefinition(f"{file} does not hold the numbers of segments: {error}", hint=_HINT) from error
