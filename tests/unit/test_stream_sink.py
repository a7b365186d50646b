"""The sink of a stream: segments go out in order, under numbers that outlive a crash, and once where it can know."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from skewless.adapters.segment_parts import SegmentPart, rows_of
from skewless.adapters.segment_sinks import SealedSegment
from skewless.adapters.segment_stream import PartReader, StreamState
from skewless.adapters.spool import SpoolFile
from skewless.adapters.stream_sink import StreamSink
from skewless.errors import InvalidDefinition, Unavailable
from skewless.limits import STREAM_NUMBERS_KEPT, STREAM_PARTS_AT_ONCE
from skewless.serving.log_blocks import encode
from skewless.serving.records import Outcome


class ListedStream:
    """Implements `SegmentStream` with what was published in a list; away after `room` more calls."""

    trimmed = 0

    def __init__(self) -> None:
        self.parts: list[SegmentPart] = []
        self.room = 1_000

    def publish(self, parts: Sequence[SegmentPart]) -> None:
        if not self.room:
            raise Unavailable("segment stream", "it is away")
        assert len(parts) <= STREAM_PARTS_AT_ONCE
        self.room -= 1
        self.parts += parts

    def reader(self, group: str, consumer: str) -> PartReader:
        raise AssertionError(f"a sink reads nothing, least of all as {consumer} of {group}")

    def state(self) -> StreamState:
        return StreamState(len(self.parts), 0, 0, ())

    def forget_group(self, group: str) -> bool:
        return not group

    def close(self) -> None:
        """Nothing to close."""


def a_segment(folder: Path, outcomes: int, *, label_bytes: int = 1) -> SealedSegment:
    """A sealed segment of outcomes, whose labels cannot be compressed much."""
    spool = SpoolFile.create(folder)
    labels = random.Random(outcomes)
    spool.append(
        encode(tuple(Outcome(f"id-{row}", labels.randbytes(label_bytes).hex(), None, 1) for row in range(outcomes)))
    )
    sealed = spool.seal()
    assert sealed is not None
    return SealedSegment(sealed)


def numbers(stream: ListedStream) -> list[tuple[str, int]]:
    """Segments as they went out, with their numbers."""
    return list(dict.fromkeys((part.head.segment, part.head.sequence) for part in stream.parts))


@pytest.fixture
def stream() -> ListedStream:
    return ListedStream()


@pytest.fixture
def state_file(tmp_path: Path) -> Path:
    return tmp_path / "shipping" / "stream.json"


def test_segments_go_out_in_order_with_every_row_and_numbers_without_a_hole(
    stream: ListedStream, tmp_path: Path, state_file: Path
) -> None:
    segments = [a_segment(tmp_path, rows) for rows in (3, 1, 2)]
    sink = StreamSink(stream, state_file)
    sink.take(segments)
    assert numbers(stream) == [(segment.name, number) for number, segment in enumerate(segments, start=1)]
    assert [len(rows_of(part)) for part in stream.parts] == [3, 1, 2]
    assert {part.head.source for part in stream.parts} == {stream.parts[0].head.source}
    assert (sink.parts, sink.rows_left_out, sink.trimmed) == (3, 0, 0)


def test_what_is_handed_over_again_is_not_published_again(
    stream: ListedStream, tmp_path: Path, state_file: Path
) -> None:
    segments = [a_segment(tmp_path, 1) for _ in range(3)]
    sink = StreamSink(stream, state_file)
    sink.take(segments[:2])
    sink.take(segments)
    assert [name for name, _ in numbers(stream)] == [segment.name for segment in segments]
    assert len(stream.parts) == 3


def test_a_segment_goes_on_where_the_stream_went_away(stream: ListedStream, tmp_path: Path, state_file: Path) -> None:
    first, large = a_segment(tmp_path, 1), a_segment(tmp_path, 10_000, label_bytes=500)
    sink = StreamSink(stream, state_file)
    stream.room = 2
    with pytest.raises(Unavailable):
        sink.take([first, large])
    sent = len(stream.parts)
    stream.room = 1_000
    sink.take([first, large])
    of_large = stream.parts[1:]
    assert 1 < sent < len(stream.parts), "it is more than one exchange"
    assert [part.head.part for part in of_large] == list(range(of_large[0].head.parts)), "no part twice"


def test_after_a_crash_a_segment_has_the_number_that_it_had(
    stream: ListedStream, tmp_path: Path, state_file: Path
) -> None:
    segments = [a_segment(tmp_path, 1) for _ in range(4)]
    stream.room = 1
    with pytest.raises(Unavailable):
        StreamSink(stream, state_file).take(segments[:3])
    stream.room = 1_000
    # Another process, which cannot know how far the one before has come.
    StreamSink(stream, state_file).take(segments)
    again = numbers(stream)
    assert again == [(segment.name, number) for number, segment in enumerate(segments, start=1)]
    assert len({part.head.source for part in stream.parts}) == 1
    before = len(stream.parts)
    StreamSink(stream, state_file).take(segments[:3])
    assert {part.head.sequence for part in stream.parts[before:]} <= {1, 2, 3}


def test_a_lost_state_file_makes_another_source(stream: ListedStream, tmp_path: Path, state_file: Path) -> None:
    StreamSink(stream, state_file).take([a_segment(tmp_path, 1)])
    state_file.unlink()
    StreamSink(stream, state_file).take([a_segment(tmp_path, 1)])
    assert [part.head.sequence for part in stream.parts] == [1, 1]
    assert len({part.head.source for part in stream.parts}) == 2


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"source": 1, "next": 1, "numbers": {}, "published": []}', "{}", '{"source": "\xff"}']
)
def test_a_state_file_that_is_none_is_refused(stream: ListedStream, state_file: Path, content: str) -> None:
    state_file.parent.mkdir()
    state_file.write_bytes(content.encode("latin-1"))
    with pytest.raises(InvalidDefinition, match=r"stream\.json does not hold the numbers") as refused:
        StreamSink(stream, state_file)
    assert "new source" in refused.value.hint


def test_what_is_remembered_is_what_lies_in_the_spool_and_the_newest_of_the_rest(
    stream: ListedStream, tmp_path: Path, state_file: Path
) -> None:
    stays, *others = [a_segment(tmp_path, 1) for _ in range(STREAM_NUMBERS_KEPT + 20)]
    sink = StreamSink(stream, state_file)
    for start in range(0, len(others), 100):
        handed_over = others[start : start + 100]
        sink.take([stays, *handed_over])
        for segment in handed_over:
            segment.path.unlink()
    assert len(stream.parts) == len(others) + 1, "the one that stays is published once"
    assert state_file.read_text().count(stays.name) == 2
    assert state_file.read_text().count(others[0].name) == 0


def test_what_has_been_published_is_not_again_however_much_another_sink_leaves_in_the_spool(
    stream: ListedStream, tmp_path: Path, state_file: Path
) -> None:
    segments = [a_segment(tmp_path, 1) for _ in range(STREAM_NUMBERS_KEPT + 90)]
    sink = StreamSink(stream, state_file)
    for start in range(0, len(segments), 30):  # a shipper hands over what it has not handed over yet
        sink.take(segments[start : start + 30])
    again = StreamSink(stream, state_file)
    for start in range(0, len(segments), 40):  # after a restart all that is there, some at a time
        again.take(segments[start : start + 40])
    assert numbers(stream) == [(segment.name, number) for number, segment in enumerate(segments, start=1)]
    assert len(stream.parts) <= len(segments) + 30, "only the last look's are published twice"


def test_a_disk_that_takes_no_numbers_makes_the_sink_unavailable(
    stream: ListedStream, tmp_path: Path, state_file: Path
) -> None:
    state_file.parent.mkdir()
    sink = StreamSink(stream, state_file)
    state_file.mkdir()
    with pytest.raises(Unavailable, match="segment stream is unavailable: Is a directory"):
        sink.take([a_segment(tmp_path, 1)])
    assert [each.name for each in state_file.parent.iterdir()] == [state_file.name]
    state_file.rmdir()
    sink.take([a_segment(tmp_path, 1)])
    assert [sequence for _, sequence in numbers(stream)] == [1]
