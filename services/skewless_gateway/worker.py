"""One gateway process that answers: alone (`run_alone`), or as a worker of a parent (`python -m` this module).

Asked to stop, it goes through these steps, and loses no request on the way:

    draining       /readyz answers 503 and each answer closes its connection, for `drain_delay_s`
    not listening  what was accepted is answered, for up to `drain_s`
    closing        the log is flushed and sealed, connections to other servers are closed
"""

import asyncio
import faulthandler
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import uvloop

from skewless.errors import SkewlessError, Unavailable
from skewless.limits import WORKER_BEAT_S, WORKER_CLOSE_S
from skewless_gateway.admin_server import admin_server
from skewless_gateway.app import create_app
from skewless_gateway.composition import open_gateway
from skewless_gateway.control_channel import answer_questions
from skewless_gateway.gateway import Gateway, metrics_text, readiness
from skewless_gateway.operations import OPEN_METRICS_ASKED, set_log_level
from skewless_gateway.runtime_metrics import RuntimeMetrics
from skewless_gateway.settings import GatewaySettings, load_gateway_settings
from skewless_gateway.stacks import stacks
from skewless_gateway.worker_process import WorkerStart
from skewless_gateway.worker_state import WorkerState
from skewless_http.http_server import HttpServer
from skewless_http.lifecycle import Lifecycle
from skewless_http.listening import ConnectionBoard, Turns, connections_max
from skewless_http.lobby import Lobby
from skewless_http.logs import configure_logging
from skewless_http.security.tls import open_tls
from skewless_http.server_metrics import ServerMetrics

_LOGGER = logging.getLogger("skewless_gateway.worker")  # whose `__name__` is `__main__` where it is started
EXIT_USAGE = 2
"""Exit status for a wrong setting."""
EXIT_AT_ONCE = 1
"""Exit status of a process that was asked twice to stop, and waited for nothing."""
_FLUSH_S = 1.0
"""What is left then, for the log to write what is in memory; sealing is left to the next start."""


class GatewayProcess:
    """The gateway and its server in this process's event loop."""

    def __init__(
        self, settings: GatewaySettings, listener: socket.socket, lifecycle: Lifecycle, *, turns: Turns | None = None
    ) -> None:
        self._settings = settings
        self._lifecycle = lifecycle
        self._gateway: Gateway | None = None
        self._started_s = asyncio.get_running_loop().time()
        self._tls = open_tls(settings)
        self.server = HttpServer(
            create_app(self._opened),
            listener,
            connections_max=connections_max(),
            tls=None if self._tls is None else self._tls.context,
            turns=turns,
            lobby=Lobby(
                is_crowded=lambda: self._gateway is not None and self._gateway.admission.is_refusing,
                answered=lambda: 0 if self._gateway is None else self._gateway.admission.answered,
            ),
        )

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Gateway]:
        async with open_gateway(self._settings, draining=lambda: self._lifecycle.is_draining, tls=self._tls) as gateway:
            self._gateway = gateway
            metrics = ServerMetrics(gateway.metrics.registry, self.server)
            runtime = RuntimeMetrics(gateway.metrics.registry)
            watching = asyncio.create_task(metrics.watch_event_loop())
            try:
                yield gateway
            finally:
                runtime.close()
                watching.cancel()
                with suppress(asyncio.CancelledError):
                    await watching

    @property
    def gateway(self) -> Gateway:
        """The gateway's parts. Raises Unavailable before they are there."""
        if self._gateway is None:
            raise Unavailable("the gateway", "it is starting")
        return self._gateway

    async def run(self) -> int:
        """Serve until asked to stop, after `server.open`; returns the exit status."""
        await self._lifecycle.stop.wait()
        _LOGGER.info("draining: %d requests on %d connections", self.server.requests, self.server.connections)
        self.server.let_go()
        await self._lifecycle.linger(self._settings.drain_delay_s)
        cut = await self.server.drain(self._settings.drain_s, at_once=self._lifecycle.at_once)
        if cut:
            _LOGGER.error("%d requests were not answered in time, and were cut", cut)
        _LOGGER.info("every request is answered; flushing the log and closing")
        return await self._close()

    async def _close(self) -> int:
        closing = asyncio.create_task(self.server.close())
        hurrying = asyncio.create_task(self._lifecycle.at_once.wait())
        await asyncio.wait({closing, hurrying}, return_when=asyncio.FIRST_COMPLETED, timeout=self._close_s)
        if self._lifecycle.at_once.is_set() and not closing.done():
            await asyncio.wait({closing}, timeout=_FLUSH_S)
        hurrying.cancel()
        status = EXIT_AT_ONCE if self._lifecycle.at_once.is_set() else 0
        if not closing.done():
            # The log is flushed first of all, so nothing is lost; threads that seal would keep the process.
            _LOGGER.warning("closing takes too long and is left; what is not sealed is by the next start")
            logging.shutdown()
            os._exit(status)
        await closing
        return status

    @property
    def _close_s(self) -> float:
        """How long closing may take; calls over gRPC get their time within it."""
        return WORKER_CLOSE_S + (self._settings.drain_s if self._settings.grpc_port else 0)

    def state(self) -> WorkerState:
        """What it costs nothing to tell."""
        return WorkerState(
            pid=os.getpid(),
            uptime_s=asyncio.get_running_loop().time() - self._started_s,
            listening=self.server.is_listening,
            draining=self._lifecycle.is_draining,
            connections=self.server.connections,
            requests=self.server.requests,
        )


