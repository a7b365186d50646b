"""A prediction log that cannot be written: what is refused, dropped, kept and told, and that it recovers by itself."""

import asyncio
import errno
import logging
import os
import resource
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from harness.faults import short_of
from harness.log_batches import a_batch, kept_entries, kept_ids
from harness.polling import until
from skewless.adapters.log_segments import LogCounts, SegmentWriter, SpoolUsage
from skewless.adapters.prediction_log import FolderPredictionLog
from skewless.adapters.spool import SPOOL, SpoolFile, read_frames, sealed_segments
from skewless.canonical_json import digest
from skewless.errors import Unavailable
from skewless.limits import LOG_BUFFER_ROWS_MAX, LOG_SPOOL_LOOK_S
from skewless.rollout.role_counts import LATENCY_BINS, RoleCounts
from skewless.rollout.routes import Role
from skewless.serving.log_blocks import decode, logged_rows
from skewless.serving.log_policy import WhenFull
from skewless.serving.log_privacy import LogPrivacy
from skewless.serving.ports import LogState
from skewless.serving.records import LogEntry, Outcome, TallyBatch
from skewless.serving.role_tally import RoleTally
from skewless.timestamps import Micros

BOUND = 64 * 1024 * 1024
ROWS = 1_000


def full_spool(folder: Path) -> Path:
    """A segment of a log's folder that fills it to BOUND, as if it waited to be shipped."""
    (folder / SPOOL).mkdir(parents=True, exist_ok=True)
    spool = SpoolFile.create(folder / SPOOL)
    spool.append(b"\0")
    sealed = spool.seal()
    assert sealed is not None
    os.truncate(sealed, BOUND)  # which takes no room on a disk
    return sealed


async def written(log: FolderPredictionLog, name: str) -> None:
    log.append(a_batch(name, rows=1))
    await log.commit()


async def failing(log: FolderPredictionLog) -> None:
    await until(lambda: bool(log.state().failure))


async def test_at_the_bound_of_the_spool_answers_are_refused_until_something_is_shipped(tmp_path: Path) -> None:
    waiting = full_spool(tmp_path)
    log = FolderPredictionLog(tmp_path, flush_ms=0, spool_bytes_max=BOUND)
    with pytest.raises(Unavailable, match="wait to be shipped; allowed are 67108864") as refused:
        await written(log, "refused")
    assert "shipper" in refused.value.hint
    with pytest.raises(Unavailable):
        log.refuse_if_full(1)
    waiting.unlink()
    await until(lambda: log.state() == LogState())
    log.refuse_if_full(1)
    await written(log, "after")
    await log.close()
    assert kept_ids(tmp_path) == ["refused-0", "after-0"], "what was taken is there, as of a caller that hung up"
    assert log.counts.dropped_rows == {}


