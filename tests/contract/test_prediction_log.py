"""The contract of `PredictionLog`, and what the folder's log promises beyond it: exactly once, through a kill -9."""

import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.fakes import MemoryPredictionLog
from harness.log_batches import NOW, a_batch, kept_blocks, kept_entries, kept_ids
from harness.servers import wait_until
from skewless.adapters.prediction_log import FolderPredictionLog
from skewless.adapters.spool import SPOOL, SpoolFile, open_segments, read_segment, sealed_segments
from skewless.canonical_json import digest
from skewless.errors import Unavailable
from skewless.limits import LOG_BUFFER_ROWS_MAX
from skewless.rollout.role_counts import LATENCY_BINS, RoleCounts
from skewless.rollout.routes import Role
from skewless.serving.ports import LogState, PredictionLog
from skewless.serving.records import AnsweredBatch, Outcome, TallyBatch, tensor_digest
from skewless.serving.role_tally import RoleTally
from skewless.timestamps import SECOND_US, Micros

KINDS = pytest.mark.parametrize("kind", ["folder", "fake"])


@asynccontextmanager
async def opened(kind: str, folder: Path, **options: Any) -> AsyncIterator[PredictionLog]:
    log: PredictionLog = MemoryPredictionLog() if kind == "fake" else FolderPredictionLog(folder, **options)
    try:
        yield log
    finally:
        await log.close()


def a_tally(role: Role, start: int) -> RoleTally:
    counts = RoleCounts(requests=3, errors=1, latency=(2, *[0] * (LATENCY_BINS - 1)))
    return RoleTally("flight-delay", role, "", digest("one"), None, Micros(start), Micros(start + SECOND_US), counts, 7)


