"""The data plane without HTTP: deadlines beside each other, rows taken out of frames, shadows that must wait."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.bundles import BuiltBundle, build_bundle, contract, flights_at, instance
from harness.fakes import FakeModelBackend, FakeOnlineStore, MemoryPredictionLog
from harness.gateways import NOW, route_to
from skewless.bundles.model_repository import model_name
from skewless.dtypes import Dtype
from skewless.features.contract import FeatureContract, RequestField
from skewless.features.reader import FeatureReads
from skewless.limits import FLUSH_ROWS_MAX, FLUSHES_MAX, ROWS_WAITING_MAX
from skewless.rollout.routes import Role, Shadow
from skewless.serving.data_plane import DataPlane
from skewless.serving.deadline import Deadline
from skewless.serving.frame_rows import frame_at
from skewless.serving.instance_fit import misfits
from skewless.serving.ports import ModelSignature
from skewless.serving.request import read_request
from skewless.serving.served_bundle import prepare_bundle
from skewless.serving.served_route import ServedRoute
from skewless.serving.shadows import Shadows
from skewless.serving.tallies import Tallies
from skewless_gateway.composition import new_prediction_id
from skewless_gateway.metrics import GatewayMetrics
from skewless_gateway.role_watch import RoleWatch


def test_a_request_waits_for_its_slowest_branch_and_books_its_laps() -> None:
    moments = iter([1, 3, 4, 9, 12])
    deadline = Deadline(lambda: next(moments) * 1_000_000, started_ns=0, deadline_ms=100)
    deadline.lap("validate")
    quick, slow = deadline.branch(), deadline.branch()
    quick.lap("model")
    slow.lap("transform")
    slow.lap("model")
    deadline.join([quick, slow])
    deadline.lap("log")
    assert deadline.laps_ms == {"validate": 1.0, "transform": 3.0, "model": 5.0, "log": 3.0}
    assert deadline.total_ms() == sum(deadline.laps_ms.values()) == 12.0


def _with_fields(*fields: RequestField) -> FeatureContract:
    return replace(contract(), request_fields=fields)


PARTY = RequestField("party", Dtype.INT32)


@pytest.mark.parametrize(
    ("asked", "candidate", "said"),
    [
        ((PARTY,), (PARTY,), ""),
        ((PARTY, RequestField("more", Dtype.BOOL)), (PARTY,), ""),
        ((PARTY,), (replace(PARTY, nullable=True),), ""),
        ((replace(PARTY, nullable=True),), (PARTY,), "takes no null in request field `party`"),
        (
            (PARTY,),
            (RequestField("party", Dtype.INT64),),
            "takes request field `party` as `int64`, callers send `int32`",
        ),
        ((PARTY,), (PARTY, RequestField("more", Dtype.BOOL)), "needs request field `more`"),
    ],
)
def test_a_candidate_fits_where_it_can_be_asked_what_callers_send(
    asked: tuple[RequestField, ...], candidate: tuple[RequestField, ...], said: str
) -> None:
    reasons = misfits(_with_fields(*asked), _with_fields(*candidate))
    assert len(reasons) == bool(said)
    assert said in " ".join(reasons)


class HeldBackend(FakeModelBackend):
    """A model backend in which one model answers only when it is let go."""

    def __init__(self, bundles: tuple[BuiltBundle, ...], held: str) -> None:
        super().__init__({model_name(each.digest): each.outputs for each in bundles})
        self.loaded.update(self.repository)
        self.held = held
        self.let_go = asyncio.Event()

    async def infer(
        self, model: str, signature: ModelSignature, tensor: NDArray[np.float32], *, timeout_s: float
    ) -> dict[str, NDArray[np.float32]]:
        if model == self.held:
            await self.let_go.wait()
        return await super().infer(model, signature, tensor, timeout_s=timeout_s)


@dataclass
class Plane:
    """A data plane over fakes whose shadow is held, and all it tells."""

    plane: DataPlane
    shadows: Shadows
    serving: ServedRoute
    backend: HeldBackend
    tallies: Tallies
    log: MemoryPredictionLog

    def of_the_shadow(self) -> tuple[int, int, int]:
        """Rows that it scored, rows that were dropped, and requests that failed, since this was asked last."""
        own = [each for each in self.tallies.take(NOW) if each.role is Role.SHADOW]
        counts = (each.counts.errors for each in own)
        return sum(each.rows for each in own), sum(each.dropped_rows for each in own), sum(counts)

    async def ask(self, rows: int) -> None:
        body = {"instances": [instance(tailnum=f"N{row}") for row in range(rows)]}
        request = read_request(body, self.serving.live.validator, as_of_allowed=False)
        deadline = Deadline(time.monotonic_ns, started_ns=time.monotonic_ns(), deadline_ms=5_000)
        await self.plane.predict(self.serving, request, deadline=deadline, request_id="r")
        await asyncio.sleep(0)  # what is mirrored is taken once the answer is on its way


@asynccontextmanager
async def mirrored_plane(folder: Path, *, rows_waiting_max: int) -> AsyncIterator[Plane]:
    live, shadow = build_bundle(folder), build_bundle(folder, scale=2.0**-13)
    backend = HeldBackend((live, shadow), held=model_name(shadow.digest))
    features = FeatureReads(
        FakeOnlineStore(flights_at(NOW)),
        near_cache=None,
        rows_max=FLUSH_ROWS_MAX,
        flushes_max=FLUSHES_MAX,
        rows_waiting_max=ROWS_WAITING_MAX,
    )
    log, tallies = MemoryPredictionLog(), Tallies(NOW)
    watch = RoleWatch(GatewayMetrics().roles, tallies, wake=lambda: None)
    shadows = Shadows(
        features, backend, log, clock=time.monotonic_ns, new_id=new_prediction_id, observer=watch,
        rows_waiting_max=rows_waiting_max,
    )  # fmt: skip
    plane = DataPlane(
        features, backend, log, now=lambda: NOW, new_id=new_prediction_id, observer=watch, shadows=shadows
    )
    answering = prepare_bundle(live.bundle, model_name(live.digest))
    serving = ServedRoute(
        replace(route_to(live), shadow=Shadow(shadow.digest)),
        answering,
        shadow=prepare_bundle(shadow.bundle, model_name(shadow.digest), plan=answering.plan),
    )
    task = asyncio.create_task(shadows.run())
    try:
        yield Plane(plane, shadows, serving, backend, tallies, log)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_what_a_slow_shadow_cannot_take_is_dropped_and_counted_and_nobody_waits(tmp_path: Path) -> None:
    async with mirrored_plane(tmp_path, rows_waiting_max=20) as plane:
        for _ in range(10):
            await plane.ask(5)
        assert [batch.role for batch in plane.log.batches] == ["live"] * 10
        plane.backend.let_go.set()
        await plane.shadows.settled()
        # Four requests of five rows are as many as may wait.
        assert plane.of_the_shadow() == (20, 30, 0)
        await plane.ask(5)
        await plane.shadows.settled()
        assert plane.of_the_shadow() == (5, 0, 0)


async def test_rows_taken_out_of_a_frame_are_those_rows_in_the_same_layout(tmp_path: Path) -> None:
    async with mirrored_plane(tmp_path, rows_waiting_max=0) as plane:
        await plane.ask(6)
        (batch,) = plane.log.batches
        rows = np.array([1, 4, 5])
        taken = frame_at(batch.frame, rows)
        assert taken.rows == 3
        for name, column in taken.columns.items():
            assert column.values.tolist() == batch.frame.columns[name].values[rows].tolist()
            assert column.values.flags.c_contiguous
            assert taken.statuses[name].tolist() == batch.frame.statuses[name][rows].tolist()
        for view, times in taken.event_times.items():
            assert times.tolist() == batch.frame.event_times[view][rows].tolist()
