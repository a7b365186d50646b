"""gRPC's health protocol, `grpc.health.v1.Health`, as orchestrators probe it.

Its two messages have one field each and are declared here: the package that holds them wants another protobuf than the
rest of the gateway.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from skewless_gateway.grpc_calls import Context

SERVICE = "grpc.health.v1.Health"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
_POLL_S = 1.0
"""How often a watcher's state is looked at."""


def _messages() -> tuple[Any, Any]:
    field = descriptor_pb2.FieldDescriptorProto
    declared = descriptor_pb2.FileDescriptorProto(
        name="skewless/health.proto", package="grpc.health.v1", syntax="proto3"
    )
    request = declared.message_type.add(name="HealthCheckRequest")
    request.field.add(name="service", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    response = declared.message_type.add(name="HealthCheckResponse")
    # An enumeration on the wire is an int32, and the numbers are the constants above.
    response.field.add(name="status", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    # A pool of its own, which another declaration of the same names does not meet.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(declared.SerializeToString())
    names = ("HealthCheckRequest", "HealthCheckResponse")
    request_class, response_class = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"grpc.health.v1.{name}")) for name in names
    )
    return request_class, response_class


HealthRequest, HealthResponse = _messages()


class Health:
    """Answers for the whole server, and for the services in `services`, which are all there or not together."""

    def __init__(self, is_ready: Callable[[], Awaitable[bool]], services: frozenset[str]) -> None:
        self._is_ready = is_ready
        self._services = services

    async def check(self, request: Any, context: Context) -> Any:
        """The state now; NOT_FOUND for a service that is not here."""
        if request.service and request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service[:100]!r} here")
        return HealthResponse(status=await self._state(request.service))

    async def watch(self, request: Any, _context: Context) -> AsyncIterator[Any]:
        """The state now, and again whenever it is another."""
        told = None
        while True:
            state = await self._state(request.service)
            if state != told:
                told = state
                yield HealthResponse(status=state)
            await asyncio.sleep(_POLL_S)

    async def _state(self, service: str) -> int:
        if service and service not in self._services:
            return SERVICE_UNKNOWN
        return SERVING if await self._is_ready() else NOT_SERVING


def health_handler(health: Health) -> Any:
    """The service for a server to take."""
    codecs = {
        "request_deserializer": HealthRequest.FromString,
        "response_serializer": HealthResponse.SerializeToString,
    }
    methods = {
        "Check": grpc.unary_unary_rpc_method_handler(health.check, **codecs),
        "Watch": grpc.unary_stream_rpc_method_handler(health.watch, **codecs),
    }
    return grpc.method_handlers_generic_handler(SERVICE, methods)
