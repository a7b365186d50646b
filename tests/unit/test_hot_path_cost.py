"""What a prediction request costs, counted in calls of functions: the same on every machine, however busy it is."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from harness.asgi_calls import application_of, ask
from harness.bundles import instance
from harness.fakes import FakeOnlineStore
from harness.gateways import ENDPOINT, GatewayOverFakes
from skewless.features.online_store import Reply
from skewless_http.http_message import Application

CALLS_MAX = 560
"""Of Python and C functions for a request of one row. It was 1,010 before there was a front door."""
CALLS_PER_ROW_MAX = 12
"""For each further row."""
REQUESTS = 50
HEAVY = ("aiohttp", "duckdb", "feast", "onnxruntime", "pandas", "pyarrow", "sklearn", "torch", "tritonclient.http")


class KnownReplies(FakeOnlineStore):
    """Remembers its answers, so that the fake's own work is not counted as the gateway's."""

    def __init__(self, hashes: Any) -> None:
        super().__init__(hashes)
        self._known: dict[bytes, Reply] = {}

    async def read(self, keys: Any, commands: Any, *, timeout_s: float) -> list[Reply]:
        known = self._known
        if not known.keys() >= set(commands):
            known.update(zip(commands, await super().read(keys, commands, timeout_s=timeout_s), strict=True))
        return [known[command] for command in commands]


async def calls_of(application: Application, rows: int) -> float:
    """Calls of functions per request, once everything is prepared."""
    body = json.dumps({"instances": [instance()] * rows}).encode()

    async def send() -> None:
        answer = await ask(application, "POST", f"/v1/endpoints/{ENDPOINT}/predict", body)
        assert answer is not None
        assert answer.status == 200

    for _ in range(5):
        await send()
    counted: Counter[str] = Counter()

    def count(_frame: FrameType, event: str, _arg: object) -> None:
        counted[event] += 1

    before: Callable[..., Any] | None = sys.getprofile()
    sys.setprofile(count)
    try:
        for _ in range(REQUESTS):
            await send()
    finally:
        sys.setprofile(before)
    return (counted["call"] + counted["c_call"]) / REQUESTS


async def test_a_request_makes_no_more_calls_than_it_has_to(tmp_path: Path) -> None:
    gateway = GatewayOverFakes.build(tmp_path)
    gateway.store = KnownReplies(gateway.store.hashes)
    async with application_of(gateway) as application:
        one = await calls_of(application, 1)
        hundred = await calls_of(application, 100)

    assert one <= CALLS_MAX, f"{one:.0f} calls for one row; what was added to every request?"
    each = (hundred - one) / 99
    assert each <= CALLS_PER_ROW_MAX, f"{each:.1f} calls for each further row; what is done row by row?"


@pytest.mark.parametrize("module", ["skewless_gateway.routes", "skewless_gateway.composition"])
def test_the_gateway_loads_nothing_heavy_to_answer_predictions(module: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    loaded = set(told.stdout.split())
    assert not loaded.intersection(HEAVY), f"imported where it is used, or not at all: {loaded.intersection(HEAVY)}"
