"""Opens the admin listener beside whatever answers for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from skewless.limits import ADMIN_CONNECTIONS_MAX
from skewless_gateway.admin import admin_app
from skewless_gateway.operations import Operations
from skewless_gateway.settings import GatewaySettings
from skewless_http.http_server import HttpServer
from skewless_http.listening import open_listener


@asynccontextmanager
async def admin_server(settings: GatewaySettings, operations: Operations) -> AsyncIterator[None]:
    """The admin listener, where the settings ask for one; it answers until the block is left.

    Raises InvalidSettings where its port is taken.
    """
    if not settings.admin_port:
        yield
        return
    listener = open_listener(settings.admin_host, settings.admin_port, variable="SKEWLESS_GATEWAY_ADMIN_PORT")
    server = HttpServer(admin_app(operations, settings.admin_token), listener, connections_max=ADMIN_CONNECTIONS_MAX)
    await server.open()
    server.listen()
    try:
        yield
    finally:
        await server.drain(0)
        await server.close()
