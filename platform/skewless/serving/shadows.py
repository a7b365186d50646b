"""Shadows: bundles that score what live has answered, after the answer, and answer nobody.

    offer    takes what live answered          (bounded: when too much waits, it is dropped and counted)
    mirror   which of its rows are mirrored; the same frame where the shadow reads what live reads, else a read of its
             own at the same `as_of`
    score    transform, model, post-processing of the shadow's bundle
    log      a record with role `shadow`, beside the id of its live twin

Nothing here can delay or fail a caller by more than the time that the event loop gives to a background task.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from skewless.column_table import beside
from skewless.features.frame import FeatureFrame
from skewless.limits import (
    MODEL_TIMEOUT_S,
    ONLINE_STORE_TIMEOUT_S,
    SHADOW_ROWS_WAITING_MAX,
    SHADOWS_RUNNING_MAX,
)
from skewless.rollout.routes import Role
from skewless.serving.deadline import Deadline, MonotonicClock
from skewless.serving.frame_rows import Rows, columns_at, frame_at
from skewless.serving.ports import FeatureReader, ModelBackend, PredictionLog, RoleObserver
from skewless.serving.records import AnsweredBatch
from skewless.serving.served_bundle import ServedBundle
from skewless.serving.served_route import ServedRoute

_DEADLINE_MS = int((ONLINE_STORE_TIMEOUT_S + MODEL_TIMEOUT_S) * 1_000)


@dataclass(frozen=True, slots=True)
class Mirror:
    """What live answered. `stored` is what it read, before on-demand features."""

    serving: ServedRoute
    batch: AnsweredBatch
    stored: FeatureFrame


class Shadows:
    """Scores mirrored requests in the background of one event loop, at most SHADOWS_RUNNING_MAX at once."""

    def __init__(
        self,
        features: FeatureReader,
        backend: ModelBackend,
        log: PredictionLog,
        *,
        clock: MonotonicClock,
        new_id: Callable[[], str],
        observer: RoleObserver,
        rows_waiting_max: int = SHADOW_ROWS_WAITING_MAX,
    ) -> None:
        self._features = features
        self._backend = backend
        self._log = log
        self._clock = clock
        self._new_id = new_id
        self._observer = observer
        self._rows_waiting_max = rows_waiting_max
        self._rows_waiting = 0
        self._waiting: asyncio.Queue[tuple[Mirror, Rows]] = asyncio.Queue()

    def offer(self, mirror: Mirror) -> None:
        """Take what was answered, once the answer is on its way."""
        asyncio.get_running_loop().call_soon(self._take, mirror)

    async def run(self) -> None:
        """Score until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(SHADOWS_RUNNING_MAX):
                group.create_task(self._work())

    async def settled(self) -> None:
        """Return when all that was taken is scored or given up."""
        await self._waiting.join()

    def _take(self, mirror: Mirror) -> None:
        serving, batch = mirror.serving, mirror.batch
        assert serving.shadow is not None, "only mirrored routes are offered"
        rows = serving.mirrored(batch.given, batch.rows)
        if not len(rows):
            return
        if self._rows_waiting + len(rows) > self._rows_waiting_max:
            self._observer.dropped(serving.endpoint, serving.shadow.digest, rows=len(rows))
            return
        self._rows_waiting += len(rows)
        self._waiting.put_nowait((mirror, rows))

    async def _work(self) -> None:
        while True:
            mirror, rows = await self._waiting.get()
            try:
                await self._score(mirror, rows)
            except Exception as error:  # noqa: BLE001  # a task's boundary: what a shadow raises is its own, and told
                shadow = mirror.serving.shadow
                assert shadow is not None, "only mirrored routes are offered"
                self._observer.failed(
                    mirror.serving.endpoint,
                    Role.SHADOW,
                    "",
                    shadow.digest,
                    rows=len(rows),
                    error=error,
                    beside=mirror.batch.bundle,
                )
            finally:
                self._rows_waiting -= len(rows)
                self._waiting.task_done()

    async def _score(self, mirror: Mirror, rows: Rows) -> None:
        served, live = mirror.serving.shadow, mirror.batch
        assert served is not None, "only mirrored routes are offered"
        deadline = Deadline(self._clock, started_ns=self._clock(), deadline_ms=_DEADLINE_MS)
        columns = columns_at(live.given, served.field_names, rows)
        stored = await self._stored(mirror, served, rows)
        frame = served.on_demand.extend(stored, columns)
        deadline.lap("features")
        tensor = served.transform.apply(beside(columns, frame.columns, frame.rows), frame.rows)
        deadline.lap("transform")
        outputs = await self._backend.infer(served.model, served.signature, tensor, timeout_s=served.call_timeout_s)
        labels, probabilities = served.post.apply(outputs)
        deadline.lap("model")
        positions = rows if live.positions is None else live.positions[rows]
        shadow = AnsweredBatch(
            endpoint=live.endpoint,
            bundle=served.digest,
            role=Role.SHADOW,
            rung=live.rung,
            request_id=live.request_id,
            as_of=live.as_of,
            prediction_ids=[self._new_id() for _ in range(len(rows))],
            key_names=served.key_names,
            given=columns,
            frame=frame,
            tensor=tensor,
            outputs=outputs,
            labels=labels,
            probabilities=probabilities,
            stage_ms=dict(deadline.laps_ms),
            positions=positions,
            twins=[live.prediction_ids[row] for row in rows.tolist()],
            caller=live.caller,
            marks=served.log_marks,
        )
        self._log.append(shadow)
        self._observer.mirrored(shadow, live, rows)

    async def _stored(self, mirror: Mirror, served: ServedBundle, rows: Rows) -> FeatureFrame:
        live = mirror.batch
        if served.plan is mirror.serving.live.plan:
            return frame_at(mirror.stored, rows)
        columns = columns_at(live.given, served.key_names, rows)
        return await self._features.read(served.plan, columns, len(rows), live.as_of, timeout_s=ONLINE_STORE_TIMEOUT_S)
