"""Segments as files: what a torn, damaged or forged frame costs, and who may take a file over."""

import os
import resource
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.examples import examples
from harness.faults import short_of
from skewless.adapters.spool import (
    SEALED,
    SUFFIX,
    SpoolFile,
    open_segments,
    read_frames,
    read_segment,
    remove_leftovers,
    sealed_segments,
    segment_frames,
    segment_name,
)

HEAD_BYTES = 16
MARKER_BYTES = 8
FRAME_HEAD_BYTES = MARKER_BYTES + 8


def written(folder: Path, *payloads: bytes) -> Path:
    """A sealed segment with these payloads."""
    spool = SpoolFile.create(folder)
    for payload in payloads:
        spool.append(payload)
    sealed = spool.seal()
    assert sealed is not None
    return sealed


def test_what_is_appended_is_read_in_order_before_and_after_sealing(tmp_path: Path) -> None:
    spool = SpoolFile.create(tmp_path)
    assert spool.is_empty
    for payload in (b"one", b"", b"three" * 10_000):
        spool.append(payload)
    spool.sync()
    assert spool.size == spool.path.stat().st_size
    assert read_frames(spool.path) == [b"one", b"", b"three" * 10_000]
    sealed = spool.seal(fsync=True)
    assert sealed is not None
    assert (sealed.suffix, spool.path.exists()) == (SEALED, False)
    assert read_segment(sealed).lost_bytes == 0
    assert len(read_frames(sealed)) == 3


def test_an_empty_segment_is_not_sealed_but_deleted(tmp_path: Path) -> None:
    assert SpoolFile.create(tmp_path).seal() is None
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=examples(200), deadline=None)
@given(
    payloads=st.lists(st.binary(max_size=60), min_size=1, max_size=6),
    where=st.integers(min_value=0),
    cut=st.booleans(),
    bit=st.integers(0, 7),
)
def test_damage_anywhere_costs_the_frames_it_touches_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], where: int, cut: bool, bit: int
) -> None:
    path = written(tmp_path_factory.mktemp("damage"), *payloads)
    data = bytearray(path.read_bytes())
    place = HEAD_BYTES + where % (len(data) - HEAD_BYTES)
    ends = [HEAD_BYTES]
    for payload in payloads:
        ends.append(ends[-1] + FRAME_HEAD_BYTES + len(payload))
    touched = next(number for number, end in enumerate(ends[1:]) if place < end)
    if cut:
        path.write_bytes(data[:place])
        expected = payloads[:touched]
    else:
        data[place] ^= 1 << bit
        path.write_bytes(data)
        expected = payloads[:touched] + payloads[touched + 1 :]
    found = read_segment(path)
    assert found.frames == expected
    kept_bytes = sum(FRAME_HEAD_BYTES + len(each) for each in expected)
    assert found.lost_bytes == path.stat().st_size - HEAD_BYTES - kept_bytes
    is_last = cut or touched == len(payloads) - 1
    assert (found.lost_bytes > found.tail_bytes) is not is_last, "a torn tail is no damage, a hole is"


def test_a_frame_inside_a_payload_is_not_found_when_the_frame_around_it_is_damaged(tmp_path: Path) -> None:
    def forged(marker: bytes) -> bytes:
        inner = b"never written by the log"
        return marker + struct.pack("<II", len(inner), zlib.crc32(inner)) + inner

    path = written(tmp_path, forged(b"\0" * MARKER_BYTES), forged(b"SKEWSPL2"), b"last")
    data = bytearray(path.read_bytes())
    data[HEAD_BYTES + MARKER_BYTES + 4] ^= 1
    path.write_bytes(data)
    assert read_frames(path) == [forged(b"SKEWSPL2"), b"last"]