@KINDS
async def test_taking_entries_never_waits_and_commit_returns(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as log:
        log.refuse_if_full(1)
        log.append(a_batch("a"))
        log.append_outcomes([Outcome("a-0", "late", None, NOW)])
        log.append_tallies([a_tally(Role.LIVE, NOW)])
        await log.commit()
        assert log.state().failure == ""


async def test_with_a_flush_time_of_zero_a_commit_makes_it_readable(tmp_path: Path) -> None:
    async with opened("folder", tmp_path, flush_ms=0) as log:
        log.append(a_batch("a"))
        await log.commit()
        assert kept_ids(tmp_path) == ["a-0", "a-1"]
        assert log.state() == LogState()


async def test_without_a_commit_it_is_readable_after_the_flush_time(tmp_path: Path) -> None:
    async with opened("folder", tmp_path, flush_ms=20) as log:
        log.append(a_batch("a"))
        wait_until(lambda: kept_ids(tmp_path) == ["a-0", "a-1"], "the flush")


async def test_what_comes_within_one_flush_is_one_block_of_its_bundle(tmp_path: Path) -> None:
    async with opened("folder", tmp_path, flush_ms=60_000) as log:
        for name in ("a", "b", "c"):
            log.append(a_batch(name, rows=1, bundle="two" if name == "b" else "one"))
    first, second = kept_blocks(tmp_path)
    assert (first.prediction_ids, first.bundle) == (["a-0", "c-0"], digest("one"))
    assert (second.prediction_ids, second.bundle) == (["b-0"], digest("two"))
    assert [each.request_id for each in first.requests] == ["a", "c"]


async def test_every_value_comes_back_bit_for_bit(tmp_path: Path) -> None:
    batch = a_batch("a", rows=4)
    async with opened("folder", tmp_path, flush_ms=0) as log:
        log.append(batch)
        await log.commit()
        (written,) = kept_blocks(tmp_path)
    (sealed,) = kept_blocks(tmp_path)
    for block in (written, sealed):
        (request,) = block.requests
        assert (request.request_id, request.as_of, request.role, request.rung) == ("a", NOW, "live", "normal")
        assert (request.caller, dict(request.stage_ms), request.rows) == ("key:shop", dict(batch.stage_ms), 4)
        assert block.tensor is not None
        assert block.tensor.tobytes() == batch.tensor.tobytes()
        assert list(block.tensor_digests) == [tensor_digest(row) for row in batch.tensor]
        assert block.outputs["probabilities"].tobytes() == batch.outputs["probabilities"].tobytes()
        assert block.probabilities.tobytes() == batch.probabilities.tobytes()
        assert (block.labels, block.key_names) == (list(batch.labels), ["origin"])
        assert block.positions.tolist() == [0, 1, 2, 3]
        for mine, theirs in ((block.given, batch.given), (block.frame.columns, batch.frame.columns)):
            assert set(mine) == set(theirs)
            for name, column in theirs.items():
                assert mine[name].dtype is column.dtype
                assert mine[name].valid.tolist() == column.valid.tolist()
                if column.values.dtype.hasobject:
                    assert mine[name].values.tolist() == column.values.tolist()
                else:
                    assert mine[name].values.tobytes() == column.values.tobytes()
        assert {name: codes.tolist() for name, codes in block.frame.statuses.items()} == {
            name: codes.tolist() for name, codes in batch.frame.statuses.items()
        }
        assert block.frame.event_times["v"].tolist() == batch.frame.event_times["v"].tolist()


async def test_roles_arms_twins_and_places_in_the_request_come_back(tmp_path: Path) -> None:
    arm = replace(a_batch("arm"), role="arm", experiment="size", arm="larger", positions=np.array([1, 4]))
    shadow = replace(a_batch("shadow"), role=Role.SHADOW, positions=np.array([0, 3]), twins=["live-0", "live-3"])
    async with opened("folder", tmp_path, flush_ms=0) as log:
        for batch in (a_batch("live"), arm, shadow):
            log.append(batch)
    (block,) = kept_blocks(tmp_path)
    assert [(each.role, each.experiment, each.arm) for each in block.requests] == [
        ("live", "", ""),
        ("arm", "size", "larger"),
        ("shadow", "", ""),
    ]
    assert block.positions.tolist() == [0, 1, 1, 4, 0, 3]
    assert block.twins == ["", "", "", "", "live-0", "live-3"]
    assert block.per_row(each.role for each in block.requests) == ["live"] * 2 + ["arm"] * 2 + ["shadow"] * 2


async def test_outcomes_and_tallies_come_back(tmp_path: Path) -> None:
    outcomes = (
        Outcome("p1", "late", NOW, NOW + 2, "o1", caller="key:ops"),
        Outcome(None, "on_time", None, NOW, "o2", endpoint="flight-delay", entity='{"origin":"JFK"}', at=NOW - 1),
    )
    tallies = [a_tally(Role.LIVE, NOW), a_tally(Role.CANARY, NOW + SECOND_US)]
    async with opened("folder", tmp_path, flush_ms=0) as log:
        log.append_outcomes(outcomes)
        log.append_tallies(tallies)
    assert kept_entries(tmp_path) == [outcomes, TallyBatch.of(tallies)]


async def test_a_segment_that_is_large_enough_is_sealed_while_writing_goes_on(tmp_path: Path) -> None:
    async with opened("folder", tmp_path, flush_ms=0, segment_bytes_max=1) as log:
        for name in "abc":
            log.append(a_batch(name, rows=1))
            await log.commit()
        wait_until(lambda: len(sealed_segments(tmp_path / SPOOL)) == 3, "three segments")
        assert kept_ids(tmp_path) == ["a-0", "b-0", "c-0"]


async def test_a_segment_that_is_old_enough_is_sealed_without_more_traffic(tmp_path: Path) -> None:
    async with opened("folder", tmp_path, flush_ms=0, segment_age_s=0.05) as log:
        log.append(a_batch("a"))
        await log.commit()
        wait_until(lambda: len(sealed_segments(tmp_path / SPOOL)) == 1, "it is sealed")
        assert open_segments(tmp_path / SPOOL) == []


async def test_closing_seals_and_a_log_without_records_leaves_no_file(tmp_path: Path) -> None:
    async with opened("folder", tmp_path) as log:
        log.append(a_batch("a"))
    assert [path.suffix for path in (tmp_path / SPOOL).iterdir()] == [".sealed"]
    async with opened("folder", tmp_path / "unused"):
        pass
    assert list((tmp_path / "unused" / SPOOL).iterdir()) == []


_WRITER = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = {path!r}
from harness.log_batches import a_batch
from skewless.adapters.prediction_log import FolderPredictionLog

async def one(log, name):
    log.append(a_batch(name, rows=1))
    await log.commit()
    print(f"{{name}}-0", flush=True)

async def main():
    log = FolderPredictionLog(Path({folder!r}), flush_ms=0, fsync={fsync!r}, segment_bytes_max={segment_bytes_max})
    for number in range(1_000_000):
        await asyncio.gather(*(one(log, f"call{{number:06}}x{{each}}") for each in range(5)))

asyncio.run(main())
"""


def killed_writer(folder: Path, *, after: int, fsync: bool, segment_bytes_max: int = 1 << 20) -> list[str]:
    """Ids that a writer had acknowledged when it was killed, at some moment after so many of them."""
    paths = [str(Path(__file__).parents[1])]
    code = _WRITER.format(path=paths, folder=str(folder), fsync=fsync, segment_bytes_max=segment_bytes_max)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        answered = [writer.stdout.readline().strip() for _ in range(after)]
        writer.send_signal(signal.SIGKILL)
        answered += writer.stdout.read().split()
    return [each for each in answered if each.endswith("-0")]


@pytest.mark.parametrize("fsync", [False, True])
def test_whatever_was_answered_is_in_the_log_exactly_once_after_kills(fsync: bool, tmp_path: Path) -> None:
    generator = random.Random(7)
    answered: list[str] = []
    for life in range(3):
        before = len(kept_ids(tmp_path))
        told = killed_writer(tmp_path, after=generator.randrange(1, 900), fsync=fsync, segment_bytes_max=100_000)
        mine = kept_ids(tmp_path)[before:]
        assert set(told) <= set(mine), f"life {life}"
        assert len(set(mine)) == len(mine), f"life {life}"
        answered += told
    # Whoever takes over what dead writers left changes nothing of it.
    kept = kept_ids(tmp_path)
    left = open_segments(tmp_path / SPOOL)
    assert len(left) <= 3
    for path in left:
        spool = SpoolFile.take_over(path)
        assert spool is not None
        spool.seal()
    assert open_segments(tmp_path / SPOOL) == []
    assert kept_ids(tmp_path) == kept
    assert len(kept) >= len(answered) > 100


async def test_the_segment_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    async with opened("folder", tmp_path, flush_ms=0) as log:
        log.append(a_batch("a", rows=1))
        await log.commit()
        (segment,) = open_segments(tmp_path / SPOOL)
        assert SpoolFile.take_over(segment) is None
        async with opened("folder", tmp_path, flush_ms=0) as second:
            second.append(a_batch("b", rows=1))
            await second.commit()
            assert kept_ids(tmp_path) == ["a-0", "b-0"]
    assert SpoolFile.take_over(segment) is None, "it is sealed now"
    assert [read_segment(each).lost_bytes for each in sealed_segments(tmp_path / SPOOL)] == [0, 0]


async def test_a_disk_that_cannot_be_written_refuses_commits_and_loses_nothing(tmp_path: Path) -> None:
    log = FolderPredictionLog(tmp_path, flush_ms=0)
    (tmp_path / SPOOL).rename(tmp_path / "away")
    log.append(a_batch("a", rows=1))
    with pytest.raises(Unavailable, match="prediction log is unavailable: No such file"):
        await log.commit()
    assert log.state() == LogState(1, "No such file or directory")
    with pytest.raises(Unavailable):
        log.refuse_if_full(1)
    with pytest.raises(Unavailable):
        log.append(a_batch("never", rows=1))
    (tmp_path / "away").rename(tmp_path / SPOOL)
    wait_until(lambda: log.state() == LogState(), "it is tried again")
    log.append(a_batch("b", rows=1))
    await log.commit()
    assert kept_ids(tmp_path) == ["a-0", "b-0"]
    await log.close()


async def test_a_full_buffer_is_flushed_before_the_next_answer(tmp_path: Path) -> None:
    log = FolderPredictionLog(tmp_path, flush_ms=60_000)
    log.append_outcomes([Outcome("p", "late", None, NOW)] * LOG_BUFFER_ROWS_MAX)
    await log.commit()
    assert log.state() == LogState()
    await log.close()
    (entry,) = kept_entries(tmp_path)
    assert isinstance(entry, tuple)
    assert len(entry) == LOG_BUFFER_ROWS_MAX


async def test_what_is_handed_over_may_be_used_further(tmp_path: Path) -> None:
    batch: AnsweredBatch = a_batch("a", rows=1)
    async with opened("folder", tmp_path, flush_ms=0) as log:
        log.append(batch)
        log.append(batch)
        await log.commit()
    (block,) = kept_blocks(tmp_path)
    assert block.prediction_ids == ["a-0", "a-0"]
    assert (batch.rows, batch.prediction_ids) == (1, ["a-0"])
