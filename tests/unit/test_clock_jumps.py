"""The wall clock jumps, as after a broken time server: what is asked by it changes, and nothing else does.

Which features are visible is a question to the wall clock; how long a request may take, and how old what is kept near
may be, never is.
"""

import time
from pathlib import Path

import pytest

from harness.bundles import flights_at, instance
from harness.fakes import FakeModelBackend, FakeOnlineStore, MemoryPredictionLog
from harness.gateways import ENDPOINT, NOW
from harness.ladders import SecondsClock, Silent, ladder_content, outputs_of, written
from skewless.bundles.degrade_ladder import DegradeLadder
from skewless.bundles.model_repository import model_name
from skewless.features.frame import STATUS_CODES
from skewless.features.near_cache import NearCache
from skewless.features.reader import FeatureReads
from skewless.rollout.routes import Route
from skewless.serving.data_plane import Answer, DataPlane
from skewless.serving.deadline import Deadline
from skewless.serving.request import read_request
from skewless.serving.served_bundle import prepare_bundle
from skewless.serving.served_route import ServedRoute
from skewless.serving.shadows import Shadows
from skewless.timestamps import HOUR_US, SECOND_US, Micros
from skewless_gateway.composition import new_prediction_id

DAY_US = 24 * HOUR_US
DEADLINE_MS = 5_000
NEAR_AGE_S = 60.0
JUMPS = {
    -DAY_US: "missing",
    -2 * HOUR_US: "missing",
    -SECOND_US: "ok",
    SECOND_US: "ok",
    2 * HOUR_US: "ok",
    5 * HOUR_US: "stale",
    365 * DAY_US: "stale",
}
"""By how far the clock jumps: what becomes of weather that is an hour old and good for four."""


class WallClock:
    """Says what a test wants."""

    def __init__(self) -> None:
        self.now = Micros(NOW)

    def __call__(self) -> Micros:
        return self.now


class JumpingPlane:
    """A data plane over fakes under a wall clock that a test moves; deadlines and the near cache have clocks of their
    own, which no jump touches."""

    def __init__(self, folder: Path) -> None:
        self.wall = WallClock()
        bundle = written(ladder_content(DegradeLadder(), near=True), folder)
        self.served = prepare_bundle(bundle, model_name(bundle.digest))
        backend = FakeModelBackend({self.served.model: lambda tensor: dict(outputs_of(bundle)(tensor))})
        backend.loaded.add(self.served.model)
        self.store, self.log = FakeOnlineStore(flights_at(NOW)), MemoryPredictionLog()
        self.near_clock = SecondsClock()
        near = NearCache(self.store, bytes_max=1_000_000, age_max_s=NEAR_AGE_S, clock=self.near_clock)
        features = FeatureReads(self.store, near_cache=near, rows_max=1_024, flushes_max=2, rows_waiting_max=10_000)
        observer = Silent()
        shadows = Shadows(
            features, backend, self.log, clock=time.monotonic_ns, new_id=new_prediction_id, observer=observer
        )
        self.plane = DataPlane(
            features,
            backend,
            self.log,
            now=self.wall,
            new_id=new_prediction_id,
            observer=observer,
            shadows=shadows,
        )
        self.route = ServedRoute(Route(ENDPOINT, "Late?", bundle.digest), self.served, {})

    async def ask(self) -> Answer:
        request = read_request({"instances": [instance()]}, self.served.validator, as_of_allowed=False)
        deadline = Deadline(time.monotonic_ns, started_ns=time.monotonic_ns(), deadline_ms=DEADLINE_MS)
        return await self.plane.predict(self.route, request, deadline=deadline, request_id="r")


def weather_status(answer: Answer) -> str:
    """How the weather's temperature was served."""
    ((batch, _),) = answer.parts
    return str(STATUS_CODES[int(batch.frame.statuses["weather__temp"][0])])


@pytest.mark.parametrize(("jump_us", "status"), JUMPS.items())
async def test_a_jump_changes_what_is_visible_and_no_deadline_and_is_over_when_it_is_undone(
    tmp_path: Path, jump_us: int, status: str
) -> None:
    plane = JumpingPlane(tmp_path)
    before = await plane.ask()
    assert weather_status(before) == "ok"
    plane.wall.now = Micros(NOW + jump_us)
    during = await plane.ask()
    assert weather_status(during) == status
    assert during.rung == "normal"
    assert during.deadline.total_ms() < DEADLINE_MS
    assert plane.log.batches[-1].as_of == NOW + jump_us
    plane.wall.now = Micros(NOW)
    after = await plane.ask()
    assert after.rung == "normal"
    assert after.probabilities.tobytes() == before.probabilities.tobytes()
    ids = [batch.prediction_ids[0] for batch in plane.log.batches]
    assert len(set(ids)) == len(ids) == 3


async def test_what_is_kept_near_is_neither_thrown_away_nor_kept_for_ever_by_a_jump(tmp_path: Path) -> None:
    plane = JumpingPlane(tmp_path)
    await plane.ask()
    reads = len(plane.store.reads)
    for jump_us in JUMPS:
        plane.wall.now = Micros(NOW + jump_us)
        await plane.ask()
    assert len(plane.store.reads) == reads, "a jump of the wall clock is no reason to read again"
    plane.near_clock.now_s += 2 * NEAR_AGE_S
    await plane.ask()
    assert len(plane.store.reads) > reads, "a minute that has passed is one"