class LocalOperations:
    """The `Operations` of one process."""

    def __init__(self, process: GatewayProcess) -> None:
        self._process = process

    async def metrics(self, *, open_metrics: bool = False) -> bytes:
        """See `Operations.metrics`."""
        return metrics_text(self._process.gateway, open_metrics=open_metrics)

    async def readiness(self) -> tuple[bool, dict[str, Any]]:
        """See `Operations.readiness`."""
        is_ready, parts = await readiness(self._process.gateway)
        return is_ready, {"parts": parts}

    async def workers(self) -> list[dict[str, Any]]:
        """See `Operations.workers`."""
        return [{"worker": 0, **msgspec.to_builtins(self._process.state())}]

    async def stacks(self) -> str:
        """See `Operations.stacks`."""
        return stacks()

    async def set_log_level(self, level: str) -> None:
        """See `Operations.set_log_level`."""
        set_log_level(level)


async def run_alone(settings: GatewaySettings, listener: socket.socket) -> int:
    """Serve in this process, with an admin listener beside; returns the exit status."""
    lifecycle = Lifecycle()
    process = GatewayProcess(settings, listener, lifecycle)
    lifecycle.follow_signals(
        on_hangup=lambda: _LOGGER.warning("one worker alone cannot be replaced; start more for that")
    )
    await process.server.open()
    async with admin_server(settings, LocalOperations(process)):
        process.server.listen()
        return await process.run()


async def run_worker(settings: GatewaySettings, start: WorkerStart) -> int:
    """Serve as one of several workers; returns the exit status."""
    lifecycle = Lifecycle()
    turns = ConnectionBoard(start.board, start.workers).turns_of(start.worker)
    process = GatewayProcess(settings, socket.socket(fileno=start.listener), lifecycle, turns=turns)
    lifecycle.follow_signals(on_hangup=lambda: None)
    answering = asyncio.create_task(_answer_parent(socket.socket(fileno=start.control), process, lifecycle))
    beating = asyncio.create_task(_keep_alive(settings.worker_silence_s))
    await process.server.open()
    if start.listen_now:
        process.server.listen()
    status = await process.run()
    for task in (answering, beating):
        task.cancel()
    await asyncio.gather(answering, beating, return_exceptions=True)
    return status


async def _answer_parent(control: socket.socket, process: GatewayProcess, lifecycle: Lifecycle) -> None:
    """Answer the parent's questions; when it is gone, nobody stops or replaces this worker any more, so it ends."""
    local = LocalOperations(process)

    async def state(_text: str) -> bytes:
        return msgspec.json.encode(process.state())

    async def metrics(text: str) -> bytes:
        return await local.metrics(open_metrics=text == OPEN_METRICS_ASKED)

    async def ready(_text: str) -> bytes:
        return msgspec.json.encode(await local.readiness())

    async def tell_stacks(_text: str) -> bytes:
        return stacks().encode()

    async def log_level(text: str) -> bytes:
        set_log_level(text)
        return b""

    async def listen(_text: str) -> bytes:
        process.server.listen()
        return b""

    handlers = {
        "state": state,
        "metrics": metrics,
        "readiness": ready,
        "stacks": tell_stacks,
        "log level": log_level,
        "listen": listen,
    }
    await answer_questions(control, handlers)
    lifecycle.lose_parent()


async def _keep_alive(silence_s: float) -> None:
    """End this process, with the stack of every thread, when its event loop is stuck and no parent ends it."""
    try:
        while True:
            faulthandler.dump_traceback_later(2 * silence_s, exit=True)
            await asyncio.sleep(WORKER_BEAT_S)
    finally:
        faulthandler.cancel_dump_traceback_later()


def main() -> None:
    """Entry of a worker: its start is its argument, its settings are the parent's."""
    # SIGABRT, by which a parent ends a worker that hangs, then tells where it hung.
    faulthandler.enable()
    start = msgspec.json.decode(sys.argv[1], type=WorkerStart)
    configure_logging(worker=start.worker)
    for descriptor in (start.listener, start.control, start.board):
        os.set_inheritable(descriptor, False)
    try:
        settings = load_gateway_settings()
        configure_logging(settings.log_format, worker=start.worker)
        sys.exit(uvloop.run(run_worker(settings, start)))
    except SkewlessError as error:
        _LOGGER.error("%s", error)  # noqa: TRY400  # what is wrong is explained by its message, not by a trace
        sys.exit(EXIT_USAGE)


if __name__ == "__main__":
    main()