@pytest.mark.parametrize("content", [b"", b"SKEW", b"SKEWSPL2", b"SKEWSPL2" + b"x" * 7, b"GIF89a" * 10])
def test_a_file_that_is_no_segment_has_no_frames(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"0{SUFFIX}"
    path.write_bytes(content)
    assert read_segment(path).frames == []
    assert read_segment(path).lost_bytes == len(content)
    assert read_segment(path).tail_bytes == (len(content) if len(content) < HEAD_BYTES else 0), "it is no torn end"


def test_files_of_an_older_gateway_are_read_up_to_their_first_torn_frame(tmp_path: Path) -> None:
    def frame(payload: bytes) -> bytes:
        return struct.pack("<II", len(payload), zlib.crc32(payload)) + payload

    path = tmp_path / f"0{SUFFIX}"
    path.write_bytes(b"SKEWSPL1" + frame(b"one") + frame(b"two")[:-1])
    assert read_frames(path) == [b"one"]
    assert read_segment(path).tail_bytes == read_segment(path).lost_bytes > 0
    spool = SpoolFile.take_over(path)
    assert spool is not None
    sealed = spool.seal()
    assert sealed is not None
    assert read_frames(sealed) == [b"one"]


def test_a_file_has_one_writer_and_is_taken_over_only_from_a_dead_one(tmp_path: Path) -> None:
    spool = SpoolFile.create(tmp_path)
    spool.append(b"one")
    assert SpoolFile.take_over(spool.path) is None
    spool.release()
    taken = SpoolFile.take_over(spool.path)
    assert taken is not None
    assert SpoolFile.take_over(spool.path) is None
    taken.append(b"two")
    sealed = taken.seal()
    assert sealed is not None
    assert read_frames(sealed) == [b"one", b"two"]
    assert SpoolFile.take_over(spool.path) is None


def test_of_many_who_take_over_the_same_files_one_gets_each(tmp_path: Path) -> None:
    for _ in range(300):
        spool = SpoolFile.create(tmp_path)
        spool.append(b"left behind")
        spool.release()
    left = open_segments(tmp_path)

    def seal_all(_number: int) -> int:
        taken = [spool for path in left if (spool := SpoolFile.take_over(path)) is not None and spool.seal()]
        return len(taken)

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(seal_all, range(4))) == len(left)
    assert len(sealed_segments(tmp_path)) == len(left)


def test_a_failed_append_leaves_no_part_of_its_frame(tmp_path: Path) -> None:
    spool = SpoolFile.create(tmp_path)
    spool.append(b"one")
    with short_of(os.getpid(), resource.RLIMIT_FSIZE, spool.size + 20), pytest.raises(OSError, match="File too large"):
        spool.append(b"x" * 100)
    assert spool.path.stat().st_size == spool.size
    spool.append(b"two")
    assert read_segment(spool.path).frames == [b"one", b"two"]
    assert read_segment(spool.path).lost_bytes == 0
    spool.release()


def test_segments_are_listed_by_age_and_read_each_once(tmp_path: Path) -> None:
    first = written(tmp_path, b"first")
    second = SpoolFile.create(tmp_path)
    second.append(b"second")
    (tmp_path / "notes.txt").write_text("not a segment")
    assert sealed_segments(tmp_path) == [first]
    assert open_segments(tmp_path) == [second.path]
    reading = segment_frames(tmp_path)
    assert next(reading) == (segment_name(first), [b"first"])
    sealed = second.seal()  # between the look at the folder and the reading of the file
    assert list(reading) == [(segment_name(second.path), [b"second"])]
    reading = segment_frames(tmp_path)
    assert next(reading) == (segment_name(first), [b"first"])
    assert sealed is not None
    sealed.unlink()  # it was shipped
    assert list(reading) == []
    assert list(segment_frames(tmp_path / "nowhere")) == []


def test_what_a_dead_process_began_to_create_is_removed_when_it_is_old(tmp_path: Path) -> None:
    leftover = tmp_path / "0001.incoming"
    leftover.write_bytes(b"SKEWSPL2")
    remove_leftovers(tmp_path, age_s=3_600)
    assert leftover.exists()
    os.utime(leftover, (0, 0))
    remove_leftovers(tmp_path, age_s=60)
    assert not leftover.exists()
