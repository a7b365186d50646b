"""The contract of `PredictionLog`, and what the folder's log promises beyond it: exactly once, through a kill -9."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.fakes import MemoryPredictionLog
from harness.servers import wait_until
from skewless.adapters.prediction_log import FolderPredictionLog, recover
from skewless.adapters.prediction_reader import read_outcomes, read_predictions
from skewless.adapters.rollout_evidence import LogEvidence
from skewless.adapters.spool import read_frames
from skewless.canonical_json import digest
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidRequest, Unavailable
from skewless.features.frame import STATUS_CODE, FeatureFrame
from skewless.features.visibility import Status
from skewless.limits import LOG_BUFFER_ROWS_MAX
from skewless.rollout.role_counts import LATENCY_BINS, RoleCounts
from skewless.rollout.routes import Role
from skewless.serving.ports import PredictionLog
from skewless.serving.records import AnsweredBatch, Outcome, decode, encode, tensor_digest
from skewless.serving.role_tally import RoleTally
from skewless.timestamps import DAY_US, SECOND_US, Micros, parse_timestamp

NOW = parse_timestamp("2013-05-01T12:30:00Z")
FOREVER = (0, 1 << 60)
KINDS = pytest.mark.parametrize("kind", ["folder", "fake"])
OK, MISSING, STALE = (STATUS_CODE[each] for each in (Status.OK, Status.MISSING, Status.STALE))


def cycled(items: list[object], rows: int) -> list[object]:
    return (items * rows)[:rows]


def a_batch(
    name: str, *, rows: int = 2, as_of: int = NOW, bundle: str = "one", dtype: Dtype = Dtype.FLOAT32
) -> AnsweredBatch:
    """Predictions with every dtype, nulls, a NaN, an infinity and a negative zero among the values."""
    temps: list[object] = [float("nan"), -0.0, None, float("inf")] if dtype is Dtype.FLOAT32 else [1, 2, None, 3]
    columns = {
        "v__temp": column_of(dtype, cycled(temps, rows)),
        "v__name": column_of(Dtype.STRING, cycled(["", None, "ä\0"], rows)),
        "v__exact": column_of(Dtype.INT64, [(1 << 53) + 1] * rows),
        "v__raw": column_of(Dtype.BYTES, cycled([b"\x00\xff", None], rows)),
        "v__flag": column_of(Dtype.BOOL, cycled([True, None], rows)),
        "v__time": column_of(Dtype.TIMESTAMP, [NOW + 1] * rows),
    }
    generator = np.random.default_rng(len(name))
    tensor = generator.normal(size=(rows, 3)).astype(np.float32)
    probabilities = generator.random(rows, dtype=np.float32)
    return AnsweredBatch(
        endpoint="flight-delay",
        bundle=digest(bundle),
        role="live",
        rung="normal",
        request_id=name,
        as_of=as_of,
        prediction_ids=[f"{name}-{row}" for row in range(rows)],
        key_names=("origin",),
        given={
            "origin": column_of(Dtype.STRING, cycled(["JFK", None], rows)),
            "distance": column_of(Dtype.FLOAT64, [0.1] * rows),
        },
        frame=FeatureFrame(
            rows,
            columns,
            {each: np.array(cycled([OK, MISSING, STALE], rows), np.uint8) for each in columns},
            {"v": np.array(cycled([NOW - 5, -1], rows), np.int64)},
        ),
        tensor=tensor,
        outputs={"probabilities": np.stack([1 - probabilities, probabilities], axis=1)},
        labels=["late", *["on_time"] * (rows - 1)],
        probabilities=probabilities,
        stage_ms={"features": 0.5, "model": 1.25},
    )


@asynccontextmanager
async def opened(kind: str, folder: Path, **options: Any) -> AsyncIterator[PredictionLog]:
    log: PredictionLog = MemoryPredictionLog() if kind == "fake" else FolderPredictionLog(folder, **options)
    try:
        yield log
    finally:
        await log.close()


def ids(folder: Path) -> list[str]:
    return read_predictions(folder, "flight-delay", *FOREVER).column("prediction_id").to_pylist()  # type: ignore[no-any-return]  # pyarrow is untyped


def parquet_folders(folder: Path) -> list[str]:
    return sorted(str(each.parent.relative_to(folder)) for each in folder.rglob("*.parquet"))


@KINDS
async def test_taking_entries_never_waits_and_commit_returns(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as log:
        log.append(a_batch("a"))
        log.append_outcomes([Outcome("a-0", "late", None, NOW)])
        await log.commit()


async def test_with_a_flush_time_of_zero_a_commit_makes_it_readable(tmp_path: Path) -> None:
    async with opened("folder", tmp_path, flush_ms=0) as log:
        log.append(a_batch("a"))
        await log.commit()
        assert ids(tmp_path) == ["a-0", "a-1"]


async def test_without_a_commit_it_is_readable_after_the_flush_time(tmp_path: Path) -> None:
    async with opened("folder", tmp_path, flush_ms=20) as log:
        log.append(a_batch("a"))
        wait_until(lambda: ids(tmp_path) == ["a-0", "a-1"], "the flush")


async def test_every_value_comes_back_bit_for_bit(tmp_path: Path) -> None:
    batch = a_batch("a", rows=4)
    async with opened("folder", tmp_path, flush_ms=0) as log:
        log.append(batch)
        await log.commit()
        spooled = read_predictions(tmp_path, "flight-delay", *FOREVER)
    table = read_predictions(tmp_path, "flight-delay", *FOREVER)
    assert not list((tmp_path / "spool").iterdir()), "closing seals"
    assert table.schema.names == spooled.schema.names
    for each in (spooled, table):
        rows = each.to_pylist()
        assert [row["tensor"] for row in rows] == [row.tobytes() for row in batch.tensor]
        assert [row["tensor_digest"] for row in rows] == [tensor_digest(row) for row in batch.tensor]
        temps = each.column("feature.v__temp").combine_chunks()
        assert temps.is_valid().to_pylist() == [True, True, False, True]
        expected = batch.frame.columns["v__temp"].values
        assert temps.fill_null(0).to_numpy().tobytes() == expected.tobytes()
        assert [row["feature.v__name"] for row in rows] == ["", None, "ä\0", ""]
        assert [row["feature.v__exact"] for row in rows] == [(1 << 53) + 1] * 4
        assert [row["feature.v__raw"] for row in rows] == [b"\x00\xff", None] * 2
        assert [row["feature.v__flag"] for row in rows] == [True, None] * 2
        assert [row["status.v__temp"] for row in rows] == ["ok", "missing", "stale", "ok"]
        assert [row["event_time.v"] is None for row in rows] == [False, True, False, True]
        assert [row["key.origin"] for row in rows] == ["JFK", None] * 2
        assert [row["request.distance"] for row in rows] == [0.1] * 4
        assert np.array([row["output.probabilities"] for row in rows], np.float32).tobytes() == (
            batch.outputs["probabilities"].tobytes()
        )
        assert rows[0]["stage_ms"] == [("features", 0.5), ("model", 1.25)]
        assert rows[3]["row"] == 3
        assert {row["bundle_digest"] for row in rows} == {batch.bundle}


async def test_files_lie_by_day_and_endpoint_and_other_engines_read_them(tmp_path: Path) -> None:
    async with opened("folder", tmp_path) as log:
        log.append(a_batch("a"))
        log.append(a_batch("b", as_of=NOW + DAY_US))
    assert parquet_folders(tmp_path) == [f"predictions/day=2013-05-0{day}/endpoint=flight-delay" for day in (1, 2)]
    found = duckdb.sql(
        f"""SELECT day, endpoint, count(*), max("status.v__temp") FROM '{tmp_path}/predictions/*/*/*.parquet'
        GROUP BY ALL ORDER BY day"""
    )
    assert found is not None
    assert [(str(day), endpoint, rows) for day, endpoint, rows, _ in found.fetchall()] == [
        ("2013-05-01", "flight-delay", 2),
        ("2013-05-02", "flight-delay", 2),
    ]


async def test_reading_is_limited_to_a_period_and_an_endpoint(tmp_path: Path) -> None:
    async with opened("folder", tmp_path) as log:
        for name, as_of in (("a", NOW), ("b", NOW + 1), ("c", NOW + DAY_US)):
            log.append(a_batch(name, rows=1, as_of=as_of))
    assert read_predictions(tmp_path, "flight-delay", NOW, NOW + 1).column("prediction_id").to_pylist() == ["a-0"]
    assert len(read_predictions(tmp_path, "flight-delay", NOW + 1, NOW + DAY_US)) == 1
    assert len(read_predictions(tmp_path, "another", *FOREVER)) == 0
    assert len(read_predictions(tmp_path, "flight-delay", NOW, NOW)) == 0
    assert len(read_predictions(tmp_path / "nowhere", "flight-delay", *FOREVER)) == 0


async def test_bundles_with_other_columns_share_a_table_and_contradicting_ones_are_refused(tmp_path: Path) -> None:
    async with opened("folder", tmp_path) as log:
        log.append(a_batch("a", bundle="one"))
        log.append(a_batch("b", bundle="two"))
    assert len(ids(tmp_path)) == 4
    async with opened("folder", tmp_path) as log:
        log.append(a_batch("c", bundle="three", dtype=Dtype.INT64))
    with pytest.raises(InvalidRequest, match="different dtypes"):
        ids(tmp_path)


async def test_a_segment_that_is_full_is_sealed_while_writing_goes_on(tmp_path: Path) -> None:
    async with opened("folder", tmp_path, flush_ms=0, segment_bytes_max=1) as log:
        for name in "abc":
            log.append(a_batch(name, rows=1))
            await log.commit()
        wait_until(lambda: len(list(tmp_path.rglob("*.parquet"))) == 3, "three segments")
        assert ids(tmp_path) == ["a-0", "b-0", "c-0"]


async def test_outcomes_are_read_in_order_of_receipt(tmp_path: Path) -> None:
    async with opened("folder", tmp_path, flush_ms=0) as log:
        log.append_outcomes([Outcome("p2", "late", NOW, NOW + 2), Outcome("p1", "on_time", None, NOW + 1)])
        await log.commit()
        spooled = read_outcomes(tmp_path, *FOREVER).to_pylist()
    sealed = read_outcomes(tmp_path, *FOREVER).to_pylist()
    assert sealed == spooled
    assert [(row["prediction_id"], row["label"]) for row in sealed] == [("p1", "on_time"), ("p2", "late")]
    assert sealed[0]["outcome_time"] is None
    assert len(read_outcomes(tmp_path, NOW + 2, NOW + 3)) == 1
    assert len(read_outcomes(tmp_path / "nowhere", *FOREVER)) == 0


_WRITER = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = {path!r}
from test_prediction_log import a_batch
from skewless.adapters.prediction_log import FolderPredictionLog

async def main():
    log = FolderPredictionLog(Path({folder!r}), flush_ms=0)
    for number in range(1_000_000):
        log.append(a_batch(f"call{{number:06}}", rows=1))
        await log.commit()
        print(f"call{{number:06}}-0", flush=True)

asyncio.run(main())
"""


