"""The gateway's gRPC server: on everybody's event loop, behind the same guard and admission, on a port of its own."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from tritonclient.grpc.service_pb2_grpc import add_GRPCInferenceServiceServicer_to_server

from skewless.errors import StackFailed
from skewless.limits import GRPC_IDLE_S_MAX, GRPC_MESSAGE_BYTES_MAX, GRPC_REQUESTS_MAX, GRPC_STREAMS_MAX
from skewless_gateway import grpc_health, oip_grpc
from skewless_gateway.gateway import Gateway
from skewless_gateway.grpc_metrics import GrpcMetrics

_KEEPALIVE_MS = 30_000
_KEEPALIVE_TIMEOUT_MS = 10_000
_PING_INTERVAL_MS_MIN = 10_000
"""A client that pings more often is hung up on by gRPC itself, which calls it too many pings."""
_OPTIONS = (
    ("grpc.max_receive_message_length", GRPC_MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", GRPC_MESSAGE_BYTES_MAX),
    ("grpc.max_concurrent_streams", GRPC_STREAMS_MAX),
    ("grpc.max_connection_idle_ms", int(GRPC_IDLE_S_MAX * 1_000)),
    # A peer that vanished without a FIN is noticed, and its calls end.
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", _PING_INTERVAL_MS_MIN),
)
_LOGGER = logging.getLogger(__name__)


@asynccontextmanager
async def serving_grpc(
    gateway: Gateway,
    metrics: GrpcMetrics,
    *,
    address: str,
    drain_s: float,
    shared_port: bool = False,
    credentials: Any | None = None,
) -> AsyncIterator[int]:
    """Inside, the protocol is served at `address` (host:port; port 0 takes a free one); yields the port.

    `shared_port`: several workers listen on it (SO_REUSEPORT). `credentials` are gRPC's ServerCredentials; without any
    it speaks no TLS. Leaving ends what is under way after `drain_s`. Raises StackFailed where the address is taken.
    """
    options = (*_OPTIONS, ("grpc.so_reuseport", int(shared_port)))
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=GRPC_REQUESTS_MAX)
    add_GRPCInferenceServiceServicer_to_server(oip_grpc.InferenceService(gateway, metrics), server)
    services = frozenset({oip_grpc.SERVICE, grpc_health.SERVICE})
    health = grpc_health.Health(lambda: oip_grpc.is_ready(gateway), services)
    server.add_generic_rpc_handlers((grpc_health.health_handler(health),))
    port = _bound(server, address, credentials)
    await server.start()
    _LOGGER.info("serving the Open Inference Protocol over gRPC on port %d", port)
    try:
        yield port
    finally:
        await server.stop(drain_s)


def _bound(server: Any, address: str, credentials: Any) -> int:
    try:
        port: int = (
            server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
        )
    except RuntimeError as error:
        raise StackFailed(
            f"the gateway cannot listen on {address} for gRPC: {error}",
            hint="another process may have the port; choose one with SKEWLESS_GATEWAY_GRPC_PORT",
        ) from error
    return port
