"""Two thousand requests, a hundred at once, over three endpoints: each answer is the one that its rows have alone."""

import asyncio
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.asgi_calls import application_of, ask
from harness.bundles import ORIGIN, STATION, TAILNUM, Hashes, build_bundle, instance, merged, stored, transform
from harness.fakes import FakeModelBackend, FakeOnlineStore
from harness.gateways import NOW, GatewayOverFakes, route_to
from skewless.features.online_store import Reply
from skewless.limits import MODEL_CALLS_MAX, ROWS_MAX, ROWS_WAITING_MAX
from skewless.rollout.routes import RoutingTable
from skewless.serving.shared_calls import SharedCalls
from skewless.timestamps import SECOND_US
from skewless_http.http_message import Application

REQUESTS = 2_000
ENDPOINTS = {"first": 2.0**-13, "second": 2.0**-14, "third": 2.0**-15}
ENTITIES = 40
AT_ONCE = 100
LEVEL = transform().output_names.index("level")


class UnhurriedStore(FakeOnlineStore):
    """Answers in a later turn of the loop, so that requests wait together."""

    async def read(self, keys: Any, commands: Any, *, timeout_s: float) -> list[Reply]:
        for _ in range(3):
            await asyncio.sleep(0)
        return await super().read(keys, commands, timeout_s=timeout_s)


class UnhurriedModels(FakeModelBackend):
    """As the store."""

    async def infer(self, *given: Any, timeout_s: float) -> dict[str, NDArray[np.float32]]:
        for _ in range(3):
            await asyncio.sleep(0)
        return await super().infer(*given, timeout_s=timeout_s)


class SharedModels(FakeModelBackend):
    """Models of which requests share calls, as in a gateway."""

    def __init__(self, repository: Any) -> None:
        super().__init__(repository)
        self.alone = UnhurriedModels({})
        self.alone.repository, self.alone.loaded = self.repository, self.loaded
        self._shared = SharedCalls(
            self.alone, rows_max=lambda _model: ROWS_MAX, calls_max=MODEL_CALLS_MAX, rows_waiting_max=ROWS_WAITING_MAX
        )

    async def infer(self, *given: Any, timeout_s: float) -> dict[str, NDArray[np.float32]]:
        return await self._shared.infer(*given, timeout_s=timeout_s)


def features() -> Hashes:
    """Entities whose values all differ; some are stale, missing or null."""
    parts: list[Hashes] = []
    for number in range(ENTITIES):
        age_us = (number * 700) * SECOND_US
        if number % 7:
            weather = {"temp": number / 4, "wind_dir": None if number % 5 == 0 else number}
            parts.append(stored((ORIGIN,), (f"O{number}",), "weather", NOW - age_us, weather))
        parts.append(stored((TAILNUM,), (f"N{number}",), "aircraft", NOW - age_us, {"seats": 100 + number}))
        parts.append(stored((STATION,), (number,), "noise", NOW - age_us, {"level": number / 8}))
    return merged(*parts)


def a_request(generator: random.Random) -> tuple[str, list[dict[str, object]]]:
    """An endpoint, and one to four rows; most have one."""

    def row() -> dict[str, object]:
        return instance(
            origin=f"O{generator.randrange(ENTITIES + 5)}",
            tailnum=generator.choice([None, f"N{generator.randrange(ENTITIES)}"]),
            station=generator.randrange(ENTITIES),
            distance=generator.choice([None, float(generator.randrange(3_000))]),
            party=generator.randrange(9),
        )

    rows = generator.choice([1, 1, 1, 1, 2, 4])
    return generator.choice(list(ENDPOINTS)), [row() for _ in range(rows)]


async def answer(application: Application, endpoint: str, rows: list[dict[str, object]]) -> dict[str, Any]:
    """What the request is answered, without what differs from call to call."""
    body = json.dumps({"instances": rows, "options": {"deadline_ms": 10_000}}).encode()
    answered = await ask(application, "POST", f"/v1/endpoints/{endpoint}/predict", body)
    assert answered is not None
    assert answered.status == 200, answered.body
    told: dict[str, Any] = answered.json()
    del told["prediction_ids"], told["receipt"]["timings_ms"]
    return told


async def test_no_answer_is_anothers_however_requests_share_reads_and_calls(tmp_path: Path) -> None:
    gateway = GatewayOverFakes.build(tmp_path)
    gateway.store = UnhurriedStore(features())
    gateway.backend = models = SharedModels(gateway.backend.repository)
    routes = []
    for endpoint, scale in ENDPOINTS.items():
        built = build_bundle(gateway.artifacts, scale=scale)
        gateway.deploy(built)
        routes.append(replace(route_to(built), endpoint=endpoint))
    gateway.registry.table = RoutingTable(tuple(routes))
    gateway.queue_ms = 10_000  # nobody is turned away
    generator = random.Random(20_240_101)
    asked = [a_request(generator) for _ in range(REQUESTS)]
    async with application_of(gateway) as application:
        alone = {place: await answer(application, *asked[place]) for place in range(0, REQUESTS, 10)}
        reads, calls = len(gateway.store.reads), models.alone.calls
        turns = asyncio.Semaphore(AT_ONCE)

        async def in_turn(endpoint: str, rows: list[dict[str, object]]) -> dict[str, Any]:
            async with turns:
                return await answer(application, endpoint, rows)

        together = await asyncio.gather(*(in_turn(*each) for each in asked))
        assert len(gateway.store.reads) - reads < REQUESTS / 2, "they shared reads"
        assert models.alone.calls - calls < REQUESTS / 2, "they shared calls"
    for place, expected in alone.items():
        assert together[place] == expected, asked[place]
    for (endpoint, rows), told in zip(asked, together, strict=True):
        assert told["receipt"]["endpoint"] == endpoint
        assert len(told["predictions"]) == len(rows)
    logged = [each for batch in gateway.log.batches for each in batch.prediction_ids]
    assert (
        len(logged)
        == len(set(logged))
        == sum(len(rows) for _, rows in asked) + sum(len(asked[place][1]) for place in alone)
    )
    for batch in gateway.log.batches:
        level = batch.tensor[:, LEVEL] * 8  # of the station that was asked for, in eighths as it is stored
        assert level.tolist() == batch.given["station"].values.tolist()
        score = batch.tensor.sum(axis=1, dtype=np.float64) * ENDPOINTS[batch.endpoint]
        assert batch.probabilities.tolist() == np.clip(score, 0, 1).astype(np.float32).tolist()
