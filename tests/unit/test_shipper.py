"""What a shipper does with segments: when sinks get them, what becomes of them then, and what it keeps of it."""

import errno
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from harness.stored_logs import answers, stored_ids, write_segment
from skewless.adapters.log_store import open_log_store
from skewless.adapters.log_store_sink import LogStoreSink
from skewless.adapters.segment_sinks import SealedSegment
from skewless.adapters.shipper import DAMAGED, Shipper, Supply
from skewless.adapters.shipper_requests import Answer, Requests, Work
from skewless.adapters.shipping import SHIPPING, STORE_JOURNAL, Journal, only_shipper, read_journal, shipper_of
from skewless.adapters.spool import SEALED, SPOOL, SpoolFile, sealed_segments
from skewless.errors import Conflict, InvalidDefinition, Overloaded, Unavailable
from skewless.limits import LOG_REQUESTS_MAX, LOG_SINK_RETRY_S, LOG_SINK_RETRY_S_MAX
from skewless.serving.log_blocks import FORMAT, AnsweredBlock, blocks, encode

MIB = 1 << 20


class MemorySink:
    """Keeps the ids of predictions; refuses while `away`."""

    def __init__(self, name: str = "memory") -> None:
        self.name = name
        self.ids: list[str] = []
        self.asked = 0
        self.away = False
        self._taken: set[str] = set()

    def take(self, segments: Sequence[SealedSegment]) -> None:
        self.asked += 1
        if self.away:
            raise Unavailable(self.name, "it is away")
        for segment in segments:
            if segment.name not in self._taken:
                blocks = [entry for entry in segment.entries() if isinstance(entry, AnsweredBlock)]
                self.ids += [each for block in blocks for each in block.prediction_ids]
                self._taken.add(segment.name)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def shipper_to(folder: Path, *supplies: Supply, clock: Clock | None = None, batch_bytes: int = MIB) -> Shipper:
    return Shipper(folder, supplies, batch_bytes=batch_bytes, clock=clock or Clock())


def segment_with(folder: Path, rows: int = 1, *, seal: bool = True) -> tuple[Path, list[str]]:
    batch = answers(rows)
    return write_segment(folder, [batch], seal=seal), list(batch.prediction_ids)


def test_a_segment_goes_once_every_sink_has_it(tmp_path: Path) -> None:
    _, ids = segment_with(tmp_path, 3)
    one, two = MemorySink("one"), MemorySink("two")
    two.away = True
    shipper = shipper_to(tmp_path, Supply(one), Supply(two))
    assert not shipper.look()
    assert (one.ids, two.ids, len(sealed_segments(tmp_path / SPOOL))) == (ids, [], 1)
    two.away = False
    assert shipper.look(at_once=True)
    assert (one.ids, two.ids) == (ids, ids), "and nothing comes to the first one again"
    assert shipper.counts.removed == 1


def test_a_sink_that_is_away_is_asked_less_and_less_and_stops_no_other(tmp_path: Path) -> None:
    away, well, clock = MemorySink("away"), MemorySink("well"), Clock()
    away.away = True
    supply = Supply(away)
    shipper = shipper_to(tmp_path, supply, Supply(well), clock=clock)
    segment_with(tmp_path)
    asked_at: list[float] = []
    for _ in range(600):
        before = away.asked
        segment_with(tmp_path) if len(asked_at) < 3 else None
        shipper.look()
        asked_at += [clock.now_s] if away.asked > before else []
        clock.now_s += 0.5
    pauses = [later - earlier for earlier, later in pairwise(asked_at)]
    assert pauses[:3] == [LOG_SINK_RETRY_S, 2 * LOG_SINK_RETRY_S, 4 * LOG_SINK_RETRY_S]
    assert max(pauses) == LOG_SINK_RETRY_S_MAX
    assert len(well.ids) > 3
    assert supply.failures == len(asked_at)
    assert supply.problem == "away is unavailable: it is away"
    away.away, clock.now_s = False, clock.now_s + LOG_SINK_RETRY_S_MAX
    assert shipper.look()
    assert sorted(away.ids) == sorted(well.ids)
    assert (supply.problem, supply.failing) == ("", 0)