async def test_with_a_flush_time_memory_takes_what_the_disk_does_not_up_to_its_bound(tmp_path: Path) -> None:
    waiting = full_spool(tmp_path)
    log = FolderPredictionLog(tmp_path, flush_ms=1, spool_bytes_max=BOUND)
    await failing(log)
    batch = a_batch("x", rows=ROWS)
    for _ in range(LOG_BUFFER_ROWS_MAX // ROWS):
        log.refuse_if_full(ROWS)
        log.append(batch)
    for _ in range(3):
        with pytest.raises(Unavailable):
            log.append(a_batch("one too many", rows=1))
    assert log.state().buffered_rows == LOG_BUFFER_ROWS_MAX
    waiting.unlink()
    await until(lambda: log.state() == LogState())
    await log.close()
    assert len(kept_ids(tmp_path)) == LOG_BUFFER_ROWS_MAX


async def test_where_told_so_nobody_is_refused_and_what_is_dropped_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = full_spool(tmp_path)
    log = FolderPredictionLog(tmp_path, flush_ms=0, segment_age_s=0.01, spool_bytes_max=BOUND, when_full=WhenFull.DROP)
    with caplog.at_level(logging.WARNING):
        await failing(log)
        for number in range(LOG_BUFFER_ROWS_MAX // ROWS + 3):
            log.refuse_if_full(ROWS)
            log.append(a_batch(f"{number}", rows=ROWS))
            await log.commit()
        assert log.state().buffered_rows == LOG_BUFFER_ROWS_MAX
        assert log.counts.dropped_rows == {"spool_full": 3 * ROWS}
        waiting.unlink()
        await until(lambda: log.state() == LogState())
    await log.close()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2, "once when it begins, once when it ends, however often it is tried"
    assert "cannot be written" in told[0]
    assert "is written again" in told[1]
    assert len(kept_ids(tmp_path)) == LOG_BUFFER_ROWS_MAX


async def test_who_waits_while_the_disk_fails_is_answered_where_records_may_be_dropped(tmp_path: Path) -> None:
    log = FolderPredictionLog(tmp_path, flush_ms=0, when_full=WhenFull.DROP)
    (tmp_path / SPOOL).rename(tmp_path / "away")
    async with asyncio.timeout(30):
        await written(log, "a")
        await written(log, "b")
    (tmp_path / "away").rename(tmp_path / SPOOL)
    await until(lambda: log.state() == LogState())
    await log.close()
    assert kept_ids(tmp_path) == ["a-0", "b-0"]


async def test_tallies_for_which_there_is_no_room_are_dropped_and_raise_nothing(tmp_path: Path) -> None:
    full_spool(tmp_path)
    log = FolderPredictionLog(tmp_path, flush_ms=0, segment_age_s=0.01, spool_bytes_max=BOUND)
    await failing(log)
    counts = RoleCounts(requests=1, errors=0, latency=(1, *[0] * (LATENCY_BINS - 1)))
    log.append_tallies([RoleTally("e", Role.LIVE, "", digest("one"), None, Micros(0), Micros(1), counts)])
    assert log.counts.dropped_rows == {"spool_full": 1}
    with pytest.raises(Unavailable):
        log.append_outcomes([Outcome("p", "late", None, 0)])
    await log.close()


@pytest.mark.parametrize("fsync", [False, True])
async def test_a_disk_that_fills_within_a_frame_loses_nothing_and_doubles_nothing(fsync: bool, tmp_path: Path) -> None:
    log = FolderPredictionLog(tmp_path, flush_ms=0, fsync=fsync)
    await written(log, "before")
    (path,) = (tmp_path / SPOOL).iterdir()
    for spare in (3, 200):
        with short_of(os.getpid(), resource.RLIMIT_FSIZE, path.stat().st_size + spare):
            with pytest.raises(Unavailable, match="File too large"):
                await written(log, f"torn-{spare}")
            with pytest.raises(Unavailable):
                log.append(a_batch("never", rows=1))
        await until(lambda: log.state() == LogState())
    await written(log, "after")
    await log.close()
    assert kept_ids(tmp_path) == ["before-0", "torn-3-0", "torn-200-0", "after-0"]


async def test_closing_heeds_no_bound_because_what_is_in_memory_would_be_lost(tmp_path: Path) -> None:
    full_spool(tmp_path)
    log = FolderPredictionLog(tmp_path, flush_ms=60_000, spool_bytes_max=BOUND)
    log.append(a_batch("a"))
    await log.close()
    assert len(sealed_segments(tmp_path / SPOOL)) == 2


async def test_one_record_that_cannot_be_encoded_costs_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = FolderPredictionLog(tmp_path, flush_ms=60_000)
    log.append(a_batch("a", rows=1))
    log.append(replace(a_batch("strange", rows=1), labels=["\ud800"]))
    log.append(a_batch("b", rows=1))
    await log.close()
    assert kept_ids(tmp_path) == ["a-0", "b-0"]
    assert log.counts.dropped_rows == {"unencodable": 1}
    assert "cannot be encoded" in caplog.text


async def test_a_log_counts_what_it_does(tmp_path: Path) -> None:
    took: list[float] = []
    log = FolderPredictionLog(tmp_path, flush_ms=0, flushed=took.append)
    await written(log, "a")
    log.append(a_batch("b", rows=3))
    log.append_outcomes([Outcome("p", "late", None, 0)])
    await log.commit()
    await log.close()
    counts = log.counts
    assert (counts.rows, counts.frames, counts.segments_sealed) == (5, 3, 1)
    (path,) = sealed_segments(tmp_path / SPOOL)
    assert counts.bytes == path.stat().st_size - 16 - 3 * 16
    assert len(took) == 2
    assert min(took) >= 0
    assert len(kept_entries(tmp_path)) == 3


# --- the writer alone ------------------------------------------------------------------------------------------------


def writer(folder: Path, *, clock: Callable[[], float], spool_bytes_max: int = 1 << 40) -> SegmentWriter:
    return SegmentWriter(
        folder,
        fsync=False,
        segment_bytes_max=1 << 30,
        segment_age_s=5.0,
        spool_bytes_max=spool_bytes_max,
        privacy=LogPrivacy(),
        clock=clock,
    )


def test_a_segment_is_sealed_when_it_is_old_and_not_before(tmp_path: Path) -> None:
    now_s = [100.0]
    own = writer(tmp_path, clock=lambda: now_s[0])
    assert own.due_in_s() == 5.0
    entries: list[LogEntry] = [TallyBatch(({"rows": 1},))]
    assert own.write(entries) == ([], None)
    now_s[0] = 104.9
    own.seal_if_due()
    assert own.counts.segments_sealed == 0
    assert own.due_in_s() == pytest.approx(0.1)
    now_s[0] = 105.0
    own.seal_if_due()
    assert own.counts == LogCounts(1, 1, own.counts.bytes, 1, own.counts.spool_bytes)
    own.seal_if_due()
    assert own.counts.segments_sealed == 1


def test_the_folder_is_looked_at_about_once_a_second_and_oftener_where_it_is_full(tmp_path: Path) -> None:
    now_s = [100.0]
    usage = SpoolUsage(tmp_path, clock=lambda: now_s[0])
    assert usage.bytes(bytes_max=1_000) == 0
    (tmp_path / "a.sealed").write_bytes(b"x" * 600)
    (tmp_path / "b.spool").write_bytes(b"x" * 600)
    (tmp_path / "c.json").write_bytes(b"x" * 600)
    now_s[0] += LOG_SPOOL_LOOK_S / 2
    usage.add(7)
    assert usage.bytes(bytes_max=1_000) == 7, "what this process wrote is known at once"
    now_s[0] += LOG_SPOOL_LOOK_S
    assert usage.bytes(bytes_max=1_000) == 1_200
    (tmp_path / "a.sealed").unlink()
    assert usage.bytes(bytes_max=1_000) == 600, "room is found as soon as there is some"


def test_what_is_written_before_a_disk_fills_is_not_written_again(tmp_path: Path) -> None:
    own = writer(tmp_path, clock=lambda: 0.0)
    first: LogEntry = TallyBatch(({"rows": 1},))
    assert own.write([first]) == ([], None)
    (path,) = tmp_path.iterdir()
    entries: list[LogEntry] = [first, a_batch("large", rows=100), first]
    with short_of(os.getpid(), resource.RLIMIT_FSIZE, path.stat().st_size + 100):
        left, error = own.write(entries)
    assert error is not None
    assert left == entries[1:]
    assert own.write(left) == ([], None)
    own.close()
    (sealed,) = sealed_segments(tmp_path)
    found = [decode(frame) for frame in read_frames(sealed)]
    assert [logged_rows(each) for each in found] == [1, 1, 100, 1]
    assert own.counts.rows == 103


def test_whatever_goes_wrong_half_way_nothing_is_written_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = writer(tmp_path, clock=lambda: 0.0)
    one, other = a_batch("one", rows=600), a_batch("other", rows=600)
    append = SpoolFile.append

    def append_one(spool: SpoolFile, payload: bytes) -> None:
        if not spool.is_empty:
            raise MemoryError
        append(spool, payload)

    with monkeypatch.context() as broken:
        broken.setattr(SpoolFile, "append", append_one)
        left, failure = own.write([one, other])
    assert left == [other]
    assert "MemoryError" in str(failure)
    assert own.write(left) == ([], None)
    own.close()
    (sealed,) = sealed_segments(tmp_path)
    assert [logged_rows(decode(frame)) for frame in read_frames(sealed)] == [600, 600]


async def test_a_record_that_fits_into_no_group_costs_no_other(tmp_path: Path) -> None:
    log = FolderPredictionLog(tmp_path, flush_ms=60_000)
    log.append(a_batch("a", rows=1))
    log.append(replace(a_batch("strange", rows=1), key_names=None))  # type: ignore[arg-type]  # which is what is wrong
    log.append(a_batch("b", rows=1))
    await log.close()
    assert kept_ids(tmp_path) == ["a-0", "b-0"]
    assert log.counts.dropped_rows == {"unencodable": 1}


async def test_a_flush_is_synced_before_who_waits_is_answered_where_that_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    for wanted in (True, False):
        folder = tmp_path / str(wanted)
        log = FolderPredictionLog(folder, flush_ms=0, fsync=wanted)
        for name in ("a", "b"):
            await written(log, name)
            (path,) = (folder / SPOOL).iterdir()
            assert (path.stat().st_size in synced) is wanted
        await log.close()
        synced.clear()


async def test_after_a_sync_that_failed_nobody_is_answered_and_another_segment_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = FolderPredictionLog(tmp_path, flush_ms=0, fsync=True)
    await written(log, "a")

    def fsync(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fsync)
        with pytest.raises(Unavailable, match="Input/output error"):
            await written(log, "unsure")
    await until(lambda: log.state() == LogState())
    await written(log, "b")
    await log.close()
    assert kept_ids(tmp_path) == ["a-0", "unsure-0", "b-0"], "it may have survived, and is not written twice"
    assert len(list((tmp_path / SPOOL).iterdir())) == 2


def highest_descriptor() -> int:
    return max(int(each.name) for each in Path("/proc/self/fd").iterdir())


async def test_connections_that_take_every_file_descriptor_leave_the_log_its_own(tmp_path: Path) -> None:
    log = FolderPredictionLog(tmp_path, flush_ms=0, segment_bytes_max=1)
    await written(log, "a")
    await until(lambda: log._writer._spare._descriptor is not None)
    taken: list[int] = []
    with short_of(os.getpid(), resource.RLIMIT_NOFILE, highest_descriptor() + 3):
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for number in range(5):
            await written(log, f"b{number}")
            await until(lambda: log._writer._spare._descriptor is not None)
        assert log.state() == LogState()
    for descriptor in taken:
        os.close(descriptor)
    await log.close()
    assert kept_ids(tmp_path) == ["a-0", *[f"b{number}-0" for number in range(5)]]
