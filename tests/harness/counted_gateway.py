"""A gateway as shipped, in a thread of this process, over real servers, with its work counted."""

import asyncio
import http.client
import json
import shutil
import statistics
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import redis
import uvloop

from harness.bundles import BuiltBundle, build_bundle, flights_at, instance
from harness.gateways import ENDPOINT
from harness.instruction_counts import Cost, InstructionCounter, added
from harness.servers import ValkeyServer, wait_until
from skewless.bundles.model_repository import deploy
from skewless.registry.database import engine
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry
from skewless.stack.ports import LOOPBACK
from skewless.timestamps import Micros
from skewless_gateway.settings import GatewaySettings
from skewless_gateway.worker import GatewayProcess
from skewless_http.lifecycle import Lifecycle
from skewless_http.listening import open_listener

WARM_UP = 10
REQUESTS = 41
"""Of which the median is told: now and then a request meets a round of something that is done once a second."""
PATIENCE_S = 120.0
_T = TypeVar("_T")
# The longest prefix counts; what a module of somebody else does is its caller's.
_STAGES = {
    "skewless_http.": "server",
    "skewless_gateway.asgi": "server",
    "skewless_gateway.app": "server",
    "skewless_http.security.": "admission",
    "skewless_gateway.admission": "admission",
    "skewless.serving.concurrency_limit": "admission",
    "skewless.serving.fair_queue": "admission",
    "skewless.serving.recent_low": "admission",
    "skewless.features.": "features",
    "skewless.adapters.redis_": "features",
    "skewless.coalescing": "features",
    "skewless.serving.guarded_store": "features",
    "skewless.transforms.": "transform",
    "skewless.adapters.": "model",
    "skewless.serving.in_process": "model",
    "skewless.serving.replica": "model",
    "skewless.serving.scoring": "model",
    "skewless.serving.shared_calls": "model",
    "skewless.adapters.prediction_log": "log",
    "skewless.serving.log_": "log",
    "skewless.serving.records": "log",
    "skewless_gateway.": "handling",
    "skewless.": "handling",
}
STAGES = frozenset(_STAGES.values())


def stage_of(module: str) -> str | None:
    """The stage of a request in which a module of ours works."""
    fitting = [prefix for prefix in _STAGES if module.startswith(prefix)]
    return _STAGES[max(fitting, key=len)] if fitting else None


@dataclass(frozen=True, slots=True)
class CountedGateway:
    """A gateway that answers in the thread of `loop`."""

    loop: asyncio.AbstractEventLoop
    port: int

    def costs_of(self, rows: int) -> dict[str, Cost]:
        """What a request of so many rows costs each stage, once everything is prepared."""
        body = json.dumps({"instances": [instance()] * rows}).encode()
        connection = http.client.HTTPConnection(LOOPBACK, self.port)
        counter = InstructionCounter(stage_of)
        try:
            wait_until(lambda: _status(connection, body) == http.client.OK, "the endpoint answers")
            for _ in range(WARM_UP):
                assert _status(connection, body) == http.client.OK
            self._call(counter.start)
            found = [self._cost(counter, connection, body) for _ in range(REQUESTS)]
            self._call(counter.stop)
        finally:
            connection.close()
        return {stage: _median([each[stage] for each in found if stage in each]) for stage in found[-1]}

    def _cost(
        self, counter: InstructionCounter, connection: http.client.HTTPConnection, body: bytes
    ) -> dict[str, Cost]:
        before = self._call(counter.costs)
        assert _status(connection, body) == http.client.OK
        # An answer is sent before all is done that it causes: one turn of the event loop later it is.
        self._call(counter.costs)
        return added(before, self._call(counter.costs))

    def _call(self, function: Any) -> Any:
        """What a function returns in the event loop's thread."""

        async def call() -> Any:
            return function()

        return _result(self.loop, call())


@contextmanager
def counted_gateway(
    folder: Path, *, valkey: ValkeyServer, registry: Path, model_server: str, models: Path
) -> Iterator[CountedGateway]:
    """Everything as shipped but for callers' keys. `registry` is copied; `models` is where the model server looks."""
    (folder / "artifacts").mkdir(parents=True)
    database_url = f"sqlite:///{shutil.copy(registry, folder / 'registry.db')}"
    _publish(build_bundle(folder / "artifacts"), database_url, models)
    with redis.Redis(port=valkey.port) as client:
        for key, fields in flights_at(time.time_ns() // 1_000).items():
            client.hset(key, mapping={**fields})
    given: dict[str, Any] = {
        "online_store": valkey.url,
        "triton": model_server,
        "database_url": database_url,
        "artifacts": str(folder / "artifacts"),
        "prediction_log": folder / "predictions",
        "development": True,
    }
    settings = GatewaySettings(**given)
    listener = open_listener(LOOPBACK, 0, variable="SKEWLESS_GATEWAY_PORT")
    port = listener.getsockname()[1]
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="counted-gateway", daemon=True)
    thread.start()
    lifecycle = Lifecycle()

    async def opened() -> GatewayProcess:
        process = GatewayProcess(settings, listener, lifecycle)
        await process.server.open()
        process.server.listen()
        return process

    try:
        process = _result(loop, opened())
        yield CountedGateway(loop, port)
        lifecycle.stop.set()
        _result(loop, process.run())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE_S)
        loop.close()


def _publish(built: BuiltBundle, database_url: str, models: Path) -> None:
    deploy(built.folder, built.digest, models)
    registry = Registry(engine(database_url))
    registry.register_bundle(BundleRecord.of(built.bundle, artifact=built.digest, created_time=Micros(0)))
    registry.create_endpoint(ENDPOINT, description="", bundle=built.digest, actor="test", reason="test")
    registry.close()


def _status(connection: http.client.HTTPConnection, body: bytes) -> int:
    """Of the answer to a request for predictions on a kept connection."""
    headers = {"content-type": "application/json"}
    connection.request("POST", f"/v1/endpoints/{ENDPOINT}/predict", body, headers)
    response = connection.getresponse()
    response.read()
    return response.status


def _result(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, _T]) -> _T:
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result(PATIENCE_S)


def _median(costs: list[Cost]) -> Cost:
    return Cost(*(int(statistics.median_low(numbers)) for numbers in zip(*costs, strict=True)))
