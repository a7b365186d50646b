"""Samples that the log marks: whole entities and single predictions, alike in every gateway, kept through files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from harness.gateways import GatewayOverFakes
from harness.log_batches import NOW, a_batch
from harness.polling import until
from skewless.adapters.log_reader import open_log
from skewless.adapters.log_store import open_log_store
from skewless.adapters.log_tables import PREDICTIONS, SAMPLED, plain, segment_tables
from skewless.dtypes import Column, Dtype, column_of
from skewless.parity.sampling import chosen, entity_hashes
from skewless.rollout.routes import RoutingTable
from skewless.serving.answered_block import AnsweredBlock
from skewless.serving.log_blocks import blocks, decode, encode
from skewless.serving.log_privacy import LogMarks, LogPrivacy
from skewless.serving.log_sampling import SAMPLES, LogSampling, SampleShares
from skewless.serving.monitoring_policy import MonitoringPolicy, ParityPolicy
from skewless.serving.records import AnsweredBatch
from skewless.timestamps import MINUTE_US
from skewless_gateway.composition import sample_shares

ENDPOINT = "flight-delay"
ROWS = 20_000


def sampling(entity: float, uniform: float) -> LogSampling:
    return LogSampling({ENDPOINT: SampleShares(entity, uniform)})


def keys(entities: int, rows: int = ROWS) -> dict[str, Column]:
    return {"origin": column_of(Dtype.STRING, [f"station {row % entities}" for row in range(rows)])}


def ids(rows: int = ROWS) -> list[str]:
    return [f"0190c1f0-5a00-7000-8000-{row:012d}" for row in range(rows)]


def marked(batch: AnsweredBatch, shares: LogSampling, privacy: LogPrivacy | None = None) -> AnsweredBlock:
    (block,) = blocks([batch], privacy or LogPrivacy(), shares)
    assert isinstance(block, AnsweredBlock)
    return block


def test_an_entity_is_sampled_with_all_of_its_predictions_or_none() -> None:
    codes = sampling(0.2, 0.0).codes(ENDPOINT, keys(200), ids())
    assert codes is not None
    by_entity = codes.reshape(-1, 200)
    assert (by_entity == by_entity[0]).all()
    assert 0.1 < by_entity[0].mean() < 0.3
    assert np.array_equal(codes > 0, chosen(entity_hashes(keys(200), ROWS), 0.2)), "as `parity check --sample` has it"


def test_a_uniform_sample_does_not_look_at_the_entity() -> None:
    codes = sampling(0.0, 0.1).codes(ENDPOINT, keys(1), ids())
    assert codes is not None
    assert np.mean(codes == 2) == pytest.approx(0.1, abs=0.01)
    both = sampling(1.0, 0.1).codes(ENDPOINT, keys(1), ids())
    assert both is not None
    assert np.array_equal(both == 3, codes == 2), "the same predictions, whatever else is sampled"
    assert set(both.tolist()) == {1, 3}


def test_a_larger_share_keeps_what_a_smaller_one_has() -> None:
    small, large = (sampling(share, share).codes(ENDPOINT, keys(500), ids()) for share in (0.05, 0.2))
    assert small is not None
    assert large is not None
    assert (small & ~large == 0).all()


def test_nothing_is_sampled_of_an_endpoint_that_is_not_known_or_wants_nothing() -> None:
    assert LogSampling().codes(ENDPOINT, keys(3, 3), ids(3)) is None
    assert sampling(0.0, 0.0).codes(ENDPOINT, keys(3, 3), ids(3)) is None
    assert sampling(1.0, 1.0).codes("other", keys(3, 3), ids(3)) is None


def test_shares_that_change_hold_from_the_next_block_on() -> None:
    shares = LogSampling()
    assert marked(a_batch("a"), shares).sampled is None
    shares.follow({ENDPOINT: SampleShares(1.0, 0.0)})
    sampled = marked(a_batch("a"), shares).sampled
    assert sampled is not None
    assert sampled.tolist() == [1, 1]


def test_a_shadow_is_not_sampled_and_its_twin_is() -> None:
    shadow = replace(a_batch("shadow"), role="shadow", twins=["live-0", "live-1"])
    block = marked(shadow, sampling(1.0, 1.0))
    assert block.sampled is not None
    assert not block.sampled.any()
    (both,) = blocks([a_batch("live"), shadow], LogPrivacy(), sampling(1.0, 1.0))
    assert isinstance(both, AnsweredBlock)
    assert both.sampled is not None
    assert both.sampled.tolist() == [3, 3, 0, 0]


def test_an_entity_whose_key_is_hashed_in_the_log_is_the_same_entity_of_the_sample() -> None:
    marks = LogMarks(frozenset({"origin"}), frozenset(), keeps_tensor=True)
    batch = a_batch("a", rows=40)
    batch.given = {**batch.given, **keys(40, 40)}
    plainly = marked(batch, sampling(0.5, 0.0))
    hashed = marked(replace(batch, marks=marks), sampling(0.5, 0.0), LogPrivacy(b"k" * 16))
    assert plainly.sampled is not None
    assert hashed.sampled is not None
    assert 0 < plainly.sampled.sum() < 40
    assert np.array_equal(plainly.sampled, hashed.sampled)


def test_marks_survive_the_frame_and_stand_in_the_table() -> None:
    block = marked(a_batch("a", rows=4), sampling(1.0, 0.0))
    codes = np.array([0, 1, 2, 3], dtype=np.uint8)
    read = decode(encode(replace(block, sampled=codes)))
    assert isinstance(read, AnsweredBlock)
    assert read.sampled is not None
    assert read.sampled.tolist() == codes.tolist()
    # Another block of the same layout, of which no row is sampled, joins it in one table.
    (table,) = [each.table for each in segment_tables("s", [read, marked(a_batch("b"), LogSampling())])]
    assert plain(table).column(SAMPLED).to_pylist() == [*SAMPLES, None, None]


def test_a_frame_of_the_format_before_samples_has_none() -> None:
    block = marked(a_batch("a"), sampling(1.0, 0.0))
    document: dict[str, Any] = msgspec.msgpack.decode(encode(block))
    document["block"] = document["block"][:-1]
    old = decode(msgspec.msgpack.encode({**document, "format": 4}))
    assert isinstance(old, AnsweredBlock)
    assert old.sampled is None
    assert old.prediction_ids == block.prediction_ids


async def test_a_gateway_samples_what_the_routes_in_service_say_and_follows_their_change(tmp_path: Path) -> None:
    gateway = GatewayOverFakes.build(tmp_path)
    async with gateway.opened() as opened:
        follower = opened.follower
        await follower.refresh()
        await until(lambda: sample_shares(follower.state) == {ENDPOINT: SampleShares(0.01, 0.001)})
        (route,) = gateway.registry.table.routes
        policy = MonitoringPolicy(parity=ParityPolicy(entity_share=0.5, uniform_share=0.0))
        gateway.registry.table = RoutingTable((replace(route, monitoring=policy, version=route.version + 1),))
        await follower.refresh()
        await until(lambda: sample_shares(follower.state) == {ENDPOINT: SampleShares(0.5, 0.0)})


def test_a_reader_finds_what_was_sampled_beside_files_that_know_no_samples(tmp_path: Path) -> None:
    (new,) = (each for each in segment_tables("new", [marked(a_batch("new", rows=6), sampling(0.0, 0.5))]))
    (late,) = segment_tables("late", [marked(a_batch("late", as_of=NOW + MINUTE_US), sampling(1.0, 0.0))])
    (older,) = segment_tables("old", [marked(a_batch("old"), sampling(1.0, 1.0))])
    old = replace(older, columns="0" * 12, table=older.table.drop_columns([SAMPLED]))
    open_log_store(str(tmp_path)).append("writer", 1, [new, late, old])
    wanted = [row["prediction_id"] for row in plain(new.table).to_pylist() if row[SAMPLED]]
    assert 0 < len(wanted) < 6
    with open_log(None, str(tmp_path)) as log:
        found = [
            row["prediction_id"]
            for table in log.prediction_batches(ENDPOINT, apart=True, sampled=True)
            for row in table.to_pylist()
        ]
        assert sorted(found) == sorted([*wanted, "late-0", "late-1"])
        steps = log.sampled_steps(ENDPOINT, step_us=MINUTE_US).to_pylist()
        assert [(each["step"] * MINUTE_US, each["rows"]) for each in steps] == [
            (NOW, len(wanted)),
            (NOW + MINUTE_US, 2),
        ]
        assert log.sampled_steps(ENDPOINT, NOW + 1, step_us=MINUTE_US).num_rows == 1
        assert log.predictions(ENDPOINT).num_rows == 10
    assert new.kind == PREDICTIONS
