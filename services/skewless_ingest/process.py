"""The ingestion service's process: it answers until it is asked to stop, and loses nothing on the way.

draining       /readyz answers 503 and each answer closes its connection, for `drain_delay_s`
not listening  what was accepted is answered, for up to `drain_s`
closing        what is being judged is kept, what is being delivered is; the rest waits in the outbox
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from http import HTTPStatus

import msgspec
from prometheus_client import generate_latest

from skewless.adapters import status_listener
from skewless.adapters.status_listener import PLAIN, Answer
from skewless.limits import SHIPPER_REQUEST_S
from skewless.settings import variable_name
from skewless_http.http_server import HttpServer
from skewless_http.lifecycle import Lifecycle
from skewless_http.listening import connections_max, open_listener
from skewless_http.security.tls import ServerTls, open_tls
from skewless_http.server_metrics import ServerMetrics
from skewless_ingest.app import create_app
from skewless_ingest.composition import open_service
from skewless_ingest.pages import TEXT
from skewless_ingest.service import IngestService
from skewless_ingest.settings import IngestSettings

_LOGGER = logging.getLogger(__name__)
EXIT_AT_ONCE = 1
"""Exit status of a process that was asked twice to stop, and waited for nothing."""


class IngestProcess:
    """The service and its server in this process's event loop."""

    def __init__(self, settings: IngestSettings, lifecycle: Lifecycle) -> None:
        """Raises InvalidSettings where a port or a certificate cannot be used."""
        self._settings = settings
        self._lifecycle = lifecycle
        self._service: IngestService | None = None
        self._tls: ServerTls | None = open_tls(settings)
        listener = open_listener(settings.host, settings.port, variable=variable_name(IngestSettings, "port"))
        self.server = HttpServer(
            create_app(self._opened),
            listener,
            connections_max=connections_max(),
            tls=None if self._tls is None else self._tls.context,
        )

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[IngestService]:
        draining = lambda: self._lifecycle.is_draining  # noqa: E731  # read whenever somebody asks
        async with open_service(self._settings, draining=draining, tls=self._tls) as service:
            self._service = service
            metrics = ServerMetrics(service.metrics.registry, self.server)
            watching = asyncio.create_task(metrics.watch_event_loop())
            try:
                yield service
            finally:
                watching.cancel()
                with suppress(asyncio.CancelledError):
                    await watching

    async def run(self) -> int:
        """Serve until asked to stop; returns the exit status."""
        self._lifecycle.follow_signals(on_hangup=lambda: _LOGGER.warning("there is nothing to load anew"))
        await self.server.open()
        with self._admin():
            self.server.listen()
            _LOGGER.info("taking rows on %s:%d", self._settings.host, self._settings.port)
            await self._lifecycle.stop.wait()
            return await self._stop()

    async def _stop(self) -> int:
        _LOGGER.info("draining: %d requests on %d connections", self.server.requests, self.server.connections)
        self.server.let_go()
        await self._lifecycle.linger(self._settings.drain_delay_s)
        cut = await self.server.drain(self._settings.drain_s, at_once=self._lifecycle.at_once)
        if cut:
            _LOGGER.error("%d requests were not answered in time, and were cut", cut)
        await self.server.close()
        _LOGGER.info("ended; what was accepted and is not delivered waits in the outbox")
        return EXIT_AT_ONCE if self._lifecycle.at_once.is_set() else 0

    def _admin(self) -> AbstractContextManager[int]:
        """The listener for metrics and health, in a thread of its own, where the settings ask for one."""
        settings = self._settings
        if not settings.admin_port:
            return nullcontext(0)
        answers: dict[str, Answer] = {
            "/metrics": lambda: (HTTPStatus.OK, TEXT.decode(), self._page()),
            "/healthz": lambda: (HTTPStatus.OK, PLAIN, b"ok\n"),
            "/readyz": self._ready,
        }
        return status_listener.listening(
            settings.admin_host,
            settings.admin_port,
            answers,
            setting=variable_name(IngestSettings, "admin_port"),
            request_s=SHIPPER_REQUEST_S,
            token="" if settings.admin_token is None else settings.admin_token.get_secret_value(),
        )

    def _page(self) -> bytes:
        return b"" if self._service is None else generate_latest(self._service.metrics.registry)

    def _ready(self) -> tuple[HTTPStatus, str, bytes]:
        parts = {} if self._service is None else self._service.parts()
        is_ready = bool(parts) and all(part["ok"] for part in parts.values())
        status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
        return status, "application/json", msgspec.json.encode({"ready": is_ready, "parts": parts})