def test_segments_wait_for_others_until_their_time_is_over_or_they_are_many(tmp_path: Path) -> None:
    sink, clock = MemorySink(), Clock()
    path, _ = segment_with(tmp_path)
    shipper = shipper_to(tmp_path, Supply(sink, every_s=30.0, bytes_min=3 * path.stat().st_size), clock=clock)
    for _ in range(29):
        shipper.look()
        clock.now_s += 1.0
    assert sink.asked == 0
    clock.now_s += 1.0
    assert shipper.look()
    assert sink.asked == 1
    for _ in range(3):
        segment_with(tmp_path)
    assert shipper.look(), "enough of them do not wait"


def test_with_at_once_nothing_waits(tmp_path: Path) -> None:
    sink = MemorySink()
    segment_with(tmp_path)
    assert shipper_to(tmp_path, Supply(sink, every_s=3600.0, bytes_min=MIB)).look(at_once=True)
    assert sink.asked == 1


def test_the_segment_of_a_dead_writer_is_taken_over_without_its_torn_end(tmp_path: Path) -> None:
    path, ids = segment_with(tmp_path, 2, seal=False)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[8:40])
    sink = MemorySink()
    shipper = shipper_to(tmp_path, Supply(sink))
    assert shipper.look()
    assert sink.ids == ids
    assert (shipper.counts.adopted, shipper.counts.damaged) == (1, 0)


def test_the_segment_of_a_living_writer_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / SPOOL).mkdir()
    spool = SpoolFile.create(tmp_path / SPOOL)
    spool.append(b"not a frame that could be read")
    assert shipper_to(tmp_path, Supply(MemorySink())).look()
    assert spool.path.exists()
    spool.release()


@pytest.mark.parametrize("damage", ["a hole", "another format", "an empty file"])
def test_a_damaged_segment_is_set_aside_and_what_can_be_read_of_it_is_shipped(tmp_path: Path, damage: str) -> None:
    path, ids = write_two_frames(tmp_path)
    data = bytearray(path.read_bytes())
    if damage == "a hole":
        data[40] ^= 0xFF
        ids = ids[2:]
    elif damage == "another format":
        data, ids = bytearray(b"SKEWSPL9" + data[8:]), []
    else:
        data, ids = bytearray(), []
    path.write_bytes(data)
    _, others = segment_with(tmp_path)
    sink = MemorySink()
    shipper = shipper_to(tmp_path, Supply(sink))
    assert shipper.look()
    assert sorted(sink.ids) == sorted([*ids, *others]), "the rest goes on"
    assert (tmp_path / SPOOL / DAMAGED / path.name).read_bytes() == data
    assert shipper.counts.damaged == 1
    assert shipper.look()
    assert sink.asked == 1


def test_an_open_segment_whose_head_is_another_is_set_aside_and_not_cut_away(tmp_path: Path) -> None:
    path, _ = segment_with(tmp_path, 2, seal=False)
    data = b"\0" * 8 + path.read_bytes()[8:]
    path.write_bytes(data)
    shipper = shipper_to(tmp_path, Supply(MemorySink()))
    assert shipper.look()
    assert (tmp_path / SPOOL / DAMAGED / f"{path.stem}{SEALED}").read_bytes() == data
    assert (shipper.counts.adopted, shipper.counts.damaged) == (1, 1)


def frame_of_a_later_version() -> bytes:
    """Of a shape, too, that this version does not know."""
    return msgspec.msgpack.encode({"format": FORMAT + 1, "block": {"anything": "else"}, "news": [1]})


def test_a_segment_of_a_later_version_waits_for_an_upgrade_and_keeps_no_other_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / SPOOL).mkdir()
    spool = SpoolFile.create(tmp_path / SPOOL)
    spool.append(frame_of_a_later_version())
    later = spool.seal()
    assert later is not None
    ids = [each for _ in range(3) for each in segment_with(tmp_path)[1]]
    sink, clock = MemorySink(), Clock()
    supply = Supply(sink)
    shipper = shipper_to(tmp_path, supply, clock=clock, batch_bytes=1)
    for _ in range(10):
        assert not shipper.look()
        clock.now_s += 0.5
    assert sink.ids == ids
    assert sealed_segments(tmp_path / SPOOL) == [later]
    assert (shipper.counts.removed, shipper.counts.damaged) == (3, 0)
    assert supply.failures < 5, "it is looked at less and less"
    assert f"format {FORMAT + 1} cannot be read" in supply.problem
    assert "upgrade" in caplog.text


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.ENOMEM])
def test_a_segment_that_cannot_be_opened_now_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    _, ids = segment_with(tmp_path)
    sink = MemorySink()
    shipper = shipper_to(tmp_path, Supply(sink))

    def read_bytes(_path: Path) -> bytes:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as broken:
        broken.setattr(Path, "read_bytes", read_bytes)
        assert not shipper.look(at_once=True)
    assert (sink.ids, shipper.counts.damaged) == ([], 0)
    assert shipper.look(at_once=True)
    assert sink.ids == ids