def killed_writer(folder: Path) -> list[str]:
    """Ids that a writer had acknowledged when it was killed."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER.format(path=paths, folder=str(folder))], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    answered = [writer.stdout.readline().strip() for _ in range(50)]
    writer.send_signal(signal.SIGKILL)
    answered += writer.stdout.read().split()
    writer.stdout.close()
    writer.wait()
    return [each for each in answered if each.endswith("-0")]


def test_whatever_was_answered_is_in_the_log_exactly_once_after_a_kill(tmp_path: Path) -> None:
    answered = killed_writer(tmp_path)
    before = ids(tmp_path)
    assert set(answered) <= set(before)
    assert len(set(before)) == len(before)
    assert recover(tmp_path) == 1
    assert ids(tmp_path) == before
    assert recover(tmp_path) == 0
    assert not list((tmp_path / "spool").iterdir())


def test_a_seal_that_was_interrupted_is_done_again_without_a_duplicate(tmp_path: Path) -> None:
    answered = killed_writer(tmp_path)
    (spool,) = (tmp_path / "spool").iterdir()
    left_behind = spool.read_bytes()
    assert recover(tmp_path) == 1
    spool.write_bytes(left_behind)  # as if the process had died between writing Parquet and deleting the spool
    assert len(ids(tmp_path)) == len(set(ids(tmp_path))) >= len(answered)
    assert recover(tmp_path) == 1
    assert len(ids(tmp_path)) == len(set(ids(tmp_path))) >= len(answered)


async def test_a_torn_frame_at_the_end_costs_only_itself(tmp_path: Path) -> None:
    log = FolderPredictionLog(tmp_path, flush_ms=0)
    log.append(a_batch("a", rows=1))
    await log.commit()
    (spool,) = (tmp_path / "spool").iterdir()
    whole = spool.read_bytes()
    torn = spool.with_name(f"ffff{spool.name}")
    for cut in (1, 7, 20):
        torn.write_bytes(whole + whole[8:-cut])
        assert len(read_frames(torn)) == 1
    damaged = bytearray(whole + whole[8:])
    damaged[-1] ^= 1
    torn.write_bytes(damaged)
    assert len(read_frames(torn)) == 1
    torn.write_bytes(b"")
    assert read_frames(torn) == []
    await log.close()


async def test_the_spool_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    async with opened("folder", tmp_path, flush_ms=0) as log:
        log.append(a_batch("a", rows=1))
        await log.commit()
        assert recover(tmp_path) == 0
        second = FolderPredictionLog(tmp_path, flush_ms=0)
        second.append(a_batch("b", rows=1))
        await second.commit()
        assert ids(tmp_path) == ["a-0", "b-0"]
        await second.close()
    assert ids(tmp_path) == ["a-0", "b-0"]


async def test_a_disk_that_cannot_be_written_refuses_commits_and_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = FolderPredictionLog(tmp_path, flush_ms=0)
    (tmp_path / "spool").rename(tmp_path / "away")
    log.append(a_batch("a", rows=1))
    with pytest.raises(Unavailable, match="prediction log"):
        await log.commit()
    assert log.buffered_rows == 1
    (tmp_path / "away").rename(tmp_path / "spool")
    log.append(a_batch("b", rows=1))
    await log.commit()
    assert log.buffered_rows == 0
    assert ids(tmp_path) == ["a-0", "b-0"]
    await log.close()


async def test_a_full_buffer_is_flushed_before_the_next_answer(tmp_path: Path) -> None:
    log = FolderPredictionLog(tmp_path, flush_ms=60_000)
    log.append_outcomes([Outcome("p", "late", None, NOW)] * LOG_BUFFER_ROWS_MAX)
    await log.commit()
    assert log.buffered_rows == 0
    await log.close()
    assert len(read_outcomes(tmp_path, *FOREVER)) == LOG_BUFFER_ROWS_MAX


async def test_roles_arms_twins_and_places_in_the_request_come_back(tmp_path: Path) -> None:
    arm = replace(a_batch("arm"), role="arm", experiment="size", arm="larger", positions=np.array([1, 4]))
    shadow = replace(a_batch("shadow"), role="shadow", positions=np.array([0, 3]), twins=["live-0", "live-3"])
    async with opened("folder", tmp_path, flush_ms=0) as log:
        for batch in (a_batch("live"), arm, shadow):
            log.append(batch)
        await log.commit()
        spooled = read_predictions(tmp_path, "flight-delay", *FOREVER).to_pylist()
    sealed = read_predictions(tmp_path, "flight-delay", *FOREVER).to_pylist()
    for rows in (spooled, sealed):
        told = {row["prediction_id"]: row for row in rows}
        names = ("role", "experiment", "arm", "row", "live_prediction_id")
        assert [tuple(told[each][name] for name in names) for each in ("live-1", "arm-1", "shadow-1")] == [
            ("live", None, None, 1, None),
            ("arm", "size", "larger", 4, None),
            ("shadow", None, None, 3, "live-3"),
        ]


def a_tally(role: Role, start: int, *, endpoint: str = "flight-delay") -> RoleTally:
    counts = RoleCounts(requests=3, errors=1, latency=(2, *[0] * (LATENCY_BINS - 1)))
    return RoleTally(endpoint, role, "", digest("one"), None, Micros(start), Micros(start + SECOND_US), counts, 7)


async def test_tallies_are_read_back_from_spool_and_parquet_each_once(tmp_path: Path) -> None:
    evidence = LogEvidence(tmp_path)
    now = time.time_ns() // 1_000
    written = [a_tally(Role.LIVE, now), a_tally(Role.CANARY, now + SECOND_US)]
    async with opened("folder", tmp_path, flush_ms=0) as log:
        log.append_tallies([*written, a_tally(Role.LIVE, now, endpoint="other")])
        await log.commit()
        assert evidence.tallies("flight-delay", Micros(0), Micros(1 << 60)) == written
    assert list((tmp_path / "spool").iterdir()) == []
    assert evidence.tallies("flight-delay", Micros(0), Micros(1 << 60)) == written
    assert evidence.tallies("flight-delay", Micros(now + 1), Micros(1 << 60)) == written[1:]
    assert evidence.tallies("flight-delay", Micros(now), Micros(now + SECOND_US)) == written[:1]


def write_tally(folder: Path, document: object) -> None:
    """Put a document in the place of the one tally of a sealed log."""
    (path,) = folder.glob("tallies/day=*/*.parquet")
    table = pq.read_table(path)
    column = pa.array([json.dumps(document)], pa.string())
    pq.write_table(table.set_column(table.schema.get_field_index("tally"), "tally", column), path)


async def test_a_tally_of_another_version_is_left_out_and_stops_nothing(tmp_path: Path) -> None:
    foreign = {**a_tally(Role.LIVE, NOW).to_json(), "counts": {"requests": 1}}
    async with opened("folder", tmp_path, flush_ms=0) as log:
        assert isinstance(log, FolderPredictionLog)
        log.append(a_batch("a"))
        log.append_tallies([a_tally(Role.LIVE, NOW)])
        await log.commit()
    write_tally(tmp_path, foreign)
    assert LogEvidence(tmp_path).tallies("flight-delay", Micros(0), Micros(1 << 60)) == []
    assert ids(tmp_path) == ["a-0", "a-1"]


@pytest.mark.parametrize("kept", [1, 2])
def test_entries_of_the_formats_before_are_still_read(kept: int) -> None:
    batch = a_batch("a")
    document = msgspec.msgpack.decode(encode(batch))
    document["format"] = kept
    document["batch"] |= {
        "given": {name: column_by_column(column) for name, column in batch.given.items()},
        "columns": {name: column_by_column(column) for name, column in batch.frame.columns.items()},
        "statuses": {name: codes.tobytes() for name, codes in batch.frame.statuses.items()},
        "event_times": {view: times.tobytes() for view, times in batch.frame.event_times.items()},
    }
    for name in ("experiment", "arm", "positions", "twins") if kept == 1 else ():
        del document["batch"][name]
    assert encode(decode(msgspec.msgpack.encode(document))) == encode(batch)


def column_by_column(column: Column) -> list[object]:
    """A column as format 2 kept it."""
    values = column.values.tolist() if column.values.dtype.hasobject else column.values.tobytes()
    return [column.dtype.value, values, column.valid.tobytes()]
