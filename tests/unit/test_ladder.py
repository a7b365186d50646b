"""What is answered while a part is away: the rung that the bundle allows, told and recorded, and never another."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.bundles import instance
from harness.ladders import AGE_MAX_S, LadderPlane, ladder_plane
from skewless.bundles.degrade_ladder import DegradeLadder
from skewless.column_table import beside
from skewless.errors import BundleRefused, DeadlineExceeded, Rejected, Unavailable
from skewless.features.frame import STATUS_CODES
from skewless.rollout.routes import Canary, Role
from skewless.serving.data_plane import Answer
from skewless.serving.log_blocks import AnsweredBlock, blocks, decode, encode
from skewless.serving.model_outputs import checked_outputs
from skewless.serving.receipt import receipt
from skewless.serving.records import AnsweredBatch
from skewless.serving.request import ReceiptLevel
from skewless.serving.rungs import RUNG_NAMES, Rung, joined, lowest

STORE_AWAY = Unavailable("online store", "gone")
SERVERS_AWAY = Unavailable("model backend", "gone")
NOTHING = DegradeLadder(last_known_s=0, in_process=False)
ALL = DegradeLadder(defaults=True, constant=0.25)


def only(answer: Answer) -> AnsweredBatch:
    ((batch, _),) = answer.parts
    return batch


def assert_replays(plane: LadderPlane, batch: AnsweredBatch) -> None:
    """The record as the log keeps it gives its tensor again, bit for bit, and the outputs of the model it asked."""
    kept = decode(encode(blocks([batch])[0]))
    assert isinstance(kept, AnsweredBlock)
    served = plane.live if batch.bundle == plane.live.digest else plane.live.fallback
    assert served is not None
    assert kept.bundle == served.digest
    tensor = served.transform.apply(beside(kept.given, kept.frame.columns, kept.rows), kept.rows)
    assert kept.tensor is not None
    assert tensor.tobytes() == kept.tensor.tobytes()
    outputs = kept.outputs["probabilities"]
    if kept.requests[0].rung == Rung.CONSTANT:
        assert np.isnan(outputs).all()
    else:
        assert plane.standby._models[served.model](tensor)["probabilities"].tobytes() == outputs.tobytes()
        assert served.post.apply(kept.outputs)[1].tobytes() == kept.probabilities.tobytes()


async def test_while_all_is_well_nothing_is_degraded(tmp_path: Path) -> None:
    plane = ladder_plane(tmp_path, ALL, fallback=True)
    answer = await plane.ask()
    assert (answer.rung, only(answer).rung, only(answer).reasons) == ("normal", "normal", ())
    assert only(answer).known_age_s is None
    assert_replays(plane, only(answer))


async def test_a_store_that_is_away_is_stood_in_for_by_what_was_last_read(tmp_path: Path) -> None:
    plane = ladder_plane(tmp_path, DegradeLadder())
    before = await plane.ask()
    plane.store.failure = STORE_AWAY
    plane.store.lose_tracking()
    plane.clock.now_s += 2 * AGE_MAX_S
    after = await plane.ask()
    assert after.rung == "last_known"
    assert after.probabilities.tobytes() == before.probabilities.tobytes()
    batch = only(after)
    assert batch.known_age_s == 2 * AGE_MAX_S
    assert batch.reasons == (STORE_AWAY.message,)
    assert {each.tobytes() for each in batch.frame.event_times.values()} == {
        each.tobytes() for each in only(before).frame.event_times.values()
    }, "ages and statuses are those of the rows, as if they had been read now"
    assert_replays(plane, batch)


async def test_what_was_read_too_long_ago_or_never_does_not_stand_in(tmp_path: Path) -> None:
    plane = ladder_plane(tmp_path, DegradeLadder(last_known_s=100))
    await plane.ask()
    plane.store.failure = STORE_AWAY
    plane.store.lose_tracking()
    with pytest.raises(Unavailable, match=r"online store.*gone"):
        await plane.ask(instance(origin="LGA"))
    plane.clock.now_s += 100.0
    assert (await plane.ask()).rung == "last_known"
    plane.clock.now_s += 0.001
    with pytest.raises(Unavailable, match=r"online store.*gone"):
        await plane.ask()


async def test_views_that_are_not_kept_near_have_no_last_known_features(tmp_path: Path) -> None:
    plane = ladder_plane(tmp_path, DegradeLadder(), near=False)
    await plane.ask()
    plane.store.failure = STORE_AWAY
    with pytest.raises(Unavailable, match="online store"):
        await plane.ask()


async def test_where_defaults_are_allowed_what_is_not_known_counts_as_missing(tmp_path: Path) -> None:
    plane = ladder_plane(tmp_path, DegradeLadder(defaults=True))
    await plane.ask()
    plane.store.failure = STORE_AWAY
    plane.store.lose_tracking()
    answer = await plane.ask(instance(), instance(origin="EWR", tailnum="N9"))
    batch = only(answer)
    assert answer.rung == "defaults", "the lower rung names the request"
    statuses = {name: [str(STATUS_CODES[code]) for code in codes] for name, codes in batch.frame.statuses.items()}
    assert statuses == {
        "weather__temp": ["ok", "missing"],
        "weather__wind_dir": ["ok", "default"],
        "aircraft__seats": ["ok", "missing"],
        "noise__level": ["ok", "ok"],
    }
    assert batch.frame.columns["weather__wind_dir"].values.tolist() == [270, 90]
    assert_replays(plane, batch)


async def test_a_policy_that_rejects_is_no_answer_of_the_store_and_the_request_is_refused_as_unavailable(
    tmp_path: Path,
) -> None:
    plane = ladder_plane(tmp_path, DegradeLadder(defaults=True), reject=True)
    with pytest.raises(Rejected):
        await plane.ask(instance(tailnum="N9"))
    plane.store.failure = STORE_AWAY
    plane.store.lose_tracking()
    with pytest.raises(Unavailable, match=r"online store.*gone"):
        await plane.ask(instance(tailnum="N9"))


async def test_servers_that_are_away_are_stood_in_for_by_the_same_model_in_this_process(tmp_path: Path) -> None:
    plane = ladder_plane(tmp_path, DegradeLadder())
    before = await plane.ask(instance(), instance(origin="LGA"))
    plane.backend.failure = SERVERS_AWAY
    after = await plane.ask(instance(), instance(origin="LGA"))
    assert after.rung == "in_process"
    assert after.probabilities.tobytes() == before.probabilities.tobytes()
    assert only(after).tensor.tobytes() == only(before).tensor.tobytes()
    assert_replays(plane, only(after))


async def test_features_and_model_may_both_be_degraded(tmp_path: Path) -> None:
    plane = ladder_plane(tmp_path, DegradeLadder())
    before = await plane.ask()
    plane.store.failure, plane.backend.failure = STORE_AWAY, SERVERS_AWAY
    plane.store.lose_tracking()
    after = await plane.ask()
    assert after.rung == "last_known+in_process"
    assert only(after).reasons == (STORE_AWAY.message, SERVERS_AWAY.message)
    assert after.probabilities.tobytes() == before.probabilities.tobytes()
    assert_replays(plane, only(after))


@pytest.mark.parametrize("away", ["store", "servers", "both"])
async def test_the_fallback_bundle_answers_where_the_live_one_cannot_and_is_named_in_the_record(
    tmp_path: Path, away: str
) -> None:
    plane = ladder_plane(tmp_path, NOTHING, fallback=True, stands_by=False)
    if away != "servers":
        plane.store.failure = STORE_AWAY
    if away != "store":
        plane.backend.failure = SERVERS_AWAY
    answer = await plane.ask(instance(), instance(distance=512.0))
    batch = only(answer)
    assert (answer.rung, batch.rung, batch.role) == ("fallback", "fallback", Role.LIVE)
    assert plane.live.fallback is not None
    assert batch.bundle == plane.live.fallback.digest
    assert batch.probabilities.tolist() == [(1089.5 + 2) * 2.0**-12, (512.0 + 2) * 2.0**-12]
    assert plane.log.batches[-1] is batch
    assert_replays(plane, batch)


@pytest.mark.parametrize("away", ["store", "servers"])
async def test_the_constant_is_answered_where_nothing_else_can_be_and_its_record_says_that_no_model_was_asked(
    tmp_path: Path, away: str
) -> None:
    plane = ladder_plane(tmp_path, replace(NOTHING, constant=0.75), reject=True)
    if away == "store":
        plane.store.failure = STORE_AWAY
    else:
        plane.backend.failure = SERVERS_AWAY
    answer = await plane.ask()
    assert (answer.rung, answer.probabilities.tolist(), answer.labels) == ("constant", [0.75], ["late"])
    assert_replays(plane, only(answer))


async def test_rungs_are_tried_from_the_best_down(tmp_path: Path) -> None:
    """With everything allowed, each failure costs one rung and no more."""
    plane = ladder_plane(tmp_path, ALL, fallback=True)
    plane.backend.failure = SERVERS_AWAY
    assert (await plane.ask()).rung == "in_process"
    del plane.standby._models[plane.live.model]
    assert (await plane.ask()).rung == "fallback"
    assert plane.live.fallback is not None
    del plane.standby._models[plane.live.fallback.model]
    answer = await plane.ask()
    assert (answer.rung, answer.probabilities.tolist()) == ("constant", [0.25])
    assert len(only(answer).reasons) == 3


async def test_what_a_bundle_does_not_allow_is_refused_as_it_was(tmp_path: Path) -> None:
    plane = ladder_plane(tmp_path, NOTHING)
    await plane.ask()
    plane.backend.failure = SERVERS_AWAY
    with pytest.raises(Unavailable) as servers:
        await plane.ask()
    assert servers.value is SERVERS_AWAY
    plane.backend.failure, plane.store.failure = None, STORE_AWAY
    plane.store.lose_tracking()
    with pytest.raises(Unavailable) as store:
        await plane.ask()
    assert store.value is STORE_AWAY
    assert len(plane.log.batches) == 1, "what is refused is no prediction"


async def test_an_answer_of_the_wrong_shape_is_no_answer(tmp_path: Path) -> None:
    def wrong(tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        given = {"probabilities": np.zeros((len(tensor), 3), np.float32)}
        return checked_outputs(plane.live.model, plane.live.signature, len(tensor), dict(given))

    plane = ladder_plane(tmp_path, DegradeLadder())
    expected = await plane.ask()
    plane.backend.repository[plane.live.model] = wrong
    answer = await plane.ask()
    assert (answer.rung, answer.probabilities.tobytes()) == ("in_process", expected.probabilities.tobytes())
    assert "its signature says float32 (1, 2)" in only(answer).reasons[0]
    refusing = ladder_plane(tmp_path / "other", NOTHING)
    refusing.backend.repository[refusing.live.model] = wrong
    with pytest.raises(Unavailable, match=r"model backend.*float32 \(1, 3\)") as caught:
        await refusing.ask()
    assert isinstance(caught.value.__cause__, BundleRefused), "never an internal error: the backend is at fault"


async def test_a_part_that_is_slow_leaves_time_for_a_lower_rung(tmp_path: Path) -> None:
    plane = ladder_plane(tmp_path, DegradeLadder())
    await plane.ask()
    plane.store.slow_s = plane.backend.slow_s = 60.0
    plane.store.lose_tracking()
    assert (await plane.ask(deadline_ms=2_000)).rung == "last_known+in_process"
    strict = ladder_plane(tmp_path / "other", NOTHING)
    strict.backend.slow_s = 60.0
    with pytest.raises(DeadlineExceeded):
        await strict.ask(deadline_ms=200)


async def test_whoever_has_no_time_left_is_not_answered_by_a_constant_either(tmp_path: Path) -> None:
    plane = ladder_plane(tmp_path, ALL, fallback=True)
    with pytest.raises(DeadlineExceeded):
        await plane.ask(deadline_ms=-1)


async def test_a_candidate_never_degrades_and_is_not_blamed_for_an_outage(tmp_path: Path) -> None:
    plane = ladder_plane(tmp_path, DegradeLadder())
    other = ladder_plane(tmp_path / "other", DegradeLadder(last_known_s=5))
    plane.route = replace(plane.route, canary=Canary(other.live.digest, share=0.5), sticky_by=("tailnum",))
    plane.candidates = {other.live.digest: replace(other.live, plan=plane.live.plan)}
    plane.backend.repository |= other.backend.repository
    plane.backend.loaded |= other.backend.loaded
    rows = [instance(tailnum=f"N{number}") for number in range(40)]
    before = await plane.ask(*rows)
    assert {batch.role for batch, _ in before.parts} == {"live", "canary"}
    plane.observer.told.clear()
    plane.backend.failure = SERVERS_AWAY
    degraded = await plane.ask(*rows)
    assert {(batch.role, batch.rung) for batch, _ in degraded.parts} == {("live", "in_process")}
    assert sum(batch.rows for batch, _ in degraded.parts) == 40
    assert plane.observer.told == [], "an outage of all says nothing about who answers"
    plane.backend.failure, plane.store.failure = None, STORE_AWAY
    plane.store.lose_tracking()
    recalled = await plane.ask(*rows)
    assert {(batch.role, batch.rung) for batch, _ in recalled.parts} == {("live", "last_known")}
    assert plane.observer.told == []
    plane.store.failure = None
    plane.backend.loaded.discard(other.live.model)
    await plane.ask(*rows)
    assert ("failed", "canary") in plane.observer.told, "what is the candidate's own fault is told"


def test_every_pair_of_rungs_has_a_name_and_names_have_an_order() -> None:
    assert len(set(RUNG_NAMES)) == len(RUNG_NAMES) == 10
    assert joined(Rung.DEFAULTS, Rung.FALLBACK) == "defaults+fallback"
    assert lowest(["constant", "normal"]) == "constant"
    assert lowest(["fallback", "defaults+in_process"]) == "fallback"


async def test_the_receipt_names_the_rung_why_and_how_old_the_features_are(tmp_path: Path) -> None:
    plane = ladder_plane(tmp_path, ALL)
    normal = receipt(ReceiptLevel.SUMMARY, (await plane.ask()).parts)
    assert normal is not None
    assert normal["rung"] == "normal"
    assert not {"reasons", "features_age_s"} & normal.keys()
    plane.store.failure = STORE_AWAY
    plane.store.lose_tracking()
    plane.clock.now_s += 12.5
    degraded = receipt(ReceiptLevel.SUMMARY, (await plane.ask()).parts)
    assert degraded is not None
    assert (degraded["rung"], degraded["reasons"]) == ("last_known", [STORE_AWAY.message])
    assert degraded["features_age_s"] == 12.5
    plane.backend.failure = SERVERS_AWAY
    plane.standby._models.clear()
    lowest_of_all = receipt(ReceiptLevel.SUMMARY, (await plane.ask(instance(origin="EWR"))).parts)
    assert lowest_of_all is not None
    assert lowest_of_all["rung"] == "constant"
    assert len(lowest_of_all["reasons"]) == 3