def test_a_segment_that_the_disk_has_lost_is_set_aside_and_ships_under_another_name_once_it_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, ids = segment_with(tmp_path)
    store = open_log_store(str(tmp_path / "store"))
    shipper = shipper_to(tmp_path, Supply(LogStoreSink(tmp_path, store, round_bytes=MIB)))

    def read_bytes(_path: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "read_bytes", read_bytes)
        assert shipper.look()
    aside = tmp_path / SPOOL / DAMAGED / path.name
    assert (shipper.counts.damaged, aside.exists()) == (1, True)
    aside.rename(path.with_stem(f"{path.stem}-again"))
    assert shipper.look()
    assert stored_ids(store) == ids


def test_an_open_segment_that_cannot_be_taken_over_now_stops_nothing_and_is_let_go_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, ids = segment_with(tmp_path, seal=False)
    whole = left.read_bytes()
    left.write_bytes(whole + whole[8:40])
    _, others = segment_with(tmp_path)
    sink = MemorySink()
    shipper = shipper_to(tmp_path, Supply(sink))

    def truncate(_path: Path, _size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "truncate", truncate)
        assert not shipper.look()
    assert sink.ids == others
    spool = SpoolFile.take_over(left)
    assert spool is not None, "it is locked by nobody"
    spool.release()
    assert shipper.look(at_once=True)
    assert sorted(sink.ids) == sorted([*ids, *others])


def test_an_entry_that_does_not_fit_together_is_left_out_and_its_segment_set_aside(tmp_path: Path) -> None:
    good = answers(2)
    (block,) = blocks([good])
    assert isinstance(block, AnsweredBlock)
    (tmp_path / SPOOL).mkdir()
    spool = SpoolFile.create(tmp_path / SPOOL)
    for entry in (block, replace(block, labels=["late"]), replace(block, endpoint="other")):
        spool.append(encode(entry))
    sealed = spool.seal()
    assert sealed is not None
    store = open_log_store(str(tmp_path / "store"))
    shipper = shipper_to(tmp_path, Supply(LogStoreSink(tmp_path, store, round_bytes=MIB)))
    assert shipper.look()
    assert stored_ids(store) == sorted([*good.prediction_ids, *good.prediction_ids])
    assert (tmp_path / SPOOL / DAMAGED / sealed.name).exists()


def test_a_sink_that_fails_as_it_should_not_stops_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemorySink):
        def take(self, segments: Sequence[SealedSegment]) -> None:  # noqa: ARG002  # the port
            raise ZeroDivisionError

    _, ids = segment_with(tmp_path)
    well = MemorySink("well")
    broken = Supply(Broken("broken"))
    assert not shipper_to(tmp_path, broken, Supply(well)).look()
    assert well.ids == ids
    assert broken.failures == 1
    assert "in a way that it should not" in caplog.text


def write_two_frames(folder: Path) -> tuple[Path, list[str]]:
    """Two bundles, and so two frames, of two rows each."""
    one, two = answers(2), answers(2, endpoint="other")
    return write_segment(folder, [one, two]), [*one.prediction_ids, *two.prediction_ids]


def test_many_segments_are_taken_some_at_a_time(tmp_path: Path) -> None:
    ids = [each for _ in range(9) for each in segment_with(tmp_path)[1]]
    size = sealed_segments(tmp_path / SPOOL)[0].stat().st_size
    sink = MemorySink()
    assert shipper_to(tmp_path, Supply(sink), batch_bytes=3 * size).look()
    assert sink.asked == 3
    assert sink.ids == ids


def test_a_look_ends_between_two_batches_when_it_is_to_stop(tmp_path: Path) -> None:
    for _ in range(3):
        segment_with(tmp_path)
    sink = MemorySink()
    shipper = Shipper(tmp_path, [Supply(sink)], batch_bytes=1, stop=lambda: sink.asked >= 2)
    assert not shipper.look()
    assert len(sink.ids) == 2


def test_what_an_earlier_process_had_shipped_is_only_removed(tmp_path: Path) -> None:
    path, ids = segment_with(tmp_path)
    kept = path.read_bytes()
    for _ in range(3):
        path.write_bytes(kept)  # as if the shipper had died before it removed the segment
        store = open_log_store(str(tmp_path / "store"))
        sink = LogStoreSink(tmp_path, store, round_bytes=MIB)
        sink.take([SealedSegment(path)])
        assert stored_ids(store) == ids
    assert sink.rounds == 1
    assert shipper_to(tmp_path, Supply(sink)).look()
    assert read_journal(tmp_path / SHIPPING / STORE_JOURNAL) == Journal(1, (), (path.stem,))


def test_the_journal_forgets_segments_that_are_gone(tmp_path: Path) -> None:
    sink = LogStoreSink(tmp_path, open_log_store(str(tmp_path / "store")), round_bytes=MIB)
    shipper = shipper_to(tmp_path, Supply(sink))
    for _ in range(5):
        path, _ = segment_with(tmp_path)
        assert shipper.look()
    assert read_journal(tmp_path / SHIPPING / STORE_JOURNAL) == Journal(5, (), (path.stem,))


def test_a_disk_that_is_full_makes_the_store_unavailable_and_loses_nothing(tmp_path: Path) -> None:
    path, ids = segment_with(tmp_path)
    store = open_log_store(str(tmp_path / "store"))
    sink = LogStoreSink(tmp_path, store, round_bytes=MIB)
    blocked = tmp_path / "store" / "predictions"
    blocked.parent.mkdir()
    blocked.write_text("no folder can be made here")
    with pytest.raises(Unavailable, match="log store"):
        sink.take([SealedSegment(path)])
    blocked.unlink()
    sink.take([SealedSegment(path)])
    assert stored_ids(store) == ids


def test_a_journal_that_is_none_stops_the_shipper(tmp_path: Path) -> None:
    (tmp_path / SHIPPING).mkdir()
    (tmp_path / SPOOL).mkdir()
    (tmp_path / SHIPPING / STORE_JOURNAL).write_text('{"round": "twelve"}')
    with pytest.raises(InvalidDefinition, match="journal"):
        LogStoreSink(tmp_path, open_log_store(str(tmp_path / "store")), round_bytes=MIB)


def test_a_folder_has_one_shipper(tmp_path: Path) -> None:
    assert shipper_of(tmp_path) is None
    with only_shipper(tmp_path):
        assert shipper_of(tmp_path) == os.getpid()
        with pytest.raises(Conflict, match=f"process {os.getpid()}"), only_shipper(tmp_path):
            pass
    assert shipper_of(tmp_path) is None
    with only_shipper(tmp_path):
        assert shipper_of(tmp_path) == os.getpid()


def test_requests_wait_in_order_and_are_forgotten_when_they_are_answered(tmp_path: Path) -> None:
    requests = Requests(tmp_path)
    first = requests.ask(Work.DELETE, endpoint="a", keys={"user": "somebody"})
    second = requests.ask(Work.SHIP)
    assert requests.pending() == [first, second]
    assert requests.answer(first) is None
    requests.finish(first, Answer({"predictions": 3}))
    assert requests.pending() == [second]
    assert requests.answer(first) == Answer({"predictions": 3})
    assert requests.answer(first) is None, "an answer is told once"
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"somebody" in path.read_bytes()]


def test_a_request_that_nobody_can_read_keeps_no_other_waiting(tmp_path: Path) -> None:
    requests = Requests(tmp_path)
    (tmp_path / SHIPPING / "requests").mkdir(parents=True)
    (tmp_path / SHIPPING / "requests" / "0000.json").write_text("{")
    request = requests.ask(Work.COMPACT)
    assert requests.pending() == [request]


def test_more_requests_than_a_shipper_can_have_waiting_are_refused(tmp_path: Path) -> None:
    requests = Requests(tmp_path)
    for _ in range(LOG_REQUESTS_MAX):
        requests.ask(Work.SHIP)
    with pytest.raises(Overloaded):
        requests.ask(Work.SHIP)
